//! What fits on a host: which functions stay on their devices, and what wait the others can promise.

use kip_spec::FunctionName;
use serde::{Deserialize, Serialize};

/// The host, and where each function with a device ends up if all are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FitReport {
    /// Bytes of the devices in use, in their order.
    pub devices: Vec<u64>,
    /// Bytes of host memory for instances.
    pub memory: u64,
    /// The functions that need a device, those that stay on it first.
    pub functions: Vec<FunctionFit>,
    /// Functions that would stay on their device as well, with one more device like the largest.
    pub one_more_device: Vec<FunctionName>,
    /// Bytes of host memory without which functions end that could be parked; 0 if none does.
    pub missing_memory: u64,
}

/// One function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FunctionFit {
    /// Its name.
    pub function: FunctionName,
    /// Bytes of device memory that an instance needs; of whole devices the memory of the largest ones.
    pub device_memory: u64,
    /// How that is known: `declared`, or `measured`.
    pub known_by: String,
    /// Bytes of host memory that an instance needs while it is awake; 0 where nothing is declared and nothing was measured.
    pub memory: u64,
    /// Where an idle instance is when all functions are used: `paused` on its device, `parked`, `spilled` or `gone`; `never` if it does
    /// not fit on any device.
    pub rung: String,
    /// How long its next request waits for the instance, milliseconds; none if that was not measured yet.
    pub wait_ms: Option<u64>,
    /// The longest wake that it allows (`latency.wake`), milliseconds.
    pub limit_ms: Option<u64>,
}
