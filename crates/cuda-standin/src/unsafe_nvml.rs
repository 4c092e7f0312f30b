//! What `libnvidia-ml` tells of devices and who holds their memory.
#![expect(unsafe_code, reason = "symbols are exported under the names of another library, and buffers are filled")]

use std::ffi::c_char;

use crate::knobs::{self, Effect};
use crate::registry;
use crate::unsafe_device::put;
use crate::{DONE, INVALID_VALUE};

/// `NVML_ERROR_INVALID_ARGUMENT`.
const INVALID_ARGUMENT: i32 = 2;
/// `NVML_ERROR_INSUFFICIENT_SIZE`.
const INSUFFICIENT_SIZE: i32 = 7;

/// `nvmlMemory_t`.
#[repr(C)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// `nvmlProcessInfo_t` since its second version.
#[repr(C)]
struct Process {
    pid: u32,
    used: u64,
    instances: [u32; 2],
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> i32 {
    match knobs::before("nvmlInit_v2") {
        Effect::Code(code) => code,
        _ => DONE,
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, length: u32) -> i32 {
    write(&knobs::text("driver").unwrap_or_else(|| "580.159.00-standin".to_owned()), text, length)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCount_v2(count: Option<&mut u32>) -> i32 {
    put(count, u32::try_from(knobs::devices()).unwrap_or(0))
}

/// A handle is the device's number and one, for null is none.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: u32, handle: Option<&mut usize>) -> i32 {
    if u64::from(index) < knobs::devices() { put(handle, index as usize + 1) } else { INVALID_ARGUMENT }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetUUID(handle: usize, text: *mut c_char, length: u32) -> i32 {
    write(&format!("GPU-00000000-0000-0000-0000-{:012}", handle.saturating_sub(1)), text, length)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetName(_handle: usize, text: *mut c_char, length: u32) -> i32 {
    write("Stand-in (no GPU)", text, length)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetPersistenceMode(_handle: usize, mode: Option<&mut u32>) -> i32 {
    put(mode, 1)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMigMode(_handle: usize, current: Option<&mut u32>, pending: Option<&mut u32>) -> i32 {
    let mode = u32::try_from(knobs::number("mig", 0)).unwrap_or(0);
    put(pending, mode);
    put(current, mode)
}

/// `nvmlUtilization_t`.
#[repr(C)]
struct Utilization {
    gpu: u32,
    memory: u32,
}

/// Made-up figures, so that what reads them has something to read.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetUtilizationRates(_handle: usize, rates: Option<&mut Utilization>) -> i32 {
    put(rates, Utilization { gpu: 42, memory: 7 })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetPowerUsage(_handle: usize, milliwatts: Option<&mut u32>) -> i32 {
    put(milliwatts, 71_500)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTemperature(_handle: usize, _sensor: u32, degrees: Option<&mut u32>) -> i32 {
    put(degrees, 33)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryInfo(handle: usize, memory: Option<&mut Memory>) -> i32 {
    if let Effect::Code(code) = knobs::before("nvmlDeviceGetMemoryInfo") {
        return code;
    }
    let total = knobs::capacity();
    let used: u64 = registry::holders(handle as u64 - 1).iter().map(|(_, bytes)| bytes).sum();
    put(memory, Memory { total, free: total.saturating_sub(used), used })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    handle: usize,
    count: Option<&mut u32>,
    processes: *mut Process,
) -> i32 {
    if let Effect::Code(code) = knobs::before("nvmlDeviceGetComputeRunningProcesses_v3") {
        return code;
    }
    let Some(count) = count else { return INVALID_ARGUMENT };
    let found = registry::holders(handle as u64 - 1);
    let room = *count as usize;
    *count = u32::try_from(found.len()).unwrap_or(u32::MAX);
    if room < found.len() || (processes.is_null() && !found.is_empty()) {
        return INSUFFICIENT_SIZE;
    }
    for (at, (pid, used)) in found.into_iter().enumerate() {
        // SAFETY: the caller promises room for as many as it said, and there are not more.
        unsafe { processes.add(at).write(Process { pid, used, instances: [u32::MAX; 2] }) };
    }
    DONE
}

fn write(value: &str, text: *mut c_char, length: u32) -> i32 {
    if text.is_null() || value.len() >= length as usize {
        return INVALID_VALUE;
    }
    // SAFETY: the caller promises room for `length` bytes, and there are fewer, with the zero at their end.
    unsafe {
        std::ptr::copy_nonoverlapping(value.as_ptr(), text.cast(), value.len());
        text.add(value.len()).write(0);
    }
    DONE
}
