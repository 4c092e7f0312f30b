//! What can go wrong in this room, and the code under which a person meets it.

use std::time::Duration;

use kip_spec::{Code, Problem, code};

use crate::driver::CallFailure;

/// Why a helper is not there any more. What it was asked for may have been done, or not, or in part.
#[derive(Debug, thiserror::Error)]
pub enum HelperLoss {
    /// It could not be started.
    #[error("the GPU helper could not be started")]
    Start(#[source] std::io::Error),
    /// It had ended before it could be asked: nothing was done.
    #[error("the GPU helper had ended before {0}")]
    NotAsked(String),
    /// It ended.
    #[error("the GPU helper ended in the midst of {0}")]
    Ended(String),
    /// It did not answer in time and was killed.
    #[error("the GPU helper did not answer {asked} within {limit:?} and was killed")]
    Hung {
        /// What it was asked.
        asked: String,
        /// How long it had.
        limit: Duration,
    },
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no driver.
    #[error("there is no GPU driver on this host: {0}")]
    NoDriver(String),
    /// The driver or the device cannot freeze.
    #[error("processes that use a GPU cannot be frozen here: {0}")]
    CannotFreeze(String),
    /// The driver refused.
    #[error("the GPU driver refused")]
    Driver(#[from] CallFailure),
    /// The helper is gone.
    #[error(transparent)]
    Helper(#[from] HelperLoss),
    /// What must be written down before the next step could not be.
    #[error("the journal could not be written: {0}")]
    Journal(String),
    /// A process has ended, or was replaced by another of its number.
    #[error("process {0} has ended")]
    Ended(u32),
    /// A process gets no CPU, so the driver's work inside it would never be done.
    #[error("process {0} is stopped or frozen: the driver's work is done inside it, so it must run")]
    Stopped(u32),
    /// The driver said that it was done, and it was not.
    #[error("{call} of process {process} was not done though the driver said so: it is {state}")]
    NotDone {
        /// The call.
        call: &'static str,
        /// The process.
        process: u32,
        /// What it was found to be.
        state: String,
    },
    /// The device has no room.
    #[error("{wanted} bytes are needed on {device} and {free} are free")]
    NoRoom {
        /// The device.
        device: String,
        /// What is needed, margin included.
        wanted: u64,
        /// What is free.
        free: u64,
    },
    /// The probe process failed.
    #[error("the probe process: {0}")]
    Probe(String),
    /// A step of the qualification showed something else than it should.
    #[error("{step}: {what}")]
    NotQualified {
        /// The step.
        step: &'static str,
        /// What was seen.
        what: String,
    },
}

impl Error {
    /// Its stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::NoDriver(_) => code::GPU_DRIVER_MISSING,
            Self::CannotFreeze(_) => code::GPU_CANNOT_FREEZE,
            Self::Driver(_) | Self::NotDone { .. } => code::GPU_CALL_FAILED,
            Self::Helper(_) => code::GPU_HELPER_LOST,
            Self::Journal(_) | Self::Ended(_) | Self::Stopped(_) => code::FREEZE_ABORTED,
            Self::NoRoom { .. } => code::WAKE_NO_MEMORY,
            Self::Probe(_) | Self::NotQualified { .. } => code::QUALIFICATION_FAILED,
        }
    }

    /// As a person meets it.
    pub fn problem(&self) -> Problem {
        let mut problem = Problem::new(self.code(), self.to_string());
        let mut source = std::error::Error::source(self);
        let mut causes = Vec::new();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        if !causes.is_empty() {
            problem = problem.cause(causes.join(": "));
        }
        problem.hint("`kip doctor` says what this host can do")
    }
}
