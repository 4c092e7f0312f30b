//! Host memory of processes that get no CPU: taken out page by page, and read ahead before they go on.
//!
//! Pages of a file go without a copy; those of no file need swap space, whose settings are never changed here. What was freed is
//! read from the processes, never from the result of the call. Pages that others map as well are not counted.

use std::fs;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;

use crate::unsafe_pages::{PageAdvice, advise, open};

/// Less than this is not worth a rung.
const LEAST_FREED: u64 = 4 << 20;
/// Nor is less than this part of what the processes held, in percent.
const LEAST_PART: u64 = 25;

/// What a look before and after found, in bytes of memory that no other process maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpillResult {
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
}

impl SpillResult {
    /// Bytes that were freed.
    pub fn freed(&self) -> u64 {
        self.before.saturating_sub(self.after)
    }

    /// Whether that is enough to call it a rest of its own.
    pub fn is_worth_it(&self) -> bool {
        self.freed() >= LEAST_FREED && self.freed().saturating_mul(100) >= self.before.saturating_mul(LEAST_PART)
    }
}

/// Whether this host lets us take pages of other processes out.
///
/// # Errors
/// Why not, in words.
pub fn is_possible() -> Result<(), &'static str> {
    static FOUND: OnceLock<Result<(), &'static str>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // A list without ranges asks for the right only. The first process is nobody's own.
        let tried = open(1).and_then(|process| advise_nothing(&process));
        tried.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSYS) => "the kernel is older than 5.10",
            _ => "it needs the capabilities CAP_SYS_NICE and CAP_SYS_PTRACE",
        })
    })
}

fn advise_nothing(process: &std::os::fd::OwnedFd) -> io::Result<()> {
    // One empty range: the kernel checks rights before it looks at ranges.
    let nothing = Range { start: 0, end: 0 };
    advise(process, std::slice::from_ref(&nothing), PageAdvice::Out)
}

/// Takes the pages of paused processes out.
///
/// # Errors
/// When the kernel does not let us, or a process is gone.
pub fn pages_out(processes: &[u32]) -> io::Result<SpillResult> {
    let before = held(processes);
    for process in processes {
        advise(&open(*process)?, &ranges(*process), PageAdvice::Out)?;
    }
    Ok(SpillResult { before, after: held(processes) })
}

/// Asks the kernel to read the pages of processes ahead. What it cannot is read when it is needed.
pub fn pages_in(processes: &[u32]) {
    for process in processes {
        let _ = open(*process).and_then(|handle| advise(&handle, &ranges(*process), PageAdvice::Soon));
    }
}

/// Bytes in memory that no other process maps.
fn held(processes: &[u32]) -> u64 {
    let of = |process: &u32| {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1_024
        };
        field("Private_Clean:") + field("Private_Dirty:")
    };
    processes.iter().map(of).sum()
}

/// The private ranges of a process. Those of devices are left alone.
fn ranges(process: u32) -> Vec<Range<u64>> {
    let text = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    text.lines().filter_map(range).collect()
}

fn range(line: &str) -> Option<Range<u64>> {
    let mut words = line.split_whitespace();
    let (range, rights, _, _, inode) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let name = words.next().unwrap_or_default();
    let special = name.starts_with("/dev/") || matches!(name, "[vdso]" | "[vvar]" | "[vvar_vclock]" | "[vsyscall]");
    if special || rights == "---p" || (inode == "0" && !rights.ends_with('p')) {
        return None;
    }
    let (begin, end) = range.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    Some(number(begin)?..number(end)?).filter(|range| range.start < range.end)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn memory_of_devices_and_of_the_kernel_is_left_alone() {
        assert_eq!(range("1000-3000 rw-p 00000000 00:00 0 [heap]"), Some(0x1000..0x3000));
        assert_eq!(range("1000-3000 r--p 00000000 fe:00 12 /models/a.gguf"), Some(0x1000..0x3000));
        assert_eq!(range("1000-3000 r--s 00000000 fe:00 12 /models/a.gguf"), Some(0x1000..0x3000));
        for other in [
            "1000-3000 rw-s 00000000 00:05 9 /dev/nvidia0",
            "1000-3000 ---p 00000000 00:00 0 ",
            "1000-3000 r-xp 00000000 00:00 0 [vdso]",
            "3000-1000 rw-p 00000000 00:00 0 ",
        ] {
            assert_eq!(range(other), None, "{other}");
        }
    }

    #[test]
    fn a_little_is_not_worth_a_rung() {
        let result = |before: u64, after: u64| SpillResult { before: before << 20, after: after << 20 };
        assert!(result(100, 50).is_worth_it());
        assert!(!result(100, 80).is_worth_it());
        assert!(!result(6, 3).is_worth_it());
        assert!(!result(10, 12).is_worth_it());
    }

    /// The file of a stopped process leaves memory and comes back, with the same content.
    #[test]
    fn pages_of_a_file_go_and_come_back() {
        if let Err(why) = is_possible() {
            println!("skipped: pages of other processes cannot be taken out here: {why}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights");
        fs::write(&file, vec![7u8; 32 << 20]).unwrap();
        // Pages that are not written to the disk yet cannot go.
        fs::File::open(&file).unwrap().sync_all().unwrap();
        let program = format!(
            "import mmap,os,sys\nf=open({:?},'rb')\nm=mmap.mmap(f.fileno(),0,mmap.MAP_PRIVATE,mmap.PROT_READ)\n\
             s=sum(m[i] for i in range(0,len(m),4096));print(s,flush=True)\nsys.stdin.readline()\n\
             print(sum(m[i] for i in range(0,len(m),4096)),flush=True)",
            file.to_str().unwrap()
        );
        let mut child = Command::new("python3")
            .args(["-c", &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = io::BufRead::lines(io::BufReader::new(child.stdout.take().unwrap()));
        let first = lines.next().unwrap().unwrap();
        let spilled = pages_out(&[child.id()]).unwrap();
        assert!(spilled.freed() >= 24 << 20, "{spilled:?}");
        assert!(spilled.is_worth_it(), "{spilled:?}");
        pages_in(&[child.id()]);
        io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), first);
        child.wait().unwrap();
    }
}
