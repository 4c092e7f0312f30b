//! Who signed a request: both schemes of the interface, with the nonces that were seen. The API asks it, and the gateway for triggers that want
//! signed callers.
//!
//! A request of the API must sign host, time, nonce and the hash of its body. Callers of triggers sign with the vendor's signing library, which
//! covers the time alone; where the nonce is missing, the signature stands for it, and requests that change nothing may be repeated.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Method};
use kip_auth::{BodyHash, Key, Keys, SignatureCheck, SignedHead, Signer};
use kip_spec::{Problem, code};
use parking_lot::Mutex;
use ring::hmac;

use crate::nonces::{NonceRefusal, Nonces};
use crate::sign::{self, Coverage};
use crate::sign_fc;

/// The scheme of version 2.0.
pub(crate) const FC: &str = "FC";
/// Below it, clients of version 2.0 sign the query too.
const PROXY: &str = "/2016-08-15/proxy/";

/// Checks signatures. Cheap to clone: all doors share what was seen.
#[derive(Debug, Clone)]
pub struct Signatures {
    keys: Keys,
    nonces: Arc<Mutex<Nonces>>,
}

/// Whether a signature of the scheme `FC`, which has no nonce, may come again within its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repetition {
    /// Each opens one thing only.
    Once,
    /// What it asks for changes nothing.
    Allowed,
}

pub(crate) fn mismatch(said: impl Into<String>) -> Problem {
    Problem::new(code::SIGNATURE_MISMATCH, said)
}

/// The scheme of a request's `Authorization`, and what follows it.
pub(crate) fn authorization(headers: &HeaderMap) -> Option<(&str, &str)> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')
}

/// What is signed of a request's head.
pub(crate) fn head_of(head: &Parts) -> SignedHead<'_> {
    SignedHead {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        headers: &head.headers,
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim()
}

impl Signatures {
    /// Takes signatures from now on: what was signed before is refused, since nobody knows whether it was sent.
    pub fn new(keys: Keys) -> Self {
        let now = kip_host::clock::wall_millis().div_euclid(1_000);
        Self { keys, nonces: Arc::new(Mutex::new(Nonces::new(now))) }
    }

    /// The key whose secret signed a text.
    fn key_of(&self, access_id: &str, is_signed: impl FnOnce(&str) -> bool) -> Result<Arc<Key>, Problem> {
        let unknown = || Problem::new(code::ACCESS_KEY_UNKNOWN, "the access-key id is not known to this server");
        let (key, secret) = self.keys.pair(access_id).ok_or_else(unknown)?;
        if !is_signed(secret.reveal()) {
            return Err(mismatch("the signature is not that of this request and this access key"));
        }
        Ok(key)
    }

    /// Checks what follows the name of the scheme ACS3-HMAC-SHA256.
    pub(crate) fn acs3(
        &self,
        head: &SignedHead<'_>,
        parameters: &str,
        coverage: Coverage,
    ) -> Result<Arc<Key>, Problem> {
        let signature = sign::parse(parameters, coverage).map_err(mismatch)?;
        let text = sign::canonical(head.method, head.path, head.query, head.headers, &signature).map_err(mismatch)?;
        let key = self.key_of(signature.access_id, |secret| signature.is_of(secret, &text))?;
        let at: jiff::Timestamp = header(head.headers, sign::DATE)
            .parse()
            .map_err(|_| Problem::new(code::SIGNATURE_HEADER, "x-acs-date is a time such as 2026-11-29T12:00:00Z"))?;
        if [sign::DATE, sign::NONCE].iter().any(|name| head.headers.get_all(*name).iter().count() > 1) {
            return Err(mismatch("the time or the nonce is there twice"));
        }
        let has_nonce = signature.headers.contains(&sign::NONCE);
        if has_nonce {
            self.take(&key, header(head.headers, sign::NONCE), at.as_second())?;
        } else if !is_safe(head.method) {
            // By what was signed: the signature itself can be written in several ways.
            let signed = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
            self.take(&key, &BASE64_STANDARD.encode(signed), at.as_second())?;
        } else {
            require_now(at.as_second())?;
        }
        self.use_key(&key)?;
        Ok(key)
    }

