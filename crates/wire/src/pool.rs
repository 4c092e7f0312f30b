//! Pools: where instances can be.

use serde::{Deserialize, Serialize};

/// A pool, in the order in which pools are filled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Where its instances run: `local`, the socket of an engine, or `ssh://…`.
    pub engine: String,
    /// Whether that answers.
    pub reachable: bool,
    /// Pools with a larger one are filled first.
    pub priority: i64,
    /// The price of an instance for an hour, in the money of its owner.
    pub price: Option<f64>,
    /// Instances that have room in it.
    pub instances: u32,
    /// And how many may; nothing is no limit.
    pub max: Option<u32>,
    /// Bytes of memory that they have reserved.
    pub reserved_memory: u64,
    /// Thousandths of a CPU that they have reserved.
    pub reserved_cpu: u64,
    /// Its hosts.
    pub hosts: Vec<PoolHost>,
}

/// A host of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PoolHost {
    /// Thousandths of a CPU for instances.
    pub cpu: u64,
    /// Bytes of memory for instances.
    pub memory: u64,
    /// The names of its devices.
    pub devices: Vec<String>,
}
