//! What a process of this host has before it: the folder at a path, and the libraries that it loaded.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Whether a process finds this folder at that path. `None` where that cannot be seen.
///
/// The path must be without links: they would lead through the server's own files.
pub(crate) fn sees(process: u32, folder: &Path, at: &Path) -> Option<bool> {
    let same = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let there = Path::new("/proc").join(process.to_string()).join("root").join(at.strip_prefix("/").ok()?);
    let shown = same(std::fs::metadata(folder).ok()?);
    match std::fs::metadata(there) {
        Ok(found) => Some(same(found) == shown),
        // A process that has ended is nobody's business here.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Path::new("/proc").join(process.to_string()).join("root").exists().then_some(false)
        }
        Err(_) => None,
    }
}

/// Whether a process has mapped a library, by the beginning of its file's name.
pub(crate) fn loads(process: u32, library: &str) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    maps.lines().any(|line| {
        let name = line.rsplit('/').next().unwrap_or_default();
        line.contains('/') && name.starts_with(library)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_sees_what_it_sees() {
        let folder = tempfile::tempdir().unwrap();
        let (other, own) = (tempfile::tempdir().unwrap(), std::process::id());
        let at = std::fs::canonicalize(folder.path()).unwrap();
        assert_eq!(sees(own, folder.path(), &at), Some(true));
        assert_eq!(sees(own, other.path(), &at), Some(false));
        assert_eq!(sees(own, other.path(), &at.join("gone")), Some(false));
        assert_eq!(sees(own, &at.join("gone"), &at), None, "the snapshot itself is gone");
        assert_eq!(sees(u32::MAX, folder.path(), &at), None);
    }

    #[test]
    fn this_process_has_loaded_the_c_library() {
        assert!(loads(std::process::id(), "libc.so") || loads(std::process::id(), "ld-"));
        assert!(!loads(std::process::id(), "libcuda.so"));
    }
}
