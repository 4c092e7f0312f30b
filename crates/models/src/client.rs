//! Requests to hubs: redirects, which never carry a token to another host, waits that a hub asks for, and answers with a bound.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HOST, HeaderName, LOCATION, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use kip_host::clock::wall_millis;
use kip_host::http_client;
use kip_host::tls::Trust;
use kip_spec::named_secret::SecretText;
use parking_lot::Mutex;

use crate::error::Error;

/// Redirects of one request at most.
const HOPS: usize = 10;
/// From a request to the head of its answer.
const HEAD: Duration = Duration::from_secs(60);
/// Bytes of an answer that is read as a whole.
const LARGEST_ANSWER: usize = 64 << 20;
/// A hub cannot make us wait longer than this at once.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What a caller shows to one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `https://host[:port]`, without a slash at its end.
    pub(crate) base: String,
    pub(crate) token: Option<SecretText>,
}

/// Sends requests. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Client {
    /// The file of certificates, in place of the system's.
    certificates: Option<PathBuf>,
    trust: Arc<Mutex<Option<Trust>>>,
}

/// How one try failed.
#[derive(Debug)]
pub(crate) enum TryFailure {
    /// Another try may go well, after this wait if the hub named one.
    Later { reason: String, wait: Option<Duration> },
    /// No other try will.
    Never(Error),
}

impl TryFailure {
    pub(crate) fn later(reason: impl std::fmt::Display) -> Self {
        Self::Later { reason: reason.to_string(), wait: None }
    }
}

/// The parts of an address that a connection needs.
fn authority_of(uri: &Uri) -> Option<(bool, String)> {
    let tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return None,
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Some((tls, format!("{}:{port}", authority.host().to_ascii_lowercase())))
}

/// Where a redirect leads; `None` where it leads nowhere that may be followed.
fn redirected(from: &Uri, location: &str) -> Option<Uri> {
    let next: Uri = match location.parse::<Uri>() {
        Ok(uri) if uri.scheme().is_some() => uri,
        Ok(_) if location.starts_with('/') && !location.starts_with("//") => {
            format!("{}://{}{location}", from.scheme_str()?, from.authority()?).parse().ok()?
        }
        _ => return None,
    };
    let ((tls_before, _), (tls, _)) = (authority_of(from)?, authority_of(&next)?);
    (tls || !tls_before).then_some(next)
}

impl Client {
    pub(crate) fn new(certificates: Option<PathBuf>) -> Self {
        Self { certificates, trust: Arc::default() }
    }

    fn trust(&self) -> Result<Trust, TryFailure> {
        let mut trust = self.trust.lock();
        if let Some(trust) = &*trust {
            return Ok(trust.clone());
        }
        let made = Trust::of(self.certificates.as_deref()).map_err(|error| {
            TryFailure::Never(Error::Unreachable { address: "https".to_owned(), reason: error.to_string() })
        })?;
        Ok(trust.insert(made).clone())
    }

    /// Sends a request and follows redirects. An answer of an error is an answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        address: &str,
        endpoint: &Endpoint,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Response<Incoming>, TryFailure> {
        let unusable =
            |reason: &str| TryFailure::Never(Error::Answer { address: shown(address), reason: reason.to_owned() });
        let own = endpoint.base.parse::<Uri>().ok().as_ref().and_then(authority_of);
        let mut uri: Uri = address.parse().map_err(|_| unusable("its address cannot be read"))?;
        for _ in 0..HOPS {
            let (tls, authority) = authority_of(&uri).ok_or_else(|| unusable("its address is not http or https"))?;
            let mut request = Request::new(Full::<Bytes>::default());
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
            let all = request.headers_mut();
            all.insert(USER_AGENT, HeaderValue::from_static(concat!("kipwake/", env!("CARGO_PKG_VERSION"))));
            // As it stands in the address: signatures cover it.
            if let Some(host) = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
                all.insert(HOST, host);
            }
            all.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            all.extend(headers.iter().cloned().collect::<HeaderMap>());
            // A token is for the endpoint that it was given for, whatever host it sends us to.
            if let Some(token) = &endpoint.token
                && own.as_ref() == Some(&(tls, authority.clone()))
                && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
            {
                value.set_sensitive(true);
                all.insert(AUTHORIZATION, value);
            }
            let answer = match tls {
                true => {
                    let trust = self.trust()?;
                    tokio::time::timeout(HEAD, http_client::open_tls(&trust, &authority, request)).await
                }
                false => tokio::time::timeout(HEAD, http_client::open(&authority, request)).await,
            };
            let answer = match answer {
                Ok(answer) => answer.map_err(|error| TryFailure::later(described(&error)))?,
                Err(_) => return Err(TryFailure::later(format!("no answer within {HEAD:?}"))),
            };
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            uri = location
                .and_then(|location| redirected(&uri, location))
                .ok_or_else(|| unusable("it redirects to an address that is not followed"))?;
        }
        Err(unusable("it redirects again and again"))
    }

    /// Sends a request until it is answered, and reads the whole answer.
    pub(crate) async fn read(
        &self,
        address: &str,
        endpoint: &Endpoint,
        patience: Duration,
    ) -> Result<CompleteAnswer, Error> {
        let mut waits = Backoff::new(patience);
        loop {
            let tried = async {
                let answer = settled(self.send(Method::GET, address, endpoint, &[]).await?)?;
                let (head, body) = answer.into_parts();
                let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(TryFailure::later)?;
                Ok(CompleteAnswer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
            };
            match tried.await {
                Ok(whole) => return Ok(whole),
                Err(TryFailure::Never(error)) => return Err(error),
                Err(TryFailure::Later { reason, wait }) => waits.pause(address, reason, wait).await?,
            }
        }
    }
}

