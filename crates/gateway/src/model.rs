//! Which model a request is for, where that is not in its path: the OpenAI style says it in the body.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::connection::Bounds;
use crate::decode::Decoder;
use crate::form::Form;

/// Why no model was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelError {
    /// The body is not an object or a form with one.
    NotNamed,
    /// It may come later, but that much of a body is not kept.
    TooFar,
    /// So much is kept for other searches already.
    NoRoom,
    /// Nothing more came for too long.
    Late,
    /// The body broke off.
    BrokeOff,
    /// It is compressed in a way that is not known here, or not as it says.
    Encoding,
}

/// Bodies of the largest size that may be searched at once, all threads together; nearly all are much smaller.
const SEARCHES: usize = 8;

/// What one search keeps of what all of them may.
struct SearchState<'a> {
    searching: &'a AtomicUsize,
    bytes: usize,
}

impl SearchState<'_> {
    fn more(&mut self, bytes: usize, most: usize) -> bool {
        self.bytes += bytes;
        self.searching.fetch_add(bytes, Ordering::Relaxed) + bytes <= most
    }
}

impl Drop for SearchState<'_> {
    fn drop(&mut self) {
        self.searching.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body until the model is known. What was read of it is given too, as it came, for whoever gets the request.
pub(crate) async fn find(
    headers: &HeaderMap,
    body: &mut Incoming,
    bounds: &Bounds,
    searching: &AtomicUsize,
) -> (Bytes, Result<String, ModelError>) {
    let mut kept = SearchState { searching, bytes: 0 };
    let most = bounds.model.saturating_mul(SEARCHES);
    let Ok(mut decoder) = Decoder::of(headers, bounds.model) else { return (Bytes::new(), Err(ModelError::Encoding)) };
    let mut scan = Scan::of(headers);
    let mut read = BytesMut::new();
    loop {
        match scan.next(decoder.decoded(&read)) {
            Some(Some(model)) => return (read.freeze(), Ok(model)),
            Some(None) => return (read.freeze(), Err(ModelError::NotNamed)),
            None if read.len().max(decoder.decoded(&read).len()) >= bounds.model => {
                return (read.freeze(), Err(ModelError::TooFar));
            }
            None => {}
        }
        let Ok(frame) = tokio::time::timeout(bounds.body_idle, body.frame()).await else {
            return (read.freeze(), Err(ModelError::Late));
        };
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    read.extend_from_slice(&data);
                    let Ok(decoded) = decoder.push(&data) else { return (read.freeze(), Err(ModelError::Encoding)) };
                    if !kept.more(data.len() + decoded, most) {
                        return (read.freeze(), Err(ModelError::NoRoom));
                    }
                }
            }
            Some(Err(_)) => return (read.freeze(), Err(ModelError::BrokeOff)),
            None => return (read.freeze(), Err(ModelError::NotNamed)),
        }
    }
}

/// A whole body, decompressed, of which some was read already; up to the limit for searches.
pub(crate) async fn whole(
    headers: &HeaderMap,
    read: Bytes,
    body: &mut Incoming,
    bounds: &Bounds,
    searching: &AtomicUsize,
) -> Result<Vec<u8>, ModelError> {
    let mut kept = SearchState { searching, bytes: 0 };
    let most = bounds.model.saturating_mul(SEARCHES);
    let compressed = headers.contains_key(CONTENT_ENCODING);
    let mut decoder = Decoder::of(headers, bounds.model).map_err(|_| ModelError::Encoding)?;
    let mut raw = BytesMut::new();
    let mut next = Some(read);
    loop {
        if let Some(data) = next.take().filter(|data| !data.is_empty()) {
            let decoded = decoder.push(&data).map_err(|_| ModelError::Encoding)?;
            if !compressed {
                raw.extend_from_slice(&data);
            }
            if !kept.more(data.len() + decoded, most) {
                return Err(ModelError::NoRoom);
            }
            if raw.len().max(decoder.decoded(&raw).len()) > bounds.model {
                return Err(ModelError::TooFar);
            }
        }
        let frame = tokio::time::timeout(bounds.body_idle, body.frame()).await.map_err(|_| ModelError::Late)?;
        match frame {
            Some(Ok(frame)) => next = frame.into_data().ok(),
            Some(Err(_)) => return Err(ModelError::BrokeOff),
            None => return Ok(decoder.decoded(&raw).to_vec()),
        }
    }
}

/// A whole body as it came, of which some was read already; up to the limit for searches.
pub(crate) async fn raw(
    read: Bytes,
    body: &mut Incoming,
    bounds: &Bounds,
    searching: &AtomicUsize,
) -> Result<Bytes, ModelError> {
    let mut kept = SearchState { searching, bytes: 0 };
    let most = bounds.model.saturating_mul(SEARCHES);
    let mut raw = BytesMut::new();
    let mut next = Some(read);
    loop {
        if let Some(data) = next.take() {
            raw.extend_from_slice(&data);
            if !kept.more(data.len(), most) {
                return Err(ModelError::NoRoom);
            }
            if raw.len() > bounds.model {
                return Err(ModelError::TooFar);
            }
        }
        let frame = tokio::time::timeout(bounds.body_idle, body.frame()).await.map_err(|_| ModelError::Late)?;
        match frame {
            Some(Ok(frame)) => next = frame.into_data().ok(),
            Some(Err(_)) => return Err(ModelError::BrokeOff),
            None => return Ok(raw.freeze()),
        }
    }
}

