//! The environment variables that Kipwake reads, all of them.

use std::path::PathBuf;

/// The API's address, for clients: `http://127.0.0.1:5471`.
pub const API: &str = "KIPWAKE_API";
/// The bearer key, for clients.
pub const KEY: &str = "KIPWAKE_KEY";
/// The data directory.
pub const DATA_DIR: &str = "KIPWAKE_DATA_DIR";
/// Log filter of the server, in the syntax of `tracing`'s env-filter.
pub const LOG: &str = "KIPWAKE_LOG";
/// Path of an ONNX Runtime library that the model server should use.
pub const ONNXRUNTIME: &str = "KIPWAKE_ONNXRUNTIME";
/// Path of the CUDA driver library, in place of `libcuda.so.1`; read by the GPU helper and probe.
pub const CUDA_LIBRARY: &str = "KIPWAKE_CUDA_LIBRARY";
/// Path of the NVML library, in place of `libnvidia-ml.so.1`; read by the GPU helper.
pub const NVML_LIBRARY: &str = "KIPWAKE_NVML_LIBRARY";
/// The time that a server believes it is when it starts, such as `2024-07-01T07:59:55Z`: for trying schedules.
pub const CLOCK: &str = "KIPWAKE_CLOCK";
/// Where a server under test kills itself; read only by builds with the feature `failpoints`.
pub const FAIL_POINT: &str = "KIPWAKE_FAIL_POINT";
/// Prefix of settings: `KIPWAKE_SERVER_GATEWAY` sets `[server] gateway`.
pub const PREFIX: &str = "KIPWAKE_";

/// A variable's value; `None` if unset, empty or not UTF-8.
pub fn read(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this module is where the environment is read")]
    let value = std::env::var(name);
    value.ok().filter(|value| !value.is_empty())
}

/// Where state is kept unless said otherwise: `$KIPWAKE_DATA_DIR`, else `$XDG_DATA_HOME/kipwake`, else
/// `~/.local/share/kipwake`. `None` where there is no home.
pub fn default_data_directory() -> Option<PathBuf> {
    if let Some(directory) = read(DATA_DIR) {
        return Some(directory.into());
    }
    let base =
        read("XDG_DATA_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(read("HOME")?).join(".local/share")));
    Some(base?.join("kipwake"))
}

/// What an instance inherits from us: only what programs need to find their tools and home.
pub fn inherited() -> Vec<(String, String)> {
    [
        ONNXRUNTIME,
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "VIRTUAL_ENV",
        "PYTHONPATH",
    ]
    .into_iter()
    .filter_map(|name| Some((name.to_owned(), read(name)?)))
    .collect()
}
