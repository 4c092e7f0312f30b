//! A ZIP archive that somebody sent, unpacked into a folder of ours.
//!
//! Nothing of it is believed: what the directory says must be what the local headers say, names must stay inside, bytes are counted while
//! they are inflated, and entries must not share bytes. Source of the format: APPNOTE.TXT 6.3, sections 4.3 and 4.4.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path};

use flate2::Crc;
use flate2::read::DeflateDecoder;

/// Bytes of all files together.
const MOST_BYTES: u64 = 2 << 30;
/// Entries.
const MOST_ENTRIES: usize = 50_000;
/// Bytes of a name, and of one part of it.
const LONGEST_NAME: usize = 1_024;
const LONGEST_PART: usize = 255;
/// Bytes of the target of a link.
const LONGEST_TARGET: u64 = 1_024;

const END: u32 = 0x0605_4b50;
const END_LENGTH: usize = 22;
const CENTRAL: u32 = 0x0201_4b50;
const CENTRAL_LENGTH: usize = 46;
const LOCAL: u32 = 0x0403_4b50;
const LOCAL_LENGTH: usize = 30;
/// Flags: encrypted, strongly encrypted, with its headers masked.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
/// Flag: sizes follow the data.
const DESCRIPTOR: u16 = 1 << 3;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// The systems whose attributes are modes of Unix.
const UNIX: [u8; 2] = [3, 19];

/// What is wrong with an archive, in a sentence.
#[derive(Debug)]
pub(crate) struct ArchiveError(pub(crate) String);

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        Self(format!("it cannot be unpacked: {error}"))
    }
}

type Result<T> = std::result::Result<T, ArchiveError>;

fn refuse<T>(what: impl Into<String>) -> Result<T> {
    Err(ArchiveError(what.into()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    Folder,
    File { executable: bool },
    Link,
}

#[derive(Debug)]
struct Entry<'a> {
    path: &'a str,
    kind: EntryKind,
    method: u16,
    crc: u32,
    inflated: u64,
    data: &'a [u8],
}

/// Unpacks an archive into a folder that exists and is empty.
pub(crate) fn unpack(archive: &[u8], folder: &Path) -> Result<()> {
    let entries = read(archive)?;
    let mut left = MOST_BYTES;
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Folder) {
        fs::create_dir_all(folder.join(entry.path))?;
    }
    for entry in &entries {
        let EntryKind::File { executable } = entry.kind else { continue };
        let path = folder.join(entry.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // Windows has no such bit, and nothing else can be meant.
        let mode = if executable || entry.path == "bootstrap" { 0o755 } else { 0o644 };
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        left -= inflate(entry, left, &mut file)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    // Last, so that nothing is written through one.
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Link) {
        let mut target = Vec::new();
        inflate(entry, LONGEST_TARGET, &mut target)?;
        let target = String::from_utf8(target).map_err(|_| ArchiveError(outside(entry.path)))?;
        if !stays_inside(entry.path, &target) {
            return refuse(outside(entry.path));
        }
        let path = folder.join(entry.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        symlink(&target, &path)?;
    }
    open_folders(folder)
}

fn outside(path: &str) -> String {
    format!("the link `{path}` leads out of the archive")
}

/// Whether a link leads to something inside. `..` may stand at the beginning only: behind another link it would mean another folder.
fn stays_inside(path: &str, target: &str) -> bool {
    let depth = path.split('/').count() - 1;
    let mut up = 0;
    let mut down = false;
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir if !down => up += 1,
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            _ => return false,
        }
    }
    !target.is_empty() && !target.contains(['\0', '\\']) && up <= depth
}

