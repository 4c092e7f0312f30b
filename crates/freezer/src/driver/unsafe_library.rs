//! `libcuda`, opened by name, with the calls that freeze and wake other processes.
#![expect(unsafe_code, reason = "a foreign library is opened and called")]

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::PathBuf;

use kip_host::environment;

use super::code::{Call, CallFailure, Library};
use super::{CUDA_LIBRARY, State};

/// Arguments of the checkpoint calls: 64 bytes in every version so far, of which this room sets the lock's timeout only.
/// The rest must be zero, and is.
#[repr(C, align(8))]
struct Arguments([u8; 64]);

type Init = unsafe extern "C" fn(c_uint) -> c_int;
type Version = unsafe extern "C" fn(*mut c_int) -> c_int;
type Name = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;
/// Process and where to write the answer.
type Ask = unsafe extern "C" fn(c_int, *mut c_int) -> c_int;
/// Process and arguments.
type Act = unsafe extern "C" fn(c_int, *mut Arguments) -> c_int;

/// The driver's library and what was found in it.
#[derive(Debug)]
pub(crate) struct Driver {
    init: Option<Init>,
    version: Option<Version>,
    name: Option<Name>,
    state: Option<Ask>,
    thread: Option<Ask>,
    lock: Option<Act>,
    checkpoint: Option<Act>,
    restore: Option<Act>,
    unlock: Option<Act>,
}

/// Opens a library for good: the driver starts threads, so it must never be closed.
pub(super) fn open(variable: &str, usual: &str) -> Result<&'static libloading::Library, String> {
    let path = environment::read(variable).map_or_else(|| PathBuf::from(usual), PathBuf::from);
    // SAFETY: initialisers of the library run. It is NVIDIA's driver, or what the operator named in its place, and this
    // is a process of its own that has nothing to lose.
    let library = unsafe { libloading::Library::new(&path) }.map_err(|error| error.to_string())?;
    Ok(Box::leak(Box::new(library)))
}

/// A function of a library by its name, if it has that.
///
/// # Safety
/// `F` must be the type of a function of this name.
pub(super) unsafe fn find<F: Copy>(library: &libloading::Library, name: &str) -> Option<F> {
    // SAFETY: the caller's promise.
    unsafe { library.get::<F>(name) }.ok().map(|symbol| *symbol)
}

impl Driver {
    /// Finds the driver. Nothing is initialised yet.
    pub(crate) fn open() -> Result<Self, String> {
        let library = open(environment::CUDA_LIBRARY, CUDA_LIBRARY)?;
        // SAFETY: the types are those of `cuda.h`, the same in every version that has the symbol.
        unsafe {
            Ok(Self {
                init: find(library, Call::Init.symbol()),
                version: find(library, "cuDriverGetVersion"),
                name: find(library, "cuGetErrorName"),
                state: find(library, Call::State.symbol()),
                thread: find(library, Call::RestoreThread.symbol()),
                lock: find(library, Call::Lock.symbol()),
                checkpoint: find(library, Call::Checkpoint.symbol()),
                restore: find(library, Call::Restore.symbol()),
                unlock: find(library, Call::Unlock.symbol()),
            })
        }
    }

    /// Symbols that freezing needs and this driver lacks.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let has = |call: &Call| match call {
            Call::Init => self.init.is_some(),
            Call::State => self.state.is_some(),
            Call::RestoreThread => self.thread.is_some(),
            Call::Lock => self.lock.is_some(),
            Call::Checkpoint => self.checkpoint.is_some(),
            Call::Restore => self.restore.is_some(),
            Call::Unlock => self.unlock.is_some(),
        };
        Call::ALL.into_iter().filter(|call| !has(call)).map(Call::symbol).collect()
    }

    /// Initialises CUDA in this process, without a context: that would take memory of a device.
    pub(crate) fn initialize(&self) -> Result<(), CallFailure> {
        let init = self.init.ok_or_else(|| lacks(Call::Init))?;
        // SAFETY: the type is that of the symbol; the flags must be zero.
        self.check(Call::Init.symbol(), unsafe { init(0) })
    }

    /// The CUDA version of the driver: 13000 is 13.0.
    pub(crate) fn version(&self) -> Option<i32> {
        let mut version = 0;
        // SAFETY: the type is that of the symbol, and the pointer is good for the call.
        (unsafe { self.version?(&raw mut version) } == 0).then_some(version)
    }

    /// How far a process is.
    pub(crate) fn state(&self, process: u32) -> Result<State, CallFailure> {
        self.ask(Call::State, self.state, process).map(State::from)
    }

    /// The thread of a process that does the work when it is restored. Only processes with a context have one.
    pub(crate) fn restore_thread(&self, process: u32) -> Result<i32, CallFailure> {
        self.ask(Call::RestoreThread, self.thread, process)
    }

    /// Locks, checkpoints, restores or unlocks a process. Only a lock can be told to give up.
    pub(crate) fn act(&self, call: Call, process: u32, timeout_ms: u32) -> Result<(), CallFailure> {
        let act = match call {
            Call::Lock => self.lock,
            Call::Checkpoint => self.checkpoint,
            Call::Restore => self.restore,
            Call::Unlock => self.unlock,
            Call::Init | Call::State | Call::RestoreThread => None,
        };
        let act = act.ok_or_else(|| lacks(call))?;
        let mut arguments = Arguments([0; 64]);
        if call == Call::Lock {
            arguments.0[..4].copy_from_slice(&timeout_ms.to_ne_bytes());
        }
        // SAFETY: the type is that of the symbol; the arguments are as large as the largest version of the structure,
        // aligned as it is, and live for the call.
        self.check(call.symbol(), unsafe { act(number(process), &raw mut arguments) })
    }

    fn ask(&self, call: Call, function: Option<Ask>, process: u32) -> Result<i32, CallFailure> {
        let function = function.ok_or_else(|| lacks(call))?;
        let mut answer = 0;
        // SAFETY: the type is that of the symbol, and the pointer is good for the call.
        self.check(call.symbol(), unsafe { function(number(process), &raw mut answer) })?;
        Ok(answer)
    }

    fn check(&self, symbol: &str, code: i32) -> Result<(), CallFailure> {
        if code == 0 {
            return Ok(());
        }
        let mut failed = CallFailure::cuda(symbol, code);
        if super::Code(code).name().is_none() {
            failed.named = self.name_of(code);
        }
        Err(failed)
    }

    fn name_of(&self, code: i32) -> Option<String> {
        let mut text = std::ptr::null();
        // SAFETY: the type is that of the symbol, and the pointer is good for the call.
        let known = unsafe { self.name?(code, &raw mut text) } == 0 && !text.is_null();
        // SAFETY: the driver answers with a string of its own that lives as long as the library, which is never closed.
        known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }
}

fn lacks(call: Call) -> CallFailure {
    CallFailure::missing(Library::Cuda, call.symbol())
}

/// A process id as C has it.
fn number(process: u32) -> c_int {
    c_int::try_from(process).unwrap_or(-1)
}
