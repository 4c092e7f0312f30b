//! `libnvidia-ml`: devices, their memory, and who holds it.
#![expect(unsafe_code, reason = "a foreign library is opened and called")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use kip_host::environment;

use super::NVML_LIBRARY;
use super::code::{CallFailure, Library, NvmlCode};
use super::unsafe_library::{find, open};
use crate::report::{Device, Holder, Load, Memory};

type Device_ = *mut c_void;
type Init = unsafe extern "C" fn() -> c_int;
type Text = unsafe extern "C" fn(*mut c_char, c_uint) -> c_int;
type Count = unsafe extern "C" fn(*mut c_uint) -> c_int;
type ByIndex = unsafe extern "C" fn(c_uint, *mut Device_) -> c_int;
type DeviceText = unsafe extern "C" fn(Device_, *mut c_char, c_uint) -> c_int;
type DeviceNumber = unsafe extern "C" fn(Device_, *mut c_uint) -> c_int;
type DeviceNumbers = unsafe extern "C" fn(Device_, *mut c_uint, *mut c_uint) -> c_int;
type DeviceMemory = unsafe extern "C" fn(Device_, *mut RawMemory) -> c_int;
type DeviceProcesses = unsafe extern "C" fn(Device_, *mut c_uint, *mut RawProcess) -> c_int;

type DeviceUtilization = unsafe extern "C" fn(Device_, *mut RawUtilization) -> c_int;
type DeviceSensor = unsafe extern "C" fn(Device_, c_uint, *mut c_uint) -> c_int;

/// `nvmlUtilization_t`, percent of the last second or less.
#[repr(C)]
#[derive(Default)]
struct RawUtilization {
    gpu: c_uint,
    memory: c_uint,
}

/// `nvmlMemory_t`.
#[repr(C)]
#[derive(Default)]
struct RawMemory {
    total: u64,
    free: u64,
    used: u64,
}

/// `nvmlProcessInfo_t`, the same since the second version of the call.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawProcess {
    pid: c_uint,
    used: u64,
    instances: [c_uint; 2],
}

/// What NVML says of a process whose memory it cannot tell.
const NOT_AVAILABLE: u64 = u64::MAX;

/// NVML, initialised.
#[derive(Debug)]
pub(crate) struct Nvml {
    library: &'static libloading::Library,
}

impl Nvml {
    /// Opens and initialises it.
    pub(crate) fn open() -> Result<Self, String> {
        let library = open(environment::NVML_LIBRARY, NVML_LIBRARY)?;
        let nvml = Self { library };
        // SAFETY: the type is that of `nvml.h`.
        let init = unsafe { nvml.function::<Init>("nvmlInit_v2") }.map_err(|failed| failed.to_string())?;
        // SAFETY: as above.
        check("nvmlInit_v2", unsafe { init() }).map_err(|failed| failed.to_string())?;
        Ok(nvml)
    }

    /// The driver's version, such as 580.159.04.
    pub(crate) fn driver(&self) -> Result<String, CallFailure> {
        let name = "nvmlSystemGetDriverVersion";
        // SAFETY: the type is that of `nvml.h`, and the buffer is as long as it is said to be.
        let function = unsafe { self.function::<Text>(name)? };
        // SAFETY: as above.
        text(name, |buffer, length| unsafe { function(buffer, length) })
    }

    /// All devices, in the order of the bus.
    pub(crate) fn devices(&self) -> Result<Vec<Device>, CallFailure> {
        (0..self.count()?).map(|index| self.device(index)).collect()
    }

    fn count(&self) -> Result<c_uint, CallFailure> {
        let name = "nvmlDeviceGetCount_v2";
        let mut count = 0;
        // SAFETY: the type is that of `nvml.h`, and the pointer is good for the call.
        check(name, unsafe { self.function::<Count>(name)?(&raw mut count) })?;
        Ok(count)
    }

    fn handle(&self, index: c_uint) -> Result<Device_, CallFailure> {
        let name = "nvmlDeviceGetHandleByIndex_v2";
        let mut handle = std::ptr::null_mut();
        // SAFETY: the type is that of `nvml.h`, and the pointer is good for the call.
        check(name, unsafe { self.function::<ByIndex>(name)?(index, &raw mut handle) })?;
        Ok(handle)
    }

    fn device(&self, index: c_uint) -> Result<Device, CallFailure> {
        let handle = self.handle(index)?;
        Ok(Device {
            index,
            uuid: self.device_text("nvmlDeviceGetUUID", handle)?,
            name: self.device_text("nvmlDeviceGetName", handle)?,
            memory: self.memory(handle)?,
            holders: self.holders(handle)?,
            persistence: self.persistence(handle),
            partitioned: self.partitioned(handle).unwrap_or(false),
            load: self.load(handle),
        })
    }

