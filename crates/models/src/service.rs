//! The models of a server: pulls that go on whoever asked for them, and the cache that they fill.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use kip_host::clock::wall_millis;
use kip_host::tasks;
use kip_spec::Problem;
use kip_spec::named_secret::SecretText;
use kip_wire::{ModelInfo, ModelPull, PullPhase};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::cache::{self, Cache};
use crate::client::{Client, Endpoint};
use crate::digest::{Digest, Hasher, Sums, sha256_of};
use crate::download::{Behaviour, Downloader, FileTarget, blocking};
use crate::error::Error;
use crate::hub::{ListedFile, Listing};
use crate::listing::Origin;
use crate::path::FilePath;
use crate::pattern;
use crate::record::{Record, RecordedFile};
use crate::room::{CacheLimits, Room};
use crate::source::{Hub, Source};
use crate::uses::UseBook;

/// Files of a pull at once.
const FILES: usize = 4;
/// Pulls that are over and still shown.
const SHOWN: usize = 50;
/// Waits for a hub while somebody waits for the answer.
const BRIEF: Duration = Duration::from_secs(90);

/// What a server gives its models.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the cache.
    pub folder: PathBuf,
    /// Hubs in place of the usual ones.
    pub endpoints: BTreeMap<Hub, String>,
    /// Stores of buckets, by `s3` and `oss`.
    pub buckets: BTreeMap<String, String>,
    /// Bytes that stay free on the disk.
    pub reserve: u64,
    /// What the cache may take.
    pub limits: CacheLimits,
    /// Functions run as other users than the server, and cannot read all that it can.
    pub foreign_ids: bool,
    /// Whether the files of a model are read into the page cache while an instance starts from it.
    pub prefetch: bool,
    /// The file of certificates that are trusted, in place of the system's.
    pub certificates: Option<PathBuf>,
    /// How downloads behave.
    pub behaviour: Behaviour,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The source with its revision.
    pub source: Source,
    /// The hub's address, in place of the server's.
    pub endpoint: Option<String>,
    /// A token for this address.
    pub token: Option<SecretText>,
    /// The secret of the server that the token comes from.
    pub token_secret: Option<String>,
    /// Patterns of files; all files if empty.
    pub include: Vec<String>,
    /// The commit that is wanted: another one is an error.
    pub commit: Option<String>,
}

impl Request {
    /// All files of a source.
    pub fn of(source: Source) -> Self {
        Self { source, endpoint: None, token: None, token_secret: None, include: Vec::new(), commit: None }
    }
}

/// The models of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Models {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) cache: Arc<Cache>,
    pub(crate) uses: Arc<UseBook>,
    pub(crate) room: Room,
    /// Adopted models that are being verified.
    pub(crate) verifying: Mutex<BTreeSet<String>>,
    downloader: Downloader,
    pulls: Mutex<Pulls>,
    /// A lock for each content that is downloaded: a second pull of it waits for the first.
    contents: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
}

#[derive(Debug, Default)]
struct Pulls {
    next: u64,
    all: BTreeMap<u64, Arc<Pull>>,
}

/// A pull under way or over.
#[derive(Debug)]
struct Pull {
    id: u64,
    request: Request,
    state: watch::Sender<PullState>,
    received: AtomicU64,
    cancelled: watch::Sender<bool>,
}

#[derive(Debug, Clone)]
enum PullState {
    Listing,
    Downloading { files: u64, total: u64 },
    Done { files: u64, total: u64, record: Box<Record> },
    Failed { files: u64, total: u64, error: Error },
}

impl Pull {
    fn info(&self) -> ModelPull {
        let state = self.state.borrow().clone();
        let received = self.received.load(Ordering::Relaxed);
        let (phase, files, total, model, error) = match state {
            PullState::Listing => (PullPhase::Listing, 0, 0, None, None),
            PullState::Downloading { files, total } => (PullPhase::Downloading, files, total, None, None),
            PullState::Done { files, total, record } => (PullPhase::Done, files, total, Some(record.id()), None),
            PullState::Failed { files, total, error } => {
                (PullPhase::Failed, files, total, None, Some(Problem::from(error)))
            }
        };
        let received = if phase == PullPhase::Done { total } else { received.min(total) };
        ModelPull { id: self.id, source: self.request.source.to_string(), phase, files, received, total, model, error }
    }

    fn is_over(&self) -> bool {
        matches!(*self.state.borrow(), PullState::Done { .. } | PullState::Failed { .. })
    }

