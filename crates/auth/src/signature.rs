//! Signatures of requests with access-key pairs, as an interface: a facade knows their schemes, and every door that takes callers may ask it.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use kip_spec::Problem;

use crate::Key;

/// The head of a request as it was sent: a signature covers its bytes.
#[derive(Debug, Clone, Copy)]
pub struct SignedHead<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, encoded as it was sent.
    pub path: &'a str,
    /// The query without its question mark, encoded as it was sent.
    pub query: &'a str,
    /// The headers, `Host` among them.
    pub headers: &'a HeaderMap,
}

/// Who signed a request.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The key of the access-key pair.
    pub key: Arc<Key>,
    /// What the body was signed with; none where the signature does not cover it.
    pub body: Option<BodyHash>,
}

/// The SHA-256 that a body must have, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyHash(String);

impl BodyHash {
    /// A hash as it was sent.
    pub fn new(digits: &str) -> Self {
        Self(digits.trim().to_ascii_lowercase())
    }

    /// Whether a body has it.
    pub fn is_of(&self, body: &[u8]) -> bool {
        use sha2::Digest as _;
        self.0 == data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(body))
    }
}

/// Checks signatures. A signature is taken once: the answer of the second look at one is that it was sent before.
pub trait SignatureCheck: fmt::Debug + Send + Sync {
    /// Who signed a request. None if it bears no signature of a known scheme.
    fn signer(&self, head: &SignedHead<'_>) -> Option<Result<Signer, Problem>>;
}

/// Signatures of no scheme, for doors that know none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSignatures;

impl SignatureCheck for NoSignatures {
    fn signer(&self, _head: &SignedHead<'_>) -> Option<Result<Signer, Problem>> {
        None
    }
}
