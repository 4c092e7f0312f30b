//! Which pages of a file are in the page cache.
#![expect(unsafe_code, reason = "mincore has no safe wrapper")]

use std::fs::File;
use std::io;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes that are looked at in one mapping.
pub(crate) const WINDOW: u64 = 64 << 20;

/// Bytes of a part of a file that are in the page cache. `at` is a multiple of the page, and the part lies in the file.
///
/// # Errors
/// When the file cannot be mapped, or the kernel does not say it to this user (the file is another's).
pub(crate) fn resident(file: &File, at: u64, length: u64) -> io::Result<u64> {
    let page = rustix::param::page_size();
    let bytes = usize::try_from(length.min(WINDOW)).map_err(io::Error::other)?;
    if bytes == 0 {
        return Ok(0);
    }
    let mut pages = vec![0_u8; bytes.div_ceil(page)];
    // SAFETY: a new mapping at an address of the kernel's choice. Nothing is read or written through it, so that a file that gets shorter
    // does no harm; it is unmapped below, whole, and its address does not leave this function. `pages` has a byte for each of its pages.
    let looked = unsafe {
        let address = mmap(ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, file, at)?;
        let looked = match libc::mincore(address, bytes, pages.as_mut_ptr().cast()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        munmap(address, bytes)?;
        looked
    };
    looked?;
    let there = pages.iter().filter(|page| **page & 1 == 1).count();
    Ok((there.saturating_mul(page) as u64).min(length))
}