    /// Checks what follows the name of the scheme `FC`.
    pub(crate) fn scheme_fc(
        &self,
        head: &SignedHead<'_>,
        parameters: &str,
        repetition: Repetition,
    ) -> Result<Arc<Key>, Problem> {
        let wrong = || mismatch("Authorization is FC ACCESS-KEY-ID:SIGNATURE");
        let (access_id, sent) = parameters.trim().split_once(':').ok_or_else(wrong)?;
        let signature = BASE64_STANDARD.decode(sent).map_err(|_| mismatch("the signature is not base64"))?;
        let query = head.path.starts_with(PROXY).then_some(head.query);
        let text = sign_fc::canonical(head.method, head.path, query, head.headers);
        let key = self.key_of(access_id, |secret| {
            let own = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            hmac::verify(&own, text.as_bytes(), &signature).is_ok()
        })?;
        let at = sign_fc::time(header(head.headers, "date"))?;
        match repetition {
            Repetition::Once => self.take(&key, sent, at)?,
            Repetition::Allowed => require_now(at)?,
        }
        self.use_key(&key)?;
        Ok(key)
    }

    /// Whether a request is signed by a pair that may be used now. That it was sent before is left to the door that it is passed on to.
    pub(crate) fn is_signed(&self, head: &SignedHead<'_>) -> Option<Result<(), Problem>> {
        let (scheme, parameters) = authorization(head.headers)?;
        let apart = Self { keys: self.keys.clone(), nonces: Arc::new(Mutex::new(Nonces::new(i64::MIN))) };
        match scheme {
            sign::SCHEME => Some(apart.acs3(head, parameters, Coverage::Time).map(drop)),
            FC => Some(apart.scheme_fc(head, parameters, Repetition::Allowed).map(drop)),
            _ => None,
        }
    }

    /// Refuses a request whose nonce came before, or whose time, in seconds since 1970, is not now.
    fn take(&self, key: &Key, nonce: &str, at: i64) -> Result<(), Problem> {
        let now = kip_host::clock::wall_millis().div_euclid(1_000);
        self.nonces.lock().take(nonce_of(key.id(), nonce), at, now).map_err(refused)
    }

    /// The pair is known to be the caller's: whether it may be used now is no secret to it.
    fn use_key(&self, key: &Key) -> Result<(), Problem> {
        self.keys.use_pair(key)
    }
}

/// A request of this method changes nothing.
fn is_safe(method: &str) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].iter().any(|safe| safe.as_str() == method)
}

fn require_now(at: i64) -> Result<(), Problem> {
    let now = kip_host::clock::wall_millis().div_euclid(1_000);
    if (at - now).abs() > crate::nonces::WINDOW { Err(refused(NonceRefusal::Skew)) } else { Ok(()) }
}

fn refused(refusal: NonceRefusal) -> Problem {
    let said = match refusal {
        NonceRefusal::Skew => "the request's time differs from the server's by more than 15 minutes",
        NonceRefusal::BeforeStart => "the request was signed before the server started; sign it again",
        NonceRefusal::Replay => "the request was sent before: each needs a nonce of its own",
    };
    Problem::new(code::FC_SIGNATURE, said)
}

/// A nonce of a key as a number of fixed size: callers choose its length.
fn nonce_of(key: u64, nonce: &str) -> u128 {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(format!("{key} {nonce}").as_bytes());
    digest.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

impl SignatureCheck for Signatures {
    fn signer(&self, head: &SignedHead<'_>) -> Option<Result<Signer, Problem>> {
        let (scheme, parameters) = authorization(head.headers)?;
        let repetition = if is_safe(head.method) { Repetition::Allowed } else { Repetition::Once };
        let key = match scheme {
            sign::SCHEME => self.acs3(head, parameters, Coverage::Time),
            FC => self.scheme_fc(head, parameters, repetition),
            _ => return None,
        };
        Some(key.map(|key| {
            let covered = scheme == sign::SCHEME && sign::covers(parameters, sign::CONTENT);
            let body = covered.then(|| BodyHash::new(header(head.headers, sign::CONTENT)));
            Signer { key, body }
        }))
    }
}
