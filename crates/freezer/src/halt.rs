//! Whether a process gets CPU. The driver's work is done inside it, so a call on behalf of one that is halted hangs.
//!
//! There are two ways to halt one, and `/proc/PID/stat` shows only the first: a signal stops it, and then its state is `T`;
//! the freezer of cgroup v2 leaves its state as that of any sleeper.

use std::fs;
use std::path::{Path, PathBuf};

/// Whether it was halted, by a signal or by a cgroup above it. What cannot be read halts nobody: then the deadline of the
/// call is what helps.
pub fn is_halted(process: u32) -> bool {
    kip_host::processes::look(process).is_some_and(|process| process.is_stopped()) || is_frozen_by_cgroup(process)
}

/// Whether its cgroup of v2, or one above that, is frozen or was told to be.
fn is_frozen_by_cgroup(process: u32) -> bool {
    let Some(mount) = fs::read_to_string("/proc/self/mounts").ok().and_then(|mounts| mount_point(&mounts)) else {
        return false;
    };
    let Ok(text) = fs::read_to_string(format!("/proc/{process}/cgroup")) else { return false };
    own_folder(&mount, &text).is_some_and(|folder| is_frozen(&mount, &folder))
}

/// `cgroup.events` counts those above as well, but only when all processes have come to rest. One that was told to rest and
/// does not yet would be caught in the midst of a call, so what was asked for counts too.
fn is_frozen(mount: &Path, folder: &Path) -> bool {
    let holds = |file: PathBuf, wanted: &str| {
        fs::read_to_string(file).is_ok_and(|text| text.lines().any(|line| line.trim() == wanted))
    };
    holds(folder.join("cgroup.events"), "frozen 1")
        || folder
            .ancestors()
            .take_while(|above| above.starts_with(mount))
            .any(|above| holds(above.join("cgroup.freeze"), "1"))
}

fn mount_point(mounts: &str) -> Option<PathBuf> {
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    line.split(' ').nth(1).map(PathBuf::from)
}

/// The folder of what `/proc/PID/cgroup` says. A cgroup outside of this namespace (`/..`) is not to be seen from here.
fn own_folder(mount: &Path, text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let is_outside = path.split('/').any(|part| part == "..");
    // The kernel appends this to a cgroup that was removed with the process in it.
    (!is_outside).then(|| mount.join(path.trim_end_matches(" (deleted)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_found_beside_those_of_v1() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let mount = mount_point(mounts).unwrap();
        assert_eq!(mount, Path::new("/sys/fs/cgroup/unified"));
        let text = "6:freezer:/x\n0::/a/b\n";
        assert_eq!(own_folder(&mount, text).unwrap(), Path::new("/sys/fs/cgroup/unified/a/b"));
        assert_eq!(own_folder(&mount, "0::/\n").unwrap(), Path::new("/sys/fs/cgroup/unified/"));
        assert_eq!(own_folder(&mount, "0::/../other\n"), None);
        assert_eq!(own_folder(&mount, "6:freezer:/x\n"), None);
    }

    #[test]
    fn frozen_is_who_rests_and_who_was_told_to_by_anybody_above() {
        let mount = tempfile::tempdir().unwrap();
        let folder = mount.path().join("above/below");
        fs::create_dir_all(&folder).unwrap();
        let write = |file: &str, text: &str| fs::write(mount.path().join(file), text).unwrap();
        assert!(!is_frozen(mount.path(), &folder));
        write("above/below/cgroup.events", "populated 1\nfrozen 0\n");
        write("above/below/cgroup.freeze", "0\n");
        write("above/cgroup.freeze", "0\n");
        assert!(!is_frozen(mount.path(), &folder));
        write("above/cgroup.freeze", "1\n");
        assert!(is_frozen(mount.path(), &folder));
        write("above/cgroup.freeze", "0\n");
        write("above/below/cgroup.events", "populated 1\nfrozen 1\n");
        assert!(is_frozen(mount.path(), &folder));
    }

    #[test]
    fn who_asks_is_not_halted() {
        assert!(!is_halted(std::process::id()) && !is_halted(u32::MAX));
    }
}
