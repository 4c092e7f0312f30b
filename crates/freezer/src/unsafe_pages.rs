//! Advice to the kernel about the memory of other processes.
#![expect(unsafe_code, reason = "the system call has no safe wrapper")]

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What the kernel is advised to do with pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageAdvice {
    /// Take them out: to their file, or to the swap space.
    Out,
    /// They will be needed soon.
    Soon,
}

/// Ranges that one call takes.
const MOST_RANGES: usize = 512;

/// A process, by a handle that no other process can come to bear.
pub(crate) fn open(process: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Gives the advice for ranges of addresses of a process. What the kernel refuses for a range, such as one that is locked, is left out.
///
/// # Errors
/// When the kernel does not take such advice from us: EPERM without CAP_SYS_NICE, ENOSYS before Linux 5.10.
pub(crate) fn advise(process: &OwnedFd, ranges: &[Range<u64>], advice: PageAdvice) -> io::Result<()> {
    let advice = match advice {
        PageAdvice::Out => libc::MADV_PAGEOUT,
        PageAdvice::Soon => libc::MADV_WILLNEED,
    };
    for ranges in ranges.chunks(MOST_RANGES) {
        let mut left: Vec<libc::iovec> = Vec::with_capacity(ranges.len());
        for range in ranges {
            let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let base = usize::try_from(range.start).unwrap_or(usize::MAX);
            left.push(libc::iovec { iov_base: base as *mut libc::c_void, iov_len: length });
        }
        while !left.is_empty() {
            // SAFETY: the ranges are addresses of the other process, which the kernel checks; nothing of ours is read or written but
            // the list itself, which lives as long as the call. The advice changes no content.
            let done = unsafe {
                libc::syscall(libc::SYS_process_madvise, process.as_raw_fd(), left.as_ptr(), left.len(), advice, 0)
            };
            if done < 0 {
                let error = io::Error::last_os_error();
                if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::ESRCH)) {
                    return Err(error);
                }
                // The first of them cannot be advised: it is locked, or gone meanwhile.
                left.remove(0);
                continue;
            }
            forward(&mut left, usize::try_from(done).unwrap_or(0));
        }
    }
    Ok(())
}

/// Drops what the kernel has done; a range that it stopped in is left out as a whole.
fn forward(left: &mut Vec<libc::iovec>, done: usize) {
    let mut sum = 0usize;
    let whole = left.iter().take_while(|range| {
        sum = sum.saturating_add(range.iov_len);
        sum <= done
    });
    let whole = whole.count();
    left.drain(..(whole.max(1)).min(left.len()));
}
