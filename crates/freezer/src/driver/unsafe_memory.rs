//! A context of one's own, memory on the device, and copies: for the probe process and the benchmark, never for the helper.
#![expect(unsafe_code, reason = "a foreign library is opened and called, and memory of its own is read and written")]

use std::ffi::{c_int, c_uint, c_void};

use kip_host::environment;

use super::CUDA_LIBRARY;
use super::code::{CallFailure, Library};
use super::unsafe_library::{find, open};

type Init = unsafe extern "C" fn(c_uint) -> c_int;
type DeviceGet = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type ContextCreate = unsafe extern "C" fn(*mut *mut c_void, c_uint, c_int) -> c_int;
type Allocate = unsafe extern "C" fn(*mut u64, usize) -> c_int;
type AllocateManaged = unsafe extern "C" fn(*mut u64, usize, c_uint) -> c_int;
type Free = unsafe extern "C" fn(u64) -> c_int;
type AllocateHost = unsafe extern "C" fn(*mut *mut c_void, usize) -> c_int;
type HostAlloc = unsafe extern "C" fn(*mut *mut c_void, usize, c_uint) -> c_int;
type FreeHost = unsafe extern "C" fn(*mut c_void) -> c_int;
type Register = unsafe extern "C" fn(*mut c_void, usize, c_uint) -> c_int;
type ToDevice = unsafe extern "C" fn(u64, *const c_void, usize) -> c_int;
type ToHost = unsafe extern "C" fn(*mut c_void, u64, usize) -> c_int;

/// A context on the first device that this process sees.
#[derive(Debug)]
pub struct Context {
    pub(super) library: &'static libloading::Library,
}

/// Memory on the device; freed with the process, or when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    library: &'static libloading::Library,
    address: u64,
    /// Its size in bytes.
    pub bytes: usize,
}

/// Memory of the host that the device can read by itself.
#[derive(Debug)]
pub struct HostBuffer {
    library: &'static libloading::Library,
    address: *mut u8,
    bytes: usize,
}

impl Context {
    /// Initialises CUDA and makes one.
    ///
    /// # Errors
    /// When there is no driver or no device, or the device has no room.
    pub fn create() -> Result<Self, CallFailure> {
        let library = open(environment::CUDA_LIBRARY, CUDA_LIBRARY)
            .map_err(|_| CallFailure::missing(Library::Cuda, CUDA_LIBRARY))?;
        let (mut device, mut context) = (0, std::ptr::null_mut());
        // SAFETY: the types are those of `cuda.h`, and all pointers are good for their call.
        unsafe {
            check("cuInit", function::<Init>(library, "cuInit")?(0))?;
            check("cuDeviceGet", function::<DeviceGet>(library, "cuDeviceGet")?(&raw mut device, 0))?;
            let name = "cuCtxCreate_v2";
            check(name, function::<ContextCreate>(library, name)?(&raw mut context, 0, device))?;
        }
        Ok(Self { library })
    }

    /// Memory on the device.
    ///
    /// # Errors
    /// When there is not enough.
    pub fn allocate(&self, bytes: usize) -> Result<Buffer, CallFailure> {
        let mut address = 0;
        let name = "cuMemAlloc_v2";
        // SAFETY: the type is that of `cuda.h`, and the pointer is good for the call.
        check(name, unsafe { function::<Allocate>(self.library, name)?(&raw mut address, bytes) })?;
        Ok(Buffer { library: self.library, address, bytes })
    }

    /// Managed memory, which cannot be frozen: for seeing that refused.
    ///
    /// # Errors
    /// When there is not enough.
    pub fn allocate_managed(&self, bytes: usize) -> Result<Buffer, CallFailure> {
        let mut address = 0;
        let name = "cuMemAllocManaged";
        // SAFETY: the type is that of `cuda.h`, and the pointer is good for the call; 1 is the flag for a global attachment.
        check(name, unsafe { function::<AllocateManaged>(self.library, name)?(&raw mut address, bytes, 1) })?;
        Ok(Buffer { library: self.library, address, bytes })
    }

    /// Pinned memory of the host.
    ///
    /// # Errors
    /// When there is not enough.
    pub fn pinned(&self, bytes: usize) -> Result<HostBuffer, CallFailure> {
        let mut address = std::ptr::null_mut();
        let name = "cuMemAllocHost_v2";
        // SAFETY: the type is that of `cuda.h`, and the pointer is good for the call.
        check(name, unsafe { function::<AllocateHost>(self.library, name)?(&raw mut address, bytes) })?;
        Ok(HostBuffer { library: self.library, address: address.cast(), bytes })
    }

