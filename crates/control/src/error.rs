//! Why something could not be done, as values until an edge renders them.

use kip_spec::{Code, Problem, code};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the change is not stored")]
    Store(#[from] kip_store::Error),
    /// There is no such function.
    #[error("there is no function `{name}`")]
    NoFunction {
        /// The name asked for.
        name: String,
        /// One that is nearly the same.
        nearest: Option<String>,
    },
    /// Two names differ in case only, and host names know no case.
    #[error("there is a function `{existing}` already; names must differ in more than case, because host names do")]
    NameCase {
        /// The name asked for.
        name: String,
        /// The name there is.
        existing: String,
    },
    /// The function has nobody of this name.
    #[error("the function `{function}` has no version or alias `{qualifier}` that serves")]
    NoQualifier {
        /// The function.
        function: String,
        /// The name asked for.
        qualifier: String,
    },
    /// Nothing is provisioned.
    #[error("nothing is provisioned for `{qualifier}` of the function `{function}`")]
    NoProvision {
        /// The function.
        function: String,
        /// For whom.
        qualifier: String,
    },
    /// What is provisioned was not put, so that it cannot be taken away.
    #[error("what is provisioned for `{function}` was not put: its manifest declares it")]
    Declared {
        /// The function.
        function: String,
    },
    /// The server ends.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The access log cannot be written.
    #[error("the access log cannot be opened")]
    AccessLog(#[source] std::io::Error),
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Store(error) => store_code(error),
            Self::NoFunction { .. } => code::FUNCTION_NOT_FOUND,
            Self::NameCase { .. } => code::FUNCTION_NAME_CASE,
            Self::NoQualifier { .. } => code::VERSION_NOT_FOUND,
            Self::NoProvision { .. } | Self::Declared { .. } => code::NO_PROVISION,
            Self::ShuttingDown => code::SHUTTING_DOWN,
            Self::AccessLog(_) => code::CONFIG_INVALID,
        }
    }
}

/// The code of a store's failure.
pub(crate) fn store_code(error: &kip_store::Error) -> Code {
    match error {
        kip_store::Error::Full { .. } => code::STORE_FULL,
        kip_store::Error::NotDurable { .. } => code::STORE_NOT_DURABLE,
        kip_store::Error::Stale { .. } => code::STALE,
        _ => code::STORE_FAILED,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = Self::new(error.code(), error.to_string());
        match &error {
            Error::Store(source @ kip_store::Error::Full { .. }) => problem
                .cause(source.to_string())
                .hint("make room on the disk of the data directory; changes are taken again by themselves"),
            Error::Store(source @ kip_store::Error::NotDurable { .. }) => problem
                .cause(source.to_string())
                .hint("look at the disk (dmesg), then start the server again; functions go on serving until then"),
            Error::Store(source @ kip_store::Error::Stale { .. }) => problem
                .cause(source.to_string())
                .hint("read it again and decide anew; without If-Match the last change wins"),
            Error::Store(source) => {
                problem.cause(source.to_string()).hint("look at the disk of the data directory: kip doctor")
            }
            Error::NoFunction { nearest: Some(nearest), .. } => {
                problem.hint(format!("did you mean `{nearest}`? `kip ls` lists all"))
            }
            Error::NoFunction { .. } => problem.hint("`kip ls` lists the functions there are"),
            Error::NameCase { .. } => problem.hint("choose another name"),
            Error::NoQualifier { .. } => problem
                .cause("there are no aliases yet: a qualifier is LATEST, or the version that serves, such as v3")
                .hint("leave the qualifier out, or write LATEST: whatever serves; `kip inspect` shows the version"),
            Error::NoProvision { .. } => problem.hint("`kip provision ls` shows what is"),
            Error::Declared { function } => problem.hint(format!(
                "change scaling.provision in kip.yaml and deploy it, or put something else over it: `kip provision set {function} --target 0`"
            )),
            Error::ShuttingDown => problem,
            Error::AccessLog(source) => problem
                .cause(source.to_string())
                .hint("gateway.access_log in kipwake.toml names a file that the server may write to, stderr, or off"),
        }
    }
}