/// The value of `model` in a query.
pub(crate) fn in_query(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("model="))?;
    Some(crate::model_names::decoded(value))
}

/// Looks for the model in a JSON body that comes in pieces of these lengths.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn scan(body: &[u8], lengths: &[usize]) -> Option<Option<String>> {
    let mut scan = Scan::Json(Json::default());
    let step = lengths.first().copied().unwrap_or(usize::MAX);
    let mut end = 0usize;
    while end < body.len() {
        end = end.saturating_add(step).min(body.len());
        let found = scan.next(&body[..end]);
        if found.is_some() {
            return found;
        }
    }
    None
}

/// A search that goes on as more of a body comes.
#[derive(Debug)]
enum Scan {
    Json(Json),
    Form(Form),
}

impl Scan {
    fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        match Form::of(kind) {
            Some(form) => Self::Form(form),
            None => Self::Json(Json::default()),
        }
    }

    /// Looks at all that was read so far: the model, or that there is none; nothing while that is open.
    fn next(&mut self, read: &[u8]) -> Option<Option<String>> {
        match self {
            Self::Json(json) => json.next(read),
            Self::Form(form) => form.next(read),
        }
    }
}

/// The key `model` of a JSON object, found without building the rest.
#[derive(Debug, Default)]
struct Json {
    at: usize,
    state: State,
    escaped: bool,
    /// The key whose value comes is `model`.
    wanted: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Key,
    InKey(usize),
    Colon,
    Value,
    /// In a value that is a string, from its opening quote on.
    InString(usize),
    /// In a value this deep.
    Nested(u32),
    NestedString(u32),
    Scalar,
    Comma,
}

impl Json {
    fn next(&mut self, read: &[u8]) -> Option<Option<String>> {
        while let Some(byte) = read.get(self.at).copied() {
            if self.escaped {
                self.escaped = false;
                self.at += 1;
                continue;
            }
            let blank = byte.is_ascii_whitespace();
            self.state = match (self.state, byte) {
                (State::InKey(_) | State::InString(_) | State::NestedString(_), b'\\') => {
                    self.escaped = true;
                    self.state
                }
                (State::InKey(start), b'"') => {
                    self.wanted =
                        serde_json::from_slice::<String>(&read[start..=self.at]).is_ok_and(|key| key == "model");
                    State::Colon
                }
                (State::InString(start), b'"') if self.wanted => {
                    return Some(serde_json::from_slice(&read[start..=self.at]).ok());
                }
                (State::InString(_), b'"') => State::Comma,
                (State::NestedString(depth), b'"') => State::Nested(depth),
                (State::InKey(_) | State::InString(_) | State::NestedString(_), _) => self.state,
                (State::Nested(depth), b'"') => State::NestedString(depth),
                (State::Nested(depth), b'{' | b'[') => State::Nested(depth + 1),
                (State::Nested(1), b'}' | b']') => State::Comma,
                (State::Nested(depth), b'}' | b']') => State::Nested(depth - 1),
                (State::Nested(depth), _) => State::Nested(depth),
                (_, _) if blank && self.state != State::Scalar => self.state,
                (State::Start, b'{') => State::Key,
                (State::Key, b'"') => State::InKey(self.at),
                (State::Colon, b':') => State::Value,
                (State::Value, b'"') => State::InString(self.at),
                (State::Value, _) if self.wanted => return Some(None),
                (State::Value, b'{' | b'[') => State::Nested(1),
                (State::Value, _) => State::Scalar,
                (State::Scalar | State::Comma, b',') => State::Key,
                (State::Scalar, b'}') | (State::Comma | State::Key, _) | (State::Start | State::Colon, _) => {
                    return Some(None);
                }
                (State::Scalar, _) => State::Scalar,
            };
            self.at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Option<Option<String>> {
        let found = scan(text.as_bytes(), &[]);
        // However it is cut.
        assert!((1..9).all(|length| scan(text.as_bytes(), &[length]) == found), "{text}");
        found
    }

    #[test]
    fn the_model_is_found_wherever_it_stands() {
        let named = |name: &str| Some(Some(name.to_owned()));
        for (text, expected) in [
            (r#"{"model": "qwen"}"#, named("qwen")),
            (
                r#" { "messages" : [{"model": "no", "x": "}]\"{"}], "n": 1.5e3 , "stream":true,"model":"a\u0062c" }"#,
                named("abc"),
            ),
            (r#"{"a": {"model": "no"}, "m\u006fdel": "yes"}"#, named("yes")),
            (r#"{"a": null}"#, Some(None)),
            (r#"{"model": 5}"#, Some(None)),
            (r#"["model"]"#, Some(None)),
            ("", None),
            (r#"{"a": "model", "b": [1, 2"#, None),
            ("{}", Some(None)),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
    }

    #[test]
    fn a_query_names_it_too() {
        assert_eq!(in_query("a=b&model=x"), Some("x".to_owned()));
        assert_eq!(in_query("model=Qwen%2FQwen3+lora"), Some("Qwen/Qwen3+lora".to_owned()));
    }
}
