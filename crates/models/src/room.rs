//! The cache within its limits: what is evicted, when, and why. Nothing is evicted that is pinned, that a kept version needs, or that is being pulled or
//! deployed; of the rest, what was used longest ago goes first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use kip_host::clock::wall_millis;
use kip_host::tasks;
use kip_spec::people;
use kip_wire::ModelUsage;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::client::shown;
use crate::error::Error;
use crate::hub::{ListedFile, Listing};
use crate::listing::Origin;
use crate::path::FilePath;
use crate::record::{Eviction, Record};
use crate::service::{Models, in_cache};
use crate::source::Source;

/// How often the cache is looked through, beside each pull.
const BETWEEN: Duration = Duration::from_secs(600);
/// Contents without a model and parts of downloads that were not touched for so long go before any model does.
const STRAY: Duration = Duration::from_secs(86_400);

/// What the cache may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes of all contents and parts; no limit but the disk's without it.
    pub quota: Option<u64>,
    /// Above this part of the quota, models are evicted; percent.
    pub high: u64,
    /// Until the cache takes at most this part of the quota; percent.
    pub low: u64,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { quota: None, high: 90, low: 80 }
    }
}

impl CacheLimits {
    fn mark(self, percent: u64) -> Option<u64> {
        Some(u64::try_from(u128::from(self.quota?) * u128::from(percent) / 100).unwrap_or(u64::MAX))
    }
}

/// Who needs models. A room that knows functions says it.
pub trait ModelUsers: Send + Sync + fmt::Debug {
    /// Of these folders, those that kept versions need, with the names of their functions; nothing if that cannot be found out now.
    fn users(&self, folders: Vec<PathBuf>) -> BoxFuture<'static, Option<BTreeMap<PathBuf, BTreeSet<String>>>>;
}

/// The state of evictions.
#[derive(Debug, Default)]
pub(crate) struct Room {
    users: OnceLock<Arc<dyn ModelUsers>>,
    /// Sources that are being pulled or deployed, with how often.
    held: Arc<Mutex<BTreeMap<String, usize>>>,
    changed: Notify,
    evictions: AtomicU64,
    /// One at a time: two would free twice what is needed.
    evicting: tokio::sync::Mutex<()>,
}

impl Room {
    /// The cache has grown.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }
}

/// Keeps all commits of a source from eviction until it is dropped.
#[derive(Debug)]
pub struct SourceHold {
    held: Arc<Mutex<BTreeMap<String, usize>>>,
    source: String,
}

impl Drop for SourceHold {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        if let Some(count) = held.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.source);
            }
        }
    }
}

/// What is to be reached.
#[derive(Debug, Clone, Copy)]
enum Goal {
    /// The cache takes at most so many bytes.
    Taken(u64),
    /// At least so many bytes are free on the disk.
    Free(u64),
}

impl Models {
    /// Keeps the cache within its limits from now on. Before, nothing is evicted.
    pub fn serve(&self, users: Arc<dyn ModelUsers>) {
        if self.shared.room.users.set(users).is_err() {
            return;
        }
        let models = self.clone();
        // The cache grows without it, and pulls still ask for their room.
        tasks::spawn("model cache", async move {
            loop {
                models.keep_within().await;
                let uses = models.shared.uses.clone();
                let _ = tasks::blocking("model uses", move || uses.write()).await;
                let _ = tokio::time::timeout(BETWEEN, models.shared.room.changed.notified()).await;
            }
        });
    }

    /// Keeps the models of a source from eviction until the hold is dropped.
    pub fn hold(&self, source: &Source) -> SourceHold {
        let (held, source) = (self.shared.room.held.clone(), source.name());
        *held.lock().entry(source.clone()).or_default() += 1;
        SourceHold { held, source }
    }

