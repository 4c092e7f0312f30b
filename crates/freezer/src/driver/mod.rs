//! NVIDIA's driver as this room uses it, found at run time: nothing of CUDA is needed to build, and a host without it is
//! a host that cannot freeze, not an error.
//!
//! Only the helper process (and the probe process) may load it: its calls cannot be interrupted, can hang for ever, and
//! can take their caller down.

mod code;
mod state;
mod unsafe_library;
mod unsafe_memory;
mod unsafe_nvml;
mod unsafe_stream;

pub use code::{Advice, Call, CallFailure, Code, Library, NvmlCode};
pub use state::State;
pub(crate) use unsafe_library::Driver;
pub use unsafe_memory::{Buffer, Context, HostBuffer};
pub(crate) use unsafe_nvml::Nvml;
pub use unsafe_stream::Duplex;

/// The names that the loader looks for.
const CUDA_LIBRARY: &str = "libcuda.so.1";
const NVML_LIBRARY: &str = "libnvidia-ml.so.1";