    /// Whether another request would bring the same files from the same place.
    fn serves(&self, request: &Request) -> bool {
        let own = &self.request;
        own.source == request.source
            && own.endpoint == request.endpoint
            && own.include == request.include
            && own.commit == request.commit
            && !self.is_over()
    }
}

impl Models {
    /// Opens the cache. Blocks.
    ///
    /// # Errors
    /// When its folder cannot be used.
    pub fn open(options: Options) -> Result<Self, Error> {
        let cache = Arc::new(Cache::open(&options.folder)?);
        let downloader = Downloader::new(Client::new(options.certificates.clone()), options.behaviour.clone());
        let shared = Shared {
            uses: Arc::new(UseBook::open(options.folder.join("uses.json"))),
            room: Room::default(),
            verifying: Mutex::default(),
            options,
            cache,
            downloader,
            pulls: Mutex::default(),
            contents: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Begins a pull, or joins the one that brings the same files already. It goes on after the caller has left.
    pub fn pull(&self, request: Request) -> ModelPull {
        let pull = {
            let mut pulls = self.shared.pulls.lock();
            if let Some(same) = pulls.all.values().find(|pull| pull.serves(&request)) {
                return same.info();
            }
            pulls.next += 1;
            let id = pulls.next;
            let over: Vec<u64> = pulls.all.values().filter(|pull| pull.is_over()).map(|pull| pull.id).collect();
            for old in &over[..over.len().saturating_sub(SHOWN)] {
                pulls.all.remove(old);
            }
            let pull = Arc::new(Pull {
                id,
                request,
                state: watch::Sender::new(PullState::Listing),
                received: AtomicU64::new(0),
                cancelled: watch::Sender::new(false),
            });
            pulls.all.insert(id, pull.clone());
            pull
        };
        let info = pull.info();
        let models = self.clone();
        tasks::spawn("model pull", async move { models.run(&pull).await });
        info
    }

    /// A pull runs to its end or to its cancellation; either way what was written stays for the next one.
    async fn run(&self, pull: &Pull) {
        let _hold = self.hold(&pull.request.source);
        let mut cancelled = pull.cancelled.subscribe();
        let done = tokio::select! {
            done = self.bring(pull) => done,
            _ = cancelled.wait_for(|cancelled| *cancelled) => Err(Error::Cancelled),
        };
        let source = pull.request.source.to_string();
        pull.state.send_modify(|state| {
            let (files, total) = match state {
                PullState::Downloading { files, total } => (*files, *total),
                _ => (0, 0),
            };
            *state = match done {
                Ok(record) => PullState::Done { files, total, record: Box::new(record) },
                Err(error) => PullState::Failed { files, total, error },
            };
        });
        self.shared.room.look();
        let info = pull.info();
        match &info.error {
            None => tracing::info!(source, model = info.model, bytes = info.total, "a model was pulled"),
            Some(problem) => tracing::warn!(source, %problem, cause = problem.cause, "a model was not pulled"),
        }
    }

    fn origin(&self, request: &Request) -> Origin {
        let base = match (&request.source, &request.endpoint) {
            (_, Some(endpoint)) => endpoint.clone(),
            (Source::Hub { hub, .. }, None) => {
                let set = self.shared.options.endpoints.get(hub);
                set.map_or_else(|| hub.endpoint().to_owned(), String::clone)
            }
            (Source::Url(url), None) => url.clone(),
            (Source::Path(_) | Source::Adopted(_), None) => String::new(),
            (Source::Bucket { scheme, .. }, None) => {
                self.shared.options.buckets.get(*scheme).map_or_else(String::new, String::clone)
            }
        };
        let base = base.trim_end_matches('/').to_owned();
        Origin { source: request.source.clone(), endpoint: Endpoint { base, token: request.token.clone() } }
    }

    /// The files that a request would bring, with all that the source says of the model.
    ///
    /// # Errors
    /// When the source does not answer, or has no such model.
    pub async fn describe(&self, request: &Request) -> Result<Listing, Error> {
        let listing = match &request.source {
            Source::Adopted(_) => self.adopted_listing(&request.source)?,
            _ => self.origin(request).listing(&self.shared.downloader.client, BRIEF).await?,
        };
        chosen(listing, request, &BTreeSet::new())
    }

    async fn bring(&self, pull: &Pull) -> Result<Record, Error> {
        let request = &pull.request;
        let origin = self.origin(request);
        let patience = self.shared.downloader.behaviour.patience;
        let listing = match &request.source {
            Source::Adopted(_) => self.adopted_listing(&request.source)?,
            _ => origin.listing(&self.shared.downloader.client, patience).await?,
        };
        if let Some(commit) =
            request.commit.as_ref().filter(|commit| !listing.commit.is_empty() && **commit != listing.commit)
        {
            return Err(Error::Moved { model: request.source.name(), commit: commit.clone(), present: listing.commit });
        }
        let again = self.lost_files(&request.source.name(), &listing.commit);
        let listing = chosen(listing, request, &again)?;
        let (files, total) = (listing.files.len() as u64, listing.size());
        pull.state.send_replace(PullState::Downloading { files, total });
        self.make_room_for(&origin, &listing).await?;
        // A content that another caller removes between its download and its link is brought again.
        for _ in 0..3 {
            pull.received.store(0, Ordering::Relaxed);
            let tries =
                listing.files.clone().into_iter().map(|file| self.content(&origin, &listing.commit, file, pull));
            let brought: Vec<Result<RecordedFile, Error>> = stream::iter(tries).buffer_unordered(FILES).collect().await;
            let mut recorded = brought.into_iter().collect::<Result<Vec<_>, _>>()?;
            recorded.sort_by(|one, other| one.path.cmp(&other.path));
            let record = self.merged(&listing, request, recorded);
            let (cache, publishing) = (self.shared.cache.clone(), record.clone());
            if in_cache(&self.shared.cache, move || cache.publish(&publishing)).await?.is_empty() {
                return Ok(record);
            }
        }
        Err(Error::Cache {
            path: self.shared.cache.folder().to_owned(),
            reason: "contents are removed while they are pulled".to_owned(),
        })
    }

    /// The record with the files of earlier pulls of the same commit.
    fn merged(&self, listing: &Listing, request: &Request, files: Vec<RecordedFile>) -> Record {
        let source = request.source.name();
        let commit = match &request.source {
            Source::Path(_) => {
                let line = |file: &RecordedFile| format!("{} {}\n", file.path, file.sha256);
                sha256_of(files.iter().map(line).collect::<String>().as_bytes())[..40].to_owned()
            }
            _ => listing.commit.clone(),
        };
        let before = self.shared.cache.record(&source, &commit);
        let root = before.as_ref().and_then(|before| before.adopted.clone());
        let (mut all, mut revisions, pinned) = match before {
            // What the source does not have any more is gone with an eviction.
            Some(before) if before.evicted.is_some() => (Vec::new(), before.revisions, before.pinned),
            Some(before) => (before.files, before.revisions, before.pinned),
            None => (Vec::new(), Vec::new(), false),
        };
        all.retain(|old| !files.iter().any(|new| new.path == old.path));
        all.extend(files);
        all.sort_by(|one, other| one.path.cmp(&other.path));
        if let Some(revision) = request
            .source
            .revision()
            .filter(|revision| *revision != commit && !revisions.iter().any(|known| known == revision))
        {
            revisions.push(revision.to_owned());
        }
        Record {
            source,
            commit,
            revisions,
            licence: listing.licence.clone(),
            task: listing.task.clone(),
            pinned,
            pulled: wall_millis(),
            verified: None,
            damaged: Vec::new(),
            endpoint: request.endpoint.clone(),
            token_secret: request.token_secret.clone(),
            adopted: root.or_else(|| self.root_of(&all)),
            evicted: None,
            files: all,
        }
    }

    /// The folder that was adopted of which some of these files are.
    fn root_of(&self, files: &[RecordedFile]) -> Option<PathBuf> {
        let place = files.iter().find_map(|file| file.place.as_ref())?;
        let mut roots = self.shared.cache.records().into_iter().filter_map(|record| record.adopted);
        roots.find(|root| place.starts_with(root))
    }

    /// Brings one content into the cache, or finds it there.
    async fn content(
        &self,
        origin: &Origin,
        commit: &str,
        file: ListedFile,
        pull: &Pull,
    ) -> Result<RecordedFile, Error> {
        let name = match &file.digest {
            Some(digest) => digest.file_name(),
            None => format!(
                "address-{}",
                &sha256_of(format!("{} {}@{commit}", origin.source.name(), file.path).as_bytes())[..32]
            ),
        };
        let lock = self.lock(&name);
        let _one = lock.lock().await;
        if let Some(adopted) = self.adopted_content(origin, &file).await? {
            pull.received.fetch_add(file.size, Ordering::Relaxed);
            return Ok(adopted);
        }
        if let Source::Adopted(source) = &origin.source {
            return Err(Error::NotCached(source.clone()));
        }
        // Without a digest, the same commit of the same address is the same content.
        let recorded = || {
            let record = self.shared.cache.record(&origin.source.name(), commit)?;
            let same = record.files.into_iter().find(|known| known.path == file.path && known.size == file.size)?;
            Digest::sha256(&same.sha256)
        };
        let digest = file.digest.clone().or_else(recorded);
        let mut known = digest.as_ref().and_then(|digest| self.shared.cache.content(digest, file.size));
        if let (None, Some(digest)) = (&known, digest) {
            let (cache, size) = (self.shared.cache.clone(), file.size);
            known = in_cache(&self.shared.cache, move || Ok(cache.stray_content(&digest, size))).await?;
        }
        let sums = match known {
            Some(sums) => {
                pull.received.fetch_add(file.size, Ordering::Relaxed);
                sums
            }
            None => self.fetch(origin, commit, &file, &name, pull).await?,
        };
        Ok(RecordedFile { path: file.path, size: file.size, sha256: sums.sha256, git: sums.git, place: None })
    }

    async fn fetch(
        &self,
        origin: &Origin,
        commit: &str,
        file: &ListedFile,
        name: &str,
        pull: &Pull,
    ) -> Result<Sums, Error> {
        let cache = self.shared.cache.clone();
        let part = cache.partial(name);
        let known = |sums: &Sums| cache.blob(&sums.sha256);
        if let Source::Path(path) = &origin.source {
            let from = if path.is_dir() { path.join(file.path.as_str()) } else { path.clone() };
            let (copied_to, target) = (part.clone(), cache.clone());
            let copied =
                blocking(move || copy(&from, &copied_to, &target)).await.map_err(|error| Error::cache(path, &error))?;
            pull.received.fetch_add(file.size, Ordering::Relaxed);
            return Ok(copied);
        }
        let wanted = FileTarget {
            name: file.path.to_string(),
            address: origin.address(commit, &file.path),
            size: file.size,
            digest: file.digest.clone(),
            tag: commit.to_owned(),
        };
        // The address of an object is signed; what signs it is no token to show.
        let endpoint = match &origin.source {
            Source::Bucket { .. } => Endpoint { base: origin.endpoint.base.clone(), token: None },
            _ => origin.endpoint.clone(),
        };
        self.shared.downloader.file(&wanted, &endpoint, &part, known, &pull.received).await
    }

    fn lock(&self, name: &str) -> Arc<AsyncMutex<()>> {
        let mut contents = self.shared.contents.lock();
        if let Some(lock) = contents.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        contents.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(AsyncMutex::new(()));
        contents.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }

    /// Waits until a pull is over: the model's record, or why there is none.
    ///
    /// # Errors
    /// That of the pull, or that there is no such pull.
    pub async fn pulled(&self, id: u64) -> Result<Record, Error> {
        let pull = self.shared.pulls.lock().all.get(&id).cloned().ok_or(Error::NoPull(id))?;
        let mut state = pull.state.subscribe();
        let over = state.wait_for(|state| matches!(state, PullState::Done { .. } | PullState::Failed { .. })).await;
        match over.map(|state| state.clone()) {
            Ok(PullState::Done { record, .. }) => Ok(*record),
            Ok(PullState::Failed { error, .. }) => Err(error),
            _ => Err(Error::Cancelled),
        }
    }

    /// Whether a pull is under way.
    pub(crate) fn pulls_run(&self) -> bool {
        self.shared.pulls.lock().all.values().any(|pull| !pull.is_over())
    }

    /// The pulls, newest first.
    pub fn pulls(&self) -> Vec<ModelPull> {
        self.shared.pulls.lock().all.values().rev().map(|pull| pull.info()).collect()
    }

    /// A pull by its number.
    ///
    /// # Errors
    /// [`Error::NoPull`].
    pub fn pull_info(&self, id: u64) -> Result<ModelPull, Error> {
        self.shared.pulls.lock().all.get(&id).map(|pull| pull.info()).ok_or(Error::NoPull(id))
    }

    /// Ends a pull. What it has brought stays for the next one.
    ///
    /// # Errors
    /// [`Error::NoPull`].
    pub fn cancel(&self, id: u64) -> Result<ModelPull, Error> {
        let pull = self.shared.pulls.lock().all.get(&id).cloned().ok_or(Error::NoPull(id))?;
        pull.cancelled.send_replace(true);
        Ok(pull.info())
    }

    /// The models, by source.
    pub fn list(&self) -> Vec<ModelInfo> {
        let mut all: Vec<ModelInfo> = self.shared.cache.records().iter().map(|record| self.info(record)).collect();
        all.sort_by(|one, other| (&one.source, one.pulled).cmp(&(&other.source, other.pulled)));
        all
    }

    /// A model as the API shows it.
    pub fn info(&self, record: &Record) -> ModelInfo {
        let uses = self.shared.uses.of(&record.key());
        let used = Some(uses.used).filter(|used| *used > 0);
        ModelInfo { used, loads: uses.loads, ..record.info(&self.folder(record)) }
    }

    /// The folder with a model's files.
    pub fn folder(&self, record: &Record) -> PathBuf {
        self.shared.cache.tree(record)
    }

    /// The model that a text means.
    ///
    /// # Errors
    /// [`Error::NotCached`].
    pub fn find(&self, text: &str) -> Result<Record, Error> {
        self.shared.cache.find(text)
    }

    /// Removes a model and the contents that only it has.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn remove(&self, record: Record) -> Result<(), Error> {
        let cache = self.shared.cache.clone();
        self.shared.uses.forget(&record.key());
        in_cache(&self.shared.cache, move || cache.remove(&record)).await
    }

    /// Pins a model, or takes the pin away.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn pin(&self, record: Record, pinned: bool) -> Result<ModelInfo, Error> {
        let cache = self.shared.cache.clone();
        let changed =
            in_cache(&self.shared.cache, move || cache.change(&record, |record| record.pinned = pinned)).await?;
        Ok(self.info(&changed))
    }

