//! What is ours, and the log that nothing can be faster than. Both work in this process, without a socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use crate::Peer;
use crate::subjects::{Log, Round, Store, Subject, open};

/// Where our store is among the peers.
pub(crate) const STORE: usize = 1;

pub(crate) struct Logs(PathBuf);

impl Logs {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.join("log"))
    }
}

#[async_trait::async_trait]
impl Peer for Logs {
    fn name(&self) -> String {
        "bare log".to_owned()
    }

    fn kept(&self) -> String {
        "in this process; one thread appends what waits to a file that was filled before, and fdatasyncs it before it answers. \
         A cycle is three appends. Nothing could be looked up"
            .to_owned()
    }

    async fn subject(&self, _: Round, _: usize) -> Result<Arc<dyn Subject>> {
        Ok(Arc::new(Log::start(&self.0, true)))
    }
}

pub(crate) struct Stores(PathBuf);

impl Stores {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.join("store"))
    }
}

#[async_trait::async_trait]
impl Peer for Stores {
    fn name(&self) -> String {
        "Kipwake's store".to_owned()
    }

    fn kept(&self) -> String {
        "in this process, without a socket; SQLite WAL, synchronous=FULL, group commit: synced before the answer. A cycle is three \
         acknowledged writes, and the result of 64 bytes is kept"
            .to_owned()
    }

    async fn subject(&self, _: Round, _: usize) -> Result<Arc<dyn Subject>> {
        if self.0.exists() {
            std::fs::remove_dir_all(&self.0)?;
        }
        std::fs::create_dir(&self.0)?;
        Ok(Arc::new(Store(open(&self.0.join("tasks.db")))))
    }
}
