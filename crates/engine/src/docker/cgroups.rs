//! The cgroups of a container whose processes are processes of this host: what it uses is read there, which costs microseconds,
//! where the engine's own statistics cost tens of milliseconds.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::process::{cgroup, limits};

/// The folders of a container's cgroups, one a hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    /// Those of a process, if they are the container's own. A process id of another machine means somebody else here.
    pub(super) fn of(process: u32, container: &str) -> Option<Self> {
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let folders = parse(&groups, &mounts, container);
        (!folders.is_empty()).then_some(Self(folders))
    }

    fn paths(&self) -> Vec<&Path> {
        self.0.iter().map(PathBuf::as_path).collect()
    }

    /// Bytes of memory in use, without file pages that the kernel can drop.
    pub(super) fn memory(&self) -> Option<u64> {
        limits::memory(&self.paths())
    }

    /// The most bytes of memory that were ever in use.
    pub(super) fn peak_memory(&self) -> Option<u64> {
        limits::peak_memory(&self.paths())
    }

    /// Sets its memory limit, if it has one. An engine that is asked sets its own notes as well, and takes tens of milliseconds.
    pub(super) fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        limits::set_memory(&self.paths(), bytes).map(drop)
    }

    /// How often the kernel ended processes of it at its memory limit.
    pub(super) fn out_of_memory(&self) -> u64 {
        limits::out_of_memory(&self.paths())
    }

    /// Nanoseconds of CPU time since its start.
    pub(super) fn cpu(&self) -> Option<u64> {
        let v1 = |folder: &PathBuf| fs::read_to_string(folder.join("cpuacct.usage")).ok()?.trim().parse().ok();
        self.0.iter().find_map(|folder| cgroup::cpu_time(folder).or_else(|| v1(folder)))
    }

    /// All of its processes.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.0.iter().map(|folder| cgroup::processes(folder)).find(|found| !found.is_empty()).unwrap_or_default()
    }
}

/// The folders of the hierarchies in which a process is in a cgroup that bears the container's id.
fn parse(groups: &str, mounts: &str, container: &str) -> Vec<PathBuf> {
    let mount_of = |controllers: &str| {
        mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let (path, kind, options) = (fields.get(1)?, fields.get(2)?, fields.get(3)?);
            let fits = match controllers {
                "" => *kind == "cgroup2",
                some => {
                    *kind == "cgroup" && some.split(',').all(|name| options.split(',').any(|option| option == name))
                }
            };
            fits.then(|| PathBuf::from(path))
        })
    };
    let folder = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        if !path.contains(container) {
            return None;
        }
        // An init system in the container may have made groups below its own.
        let end = path.find(container)? + container.len();
        let own = path[end..].find('/').map_or(path, |slash| &path[..end + slash]);
        Some(mount_of(controllers)?.join(own.trim_start_matches('/')))
    };
    groups.lines().filter_map(folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_both_versions_are_found_if_they_are_the_containers_own() {
        let mounts = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /c/cpu cgroup rw,cpu,cpuacct 0 0\n";
        let groups = "4:cpu,cpuacct:/docker/ab12\n3:memory:/docker/ab12\n0::/\n";
        assert_eq!(
            parse(groups, mounts, "ab12"),
            [PathBuf::from("/c/cpu/docker/ab12"), "/sys/fs/cgroup/memory/docker/ab12".into()]
        );
        let unified = "0::/system.slice/docker-ab12.scope/init\n";
        assert_eq!(
            parse(unified, mounts, "ab12"),
            [PathBuf::from("/sys/fs/cgroup/unified/system.slice/docker-ab12.scope")]
        );
        assert_eq!(parse(groups, mounts, "cd34"), Vec::<PathBuf>::new());
    }
}