    /// Reads all contents of a model and compares their digests. Damaged ones are noted and removed, so that a pull brings them again.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn verify(&self, record: Record) -> Result<ModelInfo, Error> {
        if record.evicted.is_some() {
            return Err(Error::Evicted(record.id()));
        }
        let cache = self.shared.cache.clone();
        let verified = in_cache(&self.shared.cache, move || {
            let (mut damaged, mut files) = (Vec::new(), Vec::new());
            for (file, placed) in record.files.iter().zip(cache.placed(&record)) {
                let path = if file.place.is_some() { placed.path } else { cache.blob(&file.sha256) };
                let fits = |sums: &Sums| {
                    (file.sha256.is_empty() || sums.sha256 == file.sha256)
                        && (file.git.is_empty() || sums.git == file.git)
                };
                match cache::sums_of(&path) {
                    // What was not known before is from now on.
                    Ok((sums, size)) if size == file.size && fits(&sums) => {
                        files.push(RecordedFile { sha256: sums.sha256, git: sums.git, ..file.clone() });
                    }
                    _ => {
                        damaged.push(file.clone());
                        files.push(file.clone());
                    }
                }
            }
            let paths: Vec<FilePath> = damaged.iter().map(|file| file.path.clone()).collect();
            let changed = cache.change(&record, |record| {
                record.verified = Some(wall_millis());
                record.damaged = paths;
                record.files = files;
            })?;
            cache.drop_contents(&damaged);
            Ok(changed)
        });
        Ok(self.info(&verified.await?))
    }
}

