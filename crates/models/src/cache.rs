//! The files of models on the disk, each content once, and the records that say which model has which.
//!
//! | below the folder | what |
//! |---|---|
//! | `blobs/{sha256}` | contents, read-only, written once |
//! | `trees/{key}/…` | a model's files at their paths: hard links to contents, which instances read |
//! | `records/{key}.json` | a model; written after its last file is there, so a model without a record is none |
//! | `partial/…` | downloads under way |
//! | `uses.json` | when models were used (`uses.rs`) |
//!
//! An evicted model keeps its record and has no tree; its contents are gone unless another model has them.
//!
//! All calls block: they are for threads that may.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kip_host::directory::{create_private, open_regular, read_regular, write_whole};
use kip_wire::ModelSize;
use parking_lot::{Mutex, RwLock};

use crate::digest::{Digest, Hasher, Sums};
use crate::error::Error;
use crate::links;
use crate::partial;
use crate::path::FilePath;
use crate::record::{Eviction, Record, RecordedFile, key};
use crate::residency::PlacedFile;

/// Bytes of a record that are read at most.
const LARGEST_RECORD: u64 = 64 << 20;
/// Bytes that are hashed at once.
const BUFFER: usize = 1 << 20;

/// The cache of a server.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    records: RwLock<BTreeMap<String, Record>>,
    /// Held while links are made or contents removed: a content that is about to be linked is not removed.
    links: Mutex<()>,
}

