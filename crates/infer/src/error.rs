//! What can go wrong here, and how each is shown.

use std::path::PathBuf;

use kip_spec::{Code, Problem, code};

/// Why the server did not start or a request was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no model file.
    #[error("there is no model at {}: {reason}", path.display())]
    ModelNotFound {
        /// Where we looked.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The model file is there and cannot be loaded.
    #[error("{} cannot be loaded", path.display())]
    ModelUnreadable {
        /// The file.
        path: PathBuf,
        /// What the runtime said.
        reason: String,
    },
    /// `model.json` is not valid, or does not fit the model.
    #[error("{} is not valid: {reason}", path.display())]
    Card {
        /// The file.
        path: PathBuf,
        /// What is wrong, in a line.
        reason: String,
    },
    /// ONNX Runtime was asked for by name and cannot be used.
    #[error("ONNX Runtime cannot be used: {reason}")]
    RuntimeMissing {
        /// Why not.
        reason: String,
    },
    /// The port cannot be listened on.
    #[error("cannot listen on 127.0.0.1:{port}")]
    Listen {
        /// The port.
        port: u16,
        /// What the operating system said.
        reason: String,
    },
    /// The operating system has no room for the server's threads.
    #[error("cannot start the server's threads")]
    Threads {
        /// What the operating system said.
        reason: String,
    },
    /// A request names another model or version.
    #[error("there is no model `{wanted}` here, only `{served}`")]
    UnknownModel {
        /// The name, or name and version, of the request.
        wanted: String,
        /// What is served.
        served: String,
    },
    /// The path means nothing.
    #[error("there is nothing at {path}")]
    Path {
        /// The path of the request.
        path: String,
    },
    /// The path does not take the method.
    #[error("{path} does not take {method}, only {allowed}")]
    Method {
        /// The path of the request.
        path: String,
        /// The method of the request.
        method: String,
        /// What it takes.
        allowed: &'static str,
    },
    /// A tensor has the wrong shape or number of elements, or is missing or unknown.
    #[error("{0}")]
    Shape(String),
    /// A tensor has the wrong datatype, or a value does not fit it.
    #[error("{0}")]
    Type(String),
    /// The body cannot be read as what it says it is.
    #[error("{message}")]
    Unreadable {
        /// What cannot be read.
        message: String,
        /// What to do, where we know.
        hint: Option<&'static str>,
    },
    /// The model does nothing with texts.
    #[error("the model takes no texts: {reason}")]
    NoText {
        /// Why not.
        reason: String,
    },
    /// A text has more tokens than the model takes, and the caller wants none to be cut.
    #[error("text {place} has more than {limit} tokens")]
    TextTooLong {
        /// Its place in the request.
        place: usize,
        /// Tokens of a text at most.
        limit: usize,
    },
    /// The model's embeddings have another length than the caller wants.
    #[error("the model has no embeddings of {wanted} numbers")]
    Dimensions {
        /// What the caller wants.
        wanted: usize,
        /// What the model has, if it is known.
        own: Option<usize>,
        /// Whether shorter ones have a meaning.
        matryoshka: bool,
    },
    /// The body or picture is beyond a limit.
    #[error("{0}")]
    TooLarge(String),
    /// The runtime failed.
    #[error("the model failed: {0}")]
    Inference(String),
    /// Too many requests wait.
    #[error("{waiting} requests wait for the model already")]
    QueueFull {
        /// The limit.
        waiting: usize,
    },
}

impl Error {
    /// An unreadable body without a particular hint.
    pub(crate) fn unreadable(message: impl Into<String>) -> Self {
        Self::Unreadable { message: message.into(), hint: None }
    }

    /// An error of the JSON reader as a refusal.
    pub(crate) fn unreadable_json(error: &serde_json::Error) -> Self {
        let hint = error.is_syntax().then_some(
            "JSON has no NaN or Infinity and no trailing commas; binary tensors take any value (docs/infer.md)",
        );
        Self::Unreadable { message: format!("the JSON cannot be read: {error}"), hint }
    }

