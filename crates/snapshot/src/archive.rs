//! A snapshot as one file, for backups: a list of its contents, and its files one after the other.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::kept::{Contents, KeptFile, KeptKind, LONGEST_LIST, Snapshots};

/// Every archive begins so.
const MAGIC: &[u8] = b"kipwake-code-1\n";

impl Snapshots {
    /// Writes a snapshot. False if it is not there.
    ///
    /// # Errors
    /// Where its files cannot be read, or `to` cannot be written.
    pub fn write_archive(&self, digest: &str, to: &mut impl Write) -> io::Result<bool> {
        let Some(contents) = self.contents(digest) else { return Ok(false) };
        let (tree, list) = (self.tree(digest), serde_json::to_vec(&contents)?);
        to.write_all(MAGIC)?;
        to.write_all(&(list.len() as u64).to_le_bytes())?;
        to.write_all(&list)?;
        for file in contents.files.iter().filter(|file| matches!(file.kind, KeptKind::File { .. })) {
            let mut from = File::open(tree.join(&file.path))?;
            let about = from.metadata()?;
            let modified = about.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            to.write_all(&u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX).to_le_bytes())?;
            to.write_all(&about.len().to_le_bytes())?;
            if io::copy(&mut (&mut from).take(about.len()), to)? != about.len() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} is cut", file.path)));
            }
        }
        Ok(true)
    }

    /// Keeps a snapshot from an archive, whole or not at all. False if it was there already.
    ///
    /// # Errors
    /// Where the archive is not one, names paths outside of the snapshot or has other contents than it says, or the snapshot cannot be
    /// kept.
    pub fn read_archive(&self, digest: &str, from: &mut impl Read) -> io::Result<bool> {
        if self.use_again(digest) {
            return Ok(false);
        }
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic)?;
        let length = number(from)?;
        if magic != MAGIC || length > LONGEST_LIST {
            return Err(wrong("it is no archive of code"));
        }
        let mut list = Vec::new();
        if from.take(length).read_to_end(&mut list)? as u64 != length {
            return Err(wrong("it is cut"));
        }
        let contents: Contents = serde_json::from_slice(&list)?;
        let staged = self.stage()?;
        let made = unpack(&staged.join("tree"), &contents, from).and_then(|()| self.keep(&staged, digest, &contents));
        let _ = fs::remove_dir_all(&staged);
        made.map(|()| true)
    }
}

/// Archives of snapshots in a folder, which go with this.
#[derive(Debug, Default)]
pub struct Archives {
    /// The digest of each snapshot, and its archive.
    pub files: Vec<(String, PathBuf)>,
}

impl Archives {
    /// Those of the snapshots with these digests that are there.
    ///
    /// # Errors
    /// Where a snapshot cannot be read, or the folder cannot be written.
    pub fn write(snapshots: &Snapshots, digests: &[String], folder: &Path) -> io::Result<Self> {
        let mut archives = Self::default();
        for digest in digests.iter().filter(|digest| snapshots.has(digest)) {
            let file = folder.join(format!("code-{:032x}.new", kip_host::random::bits()));
            archives.files.push((digest.clone(), file.clone()));
            let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
            let mut to = io::BufWriter::new(open);
            snapshots.write_archive(digest, &mut to)?;
            to.flush()?;
        }
        Ok(archives)
    }

    /// Keeps the snapshots of archives that others wrote. How many were not there before.
    ///
    /// # Errors
    /// As [`Snapshots::read_archive`].
    pub fn read(snapshots: &Snapshots, files: &[(String, PathBuf)]) -> io::Result<usize> {
        let mut kept = 0;
        for (digest, file) in files {
            kept += usize::from(snapshots.read_archive(digest, &mut io::BufReader::new(File::open(file)?))?);
        }
        Ok(kept)
    }
}

impl Drop for Archives {
    fn drop(&mut self) {
        self.files.iter().for_each(|(_, file)| drop(fs::remove_file(file)));
    }
}

