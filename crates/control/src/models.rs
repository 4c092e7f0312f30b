//! Models of the cache and the functions that need them: who uses which, and that the files are there when an instance starts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use kip_engine::{StartError, StartProblem};
use kip_models::{ModelLoad, ModelUsers};
use kip_spec::function::{FunctionSpec, Program};
use kip_spec::{InstanceId, Problem};
use kip_wire::InstanceInfo;

use crate::cell::Cell;
use crate::control::Control;
use crate::shared::Shared;

/// A pull is shown as something that an instance waits for after so long.
const BRIEF: Duration = Duration::from_millis(20);

/// Whether a declaration names a folder, or something in it.
pub(crate) fn names_folder(spec: &FunctionSpec, folder: &Path) -> bool {
    let text = folder.to_string_lossy();
    let named = |word: &str| {
        word.match_indices(text.as_ref()).any(|(at, found)| {
            let next = word[at + found.len()..].chars().next();
            next.is_none_or(|next| !next.is_ascii_alphanumeric() && !matches!(next, '-' | '_' | '.'))
        })
    };
    let of_program = match &spec.program {
        Program::Model { path } => path.starts_with(folder),
        Program::Command { argv, dir } => dir.starts_with(folder) || argv.iter().any(|word| named(word)),
        Program::Image(container) => {
            container.mounts.iter().any(|mount| named(&mount.source)) || container.argv.iter().any(|word| named(word))
        }
    };
    of_program || spec.env.values().any(|value| named(value))
}

impl Shared {
    /// Of these folders, those that stored versions or live instances need, with the names of their functions. A stored version is one that
    /// the collection of versions keeps: it serves, can be rolled back to, has a number or an alias, is named by a task, or is young.
    pub(crate) async fn model_users(
        &self,
        folders: &[PathBuf],
    ) -> Result<BTreeMap<PathBuf, BTreeSet<String>>, kip_store::Error> {
        let parents: BTreeSet<&Path> = folders.iter().filter_map(|folder| folder.parent()).collect();
        let in_json = |folder: &&Path| {
            let text = serde_json::to_string(&folder.to_string_lossy()).unwrap_or_default();
            text.trim_matches('"').to_owned()
        };
        let mut specs = self.changes.read().revisions_with(parents.iter().map(in_json).collect()).await?;
        for cell in self.all_cells() {
            let inner = cell.lock();
            specs.extend(inner.links.values().map(|link| link.version.spec.clone()));
            let starting = inner.starting.iter().filter_map(|instance| {
                let version = cell.look(&inner, |core| core.instance(*instance).map(|one| one.version))??;
                inner.versions.get(&version)
            });
            specs.extend(starting.map(|version| version.spec.clone()));
        }
        let mut users: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
        for spec in specs {
            for folder in folders.iter().filter(|folder| names_folder(&spec, folder)) {
                users.entry(folder.clone()).or_default().insert(spec.name.to_string());
            }
        }
        Ok(users)
    }

    /// Notes on an instance that it waits for its model.
    pub(crate) fn show_fetch(&self, info: &mut InstanceInfo) {
        let Some(models) = self.options.models.as_ref().filter(|_| info.waits_for.is_none()) else { return };
        if let Some(record) = self.fetching.lock().get(&info.id) {
            let far = models.fetching(record).unwrap_or_else(|| "it begins".to_owned());
            info.waits_for = Some(format!("its model {}, which is being fetched: {far}", record.id()));
        }
    }