    /// Its stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::ModelNotFound { .. } | Self::UnknownModel { .. } => code::MODEL_NOT_FOUND,
            Self::ModelUnreadable { .. } | Self::Threads { .. } => code::MODEL_UNREADABLE,
            Self::Card { .. } => code::MODEL_CARD_INVALID,
            Self::RuntimeMissing { .. } => code::MODEL_RUNTIME_MISSING,
            Self::Listen { .. } => code::MODEL_SERVER_ADDRESS,
            Self::Path { .. } => code::MODEL_SERVER_PATH,
            Self::Method { .. } => code::MODEL_SERVER_METHOD,
            Self::Shape(_) => code::INPUT_SHAPE,
            Self::Type(_) => code::INPUT_TYPE,
            Self::Unreadable { .. } => code::INPUT_UNREADABLE,
            Self::NoText { .. } => code::TEXT_NOT_SERVED,
            Self::TextTooLong { .. } => code::TEXT_TOO_LONG,
            Self::Dimensions { .. } => code::EMBEDDING_DIMENSIONS,
            Self::TooLarge(_) => code::INPUT_TOO_LARGE,
            Self::Inference(_) => code::INFERENCE_FAILED,
            Self::QueueFull { .. } => code::INFERENCE_QUEUE_FULL,
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::ModelUnreadable { reason, .. } | Self::Listen { reason, .. } | Self::Threads { reason } => {
                Some(reason)
            }
            _ => None,
        }
    }

    fn hint(&self) -> Option<&str> {
        Some(match self {
            Self::ModelNotFound { .. } => "give a folder with one .onnx file in it, or the file itself",
            Self::ModelUnreadable { reason, .. } if reason.contains("zipmap") => {
                "an output of the model is a map (ZipMap): export the model again with options={'zipmap': False}"
            }
            Self::ModelUnreadable { reason, .. } if reason.contains("decode Protobuf") => {
                "the file is no ONNX model: it is damaged, or the short text that Git LFS or a lost link leaves in its place"
            }
            Self::ModelUnreadable { .. } => {
                "the file may be damaged or use operators that this runtime lacks; docs/infer.md compares the runtimes"
            }
            Self::Card { .. } => "docs/infer.md lists every key of model.json",
            Self::RuntimeMissing { .. } => "set KIPWAKE_ONNXRUNTIME to the path of libonnxruntime.so, 1.17 or newer",
            Self::Listen { .. } => "choose another port",
            Self::UnknownModel { .. } | Self::Path { .. } => "GET /model tells what is served here and how",
            Self::Shape(_) | Self::Type(_) => "GET /model lists the inputs with shapes and datatypes",
            Self::Unreadable { hint, .. } => return *hint,
            Self::NoText { .. } => {
                "GET /model tells what the model takes; docs/infer.md lists the files of a text model"
            }
            Self::TextTooLong { .. } => "cut the text yourself, or leave `truncate` out: its end is then cut and named",
            Self::Dimensions { matryoshka: true, .. } => "ask for fewer numbers than the model has: GET /model",
            Self::Dimensions { matryoshka: false, .. } => {
                "leave `dimensions` out; if the model was trained for shorter ones, set `text.matryoshka` in model.json"
            }
            Self::TooLarge(_) => "send less at once, or scale the picture down first",
            Self::QueueFull { .. } => "try again, or allow the function more instances",
            Self::Threads { .. } | Self::Method { .. } | Self::Inference(_) => return None,
        })
    }

    /// As people and programs meet it.
    pub fn problem(&self) -> Problem {
        let mut problem = Problem::new(self.code(), self.to_string());
        problem.cause = self.reason().map(str::to_owned);
        problem.hint = self.hint().map(str::to_owned);
        problem
    }
}