impl Cache {
    /// Opens the cache. Folders of models without a record are left from a pull that did not end, and go.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        for part in ["", "blobs", "trees", "records", "partial"] {
            let path = folder.join(part);
            create_private(&path).map_err(|error| Error::cache(&path, &error))?;
        }
        let cache = Self { folder: folder.to_owned(), records: RwLock::default(), links: Mutex::new(()) };
        let mut records = BTreeMap::new();
        for path in entries(&folder.join("records"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(stem) = name.strip_suffix(".json") else { continue };
            let read = read_regular(&path, LARGEST_RECORD).map_err(|error| error.to_string());
            match read.and_then(|text| serde_json::from_slice::<Record>(&text).map_err(|error| error.to_string())) {
                Ok(record) if record.key() == stem => drop(records.insert(stem.to_owned(), record)),
                Ok(_) => tracing::warn!(file = %path.display(), "the record of a model has another model's name"),
                Err(error) => tracing::warn!(error, file = %path.display(), "the record of a model cannot be read"),
            }
        }
        for path in entries(&folder.join("trees"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let unreadable = folder.join("records").join(format!("{name}.json")).exists();
            if !records.contains_key(&name) && !unreadable {
                let _ = fs::remove_dir_all(&path);
            }
        }
        *cache.records.write() = records;
        Ok(cache)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder with the files of a model.
    pub(crate) fn tree(&self, record: &Record) -> PathBuf {
        self.folder.join("trees").join(record.key())
    }

    pub(crate) fn blob(&self, sha256: &str) -> PathBuf {
        self.folder.join("blobs").join(sha256)
    }

    /// Where a content that is not known yet is downloaded to.
    pub(crate) fn partial(&self, name: &str) -> PathBuf {
        self.folder.join("partial").join(format!("{name}.part"))
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.read().values().cloned().collect()
    }

    pub(crate) fn record(&self, source: &str, commit: &str) -> Option<Record> {
        self.records.read().get(&key(source, commit)).cloned()
    }

    /// The model that a text means; of several commits the one that was pulled last.
    pub(crate) fn find(&self, text: &str) -> Result<Record, Error> {
        let records = self.records.read();
        let meant = records.values().filter(|record| record.is_meant(text) || record.id() == text);
        meant.max_by_key(|record| record.pulled).cloned().ok_or_else(|| Error::NotCached(text.to_owned()))
    }

    /// The sums of a content that a model has, by what a hub calls it.
    pub(crate) fn content(&self, digest: &Digest, size: u64) -> Option<Sums> {
        let sums = match digest {
            Digest::Sha256(sha256) => self.known(|file| file.sha256 == *sha256)?,
            Digest::GitBlob(git) => self.known(|file| file.git == *git)?,
        };
        self.is_there(&sums.sha256, size).then_some(sums)
    }

    fn is_there(&self, sha256: &str, size: u64) -> bool {
        fs::symlink_metadata(self.blob(sha256)).is_ok_and(|data| data.is_file() && data.len() == size)
    }

    /// The same of a content that is there and that no model has yet: of another pull, or of one that did not end. It is read again.
    pub(crate) fn stray_content(&self, digest: &Digest, size: u64) -> Option<Sums> {
        let Digest::Sha256(sha256) = digest else { return None };
        if !self.is_there(sha256, size) {
            return None;
        }
        let (sums, _) = sums_of(&self.blob(sha256)).ok()?;
        sums.fits(digest).then_some(sums)
    }

    fn known(&self, fits: impl Fn(&RecordedFile) -> bool) -> Option<Sums> {
        let records = self.records.read();
        let whole =
            records.values().flat_map(|record| record.files.iter().filter(|file| !record.damaged.contains(&file.path)));
        let found = whole.into_iter().find(|file| fits(file))?;
        Some(Sums { sha256: found.sha256.clone(), git: found.git.clone() })
    }

    /// Links the files of a model to its contents and writes its record. The contents that are missing are the answer; then nothing
    /// is recorded.
    pub(crate) fn publish(&self, record: &Record) -> Result<Vec<FilePath>, Error> {
        let _links = self.links.lock();
        let tree = self.tree(record);
        let mut missing = Vec::new();
        for file in &record.files {
            let (blob, link) = (self.blob(&file.sha256), tree.join(file.path.as_str()));
            let folder = link.parent().unwrap_or(&tree);
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .map_err(|error| Error::cache(folder, &error))?;
            if links::is_same(&link, file.place.as_ref().unwrap_or(&blob)) {
                continue;
            }
            let _ = fs::remove_file(&link);
            let linked = match &file.place {
                Some(place) => links::link(place, &link, file.size),
                None => fs::hard_link(&blob, &link),
            };
            match linked {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(file.path.clone()),
                Err(error) => return Err(Error::cache(&link, &error)),
            }
        }
        if missing.is_empty() {
            self.write(record)?;
        }
        Ok(missing)
    }

    /// Writes a record of files that are there.
    fn write(&self, record: &Record) -> Result<(), Error> {
        let path = self.folder.join("records").join(format!("{}.json", record.key()));
        let text = serde_json::to_vec_pretty(record).map_err(|error| Error::cache(&path, &io::Error::other(error)))?;
        write_whole(&path, &text).map_err(|error| Error::cache(&path, &error))?;
        self.records.write().insert(record.key(), record.clone());
        Ok(())
    }

    /// Changes a record, if the model is still there.
    pub(crate) fn change(&self, record: &Record, change: impl FnOnce(&mut Record)) -> Result<Record, Error> {
        let _links = self.links.lock();
        let current = self.records.read().get(&record.key()).cloned();
        let mut current = current.ok_or_else(|| Error::NotCached(record.id()))?;
        change(&mut current);
        self.write(&current)?;
        Ok(current)
    }

    /// Removes a model, and the contents that no other model has.
    pub(crate) fn remove(&self, record: &Record) -> Result<(), Error> {
        let _links = self.links.lock();
        let path = self.folder.join("records").join(format!("{}.json", record.key()));
        // The record first: a model that is half removed is none.
        fs::remove_file(&path).map_err(|error| Error::cache(&path, &error))?;
        self.records.write().remove(&record.key());
        self.remove_files(record)?;
        Ok(())
    }

    /// Removes the files of a model and keeps its record. Gives the bytes that became free.
    pub(crate) fn evict(&self, record: &Record, why: Eviction) -> Result<u64, Error> {
        let _links = self.links.lock();
        let current = self.records.read().get(&record.key()).cloned();
        let mut current = current.ok_or_else(|| Error::NotCached(record.id()))?;
        if current.evicted.is_some() {
            return Ok(0);
        }
        // The record first: what is half removed is pulled again.
        current.evicted = Some(why);
        current.damaged.clear();
        self.write(&current)?;
        self.remove_files(&current)
    }

    /// Removes the links of a model, and the contents that no other model has; gives their bytes.
    fn remove_files(&self, record: &Record) -> Result<u64, Error> {
        let tree = self.tree(record);
        match fs::remove_dir_all(&tree) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::cache(&tree, &error)),
            _ => {}
        }
        let kept = self.contents();
        let gone: BTreeMap<&str, u64> = record
            .files
            .iter()
            .filter(|file| file.place.is_none() && !kept.contains(&file.sha256))
            .map(|file| (file.sha256.as_str(), file.size))
            .collect();
        Ok(gone
            .into_iter()
            .filter(|(sha256, _)| fs::remove_file(self.blob(sha256)).is_ok())
            .map(|(_, size)| size)
            .sum())
    }

    /// Removes contents without a model and parts of downloads that nobody touched since `before`. Gives the bytes that became free.
    pub(crate) fn remove_strays(&self, before: SystemTime) -> Result<u64, Error> {
        let _links = self.links.lock();
        let kept = self.contents();
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut freed = 0;
        let blobs = entries(&self.folder.join("blobs"))?.into_iter().filter(|path| !kept.contains(&name(path)));
        for path in blobs.chain(entries(&self.folder.join("partial"))?) {
            let Ok(data) = fs::symlink_metadata(&path) else { continue };
            if data.modified().is_ok_and(|modified| modified < before) && fs::remove_file(&path).is_ok() {
                freed += data.blocks().saturating_mul(512);
            }
        }
        Ok(freed)
    }

    /// The files of a model where they are.
    pub(crate) fn placed(&self, record: &Record) -> Vec<PlacedFile> {
        let tree = self.tree(record);
        let placed = |file: &RecordedFile| {
            let link = tree.join(file.path.as_str());
            // A link by path is not followed by those that read: they get the file itself.
            let path = file.place.as_ref().filter(|_| link.is_symlink()).unwrap_or(&link).clone();
            PlacedFile { path, size: file.size }
        };
        record.files.iter().map(placed).collect()
    }

    /// Removes contents that are damaged, so that the next pull brings them again.
    pub(crate) fn drop_contents(&self, files: &[RecordedFile]) {
        let _links = self.links.lock();
        let own = files.iter().filter(|file| file.place.is_none());
        own.for_each(|file| drop(fs::remove_file(self.blob(&file.sha256))));
    }

    fn contents(&self) -> BTreeSet<String> {
        let records = self.records.read();
        let there = records.values().filter(|record| record.evicted.is_none());
        let contents = there.flat_map(|record| &record.files).filter(|file| file.place.is_none());
        contents.map(|file| file.sha256.clone()).collect()
    }

    /// Bytes of all contents, and of the parts of downloads.
    pub(crate) fn taken(&self) -> Result<(u64, u64), Error> {
        let size = |path: &PathBuf| fs::symlink_metadata(path).map_or(0, |data| data.len());
        let used = entries(&self.folder.join("blobs"))?.iter().map(size).sum();
        let is_part = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "part");
        let partial =
            entries(&self.folder.join("partial"))?.iter().filter(is_part).map(|path| partial::bytes_of(path)).sum();
        Ok((used, partial))
    }

    /// Bytes that are free on the disk.
    pub(crate) fn free(&self) -> Result<u64, Error> {
        Ok(kip_host::disk::space(&self.folder).map_err(|error| Error::cache(&self.folder, &error))?.free)
    }

    /// What the models on the disk take, the largest first.
    pub(crate) fn sizes(&self) -> Vec<ModelSize> {
        let mut records = self.records();
        records.retain(|record| record.evicted.is_none());
        let mut users: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &records {
            let own = record.files.iter().filter(|file| file.place.is_none());
            let contents: BTreeSet<&str> = own.map(|file| file.sha256.as_str()).collect();
            contents.into_iter().for_each(|content| *users.entry(content).or_default() += 1);
        }
        let of_model = |record: &Record| {
            let own: BTreeMap<&str, u64> = record
                .files
                .iter()
                .filter(|file| file.place.is_none() && users.get(file.sha256.as_str()) == Some(&1))
                .map(|file| (file.sha256.as_str(), file.size))
                .collect();
            ModelSize { model: record.id(), size: record.size(), own: own.values().sum(), kept_for: None }
        };
        let mut models: Vec<ModelSize> = records.iter().map(of_model).collect();
        models.sort_by(|one, other| other.size.cmp(&one.size).then_with(|| one.model.cmp(&other.model)));
        models
    }
}

