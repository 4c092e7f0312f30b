//! What can be seen of an instance's processes from outside: memory and CPU they use, and where they stand.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use kip_spec::InstanceId;

use super::{Process, cgroup, limits};

/// Threads that are looked at; more say the same again.
const MOST_THREADS: usize = 64;
/// Lines of one thread's kernel stack.
const MOST_FRAMES: usize = 12;

/// Bytes of memory that instances use: what their cgroup counts, without file pages that can be dropped; else the sum over their
/// processes, each shared page divided by the number of those that share it.
pub(crate) fn memory_of(instances: &[Arc<Process>]) -> HashMap<InstanceId, u64> {
    let counted = |process: &Arc<Process>| {
        let journal = process.journal.lock();
        Some((process.id, limits::memory(&journal.cgroups())?))
    };
    let mut used: HashMap<InstanceId, u64> = instances.iter().filter_map(counted).collect();
    let left: Vec<Arc<Process>> = instances.iter().filter(|process| !used.contains_key(&process.id)).cloned().collect();
    if !left.is_empty() {
        let sum = |members: Vec<u32>| members.into_iter().filter_map(proportional).sum();
        used.extend(members_of(&left).into_iter().map(|(id, members)| (id, sum(members))));
    }
    used
}

/// The most bytes of memory that instances ever used, where that is counted.
pub(crate) fn peak_memory_of(instances: &[Arc<Process>]) -> HashMap<InstanceId, u64> {
    let peak = |process: &Arc<Process>| {
        let journal = process.journal.lock();
        Some((process.id, limits::peak_memory(&journal.cgroups())?))
    };
    instances.iter().filter_map(peak).collect()
}

/// Nanoseconds of CPU time that instances used since they were started: all of it where they have a cgroup; else that
/// of the processes there are, and of their children that have ended.
pub(crate) fn cpu_of(instances: &[Arc<Process>]) -> HashMap<InstanceId, u64> {
    let counted =
        instances.iter().filter_map(|process| Some((process.id, cgroup::cpu_time(process.cgroup.as_deref()?)?)));
    let mut used: HashMap<InstanceId, u64> = counted.collect();
    let left: Vec<Arc<Process>> = instances.iter().filter(|process| !used.contains_key(&process.id)).cloned().collect();
    if !left.is_empty() {
        let sum = |members: Vec<u32>| members.into_iter().filter_map(kip_host::usage::cpu_of_process).sum();
        used.extend(members_of(&left).into_iter().map(|(id, members)| (id, sum(members))));
    }
    used
}

/// The processes of instances. Without cgroups one look at `/proc` serves for all of them.
pub(crate) fn members_of(instances: &[Arc<Process>]) -> HashMap<InstanceId, Vec<u32>> {
    let by_group = match instances.iter().any(|process| process.cgroup.is_none()) {
        true => kip_host::sockets::processes_by_group(),
        false => std::collections::BTreeMap::new(),
    };
    let members = |process: &Process| match &process.cgroup {
        Some(_) => process.members(),
        None if process.leads_group => by_group.get(&process.pid).cloned().unwrap_or_default(),
        None => Vec::new(),
    };
    instances.iter().map(|process| (process.id, members(process))).collect()
}

/// Where the threads of processes stand: name, state and, as far as we may see them, the kernel's function they wait
/// in and its stack.
pub(crate) fn stacks(members: &[u32]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = MOST_THREADS;
    for member in members {
        let mut threads: Vec<u32> = fs::read_dir(format!("/proc/{member}/task"))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        threads.sort_unstable();
        for thread in threads {
            if left == 0 {
                lines.push("more threads are not shown".to_owned());
                return lines;
            }
            left -= 1;
            lines.extend(stack(*member, thread));
        }
    }
    lines
}

fn stack(process: u32, thread: u32) -> Vec<String> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{process}/task/{thread}/{file}")).unwrap_or_default();
    let status = read("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    let mut line = format!("process {process} thread {thread} ({}): {}", field("Name:"), field("State:"));
    let waits_in = read("wchan");
    if !matches!(waits_in.trim(), "" | "0") {
        line.push_str(&format!(", in {}", waits_in.trim()));
    }
    let frames = read("stack");
    let frames = frames.lines().take(MOST_FRAMES).map(|frame| format!("    {}", frame.trim()));
    std::iter::once(line).chain(frames).collect()
}

/// Bytes of a process, its part of shared pages; where the kernel does not tell, all of its resident ones. None of one that has
/// ended.
fn proportional(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).or_else(|| resident(process))
}

/// Resident bytes of a process; none of one that has ended.
fn resident(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_and_threads_can_be_seen() {
        let own = std::process::id();
        assert!(resident(own).unwrap() > 100_000);
        let part = proportional(own).unwrap();
        assert!(part > 50_000 && part <= resident(own).unwrap() + (4 << 20), "{part} {:?}", resident(own));
        let lines = stack(own, own);
        assert!(lines[0].contains(&format!("thread {own} (")), "{lines:?}");
        assert_eq!(resident(u32::MAX), None);
    }
}
