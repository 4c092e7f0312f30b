//! The data directory's disk, before anything is written to it: what kind it is, and the room that is kept for state.

use std::path::Path;
use std::sync::Arc;

use kip_control::DiskOptions;
use kip_host::disk::{Kind, Pressure, Reserve};
use kip_spec::{Problem, code};
use kip_store::{Care, SqliteControl, SqliteRecords};

use crate::config::Config;

/// The reserve's file in the data directory.
const RESERVE: &str = "reserve";

/// Looks at the disk and holds the reserve, if there is room for it.
pub(crate) fn prepare(data: &Path, config: &Config) -> Result<DiskOptions, Problem> {
    match kip_host::disk::kind(data) {
        Ok(Kind::Network(name)) if !config.network => {
            return Err(Problem::new(
                code::DATA_DIRECTORY_NETWORK,
                format!("the data directory {} is on a network file system ({name})", data.display()),
            )
            .cause("its locks and shared memory cannot be relied on, and the database needs both")
            .hint("choose a local disk: --data-dir DIR; or set disk.network = \"allow\" in kipwake.toml"));
        }
        Ok(Kind::Network(name)) => {
            tracing::warn!(file_system = name, "the data directory is on a network file system: state may be damaged");
        }
        Ok(Kind::Memory(name)) => {
            tracing::warn!(file_system = name, "the data directory is in memory: all state is gone with the power");
        }
        _ => {}
    }
    let reserve = Reserve::new(data.join(RESERVE), config.reserve);
    if let Err(error) = reserve.hold() {
        tracing::warn!(%error, "there is no room for the reserve of {}", kip_spec::Bytes(config.reserve));
    }
    Ok(DiskOptions { directory: data.to_owned(), low: config.low, reserve, pressure: Pressure::default() })
}

/// Opens both stores; the reserve is for control objects only.
pub(crate) fn open(
    data: &Path,
    disk: &DiskOptions,
) -> Result<(Arc<SqliteControl>, Arc<SqliteRecords>), kip_store::Error> {
    let care = Care::with_reserve(disk.pressure.clone(), disk.reserve.clone());
    let control = SqliteControl::open_with(&data.join("control.db"), care)?;
    let care = Care::without_reserve(disk.pressure.clone());
    let records = SqliteRecords::open_with(&data.join("records.db"), care)?;
    Ok((Arc::new(control), Arc::new(records)))
}
