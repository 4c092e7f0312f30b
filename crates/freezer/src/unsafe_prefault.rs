//! Having all memory of one's own at hand before something needs it: for the probe process.
#![expect(unsafe_code, reason = "the kernel is told something of memory that others use")]

use std::fs;

use rustix::mm::{Advice, MlockAllFlags, madvise, mlockall, munlockall};

/// Brings every page of this process's own memory in, and says of how many bytes. What cannot be is left as it is: it
/// would be brought in when it is needed.
pub(crate) fn populate() -> u64 {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let room = kip_host::usage::available_memory().unwrap_or(0);
    let mut sum = 0;
    for (begin, end) in maps.lines().filter_map(own_memory) {
        let bytes = end - begin;
        // An address range that was set aside and never used would fill the host.
        if sum + bytes as u64 > room {
            continue;
        }
        // SAFETY: this advice changes no content and takes nothing away; of a range that is gone meanwhile the kernel says so.
        if unsafe { madvise(begin as *mut _, bytes, Advice::LinuxPopulateWrite) }.is_ok() {
            sum += bytes as u64;
        }
    }
    sum
}

/// Keeps all memory that there is now from being taken, or lets it go again. Whether that was allowed.
pub(crate) fn lock(held: bool) -> bool {
    if held { mlockall(MlockAllFlags::CURRENT).is_ok() } else { munlockall().is_ok() }
}

/// The range of a line of `maps`, if it is private, writable and of no file: those of a device must be left alone.
fn own_memory(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (range, rights, _, _, inode) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    if !(rights.starts_with("rw") && rights.ends_with('p')) || inode != "0" || words.next() == Some("[stack]") {
        return None;
    }
    let (begin, end) = range.split_once('-')?;
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    Some((number(begin)?, number(end)?)).filter(|(begin, end)| begin < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_brought_in() {
        assert_eq!(own_memory("1000-3000 rw-p 00000000 00:00 0 "), Some((0x1000, 0x3000)));
        assert_eq!(own_memory("1000-3000 rw-p 00000000 00:00 0 [heap]"), Some((0x1000, 0x3000)));
        for other in [
            "1000-3000 r--p 00000000 00:00 0",
            "1000-3000 ---p 00000000 00:00 0",
            "1000-3000 rw-s 00000000 00:05 0",
            "1000-3000 rw-p 00000000 00:05 77 /dev/nvidia0",
            "1000-3000 rw-p 00000000 00:00 0 [stack]",
            "",
        ] {
            assert_eq!(own_memory(other), None, "{other}");
        }
        assert!(populate() > 0);
    }
}