fn number(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn unpack(tree: &Path, contents: &Contents, from: &mut impl Read) -> io::Result<()> {
    let wrong = |path: &str, what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{path} {what}"));
    fs::create_dir(tree)?;
    // Only what was made here as a folder is one: a link would lead elsewhere.
    let mut folders: BTreeSet<PathBuf> = BTreeSet::from([PathBuf::new()]);
    for KeptFile { path, kind } in &contents.files {
        let own = Path::new(path);
        let plain = own.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || own.parent().is_none_or(|parent| !folders.contains(parent)) {
            return Err(wrong(path, "is not a path in it"));
        }
        let at = tree.join(own);
        match kind {
            KeptKind::Folder | KeptKind::Live { is_folder: true } => {
                fs::create_dir(&at)?;
                folders.insert(own.to_owned());
            }
            KeptKind::Link { target } => symlink(target, &at)?,
            KeptKind::Live { is_folder: false } => drop(File::create_new(&at)?),
            KeptKind::File { is_executable, sha256 } => {
                let (modified, length) = (Duration::from_nanos(number(from)?), number(from)?);
                let mode = if *is_executable { 0o755 } else { 0o644 };
                let mut to = OpenOptions::new().write(true).create_new(true).mode(mode).open(&at)?;
                let mut digest = Sha256::new();
                let mut rest = from.take(length);
                let mut buffer = vec![0; 1 << 18];
                loop {
                    let read = rest.read(&mut buffer)?;
                    if read == 0 {
                        break;
                    }
                    digest.update(&buffer[..read]);
                    to.write_all(&buffer[..read])?;
                }
                if rest.limit() > 0 || HEXLOWER.encode(&digest.finalize()) != *sha256 {
                    return Err(wrong(path, "is not what the list says"));
                }
                to.set_permissions(fs::Permissions::from_mode(mode))?;
                to.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + modified))?;
            }
        }
    }
    for folder in folders {
        fs::set_permissions(tree.join(folder), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Request};

    fn request(folder: &Path) -> Request {
        Request {
            folder: folder.to_owned(),
            writable: vec!["out".to_owned()],
            without: Vec::new(),
            beside: Vec::new(),
            open: true,
            moved: false,
            before: None,
            keep: true,
            limits: Limits::default(),
        }
    }

    #[test]
    fn a_snapshot_comes_back_from_its_archive_and_a_false_one_does_not() {
        let (app, here, there) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(app.path().join("a/b")).unwrap();
        fs::create_dir(app.path().join("out")).unwrap();
        fs::write(app.path().join("a/b/text"), "hello").unwrap();
        fs::write(app.path().join("start"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(app.path().join("start"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("a/b/text", app.path().join("link")).unwrap();
        let from = Snapshots::new(here.path().join("snapshots"));
        let digest = from.capture(&request(app.path())).unwrap().snapshot.digest;
        let mut archive = Vec::new();
        assert!(from.write_archive(&digest, &mut archive).unwrap());
        assert!(!from.write_archive("unknown", &mut Vec::new()).unwrap());

        let to = Snapshots::new(there.path().join("snapshots"));
        assert!(to.read_archive(&digest, &mut archive.as_slice()).unwrap());
        assert!(!to.read_archive(&digest, &mut archive.as_slice()).unwrap(), "it is there");
        let tree = to.tree(&digest);
        assert_eq!(fs::read_to_string(tree.join("link")).unwrap(), "hello");
        assert!(tree.join("out").is_dir());
        let about = |folder: &Path| {
            let about = folder.join("start").metadata().unwrap();
            (about.permissions().mode() & 0o777, about.modified().unwrap())
        };
        assert_eq!(about(&tree), about(app.path()));
        assert_eq!(from.contents(&digest), to.contents(&digest));

        let empty = Snapshots::new(there.path().join("other"));
        let mut changed = archive.clone();
        *changed.last_mut().unwrap() ^= 1;
        for bad in [&changed[..], &archive[..archive.len() - 1], b"x", b""] {
            assert!(empty.read_archive(&digest, &mut &bad[..]).is_err());
            assert!(!empty.has(&digest));
        }
    }

    #[test]
    fn an_archive_writes_nothing_outside_of_its_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::new(folder.path().join("snapshots"));
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let link = |path: &str, target: &Path| KeptFile {
            path: path.to_owned(),
            kind: KeptKind::Link { target: target.to_string_lossy().into_owned() },
        };
        let folder_at = |path: &str| KeptFile { path: path.to_owned(), kind: KeptKind::Folder };
        let rows = [
            vec![folder_at("../x")],
            vec![folder_at("/x")],
            vec![link("a", &outside), folder_at("a/x")],
            vec![folder_at("a/b")],
            vec![folder_at("")],
        ];
        for files in rows {
            let list = serde_json::to_vec(&Contents { folder: PathBuf::from("/"), files }).unwrap();
            let archive = [MAGIC, &(list.len() as u64).to_le_bytes(), &list].concat();
            assert!(snapshots.read_archive("d", &mut archive.as_slice()).is_err());
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        }
    }
}
