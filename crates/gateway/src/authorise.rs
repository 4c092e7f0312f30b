//! Who calls, whether it may, and within which limits.
//!
//! For each request that brings a key this costs one hash and one lookup; a key with limits costs two atomic updates more.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};
use kip_auth::{Key, Keys};
use kip_control::Cell;
use kip_host::clock::monotonic_micros;
use kip_records::metrics::Metrics;
use kip_relay::limits::{Allowance, LimitExceeded, Limiter};
use kip_relay::{Answer, Caller, RefusedRequest};
use kip_spec::function::HttpAuth;
use kip_spec::{Problem, RequestId, code};
use parking_lot::RwLock;

use crate::admission::RequestHandler;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The keys, and the state of their limits. One for all threads of the gateway; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    keys: Keys,
    /// By the key's number, for keys with limits only.
    limiters: Arc<RwLock<HashMap<u64, Arc<Limiter>>>>,
    metrics: Metrics,
}

impl Authority {
    pub(crate) fn new(keys: Keys, metrics: Metrics) -> Self {
        Self { keys, limiters: Arc::default(), metrics }
    }

    /// Looks at the key that a request brings, once: all that follows asks the answer.
    pub(crate) fn look(&self, headers: &HeaderMap) -> Credential {
        match kip_auth::credential(headers) {
            None => Credential::Missing,
            Some(sent) if kip_auth::is_ours(sent) => Credential::Ours(self.keys.check(Some(sent)).map_err(Box::new)),
            Some(_) => Credential::Foreign,
        }
    }

    /// Lets through who has a key of this server, whatever for.
    pub(crate) fn require_key(&self, sent: &Credential, id: &RequestId) -> Result<(), Box<Answer>> {
        self.require(sent).map(drop).map_err(|problem| refused(problem, id))
    }

    /// The key; a problem without one.
    fn require(&self, sent: &Credential) -> Result<Arc<Key>, Problem> {
        match sent {
            Credential::Ours(checked) => checked.clone().map_err(|problem| *problem),
            Credential::Missing => self.keys.check(None),
            // No key of ours looks like that; the check says so in its words.
            Credential::Foreign => self.keys.check(Some("")),
        }
    }

    /// Who calls. Nobody in particular, where no key is asked for and none of ours was sent.
    pub(crate) fn authorise(
        &self,
        auth: HttpAuth,
        function: &str,
        sent: &Credential,
        id: &RequestId,
    ) -> Result<Option<Caller>, Box<Answer>> {
        let allowed = || {
            let key = self.require(sent)?;
            key.require_function(function)?;
            Ok(key)
        };
        let key = match (auth, sent) {
            (HttpAuth::Key, _) => allowed().map_err(|problem: Problem| refused(problem, id))?,
            // Whoever may call without a key loses nothing by sending one; where it is good, it is noted and counted.
            (_, Credential::Ours(_)) => match allowed() {
                Ok(key) => key,
                Err(_) => return Ok(None),
            },
            _ => return Ok(None),
        };
        let allowance = Allowance {
            rate: key.rate().map(|(rate, burst)| (rate.interval(), burst)),
            concurrency: key.concurrency(),
        };
        let slot = if allowance == Allowance::default() {
            None
        } else {
            let now = monotonic_micros().saturating_mul(1_000);
            let admitted = self.limiter(key.id()).admit(allowance, now);
            Some(admitted.map_err(|over| self.over_the_limit(&key, over, id))?)
        };
        Ok(Some(Caller { key: key.name().clone(), tenant: key.tenant().clone(), slot }))
    }

    fn limiter(&self, key: u64) -> Arc<Limiter> {
        if let Some(limiter) = self.limiters.read().get(&key) {
            return limiter.clone();
        }
        let mut limiters = self.limiters.write();
        // Keys come seldom; that is when the state of those that are gone goes too.
        let kept: Vec<u64> = self.keys.list().iter().map(|info| info.id).collect();
        limiters.retain(|known, _| kept.contains(known));
        limiters.entry(key).or_default().clone()
    }

    fn over_the_limit(&self, key: &Key, over: LimitExceeded, id: &RequestId) -> Box<Answer> {
        let name = key.name();
        let limit = if over == LimitExceeded::Concurrency { "concurrency" } else { "rate" };
        self.metrics.key_refused(key.name(), limit);
        let (problem, seconds) = match over {
            LimitExceeded::Rate { wait } => {
                let rate = key.rate().map(|(rate, burst)| format!("{rate} with bursts of {burst}")).unwrap_or_default();
                let said = format!("the key `{name}` sends more than it may: {rate}");
                (Problem::new(code::KEY_RATE, said), wait.div_ceil(SECOND).max(1))
            }
            LimitExceeded::Concurrency => {
                let most = key.concurrency().unwrap_or_default();
                let said = format!("the key `{name}` has {most} requests in flight, as many as it may");
                (Problem::new(code::KEY_CONCURRENCY, said), 1)
            }
        };
        let hint = format!("try again later; an administrator can change the limit: kip key set {name}");
        Box::new(kip_relay::problem(Problem { retry_after: Some(seconds), ..problem.hint(hint) }, id))
    }
}

fn refused(problem: Problem, id: &RequestId) -> Box<Answer> {
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
}

impl Credential {
    /// What the caller may know of.
    pub(crate) fn sight(&self) -> Visibility {
        match self {
            Self::Ours(checked) => Visibility(checked.as_ref().ok().cloned()),
            Self::Missing | Self::Foreign => Visibility(None),
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
            Some(key) => key.require_function(cell.name().as_str()).is_ok(),
            None => cell.serving().spec.http.auth == HttpAuth::Anonymous,
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
