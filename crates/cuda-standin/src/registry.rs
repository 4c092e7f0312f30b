//! What the "driver" knows of each process: a file `<pid>` under `processes`, changed under one lock.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::knobs;

/// As `cuCheckpointProcessGetState` counts.
pub(crate) const RUNNING: i32 = 0;
pub(crate) const LOCKED: i32 = 1;
pub(crate) const CHECKPOINTED: i32 = 2;
pub(crate) const FAILED: i32 = 3;

/// A process with a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When it was started, so that another one with its number is not taken for it.
    pub(crate) started: u64,
    pub(crate) state: i32,
    pub(crate) device: u64,
    /// What it holds while it runs.
    pub(crate) bytes: u64,
    /// What of that is on the device now.
    pub(crate) present: u64,
    /// Whether it uses managed memory, which cannot be checkpointed.
    pub(crate) managed: bool,
    /// Whether its content was lost and it has not seen that yet.
    pub(crate) corrupt: bool,
}

impl Entry {
    fn write(&self) -> String {
        format!(
            "{} {} {} {} {} {} {}",
            self.started,
            self.state,
            self.device,
            self.bytes,
            self.present,
            u8::from(self.managed),
            u8::from(self.corrupt)
        )
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        Some(Self {
            started: words.next()?.parse().ok()?,
            state: words.next()?.parse().ok()?,
            device: words.next()?.parse().ok()?,
            bytes: words.next()?.parse().ok()?,
            present: words.next()?.parse().ok()?,
            managed: words.next()? == "1",
            corrupt: words.next()? == "1",
        })
    }
}

/// Does something that no other process does meanwhile.
pub(crate) fn locked<T>(directory: &Path, work: impl FnOnce() -> T) -> T {
    let processes = directory.join("processes");
    if fs::create_dir_all(&processes).is_ok() {
        open_to_all(&processes, 0o777);
    }
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock"));
    open_to_all(&directory.join("lock"), 0o666);
    let held: Option<File> = file.ok().filter(|file| file.lock().is_ok());
    let result = work();
    drop(held);
    result
}

/// Instances are users of their own, and all of them use the device. Who does not own the file finds it open already.
fn open_to_all(path: &Path, mode: u32) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
}

/// A process, if it lives and has a context.
pub(crate) fn get(process: u32) -> Option<Entry> {
    let directory = knobs::directory();
    locked(&directory, || load(&directory, process))
}

/// Changes a process's entry; `None` if it has none.
pub(crate) fn change<T>(process: u32, work: impl FnOnce(&mut Entry) -> T) -> Option<T> {
    let directory = knobs::directory();
    locked(&directory, || {
        let mut entry = load(&directory, process)?;
        let result = work(&mut entry);
        store(&directory, process, &entry);
        Some(result)
    })
}

/// Makes an entry for this process, or adds to the one there is, if the device has room for so much more.
pub(crate) fn add(device: u64, bytes: u64) -> bool {
    let directory = knobs::directory();
    let process = std::process::id();
    locked(&directory, || {
        if used(&directory, device).saturating_add(bytes) > knobs::capacity() {
            return false;
        }
        let started = stat(process).map_or(0, |stat| stat.1);
        let fresh = Entry { started, state: RUNNING, device, bytes: 0, present: 0, managed: false, corrupt: false };
        let mut entry = load(&directory, process).unwrap_or(fresh);
        entry.bytes += bytes;
        entry.present += bytes;
        store(&directory, process, &entry)
    })
}

/// Brings the bytes of a process back onto its device, if there is room.
pub(crate) fn bring_back(process: u32) -> bool {
    let directory = knobs::directory();
    locked(&directory, || {
        let Some(mut entry) = load(&directory, process) else { return false };
        let others = used(&directory, entry.device) - entry.present;
        if others.saturating_add(entry.bytes) > knobs::capacity() {
            return false;
        }
        entry.present = entry.bytes;
        store(&directory, process, &entry);
        true
    })
}

/// Those that live and have something on a device, with how much.
pub(crate) fn holders(device: u64) -> Vec<(u32, u64)> {
    let directory = knobs::directory();
    locked(&directory, || all(&directory))
        .into_iter()
        .filter(|(_, entry)| entry.device == device && entry.present > 0)
        .map(|(process, entry)| (process, entry.present))
        .collect()
}

/// State and start of a process, from `/proc`.
pub(crate) fn stat(process: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

/// Whether it gets no CPU: stopped by a signal, or frozen by its cgroup of v2, which the state does not show.
pub(crate) fn is_halted(process: u32) -> bool {
    if stat(process).is_some_and(|(state, _)| state == 'T') {
        return true;
    }
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    // Alone, or beside hierarchies of v1.
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].iter().any(|mount| {
        let events = fs::read_to_string(Path::new(mount).join(own).join("cgroup.events"));
        events.is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
    })
}

fn used(directory: &Path, device: u64) -> u64 {
    all(directory).iter().filter(|(_, entry)| entry.device == device).map(|(_, entry)| entry.present).sum()
}

fn all(directory: &Path) -> Vec<(u32, Entry)> {
    let entries = fs::read_dir(directory.join("processes")).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut all: Vec<(u32, Entry)> = numbers.filter_map(|process| Some((process, load(directory, process)?))).collect();
    all.sort_by_key(|(process, _)| *process);
    all
}

fn load(directory: &Path, process: u32) -> Option<Entry> {
    let text = fs::read_to_string(directory.join("processes").join(process.to_string())).ok()?;
    let entry = Entry::read(&text)?;
    let (state, started) = stat(process)?;
    (started == entry.started && !matches!(state, 'Z' | 'X')).then_some(entry)
}

/// False where the entry cannot be written: then the process has none.
fn store(directory: &Path, process: u32, entry: &Entry) -> bool {
    fs::write(directory.join("processes").join(process.to_string()), entry.write()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let entry = Entry { started: 9, state: LOCKED, device: 1, bytes: 7, present: 3, managed: true, corrupt: false };
        assert_eq!(Entry::read(&entry.write()), Some(entry));
        assert_eq!(Entry::read("9 1"), None);
    }

    #[test]
    fn a_process_that_is_not_the_one_has_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("processes")).unwrap();
        let own = std::process::id();
        let mut entry = Entry {
            started: stat(own).unwrap().1,
            state: RUNNING,
            device: 0,
            bytes: 1,
            present: 1,
            managed: false,
            corrupt: false,
        };
        store(folder.path(), own, &entry);
        assert_eq!(used(folder.path(), 0), 1);
        entry.started += 1;
        store(folder.path(), own, &entry);
        assert_eq!(used(folder.path(), 0), 0);
    }
}
