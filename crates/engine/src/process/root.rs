//! A root of its own for an instance: the folders of the host at their paths, and further ones at paths that the host may not have, such as
//! `/code` and `/opt`. What the child does is in `unsafe_root.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kip_spec::container::Mount;

use super::unsafe_folder::OwnFolder;
use super::unsafe_root::{MOST_TREES, PrivateRoot, RootStep};
use super::view::{Place, Source};

/// Where the new root is put together. What is there on the host is seen in it all the same.
const BASE: &str = "/tmp";

/// The steps by which a child makes such a root. `own` gives the instance a folder to write that is somebody else's, where it needs that.
///
/// # Errors
/// Where a target is no path below `/`, or inside of another one, or the host's folders are too many.
pub(super) fn plan(folders: &[Mount], own: &dyn Fn(&Path) -> Option<OwnFolder>) -> io::Result<PrivateRoot> {
    let mut targets = BTreeMap::new();
    for folder in folders {
        let target = PathBuf::from(&folder.target);
        let fits = target.is_absolute()
            && target.parent().is_some()
            && !target.components().any(|part| matches!(part, std::path::Component::ParentDir));
        if !fits || ["/proc", "/sys", "/dev"].iter().any(|own| target.starts_with(own)) {
            return Err(io::Error::other(format!("a folder cannot be at {}", folder.target)));
        }
        targets.insert(target, folder);
    }
    // They are ordered: one that is inside of another comes behind it.
    if let Some((outer, inner)) = targets.keys().zip(targets.keys().skip(1)).find(|(one, next)| next.starts_with(one)) {
        return Err(io::Error::other(format!("{} is inside of {}", inner.display(), outer.display())));
    }
    let mut steps = Vec::new();
    fill(Path::new("/"), &targets, own, &mut steps)?;
    let trees = steps.iter().filter(|step| matches!(step, RootStep::Tree { .. })).count();
    if trees > MOST_TREES {
        return Err(io::Error::other(format!("the root of this host has too many folders: {trees}")));
    }
    Ok(PrivateRoot { base: CString::new(BASE)?, steps })
}

/// What is seen in a folder below which something of ours is.
fn fill(
    folder: &Path,
    targets: &BTreeMap<PathBuf, &Mount>,
    own: &dyn Fn(&Path) -> Option<OwnFolder>,
    steps: &mut Vec<RootStep>,
) -> io::Result<()> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let placed = |path: &Path| text(&Path::new(BASE).join(path.strip_prefix("/").unwrap_or(path)));
    let mut names = BTreeSet::new();
    // A folder that nobody may read shows nothing but ours.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        names.insert(entry?.file_name());
    }
    for target in targets.keys() {
        names.extend(target.strip_prefix(folder).ok().and_then(|rest| rest.iter().next()).map(ToOwned::to_owned));
    }
    for name in names {
        let path = folder.join(name);
        let at = placed(&path)?;
        if let Some(mount) = targets.get(&path) {
            steps.push(RootStep::Folder(at.clone()));
            let place = Place { path: CString::new(mount.source.as_bytes())?, below: None };
            let source = match mount.writable {
                true => own(Path::new(&mount.source)).map_or(Source::Open(place), Source::Own),
                false => Source::Protected(place),
            };
            steps.push(RootStep::Tree { source, target: at });
            continue;
        }
        if targets.keys().any(|target| target.starts_with(&path)) {
            steps.push(RootStep::Folder(at));
            fill(&path, targets, own, steps)?;
            continue;
        }
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if about.is_symlink() {
            steps.push(RootStep::Link { target: text(&fs::read_link(&path)?)?, path: at });
        } else if about.is_dir() {
            steps.push(RootStep::Folder(at.clone()));
            steps.push(RootStep::Tree { source: Source::Open(Place { path: text(&path)?, below: None }), target: at });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_folders_are_there_and_ours_among_them() {
        let mount =
            |source: &str, target: &str| Mount { source: source.into(), target: target.into(), writable: false };
        let root =
            plan(&[mount("/srv/tree", "/code"), mount("/srv/layer", "/opt"), mount("/srv/nas", "/mnt/auto")], &|_| {
                None
            })
            .unwrap();
        let text = |path: &CString| path.to_str().unwrap().to_owned();
        let trees: Vec<(String, String, bool)> = root
            .steps
            .iter()
            .filter_map(|step| match step {
                RootStep::Tree { source: Source::Open(place), target } => Some((text(&place.path), text(target), true)),
                RootStep::Tree { source: Source::Protected(place), target } => {
                    Some((text(&place.path), text(target), false))
                }
                _ => None,
            })
            .collect();
        for (source, target, writable) in [
            ("/srv/tree", "/tmp/code", false),
            ("/srv/layer", "/tmp/opt", false),
            ("/srv/nas", "/tmp/mnt/auto", false),
            ("/usr", "/tmp/usr", true),
            ("/tmp", "/tmp/tmp", true),
        ] {
            assert!(trees.contains(&(source.into(), target.into(), writable)), "{source}: {trees:?}");
        }
        assert!(trees.iter().all(|(source, ..)| source != "/mnt" && source != "/opt"), "{trees:?}");
        for wrong in ["/", "code", "/a/../b", "/proc/x", "/dev"] {
            assert!(plan(&[mount("/srv", wrong)], &|_| None).is_err(), "{wrong}");
        }
        assert!(
            plan(&[mount("/srv", "/mnt/a"), mount("/srv", "/mnt/a/b")], &|_| None).is_err(),
            "one inside of another"
        );
    }
}
