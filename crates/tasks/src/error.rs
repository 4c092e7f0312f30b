//! What can go wrong with a task before it runs.

use kip_spec::people::size;
use kip_spec::{Code, Problem, code};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such task.
    #[error("function `{function}` has no task `{id}`")]
    Unknown {
        /// Of which function.
        function: String,
        /// Which id.
        id: String,
    },
    /// Several tenants have a task with this id.
    #[error("function `{function}` has a task `{id}` of each of these tenants: {}", tenants.join(", "))]
    Ambiguous {
        /// Of which function.
        function: String,
        /// Which id.
        id: String,
        /// The tenants.
        tenants: Vec<String>,
    },
    /// The id or key stands for another request.
    #[error("`{id}` was used for another request before, which is task {task}")]
    Conflict {
        /// What the caller sent.
        id: String,
        /// The task that has it.
        task: String,
    },
    /// Too many wait.
    #[error("{waiting} tasks wait {of_what}, and {limit} may")]
    Full {
        /// How many wait.
        waiting: u64,
        /// How many may.
        limit: u64,
        /// Of whom.
        of_what: String,
    },
    /// The payloads that wait are too large together.
    #[error(
        "tasks with {} of payload wait {of_what}; {} more exceed the limit of {} ({setting})",
        size(*waiting), size(*bytes), size(*limit)
    )]
    FullOfBytes {
        /// Bytes that wait.
        waiting: u64,
        /// Bytes of this payload.
        bytes: u64,
        /// Bytes that may wait.
        limit: u64,
        /// Of whom.
        of_what: String,
        /// The setting of the limit.
        setting: &'static str,
    },
    /// No instance of the function can ever be placed here.
    #[error("no instance of function `{function}` can run here: {why}")]
    NeverFits {
        /// Of which function.
        function: String,
        /// What it needs, and what there is.
        why: String,
    },
    /// The bodies of submissions under way have all the memory that is for them.
    #[error("too many large payloads arrive at once")]
    TooManyBodies,
    /// The disk does not keep up.
    #[error("tasks come in faster than the disk takes them")]
    Busy,
    /// The payload is too large.
    #[error("the payload has {}, and a task takes at most {limit} bytes", of_size(*bytes, *limit))]
    TooLarge {
        /// Its size in bytes, where it is known: a chunked body is not read to its end.
        bytes: Option<u64>,
        /// What is taken.
        limit: usize,
    },
    /// Something of the submission is not acceptable.
    #[error("the task is not taken: {0}")]
    Submission(String),
    /// A configuration is not acceptable.
    #[error("the configuration is not taken: {0}")]
    Config(String),
    /// The task is not in a state for this.
    #[error("task `{id}` is {state}, and only {wanted} can be {what}")]
    State {
        /// Which.
        id: String,
        /// Its state.
        state: &'static str,
        /// What it would have to be.
        wanted: &'static str,
        /// What was to be done.
        what: &'static str,
    },
    /// A later run has taken over, or the task is over.
    #[error("this run of the task is not the present one")]
    Stale,
    /// The control room says no.
    #[error(transparent)]
    Control(#[from] kip_control::Error),
}

impl From<kip_store::Error> for Error {
    fn from(error: kip_store::Error) -> Self {
        match error {
            kip_store::Error::Busy { .. } => Self::Busy,
            other => Self::Control(other.into()),
        }
    }
}

/// A size as an error names it.
fn of_size(bytes: Option<u64>, limit: usize) -> String {
    bytes.map_or_else(|| format!("more than {limit} bytes"), |bytes| format!("{bytes} bytes"))
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } => code::TASK_NOT_FOUND,
            Self::Conflict { .. } => code::TASK_CONFLICT,
            Self::Ambiguous { .. } => code::TASK_AMBIGUOUS,
            Self::NeverFits { .. } => code::NO_CAPACITY,
            Self::Full { .. } | Self::FullOfBytes { .. } | Self::TooManyBodies | Self::Busy => code::TASKS_FULL,
            Self::TooLarge { .. } => code::TASK_TOO_LARGE,
            Self::Submission(_) => code::TASK_NOT_ACCEPTABLE,
            Self::Config(_) => code::TASK_CONFIG_INVALID,
            Self::State { .. } => code::TASK_STATE,
            Self::Stale => code::TASK_STALE,
            Self::Control(error) => error.code(),
        }
    }

    /// After how many seconds it may be tried again, where that helps.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Full { .. } | Self::FullOfBytes { .. } => Some(5),
            Self::TooManyBodies | Self::Busy => Some(1),
            _ => None,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let hint = match &error {
            Error::Control(_) => None,
            Error::Unknown { .. } => Some("`kip task ls` lists them; what is over is forgotten after tasks.retention"),
            Error::Conflict { .. } => Some("choose another id, or send the same request again"),
            Error::Ambiguous { .. } => Some("name the tenant: --tenant, or `?tenant=` at the API"),
            Error::Full { .. } | Error::FullOfBytes { .. } => {
                Some("try again later, stop some (`kip task stop`), or raise the limit in kipwake.toml")
            }
            Error::NeverFits { .. } => {
                Some("lower `resources`, or declare what there is in kipwake.toml (`kip device ls`)")
            }
            Error::TooManyBodies => Some("try again in a second"),
            Error::Busy => Some("try again in a second; `kip task` shows how long the disk takes to sync"),
            Error::TooLarge { .. } => {
                Some("put the data into a file or a bucket and send its name, or raise tasks.payload")
            }
            Error::Submission(_) => Some("docs/tasks.md lists the headers and what they take"),
            Error::Config(_) => Some("docs/tasks.md lists the keys and what they take"),
            Error::State { .. } => Some("`kip task show` says where it stands"),
            Error::Stale => Some("end this run: another one has taken its place, or the task is over"),
        };
        match error {
            Error::Control(error) => error.into(),
            error => Self::new(error.code(), error.to_string()).hint(hint.unwrap_or_default()),
        }
    }
}
