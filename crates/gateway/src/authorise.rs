//! Who calls, whether it may, and within which limits.
//!
//! For each request that brings a key this costs one hash and one lookup; a key with limits costs two atomic updates more.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Request};
use kip_auth::{Access, BodyHash, Key, Keys, SignatureCheck, SignedHead, Signer, TokenPolicy};
use kip_control::Cell;
use kip_host::clock::monotonic_micros;
use kip_records::metrics::Metrics;
use kip_relay::{Answer, Caller, RefusedRequest};
use kip_spec::function::HttpAuth;
use kip_spec::{Problem, RequestId};
use kip_wire::Role;

use crate::admission::RequestHandler;

/// The keys, with the state of their limits. One for all threads of the gateway; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    keys: Keys,
    signatures: Arc<dyn SignatureCheck>,
    metrics: Metrics,
}

impl Authority {
    pub(crate) fn new(keys: Keys, signatures: Arc<dyn SignatureCheck>, metrics: Metrics) -> Self {
        Self { keys, signatures, metrics }
    }

    /// Looks at the key that a request brings or is signed with, once: all that follows asks the answer.
    pub(crate) fn look<B>(&self, request: &Request<B>) -> Credential {
        let headers = request.headers();
        match kip_auth::credential(headers) {
            Some(sent) if kip_auth::is_ours(sent) => Credential::Ours(self.keys.check(Some(sent)).map_err(Box::new)),
            other => {
                let signed = headers.contains_key(AUTHORIZATION).then(|| self.signer(request)).flatten();
                // What is neither may be a credential of the function's own.
                signed.unwrap_or_else(|| if other.is_some() { Credential::Foreign } else { Credential::Missing })
            }
        }
    }

    fn signer<B>(&self, request: &Request<B>) -> Option<Credential> {
        let head = SignedHead {
            method: request.method().as_str(),
            path: request.uri().path(),
            query: request.uri().query().unwrap_or_default(),
            headers: request.headers(),
        };
        Some(Credential::Signed(self.signatures.signer(&head)?.map_err(Box::new)))
    }

    /// Lets through who has a key of this server, whatever for.
    pub(crate) fn require_key(&self, sent: &Credential, id: &RequestId) -> Result<(), Box<Answer>> {
        self.require(sent).map(drop).map_err(|problem| refused(problem, id))
    }

    /// What a trigger or a domain asks of tokens.
    pub(crate) fn tokens(&self, owner: &str) -> Option<Arc<TokenPolicy>> {
        self.keys.tokens().of(owner)
    }

    /// The key; a problem without one.
    fn require(&self, sent: &Credential) -> Result<Arc<Key>, Problem> {
        match sent {
            Credential::Ours(checked) => checked.clone().map_err(|problem| *problem),
            Credential::Signed(signer) => signer.as_ref().map(|one| one.key.clone()).map_err(|one| *one.clone()),
            Credential::Missing => self.keys.check(None),
            // No key of ours looks like that; the check says so in its words.
            Credential::Foreign => self.keys.check(Some("")),
        }
    }

    /// The key that calls. None where no key is asked for and none that is good for this function was sent.
    pub(crate) fn authorise(
        &self,
        auth: HttpAuth,
        function: &str,
        (sent, has_token): (&Credential, bool),
        id: &RequestId,
    ) -> Result<Option<Arc<Key>>, Box<Answer>> {
        let allowed = || {
            let key = self.require(sent)?;
            key.allows(Access::call(function))?;
            Ok(key)
        };
        match (auth, sent) {
            (HttpAuth::Jwt, Credential::Missing | Credential::Foreign | Credential::Signed(Err(_))) if has_token => {
                Ok(None)
            }
            (HttpAuth::Key | HttpAuth::Jwt, _) => allowed().map(Some).map_err(|problem: Problem| refused(problem, id)),
            // Whoever may call without a key loses nothing by sending one; where it is good, it is noted and counted.
            (_, Credential::Ours(_) | Credential::Signed(_)) => Ok(allowed().ok()),
            _ => Ok(None),
        }
    }

    /// Takes a place within the limits of the key that calls.
    pub(crate) fn admit(&self, key: &Key, id: &RequestId) -> Result<Caller, Box<Answer>> {
        let slot = key.admit(|| monotonic_micros().saturating_mul(1_000)).map_err(|refusal| {
            self.metrics.key_refused(key.name(), refusal.limit);
            Box::new(kip_relay::problem(refusal.problem, id))
        })?;
        let operates = key.role() >= Role::Operate;
        Ok(Caller { key: key.name().clone(), tenant: key.tenant().clone(), operates, slot })
    }

    /// Whether a caller may be told that a function of this name does not exist. Else the answer is the same as for one that exists and is
    /// not for it. `keyed` says whether some functions need a key.
    pub(crate) fn tell_unknown(
        &self,
        name: &str,
        sent: &Credential,
        id: &RequestId,
        keyed: impl FnOnce() -> bool,
    ) -> Result<(), Box<Answer>> {
        let told = match sent {
            sent if sent.key().is_some() => {
                sent.key().map_or(Ok(()), |key| key.allows(Access::call(name)).map_err(Problem::from))
            }
            _ if keyed() => self.require(sent).map(drop),
            _ => Ok(()),
        };
        told.map_err(|problem| refused(problem, id))
    }
}

pub(crate) fn refused(problem: Problem, id: &RequestId) -> Box<Answer> {
    let unknown = problem.code.status() == 401;
    let mut answer = kip_relay::problem(problem, id);
    if unknown {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    Box::new(answer)
}

/// The key that a request brings.
#[derive(Debug)]
pub(crate) enum Credential {
    /// None.
    Missing,
    /// Something that no key of ours looks like: the function's own, perhaps.
    Foreign,
    /// It looks like ours, and was checked.
    Ours(Result<Arc<Key>, Box<Problem>>),
    /// The signature of an access-key pair, which was checked.
    Signed(Result<Signer, Box<Problem>>),
}

impl Credential {
    /// What the caller may know of.
    pub(crate) fn sight(&self) -> Visibility {
        Visibility(self.key().cloned())
    }

    /// The key of this server that the caller has shown to have.
    pub(crate) fn key(&self) -> Option<&Arc<Key>> {
        match self {
            Self::Ours(checked) => checked.as_ref().ok(),
            Self::Signed(signer) => signer.as_ref().ok().map(|signer| &signer.key),
            Self::Missing | Self::Foreign => None,
        }
    }

    /// The hash that the body was signed with.
    pub(crate) fn body(&self) -> Option<&BodyHash> {
        match self {
            Self::Signed(Ok(signer)) => signer.body.as_ref(),
            _ => None,
        }
    }
}

/// Which functions a caller may know of.
#[derive(Debug)]
pub(crate) struct Visibility(Option<Arc<Key>>);

impl Visibility {
    /// With a key what the key is for, without one what anybody may call.
    pub(crate) fn sees(&self, cell: &Cell) -> bool {
        match &self.0 {
            Some(key) => key.sees(cell.name().as_str()),
            None => cell.is_open(),
        }
    }
}

impl RequestHandler {
    /// Counts what was answered here, before it came to a function, and logs it where that is asked for.
    pub(crate) fn note_refusal(&self, (method, path): (&str, &str), answer: &Answer, id: &RequestId, peer: IpAddr) {
        let code = answer.body().problem().map(|problem| problem.code);
        let status = answer.status().as_u16();
        self.relay.refused(RefusedRequest { request: id, peer: Some(peer), method, path, status, code });
    }
}
