//! Processes as `/proc` shows them: who a process id stands for, and since when.

use std::fs;

/// What `/proc/<id>/stat` says, as far as we need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// `R`, `S`, `D`, `T` (stopped), `Z` (ended, not waited for) and others.
    pub state: char,
    /// Its process group.
    pub group: u32,
    /// When it was started, in the kernel's ticks since boot. Together with the id it names one process for ever: an id
    /// may be given again, but not within one tick.
    pub started: u64,
}

impl Process {
    /// Whether it gets no CPU because somebody stopped it.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }

    /// Whether it has ended and nobody has waited for it.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// When it was started, in boot-time milliseconds.
    pub fn born(&self) -> u64 {
        self.started.saturating_mul(1_000) / rustix::param::clock_ticks_per_second().max(1)
    }
}

/// The process of this id, if there is one.
pub fn look(process: u32) -> Option<Process> {
    parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// The name in the middle is the program's to choose and may hold anything, so fields are counted from its end.
fn parse(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Process {
        state: fields.first()?.chars().next()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.trim().parse().ok()?,
    })
}

/// The variables that a process was started with, as `NAME=value`. None of one that has ended, or that is not ours to read.
pub fn environment(process: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).filter_map(|entry| String::from_utf8(entry.to_vec()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_here_and_were_born_before_now() {
        let own = look(std::process::id()).unwrap();
        assert!(!own.is_stopped() && !own.has_ended());
        assert!(own.born() <= crate::clock::boot_millis());
        assert_eq!(look(u32::MAX), None);
    }

    #[test]
    fn a_name_with_everything_in_it() {
        let stat = "7 (a) b ) (x) T 1 5 5 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 12345 0";
        assert_eq!(parse(stat), Some(Process { state: 'T', group: 5, started: 12_345 }));
    }
}
