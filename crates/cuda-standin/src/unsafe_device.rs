//! Versions, devices and names of errors, as `libcuda` exports them.
#![expect(unsafe_code, reason = "symbols are exported under the names of another library")]

use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::knobs::{self, Effect};
use crate::{DONE, INVALID_VALUE, NOT_INITIALIZED};

static INITIALIZED: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: u32) -> i32 {
    if let Effect::Code(code) = knobs::before("cuInit") {
        return code;
    }
    if !INITIALIZED.swap(true, Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(knobs::number("init_ms", 0)));
    }
    DONE
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: Option<&mut i32>) -> i32 {
    put(version, i32::try_from(knobs::number("version", 13_000)).unwrap_or(0))
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(code: i32, name: Option<&mut *const c_char>) -> i32 {
    let text = match code {
        1 => c"CUDA_ERROR_INVALID_VALUE",
        2 => c"CUDA_ERROR_OUT_OF_MEMORY",
        12_345 => c"CUDA_ERROR_OF_THE_STANDIN",
        _ => return INVALID_VALUE,
    };
    put(name, text.as_ptr())
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: Option<&mut i32>) -> i32 {
    if !is_initialized() {
        return NOT_INITIALIZED;
    }
    put(count, i32::try_from(knobs::devices()).unwrap_or(0))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: Option<&mut i32>, ordinal: i32) -> i32 {
    if u64::try_from(ordinal).is_ok_and(|ordinal| ordinal < knobs::devices()) {
        put(device, ordinal)
    } else {
        crate::INVALID_VALUE
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Option<&mut usize>, total: Option<&mut usize>) -> i32 {
    let capacity = knobs::capacity();
    let used: u64 = crate::registry::holders(0).iter().map(|(_, bytes)| bytes).sum();
    put(free, usize::try_from(capacity.saturating_sub(used)).unwrap_or(usize::MAX));
    put(total, usize::try_from(capacity).unwrap_or(usize::MAX))
}

/// Writes an answer where the caller wants it.
pub(crate) fn put<T>(to: Option<&mut T>, value: T) -> i32 {
    to.map_or(INVALID_VALUE, |to| {
        *to = value;
        DONE
    })
}
