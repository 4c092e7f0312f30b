//! cgroup v2 as far as the host gives it: freezing and killing need no controller, so they work beside v1 as well.
//! Each feature is looked for, not inferred from a version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Makes this server's folder in a writable cgroup v2 tree that can freeze and kill.
///
/// # Errors
/// In words, why there is none.
pub(crate) fn prepare(server: &str) -> Result<PathBuf, String> {
    let mount = mount_point().ok_or_else(|| "no cgroup v2 tree is mounted".to_owned())?;
    let name = format!("kipwake-{server}");
    // Never below our own cgroup: instances must outlive the server's unit. Our parent is next best without root.
    let beside = own_cgroup().and_then(|own| Some(mount.join(own.parent()?.strip_prefix("/").ok()?)));
    let mut reasons = Vec::new();
    for parent in std::iter::once(mount.clone()).chain(beside.filter(|path| *path != mount)) {
        let folder = parent.join(&name);
        match usable(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => reasons.push(format!("{}: {error}", folder.display())),
        }
    }
    Err(reasons.join("; "))
}

fn usable(folder: &Path) -> io::Result<()> {
    create(folder)?;
    let probe = folder.join("probe");
    create(&probe)?;
    let missing = ["cgroup.freeze", "cgroup.kill", "cgroup.events"].iter().find(|file| !probe.join(file).exists());
    fs::remove_dir(&probe)?;
    match missing {
        None => Ok(()),
        Some(file) => {
            let _ = fs::remove_dir(folder);
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("the kernel has no {file}")))
        }
    }
}

/// Makes a cgroup; one that exists is fine.
pub(crate) fn create(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes a cgroup and the empty ones below it. What still has processes stays.
pub(crate) fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// Freezes or thaws. The kernel answers before all processes have stopped; see [`is_frozen`].
pub(crate) fn set_frozen(folder: &Path, frozen: bool) -> io::Result<()> {
    fs::write(folder.join("cgroup.freeze"), if frozen { "1" } else { "0" })
}

/// Whether somebody wants it frozen, be it so yet or not.
pub(crate) fn is_told_to_freeze(folder: &Path) -> bool {
    fs::read_to_string(folder.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
}

/// Whether every process in it has stopped.
pub(crate) fn is_frozen(folder: &Path) -> io::Result<bool> {
    Ok(fs::read_to_string(folder.join("cgroup.events"))?.lines().any(|line| line == "frozen 1"))
}

/// Nanoseconds of CPU time that all processes that were ever in it used. Counted without any controller.
pub(crate) fn cpu_time(folder: &Path) -> Option<u64> {
    let text = fs::read_to_string(folder.join("cpu.stat")).ok()?;
    let micros: u64 = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?;
    Some(micros.saturating_mul(1_000))
}

/// Ends every process in it at once, forks included.
pub(crate) fn kill(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("cgroup.kill"), "1")
}

/// The processes in it and below.
pub(crate) fn processes(folder: &Path) -> Vec<u32> {
    let mut found: Vec<u32> = fs::read_to_string(folder.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(processes(&entry.path()));
        }
    }
    found
}

fn mount_point() -> Option<PathBuf> {
    mount_points().into_iter().next()
}

/// Where trees of v2 are mounted.
pub(super) fn mount_points() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let trees = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2"));
    trees.filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from).collect()
}

fn own_cgroup() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from)
}
