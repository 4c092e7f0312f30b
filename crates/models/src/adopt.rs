//! Models that other programs keep: used where they are. The model's folder has links to their files; nothing of them is copied, changed or
//! evicted. Digests that names of files claim are checked when an instance first starts from them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kip_host::clock::wall_millis;
use kip_host::directory::open_regular;
use kip_host::tasks;

use crate::cache::sums_of;
use crate::digest::Digest;
use crate::error::Error;
use crate::hub::{ListedFile, Listing};
use crate::layouts::{self, FoundModel, RefusedModel};
use crate::listing::Origin;
use crate::record::{Record, RecordedFile};
use crate::service::{Models, in_cache};
use crate::source::Source;

/// What a folder of another program brought.
#[derive(Debug, Clone, Default)]
pub struct Adoptions {
    /// The models that can be used now.
    pub adopted: Vec<Record>,
    /// What looks like a model and is not taken, with the reason.
    pub refused: Vec<(PathBuf, String)>,
}

impl Models {
    /// Takes the models of a folder as they are, read-only.
    ///
    /// Dropped, it goes on.
    ///
    /// # Errors
    /// When the folder cannot be read, or has no model.
    pub async fn adopt(&self, folder: PathBuf) -> Result<Adoptions, Error> {
        let (cache, shown) = (self.shared.cache.clone(), folder.clone());
        let foreign = self.shared.options.foreign_ids;
        let own = self.shared.options.folder.clone();
        let done = in_cache(&self.shared.cache, move || {
            let failed = |error: &io::Error| Error::Adoption { folder: shown.clone(), reason: error.to_string() };
            let root = fs::canonicalize(&shown).map_err(|error| failed(&error))?;
            let own = fs::canonicalize(&own).map_err(|error| Error::cache(&own, &error))?;
            if root.starts_with(&own) || own.starts_with(&root) {
                return Err(failed(&io::Error::other("it holds the model cache of this server, or is a part of it")));
            }
            let found = layouts::look(&root).map_err(|error| failed(&error))?;
            let refused = found.refused.into_iter().map(|RefusedModel { place, why }| (place, why));
            let mut done = Adoptions { adopted: Vec::new(), refused: refused.collect() };
            for model in found.models {
                let place = PathBuf::from(&model.source);
                match take(&cache, model, &root, foreign) {
                    Ok(record) => done.adopted.push(record),
                    Err(why) => done.refused.push((place, why)),
                }
            }
            Ok(done)
        })
        .await?;
        if done.adopted.is_empty() {
            let mut whys = done.refused.iter().map(|(place, why)| format!("{}: {why}", place.display()));
            let reason = whys.next().unwrap_or_else(|| "it has no files of a model".to_owned());
            return Err(Error::Adoption { folder, reason });
        }
        for record in &done.adopted {
            tracing::info!(model = record.id(), folder = %folder.display(), "a model of another program is used where it is");
        }
        Ok(done)
    }

    /// The model that was adopted from exactly this folder.
    pub fn adopted_at(&self, folder: &Path) -> Option<Record> {
        let root = fs::canonicalize(folder).ok()?;
        let source = root.display().to_string();
        self.shared.cache.records().into_iter().find(|record| record.adopted.is_some() && record.source == source)
    }

    /// The files of a model that only adoption brings.
    pub(crate) fn adopted_listing(&self, source: &Source) -> Result<Listing, Error> {
        let record = self.shared.cache.find(&source.name())?;
        let listed = |file: &RecordedFile| ListedFile { path: file.path.clone(), size: file.size, digest: None };
        let files = record.files.iter().map(listed).collect();
        Ok(Listing { commit: record.commit, licence: record.licence, task: record.task, files })
    }

    /// A file of an adopted model that may be the one that a source lists: by path, size, and the digest that its name claims.
    pub(crate) fn adopted_candidate(&self, source: &Source, file: &ListedFile) -> Option<RecordedFile> {
        let name = source.name();
        let records = self.shared.cache.records();
        let adopted = records.into_iter().filter(|record| record.adopted.is_some() && record.source == name);
        let fits = |known: &RecordedFile| {
            let claims = match &file.digest {
                Some(Digest::Sha256(sha256)) => known.sha256.is_empty() || known.sha256 == *sha256,
                Some(Digest::GitBlob(git)) => known.git.is_empty() || known.git == *git,
                None => matches!(source, Source::Adopted(_)),
            };
            let place = known.place.as_deref();
            let is_there =
                |place: &Path| fs::symlink_metadata(place).is_ok_and(|data| data.is_file() && data.len() == known.size);
            known.path == file.path && known.size == file.size && claims && place.is_some_and(is_there)
        };
        adopted
            .flat_map(|record| record.files.into_iter().filter(move |file| !record.damaged.contains(&file.path)))
            .find(fits)
    }