    async fn keep_within(&self) {
        let limits = self.shared.options.limits;
        let (Some(high), Some(low)) = (limits.mark(limits.high), limits.mark(limits.low)) else { return };
        let done = async {
            if self.taken().await? <= high {
                return Ok(());
            }
            let quota = limits.quota.unwrap_or_default();
            let why = format!("the cache took more than {} % of its quota of {}", limits.high, people::size(quota));
            let taken = self.evict_until(Goal::Taken(low), &why, true).await?;
            if taken > high {
                tracing::warn!(taken, high, "the model cache stays above its mark: what is left is pinned or needed");
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = done.await {
            tracing::warn!(%error, "the model cache is not kept within its quota");
        }
    }

    /// Evictions since the server started.
    pub fn evictions(&self) -> u64 {
        self.shared.room.evictions.load(Ordering::Relaxed)
    }

    /// What the cache may take.
    pub fn limits(&self) -> CacheLimits {
        self.shared.options.limits
    }

    /// Bytes of contents and parts of downloads.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn taken(&self) -> Result<u64, Error> {
        let cache = self.shared.cache.clone();
        in_cache(&self.shared.cache, move || cache.taken().map(|(used, partial)| used.saturating_add(partial))).await
    }

    /// Evicts models until a goal is reached or nothing is left that may go. Gives the bytes that the cache takes then. `but_newest`: the
    /// model that was used or pulled last stays, or a large one would go as soon as it is there.
    async fn evict_until(&self, goal: Goal, why: &str, but_newest: bool) -> Result<u64, Error> {
        let shared = &self.shared;
        let _one = shared.room.evicting.lock().await;
        let strays = (!self.pulls_run()).then(|| shared.cache.clone());
        if let Some(cache) = strays {
            let now = Duration::from_millis(wall_millis().unsigned_abs());
            let before = SystemTime::UNIX_EPOCH + now.saturating_sub(STRAY);
            let freed = in_cache(&shared.cache, move || cache.remove_strays(before)).await?;
            if freed > 0 {
                tracing::info!(freed, "what broken pulls left in the model cache is removed");
            }
        }
        let age = |record: &Record| shared.uses.of(&record.key()).used.max(record.pulled);
        let on_disk = shared.cache.records().into_iter().filter(|record| record.evicted.is_none());
        let newest = on_disk.max_by_key(age).filter(|_| but_newest).map(|record| record.key());
        for record in self.candidates().await.into_iter().filter(|record| newest.as_ref() != Some(&record.key())) {
            let taken = self.taken().await?;
            let reached = match goal {
                Goal::Taken(most) => taken <= most,
                Goal::Free(least) => shared.cache.free()? >= least,
            };
            if reached {
                return Ok(taken);
            }
            // It may have been pulled or deployed again meanwhile.
            if shared.room.held.lock().contains_key(&record.source) {
                continue;
            }
            self.evict_one(record, why.to_owned()).await?;
        }
        self.taken().await
    }

    async fn evict_one(&self, record: Record, why: String) -> Result<(), Error> {
        let (cache, evicted) = (self.shared.cache.clone(), record.clone());
        let eviction = Eviction { at: wall_millis(), why: why.clone() };
        let freed = in_cache(&self.shared.cache, move || cache.evict(&evicted, eviction)).await?;
        self.shared.room.evictions.fetch_add(1, Ordering::Relaxed);
        tracing::info!(model = record.id(), freed, why, "a model was evicted from the disk");
        Ok(())
    }

    /// What may be evicted, the longest unused first. Where nobody says what is needed, everything is.
    async fn candidates(&self) -> Vec<Record> {
        let shared = &self.shared;
        let Some(users) = shared.room.users.get() else { return Vec::new() };
        let held: BTreeSet<String> = shared.room.held.lock().keys().cloned().collect();
        let mut records = shared.cache.records();
        records.retain(|record| {
            record.evicted.is_none() && record.adopted.is_none() && !record.pinned && !held.contains(&record.source)
        });
        let folders = records.iter().map(|record| shared.cache.tree(record)).collect();
        let Some(needed) = users.users(folders).await else { return Vec::new() };
        records.retain(|record| !needed.contains_key(&shared.cache.tree(record)));
        records.sort_by_key(|record| shared.uses.of(&record.key()).used.max(record.pulled));
        records
    }

    /// Evicts a model now.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn evict(&self, record: Record) -> Result<(), Error> {
        self.evict_one(record, "it was asked for".to_owned()).await
    }

