//! In which files two snapshots differ.

use std::collections::BTreeMap;

use crate::kept::{Contents, KeptKind, Snapshots};

/// A file that is not the same in two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Below the folder.
    pub path: String,
    /// What became of it.
    pub kind: FileChangeKind,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileChangeKind {
    /// The later snapshot has it.
    Added,
    /// The earlier snapshot has it.
    Removed,
    /// Both have it, with other contents or another kind.
    Changed,
}

impl Snapshots {
    /// The files in which two snapshots differ, in the order of paths; none where one of them is not there any more.
    pub fn difference(&self, before: &str, after: &str) -> Option<Vec<FileChange>> {
        Some(difference(self.contents(before)?, self.contents(after)?))
    }
}

/// The files in which two lists differ, in the order of paths.
pub(crate) fn difference(before: Contents, after: Contents) -> Vec<FileChange> {
    let files = |contents: Contents| {
        let files = contents.files.into_iter().filter(|file| file.kind != KeptKind::Folder);
        files.map(|file| (file.path, file.kind)).collect::<BTreeMap<_, _>>()
    };
    let (before, after) = (files(before), files(after));
    let changed = after.iter().filter_map(|(path, kind)| {
        let kind = match before.get(path) {
            None => FileChangeKind::Added,
            Some(was) if was != kind => FileChangeKind::Changed,
            Some(_) => return None,
        };
        Some(FileChange { path: path.clone(), kind })
    });
    let removed = before.keys().filter(|path| !after.contains_key(*path));
    let removed = removed.map(|path| FileChange { path: path.clone(), kind: FileChangeKind::Removed });
    let mut all: Vec<FileChange> = changed.chain(removed).collect();
    all.sort_by(|one, other| one.path.cmp(&other.path));
    all
}
