//! The watch over the data directory's disk: what is left out when room gets scarce, and when all is well again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kip_host::disk::{Kind, Level, Pressure, Reserve, Space};
use kip_store::{Changes, Condition, SqliteFile};
use kip_wire::{DiskInfo, ServerEvent};
use parking_lot::Mutex;

use crate::stores::Files;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Events that are remembered.
const EVENTS: usize = 100;

/// What the watch is told.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// The data directory.
    pub directory: PathBuf,
    /// Below so many free bytes, records and logs are left out.
    pub low: u64,
    /// What is kept for state.
    pub reserve: Reserve,
    /// How the disk stands, for all who write.
    pub pressure: Pressure,
}

/// The watch.
#[derive(Debug)]
pub(crate) struct DiskWatch {
    options: DiskOptions,
    changes: Changes,
    files: Option<Files>,
    events: Mutex<VecDeque<ServerEvent>>,
    condition: Mutex<Condition>,
}

impl DiskWatch {
    pub(crate) fn new(options: DiskOptions, changes: Changes, files: Option<Files>) -> Self {
        Self { options, changes, files, events: Mutex::default(), condition: Mutex::default() }
    }

    /// Looks every second, for as long as the server runs.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut before = Level::Ok;
        loop {
            let watch = self.clone();
            let looked = kip_host::tasks::blocking("disk", move || watch.look(before)).await;
            before = looked.unwrap_or(before);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One look: gives the level and says what changed.
    fn look(&self, before: Level) -> Level {
        let Ok(space) = kip_host::disk::space(&self.options.directory) else { return before };
        let room = self.may_hold(space) && self.options.reserve.hold().is_ok();
        if room {
            self.changes.file().into_iter().for_each(SqliteFile::room_again);
            if let Some(files) = &self.files {
                files.records.room_again();
                files.tasks.room_again();
            }
        }
        let level = if room { level(space, self.options.low, before) } else { Level::Full };
        self.options.pressure.set(level);
        if level != before {
            let free = kip_spec::Bytes(space.free);
            self.note(match level {
                Level::Ok => format!("the disk has room again ({free} free): records and logs are written"),
                Level::Low => format!("the disk is nearly full ({free} free): records and logs are left out"),
                Level::Full => format!("the disk is full ({free} free): only state is written, from the reserve"),
            });
        }
        let condition = self.changes.read().condition();
        let known = std::mem::replace(&mut *self.condition.lock(), condition.clone());
        if known != condition {
            self.note(match condition {
                Condition::Writable => "functions can be deployed and removed again".to_owned(),
                Condition::Full => "there is no room for state: deployments and removals are refused".to_owned(),
                Condition::NotDurable(detail) => {
                    format!("state is not durable ({detail}): deployments and removals are refused until a new start")
                }
            });
        }
        level
    }

    /// Whether there is room for the reserve beside what is written until the next look.
    fn may_hold(&self, space: Space) -> bool {
        self.options.reserve.is_held() || space.free > self.options.reserve.bytes().saturating_add(self.options.low / 4)
    }

    fn note(&self, what: String) {
        tracing::warn!(what, "the disk of the data directory");
        self.remember(what);
    }

    /// Something about the stores that an operator has to look at.
    pub(crate) fn report(&self, what: String) {
        tracing::error!(what, "the store");
        self.remember(what);
    }

    fn remember(&self, what: String) {
        let mut events = self.events.lock();
        if events.len() == EVENTS {
            events.pop_front();
        }
        events.push_back(ServerEvent { at: kip_host::clock::wall_millis(), what });
    }

    pub(crate) fn events(&self) -> Vec<ServerEvent> {
        self.events.lock().iter().cloned().collect()
    }

    pub(crate) fn info(&self) -> DiskInfo {
        let space = kip_host::disk::space(&self.options.directory).unwrap_or(Space { free: 0, total: 0 });
        let (state, state_detail) = match self.changes.read().condition() {
            Condition::Writable => ("writable", None),
            Condition::Full => ("full", None),
            Condition::NotDurable(detail) => ("not_durable", Some(detail)),
        };
        let file_system = match kip_host::disk::kind(&self.options.directory) {
            Ok(Kind::Network(name) | Kind::Memory(name)) => Some(name.to_owned()),
            _ => None,
        };
        DiskInfo {
            level: self.options.pressure.level().name().to_owned(),
            free: space.free,
            total: space.total,
            reserve_held: self.options.reserve.is_held(),
            state: state.to_owned(),
            state_detail,
            file_system,
        }
    }
}

/// The level for so much room. It gets better only a quarter above where it got worse, so that it does not flutter.
fn level(space: Space, low: u64, before: Level) -> Level {
    let margin = |level: Level| if before >= level { low / 4 } else { 0 };
    if space.free < low / 16 + margin(Level::Full) / 16 {
        Level::Full
    } else if space.free < low + margin(Level::Low) {
        Level::Low
    } else {
        Level::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_do_not_flutter() {
        let at = |free: u64, before: Level| level(Space { free, total: 10_000 }, 1_600, before);
        assert_eq!(at(1_600, Level::Ok), Level::Ok);
        assert_eq!(at(1_599, Level::Ok), Level::Low);
        assert_eq!(at(1_700, Level::Low), Level::Low);
        assert_eq!(at(2_000, Level::Low), Level::Ok);
        assert_eq!(at(99, Level::Low), Level::Full);
        assert_eq!(at(110, Level::Full), Level::Full);
        assert_eq!(at(125, Level::Full), Level::Low);
        assert_eq!(at(5_000, Level::Full), Level::Ok);
    }
}
