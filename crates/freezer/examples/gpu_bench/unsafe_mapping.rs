//! A file mapped into memory, as engines map their weights.
#![expect(unsafe_code, reason = "a mapping is memory that somebody else could change")]

use std::fs::File;
use std::path::Path;

use anyhow::Result;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The mapping of a file that this process has just written and nobody else knows.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: *mut std::ffi::c_void,
    bytes: usize,
}

impl Mapping {
    /// Writes a file and maps it.
    pub(crate) fn of_file(path: &Path, content: &[u8]) -> Result<Self> {
        std::fs::write(path, content)?;
        let file = File::open(path)?;
        let bytes = content.len();
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
