//! The data directory's disk, before anything is written to it: what kind it is, and the room that is kept for state.

use std::path::Path;
use std::sync::Arc;

use kip_control::DiskOptions;
use kip_host::disk::{Kind, Pressure, Reserve};
use kip_spec::{Problem, code};
use kip_store::tasks::{SqliteTasks, Tuning};
use kip_store::{DiskHealth, SqliteControl, SqliteRecords};

use crate::config::Config;

/// The reserve's file in the data directory.
const RESERVE: &str = "reserve";

/// Looks at the disk and holds the reserve, if there is room for it.
pub(crate) fn prepare(data: &Path, config: &Config) -> Result<DiskOptions, Problem> {
    // What cannot be told counts as a disk.
    judge(data, kip_host::disk::kind(data).unwrap_or(Kind::Local), config.network)?;
    clear(data);
    let reserve = Reserve::new(data.join(RESERVE), config.reserve);
    if let Err(error) = reserve.hold() {
        tracing::warn!(%error, "there is no room for the reserve of {}", kip_spec::Bytes(config.reserve));
    }
    Ok(DiskOptions { directory: data.to_owned(), low: config.low, reserve, pressure: Pressure::default() })
}

/// Removes what a restore that was killed had unpacked.
fn clear(data: &Path) {
    for entry in std::fs::read_dir(data).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("restore.") && name.ends_with(".new") {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Refuses a network file system unless it is allowed, and warns of what is left.
fn judge(data: &Path, kind: Kind, network_allowed: bool) -> Result<(), Problem> {
    match kind {
        Kind::Local => {}
        Kind::Memory(name) => {
            tracing::warn!(file_system = name, "the data directory is in memory: all state is gone with the power");
        }
        Kind::Network(name) if network_allowed => {
            tracing::warn!(file_system = name, "the data directory is on a network file system: state may be damaged");
        }
        Kind::Network(name) => {
            let what = format!("the data directory {} is on a network file system ({name})", data.display());
            return Err(Problem::new(code::DATA_DIRECTORY_NETWORK, what)
                .cause("its locks and shared memory cannot be relied on, and the database needs both")
                .hint("choose a local disk: --data-dir DIR; or set disk.network = \"allow\" in kipwake.toml"));
        }
    }
    Ok(())
}

/// Where state is kept.
#[derive(Debug)]
pub(crate) struct Stores {
    pub(crate) control: Arc<SqliteControl>,
    pub(crate) records: Arc<SqliteRecords>,
    pub(crate) tasks: Arc<SqliteTasks>,
}

/// Opens the stores; the reserve is for control objects and tasks.
pub(crate) fn open(data: &Path, disk: &DiskOptions) -> Result<Stores, kip_store::Error> {
    let care = DiskHealth::with_reserve(disk.pressure.clone(), disk.reserve.clone());
    let control = SqliteControl::open_with(&data.join("control.db"), care)?;
    let care = DiskHealth::with_reserve(disk.pressure.clone(), disk.reserve.clone());
    let open = || SqliteTasks::open_with(&data.join("tasks.db"), care.clone(), Tuning::default());
    let tasks = match open() {
        Err(kip_store::Error::Full { .. }) if disk.reserve.release() => open()?,
        other => other?,
    };
    let care = DiskHealth::without_reserve(disk.pressure.clone());
    let open = || SqliteRecords::open_with(&data.join("records.db"), care.clone());
    let records = match open() {
        // State needed no room to be opened, perhaps because its last server was killed; a server must start all the same.
        Err(kip_store::Error::Full { .. }) if disk.reserve.release() => open()?,
        other => other?,
    };
    Ok(Stores { control: Arc::new(control), records: Arc::new(records), tasks: Arc::new(tasks) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_refused_unless_allowed() {
        let judged = |kind, allowed| judge(Path::new("/data"), kind, allowed);
        let refused = judged(Kind::Network("nfs"), false).unwrap_err();
        assert_eq!(refused.code, code::DATA_DIRECTORY_NETWORK);
        assert!(refused.message.contains("nfs") && refused.message.contains("/data"), "{refused}");
        assert!(judged(Kind::Network("nfs"), true).is_ok());
        assert!(judged(Kind::Memory("tmpfs"), false).is_ok() && judged(Kind::Local, false).is_ok());
    }
}
