//! The keys whose signatures are accepted: in the settings, in a file, or at an address.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use kip_host::clock::boot_millis;
use kip_host::http_client;
use kip_host::tls::Trust;
use serde_json::Value;

/// Keys of a set at most.
const MOST: usize = 100;
/// Bytes of a set at most.
const LARGEST: usize = 1 << 20;
/// The longest wait for a set from elsewhere.
const LIMIT: Duration = Duration::from_secs(5);
/// A set from elsewhere is brought again after this, milliseconds.
const FRESH: u64 = 600_000;
/// A key that is not in the set brings it again, but only this often, milliseconds.
const AGAIN: u64 = 60_000;
/// Redirects that are followed, on the same host.
const REDIRECTS: usize = 3;

/// A key, and the one algorithm that it is for.
#[derive(Debug, Clone)]
pub(super) struct TokenKey {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// A set of keys.
#[derive(Debug, Clone, Default)]
pub(super) struct KeySet(Vec<TokenKey>);

/// The algorithm of a key: what it says itself, if that belongs to its type, else the usual one of its type.
fn algorithm(jwk: &Jwk) -> Result<Option<Algorithm>, String> {
    let said = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
    let read = said.as_deref().map(Algorithm::from_str);
    let known: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return Ok(None),
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        AlgorithmParameters::OctetKey(_) => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        _ => return Ok(None),
    };
    match read {
        // Without its own word, a shared secret could be meant for anything.
        None => Ok(known.first().copied()),
        Some(Ok(algorithm)) if known.contains(&algorithm) => Ok(Some(algorithm)),
        // For encryption, say.
        Some(Err(_)) => Ok(None),
        Some(Ok(_)) => Err(format!("a key says {}, which is not for its type", said.unwrap_or_default())),
    }
}

impl KeySet {
    /// Reads a set (RFC 7517). Keys that are for something else are left out.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let keys = value["keys"].as_array().ok_or("jwks is an object with a list `keys`")?;
        if keys.len() > MOST {
            return Err(format!("a set has at most {MOST} keys"));
        }
        let mut all = Vec::with_capacity(keys.len());
        for (number, one) in keys.iter().enumerate() {
            let wrong = |said: String| format!("key {} of jwks cannot be used: {said}", number + 1);
            let jwk: Jwk = serde_json::from_value(one.clone()).map_err(|error| wrong(error.to_string()))?;
            if jwk.common.public_key_use.as_ref().is_some_and(|of| *of != PublicKeyUse::Signature) {
                continue;
            }
            let Some(algorithm) = algorithm(&jwk).map_err(wrong)? else { continue };
            let key = DecodingKey::from_jwk(&jwk).map_err(|error| wrong(error.to_string()))?;
            all.push(TokenKey { id: jwk.common.key_id, algorithm, key });
        }
        match all.is_empty() {
            true => Err("jwks has no key that checks signatures".to_owned()),
            false => Ok(Self(all)),
        }
    }

    /// The keys that a token with this id may be signed with. Without an id it may be any.
    fn find(&self, id: Option<&str>) -> Vec<TokenKey> {
        let fits = |key: &&TokenKey| match (id, key.id.as_deref()) {
            (Some(wanted), Some(own)) => wanted == own,
            _ => true,
        };
        self.0.iter().filter(fits).cloned().collect()
    }
}

/// Where a set comes from.
#[derive(Debug)]
enum Place {
    File(PathBuf),
    Address { secure: bool, authority: String, path: String },
}

/// What was brought, and when, in milliseconds since the boot.
#[derive(Debug, Default)]
struct Brought {
    set: Option<Arc<KeySet>>,
    tried: Option<u64>,
    good: Option<u64>,
    failure: String,
}

/// The keys of a policy.
#[derive(Debug)]
pub(super) struct KeySource {
    inline: Option<Arc<KeySet>>,
    place: Option<Place>,
    brought: tokio::sync::Mutex<Brought>,
}

impl KeySource {
    fn new(inline: Option<KeySet>, place: Option<Place>) -> Self {
        Self { inline: inline.map(Arc::new), place, brought: tokio::sync::Mutex::default() }
    }

    pub(super) fn inline(keys: KeySet) -> Self {
        Self::new(Some(keys), None)
    }

