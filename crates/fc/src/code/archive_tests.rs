//! Archives as clients make them, and as nobody should.

use super::*;

/// A file of an archive, as its directory and its local header have it.
#[derive(Clone)]
pub(crate) struct File {
    name: String,
    local_name: Option<String>,
    content: Vec<u8>,
    mode: u32,
    flags: u16,
    method: u16,
    inflated: Option<u32>,
    crc: Option<u32>,
}

impl File {
    pub(crate) fn new(name: &str, content: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            local_name: None,
            content: content.to_vec(),
            mode: 0o100_644,
            flags: 0,
            method: STORED,
            inflated: None,
            crc: None,
        }
    }

    fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }
}

/// The archive of these files.
pub(crate) fn zip(files: &[File]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for file in files {
        let mut crc = Crc::new();
        crc.update(&file.content);
        let crc = file.crc.unwrap_or_else(|| crc.sum());
        let data = match file.method {
            DEFLATED => {
                let mut data = Vec::new();
                let mut deflater =
                    flate2::read::DeflateEncoder::new(file.content.as_slice(), flate2::Compression::best());
                deflater.read_to_end(&mut data).unwrap();
                data
            }
            _ => file.content.clone(),
        };
        let packed = u32::try_from(data.len()).unwrap();
        let inflated = file.inflated.unwrap_or_else(|| u32::try_from(file.content.len()).unwrap());
        let offset = u32::try_from(archive.len()).unwrap();
        let local_name = file.local_name.as_ref().unwrap_or(&file.name);
        let length = |text: &str| u16::try_from(text.len()).unwrap();
        let mut put = |bytes: &[u8]| archive.extend_from_slice(bytes);
        put(&LOCAL.to_le_bytes());
        [20, file.flags, file.method, 0, 0].iter().for_each(|field: &u16| put(&field.to_le_bytes()));
        [crc, packed, inflated].iter().for_each(|field| put(&field.to_le_bytes()));
        [length(local_name), 0].iter().for_each(|field| put(&field.to_le_bytes()));
        put(local_name.as_bytes());
        put(&data);
        let mut put = |bytes: &[u8]| directory.extend_from_slice(bytes);
        put(&CENTRAL.to_le_bytes());
        [0x0314, 20, file.flags, file.method, 0, 0].iter().for_each(|field: &u16| put(&field.to_le_bytes()));
        [crc, packed, inflated].iter().for_each(|field| put(&field.to_le_bytes()));
        [length(&file.name), 0, 0, 0, 0].iter().for_each(|field| put(&field.to_le_bytes()));
        [file.mode << 16, offset].iter().for_each(|field| put(&field.to_le_bytes()));
        put(file.name.as_bytes());
    }
    let begin = u32::try_from(archive.len()).unwrap();
    let count = u16::try_from(files.len()).unwrap();
    archive.extend_from_slice(&directory);
    archive.extend_from_slice(&END.to_le_bytes());
    [0, 0, count, count].iter().for_each(|field| archive.extend_from_slice(&field.to_le_bytes()));
    let length = u32::try_from(directory.len()).unwrap();
    [length, begin].iter().for_each(|field| archive.extend_from_slice(&field.to_le_bytes()));
    archive.extend_from_slice(&[0, 0]);
    archive
}

fn unpacked(files: &[File]) -> std::result::Result<tempfile::TempDir, String> {
    let folder = tempfile::tempdir().unwrap();
    unpack(&zip(files), folder.path()).map(|()| folder).map_err(|ArchiveError(what)| what)
}

#[test]
fn files_folders_and_links_that_stay_inside_are_unpacked() {
    let deflated = File { method: DEFLATED, ..File::new("deep/er/text", &b"abc".repeat(10_000)) };
    let folder = unpacked(&[
        File::new("bootstrap", b"#!/bin/sh\n").mode(0),
        File::new("run", b"x").mode(0o100_755),
        File::new("empty/", b"").mode(0o040_755),
        deflated,
        File::new("deep/link", b"../run").mode(0o120_777),
        File::new("deep/er/near", b"text").mode(0o120_777),
    ])
    .unwrap();
    let at = |path: &str| folder.path().join(path);
    assert_eq!(fs::read(at("deep/er/near")).unwrap().len(), 30_000);
    assert_eq!(fs::read(at("deep/link")).unwrap(), b"x");
    let mode = |path: &str| fs::metadata(at(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("bootstrap"), mode("run"), mode("deep/er/text"), mode("deep")), (0o755, 0o755, 0o644, 0o755));
    assert!(at("empty").is_dir());
}

