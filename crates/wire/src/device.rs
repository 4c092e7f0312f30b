//! Devices of the host: who holds their memory, and what operators decided about them.

use kip_spec::{FunctionName, InstanceId};
use serde::{Deserialize, Serialize};

/// A device that the server uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeviceStatus {
    /// Its number on the host, as in `CUDA_VISIBLE_DEVICES`.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Bytes of its memory for instances.
    pub memory: u64,
    /// Bytes of it that are granted.
    pub granted: u64,
    /// Whether it is out of use.
    pub yielded: bool,
    /// Until when, milliseconds since 1970; none while it is in use, and where it stays out of use until it is taken back.
    pub yielded_until: Option<i64>,
    /// What its driver shows; none where the host has no driver, or it does not answer.
    pub seen: Option<DeviceReading>,
    /// The instances on it, those that could be evicted in the order in which they would be, then the others.
    pub instances: Vec<DeviceUser>,
}

/// What the driver of a device shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeviceReading {
    /// Bytes of its memory.
    pub total: u64,
    /// Bytes that nobody uses.
    pub free: u64,
    /// Percent of the last second or less in which it computed.
    pub utilization: Option<u32>,
    /// What it draws, milliwatts.
    pub milliwatts: Option<u32>,
    /// Degrees Celsius.
    pub celsius: Option<u32>,
    /// Programs with memory of it that are no instances of this server.
    pub others: Vec<OtherProgram>,
}

/// A program that is no instance of this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct OtherProgram {
    /// Its process id, as the driver counts.
    pub process: u32,
    /// Bytes that it holds, where the driver tells.
    pub held: Option<u64>,
}

/// An instance with a place on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeviceUser {
    /// Its function.
    pub function: FunctionName,
    /// Which.
    pub instance: InstanceId,
    /// Its state.
    pub state: String,
    /// Bytes that it is charged for; 0 of one that gave its device memory back.
    pub charged: u64,
    /// Bytes that it was last seen to hold; none where nobody has looked.
    pub held: Option<u64>,
    /// Whether another instance could evict it now.
    pub evictable: bool,
}

/// For how long a device is yielded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceYield {
    /// Milliseconds; none: until it is taken back.
    pub for_ms: Option<u64>,
}

/// Limits over all functions that replace those of kipwake.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaSettings {
    /// Devices; 0 is no limit, none is the limit of kipwake.toml.
    pub cards: Option<u32>,
    /// Instances; the same.
    pub instances: Option<u32>,
}
