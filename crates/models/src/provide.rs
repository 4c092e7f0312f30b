//! A model at the start of an instance: its files are there, or they are pulled again; how long the start took is counted by where they were.

use std::path::Path;

use futures_util::future::BoxFuture;
use kip_host::clock::{boot_millis, wall_millis};
use kip_host::tasks;
use kip_spec::named_secret::{SecretName, SecretSource};
use kip_spec::people;
use kip_wire::{ModelPrefetch, ModelTier};

use crate::error::Error;
use crate::record::Record;
use crate::residency::{are_there, read_all, resident_of};
use crate::service::{Models, Request, in_cache};
use crate::source::{Hub, Source};

/// A model counts as being in the page cache from this part of its bytes on, percent.
const RESIDENT: u64 = 90;
/// A model is read into the page cache by itself only up to this part of the memory that is available, percent.
const OF_MEMORY: u64 = 60;

/// A model that an instance is started from.
#[derive(Debug, Clone)]
pub struct ModelLoad {
    key: String,
    /// Its id.
    pub model: String,
    /// Where its files were.
    pub tier: ModelTier,
}

impl Models {
    /// The models whose folders an instance needs. `needs` says it of a folder.
    pub fn needed_by(&self, needs: impl Fn(&Path) -> bool) -> Vec<Record> {
        if !needs(&self.shared.cache.folder().join("trees")) {
            return Vec::new();
        }
        let mut records = self.shared.cache.records();
        records.retain(|record| needs(&self.folder(record)));
        records
    }

    /// Makes sure of the files of a model before an instance starts from it: what is not on the disk is pulled again.
    ///
    /// Dropped at any await, the pull goes on, and the next start joins it.
    ///
    /// # Errors
    /// That of the pull.
    pub async fn provide(&self, record: &Record, secrets: &dyn SecretSource) -> Result<ModelLoad, Error> {
        let key = record.key();
        self.shared.uses.used(&key, wall_millis());
        let (files, size) = (self.shared.cache.placed(record), record.size());
        let whole = record.evicted.is_none() && record.damaged.is_empty();
        let looked =
            in_cache(&self.shared.cache, move || Ok((whole && are_there(&files)).then(|| resident_of(&files, true))));
        let tier = match looked.await? {
            None => {
                self.restore(record, secrets).await?;
                ModelTier::Remote
            }
            Some(Some(resident)) if resident.saturating_mul(100) >= size.saturating_mul(RESIDENT) => ModelTier::Memory,
            Some(_) => {
                self.prefetch_beside(record);
                ModelTier::Disk
            }
        };
        self.verify_beside(record);
        Ok(ModelLoad { key, model: record.id(), tier })
    }

    /// How far the pull of a model has come, for whoever waits.
    pub fn fetching(&self, record: &Record) -> Option<String> {
        let source = record.source.as_str();
        let pull = self.pulls().into_iter().find(|pull| {
            pull.error.is_none() && pull.model.is_none() && pull.source.split('@').next() == Some(source)
        })?;
        let percent = pull.received.saturating_mul(100).checked_div(pull.total).unwrap_or(0);
        Some(format!("{} of {}, {percent} %", people::size_of(pull.received, pull.total), people::size(pull.total)))
    }

    /// An instance was ready so many milliseconds after the order to start it.
    pub fn loaded(&self, loads: &[ModelLoad], took: u64) {
        loads.iter().for_each(|load| self.shared.uses.loaded(&load.key, load.tier, took));
    }

    /// Pulls the files of a model again, at its commit.
    fn restore<'a>(
        &'a self,
        record: &'a Record,
        secrets: &'a dyn SecretSource,
    ) -> BoxFuture<'a, Result<Record, Error>> {
        Box::pin(async move {
            let source: Source = record.source.parse()?;
            let revision = match &source {
                // Its commits are revisions.
                Source::Hub { hub: Hub::HuggingFace, .. } => Some(record.commit.clone()),
                Source::Hub { .. } => record.revisions.last().cloned(),
                Source::Url(_) | Source::Path(_) | Source::Bucket { .. } | Source::Adopted(_) => None,
            };
            let token = record.token_secret.as_ref().and_then(|name| {
                let name: SecretName = name.parse().ok()?;
                secrets.reveal(&name).ok()
            });
            let commit = match source {
                // The commit of a folder comes of its contents, which are compared one by one.
                Source::Path(_) => None,
                _ => Some(record.commit.clone()),
            };
            let request = Request {
                source: source.at(revision.as_deref())?,
                endpoint: record.endpoint.clone(),
                token,
                token_secret: record.token_secret.clone(),
                include: record.files.iter().map(|file| file.path.to_string()).collect(),
                commit,
            };
            tracing::info!(
                model = record.id(),
                "an instance starts from a model whose files are not on the disk: they are pulled again"
            );
            let restored = self.pulled(self.pull(request).id).await?;
            if restored.commit != record.commit {
                return Err(Error::Moved {
                    model: record.source.clone(),
                    commit: record.commit.clone(),
                    present: restored.commit,
                });
            }
            Ok(restored)
        })
    }

    /// Reads a model into the page cache while its instance starts, if it fits there with room to spare.
    fn prefetch_beside(&self, record: &Record) {
        let available = kip_host::usage::available_memory().unwrap_or(0);
        if !self.shared.options.prefetch || record.size() > available / 100 * OF_MEMORY {
            return;
        }
        let (files, model) = (self.shared.cache.placed(record), record.id());
        tasks::spawn("model prefetch", async move {
            if let Some(Err(error)) = tasks::blocking("model prefetch", move || read_all(&files)).await {
                tracing::debug!(%error, model, "a model was not read ahead");
            }
        });
    }

    /// Reads a model into the page cache.
    ///
    /// # Errors
    /// When its files are not on the disk, or cannot be read.
    pub async fn prefetch(&self, record: Record) -> Result<ModelPrefetch, Error> {
        if record.evicted.is_some() {
            return Err(Error::Evicted(record.id()));
        }
        let files = self.shared.cache.placed(&record);
        let (began, folder) = (boot_millis(), self.folder(&record));
        let read = in_cache(&self.shared.cache, move || {
            let before = resident_of(&files, false);
            read_all(&files).map_err(|error| Error::cache(&folder, &error))?;
            Ok((before, resident_of(&files, false)))
        });
        let (before, resident) = read.await?;
        Ok(ModelPrefetch {
            model: record.id(),
            size: record.size(),
            before,
            resident,
            took_ms: boot_millis().saturating_sub(began),
        })
    }

    /// Bytes of a model that are in the page cache; nothing where the kernel does not say.
    pub async fn resident(&self, record: &Record) -> Option<u64> {
        if record.evicted.is_some() {
            return Some(0);
        }
        let files = self.shared.cache.placed(record);
        tasks::blocking("model residency", move || resident_of(&files, false)).await.flatten()
    }
}
