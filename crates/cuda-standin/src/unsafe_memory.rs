//! Contexts, memory and copies, as `libcuda` exports them. Whoever is locked or checkpointed waits in them, as with the
//! real driver.
#![expect(unsafe_code, reason = "symbols are exported under the names of another library, and memory is handed out")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;

use std::time::Duration;

use parking_lot::Mutex;

use crate::knobs::{self, Effect};
use crate::registry::{self, RUNNING};
use crate::unsafe_device::{is_initialized, put};
use crate::{DONE, INVALID_VALUE, NOT_INITIALIZED, OUT_OF_MEMORY};

/// Addresses that were handed out, and their sizes.
static HANDED_OUT: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v2(context: Option<&mut usize>, _flags: u32, device: i32) -> i32 {
    if !is_initialized() {
        return NOT_INITIALIZED;
    }
    if let Effect::Code(code) = knobs::before("cuCtxCreate_v2") {
        return code;
    }
    let Ok(device) = u64::try_from(device) else { return INVALID_VALUE };
    if !registry::add(device, knobs::number("context", 64 << 20)) {
        return OUT_OF_MEMORY;
    }
    put(context, 1)
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> i32 {
    wait();
    DONE
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(address: Option<&mut u64>, bytes: usize) -> i32 {
    wait();
    let device = registry::get(std::process::id()).map_or(0, |entry| entry.device);
    if !registry::add(device, bytes as u64) {
        return OUT_OF_MEMORY;
    }
    hand_out(bytes).map_or(OUT_OF_MEMORY, |found| put(address, found as u64))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocManaged(address: Option<&mut u64>, bytes: usize, _flags: u32) -> i32 {
    let code = cuMemAlloc_v2(address, bytes);
    registry::change(std::process::id(), |entry| entry.managed = true);
    code
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> i32 {
    wait();
    let Some(bytes) = usize::try_from(address).ok().and_then(take_back) else { return INVALID_VALUE };
    registry::change(std::process::id(), |entry| {
        entry.bytes -= bytes as u64;
        entry.present -= bytes as u64;
    });
    DONE
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(address: Option<&mut usize>, bytes: usize) -> i32 {
    hand_out(bytes).map_or(OUT_OF_MEMORY, |found| put(address, found))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(address: Option<&mut usize>, bytes: usize, _flags: u32) -> i32 {
    cuMemAllocHost_v2(address, bytes)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: usize) -> i32 {
    take_back(address).map_or(INVALID_VALUE, |_| DONE)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostRegister_v2(_address: usize, _bytes: usize, _flags: u32) -> i32 {
    DONE
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostUnregister(_address: usize) -> i32 {
    DONE
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const u8, bytes: usize) -> i32 {
    wait();
    copy(from, to as *mut u8, bytes)
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn cuMemcpyDtoH_v2(to: *mut u8, from: u64, bytes: usize) -> i32 {
    wait();
    let source = from as *mut u8;
    let lost = registry::change(std::process::id(), |entry| std::mem::take(&mut entry.corrupt)).unwrap_or(false);
    if lost && bytes > 0 {
        // SAFETY: the caller promises that `bytes` bytes can be read there, and it is memory that was handed out here,
        // so it may be written to as well.
        unsafe { *source ^= 0xff };
    }
    copy(source, to, bytes)
}

fn copy(from: *const u8, to: *mut u8, bytes: usize) -> i32 {
    if from.is_null() || to.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller promises, as it does to the real driver, that both are valid for so many bytes; one of them was
    // handed out here and the other one was not, so they do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
    DONE
}

/// Waits while this process is locked or checkpointed.
fn wait() {
    while registry::get(std::process::id()).is_some_and(|entry| entry.state != RUNNING) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.max(1), 4096).ok()
}

fn hand_out(bytes: usize) -> Option<usize> {
    let layout = layout(bytes)?;
    // SAFETY: the size is not zero.
    let address = unsafe { alloc_zeroed(layout) } as usize;
    if address == 0 {
        return None;
    }
    HANDED_OUT.lock().insert(address, bytes);
    Some(address)
}

fn take_back(address: usize) -> Option<usize> {
    let bytes = HANDED_OUT.lock().remove(&address)?;
    let layout = layout(bytes)?;
    // SAFETY: it was handed out with this layout and is forgotten by now, so it is given back once.
    unsafe { dealloc(address as *mut u8, layout) };
    Some(bytes)
}
