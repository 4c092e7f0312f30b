//! Which model a request is for, where that is not in its path: the OpenAI style says it in the body.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::connection::Bounds;

/// Why no model was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
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
}

/// Bodies of the largest size that may be searched at once, all threads together; nearly all are much smaller.
const SEARCHES: usize = 16;

/// What one search keeps of what all of them may.
struct Kept<'a> {
    searching: &'a AtomicUsize,
    bytes: usize,
}

impl Kept<'_> {
    fn more(&mut self, bytes: usize, most: usize) -> bool {
        self.bytes += bytes;
        self.searching.fetch_add(bytes, Ordering::Relaxed) + bytes <= most
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.searching.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body until the model is known. What was read of it is given too, for whoever gets the request.
pub(crate) async fn find(
    headers: &HeaderMap,
    body: &mut Incoming,
    bounds: &Bounds,
    searching: &AtomicUsize,
) -> (Bytes, Result<String, Missing>) {
    let mut kept = Kept { searching, bytes: 0 };
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let mut scan = if kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data") {
        Scan::Form { searched: 0 }
    } else {
        Scan::Json(Json::default())
    };
    let mut read = BytesMut::new();
    loop {
        match scan.next(&read) {
            Some(Some(model)) => return (read.freeze(), Ok(model)),
            Some(None) => return (read.freeze(), Err(Missing::NotNamed)),
            None if read.len() >= bounds.model => return (read.freeze(), Err(Missing::TooFar)),
            None => {}
        }
        let Ok(frame) = tokio::time::timeout(bounds.body_idle, body.frame()).await else {
            return (read.freeze(), Err(Missing::Late));
        };
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    if !kept.more(data.len(), bounds.model.saturating_mul(SEARCHES)) {
                        return (read.freeze(), Err(Missing::NoRoom));
                    }
                    read.extend_from_slice(&data);
                }
            }
            Some(Err(_)) => return (read.freeze(), Err(Missing::BrokeOff)),
            None => return (read.freeze(), Err(Missing::NotNamed)),
        }
    }
}

/// The value of `model` in a query.
pub(crate) fn in_query(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("model="))?;
    // Names of functions need no escapes; one that has any is unknown anyway.
    Some(value.to_owned())
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
    Form { searched: usize },
}

impl Scan {
    /// Looks at all that was read so far: the model, or that there is none; nothing while that is open.
    fn next(&mut self, read: &[u8]) -> Option<Option<String>> {
        match self {
            Self::Json(json) => json.next(read),
            Self::Form { searched } => form(read, searched),
        }
    }
}

/// The part of a form that is called `model`.
fn form(read: &[u8], searched: &mut usize) -> Option<Option<String>> {
    const NAME: &[u8] = b"name=\"model\"";
    let from = searched.saturating_sub(NAME.len());
    let Some(name) = memchr::memmem::find(&read[from..], NAME).map(|at| from + at + NAME.len()) else {
        *searched = read.len();
        return None;
    };
    // Found again with the next piece, if the value is not complete; little is looked at again.
    *searched = name;
    let rest = &read[name..];
    let head = &rest[..rest.len().min(LONGEST_PART_HEAD)];
    let Some(start) = memchr::memmem::find(head, b"\r\n\r\n").map(|at| at + 4) else {
        return (rest.len() >= LONGEST_PART_HEAD).then_some(None);
    };
    let value = &rest[start..rest.len().min(start + LONGEST_NAME)];
    let Some(length) = memchr::memmem::find(value, b"\r\n") else {
        return (value.len() >= LONGEST_NAME).then_some(None);
    };
    Some(String::from_utf8(value[..length].to_vec()).ok())
}

/// Bytes of the head of a form's part, behind its name.
const LONGEST_PART_HEAD: usize = 1 << 10;
/// Bytes of a model's name in a form; functions have shorter ones.
const LONGEST_NAME: usize = 256;

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
    fn a_form_names_it_too() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--b\r\n\
                     Content-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b--\r\n";
        let mut scan = Scan::Form { searched: 0 };
        let found = (1..=body.len()).find_map(|end| scan.next(&body[..end]));
        assert_eq!(found, Some(Some("whisper".to_owned())));
        assert_eq!(in_query("a=b&model=x"), Some("x".to_owned()));
    }
}
