//! The code of a function as a ZIP archive: the same files make the same bytes, so that code that did not change is not sent again.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use kip_serverless::{CodeSource, DeclaredFunction};
use kip_spec::{Problem, code};

/// Bytes of an archive that the API takes.
const LARGEST: usize = 100 << 20;
/// Files and folders at most, as the server has it.
const MOST_ENTRIES: usize = 50_000;
/// Folders of tools, which no program needs.
const LEFT_OUT: [&str; 4] = [".git", ".s", TOOL, ".kipwake"];
/// The folder of Fun, and what of it belongs to the code: installed dependencies.
const TOOL: &str = ".fun";
const DEPENDENCIES: [&str; 2] = ["python", "root"];
/// The file of patterns that are left out.
const IGNORE: &str = ".fcignore";

const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// Made by Unix, version 2.0.
const MADE_BY: u16 = 3 << 8 | 20;
/// The first day of the format: no file has a time here.
const DATE: u16 = 0x21;

/// An archive and its checksum.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) bytes: Vec<u8>,
    pub(crate) checksum: String,
}

/// The archive of a function's code; none for an image.
pub(crate) fn of(function: &DeclaredFunction) -> anyhow::Result<Option<Archive>> {
    let Some(source) = &function.code else { return Ok(None) };
    made(&format!("the code of {}", function.name), source).map(Some)
}

/// The archive of a folder, a file or an archive. `what` names it in errors.
pub(crate) fn made(what: &str, source: &CodeSource) -> anyhow::Result<Archive> {
    let bytes = read(source)?;
    if bytes.len() > LARGEST {
        let size = bytes.len() >> 20;
        let message = format!("{what} has {size} MiB as an archive; 100 MiB are taken");
        return Err(problem(source, message)
            .hint(format!("leave large files out by a line in {IGNORE}; put them on a share: `NasConfig: Auto`, PYTHONUSERBASE: /mnt/auto/python, `kip install`, `kip nas sync`"))
            .into());
    }
    let checksum = kip_fc::code_checksum(&bytes);
    Ok(Archive { bytes, checksum })
}

fn problem(source: &CodeSource, message: String) -> Problem {
    Problem::new(code::FILE_CODE, message).place(source.place.clone())
}

fn read(source: &CodeSource) -> anyhow::Result<Vec<u8>> {
    let path = &source.path;
    let missing = |error: std::io::Error| {
        problem(source, format!("the code {} cannot be read", path.display()))
            .cause(error.to_string())
            .hint("paths are relative to the file; build the program first if the folder is its output")
    };
    let metadata = fs::metadata(path).map_err(missing)?;
    if metadata.is_file() {
        let is_archive = path.extension().is_some_and(|end| end == "zip" || end == "jar");
        if is_archive {
            return Ok(fs::read(path).map_err(missing)?);
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut writer = Writer::default();
        writer.file(&name, path).map_err(missing)?;
        return Ok(writer.finish());
    }
    let ignored = Ignored::read(path);
    let mut paths = Vec::new();
    collect(path, Path::new(""), &ignored, &mut paths).map_err(missing)?;
    if paths.is_empty() {
        let said = problem(source, format!("the folder {} of the code is empty", path.display()));
        return Err(said.hint("put the program there, or name another folder").into());
    }
    if paths.len() > MOST_ENTRIES {
        let message = format!("the folder {} has more than {MOST_ENTRIES} files", path.display());
        return Err(problem(source, message).hint(format!("leave some out by lines in {IGNORE}")).into());
    }
    paths.sort();
    let mut writer = Writer::default();
    for relative in &paths {
        let name = relative.to_string_lossy();
        let whole = path.join(relative);
        if fs::symlink_metadata(&whole).map_err(missing)?.is_symlink() {
            writer.link(&name, &whole).map_err(missing)?;
        } else {
            writer.file(&name, &whole).map_err(missing)?;
        }
    }
    Ok(writer.finish())
}

/// Files and links below a folder, by their relative paths.
fn collect(root: &Path, below: &Path, ignored: &Ignored, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let relative = below.join(entry.file_name());
        let kind = entry.file_type()?;
        let is_tool = kind.is_dir() && LEFT_OUT.iter().any(|name| entry.file_name() == *name);
        if kind.is_dir() && relative == Path::new(TOOL) {
            for name in DEPENDENCIES.iter().filter(|name| root.join(TOOL).join(name).is_dir()) {
                collect(root, &relative.join(name), ignored, paths)?;
            }
        }
        if is_tool || ignored.has(&relative, kind.is_dir()) {
            continue;
        }
        if kind.is_dir() {
            collect(root, &relative, ignored, paths)?;
        } else if kind.is_file() || kind.is_symlink() {
            paths.push(relative);
        }
    }
    Ok(())
}

/// The patterns of `.fcignore`: a name, `*.pyc`, `folder/`, `/path`.
#[derive(Debug, Default)]
struct Ignored(Vec<String>);

