//! The one model that a server serves.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::batcher::{Batcher, Limits};
use crate::card::{Activation, Card, Output, port};
use crate::description::{Description, Port};
use crate::engine::{self, ClassScores};
use crate::error::Error;
use crate::options::Options;
use crate::tensor::Tensor;
use crate::text::{TextDescription, TextModel, TextOutput, Tokens};

/// The only version there is.
pub(crate) const VERSION: &str = "1";

/// A loaded model with everything that requests need of it.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    pub(crate) name: String,
    pub(crate) card: Card,
    pub(crate) description: Description,
    /// The model as one that takes text, or why it is none.
    text: Result<TextModel, String>,
    /// The output with the label that the model itself chooses.
    pub(crate) label_output: Option<usize>,
    pub(crate) runtime: &'static str,
    pub(crate) runtime_version: String,
    pub(crate) max_batch: usize,
    pub(crate) batcher: Batcher,
}

/// What `GET /model` tells; the page is made from it.
#[derive(Debug, Serialize)]
pub(crate) struct ModelDescription<'a> {
    name: &'a str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    licence: Option<&'a str>,
    runtime: &'static str,
    runtime_version: &'a str,
    /// Most rows in a run; 1 if rows of different requests never share one.
    max_batch: usize,
    inputs: &'a [Port],
    outputs: &'a [Port],
    labels: &'a [String],
    /// Whether `/predict` takes pictures.
    takes_pictures: bool,
    /// What becomes of texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<TextDescription<'a>>,
}

impl LoadedModel {
    /// Finds and loads the model and starts its threads.
    pub(crate) fn load(options: &Options) -> Result<Self, Error> {
        let file = model_file(&options.model)?;
        let mut loaded = engine::load(&file, options)?;
        let mut card = Card::read(&file.with_file_name("model.json"), &loaded.description)?;
        let label_output = loaded.scores.and_then(|scores| label(&mut card, scores, &loaded.description));
        let text = match TextModel::read(&file, &loaded.description, &card.text) {
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err("it has no tokenizer.json, or other inputs than texts have".to_owned()),
            Err(reason) => {
                tracing::warn!(reason, "the model has a tokenizer, but only tensors can be served");
                Err(reason)
            }
        };
        if let Some(batch) = card.batch {
            loaded.description.batches = batch;
            loaded.description.has_rows |= batch;
        }
        let max_batch = if loaded.description.batches { options.max_batch.get() } else { 1 };
        let limits = Limits { rows: max_batch, delay: options.max_delay, waiting: options.max_waiting };
        let batcher = Batcher::start(loaded.engine, loaded.workers, limits)
            .map_err(|error| Error::Threads { reason: error.to_string() })?;
        let name = options.name.clone().or_else(|| card.name.clone()).unwrap_or_else(|| name_of(&file));
        Ok(Self {
            name: tidy(&name),
            card,
            description: loaded.description,
            text,
            label_output,
            runtime: loaded.runtime,
            runtime_version: loaded.version,
            max_batch,
            batcher,
        })
    }

    /// Runs a request, its inputs in the model's order, and answers the outputs in the model's order.
    pub(crate) async fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        self.description.check(&inputs)?;
        let rows = self.description.rows(&inputs);
        let answer = self.batcher.submit(inputs, rows)?.await;
        answer.unwrap_or_else(|_| Err(Error::Inference("the server is shutting down".to_owned())))
    }

    /// The model as one that takes text.
    pub(crate) fn text(&self) -> Result<&TextModel, Error> {
        self.text.as_ref().map_err(|reason| Error::NoText { reason: reason.clone() })
    }

    /// Runs texts that have been tokenized.
    pub(crate) async fn run_texts(&self, texts: Vec<Tokens>) -> Result<TextOutput, Error> {
        self.text()?.run(&self.description, &self.batcher, self.max_batch, texts).await
    }

    /// What the model is and takes.
    pub(crate) fn about(&self) -> ModelDescription<'_> {
        ModelDescription {
            name: &self.name,
            version: VERSION,
            description: self.card.description.as_deref(),
            licence: self.card.licence.as_deref(),
            runtime: self.runtime,
            runtime_version: &self.runtime_version,
            max_batch: self.max_batch,
            inputs: &self.description.inputs,
            outputs: &self.description.outputs,
            labels: &self.card.labels,
            takes_pictures: self.card.picture.is_some(),
            text: self.text.as_ref().ok().map(TextModel::about),
        }
    }

    /// The output that has the scores, if `model.json` says so or the model has but one.
    pub(crate) fn score_output(&self) -> Option<usize> {
        if self.card.labels.is_empty() && self.card.output.is_none() {
            return None;
        }
        let name = self.card.output.as_ref().and_then(|output| output.name.as_deref());
        port(&self.description.outputs, name).map(|(index, _)| index)
    }
}

