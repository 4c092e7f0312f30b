//! A folder copied into another by content. What is the same is left as it is; a file that was copied in part goes on where it ended.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// What became of a copy.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct CopyReport {
    /// Files and links that were written.
    pub(super) copied: usize,
    /// Files that were there with the same content.
    pub(super) same: usize,
    /// Bytes that were written.
    pub(super) bytes: u64,
    /// Bytes of interrupted copies that were used.
    pub(super) resumed: u64,
    /// What is no file, no folder and no link inside.
    pub(super) left_out: Vec<String>,
}

/// Files, links and folders below a folder, by relative path, with the bytes of each.
fn collect(root: &Path, below: &Path, all: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let relative = below.join(entry.file_name());
        let about = entry.metadata()?;
        if about.is_dir() {
            all.push((relative.clone(), 0));
            collect(root, &relative, all)?;
        } else {
            all.push((relative, if about.is_file() { about.len() } else { 0 }));
        }
    }
    Ok(())
}

/// Copies a folder, or one file. `progress` gets the bytes that are done, all bytes, and the name of the file.
pub(super) fn tree(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64, &str)) -> io::Result<CopyReport> {
    let mut report = CopyReport::default();
    if !from.exists() {
        return Ok(report);
    }
    if from.is_file() {
        let total = from.metadata()?.len();
        file(from, to, &mut report, &mut |done| progress(done, total, &to.display().to_string()))?;
        return Ok(report);
    }
    let mut all = Vec::new();
    collect(from, Path::new(""), &mut all)?;
    all.sort();
    let total = all.iter().map(|(_, bytes)| bytes).sum();
    let owner = fs::metadata(to)?;
    let mut done = 0;
    for (relative, bytes) in &all {
        let (source, target) = (from.join(relative), to.join(relative));
        let about = fs::symlink_metadata(&source)?;
        let name = relative.display().to_string();
        if about.is_dir() {
            if !target.is_dir() {
                fs::create_dir(&target).map_err(|error| named(&name, &error))?;
                give(&target, &owner);
            }
        } else if about.is_file() {
            let before = done;
            let copied = file(&source, &target, &mut report, &mut |part| progress(before + part, total, &name));
            if copied.map_err(|error| named(&name, &error))? {
                give(&target, &owner);
            }
        } else if about.is_symlink() && stays_inside(relative, &fs::read_link(&source)?) {
            let leads = fs::read_link(&source)?;
            if fs::read_link(&target).is_ok_and(|there| there == leads) {
                report.same += 1;
            } else {
                let _ = fs::remove_file(&target);
                std::os::unix::fs::symlink(leads, &target).map_err(|error| named(&name, &error))?;
                report.copied += 1;
            }
        } else {
            report.left_out.push(name);
        }
        done += bytes;
    }
    Ok(report)
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// Whether a link leads to a place in the same folder.
fn stays_inside(link: &Path, leads: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    for part in leads.components() {
        match part {
            Component::ParentDir if depth == 0 => return false,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            Component::Normal(_) => depth += 1,
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// Files of a share belong to whoever the share belongs to. Only root can give them away.
pub(super) fn give(path: &Path, owner: &fs::Metadata) {
    let _ = chown(path, Some(owner.uid()), Some(owner.gid()));
}

/// Copies a file. False if its content was there.
fn file(source: &Path, target: &Path, report: &mut CopyReport, progress: &mut dyn FnMut(u64)) -> io::Result<bool> {
    let about = fs::metadata(source)?;
    if fs::symlink_metadata(target).is_ok_and(|there| there.is_file() && there.len() == about.len())
        && common(source, target, progress)? == about.len()
    {
        report.same += 1;
        return Ok(false);
    }
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let part = target.with_file_name(format!(".{name}.kip-part"));
    // A link in its place would be followed.
    if fs::symlink_metadata(&part).is_ok_and(|there| !there.is_file()) {
        fs::remove_file(&part)?;
    }
    let kept = if part.is_file() { common(source, &part, progress)? } else { 0 };
    report.resumed += kept;
    let mut from = File::open(source)?;
    let mut into = OpenOptions::new().write(true).create(true).truncate(false).open(&part)?;
    into.set_len(kept)?;
    from.seek(SeekFrom::Start(kept))?;
    into.seek(SeekFrom::Start(kept))?;
    let mut buffer = vec![0; CHUNK];
    let mut done = kept;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        into.write_all(&buffer[..read])?;
        done += read as u64;
        report.bytes += read as u64;
        progress(done);
    }
    into.set_permissions(fs::Permissions::from_mode(about.mode() & 0o777))?;
    // A small file that a loss of power leaves behind in part is found by the next copy.
    if about.len() >= CHUNK as u64 {
        into.sync_all()?;
    }
    if target.is_dir() {
        return Err(io::Error::other("a folder of this name is there"));
    }
    fs::rename(&part, target)?;
    report.copied += 1;
    Ok(true)
}

/// How many bytes at the beginning of two files are the same.
fn common(one: &Path, other: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<u64> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut first, mut second) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut same = 0;
    loop {
        let (a, b) = (fill(&mut one, &mut first)?, fill(&mut other, &mut second)?);
        let length = a.min(b);
        let equal = match first[..length] == second[..length] {
            true => length,
            false => first[..length].iter().zip(&second[..length]).take_while(|(a, b)| a == b).count(),
        };
        same += equal as u64;
        progress(same);
        if equal < length || length < CHUNK {
            return Ok(same);
        }
    }
}

/// Reads until the buffer is full or the file is at its end.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_copied_and_an_interrupted_copy_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("model")).unwrap();
        fs::create_dir(&to).unwrap();
        let weights: Vec<u8> = (0..3 * CHUNK + 7).map(|number| u8::try_from(number % 251).unwrap()).collect();
        fs::write(from.join("model/weights"), &weights).unwrap();
        fs::write(from.join("a.txt"), "a").unwrap();
        std::os::unix::fs::symlink("a.txt", from.join("inside")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("outside")).unwrap();
        // A copy that was cut off, whose last bytes are not the file's.
        fs::create_dir(to.join("model")).unwrap();
        let mut part = weights[..2 * CHUNK].to_vec();
        part[2 * CHUNK - 1] ^= 1;
        fs::write(to.join("model/.weights.kip-part"), &part).unwrap();

        let mut last = (0, 0);
        let report = tree(&from, &to, &mut |done, total, _| last = (done, total)).unwrap();
        let kept = (2 * CHUNK - 1) as u64;
        assert_eq!((report.copied, report.resumed, report.same), (3, kept, 0));
        assert_eq!(report.bytes, weights.len() as u64 - kept + 1);
        assert_eq!(report.left_out, ["outside"]);
        assert_eq!(last.0, last.1);
        assert_eq!(fs::read(to.join("model/weights")).unwrap(), weights);
        assert!(!to.join("model/.weights.kip-part").exists());

        let again = tree(&from, &to, &mut |_, _, _| ()).unwrap();
        assert_eq!((again.copied, again.same, again.bytes), (0, 3, 0));
        // The same size and another content.
        fs::write(from.join("a.txt"), "b").unwrap();
        let changed = tree(&from, &to, &mut |_, _, _| ()).unwrap();
        assert_eq!((changed.copied, changed.same), (1, 2));
        assert_eq!(fs::read(to.join("a.txt")).unwrap(), b"b");
        fs::remove_file(from.join("a.txt")).unwrap();
        fs::create_dir(from.join("a.txt")).unwrap();
        assert!(tree(&from, &to, &mut |_, _, _| ()).is_err(), "a file is there");
    }
}
