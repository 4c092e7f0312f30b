//! Hugging Face: `/api/models/{repository}/revision/…`, `/tree/…`, `/resolve/…`. Files of LFS have a SHA-256, others git's blob id.

use serde::Deserialize;
use serde_json::Value;

use super::{AnswerError, ListedFile, escape, escape_path, read_json};
use crate::digest::Digest;
use crate::path::FilePath;

/// The request that turns a revision into a commit.
pub(crate) fn revision_path(repository: &str, revision: &str) -> String {
    format!("/api/models/{repository}/revision/{}", escape(revision))
}

/// The request that lists the files of a commit; further pages are named by the header `Link`.
pub(crate) fn tree_path(repository: &str, commit: &str) -> String {
    format!("/api/models/{repository}/tree/{}?recursive=true&expand=false", escape(commit))
}

/// The request for a file's content.
pub(crate) fn file_path(repository: &str, commit: &str, path: &FilePath) -> String {
    format!("/{repository}/resolve/{}/{}", escape(commit), escape_path(path.as_str()))
}

/// What a revision is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    pub(crate) commit: String,
    pub(crate) licence: Option<String>,
    pub(crate) task: Option<String>,
}

#[derive(Deserialize)]
struct RevisionAnswer {
    sha: String,
    #[serde(default)]
    pipeline_tag: Option<String>,
    #[serde(default, rename = "cardData")]
    card: Option<Value>,
    #[serde(default)]
    tags: Vec<String>,
}

pub(crate) fn read_revision(body: &[u8]) -> Result<Revision, AnswerError> {
    let RevisionAnswer { sha, pipeline_tag, card, tags } = read_json(body)?;
    if Digest::git_blob(&sha).is_none() {
        return Err(AnswerError("its `sha` is not a commit".to_owned()));
    }
    let of_card = card.and_then(|card| match &card["license"] {
        Value::String(licence) => Some(licence.clone()),
        Value::Array(all) => all.first().and_then(Value::as_str).map(str::to_owned),
        _ => None,
    });
    let of_tags = || tags.iter().find_map(|tag| tag.strip_prefix("license:")).map(str::to_owned);
    Ok(Revision { commit: sha.to_ascii_lowercase(), licence: of_card.or_else(of_tags), task: pipeline_tag })
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    lfs: Option<LfsEntry>,
}

#[derive(Deserialize)]
struct LfsEntry {
    oid: String,
    size: u64,
}

/// The files of one page.
pub(crate) fn read_tree(body: &[u8]) -> Result<Vec<ListedFile>, AnswerError> {
    let entries: Vec<TreeEntry> = read_json(body)?;
    let files = entries.into_iter().filter(|entry| entry.kind == "file").map(|entry| {
        let (size, digest) = match &entry.lfs {
            Some(lfs) => (lfs.size, Digest::sha256(lfs.oid.trim_start_matches("sha256:"))),
            None => (entry.size, Digest::git_blob(&entry.oid)),
        };
        let digest = digest.ok_or_else(|| AnswerError(format!("it has no digest of {:?}", entry.path)))?;
        Ok(ListedFile { path: FilePath::new(&entry.path)?, size, digest: Some(digest) })
    });
    files.collect()
}

/// All pages together.
pub(crate) fn listing(files: Vec<ListedFile>) -> Result<Vec<ListedFile>, AnswerError> {
    super::checked(files)
}

/// The next page in a header `Link: <…>; rel="next"`.
pub(crate) fn next_page(link: &str) -> Option<&str> {
    link.split(',').find_map(|one| {
        let (address, rest) = one.trim().strip_prefix('<')?.split_once('>')?;
        rest.contains("rel=\"next\"").then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_names_its_commit_and_licence() {
        let sha = "a".repeat(40);
        let body = format!(
            r#"{{"sha": "{sha}", "pipeline_tag": "x", "tags": ["license:mit"], "cardData": {{"license": ["apache-2.0"]}}}}"#
        );
        let read = read_revision(body.as_bytes()).unwrap();
        assert_eq!(
            (read.commit, read.licence.as_deref(), read.task.as_deref()),
            (sha.clone(), Some("apache-2.0"), Some("x"))
        );
        let body = format!(r#"{{"sha": "{sha}", "tags": ["onnx", "license:mit"]}}"#);
        assert_eq!(read_revision(body.as_bytes()).unwrap().licence.as_deref(), Some("mit"));
        assert!(read_revision(br#"{"sha": "../x"}"#).is_err() && read_revision(b"<html>").is_err());
    }

    #[test]
    fn a_tree_has_digests_for_every_file() {
        let (blob, large) = ("b".repeat(40), "c".repeat(64));
        let body = format!(
            r#"[{{"type": "directory", "path": "onnx", "oid": "{blob}"}},
                {{"type": "file", "path": "onnx/model.onnx", "size": 5, "oid": "{blob}", "lfs": {{"oid": "{large}", "size": 500}}}},
                {{"type": "file", "path": "config.json", "size": 7, "oid": "{blob}"}}]"#
        );
        let files = listing(read_tree(body.as_bytes()).unwrap()).unwrap();
        let seen: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
        assert_eq!(seen, [("config.json", 7), ("onnx/model.onnx", 500)]);
        assert_eq!(files[1].digest, Digest::sha256(&large));
        assert!(read_tree(br#"[{"type": "file", "path": "../x", "oid": "", "size": 1}]"#).is_err());
    }

    #[test]
    fn pages_follow_each_other() {
        assert_eq!(next_page(r#"<http://h/a?cursor=x>; rel="next""#), Some("http://h/a?cursor=x"));
        assert_eq!(next_page(r#"<http://h/a>; rel="prev""#), None);
    }

    #[test]
    fn paths_are_escaped() {
        let path = FilePath::new("a b/ü#?.bin").unwrap();
        assert_eq!(file_path("o/m", "c0", &path), "/o/m/resolve/c0/a%20b/%C3%BC%23%3F.bin");
        assert_eq!(revision_path("o/m", "refs/pr/1"), "/api/models/o/m/revision/refs%2Fpr%2F1");
    }
}
