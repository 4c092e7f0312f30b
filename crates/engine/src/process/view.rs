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

impl Source {
    /// In the child, in a mount namespace of its own: it is seen nowhere yet.
    pub(super) fn open(&self) -> Result<libc::c_long, Errno> {
        match self {
            Self::Own(folder) => folder.open(),
            Self::Open(place) => place.open(),
            Self::Protected(place) => {
                let tree = place.open()?;
                unsafe_folder::change(tree, READ_ONLY, 0, libc::AT_RECURSIVE)?;
                Ok(tree)
            }
        }
    }
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
            *tree = view.source.open()?;
        }
        Ok(open)
    }

    /// Puts them in their places.
    pub(super) fn attach(&self, open: &OpenViews) -> Result<(), Errno> {
        open.iter().zip(&self.0).try_for_each(|(tree, view)| unsafe_folder::attach(*tree, &view.target))
    }

    /// A folder among them that the instance may write though it is somebody else's.
    pub(super) fn own(&self) -> Option<&OwnFolder> {
        self.0.iter().find_map(|view| match &view.source {
            Source::Own(folder) => Some(folder),
            Source::Protected(_) | Source::Open(_) => None,
        })
    }
}