    pub(super) fn of_file(path: &str) -> Result<Self, String> {
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err("jwksFile is an absolute path".to_owned());
        }
        Ok(Self::new(None, Some(Place::File(path))))
    }

    pub(super) fn of_uri(uri: &str) -> Result<Self, String> {
        let wrong = || format!("jwksUri is an address such as https://id.example.com/jwks.json, not `{uri}`");
        let parsed: http::Uri = uri.parse().map_err(|_| wrong())?;
        let secure = match parsed.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = parsed.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let port = parsed.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self::new(None, Some(Place::Address { secure, authority: format!("{host}:{port}"), path })))
    }

    /// The keys that a token with this id may be signed with. An id that is not known brings the set again, at most once a minute.
    pub(super) async fn find(&self, id: Option<&str>) -> Result<Vec<TokenKey>, String> {
        if let Some(inline) = &self.inline {
            return Ok(inline.find(id));
        }
        let Some(place) = &self.place else { return Ok(Vec::new()) };
        // One brings it; others wait for that.
        let mut brought = self.brought.lock().await;
        let now = boot_millis();
        let since = |at: Option<u64>| at.map_or(u64::MAX, |at| now.saturating_sub(at));
        let found = brought.set.as_ref().map(|set| set.find(id)).unwrap_or_default();
        let wanted = found.is_empty() || since(brought.good) >= FRESH;
        if wanted && since(brought.tried) >= AGAIN {
            brought.tried = Some(now);
            match bring(place).await.and_then(|value| KeySet::read(&value)) {
                Ok(set) => {
                    brought.set = Some(Arc::new(set));
                    brought.good = Some(now);
                }
                Err(failure) => {
                    tracing::warn!(failure, "the keys of tokens cannot be brought");
                    brought.failure = failure;
                }
            }
        }
        match &brought.set {
            Some(set) => Ok(set.find(id)),
            None => Err(format!("the keys of tokens cannot be brought: {}", brought.failure)),
        }
    }
}

async fn bring(place: &Place) -> Result<Value, String> {
    let bytes = match place {
        Place::File(path) => {
            let path = path.clone();
            let read = kip_host::tasks::blocking("keys of tokens", move || std::fs::read(path)).await;
            let read = read.ok_or("the server is about to end")?;
            Bytes::from(read.map_err(|error| error.to_string())?)
        }
        Place::Address { secure, authority, path } => {
            let work = fetch(*secure, authority, path);
            tokio::time::timeout(LIMIT, work).await.map_err(|_| format!("no answer within {LIMIT:?}"))??
        }
    };
    if bytes.len() > LARGEST {
        return Err(format!("the set has more than {LARGEST} bytes"));
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("the set is no JSON: {error}"))
}

async fn fetch(secure: bool, authority: &str, path: &str) -> Result<Bytes, String> {
    let mut path = path.to_owned();
    for _ in 0..=REDIRECTS {
        let request = Request::get(path.as_str()).header("accept", "application/json").body(Full::default());
        let request = request.map_err(|error| error.to_string())?;
        let answer = if secure {
            let trust = kip_host::tasks::blocking("trusted certificates", || Trust::of(None)).await;
            let trust = trust.ok_or("the server is about to end")?.map_err(|error| error.to_string())?;
            http_client::call_tls(&trust, authority, request, LIMIT).await
        } else {
            http_client::call(authority, request, LIMIT).await
        };
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status {
            200 => return Ok(answer.body),
            301 | 302 | 303 | 307 | 308 => {
                let location = answer.headers.get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
                let target: http::Uri = location.parse().map_err(|_| format!("it redirects to `{location}`"))?;
                // Two slashes begin the name of a host.
                let own = (target.host().is_none() && !location.starts_with("//"))
                    || (target.scheme_str() == Some(if secure { "https" } else { "http" })
                        && authority
                            == format!(
                                "{}:{}",
                                target.host().unwrap_or_default(),
                                target.port_u16().unwrap_or(if secure { 443 } else { 80 })
                            ));
                if !own {
                    return Err(format!("it redirects to another host: {location}"));
                }
                path = target.path_and_query().map_or("/", |path| path.as_str()).to_owned();
            }
            status => return Err(format!("it answers {status}")),
        }
    }
    Err("it redirects too often".to_owned())
}
