//! `/v1/embeddings`, in the form of the OpenAI API.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::http::State;
use crate::http::answer::json;
use crate::kserve::unreadable_json;
use crate::served::LoadedModel;
use crate::text::{Text, TextModel, TextTask, shortened};

/// Texts in a request at most, as in the API that this follows.
const MOST: usize = 2_048;
/// Bodies beyond this are tokenized outside the loop that serves connections.
const LARGE: usize = 4 << 10;

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

#[derive(Debug, Serialize)]
struct WireAnswer<'a> {
    object: &'static str,
    data: Vec<WireEmbedding>,
    model: &'a str,
    usage: Usage,
    /// The places of texts that were cut.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    truncated: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct WireEmbedding {
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

/// The text model, and whether its vectors have the length 1.
fn embedder(served: &LoadedModel) -> Result<(&TextModel, bool, Option<usize>, bool), Error> {
    let text = served.text()?;
    match text.task {
        TextTask::Embedding { normalize, dimensions, matryoshka, .. } => Ok((text, normalize, dimensions, matryoshka)),
        TextTask::Classification { .. } => {
            Err(Error::NoText { reason: "it is a classifier: send {\"text\": …} to /predict".to_owned() })
        }
    }
}

/// Answers a request.
pub(crate) async fn embed(state: &Arc<State>, body: Bytes) -> Result<Response<Full<Bytes>>, Error> {
    let served = &state.served;
    let (model, unit, own, matryoshka) = embedder(served)?;
    let request: WireRequest = serde_json::from_slice(&body).map_err(|error| unreadable_json(&error))?;
    let as_text = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            return Err(Error::unreadable(format!("`encoding_format` is `{other}`; it can be `float` or `base64`")));
        }
    };
    let wanted = request.dimensions.filter(|wanted| Some(*wanted) != own);
    if let Some(wanted) = wanted
        && (!matryoshka || wanted == 0 || own.is_some_and(|own| wanted > own))
    {
        return Err(Error::Dimensions { wanted, own, matryoshka });
    }
    let texts = request.input.texts()?;
    let truncate = request.truncate.unwrap_or(true);
    let tokens = if body.len() > LARGE {
        let shared = Arc::clone(state);
        state.aside(move || shared.served.text()?.tokenize(&texts, truncate)).await?
    } else {
        model.tokenize(&texts, truncate)?
    };
    let mut output = model.run(served, tokens).await?;
    if let Some(wanted) = wanted {
        output.rows.iter_mut().for_each(|vector| shortened(vector, wanted, unit));
    }
    let encode = |vector: Vec<f32>| match as_text {
        true => {
            Encoded::Text(STANDARD.encode(vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()))
        }
        false => Encoded::Numbers(vector),
    };
    let data = output.rows.into_iter().enumerate();
    let answer = WireAnswer {
        object: "list",
        data: data.map(|(index, row)| WireEmbedding { object: "embedding", index, embedding: encode(row) }).collect(),
        model: request.model.as_deref().unwrap_or(&served.name),
        usage: Usage { prompt_tokens: output.tokens, total_tokens: output.tokens },
        truncated: output.truncated,
    };
    Ok(json(StatusCode::OK, &answer))
}
