//! Memory as engines have it: files mapped, as they map their weights, and pages of no file, advised on how to be.
#![expect(unsafe_code, reason = "a mapping is memory that somebody else could change")]

use std::ffi::c_void;
use std::fs::File;
use std::path::Path;

use anyhow::Result;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// The mapping of a file that is written by nobody any more.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: *mut c_void,
    bytes: usize,
}

impl Mapping {
    /// Writes a file and maps it.
    pub(crate) fn of_file(path: &Path, content: &[u8]) -> Result<Self> {
        std::fs::write(path, content)?;
        Self::open(path, content.len())
    }

    /// Maps a file that the caller's side has written.
    pub(crate) fn open(path: &Path, bytes: usize) -> Result<Self> {
        let file = File::open(path)?;
        // SAFETY: a new mapping at an address of the kernel's choosing touches no memory that is in use.
        let address = unsafe { mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::PRIVATE, &file, 0)? };
        Ok(Self { address, bytes })
    }

    /// Its content.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes are mapped and readable until this is dropped. The file is written by nobody any more.
        unsafe { std::slice::from_raw_parts(self.address.cast::<u8>(), self.bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and no borrow of its bytes outlives it.
        let _ = unsafe { munmap(self.address, self.bytes) };
    }
}

/// Pages of no file.
#[derive(Debug)]
pub(crate) struct Pages {
    address: *mut c_void,
    bytes: usize,
}

impl Pages {
    /// So many bytes of them, none there yet.
    pub(crate) fn map(bytes: usize) -> Result<Self> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choosing touches no memory that is in use.
        let address = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, rights, MapFlags::PRIVATE)? };
        Ok(Self { address, bytes })
    }

    /// Whether they are to be huge, or of the usual size whatever the host prefers.
    pub(crate) fn huge(&mut self, huge: bool) -> std::io::Result<()> {
        self.advise(if huge { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage })
    }

    /// Has the kernel make all of them at once.
    pub(crate) fn populate(&mut self) -> std::io::Result<()> {
        self.advise(Advice::LinuxPopulateWrite)
    }

    fn advise(&mut self, advice: Advice) -> std::io::Result<()> {
        // SAFETY: the range is this mapping, and none of the advices that are given here changes content.
        unsafe { madvise(self.address, self.bytes, advice)? };
        Ok(())
    }

    /// Their content, zeroes at first.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes are mapped, readable and writable, until this is dropped, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast::<u8>(), self.bytes) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and no borrow of its bytes outlives it.
        let _ = unsafe { munmap(self.address, self.bytes) };
    }
}
