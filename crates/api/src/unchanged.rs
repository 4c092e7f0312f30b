//! Which functions of a deployment serve already as they are declared, so that their warm instances can stay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kip_spec::function::{FunctionSpec, Program};
use kip_spec::{FunctionName, VersionId};
use kip_store::TrafficShare;
use kip_wire::VersionStatus;

use crate::Api;

/// Files that are looked at; a folder with more counts as changed.
const MOST_FILES: usize = 20_000;
/// Folders whose files are made by tools: they change without a change of the function.
const MADE: [&str; 7] = ["__pycache__", "node_modules", "target", "venv", ".venv", ".git", ".cache"];

/// Whose the files of a deployment are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileOwner {
    /// The deployer's, who changes them; an administrator's functions may write the folders that they run in.
    Deployer,
    /// The model cache's, which never changes them: no function may write there.
    Cache,
}

/// Splits what is declared into what serves unchanged, with its version, and the rest.
pub(crate) async fn split(
    api: &Api,
    specs: Vec<FunctionSpec>,
    traffic: &BTreeMap<FunctionName, Vec<TrafficShare>>,
    owner: FileOwner,
) -> (Vec<(FunctionName, VersionId)>, Vec<FunctionSpec>) {
    let (mut same, mut rest) = (Vec::new(), Vec::new());
    for spec in specs {
        let wanted = traffic.get(&spec.name).map(Vec::as_slice).unwrap_or_default();
        let same_traffic = api.control.cell(spec.name.as_str()).is_some_and(|cell| cell.traffic() == wanted);
        match serving(api, &spec, owner).await.filter(|_| same_traffic) {
            Some(version) => same.push((spec.name, version)),
            None => rest.push(spec),
        }
    }
    (same, rest)
}

/// The version that serves, if it is this one, nothing newer is on its way, it starts, and no file of it is newer.
async fn serving(api: &Api, spec: &FunctionSpec, owner: FileOwner) -> Option<VersionId> {
    let cell = api.control.cell(spec.name.as_str())?;
    let (version, info) = (cell.serving(), cell.info());
    let newest = info.outcomes.last();
    let settled = newest.is_some_and(|(id, status)| *id == version.id && *status == VersionStatus::Serving);
    if version.spec != *spec || !settled || info.failed_starts > 0 || info.crash_loop.is_some() {
        return None;
    }
    // Another model with the same contents makes links to them, which looks like a change.
    // A snapshot is the same if its files are.
    if owner == FileOwner::Cache || spec.code.snapshot.is_some() {
        return Some(version.id);
    }
    let made = api.control.deployed_at(spec.name.as_str()).await?;
    let program = spec.program.clone();
    let changed = kip_host::tasks::blocking("look for changes", move || is_newer(&program, made)).await;
    (changed == Some(false)).then_some(version.id)
}

fn is_newer(program: &Program, since: i64) -> bool {
    match program {
        Program::Command { dir, .. } => folder_is_newer(dir, since),
        // Its weights may lie beside it.
        // It is the one that its id names.
        Program::Image(_) => false,
        Program::Model { path } => path.parent().is_none_or(|folder| folder_is_newer(folder, since)),
    }
}

fn folder_is_newer(folder: &Path, since: i64) -> bool {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { return true };
        for entry in entries {
            let Ok(entry) = entry else { return true };
            seen += 1;
            let name = entry.file_name();
            if MADE.iter().any(|made| name == *made) {
                continue;
            }
            let Ok(metadata) = entry.path().metadata() else { continue };
            if seen > MOST_FILES || (metadata.is_file() && modified(&metadata) >= since) {
                return true;
            }
            // A link to a folder may lead in a circle.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    false
}

/// Milliseconds since 1970. A file changes in more ways than by being written: the later of both times counts.
fn modified(metadata: &std::fs::Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    let millis = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000);
    millis(metadata.mtime(), metadata.mtime_nsec()).max(millis(metadata.ctime(), metadata.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_file_anywhere_below_counts_and_those_of_tools_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let file = folder.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "x").unwrap();
            modified(&file.metadata().unwrap())
        };
        let first = write("a/b/code.py");
        assert!(folder_is_newer(folder.path(), first));
        assert!(!folder_is_newer(folder.path(), first + 1));
        let later = first + 1;
        while write("a/__pycache__/code.pyc") <= later {}
        assert!(!folder_is_newer(folder.path(), later), "what Python makes is no change");
        while write("a/c.txt") < later {}
        assert!(folder_is_newer(folder.path(), later));
        assert!(folder_is_newer(Path::new("/no/such/folder"), 0));
    }
}
