//! Layers that a function sees as one folder: of the same names, those of the layer that is named first.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::{CodeStore, STAGED};
use crate::bootstrap;
use crate::error::{FcError, FcResult};

/// Names of folders of layers begin so.
pub(super) const LAYERS: &str = "layers-";

impl CodeStore {
    /// Puts the trees of these archives together. The same list gives the same folder.
    pub(crate) async fn merge(&self, digests: &[String]) -> FcResult<PathBuf> {
        let (store, digests) = (self.clone(), digests.to_vec());
        let made = kip_host::tasks::blocking("put layers together", move || store.merge_now(&digests)).await;
        made.unwrap_or_else(|| Err(io::Error::other("the server is about to end"))).map_err(|error| {
            let said = format!("the layers cannot be put together: {error}");
            FcError::new(kip_spec::code::STORE_FAILED, "InternalServerError", said)
        })
    }

    fn merge_now(&self, digests: &[String]) -> io::Result<PathBuf> {
        let name = format!("{LAYERS}{}", HEXLOWER.encode(&Sha256::digest(digests.join(" ").as_bytes())));
        let place = self.folder.join(&name);
        if place.is_dir() {
            return Ok(place.join("tree"));
        }
        let staged = self.folder.join(format!("{STAGED}{:032x}", kip_host::random::bits()));
        let made = self.stage_layers(digests, &staged).and_then(|()| match fs::rename(&staged, &place) {
            // Somebody else made the same in this moment.
            Err(_) if place.is_dir() => fs::remove_dir_all(&staged),
            other => other,
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&staged);
        }
        made.map(|()| place.join("tree"))
    }

    fn stage_layers(&self, digests: &[String], staged: &Path) -> io::Result<()> {
        kip_host::directory::create_private(staged)?;
        fs::set_permissions(staged, fs::Permissions::from_mode(0o711))?;
        let tree = staged.join("tree");
        fs::create_dir(&tree)?;
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o755))?;
        for digest in digests {
            copy(&self.tree(digest), &tree, true)?;
        }
        rustix::fs::syncfs(fs::File::open(staged)?).map_err(io::Error::from)
    }
}

/// Adds what is not there yet. Files are linked: nobody can write them.
fn copy(from: &Path, to: &Path, is_top: bool) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if is_top && entry.file_name() == bootstrap::FOLDER {
            continue;
        }
        let target = to.join(entry.file_name());
        let there = fs::symlink_metadata(&target).ok();
        let kind = entry.file_type()?;
        match there {
            None if kind.is_dir() => {
                fs::create_dir(&target)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
                copy(&entry.path(), &target, false)?;
            }
            None if kind.is_symlink() => std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?,
            None => fs::hard_link(entry.path(), &target)?,
            // A link that leads to a folder is none: nothing is written through it.
            Some(there) if there.is_dir() && kind.is_dir() => copy(&entry.path(), &target, false)?,
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::archive::tests::{File, zip};
    use super::*;

    #[tokio::test]
    async fn the_first_layer_wins_and_folders_are_joined() {
        let folder = tempfile::tempdir().unwrap();
        let store = CodeStore::open(folder.path().join("code")).unwrap();
        let mut digests = Vec::new();
        for files in [
            vec![File::new("bin/a", b"first"), File::new("one.txt", b"1")],
            vec![File::new("bin/a", b"second"), File::new("bin/b", b"b"), File::new("one.txt/x", b"x")],
        ] {
            digests.push(store.keep(zip(&files).into()).await.unwrap().sha256);
        }
        let tree = store.merge(&digests).await.unwrap();
        let read = |name: &str| fs::read_to_string(tree.join(name)).unwrap();
        assert_eq!((read("bin/a"), read("bin/b"), read("one.txt")), ("first".into(), "b".into(), "1".into()));
        assert!(!tree.join(bootstrap::FOLDER).exists(), "our own programs are no part of a layer");
        assert_eq!(store.merge(&digests).await.unwrap(), tree);
        digests.reverse();
        let other = store.merge(&digests).await.unwrap();
        assert_eq!(fs::read(other.join("bin/a")).unwrap(), b"second");
    }
}
