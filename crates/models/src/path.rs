//! Paths of a model's files. A hub chooses them, so each is checked before it touches a disk. Pure.

use std::collections::BTreeSet;
use std::fmt;

/// A path below a model's folder: no way leads out of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilePath(String);

/// A path that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the file name {path:?} cannot be used: {reason}")]
pub struct FilePathError {
    path: String,
    reason: &'static str,
}

const LONGEST: usize = 1024;
const LONGEST_PART: usize = 255;
const DEEPEST: usize = 32;

impl FilePath {
    /// Checks a path.
    ///
    /// # Errors
    /// Where it is not a plain path below a folder.
    pub fn new(path: &str) -> Result<Self, FilePathError> {
        let refuse = |reason| Err(FilePathError { path: path.chars().take(120).collect(), reason });
        let parts: Vec<&str> = path.split('/').collect();
        if path.len() > LONGEST || parts.len() > DEEPEST || parts.iter().any(|part| part.len() > LONGEST_PART) {
            return refuse("it is too long");
        }
        if path.starts_with('/') || parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return refuse("it leads out of the folder of the model");
        }
        if path.contains('\\') || path.chars().any(char::is_control) {
            return refuse("it has a backslash or a control character");
        }
        Ok(Self(path.to_owned()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The folders above, from the outermost one on.
    fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

impl TryFrom<String> for FilePath {
    type Error = FilePathError;

    fn try_from(path: String) -> Result<Self, FilePathError> {
        Self::new(&path)
    }
}

impl From<FilePath> for String {
    fn from(path: FilePath) -> Self {
        path.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether all of these can be in one folder: none twice, none both a file and a folder.
///
/// # Errors
/// The first that cannot.
pub(crate) fn together<'a>(paths: impl Iterator<Item = &'a FilePath>) -> Result<(), FilePathError> {
    let (mut files, mut folders) = (BTreeSet::new(), BTreeSet::new());
    for path in paths {
        let refuse = |reason| Err(FilePathError { path: path.0.clone(), reason });
        if !files.insert(path.as_str()) {
            return refuse("the hub lists it twice");
        }
        folders.extend(path.folders());
        if folders.contains(path.as_str()) || path.folders().any(|folder| files.contains(folder)) {
            return refuse("the hub lists it as a file and as a folder");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "./a",
            "a/.",
            "a\\b",
            "a\0b",
            "a\nb",
            "a/",
            &"x".repeat(256),
            &"a/".repeat(40),
        ] {
            assert!(FilePath::new(path).is_err(), "{path:?}");
        }
        for path in ["config.json", "onnx/model.onnx", ".gitattributes", "a b/ü.bin", "..x/y"] {
            assert_eq!(FilePath::new(path).unwrap().as_str(), path);
        }
    }

    #[test]
    fn a_name_is_a_file_or_a_folder_once() {
        let check = |paths: &[&str]| {
            let all: Vec<FilePath> = paths.iter().map(|path| FilePath::new(path).unwrap()).collect();
            together(all.iter())
        };
        assert!(check(&["a/b", "a/c", "b"]).is_ok());
        assert!(check(&["a", "a"]).is_err());
        assert!(check(&["a", "a/b"]).is_err() && check(&["a/b", "a"]).is_err());
    }
}
