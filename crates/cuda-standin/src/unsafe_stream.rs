//! Streams, as `libcuda` exports them. Copies on them are done at once, which is one of the orders that are allowed.
#![expect(unsafe_code, reason = "symbols are exported under the names of another library")]

use crate::DONE;
use crate::unsafe_device::put;
use crate::unsafe_memory::{cuMemcpyDtoH_v2, cuMemcpyHtoD_v2};

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(stream: Option<&mut usize>, _flags: u32) -> i32 {
    put(stream, 1)
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(_stream: usize) -> i32 {
    DONE
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(_stream: usize) -> i32 {
    DONE
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, _stream: usize) -> i32 {
    cuMemcpyHtoD_v2(to, from, bytes)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, _stream: usize) -> i32 {
    cuMemcpyDtoH_v2(to, from, bytes)
}
