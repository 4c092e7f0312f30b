//! What this process uses, as `/proc` shows it.

use std::fs;

/// What this process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU time of all its threads, in seconds.
    pub cpu: f64,
    /// Memory that is resident, in bytes.
    pub resident: u64,
    /// Files and sockets that are open.
    pub files: u64,
}

/// Looks. What cannot be read is 0.
pub fn look() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields are counted from the end of the name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let field = |index: usize| fields.get(index).and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or_default();
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4_096);
    Usage {
        cpu: seconds(field(11).saturating_add(field(12)).saturating_mul(1_000_000_000 / ticks())),
        resident: field(21).saturating_mul(page),
        files: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
    }
}

/// The CPU time, in seconds, of this process's threads whose name begins so.
pub fn cpu_of_threads(beginning: &str) -> f64 {
    let mut nanos: u64 = 0;
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        if !read("comm").starts_with(beginning) {
            continue;
        }
        // Nanoseconds where the kernel counts them, else ticks.
        let counted = read("schedstat").split(' ').next().and_then(|text| text.parse::<u64>().ok());
        nanos = nanos.saturating_add(counted.filter(|nanos| *nanos > 0).unwrap_or_else(|| in_ticks(&read("stat"))));
    }
    seconds(nanos)
}

/// The CPU time, in nanoseconds, of a process and of those of its children that have ended and were waited for.
pub fn cpu_of_process(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(sum_of_ticks(&stat, 4))
}

fn in_ticks(stat: &str) -> u64 {
    sum_of_ticks(stat, 2)
}

/// Of a process itself the first two, of its children the next two.
fn sum_of_ticks(stat: &str, count: usize) -> u64 {
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ')).into_iter().flatten();
    let used: u64 = fields.skip(11).take(count).filter_map(|text| text.parse::<u64>().ok()).sum();
    used.saturating_mul(1_000_000_000 / ticks())
}

fn ticks() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}

/// Bytes of memory that programs can have without others losing theirs, as the kernel estimates; none where it does not say.
pub fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_burns_is_seen() {
        let before = cpu_of_threads("burner");
        let burner = crate::tasks::thread("burner-7", || {
            let end = crate::clock::boot_millis() + 100;
            let mut burned = 0.0;
            while crate::clock::boot_millis() < end {
                std::hint::spin_loop();
                burned = cpu_of_threads("burner");
            }
            burned
        });
        let burned = burner.unwrap().join().unwrap();
        assert!(before == 0.0 && burned > 0.0 && burned < 10.0, "{before} {burned}");
        let usage = look();
        assert!(usage.cpu >= 0.0 && usage.resident > 1 << 16 && usage.files >= 3, "{usage:?}");
        assert_eq!(cpu_of_threads("no such thread"), 0.0);
        assert!(
            cpu_of_process(std::process::id()).is_some_and(|nanos| nanos > 0) && cpu_of_process(u32::MAX).is_none()
        );
    }
}