/// Takes the classes of a classifier as labels, unless `model.json` says otherwise. Answers the output with the model's own choice.
fn label(card: &mut Card, scores: ClassScores, description: &Description) -> Option<usize> {
    if !card.labels.is_empty() || card.output.is_some() {
        return None;
    }
    card.labels = scores.classes;
    card.output = Some(Output { name: Some(scores.output), activation: Activation::None });
    let chosen = scores.chosen?;
    description.outputs.iter().position(|port| port.name == chosen)
}

/// The file itself, `model.onnx` of a folder or of its folder `onnx`, or the only `.onnx` file of a folder.
fn model_file(path: &Path) -> Result<PathBuf, Error> {
    let missing = |reason: String| Error::ModelNotFound { path: path.to_owned(), reason };
    if path.is_file() {
        return Ok(path.to_owned());
    }
    if let Some(usual) =
        ["model.onnx", "onnx/model.onnx"].map(|name| path.join(name)).into_iter().find(|file| file.is_file())
    {
        return Ok(usual);
    }
    let entries = std::fs::read_dir(path).map_err(|error| missing(error.to_string()))?;
    let is_model = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "onnx");
    let mut models: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_model).collect();
    models.sort();
    match models.len() {
        0 => Err(missing("the folder has no .onnx file".to_owned())),
        1 => Ok(models.remove(0)),
        count => Err(missing(format!("the folder has {count} .onnx files; name one, or call it model.onnx"))),
    }
}

/// The file's own name, or its folder's where it has the usual one; a folder `onnx` has the name of the one above.
fn name_of(file: &Path) -> String {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let stem = text(file.file_stem()).unwrap_or_default();
    if stem != "model" {
        return stem;
    }
    let folder = file.parent().and_then(|folder| folder.canonicalize().ok());
    let named = folder.as_deref().map(|folder| match folder.ends_with("onnx") {
        true => folder.parent().unwrap_or(folder),
        false => folder,
    });
    text(named.and_then(Path::file_name)).unwrap_or(stem)
}

/// Names stand in paths, so other characters become hyphens.
fn tidy(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_one_model_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(model_file(folder.path()).unwrap_err().to_string().contains("no .onnx file"));
        assert!(model_file(&folder.path().join("none")).is_err());
        std::fs::write(folder.path().join("a.onnx"), "").unwrap();
        assert_eq!(model_file(folder.path()).unwrap(), folder.path().join("a.onnx"));
        std::fs::write(folder.path().join("b.onnx"), "").unwrap();
        assert!(model_file(folder.path()).unwrap_err().to_string().contains("2 .onnx files"));
        assert_eq!(name_of(&folder.path().join("a.onnx")), "a");
        let exported = folder.path().join("mini/onnx");
        std::fs::create_dir_all(&exported).unwrap();
        std::fs::write(exported.join("model.onnx"), "").unwrap();
        assert_eq!(model_file(&folder.path().join("mini")).unwrap(), exported.join("model.onnx"));
        assert_eq!(name_of(&exported.join("model.onnx")), "mini");
        assert_eq!(tidy("my model/1"), "my-model-1");
    }
}