    /// Makes sure of the files of the models that an instance is started from. What is not on the disk is pulled, for as long as a start may take; the
    /// pull goes on after that, and the next start joins it.
    pub(crate) async fn provide_models(
        &self,
        instance: InstanceId,
        spec: &FunctionSpec,
    ) -> Result<Vec<ModelLoad>, StartError> {
        let Some(models) = &self.options.models else { return Ok(Vec::new()) };
        let records = models.needed_by(|folder| names_folder(spec, folder));
        let mut loads = Vec::with_capacity(records.len());
        for record in records {
            let failed =
                |detail: String| StartError { problem: StartProblem::ModelMissing, detail, last_lines: Vec::new() };
            let providing = models.provide(&record, &*self.options.secrets);
            let _shown = FetchingMark { shared: self, instance };
            let mut providing = std::pin::pin!(providing);
            let provided = match tokio::time::timeout(BRIEF, &mut providing).await {
                Ok(provided) => Ok(provided),
                Err(_) => {
                    self.fetching.lock().insert(instance, record.clone());
                    tokio::time::timeout(spec.timeouts.startup.to_std(), providing).await
                }
            };
            match provided {
                Ok(Ok(load)) => loads.push(load),
                Ok(Err(error)) => {
                    let problem = Problem::from(error);
                    let cause = problem.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
                    let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                    return Err(failed(format!("{}: {problem}{cause}{hint}", record.id())));
                }
                Err(_) => {
                    let far = models.fetching(&record).unwrap_or_else(|| "it begins".to_owned());
                    return Err(failed(format!("{} is being fetched: {far}; the fetch goes on", record.id())));
                }
            }
        }
        Ok(loads)
    }
}

/// Takes an instance from the list of those that wait for a model, however the wait ends.
struct FetchingMark<'a> {
    shared: &'a Shared,
    instance: InstanceId,
}

impl Drop for FetchingMark<'_> {
    fn drop(&mut self) {
        self.shared.fetching.lock().remove(&self.instance);
    }
}

/// The functions of a control room as users of models. The models outlive the room.
#[derive(Debug)]
struct Functions(Weak<Shared>);

impl ModelUsers for Functions {
    fn users(&self, folders: Vec<PathBuf>) -> BoxFuture<'static, Option<BTreeMap<PathBuf, BTreeSet<String>>>> {
        let shared = self.0.upgrade();
        async move {
            match shared?.model_users(&folders).await {
                Ok(users) => Some(users),
                Err(error) => {
                    tracing::warn!(%error, "which models are needed cannot be found out: none is evicted");
                    None
                }
            }
        }
        .boxed()
    }
}

impl Control {
    /// The functions of this room keep the models of the cache that they need.
    pub(crate) fn keep_models(&self) {
        if let Some(models) = &self.shared.options.models {
            models.serve(Arc::new(Functions(Arc::downgrade(&self.shared))));
        }
    }

    /// Of these folders, those that kept versions or live instances need, with the names of their functions.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub async fn model_users(&self, folders: &[PathBuf]) -> Result<BTreeMap<PathBuf, BTreeSet<String>>, crate::Error> {
        Ok(self.shared.model_users(folders).await?)
    }

    /// The functions with live instances that need a folder.
    pub fn live_users(&self, folder: &Path) -> BTreeSet<String> {
        let of = |cell: &Arc<Cell>| {
            let inner = cell.lock();
            let needs = inner.links.values().any(|link| names_folder(&link.version.spec, folder));
            needs.then(|| cell.name().to_string())
        };
        self.shared.all_cells().iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_by_itself_and_by_what_is_in_it_but_not_by_its_neighbour() {
        let folder = Path::new("/data/models/trees/m-1");
        let of = |word: &str| {
            let program = Program::Command { argv: vec![word.to_owned()], dir: "/".into() };
            FunctionSpec::new("f".parse().unwrap(), program)
        };
        for word in ["/data/models/trees/m-1", "--model=/data/models/trees/m-1/a.gguf", "x:/data/models/trees/m-1:ro"] {
            assert!(names_folder(&of(word), folder), "{word}");
        }
        assert!(!names_folder(&of("/data/models/trees/m-12/a.gguf"), folder));
        let mut spec = of("x");
        spec.env.insert("MODEL".to_owned(), "/data/models/trees/m-1/a".to_owned());
        assert!(names_folder(&spec, folder));
        spec.program = Program::Model { path: "/data/models/trees/m-12/a.onnx".into() };
        spec.env.clear();
        assert!(!names_folder(&spec, folder));
    }
}
