//! Taking memory from another process, as a platform does with one that is frozen.
#![expect(unsafe_code, reason = "the call is one of the kernel's that no crate wraps")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// At most this much in a call: the kernel takes no more than 2 GiB.
const PIECE: usize = 1 << 30;

/// Has the kernel write out and give back a range of a process's memory. The process cannot tell, but by the time it takes.
pub(crate) fn page_out(process: BorrowedFd<'_>, begin: usize, bytes: usize) -> io::Result<()> {
    let (mut at, end) = (begin, begin + bytes);
    while at < end {
        let piece = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: PIECE.min(end - at) };
        // SAFETY: the descriptor is borrowed and the vector lives for the call. The range is one of the other process; the
        // advice takes pages away only when their content can be had again.
        let done = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                process.as_raw_fd(),
                &raw const piece,
                1usize,
                libc::MADV_PAGEOUT,
                0u32,
            )
        };
        match usize::try_from(done) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(done) => at += done,
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}
