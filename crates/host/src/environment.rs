//! The environment variables that Kipwake reads, all of them.

use std::path::PathBuf;

use kip_spec::secret;

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
/// Path of the key that seals secrets, in place of the data directory's own.
pub const SEAL_KEY_FILE: &str = "KIPWAKE_SEAL_KEY_FILE";
/// The time that a server believes it is when it starts, such as `2024-07-01T07:59:55Z`: for trying schedules.
pub const CLOCK: &str = "KIPWAKE_CLOCK";
/// Where a server under test kills itself; read only by builds with the feature `failpoints`.
pub const FAIL_POINT: &str = "KIPWAKE_FAIL_POINT";
/// A folder of traces of requests; read only by tests.
pub const TRACES: &str = "KIPWAKE_TRACES";
/// Prefix of settings: `KIPWAKE_SERVER_GATEWAY` sets `[server] gateway`.
pub const PREFIX: &str = "KIPWAKE_";

/// Variables with that prefix that are no settings: those above, and what instances and jobs have.
pub const OWN: &[&str] = &[
    API,
    KEY,
    DATA_DIR,
    LOG,
    ONNXRUNTIME,
    CUDA_LIBRARY,
    NVML_LIBRARY,
    SEAL_KEY_FILE,
    CLOCK,
    FAIL_POINT,
    TRACES,
    "KIPWAKE_INSTANCE",
    "KIPWAKE_SERVER",
    "KIPWAKE_FUNCTION",
    "KIPWAKE_DEVICES",
    "KIPWAKE_PROGRESS",
    "KIPWAKE_OUT",
    "KIPWAKE_TASK_ID",
    "KIPWAKE_TASK_ATTEMPT",
    "KIPWAKE_TASK_EPOCH",
    "KIPWAKE_TASK_DUE",
];

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

/// Variables of the server's environment that instances get, by name. docs/environment.md lists them; a test compares the two.
pub const INHERITED: &[&str] = &[
    // Where programs find their tools, their home and their language.
    ONNXRUNTIME,
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "NODE_PATH",
    "JAVA_HOME",
    // Proxies.
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    // Certificates.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    // Libraries of AI programs.
    "TOKENIZERS_PARALLELISM",
    "SENTENCE_TRANSFORMERS_HOME",
    "VECLIB_MAXIMUM_THREADS",
];

/// The same by the beginnings of their names.
pub const INHERITED_PREFIXES: &[&str] = &[
    "LC_",
    "XDG_",
    "PYTHON",
    "HF_",
    "HUGGINGFACE_",
    "TRANSFORMERS_",
    "DIFFUSERS_",
    "MODELSCOPE_",
    "TORCH_",
    "TORCHINDUCTOR_",
    "PYTORCH_",
    "TRITON_",
    "TF_",
    "XLA_",
    "JAX_",
    "CUDA_",
    "CUDNN_",
    "CUBLAS_",
    "NCCL_",
    "NVIDIA_",
    "ROCM_",
    "ROCR_",
    "HIP_",
    "HSA_",
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "BLIS_",
    "NUMEXPR_",
    "ORT_",
    "VLLM_",
    "SGLANG_",
    "GGML_",
    "LLAMA_",
    "OLLAMA_",
    "COMFYUI_",
    "RAY_",
];

/// Whether an instance gets a variable of the server's environment: it is in the list, and does not look like a secret.
pub fn is_inherited(name: &str, value: &str) -> bool {
    let listed = INHERITED.contains(&name) || INHERITED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    listed && !secret::is_name(name) && !secret::is_value(value)
}

/// What an instance inherits from us: what programs need to find their tools and home, and what AI programs are set up by. Never a
/// secret: a function that needs one names it in its manifest.
pub fn inherited() -> Vec<(String, String)> {
    all().filter(|(name, value)| !value.is_empty() && is_inherited(name, value)).collect()
}

/// All variables whose name and value are text.
pub fn all() -> impl Iterator<Item = (String, String)> {
    let variables = std::env::vars_os();
    variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_get_what_programs_need_and_no_secret() {
        for (name, value) in [
            ("PATH", "/bin"),
            ("HF_HOME", "/models"),
            ("HF_HUB_OFFLINE", "1"),
            ("CUDA_HOME", "/usr/local/cuda"),
            ("OMP_NUM_THREADS", "4"),
            ("https_proxy", "http://proxy:3128"),
            ("SSL_CERT_FILE", "/etc/ssl/own.pem"),
            ("XDG_CACHE_HOME", "/cache"),
            ("LC_ALL", "C"),
            ("PYTHONUNBUFFERED", "1"),
        ] {
            assert!(is_inherited(name, value), "{name}");
        }
        for (name, value) in [
            ("HF_TOKEN", "x"),
            ("HF_TOKEN_PATH", "/home/u/.token"),
            ("VLLM_API_KEY", "x"),
            ("OPENAI_API_KEY", "x"),
            ("AWS_PROFILE", "prod"),
            ("https_proxy", "http://u:p@proxy:3128"),
            ("HF_ENDPOINT", "hf_0123456789abcdefXYZ"),
            ("RANDOM", "1"),
            ("KIPWAKE_KEY", "kw_x"),
        ] {
            assert!(!is_inherited(name, value), "{name}");
        }
    }

    #[test]
    fn the_page_lists_all_of_them() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/environment.md");
        let page = std::fs::read_to_string(page).expect("the page is there");
        for name in INHERITED {
            assert!(page.contains(&format!("`{name}`")), "{name} is missing in docs/environment.md");
        }
        for prefix in INHERITED_PREFIXES {
            assert!(page.contains(&format!("`{prefix}*`")), "{prefix}* is missing in docs/environment.md");
        }
    }
}
