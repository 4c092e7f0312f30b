//! The protocols of hubs, as far as a download needs them: which requests to send, and what their answers say. Pure.

pub(crate) mod huggingface;
pub(crate) mod modelscope;

use serde::de::DeserializeOwned;

use crate::digest::Digest;
use crate::path::{self, FilePath};

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Where it is in the repository.
    pub path: FilePath,
    /// Bytes.
    pub size: u64,
    /// The content that the hub promises; none where the source has no digests.
    pub digest: Option<Digest>,
}

/// A model at one commit, as the hub describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The commit. Where the hub names none, a digest of the list itself.
    pub commit: String,
    /// The licence, if the hub names it.
    pub licence: Option<String>,
    /// The task, such as `text-generation`.
    pub task: Option<String>,
    /// The files, by path.
    pub files: Vec<ListedFile>,
}

impl Listing {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }
}

/// Files of a listing at most.
pub(crate) const MOST_FILES: usize = 100_000;

/// Why an answer of a hub cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct AnswerError(pub(crate) String);

impl From<path::FilePathError> for AnswerError {
    fn from(error: path::FilePathError) -> Self {
        Self(error.to_string())
    }
}

fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, AnswerError> {
    serde_json::from_slice(body).map_err(|error| AnswerError(format!("it is not the expected JSON: {error}")))
}

/// Sorts and checks the files of a listing.
fn checked(mut files: Vec<ListedFile>) -> Result<Vec<ListedFile>, AnswerError> {
    if files.len() > MOST_FILES {
        return Err(AnswerError(format!("it lists {} files, and {MOST_FILES} at most are taken", files.len())));
    }
    path::together(files.iter().map(|file| &file.path))?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// A text as one segment of a path or one value of a query.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// A path with its slashes kept.
pub(crate) fn escape_path(path: &str) -> String {
    path.split('/').map(escape).collect::<Vec<_>>().join("/")
}
