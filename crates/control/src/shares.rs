//! Shared storage that functions mount: paths of NAS servers and of buckets, each with a folder on this machine. Without a setting, the
//! folder is below the storage root.

use std::path::{Path, PathBuf};

use kip_spec::share::ShareName;
use kip_store::{Author, Change, Object, Seq, StoredResource};
use kip_wire::ShareInfo;

use crate::control::Control;
use crate::error::Error;

/// Shares with a folder of their own among the resources of the store.
const KIND: &str = "kip.share";

/// A share of the store with its folder.
fn read(resource: &StoredResource) -> Option<(ShareName, PathBuf)> {
    Some((resource.name.parse().ok()?, PathBuf::from(&resource.config)))
}

fn shown(name: &ShareName, folder: &Path, is_set: bool) -> ShareInfo {
    let exists = folder.is_dir();
    ShareInfo { name: name.to_string(), folder: folder.display().to_string(), is_set, exists }
}

impl Control {
    /// The shares whose folder is set, by name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn shares(&self) -> Result<Vec<ShareInfo>, Error> {
        let stored = self.resources(KIND).await?;
        Ok(stored.iter().filter_map(read).map(|(name, folder)| shown(&name, &folder, true)).collect())
    }

    /// A share with its folder: what was set for it, or for a share above it, else the one below the storage root.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn share(&self, name: &ShareName) -> Result<ShareInfo, Error> {
        let stored = self.resources(KIND).await?;
        let set: Vec<_> = stored.iter().filter_map(read).collect();
        let found = name.upwards().find_map(|(above, rest)| {
            let (_, folder) = set.iter().find(|(known, _)| *known == above)?;
            Some(if rest.as_os_str().is_empty() { folder.clone() } else { folder.join(rest) })
        });
        Ok(match found {
            Some(folder) => shown(name, &folder, true),
            None => shown(name, &self.shared.options.storage.join(name.folder()), false),
        })
    }

    /// The folder of a share that a function is to mount; one below the storage root is made.
    ///
    /// # Errors
    /// [`Error::ShareInvalid`] or [`Error::Store`].
    pub async fn share_folder(&self, name: &ShareName) -> Result<PathBuf, Error> {
        let share = self.share(name).await?;
        let folder = PathBuf::from(&share.folder);
        if !share.exists {
            if share.is_set {
                return Err(Error::ShareInvalid {
                    detail: format!("{} of the share {name} is no folder", share.folder),
                    hint: "make the folder, or name another one: kip deploy --mount SHARE=FOLDER",
                });
            }
            std::fs::create_dir_all(&folder).map_err(|error| Error::ShareInvalid {
                detail: format!("the folder {} of the share {name} cannot be made: {error}", share.folder),
                hint: "make room, or set `storage.root` in kipwake.toml to a folder that the server can write",
            })?;
        }
        // What is mounted is what its links lead to.
        Ok(folder.canonicalize().unwrap_or(folder))
    }

    /// Sets the folder of a share. Functions see it from their next deployment on.
    ///
    /// # Errors
    /// [`Error::ShareInvalid`] or [`Error::Store`].
    pub async fn set_share(&self, name: &ShareName, folder: &str, author: Author) -> Result<ShareInfo, Error> {
        let path = Path::new(folder);
        let wrong = |detail: String| Error::ShareInvalid {
            detail,
            hint: "name an absolute folder that is there, such as /srv/models",
        };
        if !path.is_absolute() || path.parent().is_none() {
            return Err(wrong(format!("`{folder}` is no absolute folder below /")));
        }
        let real = path.canonicalize().map_err(|error| wrong(format!("{folder} cannot be used: {error}")))?;
        if !real.is_dir() {
            return Err(wrong(format!("{folder} is no folder")));
        }
        let options = &self.shared.options;
        let (data, storage) = (&options.code.data, &options.storage);
        if data.starts_with(&real) || (real.starts_with(data) && !real.starts_with(storage)) {
            return Err(wrong(format!("{folder} holds state of the server")));
        }
        let stored = name.to_string();
        let object = Object::Resource(KIND.to_owned(), stored.clone());
        let config = real.display().to_string();
        let resource = StoredResource { kind: KIND.to_owned(), name: stored, config, code: None, rev: Seq::default() };
        self.change_resource(object, Change::PutResource(Box::new(resource)), author).await?;
        Ok(shown(name, &real, true))
    }

    /// Forgets the folder that was set for a share. False if none was.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn forget_share(&self, name: &ShareName, author: Author) -> Result<bool, Error> {
        let stored = name.to_string();
        let object = Object::Resource(KIND.to_owned(), stored.clone());
        self.change_resource(object, Change::RemoveResource { kind: KIND.to_owned(), name: stored }, author).await
    }
}