/// Functions may be users of their own: what they run must be readable.
fn open_folders(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

/// Writes the content of an entry and gives its length.
fn inflate(entry: &Entry<'_>, most: u64, to: &mut impl Write) -> Result<u64> {
    let mut crc = Crc::new();
    let mut reader: Box<dyn Read + '_> = match entry.method {
        STORED => Box::new(entry.data),
        _ => Box::new(DeflateDecoder::new(entry.data)),
    };
    let (mut written, mut buffer) = (0u64, vec![0; 64 << 10]);
    loop {
        let read = reader.read(&mut buffer).map_err(|_| ArchiveError(format!("`{}` is damaged", entry.path)))?;
        if read == 0 {
            break;
        }
        written += read as u64;
        if written > most {
            return refuse(format!("unpacked, it has more than {most} bytes at `{}`", entry.path));
        }
        if written > entry.inflated {
            return refuse(format!("`{}` is longer than the archive says", entry.path));
        }
        crc.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
    }
    if written != entry.inflated || crc.sum() != entry.crc {
        return refuse(format!("`{}` is damaged: its length or checksum does not fit", entry.path));
    }
    Ok(written)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(length) else { return refuse("it ends too early") };
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// All entries, checked against each other.
fn read(archive: &[u8]) -> Result<Vec<Entry<'_>>> {
    let (count, directory, begin) = directory(archive)?;
    let mut reader = Reader(directory);
    let mut entries = Vec::with_capacity(count);
    let mut places: Vec<(usize, usize)> = Vec::with_capacity(count);
    for _ in 0..count {
        let (entry, place) = central(&mut reader, &archive[..begin])?;
        entries.push(entry);
        places.push(place);
    }
    if !reader.0.is_empty() {
        return refuse("its directory has more entries than it says");
    }
    places.sort_unstable();
    if places.windows(2).any(|pair| pair[1].0 < pair[0].1) {
        return refuse("two of its entries share bytes");
    }
    check_paths(&entries)?;
    Ok(entries)
}

/// The number of entries, the directory, and where that begins.
fn directory(archive: &[u8]) -> Result<(usize, &[u8], usize)> {
    let from = archive.len().saturating_sub(END_LENGTH + usize::from(u16::MAX));
    let begins = |at: &usize| archive[*at..].starts_with(&END.to_le_bytes());
    let last = archive.len().checked_sub(END_LENGTH);
    let Some(end) = last.and_then(|last| (from..=last).rev().find(begins)) else {
        return refuse("it is no ZIP archive");
    };
    let mut reader = Reader(&archive[end + 4..]);
    let (disk, first_disk) = (reader.u16()?, reader.u16()?);
    let (here, count) = (reader.u16()?, reader.u16()?);
    let (length, begin) = (reader.u32()?, reader.u32()?);
    let comment = reader.u16()?;
    if usize::from(comment) != reader.0.len() {
        return refuse("bytes follow its end");
    }
    if disk != 0 || first_disk != 0 || here != count || count == u16::MAX || begin == u32::MAX {
        return refuse("it has several parts, or the ZIP64 form, which is not taken");
    }
    let (begin, length, count) = (index(begin)?, index(length)?, usize::from(count));
    if count > MOST_ENTRIES {
        return refuse(format!("it has {count} entries; {MOST_ENTRIES} at most"));
    }
    match begin.checked_add(length) {
        Some(after) if after == end => Ok((count, &archive[begin..end], begin)),
        _ => refuse("its directory is not where it says"),
    }
}

fn index(number: u32) -> Result<usize> {
    usize::try_from(number).map_err(|_| ArchiveError("it is too large".to_owned()))
}