/// An answer that was read as a whole.
#[derive(Debug)]
pub(crate) struct CompleteAnswer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The answers that mean "later" become a failure.
pub(crate) fn settled(answer: Response<Incoming>) -> Result<Response<Incoming>, TryFailure> {
    let status = answer.status();
    let is_later =
        matches!(status.as_u16(), 408 | 429) || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED);
    if !is_later {
        return Ok(answer);
    }
    let wait = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(wait_of);
    Err(TryFailure::Later { reason: format!("it answers {status}"), wait })
}

/// Seconds, or a date.
fn wait_of(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let now = Duration::from_millis(u64::try_from(wall_millis()).unwrap_or(0));
    Some(at.saturating_sub(now))
}

/// The waits between tries, which grow until something goes well.
#[derive(Debug)]
pub(crate) struct Backoff {
    patience: Duration,
    waited: Duration,
    next: Duration,
}

const FIRST_WAIT: Duration = Duration::from_millis(250);
const USUAL_WAIT: Duration = Duration::from_secs(30);

impl Backoff {
    /// Backoff for so long in all while nothing goes well.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, waited: Duration::ZERO, next: FIRST_WAIT }
    }

    /// Something went well.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.patience);
    }

    /// Backoff before the next try.
    pub(crate) async fn pause(&mut self, address: &str, reason: String, asked: Option<Duration>) -> Result<(), Error> {
        let wait = asked.unwrap_or(self.next).clamp(Duration::from_millis(1), LONGEST_WAIT);
        self.waited += wait;
        if self.waited > self.patience {
            return Err(Error::Unreachable { address: shown(address), reason });
        }
        self.next = (self.next * 2).min(USUAL_WAIT);
        tracing::debug!(address = shown(address), reason, ?wait, "a request to a hub is tried again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// An address without its query, which may hold a signature.
pub(crate) fn shown(address: &str) -> String {
    address.split_once('?').map_or(address, |(before, _)| before).to_owned()
}

fn described(error: &http_client::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_http_and_never_out_of_tls() {
        let follow = |from: &str, to: &str| redirected(&from.parse().unwrap(), to).map(|uri| uri.to_string());
        assert_eq!(follow("https://h/a", "/b?c"), Some("https://h/b?c".to_owned()));
        assert_eq!(follow("http://h:1/a", "https://k/b"), Some("https://k/b".to_owned()));
        assert_eq!(follow("https://h/a", "http://h/b"), None);
        for bad in ["//k/b", "file:///etc/passwd", "b", "", "https://u:p@h/x"] {
            assert_eq!(follow("https://h/a", bad), None, "{bad}");
        }
    }

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        assert_eq!(wait_of("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait_of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(wait_of("soon"), None);
    }

    #[tokio::test]
    async fn waits_end_when_the_patience_does() {
        let mut waits = Backoff::new(Duration::from_millis(5));
        let millis = |number| Some(Duration::from_millis(number));
        for _ in 0..4 {
            waits.pause("http://h/x?secret", "no".to_owned(), millis(1)).await.unwrap();
        }
        waits.reset();
        waits.pause("http://h", "no".to_owned(), millis(5)).await.unwrap();
        let error = waits.pause("http://h/x?secret", "no".to_owned(), millis(1)).await.unwrap_err();
        assert!(!error.to_string().contains("secret") && error.to_string().contains("http://h/x"), "{error}");
    }
}
