//! Limits on memory and CPU, where the host lends us the controllers: cgroup v2's beside freezing, or the hierarchies of
//! v1. Each is looked for by itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cgroup;
use crate::body::Order;

/// The period over which a share of CPU is counted out, in microseconds.
const PERIOD: u64 = 100_000;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
}

impl Controller {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
        }
    }

    /// A file that its v1 hierarchy has.
    const fn file(self) -> &'static str {
        match self {
            Self::Memory => "memory.limit_in_bytes",
            Self::Cpu => "cpu.cfs_quota_us",
        }
    }
}

/// Where a controller of ours is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In the tree in which we freeze.
    Unified,
    /// In a v1 hierarchy, with our folder there.
    Own(PathBuf),
}

/// What can be limited on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    memory: Option<Place>,
    cpu: Option<Place>,
}

/// The limits of one instance.
#[derive(Debug, Default)]
pub(crate) struct AppliedLimits {
    /// Folders beside the one in which it is frozen.
    pub(crate) folders: Vec<PathBuf>,
    /// Its memory limit in bytes, where one is enforced.
    pub(crate) memory: Option<u64>,
}

impl Limits {
    /// Looks for controllers. `unified` is our folder in the v2 tree.
    pub(crate) fn find(server: &str, unified: Option<&Path>) -> Self {
        let place = |controller: Controller| {
            let here = unified.is_some_and(|folder| delegated(folder, controller));
            if here { Some(Place::Unified) } else { own_hierarchy(server, controller).map(Place::Own) }
        };
        Self { memory: place(Controller::Memory), cpu: place(Controller::Cpu) }
    }

    /// What cannot be limited, in words; none if all can.
    pub(crate) fn missing(&self) -> Option<String> {
        let missing: Vec<&str> = [(&self.memory, "resources.memory"), (&self.cpu, "resources.cpu")]
            .into_iter()
            .filter_map(|(place, name)| place.is_none().then_some(name))
            .collect();
        let names = missing.join(" and ");
        (!missing.is_empty()).then(|| format!("{names} cannot be enforced: the host lends no cgroup controller for it"))
    }

    /// Makes the folders of an instance and writes its limits. `unified` is its folder in the v2 tree.
    pub(crate) fn apply(&self, order: &Order, unified: Option<&Path>) -> io::Result<AppliedLimits> {
        let mut applied = AppliedLimits::default();
        let mut folder = |place: &Place| -> io::Result<Option<PathBuf>> {
            match place {
                Place::Unified => Ok(unified.map(Path::to_owned)),
                Place::Own(root) => {
                    let folder = root.join(order.instance.to_string());
                    cgroup::create(&folder)?;
                    applied.folders.push(folder.clone());
                    Ok(Some(folder))
                }
            }
        };
        let memory = match (&self.memory, order.memory) {
            (Some(place), Some(limit)) => folder(place)?.map(|folder| (folder, limit.0)),
            _ => None,
        };
        let cpu = match (&self.cpu, order.cpu) {
            (Some(place), Some(share)) => folder(place)?.map(|folder| (folder, share.0)),
            _ => None,
        };
        if let Some((folder, limit)) = memory {
            write_first(&folder, &[("memory.max", limit.to_string()), ("memory.limit_in_bytes", limit.to_string())])?;
            // Else it would crawl instead of failing; and all of it ends, not just one of its processes.
            for (file, value) in [("memory.swap.max", "0"), ("memory.swappiness", "0"), ("memory.oom.group", "1")] {
                let _ = fs::write(folder.join(file), value);
            }
            applied.memory = Some(limit);
        }
        if let Some((folder, share)) = cpu {
            let quota = (share * (PERIOD / 1_000)).max(1_000);
            write_first(&folder, &[("cpu.max", format!("{quota} {PERIOD}")), ("cpu.cfs_quota_us", quota.to_string())])?;
        }
        Ok(applied)
    }

    /// Removes what was made for all instances.
    pub(crate) fn clean_up(&self) {
        for place in [&self.memory, &self.cpu].into_iter().flatten() {
            if let Place::Own(folder) = place {
                cgroup::remove(folder);
            }
        }
    }
}

