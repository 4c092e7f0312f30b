//! What can go wrong with models, each with its code.

use std::path::PathBuf;

use kip_spec::{Problem, code, people};

use crate::path::FilePathError;
use crate::source::SourceError;

/// Why a model is not there.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The text names no source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The hub has no such model, or hides it.
    #[error("{hub} has no model `{repository}`, or shows it only with a token")]
    Unknown {
        /// The hub's address.
        hub: String,
        /// The repository.
        repository: String,
    },
    /// The hub has the model, but not this revision.
    #[error("`{repository}` has no revision `{revision}`")]
    UnknownRevision {
        /// The repository.
        repository: String,
        /// The revision that was asked for.
        revision: String,
    },
    /// The hub wants a token, or another one, or the licence to be accepted.
    #[error("{hub} does not give `{repository}` to this caller")]
    Gated {
        /// The hub's address.
        hub: String,
        /// The repository.
        repository: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// Nobody answers, for longer than was waited.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// Whom we called.
        address: String,
        /// The last failure.
        reason: String,
    },
    /// The answer is not the protocol's.
    #[error("the answer of {address} cannot be used")]
    Answer {
        /// Whom we called.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The content is not the promised one.
    #[error("the file {path} is not the one that the hub lists")]
    Damaged {
        /// The file.
        path: String,
        /// In what it differs.
        reason: String,
    },
    /// The files do not fit on the disk.
    #[error("the download needs {} of disk, and {} are free below {}", people::size(*needed), people::size(*free), folder.display())]
    NoRoom {
        /// Bytes that are needed, the reserve included.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// The folder of the cache.
        folder: PathBuf,
    },
    /// The model does not fit into what the cache may take.
    #[error("the model takes {} of the cache, and {} of its quota of {} are taken by models that are pinned or needed",
        people::size(*needed), people::size(*taken), people::size(*quota))]
    Quota {
        /// Bytes that are missing of the model.
        needed: u64,
        /// Bytes that stay, whatever may be evicted.
        taken: u64,
        /// Bytes that the cache may take.
        quota: u64,
    },
    /// This program was built without buckets.
    #[error("this build of Kipwake reads no buckets")]
    NoBuckets,
    /// The object store does not show the bucket to this caller.
    #[error("the object store does not show `{bucket}` to this caller")]
    BucketClosed {
        /// The bucket with the prefix.
        bucket: String,
        /// Whether keys were given.
        keys: bool,
    },
    /// Nothing says where the store of a bucket is.
    #[error("the address of the object store for `{0}://` is not known")]
    NoStore(&'static str),
    /// A folder of another program cannot be adopted.
    #[error("nothing of the folder {} can be adopted", folder.display())]
    Adoption {
        /// The folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// The files of the model are another program's.
    #[error("the files of `{0}` are another program's")]
    Adopted(String),
    /// The files of the model are not on the disk.
    #[error("the files of `{0}` were evicted")]
    Evicted(String),
    /// The source has another commit now.
    #[error("`{model}` has {present} at its source now, and {commit} is needed")]
    Moved {
        /// The source.
        model: String,
        /// The commit that is needed.
        commit: String,
        /// The one that is there.
        present: String,
    },
    /// A file's name is refused.
    #[error(transparent)]
    Path(#[from] FilePathError),
    /// The source has no files, or none that were asked for.
    #[error("`{source_name}` has no files to download")]
    Empty {
        /// The source.
        source_name: String,
    },
    /// The cache has no such model.
    #[error("the cache has no model `{0}`")]
    NotCached(String),
    /// Functions use the model.
    #[error("the model `{model}` is in use by {}", functions.join(", "))]
    InUse {
        /// The model.
        model: String,
        /// The functions.
        functions: Vec<String>,
    },
    /// There is no such pull.
    #[error("there is no pull {0}")]
    NoPull(u64),
    /// Somebody ended the pull.
    #[error("the pull was cancelled")]
    Cancelled,
    /// The disk refused.
    #[error("the model cache {} cannot be used", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
}

impl Error {
    pub(crate) fn cache(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Cache { path: path.to_owned(), reason: error.to_string() }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Source(_) => Problem::new(code::MODEL_SOURCE, message)
                .hint("hf:org/model[@revision], modelscope:owner/model[@revision], an http address, or a path"),
            Error::Unknown { .. } => Problem::new(code::MODEL_NOT_ON_HUB, message)
                .hint("check the spelling; for a private model give a token: --token-secret NAME, or HF_TOKEN"),
            Error::UnknownRevision { .. } => {
                Problem::new(code::MODEL_REVISION, message).hint("leave the revision out for the default branch")
            }
            Error::Gated { hub, repository, token } => {
                let hint = match token {
                    true => format!("accept the licence at {hub}/{repository} with the account of this token"),
                    false => format!(
                        "accept the licence at {hub}/{repository}, then give the token of that account: `kip secret set NAME` and --token-secret NAME, or HF_TOKEN"
                    ),
                };
                Problem::new(code::MODEL_GATED, message).hint(hint)
            }
            Error::Unreachable { reason, .. } => Problem::new(code::HUB_UNREACHABLE, message)
                .cause(reason)
                .hint("run the command again: what was downloaded is kept, and the download goes on from there"),
            Error::Answer { reason, .. } => Problem::new(code::HUB_ANSWER, message)
                .cause(reason)
                .hint("check the endpoint: HF_ENDPOINT, MODELSCOPE_ENDPOINT, --endpoint"),
            Error::Damaged { reason, .. } => Problem::new(code::DOWNLOAD_DAMAGED, message)
                .cause(reason)
                .hint("nothing of the file is kept; run the command again, or name another endpoint"),
            Error::NoRoom { .. } => Problem::new(code::DOWNLOAD_NO_ROOM, message)
                .hint("`kip model du` shows the cache, `kip model rm NAME` makes room"),
            Error::Quota { .. } => Problem::new(code::MODEL_QUOTA, message)
                .hint("`kip model du` shows what keeps each model; unpin or remove some, or raise models.quota"),
            Error::NoBuckets => Problem::new(code::MODEL_BUCKET, message)
                .hint("build it with `--features s3`, or mount the bucket and use the folder"),
            Error::BucketClosed { keys: false, .. } => Problem::new(code::MODEL_BUCKET, message)
                .hint("write ID:SECRET of an access key into a file, then: kip secret set NAME --from-file FILE, and --token-secret NAME"),
            Error::BucketClosed { keys: true, .. } => Problem::new(code::MODEL_BUCKET, message)
                .hint("check the access key, its right to list and read the bucket, and the region in the address of the store"),
            Error::NoStore(scheme) => Problem::new(code::MODEL_BUCKET, message)
                .hint(format!("--endpoint https://HOST, or models.{scheme} in kipwake.toml")),
            Error::Adoption { reason, .. } => Problem::new(code::MODEL_ADOPTION, message)
                .cause(reason)
                .hint("name the cache of huggingface_hub or ModelScope, the folder of Ollama, or a folder with a model; docs/models.md, \"Models of other programs\""),
            Error::Adopted(_) => Problem::new(code::MODEL_ADOPTED, message)
                .hint("`kip model rm` forgets it; the other program removes its files"),
            Error::Evicted(_) => Problem::new(code::MODEL_EVICTED, message)
                .hint("the next start brings them again, or `kip model pull` now"),
            Error::Moved { .. } => Problem::new(code::MODEL_MOVED, message)
                .hint("deploy the model again with `kip up`: the new version uses the present commit"),
            Error::Path(_) => Problem::new(code::MODEL_FILE_NAME, message).hint("Kipwake does not download this model"),
            Error::Empty { .. } => Problem::new(code::HUB_ANSWER, message),
            Error::NotCached(_) => {
                Problem::new(code::MODEL_NOT_CACHED, message).hint("`kip model ls` lists what there is")
            }
            Error::InUse { .. } => {
                Problem::new(code::MODEL_IN_USE, message).hint("a version of each of them needs it: one that serves, that can be rolled back to, that an alias points at, or that is kept; `kip versions NAME` lists them, `kip rm NAME` removes the function")
            }
            Error::NoPull(_) => {
                Problem::new(code::PULL_NOT_FOUND, message).hint("`kip model ls` lists the pulls of this server")
            }
            Error::Cancelled => Problem::new(code::PULL_CANCELLED, message)
                .hint("pull it again: what was downloaded is kept, and the download goes on from there"),
            Error::Cache { reason, .. } => Problem::new(code::MODEL_CACHE, message).cause(reason),
        }
    }
}