/// The files of a listing that a request wants.
fn chosen(mut listing: Listing, request: &Request, again: &BTreeSet<FilePath>) -> Result<Listing, Error> {
    if !request.include.is_empty() {
        let fits = |path: &FilePath| request.include.iter().any(|one| pattern::fits(one, path.as_str()));
        listing.files.retain(|file| fits(&file.path) || again.contains(&file.path));
    }
    if listing.files.is_empty() {
        return Err(Error::Empty { source_name: request.source.to_string() });
    }
    Ok(listing)
}

/// Work of the cache, away from the runtime's threads.
pub(crate) async fn in_cache<T: Send + 'static>(
    cache: &Cache,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let folder = cache.folder().to_owned();
    blocking(move || Ok(work())).await.map_err(|error| Error::cache(&folder, &error))?
}

/// Copies a file of this host into the cache, and computes its sums. Blocks.
fn copy(from: &Path, part: &Path, cache: &Cache) -> std::io::Result<Sums> {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    let mut source = std::fs::File::open(from)?;
    let _ = std::fs::remove_file(part);
    let mut target = std::fs::OpenOptions::new().create_new(true).write(true).open(part)?;
    let (mut hasher, mut buffer) = (Hasher::new(source.metadata()?.len()), vec![0; 1 << 20]);
    loop {
        match source.read(&mut buffer)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                target.write_all(&buffer[..count])?;
            }
        }
    }
    target.set_permissions(std::fs::Permissions::from_mode(0o444))?;
    target.sync_all()?;
    let sums = hasher.finish();
    std::fs::rename(part, cache.blob(&sums.sha256))?;
    Ok(sums)
}