/// The paths in a folder of ours, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error: io::Error| Error::cache(folder, &error);
    let read = fs::read_dir(folder).map_err(failed)?;
    let mut paths: Vec<PathBuf> =
        read.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// The sums of a file's content.
pub(crate) fn sums_of(path: &Path) -> io::Result<(Sums, u64)> {
    let mut file: File = open_regular(path, fs::OpenOptions::new().read(true))?;
    let size = file.metadata()?.len();
    let (mut hasher, mut buffer, mut read) = (Hasher::new(size), vec![0; BUFFER], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher.finish(), read)),
            count => {
                hasher.update(&buffer[..count]);
                read += count as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(source: &str, files: &[(&str, &[u8])], cache: &Cache) -> Record {
        let file = |(path, content): &(&str, &[u8])| {
            let mut hasher = Hasher::new(content.len() as u64);
            hasher.update(content);
            let sums = hasher.finish();
            fs::write(cache.blob(&sums.sha256), content).unwrap();
            RecordedFile {
                path: FilePath::new(path).unwrap(),
                size: content.len() as u64,
                sha256: sums.sha256,
                git: sums.git,
                place: None,
            }
        };
        Record {
            source: source.to_owned(),
            commit: "c".repeat(40),
            revisions: vec!["main".to_owned()],
            licence: None,
            task: None,
            files: files.iter().map(file).collect(),
            pinned: false,
            pulled: 1,
            verified: None,
            damaged: Vec::new(),
            endpoint: None,
            token_secret: None,
            adopted: None,
            evicted: None,
        }
    }

    #[test]
    fn contents_are_kept_once_and_go_with_their_last_model() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let one = record("hf:a/one", &[("model.bin", b"same"), ("x/config.json", b"one")], &cache);
        let two = record("hf:a/two", &[("other.bin", b"same"), ("copy.bin", b"same")], &cache);
        assert_eq!(cache.publish(&one).unwrap(), []);
        assert_eq!(cache.publish(&two).unwrap(), []);
        assert_eq!(fs::read(cache.tree(&one).join("x/config.json")).unwrap(), b"one");
        assert_eq!(cache.taken().unwrap(), (7, 0));
        assert_eq!(cache.sizes().iter().map(|model| (model.size, model.own)).collect::<Vec<_>>(), [(8, 0), (7, 3)]);
        let again = Cache::open(folder.path()).unwrap();
        assert_eq!(again.records(), cache.records());
        assert_eq!(
            again.content(&Digest::GitBlob(one.files[0].git.clone()), 4).map(|sums| sums.sha256),
            Some(one.files[0].sha256.clone())
        );
        again.remove(&one).unwrap();
        assert!(again.find("hf:a/one").is_err() && !cache.tree(&one).exists());
        assert_eq!(fs::read(cache.tree(&two).join("copy.bin")).unwrap(), b"same");
        again.remove(&two).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
    }

    #[test]
    fn a_model_without_all_its_contents_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let one = record("hf:a/one", &[("a", b"a"), ("b", b"b")], &cache);
        fs::remove_file(cache.blob(&one.files[1].sha256)).unwrap();
        assert_eq!(cache.publish(&one).unwrap(), [FilePath::new("b").unwrap()]);
        assert!(cache.records().is_empty());
        let again = Cache::open(folder.path()).unwrap();
        assert!(again.records().is_empty() && !again.tree(&one).exists());
    }
}
