//! Why something about keys could not be done.

use std::path::PathBuf;

use kip_spec::{Problem, code};

/// Why something about keys could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the keys cannot be read or stored")]
    Store(#[from] kip_store::Error),
    /// The administrator key's file failed.
    #[error("cannot write the administrator key to {}", path.display())]
    File {
        /// Where it was to be.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// There is no such key.
    #[error("there is no key `{name}`")]
    NotFound {
        /// The name asked for.
        name: String,
    },
    /// The name is taken.
    #[error("there is a key `{name}` already")]
    Exists {
        /// The name asked for.
        name: String,
    },
    /// Nobody could make keys any more.
    #[error("`{name}` is the last usable administrator key")]
    LastAdministrator {
        /// The key that was to go.
        name: String,
    },
    /// A value that cannot be.
    #[error("{what}")]
    Invalid {
        /// What is wrong.
        what: String,
        /// What to write.
        hint: &'static str,
    },
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Store(source @ kip_store::Error::Stale { .. }) => Self::new(code::STALE, source.to_string())
                .hint("read the key again and decide anew; without If-Match the last change wins"),
            Error::Store(source) => Self::new(code::STORE_FAILED, text).cause(source.to_string()),
            Error::File { source, .. } => Self::new(code::DATA_DIRECTORY_UNUSABLE, text).cause(source.to_string()),
            Error::NotFound { .. } => {
                Self::new(code::KEY_NOT_FOUND, text).hint("`kip key ls` lists the keys there are")
            }
            Error::Exists { name } => Self::new(code::KEY_EXISTS, text)
                .hint(format!("choose another name; `kip key rotate {name}` gives it a new secret")),
            Error::LastAdministrator { .. } => Self::new(code::KEY_LAST_ADMINISTRATOR, text)
                .cause("without one nobody could make keys, restore a backup or stop the server through the API")
                .hint("make another one first: kip key create NAME --role admin"),
            Error::Invalid { hint, .. } => Self::new(code::KEY_INVALID, text).hint(hint),
        }
    }
}
