//! `/v1/embeddings`, in the form of the OpenAI API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::served::LoadedModel;
use crate::text::{Text, TextOutput, TextTask, Tokens, shortened};

/// Texts in a request at most, as in the API that this follows.
const MOST: usize = 2_048;
/// Bodies beyond this are tokenized outside the loop that serves connections.
pub(crate) const LARGE: usize = 4 << 10;

#[derive(Debug, Deserialize)]
struct WireRequest {
    #[serde(default)]
    model: Option<String>,
    input: WireInput,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<usize>,
    /// Ours: `false` refuses texts that are too long; by default they are cut.
    #[serde(default)]
    truncate: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`input` is a text, a list of texts, a list of tokens, or a list of lists of tokens")]
enum WireInput {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// The answer, as it is written.
#[derive(Debug, Serialize)]
pub(crate) struct EmbeddingAnswer<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
    /// The places of texts that were cut.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    truncated: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Encoded,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Encoded {
    Numbers(Vec<f32>),
    Text(String),
}

#[derive(Debug, Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl WireInput {
    fn texts(self) -> Result<Vec<Text>, Error> {
        let texts: Vec<Text> = match self {
            Self::Text(text) => vec![Text::Words(text)],
            Self::Texts(texts) => texts.into_iter().map(Text::Words).collect(),
            Self::Tokens(tokens) => vec![Text::Tokens(tokens)],
            Self::TokenLists(lists) => lists.into_iter().map(Text::Tokens).collect(),
        };
        match texts.len() {
            0 => Err(Error::unreadable("`input` is an empty list")),
            count if count > MOST => Err(Error::TooLarge(format!("`input` has {count} texts; the limit is {MOST}"))),
            _ => Ok(texts),
        }
    }
}

/// Whether vectors have the length 1, how many numbers they have, and whether there may be fewer.
fn embedder(served: &LoadedModel) -> Result<(bool, Option<usize>, bool), Error> {
    match served.text()?.task {
        TextTask::Embedding { normalize, dimensions, matryoshka, .. } => Ok((normalize, dimensions, matryoshka)),
        TextTask::Classification { .. } => {
            Err(Error::NoText { reason: "it is a classifier: send {\"text\": …} to /predict".to_owned() })
        }
    }
}

/// A request that has been read.
#[derive(Debug)]
pub(crate) struct EmbeddingRequest {
    model: Option<String>,
    texts: Vec<Text>,
    truncate: bool,
    as_text: bool,
    /// The length of vectors, if it is not the model's own.
    dimensions: Option<usize>,
    unit: bool,
}

impl EmbeddingRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// When the model has no embeddings, or none as the body asks for.
    pub(crate) fn read(served: &LoadedModel, body: &[u8]) -> Result<Self, Error> {
        let (unit, own, matryoshka) = embedder(served)?;
        let request: WireRequest = serde_json::from_slice(body).map_err(|error| Error::unreadable_json(&error))?;
        let as_text = match request.encoding_format.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                return Err(Error::unreadable(format!(
                    "`encoding_format` is `{other}`; it can be `float` or `base64`"
                )));
            }
        };
        let dimensions = request.dimensions.filter(|wanted| Some(*wanted) != own);
        if let Some(wanted) = dimensions
            && (!matryoshka || wanted == 0 || own.is_some_and(|own| wanted > own))
        {
            return Err(Error::Dimensions { wanted, own, matryoshka });
        }
        let (model, truncate) = (request.model, request.truncate.unwrap_or(true));
        Ok(Self { model, texts: request.input.texts()?, truncate, as_text, dimensions, unit })
    }

    /// The tokens of its texts. Takes long for long texts.
    ///
    /// # Errors
    /// A text that the model does not take.
    pub(crate) fn tokenize(&self, served: &LoadedModel) -> Result<Vec<Tokens>, Error> {
        served.text()?.tokenize(&self.texts, self.truncate)
    }

    /// The answer.
    pub(crate) fn answer<'a>(&'a self, served: &'a LoadedModel, output: TextOutput) -> EmbeddingAnswer<'a> {
        let encode = |mut vector: Vec<f32>| {
            if let Some(dimensions) = self.dimensions {
                shortened(&mut vector, dimensions, self.unit);
            }
            let bytes = |vector: Vec<f32>| vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
            if self.as_text { Encoded::Text(STANDARD.encode(bytes(vector))) } else { Encoded::Numbers(vector) }
        };
        let rows = output.rows.into_iter().enumerate();
        EmbeddingAnswer {
            object: "list",
            data: rows.map(|(index, row)| Embedding { object: "embedding", index, embedding: encode(row) }).collect(),
            model: self.model.as_deref().unwrap_or(&served.name),
            usage: Usage { prompt_tokens: output.tokens, total_tokens: output.tokens },
            truncated: output.truncated,
        }
    }
}
