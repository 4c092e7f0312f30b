//! Where an instance's output goes: one file a stream, which the instance writes by itself, so that nothing is lost while
//! no server runs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kip_spec::InstanceId;

/// An instance's two log files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFiles {
    /// Standard output.
    pub stdout: PathBuf,
    /// Standard error.
    pub stderr: PathBuf,
}

impl LogFiles {
    /// Their places: `<logs>/<function>/<instance>.out` and `.err`.
    pub fn of(logs: &Path, function: &str, instance: InstanceId) -> Self {
        let file = |extension: &str| logs.join(function).join(format!("{instance}.{extension}"));
        Self { stdout: file("out"), stderr: file("err") }
    }

    /// Opens both for appending.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(&self) -> io::Result<(File, File)> {
        if let Some(folder) = self.stdout.parent() {
            kip_host::directory::create_private(folder)?;
            forget_oldest(folder);
        }
        let open = |path: &Path| OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        Ok((open(&self.stdout)?, open(&self.stderr)?))
    }

    /// The last lines of standard error, or of standard output if that is empty.
    pub fn last_lines(&self, most: usize) -> Vec<String> {
        let lines = tail(&self.stderr, most);
        if lines.is_empty() { tail(&self.stdout, most) } else { lines }
    }
}

/// Log files of one function that are kept, two an instance.
const KEPT: usize = 60;

/// Removes the oldest files of a function beyond the kept ones, so that a crash loop cannot fill the disk with files.
fn forget_oldest(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<(std::time::SystemTime, PathBuf)> =
        entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    files.sort();
    let too_many = files.len().saturating_sub(KEPT);
    for (_, file) in files.into_iter().take(too_many) {
        let _ = std::fs::remove_file(file);
    }
}

fn tail(path: &Path, most: usize) -> Vec<String> {
    const WINDOW: u64 = 16 << 10;
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.take(WINDOW).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(most)..].iter().map(|line| (*line).to_owned()).collect()
}
