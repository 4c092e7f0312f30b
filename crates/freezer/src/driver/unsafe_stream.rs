//! Copies in both directions at once: for the benchmark, never for the helper.
#![expect(unsafe_code, reason = "a foreign library is called, and memory of its own is read and written")]

use std::ffi::{c_int, c_uint, c_void};

use super::code::CallFailure;
use super::unsafe_memory::{Buffer, Context, check, function};

type StreamCreate = unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int;
type OnStream = unsafe extern "C" fn(*mut c_void) -> c_int;
type ToDevice = unsafe extern "C" fn(u64, *const c_void, usize, *mut c_void) -> c_int;
type ToHost = unsafe extern "C" fn(*mut c_void, u64, usize, *mut c_void) -> c_int;

/// `CU_STREAM_NON_BLOCKING`: it does not wait for the default stream.
const NON_BLOCKING: c_uint = 1;

/// Two streams, one for each direction.
#[derive(Debug)]
pub struct Duplex {
    to_device: Stream,
    to_host: Stream,
}

/// Work on the device that is done in its order.
#[derive(Debug)]
struct Stream {
    library: &'static libloading::Library,
    stream: *mut c_void,
}

impl Context {
    /// Makes both streams.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn duplex(&self) -> Result<Duplex, CallFailure> {
        Ok(Duplex { to_device: Stream::create(self.library)?, to_host: Stream::create(self.library)? })
    }
}

impl Duplex {
    /// Copies into one buffer and out of another, at once if the memory of the host is pinned, and waits for both.
    ///
    /// # Errors
    /// When the driver refuses, and when either would not fit.
    pub fn copy(&self, to: &Buffer, from: &[u8], source: &Buffer, into: &mut [u8]) -> Result<(), CallFailure> {
        let (up, down) = ("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2");
        let to = to.address_of(0, from.len(), up)?;
        let source = source.address_of(0, into.len(), down)?;
        let library = self.to_device.library;
        // Everything is looked up first: once a copy goes on, nothing but the wait for it may end this.
        // SAFETY: the types are those of `cuda.h`.
        let (start_up, start_down, wait) = unsafe {
            let wait = function::<OnStream>(library, "cuStreamSynchronize")?;
            (function::<ToDevice>(library, up)?, function::<ToHost>(library, down)?, wait)
        };
        // SAFETY: the slices are borrowed until both streams were waited for below, which is done whatever these answer;
        // the addresses of the device were found to be in their buffers.
        let (up_code, down_code, waited) = unsafe {
            let up_code = start_up(to, from.as_ptr().cast(), from.len(), self.to_device.stream);
            let down_code = start_down(into.as_mut_ptr().cast(), source, into.len(), self.to_host.stream);
            (up_code, down_code, [wait(self.to_device.stream), wait(self.to_host.stream)])
        };
        check(up, up_code)?;
        check(down, down_code)?;
        waited.iter().try_for_each(|code| check("cuStreamSynchronize", *code))
    }
}

impl Stream {
    fn create(library: &'static libloading::Library) -> Result<Self, CallFailure> {
        let mut stream = std::ptr::null_mut();
        let name = "cuStreamCreate";
        // SAFETY: the type is that of `cuda.h`, and the pointer is good for the call.
        check(name, unsafe { function::<StreamCreate>(library, name)?(&raw mut stream, NON_BLOCKING) })?;
        Ok(Self { library, stream })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the type is that of `cuda.h`, and the stream came from the driver and is given back once.
        unsafe {
            if let Ok(destroy) = function::<OnStream>(self.library, "cuStreamDestroy_v2") {
                destroy(self.stream);
            }
        }
    }
}