/// How often the kernel ended processes of these cgroups because they were at their memory limit.
pub(crate) fn out_of_memory(folders: &[&Path]) -> u64 {
    let count = |folder: &&Path| {
        let text = fs::read_to_string(folder.join("memory.events"))
            .or_else(|_| fs::read_to_string(folder.join("memory.oom_control")))
            .ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
    };
    folders.iter().filter_map(count).sum()
}

/// Sets the memory limit of those of these cgroups that have one. What has none gets none. How many were set.
pub(crate) fn set_memory(folders: &[&Path], bytes: u64) -> io::Result<usize> {
    /// From here on a limit of v1 is none.
    const NONE: u64 = 1 << 62;
    let mut set = 0;
    for (folder, file) in folders.iter().flat_map(|folder| [(folder, "memory.max"), (folder, "memory.limit_in_bytes")])
    {
        let path = folder.join(file);
        let limit = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        if limit.is_some_and(|limit| limit < NONE) {
            fs::write(&path, bytes.to_string())?;
            set += 1;
        }
    }
    Ok(set)
}

/// Memory that one of these cgroups uses, in bytes, without file pages that the kernel can drop; none where it is not counted.
pub(crate) fn memory(folders: &[&Path]) -> Option<u64> {
    let used = |folder: &&Path| {
        let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let all = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
        let statistics = read("memory.stat").unwrap_or_default();
        let field = |name: &str| {
            let mut lines = statistics.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(key, _)| *key == name).and_then(|(_, value)| value.trim().parse::<u64>().ok())
        };
        let droppable = field("total_inactive_file").or_else(|| field("inactive_file")).unwrap_or(0);
        Some(all.saturating_sub(droppable))
    };
    folders.iter().find_map(used)
}

/// The most memory that these cgroups ever used, in bytes.
pub(crate) fn peak_memory(folders: &[&Path]) -> Option<u64> {
    let peak = |folder: &&Path| {
        let read = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok();
        read("memory.peak").or_else(|| read("memory.max_usage_in_bytes"))
    };
    folders.iter().find_map(peak)
}

/// Writes the first of these files that is there.
fn write_first(folder: &Path, files: &[(&str, String)]) -> io::Result<()> {
    match files.iter().find(|(file, _)| folder.join(file).exists()) {
        Some((file, value)) => fs::write(folder.join(file), value),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Whether instances' cgroups below this one have the controller; it is switched on if need be and possible.
fn delegated(folder: &Path, controller: Controller) -> bool {
    let add = format!("+{}", controller.name());
    let switch_on = |folder: &Path| fs::write(folder.join("cgroup.subtree_control"), &add).is_ok();
    let has = |folder: &Path, file: &str| {
        fs::read_to_string(folder.join(file)).is_ok_and(|text| text.split_whitespace().any(|n| n == controller.name()))
    };
    if !has(folder, "cgroup.controllers") {
        let Some(parent) = folder.parent().filter(|parent| has(parent, "cgroup.controllers")) else { return false };
        if !switch_on(parent) {
            return false;
        }
    }
    switch_on(folder) && has(folder, "cgroup.subtree_control")
}

/// Our folder in a v1 hierarchy. Beside our own cgroup, so that limits of what we run in hold for instances as well, and
/// never below it, so that they outlive us.
fn own_hierarchy(server: &str, controller: Controller) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let options = fields.get(3)?.split(',').any(|option| option == controller.name());
        (*fields.get(2)? == "cgroup" && options).then(|| PathBuf::from(fields[1]))
    })?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        controllers.split(',').any(|name| name == controller.name()).then(|| fields.next())?
    })?;
    let parent = Path::new(own).parent().unwrap_or_else(|| Path::new("/"));
    let beside = mount.join(parent.strip_prefix("/").ok()?);
    [beside, mount].into_iter().find_map(|parent| {
        let folder = parent.join(format!("kipwake-{server}"));
        cgroup::create(&folder).ok()?;
        folder.join(controller.file()).exists().then_some(folder)
    })
}
