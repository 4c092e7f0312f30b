//! What an instance sees in the place of files of the host: a snapshot at the path of its folder, and in it what stays live.

use std::ffi::CString;

use rustix::io::Errno;

use super::unsafe_folder::{self, OwnFolder, READ_ONLY};

/// Files and folders that are shown at once.
pub(super) const MOST_VIEWS: usize = 48;

/// A file or folder at another path than its own, or at its own in the place of what was put over it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) source: Source,
    pub(super) target: CString,
}

/// What is shown.
#[derive(Debug)]
pub(super) enum Source {
    /// Nobody can write it.
    Protected(Place),
    /// Whoever may write it by its mode can.
    Open(Place),
    /// The instance can write it, though it is somebody else's.
    Own(OwnFolder),
}

/// Where it is: a path, or one below a folder in which links are not followed.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: CString,
    pub(super) below: Option<CString>,
}

impl Place {
    fn open(&self) -> Result<libc::c_long, Errno> {
        match &self.below {
            None => unsafe_folder::open(&self.path),
            Some(below) => unsafe_folder::open_below(&self.path, below),
        }
    }
}

/// In the order in which they are put in their places.
#[derive(Debug, Default)]
pub(super) struct Views(pub(super) Vec<View>);

/// Those of a list that are open and seen nowhere yet.
pub(super) type OpenViews = [libc::c_long; MOST_VIEWS];

impl Views {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the child, in a mount namespace of its own: all of them, before one covers another.
    pub(super) fn open(&self) -> Result<OpenViews, Errno> {
        let mut open = [-1; MOST_VIEWS];
        if self.0.len() > MOST_VIEWS {
            return Err(Errno::MFILE);
        }
        for (tree, view) in open.iter_mut().zip(&self.0) {
            *tree = match &view.source {
                Source::Own(folder) => folder.open()?,
                Source::Open(place) => place.open()?,
                Source::Protected(place) => {
                    let tree = place.open()?;
                    unsafe_folder::change(tree, READ_ONLY, 0, libc::AT_RECURSIVE)?;
                    tree
                }
            };
        }
        Ok(open)
    }

    /// Puts them in their places.
    pub(super) fn attach(&self, open: &OpenViews) -> Result<(), Errno> {
        open.iter().zip(&self.0).try_for_each(|(tree, view)| unsafe_folder::attach(*tree, &view.target))
    }

    /// In the child, after it can gain no privileges any more: what belongs to folders that it may write though they are not its own.
    pub(super) fn restrict(&self) -> Result<(), Errno> {
        let own = self.0.iter().find_map(|view| match &view.source {
            Source::Own(folder) => Some(folder),
            Source::Protected(_) | Source::Open(_) => None,
        });
        own.map_or(Ok(()), OwnFolder::restrict)
    }
}
