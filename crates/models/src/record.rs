//! What the cache knows of a model: one JSON file each, written atomically after the last file of the model is there.

use std::path::PathBuf;

use kip_wire::{ModelEviction, ModelFile, ModelInfo, ModelLoads, ModelTier};
use serde::{Deserialize, Serialize};

use crate::digest::sha256_of;
use crate::path::FilePath;

/// A model of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The source without a revision.
    pub source: String,
    /// The commit.
    pub commit: String,
    /// The revisions that led to it.
    #[serde(default)]
    pub revisions: Vec<String>,
    /// The licence.
    #[serde(default)]
    pub licence: Option<String>,
    /// The task.
    #[serde(default)]
    pub task: Option<String>,
    /// The files, by path.
    pub files: Vec<RecordedFile>,
    /// It may not be removed.
    #[serde(default)]
    pub pinned: bool,
    /// When it was pulled, milliseconds since 1970.
    pub pulled: i64,
    /// When its digests were last checked.
    #[serde(default)]
    pub verified: Option<i64>,
    /// Files that were found damaged then.
    #[serde(default)]
    pub damaged: Vec<FilePath>,
    /// The hub's address, where it was not the server's; the files come from there again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The secret of the server with the token for the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<String>,
    /// The folder of another program in which its files are; they are never evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<PathBuf>,
    /// Its files are not on the disk any more; they come again when an instance needs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evicted: Option<Eviction>,
}

/// When the files of a model were removed from the disk, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eviction {
    /// Milliseconds since 1970.
    pub at: i64,
    /// The reason, for people.
    pub why: String,
}

/// A file of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedFile {
    /// Its path in the model.
    pub path: FilePath,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, under which it is kept.
    pub sha256: String,
    /// git's id of the content, by which hubs list small files.
    pub git: String,
    /// Where another program keeps it. The digests are what its name claims then, empty where it claims none, until they are verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<PathBuf>,
}

impl Record {
    /// The name of its file and of its folder.
    pub(crate) fn key(&self) -> String {
        key(&self.source, &self.commit)
    }

    /// As callers name it.
    pub fn id(&self) -> String {
        format!("{}@{}", self.source, self.commit)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Whether a text means this model: its id, its source, or its source with a revision or the beginning of the commit.
    pub(crate) fn is_meant(&self, text: &str) -> bool {
        if text == self.source {
            return true;
        }
        let Some(revision) = text.strip_prefix(&self.source).and_then(|rest| rest.strip_prefix('@')) else {
            return false;
        };
        let begins = revision.len() >= 7 && self.commit.starts_with(revision);
        begins || self.revisions.iter().any(|known| known == revision)
    }

    /// As the API shows it.
    pub(crate) fn info(&self, folder: &std::path::Path) -> ModelInfo {
        let file = |file: &RecordedFile| ModelFile {
            path: file.path.to_string(),
            size: file.size,
            sha256: Some(file.sha256.clone()).filter(|sha256| !sha256.is_empty()),
        };
        ModelInfo {
            id: self.id(),
            source: self.source.clone(),
            commit: self.commit.clone(),
            revisions: self.revisions.clone(),
            licence: self.licence.clone(),
            task: self.task.clone(),
            folder: folder.display().to_string(),
            files: self.files.iter().map(file).collect(),
            size: self.size(),
            pinned: self.pinned,
            pulled: self.pulled,
            verified: self.verified,
            damaged: self.damaged.iter().map(FilePath::to_string).collect(),
            used_by: Vec::new(),
            adopted: self.adopted.as_ref().map(|root| root.display().to_string()),
            tier: if self.evicted.is_some() { ModelTier::Remote } else { ModelTier::Disk },
            evicted: self.evicted.as_ref().map(|evicted| ModelEviction { at: evicted.at, why: evicted.why.clone() }),
            resident: None,
            used: None,
            loads: ModelLoads::default(),
        }
    }
}

/// A name for files: the model's own, readable, and a digest that tells it from others.
pub(crate) fn key(source: &str, commit: &str) -> String {
    let last = source.rsplit(['/', ':']).find(|part| !part.is_empty()).unwrap_or("model");
    let plain = |byte: char| if byte.is_ascii_alphanumeric() || matches!(byte, '.' | '-' | '_') { byte } else { '-' };
    let name: String = last.chars().take(80).map(plain).collect();
    format!("{}-{}", name.trim_start_matches('.'), &sha256_of(format!("{source}@{commit}").as_bytes())[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_meant_by_source_revision_or_commit() {
        let record = Record {
            source: "hf:org/model".to_owned(),
            commit: "0123456789abcdef".to_owned(),
            revisions: vec!["main".to_owned()],
            licence: None,
            task: None,
            files: Vec::new(),
            pinned: false,
            pulled: 0,
            verified: None,
            damaged: Vec::new(),
            endpoint: None,
            token_secret: None,
            adopted: None,
            evicted: None,
        };
        for text in ["hf:org/model", "hf:org/model@main", "hf:org/model@0123456", "hf:org/model@0123456789abcdef"] {
            assert!(record.is_meant(text), "{text}");
        }
        for text in ["hf:org/mode", "hf:org/model@012", "hf:org/model@other", "hf:org/model-2"] {
            assert!(!record.is_meant(text), "{text}");
        }
        assert!(record.key().starts_with("model-"), "{}", record.key());
        assert!(key("https://h/a/../..", "c").starts_with("-"));
    }
}