    /// The same, with the digest that the source wants. What no name claims is read.
    pub(crate) async fn adopted_content(
        &self,
        origin: &Origin,
        file: &ListedFile,
    ) -> Result<Option<RecordedFile>, Error> {
        let Some(found) = self.adopted_candidate(&origin.source, file) else { return Ok(None) };
        let claimed = match &file.digest {
            Some(Digest::Sha256(_)) => !found.sha256.is_empty(),
            Some(Digest::GitBlob(_)) | None => !found.git.is_empty() || file.digest.is_none(),
        };
        if claimed {
            return Ok(Some(found));
        }
        let (wanted, digest) = (found.clone(), file.digest.clone());
        in_cache(&self.shared.cache, move || {
            let Some(place) = &wanted.place else { return Ok(None) };
            let (sums, _) = sums_of(place).map_err(|error| Error::cache(place, &error))?;
            let fits = digest.is_none_or(|digest| sums.fits(&digest));
            Ok(fits.then_some(RecordedFile { sha256: sums.sha256, git: sums.git, ..wanted }))
        })
        .await
    }

    /// Checks the digests of an adopted model once, beside the first start from it.
    pub(crate) fn verify_beside(&self, record: &Record) {
        if record.adopted.is_none() || record.verified.is_some() || !self.shared.verifying.lock().insert(record.key()) {
            return;
        }
        let (models, record) = (self.clone(), record.clone());
        tasks::spawn("model verification", async move {
            let (key, model) = (record.key(), record.id());
            match models.verify(record).await {
                Ok(info) if info.damaged.is_empty() => {
                    tracing::info!(model, "the files of an adopted model are as their names say")
                }
                Ok(info) => {
                    tracing::warn!(model, files = info.damaged.join(", "), "files of an adopted model are damaged")
                }
                Err(error) => tracing::warn!(model, %error, "the files of an adopted model are not verified"),
            }
            models.shared.verifying.lock().remove(&key);
        });
    }
}

/// Records a model and makes its folder of links.
fn take(cache: &crate::cache::Cache, model: FoundModel, root: &Path, foreign: bool) -> Result<Record, String> {
    let FoundModel { source, commit, revisions, files } = model;
    for file in &files {
        check(&file.place, foreign)?;
    }
    let before = cache.record(&source, &commit);
    if let Some(before) = before.as_ref().filter(|before| before.adopted.is_none() && before.evicted.is_none()) {
        return Err(format!("the cache has {} already", before.id()));
    }
    let file = |file: layouts::FoundFile| RecordedFile {
        path: file.path,
        size: file.size,
        sha256: file.sha256.unwrap_or_default(),
        git: file.git.unwrap_or_default(),
        place: Some(file.place),
    };
    let record = Record {
        source,
        commit,
        revisions,
        licence: before.as_ref().and_then(|before| before.licence.clone()),
        task: before.as_ref().and_then(|before| before.task.clone()),
        files: files.into_iter().map(file).collect(),
        pinned: before.is_some_and(|before| before.pinned),
        pulled: wall_millis(),
        verified: None,
        damaged: Vec::new(),
        endpoint: None,
        token_secret: None,
        evicted: None,
        adopted: Some(root.to_owned()),
    };
    match cache.publish(&record) {
        Ok(missing) if missing.is_empty() => {}
        Ok(missing) => return Err(format!("{} is gone", missing[0])),
        Err(error) => return Err(kip_spec::Problem::from(error).to_string()),
    }
    let links = cache.placed(&record);
    let by_path = links.iter().any(|file| !file.path.starts_with(cache.tree(&record)));
    if by_path
        && foreign
        && let Some(closed) = record.files.iter().find_map(|file| closed_way(file.place.as_deref()?))
    {
        let _ = cache.remove(&record);
        return Err(format!(
            "it is on another file system than the model cache, and functions, which run as other users, cannot pass {}: chmod o+x it, or move models.folder to that file system",
            closed.display()
        ));
    }
    Ok(record)
}

/// Whether a file can be read by those that are to read it.
fn check(place: &Path, foreign: bool) -> Result<(), String> {
    let file = open_regular(place, fs::OpenOptions::new().read(true))
        .map_err(|error| format!("{}: {error}", place.display()))?;
    let data = file.metadata().map_err(|error| format!("{}: {error}", place.display()))?;
    if foreign && data.permissions().mode() & 0o004 == 0 {
        return Err(format!(
            "functions run as other users and cannot read {}: chmod o+r it, or pull the model into the cache",
            place.display()
        ));
    }
    Ok(())
}

/// The first folder above a file that others cannot pass.
fn closed_way(place: &Path) -> Option<PathBuf> {
    let closed = |folder: &&Path| fs::metadata(folder).is_ok_and(|data| data.permissions().mode() & 0o001 == 0);
    place.ancestors().skip(1).filter(closed).last().map(Path::to_owned)
}