impl Ignored {
    fn read(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join(IGNORE)).unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
        Self(lines.map(str::to_owned).chain([IGNORE.to_owned()]).collect())
    }

    fn has(&self, path: &Path, is_folder: bool) -> bool {
        let whole = path.to_string_lossy();
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        self.0.iter().any(|line| {
            let (pattern, folders_only) = line.strip_suffix('/').map_or((line.as_str(), false), |line| (line, true));
            let anchored = pattern.trim_start_matches("./").trim_start_matches('/');
            let subject = if pattern.contains('/') { whole.as_ref() } else { name.as_ref() };
            (is_folder || !folders_only) && fits(anchored, subject)
        })
    }
}

/// Whether a text fits a pattern with `*`, which is any text.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            let after = after.trim_start_matches('*');
            let Some(rest) = text.strip_prefix(before) else { return false };
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| fits(after, &rest[at..]))
        }
    }
}

/// Writes entries and their directory.
#[derive(Debug, Default)]
struct Writer {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    count: u16,
}

impl Writer {
    fn file(&mut self, name: &str, path: &Path) -> std::io::Result<()> {
        let data = fs::read(path)?;
        let is_executable = fs::metadata(path)?.permissions().mode() & 0o111 != 0;
        self.entry(name, &data, if is_executable { 0o100_755 } else { 0o100_644 })
    }

    fn link(&mut self, name: &str, path: &Path) -> std::io::Result<()> {
        let target = fs::read_link(path)?;
        self.entry(name, target.to_string_lossy().as_bytes(), 0o120_777)
    }

    fn entry(&mut self, name: &str, data: &[u8], mode: u32) -> std::io::Result<()> {
        let too_large =
            || std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("{name} is larger than 4 GiB"));
        let mut crc = Crc::new();
        crc.update(data);
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(data)?;
        let deflated = encoder.finish()?;
        let (method, content) =
            if deflated.len() < data.len() { (DEFLATED, deflated.as_slice()) } else { (STORED, data) };
        let size = |length: usize| u32::try_from(length).map_err(|_| too_large());
        let mut shared = Vec::new();
        // Flag 11: the name is in UTF-8.
        for word in [20u16, 1 << 11, method, 0, DATE] {
            shared.extend_from_slice(&word.to_le_bytes());
        }
        for word in [crc.sum(), size(content.len())?, size(data.len())?] {
            shared.extend_from_slice(&word.to_le_bytes());
        }
        let length = u16::try_from(name.len()).map_err(|_| too_large())?;
        shared.extend_from_slice(&length.to_le_bytes());
        shared.extend_from_slice(&0u16.to_le_bytes());
        let begin = size(self.bytes.len())?;
        self.bytes.extend_from_slice(&0x0403_4b50u32.to_le_bytes());
        self.bytes.extend_from_slice(&shared);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(content);
        self.directory.extend_from_slice(&0x0201_4b50u32.to_le_bytes());
        self.directory.extend_from_slice(&MADE_BY.to_le_bytes());
        self.directory.extend_from_slice(&shared);
        // No remark, the first disk, no internal attributes.
        self.directory.extend_from_slice(&[0; 6]);
        self.directory.extend_from_slice(&(mode << 16).to_le_bytes());
        self.directory.extend_from_slice(&begin.to_le_bytes());
        self.directory.extend_from_slice(name.as_bytes());
        self.count += 1;
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        let begin = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(self.directory.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&self.directory);
        self.bytes.extend_from_slice(&0x0605_4b50u32.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&self.count.to_le_bytes());
        self.bytes.extend_from_slice(&self.count.to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&begin.to_le_bytes());
        self.bytes.extend_from_slice(&0u16.to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use kip_spec::problem::Place;

    use super::*;

    #[test]
    fn the_same_files_make_the_same_bytes_and_patterns_leave_files_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        fs::create_dir_all(path.join("a/.git")).unwrap();
        for name in ["a/x.py", "a/x.pyc", "a/.git/config", "big.bin", ".fcignore", "b.txt"] {
            fs::write(path.join(name), name.repeat(40)).unwrap();
        }
        fs::write(path.join(".fcignore"), "*.pyc\n# remark\n/big.bin\n").unwrap();
        std::os::unix::fs::symlink("b.txt", path.join("link")).unwrap();
        let place = Place { file: "s.yaml".to_owned(), line: 1, column: 1, text: None };
        let source = CodeSource { path: path.clone(), from: None, place };
        let first = read(&source).unwrap();
        fs::write(path.join("b.txt"), "b.txt".repeat(40)).unwrap();
        assert_eq!(read(&source).unwrap(), first);
        let text = String::from_utf8_lossy(&first);
        for (name, is_there) in
            [("a/x.py", true), ("a/x.pyc", false), ("config", false), ("big", false), ("link", true)]
        {
            assert_eq!(text.contains(name), is_there, "{name}");
        }
        let missing = CodeSource { path: path.join("none"), ..source };
        assert!(read(&missing).is_err());
    }

    #[test]
    fn patterns() {
        assert!(fits("*.py", "a.py") && fits("a*b", "aXb") && fits("**", "x") && !fits("*.py", "a.pyc"));
    }
}
