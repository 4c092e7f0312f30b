//! How to run the server.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use kip_spec::{Bytes, Millis};

/// Which runtime executes the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runtime {
    /// ONNX Runtime where its library is found, tract otherwise.
    #[default]
    Auto,
    /// tract, which is built in.
    Tract,
    /// ONNX Runtime; without its library the server does not start.
    OnnxRuntime,
}

impl std::str::FromStr for Runtime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "tract" => Ok(Self::Tract),
            "onnxruntime" => Ok(Self::OnnxRuntime),
            other => Err(format!("`{other}` is not a runtime: auto, tract or onnxruntime")),
        }
    }
}

/// How to run the server. [`Options::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// A folder with one `.onnx` file in it, or the file itself.
    pub model: PathBuf,
    /// The name it is served under; else the one in `model.json`, else the folder's or file's.
    pub name: Option<String>,
    /// The port on 127.0.0.1; 0 lets the system choose.
    pub port: u16,
    /// Most rows in one run of the model.
    pub max_batch: NonZeroUsize,
    /// How long a request may wait for others to join its run. With 0 only those join that wait anyway while the
    /// model is busy.
    pub max_delay: Millis,
    /// Threads that compute; `None` takes as many as there are cores, 8 at most.
    pub threads: Option<NonZeroUsize>,
    /// Which runtime executes the model.
    pub runtime: Runtime,
    /// The ONNX Runtime library; `None` looks at `KIPWAKE_ONNXRUNTIME` and then in the usual places.
    pub onnxruntime_library: Option<PathBuf>,
    /// Largest request body.
    pub max_body: Bytes,
    /// Most pixels in a picture; counted before it is decompressed.
    pub max_pixels: u64,
    /// Most requests that wait for the model.
    pub max_waiting: usize,
}

impl Options {
    /// The defaults for a model.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            name: None,
            port: 0,
            max_batch: NonZeroUsize::MIN.saturating_add(31),
            max_delay: Millis(0),
            threads: None,
            runtime: Runtime::Auto,
            onnxruntime_library: None,
            max_body: Bytes(64 << 20),
            max_pixels: 16 << 20,
            max_waiting: 1_024,
        }
    }

    pub(crate) fn thread_count(&self) -> NonZeroUsize {
        const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).min(MOST))
    }
}
