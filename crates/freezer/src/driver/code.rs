//! Error codes of the driver, each with its name and with what it means for the instance that was being frozen or woken.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A call of the driver on behalf of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Once in each helper.
    Init,
    /// How far a process is.
    State,
    /// Whether a process uses CUDA at all.
    RestoreThread,
    /// Its calls of the driver wait from then on.
    Lock,
    /// Its device memory goes to the host.
    Checkpoint,
    /// And back.
    Restore,
    /// Its calls go on.
    Unlock,
}

impl Call {
    /// Those that freezing and waking need.
    pub const ALL: [Self; 7] =
        [Self::Init, Self::State, Self::RestoreThread, Self::Lock, Self::Checkpoint, Self::Restore, Self::Unlock];

    /// The symbol in `libcuda`.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Init => "cuInit",
            Self::State => "cuCheckpointProcessGetState",
            Self::RestoreThread => "cuCheckpointProcessGetRestoreThreadId",
            Self::Lock => "cuCheckpointProcessLock",
            Self::Checkpoint => "cuCheckpointProcessCheckpoint",
            Self::Restore => "cuCheckpointProcessRestore",
            Self::Unlock => "cuCheckpointProcessUnlock",
        }
    }
}

/// What an error means for the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// Nothing was done; the same may be tried again, later or by another helper.
    Retry,
    /// The instance is whole; whatever of it is locked must be unlocked, and it goes on.
    Unlock,
    /// The instance must be ended: its state is unknown, or known to be lost.
    Kill,
    /// This driver, device or process cannot be frozen; the rung is to be left out.
    Unsupported,
    /// There is no such process, or it does not use CUDA.
    Gone,
}

/// A `CUresult` that is not success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub i32);

impl Code {
    /// Invalid value; of the checkpoint calls also: no such CUDA process.
    pub const INVALID_VALUE: Self = Self(1);
    /// Out of memory.
    pub const OUT_OF_MEMORY: Self = Self(2);
    /// The caller has not initialised CUDA.
    pub const NOT_INITIALIZED: Self = Self(3);
    /// A call of the operating system failed.
    pub const OPERATING_SYSTEM: Self = Self(304);
    /// The process is not in the state that the call needs.
    pub const ILLEGAL_STATE: Self = Self(401);
    /// A lock that timed out.
    pub const NOT_READY: Self = Self(600);
    /// The caller may not do that.
    pub const NOT_PERMITTED: Self = Self(800);
    /// The process, device or driver does not support that.
    pub const NOT_SUPPORTED: Self = Self(801);

    /// NVIDIA's name without its prefix. Codes that the table lacks are asked of the driver by the helper.
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|row| row.1)
    }

    /// What happened, for people.
    pub fn meaning(self) -> &'static str {
        self.row().map_or("an error that this version does not know", |row| row.2)
    }

    fn row(self) -> Option<&'static (i32, &'static str, &'static str)> {
        TABLE.iter().find(|row| row.0 == self.0)
    }

    /// What it means when this call fails with it.
    pub fn advice(self, call: Call) -> Advice {
        match (call, self) {
            // These speak of the caller, so they come before anything is done.
            (_, Self::NOT_INITIALIZED | Self(4)) => Advice::Retry,
            (Call::Init, Self(100 | 34 | 35 | 803 | 804) | Self::NOT_SUPPORTED) => Advice::Unsupported,
            (Call::Init, _) => Advice::Retry,
            (Call::State | Call::RestoreThread, Self::INVALID_VALUE) => Advice::Gone,
            (Call::Lock, Self::INVALID_VALUE) => Advice::Gone,
            (Call::State | Call::RestoreThread | Call::Lock, Self::NOT_PERMITTED | Self::NOT_SUPPORTED) => {
                Advice::Unsupported
            }
            (Call::State | Call::RestoreThread, _) => Advice::Retry,
            // A lock changes nothing but the lock.
            (Call::Lock, _) => Advice::Unlock,
            // The driver does not roll back: what is left after a failed checkpoint or restore is unknown, and after a
            // restore that found no room even known to be lost.
            (Call::Checkpoint | Call::Restore, _) => Advice::Kill,
            (Call::Unlock, Self::ILLEGAL_STATE | Self::INVALID_VALUE) => Advice::Kill,
            (Call::Unlock, _) => Advice::Retry,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name}): {}", self.0, self.meaning()),
            None => write!(f, "{}: {}", self.0, self.meaning()),
        }
    }
}

/// Code, name, meaning. All that the calls above are documented or were seen to answer, and those that come of a driver
/// that is not well.
const TABLE: &[(i32, &str, &str)] = &[
    (1, "INVALID_VALUE", "there is no such CUDA process, or an argument is wrong"),
    (2, "OUT_OF_MEMORY", "the device or the host has not enough memory"),
    (3, "NOT_INITIALIZED", "the helper has not initialised CUDA"),
    (4, "DEINITIALIZED", "the driver is shutting down in the helper"),
    (34, "STUB_LIBRARY", "the library is the stub that programs are linked with, not a driver"),
    (35, "INSUFFICIENT_DRIVER", "the driver is older than what the caller was built for"),
    (46, "DEVICE_UNAVAILABLE", "the device is busy or in exclusive use"),
    (100, "NO_DEVICE", "there is no device that CUDA can use"),
    (101, "INVALID_DEVICE", "there is no device of this number"),
    (201, "INVALID_CONTEXT", "there is no context"),
    (209, "NO_BINARY_FOR_GPU", "there is no code for this device"),
    (214, "ECC_UNCORRECTABLE", "the device's memory is damaged"),
    (304, "OPERATING_SYSTEM", "a call of the operating system failed in the driver"),
    (401, "ILLEGAL_STATE", "the process is not in the state that the call needs"),
    (600, "NOT_READY", "it was not done in time"),
    (700, "ILLEGAL_ADDRESS", "a kernel of the process touched memory that is not its own"),
    (719, "LAUNCH_FAILED", "a kernel of the process failed"),
    (800, "NOT_PERMITTED", "the user may not do that to the process"),
    (801, "NOT_SUPPORTED", "the process uses what cannot be frozen, or the device or driver cannot freeze"),
    (802, "SYSTEM_NOT_READY", "the system is not ready: a fabric or persistence service is still starting"),
    (803, "SYSTEM_DRIVER_MISMATCH", "library and kernel module are of different versions"),
    (804, "COMPAT_NOT_SUPPORTED_ON_DEVICE", "the device does not allow the compatibility library"),
    (805, "MPS_CONNECTION_FAILED", "the multi-process service does not answer"),
    (909, "TIMEOUT", "it was not done in time"),
    (999, "UNKNOWN", "the driver does not know what happened"),
];

