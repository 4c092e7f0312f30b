//! A cgroup of v2 for one process, as a platform that freezes by cgroup makes them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How long a freeze may take until all threads rest.
const LIMIT_MS: u64 = 10_000;

/// The cgroup; when it is dropped its process is thawed, goes back where it was, and the cgroup is removed.
#[derive(Debug)]
pub(crate) struct Group {
    folder: PathBuf,
    /// Where its process was.
    before: PathBuf,
}

impl Group {
    /// Makes one and moves a process into it.
    ///
    /// # Errors
    /// In words, why there is none.
    pub(crate) fn around(process: u32) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let mount = mount.and_then(|line| line.split(' ').nth(1)).ok_or("no cgroup v2 tree is mounted")?;
        let own = fs::read_to_string(format!("/proc/{process}/cgroup")).map_err(|error| error.to_string())?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("it is in no cgroup v2")?;
        let before = Path::new(mount).join(own);
        // Below the root with root's rights, beside one's own cgroup without.
        let parents = [Some(Path::new(mount)), before.parent()];
        let mut why = String::new();
        for parent in parents.into_iter().flatten().filter(|parent| parent.starts_with(mount)) {
            let group = Self { folder: parent.join(format!("gpu-bench-{process}")), before: before.clone() };
            match group.enter(process) {
                Ok(()) => return Ok(group),
                Err(error) => why = format!("no cgroup can be made in {}: {error}", parent.display()),
            }
        }
        Err(why)
    }

    fn enter(&self, process: u32) -> io::Result<()> {
        fs::create_dir(&self.folder)?;
        if !self.folder.join("cgroup.freeze").exists() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel cannot freeze by cgroup"));
        }
        fs::write(self.folder.join("cgroup.procs"), process.to_string())
    }

    /// Freezes it and waits until all of it rests.
    ///
    /// # Errors
    /// When the kernel refuses, or does not come to an end.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.freeze"), "1")?;
        let end = kip_host::clock::boot_millis() + LIMIT_MS;
        while !fs::read_to_string(self.folder.join("cgroup.events"))?.lines().any(|line| line == "frozen 1") {
            if kip_host::clock::boot_millis() > end {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.freeze"), "0")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.thaw();
        for process in fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(self.before.join("cgroup.procs"), process);
        }
        let _ = fs::remove_dir(&self.folder);
    }
}