    /// Room is made before the first byte: within the quota, and on the disk.
    pub(crate) async fn make_room_for(&self, origin: &Origin, listing: &Listing) -> Result<(), Error> {
        let shared = &self.shared;
        let cache = &shared.cache;
        let missing = |file: &ListedFile| match &file.digest {
            _ if self.adopted_candidate(&origin.source, file).is_some() => 0,
            Some(digest) if cache.content(digest, file.size).is_some() => 0,
            Some(digest) => file.size.saturating_sub(crate::partial::bytes_of(&cache.partial(&digest.file_name()))),
            None => file.size,
        };
        let missing = listing.files.iter().map(missing).fold(0, u64::saturating_add);
        if missing == 0 {
            return Ok(());
        }
        let source = shown(&origin.source.to_string());
        if let Some(quota) = shared.options.limits.quota
            && self.taken().await?.saturating_add(missing) > quota
        {
            let why = format!("{source} needed room within the quota of {}", people::size(quota));
            let taken = self.evict_until(Goal::Taken(quota.saturating_sub(missing)), &why, false).await?;
            if taken.saturating_add(missing) > quota {
                return Err(Error::Quota { needed: missing, taken, quota });
            }
        }
        let needed = missing.saturating_add(shared.options.reserve);
        if needed > cache.free()? {
            let why = format!("{source} needed room on the disk");
            self.evict_until(Goal::Free(needed), &why, false).await?;
            let free = cache.free()?;
            if needed > free {
                tracing::debug!(source, needed, free, "no room for a model");
                return Err(Error::NoRoom { needed, free, folder: cache.folder().to_owned() });
            }
        }
        Ok(())
    }

    /// The files of a model that must come again with any pull of it: those of an evicted one, and damaged ones.
    pub(crate) fn lost_files(&self, source: &str, commit: &str) -> BTreeSet<FilePath> {
        match self.shared.cache.record(source, commit) {
            Some(record) if record.evicted.is_some() => record.files.into_iter().map(|file| file.path).collect(),
            Some(record) => record.damaged.into_iter().collect(),
            None => BTreeSet::new(),
        }
    }

    /// What the cache takes, and what may be evicted of it.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn usage(&self) -> Result<ModelUsage, Error> {
        let shared = &self.shared;
        let cache = shared.cache.clone();
        let (used, partial, free, mut models) = in_cache(&shared.cache, move || {
            let (used, partial) = cache.taken()?;
            Ok((used, partial, cache.free()?, cache.sizes()))
        })
        .await?;
        let records: BTreeMap<String, Record> =
            shared.cache.records().into_iter().map(|record| (record.id(), record)).collect();
        let folders = records.values().map(|record| shared.cache.tree(record)).collect();
        let needed = match shared.room.users.get() {
            Some(users) => users.users(folders).await.unwrap_or_default(),
            None => BTreeMap::new(),
        };
        for model in &mut models {
            let Some(record) = records.get(&model.model) else { continue };
            let users = needed.get(&shared.cache.tree(record));
            model.kept_for = match (record.pinned, users) {
                _ if record.adopted.is_some() => Some("adopted".to_owned()),
                (true, _) => Some("pinned".to_owned()),
                (false, Some(users)) => Some(users.iter().cloned().collect::<Vec<_>>().join(", ")),
                (false, None) => None,
            };
        }
        let limits = shared.options.limits;
        Ok(ModelUsage {
            folder: shared.cache.folder().display().to_string(),
            used,
            partial,
            free,
            quota: limits.quota,
            high: limits.mark(limits.high),
            low: limits.mark(limits.low),
            models,
        })
    }
}
