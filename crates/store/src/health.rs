//! Whether a database takes changes, and the room that is kept for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kip_host::disk::{Level, Pressure, Reserve};
use parking_lot::Mutex;

/// Whether a database takes changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Condition {
    /// It does.
    #[default]
    Writable,
    /// The disk is full. Ends by itself when there is room again.
    Full,
    /// A write or a sync failed; what failed. Ends with a new start of the server only.
    NotDurable(String),
}

/// What a database knows of the disk below it. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct DiskHealth {
    condition: Arc<Mutex<Condition>>,
    pressure: Pressure,
    /// Kept for control objects only.
    reserve: Option<Arc<Reserve>>,
    /// Bytes of the write-ahead log that the last checkpoint had to leave.
    log_left: Arc<AtomicU64>,
}

impl DiskHealth {
    /// For state: the reserve is given up for it.
    pub fn with_reserve(pressure: Pressure, reserve: Reserve) -> Self {
        Self { condition: Arc::default(), pressure, reserve: Some(Arc::new(reserve)), log_left: Arc::default() }
    }

    /// For what can be left out.
    pub fn without_reserve(pressure: Pressure) -> Self {
        Self { condition: Arc::default(), pressure, reserve: None, log_left: Arc::default() }
    }

    /// Whether changes are taken.
    pub fn condition(&self) -> Condition {
        self.condition.lock().clone()
    }

    /// The disk has room again. What is not durable stays so.
    pub fn room_again(&self) {
        let mut condition = self.condition.lock();
        if *condition == Condition::Full {
            *condition = Condition::Writable;
        }
    }

    pub(crate) fn log_left(&self) -> u64 {
        self.log_left.load(Ordering::Relaxed)
    }

    pub(crate) fn set_log_left(&self, bytes: u64) {
        self.log_left.store(bytes, Ordering::Relaxed);
    }

    /// Gives the reserve up. False if there was none.
    pub(crate) fn make_room(&self) -> bool {
        self.pressure.set(Level::Full);
        self.reserve.as_ref().is_some_and(|reserve| reserve.release())
    }

    pub(crate) fn full(&self) {
        self.pressure.set(Level::Full);
        let mut condition = self.condition.lock();
        if *condition == Condition::Writable {
            *condition = Condition::Full;
        }
    }

    pub(crate) fn not_durable(&self, detail: &str) {
        *self.condition.lock() = Condition::NotDurable(detail.to_owned());
    }
}
