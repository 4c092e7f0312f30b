//! The calls that freeze and wake a process, as `libcuda` exports them.
#![expect(unsafe_code, reason = "symbols are exported under the names of another library")]

use std::thread::sleep;
use std::time::Duration;

use crate::knobs::{self, Effect};
use crate::registry::{self, CHECKPOINTED, FAILED, LOCKED, RUNNING};
use crate::unsafe_device::is_initialized;
use crate::{DONE, ILLEGAL_STATE, INVALID_VALUE, NOT_INITIALIZED, NOT_SUPPORTED, OPERATING_SYSTEM, OUT_OF_MEMORY};

/// The arguments of the calls: 64 bytes, of which only the lock's timeout (at 0) is ever set.
#[repr(C, align(8))]
struct Arguments([u8; 64]);

#[unsafe(no_mangle)]
extern "C" fn cuCheckpointProcessGetState(process: i32, state: Option<&mut i32>) -> i32 {
    answered("cuCheckpointProcessGetState", process, |process| {
        let Some(entry) = registry::get(process) else { return INVALID_VALUE };
        state.map_or(INVALID_VALUE, |state| {
            *state = entry.state;
            DONE
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCheckpointProcessGetRestoreThreadId(process: i32, thread: Option<&mut i32>) -> i32 {
    answered("cuCheckpointProcessGetRestoreThreadId", process, |known| {
        if registry::get(known).is_none() {
            return INVALID_VALUE;
        }
        thread.map_or(INVALID_VALUE, |thread| {
            *thread = process;
            DONE
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCheckpointProcessLock(process: i32, arguments: Option<&Arguments>) -> i32 {
    answered("cuCheckpointProcessLock", process, |process| {
        if !are_clean(arguments, 4) {
            return INVALID_VALUE;
        }
        go(process, RUNNING, LOCKED)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCheckpointProcessCheckpoint(process: i32, arguments: Option<&Arguments>) -> i32 {
    with_effect("cuCheckpointProcessCheckpoint", process, |process, effect| {
        let Some(entry) = registry::get(process).filter(|_| are_clean(arguments, 0)) else { return INVALID_VALUE };
        if entry.state != LOCKED {
            return ILLEGAL_STATE;
        }
        if entry.managed {
            return NOT_SUPPORTED;
        }
        sleep(knobs::moving(entry.present));
        let left = if effect == Effect::Leak { entry.bytes / 2 } else { 0 };
        let done = registry::change(process, |entry| {
            entry.present = left;
            entry.state = CHECKPOINTED;
        });
        done.map_or(INVALID_VALUE, |()| DONE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCheckpointProcessRestore(process: i32, arguments: Option<&Arguments>) -> i32 {
    with_effect("cuCheckpointProcessRestore", process, |process, effect| {
        let Some(entry) = registry::get(process).filter(|_| are_clean(arguments, 0)) else { return INVALID_VALUE };
        if entry.state == FAILED {
            return OPERATING_SYSTEM;
        }
        if entry.state != CHECKPOINTED {
            return ILLEGAL_STATE;
        }
        if !registry::bring_back(process) {
            // As the real one: a process that found no room is lost for good.
            registry::change(process, |entry| entry.state = FAILED);
            return OUT_OF_MEMORY;
        }
        sleep(knobs::moving(entry.bytes));
        let done = registry::change(process, |entry| {
            entry.state = LOCKED;
            entry.corrupt |= effect == Effect::Corrupt;
        });
        done.map_or(INVALID_VALUE, |()| DONE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCheckpointProcessUnlock(process: i32, arguments: Option<&Arguments>) -> i32 {
    answered("cuCheckpointProcessUnlock", process, |process| {
        if !are_clean(arguments, 0) {
            return INVALID_VALUE;
        }
        go(process, LOCKED, RUNNING)
    })
}

fn answered(call: &str, process: i32, work: impl FnOnce(u32) -> i32) -> i32 {
    with_effect(call, process, |process, _| work(process))
}

/// A call on another process: the work is done by a thread inside that, so while it gets no CPU nothing comes back.
fn with_effect(call: &str, process: i32, work: impl FnOnce(u32, Effect) -> i32) -> i32 {
    if !is_initialized() {
        return NOT_INITIALIZED;
    }
    let Ok(process) = u32::try_from(process) else { return INVALID_VALUE };
    let effect = knobs::before(call);
    if let Effect::Code(code) = effect {
        return code;
    }
    while !call.contains("Get") && registry::is_halted(process) {
        sleep(Duration::from_millis(2));
    }
    let code = work(process, effect);
    knobs::after(effect);
    code
}

fn go(process: u32, from: i32, to: i32) -> i32 {
    let went = registry::change(process, |entry| {
        let fits = entry.state == from;
        if fits {
            entry.state = to;
        }
        fits
    });
    match went {
        None => INVALID_VALUE,
        Some(true) => DONE,
        Some(false) => ILLEGAL_STATE,
    }
}

/// Whether all bytes from `from` on are zero, as the driver wants them.
fn are_clean(arguments: Option<&Arguments>, from: usize) -> bool {
    arguments.is_none_or(|arguments| arguments.0.iter().skip(from).all(|byte| *byte == 0))
}