    /// Pinned memory of the host by the other call that makes it, for seeing whether that is faster.
    ///
    /// # Errors
    /// When there is not enough.
    pub fn pinned_by_host_alloc(&self, bytes: usize) -> Result<HostBuffer, CallFailure> {
        let mut address = std::ptr::null_mut();
        let name = "cuMemHostAlloc";
        // SAFETY: the type is that of `cuda.h`, and the pointer is good for the call; without flags it is the same memory.
        check(name, unsafe { function::<HostAlloc>(self.library, name)?(&raw mut address, bytes, 0) })?;
        Ok(HostBuffer { library: self.library, address: address.cast(), bytes })
    }

    /// Pins memory that is there already, for as long as the work takes.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn while_registered<T>(&self, memory: &mut [u8], work: impl FnOnce(&mut [u8]) -> T) -> Result<T, CallFailure> {
        let address: *mut c_void = memory.as_mut_ptr().cast();
        let name = "cuMemHostRegister_v2";
        // SAFETY: the type is that of `cuda.h`; the memory is borrowed until it is let go below.
        check(name, unsafe { function::<Register>(self.library, name)?(address, memory.len(), 0) })?;
        let result = work(memory);
        let name = "cuMemHostUnregister";
        // SAFETY: the type is that of `cuda.h`, and the address was registered.
        check(name, unsafe { function::<FreeHost>(self.library, name)?(address) })?;
        Ok(result)
    }
}

impl Buffer {
    /// Copies to the device, from `at` on.
    ///
    /// # Errors
    /// When the driver refuses, and when it would not fit.
    pub fn write(&self, at: usize, from: &[u8]) -> Result<(), CallFailure> {
        let name = "cuMemcpyHtoD_v2";
        let to = self.address_of(at, from.len(), name)?;
        // SAFETY: the type is that of `cuda.h`; the source is a slice, and the destination was found to be in the buffer.
        check(name, unsafe { function::<ToDevice>(self.library, name)?(to, from.as_ptr().cast(), from.len()) })
    }

    /// Copies from the device, from `at` on.
    ///
    /// # Errors
    /// When the driver refuses, and when there is not so much.
    pub fn read(&self, at: usize, to: &mut [u8]) -> Result<(), CallFailure> {
        let name = "cuMemcpyDtoH_v2";
        let from = self.address_of(at, to.len(), name)?;
        // SAFETY: the type is that of `cuda.h`; the destination is a slice, and the source was found to be in the buffer.
        check(name, unsafe { function::<ToHost>(self.library, name)?(to.as_mut_ptr().cast(), from, to.len()) })
    }

    pub(super) fn address_of(&self, at: usize, bytes: usize, name: &str) -> Result<u64, CallFailure> {
        let fits = at.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        if fits { Ok(self.address + at as u64) } else { Err(CallFailure::cuda(name, super::Code::INVALID_VALUE.0)) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the type is that of `cuda.h`, and the address came from the driver and is given back once.
        unsafe {
            if let Ok(free) = function::<Free>(self.library, "cuMemFree_v2") {
                free(self.address);
            }
        }
    }
}

impl HostBuffer {
    /// Its bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the driver handed out so many bytes at this address, they are this buffer's until it is dropped, and the
        // borrow is exclusive. They were never uninitialised: the driver maps zeroed pages.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.bytes) }
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        // SAFETY: the type is that of `cuda.h`, and the address came from the driver and is given back once.
        unsafe {
            if let Ok(free) = function::<FreeHost>(self.library, "cuMemFreeHost") {
                free(self.address.cast());
            }
        }
    }
}

/// # Safety
/// `F` must be the type of a function of this name.
pub(super) unsafe fn function<F: Copy>(library: &libloading::Library, name: &str) -> Result<F, CallFailure> {
    // SAFETY: the caller's promise.
    unsafe { find(library, name) }.ok_or_else(|| CallFailure::missing(Library::Cuda, name))
}

pub(super) fn check(name: &str, code: c_int) -> Result<(), CallFailure> {
    if code == 0 { Ok(()) } else { Err(CallFailure::cuda(name, code)) }
}
