//! ModelScope: `/api/v1/models/{repository}` and `…/repo/files`, `…/repo?FilePath=`. Every file has a SHA-256.

use serde::Deserialize;
use serde_json::Value;

use super::{AnswerError, ListedFile, escape, read_json};
use crate::digest::{Digest, sha256_of};
use crate::path::FilePath;

/// The request that describes a model.
pub(crate) fn about_path(repository: &str) -> String {
    format!("/api/v1/models/{repository}")
}

/// The request that lists the files of a revision below a folder; the empty root is all of it.
pub(crate) fn files_path(repository: &str, revision: &str, root: &str) -> String {
    let root = if root.is_empty() { String::new() } else { format!("&Root={}", escape(root)) };
    format!("/api/v1/models/{repository}/repo/files?Revision={}&Recursive=True{root}", escape(revision))
}

/// The request for a file's content.
pub(crate) fn file_path(repository: &str, revision: &str, path: &FilePath) -> String {
    format!("/api/v1/models/{repository}/repo?Revision={}&FilePath={}", escape(revision), escape(path.as_str()))
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "Code")]
    code: i64,
    #[serde(rename = "Message", default)]
    message: Option<String>,
    #[serde(rename = "Data", default)]
    data: Value,
}

fn open(body: &[u8]) -> Result<Value, AnswerError> {
    let Envelope { code, message, data } = read_json(body)?;
    if code != 200 {
        return Err(AnswerError(format!("it has the code {code}: {}", message.unwrap_or_default())));
    }
    Ok(data)
}

/// Licence and task of a model. Both may be missing.
pub(crate) fn read_about(body: &[u8]) -> Result<(Option<String>, Option<String>), AnswerError> {
    let data = open(body)?;
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let task = text(&data["Tasks"][0]["Name"]).or_else(|| text(&data["Task"]));
    Ok((text(&data["License"]), task))
}

#[derive(Deserialize)]
struct FileEntry {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Size", default)]
    size: u64,
    #[serde(rename = "Sha256", default)]
    sha256: Option<String>,
}

/// The files of an answer, and the folders that it names.
pub(crate) fn read_files(body: &[u8]) -> Result<(Vec<ListedFile>, Vec<String>), AnswerError> {
    let mut data = open(body)?;
    let entries: Vec<FileEntry> = match data.get_mut("Files").map(Value::take) {
        None | Some(Value::Null) => Vec::new(),
        Some(files) => serde_json::from_value(files).map_err(|error| AnswerError(error.to_string()))?,
    };
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in entries {
        if entry.kind == "tree" {
            folders.push(FilePath::new(&entry.path)?.into());
            continue;
        }
        let digest = entry.sha256.as_deref().and_then(Digest::sha256);
        let digest = digest.ok_or_else(|| AnswerError(format!("it has no digest of {:?}", entry.path)))?;
        files.push(ListedFile { path: FilePath::new(&entry.path)?, size: entry.size, digest: Some(digest) });
    }
    Ok((files, folders))
}

/// All answers together.
pub(crate) fn listing(mut files: Vec<ListedFile>) -> Result<Vec<ListedFile>, AnswerError> {
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files.dedup();
    super::checked(files)
}

/// The hub names no commit of a whole list: the list itself, with its digests, is what is pinned.
pub(crate) fn commit_of(files: &[ListedFile]) -> String {
    let line = |file: &ListedFile| {
        let digest = file.digest.as_ref().map(Digest::file_name).unwrap_or_default();
        format!("{} {} {digest}\n", file.path, file.size)
    };
    let text: String = files.iter().map(line).collect();
    sha256_of(text.as_bytes())[..40].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_files_and_folders() {
        let digest = "d".repeat(64);
        let body = format!(
            r#"{{"Code": 200, "Success": true, "Data": {{"Files": [
                {{"Path": "onnx", "Type": "tree", "Size": 0, "Sha256": ""}},
                {{"Path": "a.bin", "Name": "a.bin", "Type": "blob", "Size": 3, "Sha256": "{digest}"}}]}}}}"#
        );
        let (files, folders) = read_files(body.as_bytes()).unwrap();
        assert_eq!((files.len(), folders.as_slice()), (1, &["onnx".to_owned()][..]));
        let twice = listing([files.clone(), files.clone()].concat()).unwrap();
        assert_eq!(twice, files);
        assert_eq!(commit_of(&files).len(), 40);
        let changed = vec![ListedFile { size: 4, ..files[0].clone() }];
        assert_ne!(commit_of(&files), commit_of(&changed));
    }

    #[test]
    fn a_refusal_in_the_envelope_is_an_error() {
        let error = read_files(br#"{"Code": 10010205001, "Message": "no such model"}"#).unwrap_err();
        assert!(error.to_string().contains("no such model"), "{error}");
        assert!(
            read_files(br#"{"Code": 200, "Data": {"Files": [{"Path": "x", "Type": "blob", "Size": 1}]}}"#).is_err()
        );
        assert_eq!(
            read_about(br#"{"Code": 200, "Data": {"License": "mit", "Tasks": [{"Name": "ocr"}]}}"#).unwrap(),
            (Some("mit".into()), Some("ocr".into()))
        );
    }
}