#[test]
fn hostile_archives_are_refused() {
    let plain = || File::new("a", b"content");
    let rows: Vec<(&str, Vec<File>)> = vec![
        ("above", vec![File::new("../a", b"x")]),
        ("absolute", vec![File::new("/etc/passwd", b"x")]),
        ("above within", vec![File::new("a/../../b", b"x")]),
        ("backslash", vec![File::new("..\\a", b"x")]),
        ("empty part", vec![File::new("a//b", b"x")]),
        ("too long", vec![File::new(&"a/".repeat(600), b"")]),
        ("twice", vec![plain(), plain()]),
        ("folder and file", vec![plain(), File::new("a/", b"").mode(0o040_755)]),
        ("below a file", vec![plain(), File::new("a/b", b"x")]),
        ("below a link", vec![File::new("l", b"d").mode(0o120_777), File::new("l/x", b"x")]),
        ("link above", vec![File::new("d/l", b"../../x").mode(0o120_777)]),
        ("absolute link", vec![File::new("l", b"/etc").mode(0o120_777)]),
        ("link through a link", vec![File::new("p/q/r/u", b"../s/../../x").mode(0o120_777)]),
        ("empty link", vec![File::new("l", b"").mode(0o120_777)]),
        ("set-id", vec![plain().mode(0o104_755)]),
        ("device", vec![plain().mode(0o060_644)]),
        ("pipe", vec![plain().mode(0o010_644)]),
        ("encrypted", vec![File { flags: 1, ..plain() }]),
        ("other method", vec![File { method: 12, ..plain() }]),
        ("other name", vec![File { local_name: Some("b".to_owned()), ..plain() }]),
        ("other checksum", vec![File { crc: Some(7), ..plain() }]),
        ("longer than it says", vec![File { inflated: Some(3), method: DEFLATED, ..plain() }]),
        ("shorter than it says", vec![File { inflated: Some(9), method: DEFLATED, ..plain() }]),
        ("folder with content", vec![File::new("a/", b"x").mode(0o040_755)]),
    ];
    for (what, files) in rows {
        assert!(unpacked(&files).is_err(), "{what}");
    }
    assert!(unpacked(&[plain()]).is_ok(), "what the rows change is all that is wrong with them");
}

#[test]
fn no_beginning_and_no_changed_byte_is_taken_for_the_whole() {
    let whole = zip(&[File::new("a", b"content"), File { method: DEFLATED, ..File::new("b/c", b"more content") }]);
    for end in 0..whole.len() {
        let folder = tempfile::tempdir().unwrap();
        assert!(unpack(&whole[..end], folder.path()).is_err(), "{end}");
    }
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[place] ^= 1 << bit;
            let folder = tempfile::tempdir().unwrap();
            // Times, versions and modes may change; nothing may panic or leave the folder.
            let _ = unpack(&changed, folder.path());
        }
    }
    let mut followed = whole;
    followed.push(0);
    assert!(read(&followed).is_err());
}

#[test]
fn entries_that_share_bytes_are_refused() {
    let archive = zip(&[File::new("a", b"content"), File::new("b", b"content")]);
    // The second entry of the directory is pointed at the first one's data, which has its name too.
    let first = zip(&[File::new("a", b"content")]);
    let directory = archive.windows(4).position(|four| four == CENTRAL.to_le_bytes()).unwrap();
    let second = directory + CENTRAL_LENGTH + 1;
    let mut doubled = archive;
    doubled[second + 42..second + 46].copy_from_slice(&[0; 4]);
    doubled[second + CENTRAL_LENGTH] = b'a';
    assert!(read(&doubled).is_err());
    assert!(read(&first).is_ok());
}
