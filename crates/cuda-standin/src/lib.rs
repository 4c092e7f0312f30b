//! A stand-in for NVIDIA's driver, **for development only and never shipped**: the symbols of `libcuda.so.1` and
//! `libnvidia-ml.so.1` that Kipwake uses, with no device behind them.
//!
//! "Device memory" is memory of the process itself. What a driver knows of a process is kept in files under the directory
//! that `KIPWAKE_STANDIN_DIR` names (`registry`), so that one process can freeze another. `knobs` in that directory sets
//! sizes, speeds and faults. Nothing that is measured on it is a figure of a GPU, and nothing here is like the real
//! driver beyond what is documented of it: the states, their order, and the errors.
//!
//! It depends on no crate at all, so that building it never disturbs what others have built.

mod knobs;
mod registry;
mod unsafe_checkpoint;
mod unsafe_device;
mod unsafe_memory;
mod unsafe_nvml;
mod unsafe_stream;

/// `CUDA_SUCCESS` and `NVML_SUCCESS`.
const DONE: i32 = 0;
/// `CUDA_ERROR_INVALID_VALUE`.
const INVALID_VALUE: i32 = 1;
/// `CUDA_ERROR_OUT_OF_MEMORY`.
const OUT_OF_MEMORY: i32 = 2;
/// `CUDA_ERROR_NOT_INITIALIZED`.
const NOT_INITIALIZED: i32 = 3;
/// `CUDA_ERROR_OPERATING_SYSTEM`.
const OPERATING_SYSTEM: i32 = 304;
/// `CUDA_ERROR_ILLEGAL_STATE`.
const ILLEGAL_STATE: i32 = 401;
/// `CUDA_ERROR_NOT_SUPPORTED`.
const NOT_SUPPORTED: i32 = 801;
