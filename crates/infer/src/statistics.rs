//! Counts of runs by batch size, in the form of the protocol's statistics extension.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;

/// Runs and time spent in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) count: u64,
    pub(crate) ns: u64,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Statistics(Mutex<Counts>);

/// What is counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Rows that were answered.
    pub(crate) rows: u64,
    pub(crate) succeeded: Count,
    pub(crate) failed: Count,
    /// By rows in a run.
    pub(crate) by_size: BTreeMap<usize, Count>,
}

impl Count {
    fn add(&mut self, micros: u64) {
        self.count += 1;
        self.ns += micros * 1_000;
    }
}

impl Statistics {
    /// Counts a run.
    pub(crate) fn ran(&self, rows: usize, micros: u64, succeeded: bool) {
        let mut counts = self.0.lock();
        if succeeded {
            counts.rows += rows as u64;
            counts.succeeded.add(micros);
            counts.by_size.entry(rows).or_default().add(micros);
        } else {
            counts.failed.add(micros);
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.0.lock().clone()
    }
}
