//! The runtimes behind one trait.

mod labels;
pub(crate) mod library;
mod onnxruntime;
mod scalers;
mod tract;
mod trial;
mod unsafe_strings;
mod weights;
mod zipmap;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::Framework;

use crate::description::Description;
use crate::error::Error;
use crate::options::{Options, Runtime};
use crate::tensor::Tensor;
pub(crate) use zipmap::ClassScores;

/// Executes a model. Inputs and outputs stand in the order of its [`Description`] and have been checked against it.
pub(crate) trait Engine: Send + Sync {
    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String>;
}

/// A model that is ready to run.
pub(crate) struct ReadyModel {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) description: Description,
    /// The output of scores of a classifier that names its classes.
    pub(crate) scores: Option<ClassScores>,
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
    let mut proto = tract_onnx::onnx().proto_model_for_path(file).map_err(|error| unreadable(chain(&*error)))?;
    let zipmap::Replacement { changed, scores } = zipmap::replace(&mut proto);
    let mut description = Description::of(&proto).map_err(unreadable)?;
    if let Some(library) = chosen_library(options)? {
        let threads = options.thread_count();
        let (engine, version) = in_onnxruntime(&library, &mut proto, changed, file, &description, threads).map_err(
            |error| match error {
                onnxruntime::LoadError::Library(reason) => Error::RuntimeMissing { reason },
                onnxruntime::LoadError::Model(reason) => unreadable(reason),
            },
        )?;
        if let Err(reason) = trial::run(&engine, &description) {
            // It may want inputs that nobody can guess.
            tracing::warn!(%reason, "the model failed at a trial run with made-up inputs");
        }
        let library = library.display();
        tracing::info!(runtime = "onnxruntime", %version, %library, "the model is executed by ONNX Runtime");
        let engine = Box::new(engine);
        return Ok(ReadyModel { engine, description, scores, runtime: "onnxruntime", version, workers: 1 });
    }
    weights::take_in(&mut proto, file).map_err(unreadable)?;
    description.only_text = true;
    if let Some(graph) = proto.graph.as_mut() {
        // Shapes that an exporter noted with names of dimensions contradict the lengths of a plan for one set of shapes.
        graph.value_info.clear();
    }
    scalers::replace(&mut proto);
    let mut own = description.clone();
    let classes = labels::number(&mut proto, &mut own);
    let engine = tract::load(&proto, file, &own).map_err(unreadable)?;
    let engine = labels::Named { engine, classes };
    trial::run(&engine, &description)
        .map_err(|reason| unreadable(format!("tract loads it and fails at each run: {reason}")))?;
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
    Ok(ReadyModel { engine: Box::new(engine), description, scores, runtime: "tract", version, workers })
}

/// Loads a model into ONNX Runtime from its file; from memory if it was changed, or if its weights lie behind links that the library does
/// not follow.
fn in_onnxruntime(
    library: &Path,
    proto: &mut ModelProto,
    changed: bool,
    file: &Path,
    description: &Description,
    threads: NonZeroUsize,
) -> Result<(onnxruntime::OnnxRuntimeEngine, String), onnxruntime::LoadError> {
    let links = weights::has_links(proto, file);
    let from_file = || onnxruntime::load(library, onnxruntime::ModelSource::File(file), description, threads);
    let first = match changed {
        true => None,
        false => match from_file() {
            Err(onnxruntime::LoadError::Model(reason)) if links => Some(reason),
            other => return other,
        },
    };
    let folder = weights::resolve(proto, file).map_err(onnxruntime::LoadError::Model)?;
    let content = zipmap::encoded(proto);
    let source = onnxruntime::ModelSource::Content(&content, &folder);
    onnxruntime::load(library, source, description, threads).map_err(|error| match (error, first) {
        (onnxruntime::LoadError::Model(_), Some(first)) => onnxruntime::LoadError::Model(first),
        (other, _) => other,
    })
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