/// An entry of the directory, and where its header and data are.
fn central<'a>(reader: &mut Reader<'a>, before: &'a [u8]) -> Result<(Entry<'a>, (usize, usize))> {
    if reader.0.len() < CENTRAL_LENGTH || reader.u32()? != CENTRAL {
        return refuse("its directory is damaged");
    }
    let (made, _needed) = (reader.u16()?, reader.u16()?);
    let (flags, method) = (reader.u16()?, reader.u16()?);
    let _time = reader.u32()?;
    let (crc, packed, inflated) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let (name, extra, comment) = (reader.u16()?, reader.u16()?, reader.u16()?);
    let (disk, _internal, attributes, offset) = (reader.u16()?, reader.u16()?, reader.u32()?, reader.u32()?);
    let name = reader.bytes(name.into())?;
    reader.bytes(usize::from(extra) + usize::from(comment))?;
    let Ok(text) = std::str::from_utf8(name) else { return refuse("a name in it is not UTF-8") };
    let path = path_of(text)?;
    if flags & ENCRYPTED != 0 {
        return refuse(format!("`{path}` is encrypted"));
    }
    if !matches!(method, STORED | DEFLATED) {
        return refuse(format!("`{path}` is packed by method {method}; stored and deflated are taken"));
    }
    if [packed, inflated, offset].contains(&u32::MAX) || disk != 0 {
        return refuse(format!("`{path}` has the ZIP64 form, which is not taken"));
    }
    let kind = kind_of(text, made, attributes)?;
    let offset = index(offset)?;
    let differs = || ArchiveError(format!("the directory and the local header of `{path}` disagree"));
    let mut local = Reader(before.get(offset..).ok_or_else(differs)?);
    if local.0.len() < LOCAL_LENGTH || local.u32()? != LOCAL {
        return Err(differs());
    }
    let _needed = local.u16()?;
    let same = local.u16()? == flags && local.u16()? == method;
    let _time = local.u32()?;
    let sizes = [local.u32()?, local.u32()?, local.u32()?];
    let (name_length, extra_length) = (local.u16()?, local.u16()?);
    let local_name = local.bytes(name_length.into())?;
    local.bytes(extra_length.into())?;
    // Sizes that follow the data are not known yet where the header was written.
    let sizes_fit = sizes == [crc, packed, inflated] || (flags & DESCRIPTOR != 0 && sizes == [0, 0, 0]);
    if !same || local_name != name || !sizes_fit {
        return Err(differs());
    }
    let data = local.bytes(index(packed)?)?;
    if method == STORED && packed != inflated {
        return Err(differs());
    }
    let after = before.len() - local.0.len();
    let entry = Entry { path, kind, method, crc, inflated: inflated.into(), data };
    if kind == EntryKind::Folder && inflated != 0 {
        return refuse(format!("the folder `{path}` has content"));
    }
    Ok((entry, (offset, after)))
}

/// A name as a path that stays inside, without the slash at the end of a folder.
fn path_of(name: &str) -> Result<&str> {
    let path = name.strip_suffix('/').unwrap_or(name);
    let fits = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= LONGEST_PART;
    if path.len() > LONGEST_NAME || path.contains(['\\', '\0']) || !path.split('/').all(fits) {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
        return refuse(format!("`{shown}` is no name for a file inside an archive"));
    }
    Ok(path)
}

fn kind_of(name: &str, made: u16, attributes: u32) -> Result<EntryKind> {
    let is_folder = name.ends_with('/');
    let system = made.to_be_bytes()[0];
    let mode = if UNIX.contains(&system) { attributes >> 16 } else { 0 };
    if mode & 0o6000 != 0 {
        return refuse(format!("`{name}` has a set-id bit"));
    }
    match (mode & 0o170_000, is_folder) {
        (0 | 0o040_000, true) => Ok(EntryKind::Folder),
        (0 | 0o100_000, false) => Ok(EntryKind::File { executable: mode & 0o111 != 0 }),
        (0o120_000, false) => Ok(EntryKind::Link),
        _ => refuse(format!("`{name}` is neither a file, a folder nor a link")),
    }
}

/// No name twice, and nothing below a file or a link.
fn check_paths(entries: &[Entry<'_>]) -> Result<()> {
    let mut all: BTreeMap<&str, EntryKind> = BTreeMap::new();
    for entry in entries {
        if all.insert(entry.path, entry.kind).is_some() {
            return refuse(format!("`{}` is in it twice", entry.path));
        }
    }
    let leaves: BTreeSet<&str> =
        all.iter().filter(|(_, kind)| **kind != EntryKind::Folder).map(|(path, _)| *path).collect();
    for path in all.keys() {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(leaf) = above.into_iter().find(|above| leaves.contains(above)) {
            return refuse(format!("`{path}` lies below `{leaf}`, which is no folder"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "archive_tests.rs"]
pub(crate) mod tests;
