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
    /// The key that seals secrets cannot be used.
    #[error("the key in {} cannot seal secrets: {detail}", path.display())]
    SealKey {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A value could not be sealed.
    #[error("the value cannot be sealed")]
    Unsealable,
    /// There is no such secret.
    #[error("there is no secret `{name}`")]
    SecretNotFound {
        /// The name asked for.
        name: String,
    },
    /// A secret cannot be so.
    #[error("{what}")]
    SecretInvalid {
        /// What is wrong.
        what: String,
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
            Error::SealKey { .. } => Self::new(code::SEAL_KEY_UNUSABLE, text).hint(
                "KIPWAKE_SEAL_KEY_FILE names a file of 32 bytes or 64 hexadecimal digits with mode 600; without it the server uses seal.key of the data directory",
            ),
            Error::Unsealable => Self::new(code::SECRET_INVALID, text).hint("set a shorter value"),
            Error::SecretNotFound { .. } => {
                Self::new(code::SECRET_NOT_FOUND, text).hint("`kip secret ls` lists the secrets there are")
            }
            Error::SecretInvalid { .. } => Self::new(code::SECRET_INVALID, text)
                .hint("kip secret set NAME reads the value from standard input, or from a file with --from-file"),
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
