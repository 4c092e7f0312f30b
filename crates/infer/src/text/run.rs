//! Texts through the model: tokens, rows of one length, batches, and what becomes of the outputs.

use std::collections::VecDeque;

use super::pooling::normalize;
use super::tokens::Tokens;
use super::{Input, TextModel, TextTask};
use crate::batcher::Batcher;
use crate::datatype::Datatype;
use crate::description::Description;
use crate::error::Error;
use crate::tensor::Tensor;

/// Runs of one request that wait for the model at the same time.
const AT_ONCE: usize = 8;

/// A text as a caller gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    Words(String),
    Tokens(Vec<u32>),
}

/// What a request gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TextOutput {
    /// One for each text: its vector, or the scores of its labels.
    pub(crate) rows: Vec<Vec<f32>>,
    /// Tokens of all texts together.
    pub(crate) tokens: usize,
    /// The places of texts that were longer than the model takes.
    pub(crate) truncated: Vec<usize>,
}

/// Rows of one run.
struct Chunk {
    /// The places of its texts in the request.
    places: Vec<usize>,
    length: usize,
}

impl TextModel {
    /// The tokens of texts. Takes long for long texts: not for the loop that serves connections.
    ///
    /// # Errors
    /// A text that cannot be expressed, or one that is too long where the caller wants none to be cut.
    pub(crate) fn tokenize(&self, texts: &[Text], truncate: bool) -> Result<Vec<Tokens>, Error> {
        let mut all = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            let tokens = match text {
                Text::Words(words) => self.tokenizer.encode(words),
                Text::Tokens(ids) => self.tokenizer.given(ids.clone()),
            };
            let tokens = tokens.map_err(|reason| Error::unreadable(format!("text {place} has no tokens: {reason}")))?;
            if tokens.truncated && !truncate {
                return Err(Error::TextTooLong { place, limit: self.tokenizer.max_tokens });
            }
            if tokens.ids.is_empty() {
                return Err(Error::unreadable(format!("text {place} has no tokens: it is empty")));
            }
            all.push(tokens);
        }
        Ok(all)
    }

    /// Runs texts that have been tokenized.
    ///
    /// # Errors
    /// When the model fails, or too many requests wait.
    pub(crate) async fn run(
        &self,
        description: &Description,
        batcher: &Batcher,
        max_batch: usize,
        texts: Vec<Tokens>,
    ) -> Result<TextOutput, Error> {
        let mut rows = vec![Vec::new(); texts.len()];
        let mut waiting = VecDeque::new();
        let mut chunks = self.chunks(&texts, max_batch).into_iter();
        loop {
            while waiting.len() < AT_ONCE
                && let Some(chunk) = chunks.next()
            {
                let inputs = self.inputs(description, &texts, &chunk)?;
                description.check(&inputs)?;
                let count = description.rows(&inputs);
                waiting.push_back((batcher.submit(inputs, count)?, chunk));
            }
            let Some((answer, chunk)) = waiting.pop_front() else { break };
            let outputs =
                answer.await.unwrap_or_else(|_| Err(Error::Inference("the server is shutting down".to_owned())))?;
            let output =
                outputs.get(self.output).ok_or_else(|| Error::Inference("it gave too few outputs".to_owned()))?;
            self.place(output, &texts, &chunk, &mut rows)?;
        }
        let truncated = texts.iter().enumerate().filter(|(_, text)| text.truncated).map(|(place, _)| place).collect();
        Ok(TextOutput { rows, tokens: texts.iter().map(|text| text.ids.len()).sum(), truncated })
    }

    /// Texts of similar length go together, so that little padding is computed.
    fn chunks(&self, texts: &[Tokens], most: usize) -> Vec<Chunk> {
        let mut places: Vec<usize> = (0..texts.len()).collect();
        places.sort_by_key(|place| texts[*place].ids.len());
        let length = |places: &[usize]| places.iter().map(|place| texts[*place].ids.len()).max().unwrap_or(1);
        let chunk =
            |places: &[usize]| Chunk { places: places.to_vec(), length: self.length.unwrap_or_else(|| length(places)) };
        places.chunks(most.max(1)).map(chunk).collect()
    }

    fn inputs(&self, description: &Description, texts: &[Tokens], chunk: &Chunk) -> Result<Vec<Tensor>, Error> {
        let shape = vec![chunk.places.len(), chunk.length];
        let value = |input: Input, text: &Tokens, at: usize| match (input, text.ids.get(at)) {
            (Input::Ids, Some(id)) => i64::from(*id),
            (Input::Ids, None) => i64::from(self.tokenizer.padding),
            (Input::Mask, Some(_)) => 1,
            (Input::Mask, None) | (Input::Zeros, _) => 0,
        };
        let made = self.inputs.iter().zip(&description.inputs).map(|(input, port)| {
            let numbers: Vec<i64> = chunk
                .places
                .iter()
                .flat_map(|place| (0..chunk.length).map(move |at| value(*input, &texts[*place], at)))
                .collect();
            match port.datatype {
                Datatype::Int64 => Tensor::from_elements(shape.clone(), numbers.into_iter()),
                _ => {
                    let narrow = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
                    Tensor::from_elements(
                        shape.clone(),
                        numbers.into_iter().map(narrow).collect::<Vec<_>>().into_iter(),
                    )
                }
            }
        });
        made.collect::<Option<_>>().ok_or_else(|| Error::Inference("the tokens are no tensor".to_owned()))
    }

    /// Puts the rows of a run into their places.
    fn place(&self, output: &Tensor, texts: &[Tokens], chunk: &Chunk, rows: &mut [Vec<f32>]) -> Result<(), Error> {
        let odd = || Error::Inference(format!("its output has the shape {:?}", output.shape()));
        let values = output.to_floats();
        if output.rows() != chunk.places.len() || values.is_empty() {
            return Err(odd());
        }
        let per_row = values.len() / chunk.places.len();
        for (place, row) in chunk.places.iter().zip(values.chunks_exact(per_row)) {
            rows[*place] = match &self.task {
                TextTask::Classification { labels, activation } => {
                    if row.len() != labels.len() {
                        return Err(odd());
                    }
                    activation.apply(row.to_vec())
                }
                TextTask::Embedding { pooling, normalize: unit, .. } => {
                    let mut vector = match pooling {
                        None => row.to_vec(),
                        Some(pooling) => {
                            let width = *output.shape().get(2).filter(|width| **width > 0).ok_or_else(odd)?;
                            pooling.pool(row, width, texts[*place].ids.len())
                        }
                    };
                    if *unit {
                        normalize(&mut vector);
                    }
                    vector
                }
            };
        }
        Ok(())
    }
}

/// Cuts vectors and gives them their length again.
pub(crate) fn shortened(vector: &mut Vec<f32>, dimensions: usize, unit: bool) {
    vector.truncate(dimensions);
    if unit {
        normalize(vector);
    }
}

/// The scores of a text, with the best label.
pub(crate) fn best<'a>(labels: &'a [String], scores: &[f32]) -> Option<&'a String> {
    labels.iter().zip(scores).max_by(|one, other| one.1.total_cmp(other.1)).map(|(label, _)| label)
}
