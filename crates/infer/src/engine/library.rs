//! Where the ONNX Runtime library is, found and checked before the runtime's crate touches it: a missing or older
//! library made several of its releases hang or panic.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use kip_host::environment;

/// The oldest minor version (1.x) whose interface we use.
const OLDEST_MINOR: u32 = 17;

const USUAL_FOLDERS: [&str; 7] = [
    "/usr/local/lib",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/opt/onnxruntime/lib",
    "/opt/homebrew/lib",
];

/// What the search for the library gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LibrarySearch {
    Usable(PathBuf),
    /// One was named by option or environment and cannot be used, for this reason.
    Named(String),
    Nothing,
}

/// The library named by the option, else by the environment, else the newest usable one in the usual places.
pub(crate) fn find(named: Option<&Path>) -> LibrarySearch {
    let named = named.map(Path::to_owned).or_else(|| environment::read(environment::ONNXRUNTIME).map(PathBuf::from));
    if let Some(path) = named {
        return match check(&path) {
            Ok(()) => LibrarySearch::Usable(path),
            Err(reason) => LibrarySearch::Named(format!("{}: {reason}", path.display())),
        };
    }
    let mut candidates: Vec<PathBuf> =
        USUAL_FOLDERS.iter().flat_map(|folder| libraries_in(Path::new(folder))).collect();
    candidates.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    candidates.into_iter().find(|path| check(path).is_ok()).map_or(LibrarySearch::Nothing, LibrarySearch::Usable)
}

fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let named_so = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("libonnxruntime.so") || name == "libonnxruntime.dylib"
    };
    entries.flatten().map(|entry| entry.path()).filter(named_so).collect()
}

/// Whether the file is a shared library of ONNX Runtime, new enough.
fn check(path: &Path) -> Result<(), String> {
    const ELF: [u8; 4] = [0x7f, b'E', b'L', b'F'];
    const MACH_O: [u8; 4] = [0xcf, 0xfa, 0xed, 0xfe];
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a file".to_owned());
    }
    let mut magic = [0u8; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).map_err(|error| error.to_string())?;
    if magic != ELF && magic != MACH_O {
        return Err("not a shared library".to_owned());
    }
    match ort::util::probe(path) {
        None => Err("not a library of ONNX Runtime 1.x for this machine".to_owned()),
        Some(minor) if minor < OLDEST_MINOR => Err(format!("version 1.{minor} is older than 1.{OLDEST_MINOR}")),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_and_unusable_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let reason = |path: &Path| match find(Some(path)) {
            LibrarySearch::Named(reason) => reason,
            other => panic!("expected a refusal, got {other:?}"),
        };
        assert!(reason(&folder.path().join("none.so")).contains("No such file"));
        assert!(reason(folder.path()).contains("not a file"));
        let text = folder.path().join("text.so");
        fs::write(&text, "hello").unwrap();
        assert!(reason(&text).contains("not a shared library"));
        let elf = folder.path().join("elf.so");
        fs::write(&elf, [0x7f, b'E', b'L', b'F', 0, 0]).unwrap();
        assert!(reason(&elf).contains("not a library of ONNX Runtime"));
        // A real shared library, but another one: the test's own executable.
        let own = std::env::current_exe().unwrap();
        assert!(reason(&own).contains("not a library of ONNX Runtime"));
    }
}