    fn device_text(&self, name: &str, handle: Device_) -> Result<String, CallFailure> {
        // SAFETY: the type is that of `nvml.h` for both calls that are made so.
        let function = unsafe { self.function::<DeviceText>(name)? };
        // SAFETY: the handle is of this library, and the buffer is as long as it is said to be.
        text(name, |buffer, length| unsafe { function(handle, buffer, length) })
    }

    fn memory(&self, handle: Device_) -> Result<Memory, CallFailure> {
        let name = "nvmlDeviceGetMemoryInfo";
        let mut memory = RawMemory::default();
        // SAFETY: the type is that of `nvml.h`, the handle is of this library, the pointer is good for the call.
        check(name, unsafe { self.function::<DeviceMemory>(name)?(handle, &raw mut memory) })?;
        Ok(Memory { total: memory.total, free: memory.free, used: memory.used })
    }

    fn holders(&self, handle: Device_) -> Result<Vec<Holder>, CallFailure> {
        // The third version of the call counts differently, the structure is the second's.
        let names = ["nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"];
        // SAFETY: the type is that of `nvml.h` for both.
        let found = names.iter().find_map(|name| unsafe { Some((*name, self.function(name).ok()?)) });
        let (name, function): (&str, DeviceProcesses) =
            found.ok_or_else(|| CallFailure::missing(Library::Nvml, names[0]))?;
        let mut room = 64;
        loop {
            let mut processes = vec![RawProcess::default(); room];
            let mut count = c_uint::try_from(room).unwrap_or(c_uint::MAX);
            // SAFETY: the buffer has room for as many as `count` says, and both live for the call.
            let code = unsafe { function(handle, &raw mut count, processes.as_mut_ptr()) };
            let count = usize::try_from(count).unwrap_or(0);
            // More may have come in between, so some room is added.
            if code == NvmlCode::INSUFFICIENT_SIZE.0 && room < 65_536 {
                room = (count + 16).max(room * 2);
                continue;
            }
            check(name, code)?;
            processes.truncate(count);
            let known = |used: u64| (used != NOT_AVAILABLE).then_some(used);
            return Ok(processes.iter().map(|raw| Holder { pid: raw.pid, bytes: known(raw.used) }).collect());
        }
    }

    fn persistence(&self, handle: Device_) -> Option<bool> {
        let mut mode = 0;
        // SAFETY: the type is that of `nvml.h`, the handle is of this library, the pointer is good for the call.
        let code =
            unsafe { self.function::<DeviceNumber>("nvmlDeviceGetPersistenceMode").ok()?(handle, &raw mut mode) };
        (code == 0).then_some(mode != 0)
    }

    fn partitioned(&self, handle: Device_) -> Option<bool> {
        let (mut current, mut pending) = (0, 0);
        let name = "nvmlDeviceGetMigMode";
        // SAFETY: the type is that of `nvml.h`, the handle is of this library, the pointers are good for the call.
        let code = unsafe { self.function::<DeviceNumbers>(name).ok()?(handle, &raw mut current, &raw mut pending) };
        (code == 0).then_some(current != 0)
    }

    /// What is not told is left out.
    fn load(&self, handle: Device_) -> Load {
        let mut raw = RawUtilization::default();
        let name = "nvmlDeviceGetUtilizationRates";
        // SAFETY: the type is that of `nvml.h`, the handle is of this library, the pointer is good for the call.
        let used = unsafe { self.function::<DeviceUtilization>(name).map(|call| call(handle, &raw mut raw)) };
        let mut milliwatts = 0;
        let name = "nvmlDeviceGetPowerUsage";
        // SAFETY: as above.
        let power = unsafe { self.function::<DeviceNumber>(name).map(|call| call(handle, &raw mut milliwatts)) };
        let mut degrees = 0;
        let name = "nvmlDeviceGetTemperature";
        // SAFETY: as above; 0 is the sensor on the chip.
        let heat = unsafe { self.function::<DeviceSensor>(name).map(|call| call(handle, 0, &raw mut degrees)) };
        Load {
            utilization: matches!(used, Ok(0)).then_some(raw.gpu),
            milliwatts: matches!(power, Ok(0)).then_some(milliwatts),
            celsius: matches!(heat, Ok(0)).then_some(degrees),
        }
    }

    /// # Safety
    /// `F` must be the type of a function of this name.
    unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, CallFailure> {
        // SAFETY: the caller's promise.
        unsafe { find(self.library, name) }.ok_or_else(|| CallFailure::missing(Library::Nvml, name))
    }
}

fn check(name: &str, code: c_int) -> Result<(), CallFailure> {
    if code == 0 { Ok(()) } else { Err(CallFailure::nvml(name, code)) }
}

/// A text that a call writes into a buffer.
fn text(name: &str, call: impl FnOnce(*mut c_char, c_uint) -> c_int) -> Result<String, CallFailure> {
    let mut buffer = [0u8; 128];
    check(name, call(buffer.as_mut_ptr().cast(), 128))?;
    Ok(CStr::from_bytes_until_nul(&buffer).unwrap_or_default().to_string_lossy().into_owned())
}
