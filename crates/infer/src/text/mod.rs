//! Models that take text: a tokenizer beside the model makes its inputs, and its outputs become embeddings or labels.
//!
//! A model is one if a `tokenizer.json` is there and its inputs are those of an encoder (`input_ids`, `attention_mask`,
//! `token_type_ids`). The protocol with tensors serves it all the same.

mod folder;
mod pooling;
mod run;
mod tokens;

use std::path::Path;

use serde::Serialize;

use crate::card::{Activation, TextSettings};
use crate::datatype::Datatype;
use crate::description::{Description, Dimension, Port};
use folder::TextFolder;
pub(crate) use pooling::Pooling;
pub(crate) use run::{Text, TextOutput, best, shortened};
use tokens::Tokenizer;
pub(crate) use tokens::Tokens;

/// The inputs of an encoder, and what stands in them.
const INPUTS: [(&str, Input); 3] =
    [("input_ids", Input::Ids), ("attention_mask", Input::Mask), ("token_type_ids", Input::Zeros)];

/// What stands in an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Ids,
    /// 1 for each token, 0 for padding.
    Mask,
    Zeros,
}

/// A model that takes text.
#[derive(Debug)]
pub(crate) struct TextModel {
    tokenizer: Tokenizer,
    inputs: Vec<Input>,
    /// The length that all rows have; `None` where it is free.
    length: Option<usize>,
    /// The place of the output that is read.
    output: usize,
    pub(crate) task: TextTask,
}

/// What the model does with texts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TextTask {
    /// Vectors of texts.
    Embedding {
        /// How the vectors of tokens become one; `None` if the model itself gives one.
        pooling: Option<Pooling>,
        /// Whether they are given the length 1.
        normalize: bool,
        /// Numbers in a vector.
        dimensions: Option<usize>,
        /// Whether callers may ask for fewer.
        matryoshka: bool,
    },
    /// Scores by label.
    Classification { labels: Vec<String>, activation: Activation },
}

/// What `GET /model` tells of the texts.
#[derive(Debug, Serialize)]
pub(crate) struct TextDescription<'a> {
    task: &'static str,
    max_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pooling: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    normalize: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [String]>,
}

impl TextModel {
    /// Reads the files beside a model. `None` for a model without a tokenizer or with other inputs than texts.
    ///
    /// # Errors
    /// Why texts cannot be served, though there is a tokenizer.
    pub(crate) fn read(
        model: &Path,
        description: &Description,
        settings: &TextSettings,
    ) -> Result<Option<Self>, String> {
        let Some(path) = TextFolder::find(model) else { return Ok(None) };
        let Some(inputs) = encoder_inputs(&description.inputs) else { return Ok(None) };
        let folder = TextFolder::read(&path)?;
        let definition = folder.tokenizer()?;
        let length = description.inputs.first().and_then(|input| input.shape.get(1)).and_then(Dimension::fixed);
        let longest = match settings.max_tokens {
            Some(tokens) => tokens,
            None => folder.max_tokens(&definition)?,
        };
        let tokenizer = Tokenizer::new(definition, length.map_or(longest, |length| longest.min(length)))
            .map_err(|reason| format!("{}: {reason}", path.join("tokenizer.json").display()))?;
        let (output, task) = task(&folder, description, settings)?;
        Ok(Some(Self { tokenizer, inputs, length, output, task }))
    }

    /// The labels of a classifier.
    pub(crate) fn labels(&self) -> Option<&[String]> {
        match &self.task {
            TextTask::Classification { labels, .. } => Some(labels),
            TextTask::Embedding { .. } => None,
        }
    }

    /// What it is.
    pub(crate) fn about(&self) -> TextDescription<'_> {
        let about = TextDescription {
            task: "text-classification",
            max_tokens: self.tokenizer.max_tokens,
            pooling: None,
            normalize: None,
            dimensions: None,
            labels: None,
        };
        match &self.task {
            TextTask::Classification { labels, .. } => TextDescription { labels: Some(labels), ..about },
            TextTask::Embedding { pooling, normalize, dimensions, .. } => TextDescription {
                task: "embedding",
                pooling: Some(pooling.map_or("none", Pooling::name)),
                normalize: Some(*normalize),
                dimensions: *dimensions,
                ..about
            },
        }
    }
}

/// What stands in each input, if all are those of an encoder.
fn encoder_inputs(inputs: &[Port]) -> Option<Vec<Input>> {
    let one = |port: &Port| {
        let (_, input) = INPUTS.iter().find(|(name, _)| *name == port.name)?;
        let fits = matches!(port.datatype, Datatype::Int64 | Datatype::Int32) && port.shape.len() == 2;
        fits.then_some(*input)
    };
    let inputs: Vec<Input> = inputs.iter().map(one).collect::<Option<_>>()?;
    inputs.contains(&Input::Ids).then_some(inputs)
}

/// The output that is read, and what becomes of it.
fn task(folder: &TextFolder, description: &Description, settings: &TextSettings) -> Result<(usize, TextTask), String> {
    let is_float = |port: &Port| matches!(port.datatype, Datatype::Fp32 | Datatype::Fp16);
    let place = |fits: &dyn Fn(&Port) -> bool| description.outputs.iter().position(|port| is_float(port) && fits(port));
    let with_rank = |rank: usize| place(&|port: &Port| port.shape.len() == rank);
    let named = |name: &str| place(&|port: &Port| port.name == name);
    if let (Some(at), Some(labels)) =
        (named("logits").filter(|at| description.outputs[*at].shape.len() == 2), folder.labels())
    {
        let activation = match (folder.has_many_labels(), labels.len()) {
            (true, _) => Activation::Sigmoid,
            // A single score, as rerankers give it, has no others to be compared with.
            (false, 1) => Activation::Sigmoid,
            (false, _) => Activation::Softmax,
        };
        return Ok((at, TextTask::Classification { labels, activation }));
    }
    if let Some(module) = folder.unknown_module() {
        return Err(format!("its modules.json has a step {module}, which is not supported"));
    }
    let pooled = named("sentence_embedding").filter(|at| description.outputs[*at].shape.len() == 2);
    let of_tokens = || named("last_hidden_state").or_else(|| named("token_embeddings")).or_else(|| with_rank(3));
    let (at, pooling) = match pooled {
        Some(at) => (at, None),
        None => match of_tokens() {
            Some(at) => (at, Some(settings.pooling.map_or_else(|| folder.pooling(), Ok)?)),
            None => (with_rank(2).ok_or("none of its outputs has vectors of texts or of tokens")?, None),
        },
    };
    let dimensions = description.outputs[at].shape.last().and_then(Dimension::fixed);
    let normalize = settings.normalize.unwrap_or_else(|| folder.normalizes());
    let matryoshka = settings.matryoshka.unwrap_or_else(|| folder.is_matryoshka());
    Ok((at, TextTask::Embedding { pooling, normalize, dimensions, matryoshka }))
}
