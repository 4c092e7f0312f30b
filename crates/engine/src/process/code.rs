//! How an instance comes to see the files of its version: where the host lets it, in the place of its folder.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use kip_spec::container::Mount;

use super::isolation::Isolation;
use super::unsafe_folder::OwnFolder;
use super::unsafe_isolate::Ids;
use super::view::{MOST_VIEWS, Place, Source, View, Views};
use crate::body::{CodeView, Order, StartProblem};

/// Links that are followed to a program.
const MOST_LINKS: usize = 40;

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Where an instance finds its files.
#[derive(Debug, Clone)]
pub(super) struct Code<'order> {
    /// As the server sees them.
    pub(super) folder: &'order Path,
    view: Option<&'order CodeView>,
    /// Its folder is not there any more: the snapshot is shown where it was.
    pub(super) placed: Option<Mount>,
}

impl<'order> Code<'order> {
    /// Those of an order, as this host can show them.
    pub(super) fn find(order: &'order Order, isolation: &Isolation) -> Result<Self, (StartProblem, String)> {
        let directory = order.directory.as_path();
        let missing = || (StartProblem::WorkingDirectory, format!("there is no folder {}", directory.display()));
        let Some(view) = &order.code else {
            return if directory.is_dir() {
                Ok(Self { folder: directory, view: None, placed: None })
            } else {
                Err(missing())
            };
        };
        if !view.tree.is_dir() {
            let detail =
                format!("the snapshot of {} is not in the data directory: deploy it again", directory.display());
            return Err((StartProblem::CodeMissing, detail));
        }
        if let Some(file) = kip_snapshot::changed(directory, &view.pinned) {
            let detail = format!(
                "{} is not the file that it was when the version was deployed (size, time and inode are compared): deploy it again, or put the file back",
                directory.join(&file.path).display()
            );
            return Err((StartProblem::CodeChanged, detail));
        }
        if let Some(gone) = view.live.iter().find(|live| !directory.join(&live.path).exists()) {
            let detail =
                format!("{}, which all versions share, is not there any more", directory.join(&gone.path).display());
            return Err((StartProblem::CodeMissing, detail));
        }
        if view.tree == directory {
            return Ok(Self { folder: directory, view: None, placed: None });
        }
        if !isolation.mounts() {
            let detail = format!(
                "this host gives no mount namespaces, so {} cannot be shown as it was deployed: deploy it again",
                directory.display()
            );
            return Err((StartProblem::CodeMissing, detail));
        }
        let placed = (!directory.is_dir()).then(|| Mount {
            source: view.tree.to_string_lossy().into_owned(),
            target: directory.to_string_lossy().into_owned(),
            writable: false,
        });
        if placed.is_some()
            && !isolation.places(order.devices.as_ref().is_some_and(|devices| !devices.numbers.is_empty()))
        {
            return Err(missing());
        }
        let folder = if placed.is_some() { &view.tree } else { directory };
        Ok(Self { folder, view: Some(view).filter(|_| placed.is_none()), placed })
    }

    /// Where the server finds a file that an instance sees at a path.
    pub(super) fn seen(&self, directory: &Path, path: &Path) -> PathBuf {
        let tree = match (&self.placed, self.view) {
            (Some(placed), _) => Path::new(&placed.source),
            (None, Some(view)) => &view.tree,
            (None, None) => return path.to_owned(),
        };
        let live = self.view.map(|view| view.live.as_slice()).unwrap_or_default();
        let mut path = normal(path);
        // A link of the snapshot leads where it leads in the folder.
        for _ in 0..MOST_LINKS {
            let Ok(rest) = path.strip_prefix(directory) else { return path };
            if live.iter().any(|live| rest.starts_with(&live.path)) {
                return path;
            }
            let parts: Vec<_> = rest.components().collect();
            let followed = (1..=parts.len()).find_map(|length| {
                let beginning: PathBuf = parts[..length].iter().collect();
                let target = tree.join(&beginning).read_link().ok()?;
                let base = directory.join(beginning.parent().unwrap_or_else(|| Path::new("")));
                let end: PathBuf = parts[length..].iter().collect();
                Some(normal(&base.join(target).join(end)))
            });
            match followed {
                Some(next) => path = next,
                None => return tree.join(rest),
            }
        }
        path
    }

    /// Whether the working directory itself may be written.
    pub(super) fn is_live(&self) -> bool {
        self.view.is_none() && self.placed.is_none()
    }

    /// What is put over the working directory. `at` is its path without links.
    pub(super) fn views(&self, at: &Path, owns: bool, isolation: &Isolation, ids: Option<&Ids>) -> io::Result<Views> {
        let Some(view) = self.view else { return Ok(Views::default()) };
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
        let tree = Place { path: text(&view.tree)?, below: None };
        let mut views = vec![View { source: Source::Protected(tree), target: text(at)? }];
        let live = view.live.iter().map(|live| (live.path.as_str(), live.writable));
        for (path, writable) in live.chain(view.pinned.iter().map(|file| (file.path.as_str(), false))) {
            // Whoever may write there could put a link in its place: the child follows none either.
            kip_snapshot::open_inside(at, path)?;
            let (folder, below) = (text(at)?, Some(CString::new(path)?));
            let own = ids.filter(|_| owns && writable).and_then(|ids| isolation.own_folder(&at.join(path), ids));
            let source = match own {
                Some(own) => Source::Own(OwnFolder { path: folder, below, ..own }),
                None if writable => Source::Open(Place { path: folder, below }),
                None => Source::Protected(Place { path: folder, below }),
            };
            views.push(View { source, target: text(&at.join(path))? });
        }
        if views.len() > MOST_VIEWS {
            return Err(io::Error::other(format!(
                "{} files and folders of it stay live: more than can be shown",
                views.len()
            )));
        }
        Ok(Views(views))
    }
}
