//! How much of a model is in the page cache, and reading a model into it. All calls block: they are for threads that may.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use kip_host::directory::open_regular;

use crate::unsafe_residency::{WINDOW, resident};

/// Parts of a large file that are looked at for an estimate.
const SAMPLES: u64 = 32;
/// Bytes of such a part.
const SAMPLE: u64 = 1 << 20;
/// Bytes that are read at once.
const READ: usize = 1 << 20;
/// Files are read by so many threads.
const READERS: u64 = 4;
/// Bytes that a thread reads before it takes the next part.
const PART: u64 = 32 << 20;

/// A file of a model on the disk.
#[derive(Debug, Clone)]
pub(crate) struct PlacedFile {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
}

fn open(file: &PlacedFile) -> io::Result<File> {
    open_regular(&file.path, OpenOptions::new().read(true))
}

/// Whether all files are there with their sizes.
pub(crate) fn are_there(files: &[PlacedFile]) -> bool {
    let is_there =
        |file: &PlacedFile| std::fs::metadata(&file.path).is_ok_and(|data| data.is_file() && data.len() == file.size);
    files.iter().all(is_there)
}

/// Bytes that are in the page cache; nothing where the kernel does not say. An estimate looks at parts of large files only.
pub(crate) fn resident_of(files: &[PlacedFile], estimate: bool) -> Option<u64> {
    let mut sum = 0_u64;
    for file in files.iter().filter(|file| file.size > 0) {
        let opened = open(file).ok()?;
        sum = sum.saturating_add(match estimate && file.size > SAMPLES * SAMPLE {
            true => sampled(&opened, file.size)?,
            false => whole(&opened, file.size)?,
        });
    }
    Some(sum)
}

fn whole(file: &File, size: u64) -> Option<u64> {
    let windows = (0..size.div_ceil(WINDOW)).map(|number| number * WINDOW);
    windows.map(|at| resident(file, at, (size - at).min(WINDOW)).ok()).sum()
}

fn sampled(file: &File, size: u64) -> Option<u64> {
    let apart = size / SAMPLES / SAMPLE * SAMPLE;
    let found: Option<u64> = (0..SAMPLES).map(|number| resident(file, number * apart, SAMPLE).ok()).sum();
    u64::try_from(u128::from(found?) * u128::from(size) / u128::from(SAMPLES * SAMPLE)).ok()
}

/// Reads files into the page cache, the parts of large ones side by side.
pub(crate) fn read_all(files: &[PlacedFile]) -> io::Result<()> {
    for file in files {
        let opened = open(file)?;
        let parts = file.size.div_ceil(PART);
        let next = std::sync::atomic::AtomicU64::new(0);
        let read = || -> io::Result<()> {
            let mut buffer = vec![0_u8; READ];
            loop {
                let part = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if part >= parts {
                    return Ok(());
                }
                let (mut at, end) = (part * PART, (part + 1).saturating_mul(PART).min(file.size));
                while at < end {
                    match opened.read_at(&mut buffer, at)? {
                        0 => break,
                        count => at += count as u64,
                    }
                }
            }
        };
        let done: io::Result<Vec<()>> = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS.min(parts)).map(|_| scope.spawn(read)).collect();
            let ended = |reader: std::thread::ScopedJoinHandle<'_, io::Result<()>>| {
                reader.join().unwrap_or_else(|_| Err(io::Error::other("a reader panicked")))
            };
            readers.into_iter().map(ended).collect()
        });
        done?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_resident_and_what_was_dropped_is_not() {
        // A file of the working folder: a temporary one may be in memory only, which keeps its pages.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("model.bin");
        let size = 70_u64 << 20;
        std::fs::write(&path, vec![7_u8; usize::try_from(size).unwrap()]).unwrap();
        let files = [PlacedFile { path: path.clone(), size }];
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let (cold, guess) = (resident_of(&files, false).unwrap(), resident_of(&files, true).unwrap());
        assert!(cold < size / 10 && guess < size / 10, "{cold} {guess}");
        read_all(&files).unwrap();
        assert_eq!((resident_of(&files, false), resident_of(&files, true)), (Some(size), Some(size)));
        assert!(are_there(&files));
        assert!(!are_there(&[PlacedFile { path, size: size + 1 }]));
        assert_eq!(resident_of(&[PlacedFile { path: "/none".into(), size: 1 }], false), None);
    }
}
