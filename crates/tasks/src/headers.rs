//! What a submission says in its headers.

use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use kip_spec::Millis;

use crate::envelope::{Call, Origin};
use crate::error::Error;
use crate::shared::Submission;

/// Headers of a submission that are not for the function.
fn is_ours(name: &HeaderName) -> bool {
    let text = name.as_str();
    let connection = [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name);
    connection || text == "keep-alive" || ["x-fc-", "x-kip-", "proxy-"].iter().any(|prefix| text.starts_with(prefix))
}

/// What may be said of a task, `x-kip-task-` apart.
const SAID: [&str; 6] = ["delay", "priority", "order", "max-age", "retries", "stateful"];

/// Whether a request asks to be run later: some clients write the word as a JSON string.
///
/// # Errors
/// [`Error::Submission`] if it asks for something else than that or to be run at once.
pub fn is_async(headers: &HeaderMap) -> Result<bool, Error> {
    let Some(word) = text(headers, "x-fc-invocation-type")? else { return Ok(false) };
    let is = |known: &str| word.eq_ignore_ascii_case(known);
    if is("async") || is("sync") || word.is_empty() {
        return Ok(is("async"));
    }
    Err(Error::Submission("x-fc-invocation-type is Sync or Async".to_owned()))
}

fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::Submission(format!("the header {name} is there twice")));
    }
    let value = value.to_str().map_err(|_| Error::Submission(format!("the header {name} is not readable")))?.trim();
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    Ok(Some(bare.to_owned()))
}

fn time(headers: &HeaderMap, name: &str) -> Result<Option<Duration>, Error> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let parsed: Result<Millis, _> = text.parse();
    parsed.map(|time| Some(time.to_std())).map_err(|error| Error::Submission(format!("{name} is a duration: {error}")))
}

fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Result<Option<T>, Error> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Error::Submission(format!("{name} is not a number in its range")))
}

fn switch(headers: &HeaderMap, name: &str) -> Result<bool, Error> {
    match text(headers, name)?.as_deref() {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(Error::Submission(format!("{name} is 1 or 0"))),
    }
}

impl Submission {
    /// What headers say of a submission.
    ///
    /// # Errors
    /// [`Error::Submission`] about the first that cannot be read.
    pub fn of_headers(headers: &HeaderMap) -> Result<Self, Error> {
        is_async(headers)?;
        let mut names = headers.keys().filter_map(|name| name.as_str().strip_prefix("x-kip-task-"));
        if let Some(unknown) = names.find(|name| !SAID.contains(name)) {
            let known = SAID.join(", ");
            return Err(Error::Submission(format!("there is no x-kip-task-{unknown}; what can be said: {known}")));
        }
        Ok(Self {
            id: text(headers, "x-fc-async-task-id")?,
            idempotency: text(headers, "idempotency-key")?.map(ours_apart).transpose()?,
            delay: time(headers, "x-kip-task-delay")?,
            priority: number(headers, "x-kip-task-priority")?,
            order: text(headers, "x-kip-task-order")?,
            max_age: time(headers, "x-kip-task-max-age")?,
            retries: number(headers, "x-kip-task-retries")?,
            stateful: switch(headers, "x-kip-task-stateful")?,
            ..Self::default()
        })
    }
}

/// Keys that begin so are made here: nobody else may stand in for them.
fn ours_apart(key: String) -> Result<String, Error> {
    if key.starts_with("kip-word-") {
        return Err(Error::Submission("an idempotency key does not begin with `kip-word-`".to_owned()));
    }
    Ok(key)
}

impl Call {
    /// A request as it is to be sent later: without what belonged to its connection, and without our keys.
    pub fn of_request(method: &http::Method, target: &http::Uri, headers: &HeaderMap, origin: Origin) -> Self {
        let of_function = |name: &HeaderName, value: &str| {
            let key = *name == AUTHORIZATION || name == "x-api-key" || name == "api-key";
            !(is_ours(name) || (key && value.contains("kw_")))
        };
        let kept = headers.iter().filter_map(|(name, value)| Some((name, value.to_str().ok()?)));
        Self {
            method: method.to_string(),
            path: target.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            headers: kept
                .filter(|(name, value)| of_function(name, value))
                .map(|(name, value)| (name.to_string(), value.to_owned()))
                .collect(),
            origin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_word_is_read_as_clients_write_it() {
        for async_word in ["Async", "async", "\"Async\""] {
            assert!(is_async(&headers(&[("x-fc-invocation-type", async_word)])).unwrap(), "{async_word}");
        }
        assert!(!is_async(&headers(&[("x-fc-invocation-type", "Sync")])).unwrap());
        assert!(!is_async(&HeaderMap::new()).unwrap());
        assert!(is_async(&headers(&[("x-fc-invocation-type", "later")])).is_err());
    }

    #[test]
    fn what_a_submission_says_is_read_or_refused() {
        let lines = [("x-fc-async-task-id", "\"a-1\""), ("x-kip-task-delay", "10s"), ("x-kip-task-priority", "2")];
        let read = Submission::of_headers(&headers(&lines)).unwrap();
        assert_eq!(
            (read.id.as_deref(), read.delay, read.priority),
            (Some("a-1"), Some(Duration::from_secs(10)), Some(2))
        );
        for bad in [
            ("x-kip-task-delay", "soon"),
            ("x-kip-task-priority", "high"),
            ("x-kip-task-retries", "-1"),
            ("x-kip-task-bogus", "1"),
            ("x-kip-task-stateful", "perhaps"),
        ] {
            assert!(Submission::of_headers(&headers(&[bad])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_stored_request_keeps_no_key_of_ours() {
        let lines = [
            ("authorization", "Bearer kw_secret"),
            ("x-api-key", "of-the-function"),
            ("content-length", "3"),
            ("x-fc-invocation-type", "Async"),
            ("x-own", "1"),
        ];
        let target = "/a?b=1".parse().unwrap();
        let call = Call::of_request(&http::Method::POST, &target, &headers(&lines), Origin::default());
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/a?b=1"));
        let mut names: Vec<&str> = call.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["x-api-key", "x-own"]);
    }
}
