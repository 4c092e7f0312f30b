//! What can go wrong with a job.

use kip_spec::{Code, Problem, code};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is a function, but no job.
    #[error("`{name}` is no job")]
    NoJob {
        /// Its name.
        name: String,
    },
    /// The job has no timer.
    #[error("job `{name}` has no schedule")]
    NoTimer {
        /// Its name.
        name: String,
    },
    /// Tasks refuse it.
    #[error(transparent)]
    Tasks(#[from] kip_tasks::Error),
}

impl From<kip_control::Error> for Error {
    fn from(error: kip_control::Error) -> Self {
        Self::Tasks(error.into())
    }
}

impl From<kip_store::Error> for Error {
    fn from(error: kip_store::Error) -> Self {
        Self::Tasks(error.into())
    }
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::NoJob { .. } => code::JOB_UNKNOWN,
            Self::NoTimer { .. } => code::JOB_NO_SCHEDULE,
            Self::Tasks(error) => error.code(),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let hint = match &error {
            Error::NoJob { .. } => "`kip job ls` lists the jobs there are",
            Error::NoTimer { .. } => "it runs by `kip job run` only; give it a `schedule` in kip.yaml",
            Error::Tasks(_) => "",
        };
        match error {
            Error::Tasks(error) => error.into(),
            error => Self::new(error.code(), error.to_string()).hint(hint),
        }
    }
}
