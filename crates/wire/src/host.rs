//! The host, its devices and its disk.

use kip_spec::FunctionName;
use serde::{Deserialize, Serialize};

/// The host as users see it.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HostInfo {
    /// Bytes of memory that instances have reserved.
    pub reserved_memory: u64,
    /// Bytes of memory there are for them.
    pub memory: u64,
    /// Thousandths of a CPU there are for them.
    #[serde(default)]
    pub cpu: u64,
    /// Devices that were declared.
    #[serde(default)]
    pub devices: Vec<DeviceInfo>,
    /// What all functions together may take.
    #[serde(default)]
    pub quota: QuotaInfo,
    /// The share of the last ten minutes, in a thousand, that the worst place spent on changing hands.
    #[serde(default)]
    pub thrash_per_mille: u32,
    /// The part of it that was in vain: who lost its place wanted it back before the other one served.
    #[serde(default)]
    pub thrash_in_vain_per_mille: u32,
    /// Instances that wait for room.
    pub waiting_for_room: usize,
    /// Records dropped because the disk did not keep up, or left out because there were enough of their kind.
    pub dropped_records: u64,
    /// Lines of the server's log that could not be written.
    #[serde(default)]
    pub dropped_log_lines: u64,
    /// Of these, records left out because the disk is nearly full.
    pub shed_records: u64,
    /// The disk that state is on.
    pub disk: DiskInfo,
}

/// A device as users see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeviceInfo {
    /// Its number on the host, as in `CUDA_VISIBLE_DEVICES`.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Bytes of its memory that are granted.
    pub granted: u64,
    /// Bytes of its memory for instances.
    pub memory: u64,
}

/// What all functions together may take; nothing is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct QuotaInfo {
    /// Devices.
    pub cards: Option<u32>,
    /// Instances.
    pub instances: Option<u32>,
}

/// The disk as users see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DiskInfo {
    /// `ok`; `low`: records and logs are left out; `full`: only state is written.
    pub level: String,
    /// Bytes that are free.
    pub free: u64,
    /// Bytes there are.
    pub total: u64,
    /// Whether the reserve for state is there.
    pub reserve_held: bool,
    /// `writable`, `full` or `not_durable`.
    pub state: String,
    /// What failed, where state is not durable.
    pub state_detail: Option<String>,
    /// The kind of file system, where it is one to warn of.
    pub file_system: Option<String>,
}

/// Something that happened to the server itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ServerEvent {
    /// When, milliseconds since 1970.
    pub at: i64,
    /// In a sentence.
    pub what: String,
}

impl DiskInfo {
    /// Whether functions can be deployed and removed.
    pub fn takes_changes(&self) -> bool {
        self.state == "writable"
    }
}

/// What became of the functions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RestoreReport {
    /// As they were; their instances were not touched.
    pub kept: Vec<FunctionName>,
    /// Put back: a new version, or a function that was gone.
    pub deployed: Vec<FunctionName>,
    /// Not in the backup, and therefore removed.
    pub removed: Vec<FunctionName>,
    /// Secrets that were sealed with a key that this server does not have: they must be set again.
    #[serde(default)]
    pub unreadable_secrets: Vec<String>,
    /// Keys that the backup added. They are valid at once.
    #[serde(default)]
    pub keys: Vec<RestoredKey>,
}

/// A key that a restore added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RestoredKey {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: String,
}
