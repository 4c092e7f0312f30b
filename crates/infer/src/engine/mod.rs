//! The runtimes behind one trait.

pub(crate) mod library;
mod onnxruntime;
mod tract;

use std::fmt;
use std::path::{Path, PathBuf};

use tract_onnx::prelude::Framework;

use crate::description::Description;
use crate::error::Error;
use crate::options::{Options, Runtime};
use crate::tensor::Tensor;

/// Executes a model. Inputs and outputs stand in the order of its [`Description`] and have been checked against it.
pub(crate) trait Engine: Send + Sync {
    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String>;
}

/// A model that is ready to run.
pub(crate) struct ReadyModel {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) description: Description,
    /// `tract` or `onnxruntime`.
    pub(crate) runtime: &'static str,
    /// Its version.
    pub(crate) version: String,
    /// Runs that go on at the same time. ONNX Runtime spreads one run over the threads instead.
    pub(crate) workers: usize,
}

impl fmt::Debug for ReadyModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("runtime", &self.runtime).field("version", &self.version).finish_non_exhaustive()
    }
}

/// Loads a model into the runtime that the options ask for.
pub(crate) fn load(file: &Path, options: &Options) -> Result<ReadyModel, Error> {
    let unreadable = |reason: String| Error::ModelUnreadable { path: file.to_owned(), reason };
    let proto = tract_onnx::onnx().proto_model_for_path(file).map_err(|error| unreadable(chain(&*error)))?;
    let description = Description::of(&proto).map_err(unreadable)?;
    if let Some(library) = chosen_library(options)? {
        let threads = options.thread_count();
        let (engine, version) =
            onnxruntime::load(&library, file, &description, threads).map_err(|error| match error {
                onnxruntime::LoadError::Library(reason) => Error::RuntimeMissing { reason },
                onnxruntime::LoadError::Model(reason) => unreadable(reason),
            })?;
        let library = library.display();
        tracing::info!(runtime = "onnxruntime", %version, %library, "the model is executed by ONNX Runtime");
        return Ok(ReadyModel { engine: Box::new(engine), description, runtime: "onnxruntime", version, workers: 1 });
    }
    let engine = tract::load(&proto, file, &description).map_err(unreadable)?;
    let version = tract::VERSION.to_owned();
    tracing::info!(runtime = "tract", %version, "the model is executed by tract");
    let trees = description.tree_ensembles();
    if !trees.is_empty() {
        let operators = trees.join(", ");
        tracing::warn!(
            %operators,
            "tract runs tree ensembles about 1,800 times slower than ONNX Runtime; set KIPWAKE_ONNXRUNTIME to the path \
             of libonnxruntime.so"
        );
    }
    let workers = options.thread_count().get();
    Ok(ReadyModel { engine: Box::new(engine), description, runtime: "tract", version, workers })
}

/// The ONNX Runtime library to use, if any.
fn chosen_library(options: &Options) -> Result<Option<PathBuf>, Error> {
    let found = match options.runtime {
        Runtime::Tract => return Ok(None),
        Runtime::Auto | Runtime::OnnxRuntime => library::find(options.onnxruntime_library.as_deref()),
    };
    match found {
        library::LibrarySearch::Usable(path) => Ok(Some(path)),
        // One that was named must work; falling back in silence would hide the mistake.
        library::LibrarySearch::Named(reason) => Err(Error::RuntimeMissing { reason }),
        library::LibrarySearch::Nothing if options.runtime == Runtime::OnnxRuntime => {
            Err(Error::RuntimeMissing { reason: "its library is in none of the usual places".to_owned() })
        }
        library::LibrarySearch::Nothing => Ok(None),
    }
}

/// An error and its sources in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text.replace('\n', " ")
}
