//! The built-in model server: one ONNX model behind KServe v2, `/predict`, `/v1/embeddings` and a page.
//!
//! It runs as a child process (`kip infer`) with one model and one port, and knows nothing of functions, instances or
//! the gateway. The connections live on one thread, the model on threads of its own, with a queue between them in which
//! requests become batches. `docs/infer.md` is its manual.
//!
//! [`run`] is all that the binary needs; [`Server`] lets tests serve in process.

mod batcher;
mod card;
mod datatype;
mod description;
mod embeddings;
mod engine;
mod error;
mod http;
mod json;
mod kserve;
mod options;
mod page;
mod picture;
mod predict;
mod served;
mod server;
mod statistics;
mod tensor;
mod text;

pub use error::Error;
pub use options::{Options, Runtime};
pub use server::{Server, run};