/// An `nvmlReturn_t` that is not success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NvmlCode(pub i32);

impl NvmlCode {
    /// The buffer was too small.
    pub const INSUFFICIENT_SIZE: Self = Self(7);

    /// What happened, for people.
    pub fn meaning(self) -> &'static str {
        match self.0 {
            1 => "it is not initialised",
            2 => "an argument is wrong",
            3 => "the device does not support that",
            4 => "the user may not ask that",
            6 => "it was not found",
            7 => "there are more than fit",
            9 => "no driver is loaded",
            12 | 13 => "the library or one of its functions is missing",
            15 => "the device fell off the bus, or is lost",
            17 => "the operating system holds it up",
            18 => "library and kernel module are of different versions",
            19 => "it is in use",
            20 | 23 => "there is not enough memory",
            _ => "the driver does not know what happened",
        }
    }
}

/// Which library an error came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Library {
    /// `libcuda`.
    Cuda,
    /// `libnvidia-ml`.
    Nvml,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{symbol}: {}", self.said())]
pub struct CallFailure {
    /// Whose call.
    pub library: Library,
    /// Its symbol.
    pub symbol: String,
    /// The code, or `None` if the library lacks the symbol.
    pub code: Option<i32>,
    /// The name, if only the driver knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
}

impl CallFailure {
    pub(crate) fn cuda(symbol: &str, code: i32) -> Self {
        Self { library: Library::Cuda, symbol: symbol.to_owned(), code: Some(code), named: None }
    }

    pub(crate) fn nvml(symbol: &str, code: i32) -> Self {
        Self { library: Library::Nvml, symbol: symbol.to_owned(), code: Some(code), named: None }
    }

    pub(crate) fn missing(library: Library, symbol: &str) -> Self {
        Self { library, symbol: symbol.to_owned(), code: None, named: None }
    }

    /// What it means for the instance. A library without the symbol cannot freeze.
    pub fn advice(&self, call: Call) -> Advice {
        self.code.map_or(Advice::Unsupported, |code| Code(code).advice(call))
    }

    fn said(&self) -> String {
        match (self.library, self.code) {
            (_, None) => "this driver does not have it".to_owned(),
            (Library::Cuda, Some(code)) => match &self.named {
                Some(name) => format!("{code} ({name})"),
                None => Code(code).to_string(),
            },
            (Library::Nvml, Some(code)) => format!("{code}: {}", NvmlCode(code).meaning()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every call with every code of the table and one that nobody knows.
    #[test]
    fn each_error_means_something_definite() {
        let codes: Vec<i32> = TABLE.iter().map(|row| row.0).chain([31_337]).collect();
        for call in Call::ALL {
            for code in &codes {
                let advice = Code(*code).advice(call);
                let touched = matches!(call, Call::Checkpoint | Call::Restore) && !matches!(code, 3 | 4);
                assert_eq!(
                    advice == Advice::Kill,
                    touched || (call == Call::Unlock && matches!(code, 1 | 401)),
                    "{call:?} {code}"
                );
                if call == Call::Lock {
                    assert_ne!(advice, Advice::Kill, "a lock that fails never costs the instance: {code}");
                }
            }
        }
    }

    #[test]
    fn the_documented_ones_mean_what_the_failure_table_says() {
        for (call, code, advice) in [
            (Call::Restore, 2, Advice::Kill),
            (Call::Restore, 304, Advice::Kill),
            (Call::Restore, 401, Advice::Kill),
            (Call::Restore, 3, Advice::Retry),
            (Call::Checkpoint, 801, Advice::Kill),
            (Call::Lock, 600, Advice::Unlock),
            (Call::Lock, 801, Advice::Unsupported),
            (Call::Lock, 800, Advice::Unsupported),
            (Call::Lock, 1, Advice::Gone),
            (Call::Unlock, 401, Advice::Kill),
            (Call::Unlock, 304, Advice::Retry),
            (Call::RestoreThread, 1, Advice::Gone),
            (Call::Init, 100, Advice::Unsupported),
            (Call::Init, 999, Advice::Retry),
        ] {
            assert_eq!(Code(code).advice(call), advice, "{call:?} {code}");
        }
    }

    #[test]
    fn errors_are_named() {
        assert_eq!(
            CallFailure::cuda("cuInit", 100).to_string(),
            "cuInit: 100 (NO_DEVICE): there is no device that CUDA can use"
        );
        assert_eq!(CallFailure::missing(Library::Cuda, "cuX").to_string(), "cuX: this driver does not have it");
        assert_eq!(CallFailure::nvml("nvmlInit_v2", 9).to_string(), "nvmlInit_v2: 9: no driver is loaded");
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
