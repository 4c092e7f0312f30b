//! Tokens of callers (JWT): where they stand in a request, whose signature they must have, what of them the function is told.
//!
//! The library takes tokens apart and looks at their times; `ring` checks signatures. The algorithm is that of the key and never that of the
//! token alone. Source of the settings: the vendor's page on JWT authentication of HTTP triggers, and the file format of its tools.

mod keys;
mod provider;
mod settings;

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use jsonwebtoken::{Validation, decode};
use kip_spec::{Problem, code};
use parking_lot::RwLock;
use serde_json::{Map, Value};

use self::keys::KeySource;
pub use self::settings::SettingsError;
use self::settings::{ClaimTarget, Lookup, Position};

/// Bytes of a token at most.
const LONGEST: usize = 16 << 10;
/// Seconds by which clocks may differ.
const LEEWAY: u64 = 30;

/// What a trigger or a domain asks of tokens.
#[derive(Debug)]
pub struct TokenPolicy {
    keys: KeySource,
    lookups: Vec<Lookup>,
    claims: Vec<ClaimTarget>,
    /// Paths without a check, or the only paths with one.
    paths: Option<(settings::ListKind, Vec<String>)>,
    issuer: Option<String>,
    audience: Option<String>,
}

/// What a request becomes that is let through.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TokenClaims {
    /// Headers that are taken away: only a token sets them.
    cleared: Vec<HeaderName>,
    /// Headers that are set.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Fields that are taken out of the query.
    fields: Vec<String>,
    /// What is added to the query, already encoded.
    query: Vec<String>,
}

impl TokenClaims {
    /// Changes the head of a request, and gives its target.
    pub fn apply(&self, headers: &mut HeaderMap, target: &Uri) -> Uri {
        for name in &self.cleared {
            headers.remove(name);
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        if self.fields.is_empty() {
            return target.clone();
        }
        let is_ours = |part: &&str| {
            let name = settings::decoded(part.split('=').next().unwrap_or_default());
            self.fields.contains(&name)
        };
        let kept = target.query().unwrap_or_default().split('&').filter(|part| !part.is_empty() && !is_ours(part));
        let parts: Vec<&str> = kept.chain(self.query.iter().map(String::as_str)).collect();
        let query = if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) };
        format!("{}{query}", target.path()).parse().unwrap_or_else(|_| target.clone())
    }
}

impl TokenPolicy {
    /// Reads the settings of a trigger or a domain.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence.
    pub fn read(settings: &Map<String, Value>) -> Result<Self, SettingsError> {
        provider::install();
        settings::read(settings)
    }

    /// Checks the token of a request.
    ///
    /// # Errors
    /// A problem with code KW-2032.
    pub async fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<TokenClaims, Problem> {
        if !self.covers(uri.path()) {
            return Ok(self.cleared());
        }
        let token = self.lookups.iter().find_map(|lookup| lookup.find(headers, uri));
        let token = token.filter(|token| token.len() <= LONGEST).ok_or_else(|| {
            let places: Vec<String> = self.lookups.iter().map(ToString::to_string).collect();
            refused("the request has no token".to_owned()).hint(format!("send it in {}", places.join(" or ")))
        })?;
        let claims = self.claims_of(&token).await?;
        Ok(self.passed(&claims))
    }

    /// Whether a token is asked for at a path.
    fn covers(&self, path: &str) -> bool {
        let Some((kind, paths)) = &self.paths else { return true };
        // The program may read another spelling as the path that it is not listed under.
        let Some(path) = plain(path) else { return true };
        let listed = paths.iter().any(|known| match known.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == *known,
        });
        match kind {
            settings::ListKind::Unchecked => !listed,
            settings::ListKind::Checked => listed,
        }
    }

    async fn claims_of(&self, token: &str) -> Result<Map<String, Value>, Problem> {
        let header = jsonwebtoken::decode_header(token)
            .map_err(|error| refused(format!("the token cannot be read: {error}")))?;
        let candidates = self.keys.find(header.kid.as_deref()).await.map_err(refused)?;
        let mut last = "no key of the set has its `kid` and its algorithm".to_owned();
        for key in candidates.iter().filter(|key| key.algorithm == header.alg) {
            let mut validation = Validation::new(key.algorithm);
            validation.leeway = LEEWAY;
            validation.validate_nbf = true;
            validation.validate_aud = self.audience.is_some();
            let mut required = vec!["exp"];
            if let Some(audience) = &self.audience {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            if let Some(issuer) = &self.issuer {
                validation.set_issuer(&[issuer]);
                required.push("iss");
            }
            validation.set_required_spec_claims(&required);
            match decode::<Map<String, Value>>(token, &key.key, &validation) {
                // Times of another type are no times: a later version of the library may pass over them.
                Ok(data) if ["exp", "nbf"].iter().all(|name| data.claims.get(*name).is_none_or(Value::is_number)) => {
                    return Ok(data.claims);
                }
                Ok(_) => last = "its times are no numbers".to_owned(),
                Err(error) => last = error.to_string(),
            }
        }
        Err(refused(format!("the token is not accepted: {last}")))
    }

    /// What callers claim themselves is taken away.
    fn cleared(&self) -> TokenClaims {
        let mut claims = TokenClaims::default();
        for target in &self.claims {
            match target.position {
                Position::Header => claims.cleared.extend(HeaderName::try_from(&target.name)),
                _ => claims.fields.push(target.name.clone()),
            }
        }
        claims
    }

    fn passed(&self, all: &Map<String, Value>) -> TokenClaims {
        let mut passed = self.cleared();
        for target in &self.claims {
            let Some(value) = all.get(&target.claim) else { continue };
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match target.position {
                // A text that is no header, such as one with a line break, is not passed.
                Position::Header => {
                    let pair = HeaderName::try_from(&target.name).ok().zip(HeaderValue::from_str(&text).ok());
                    passed.headers.extend(pair);
                }
                _ => passed.query.push(format!("{}={}", settings::encoded(&target.name), settings::encoded(&text))),
            }
        }
        passed
    }
}

fn refused(said: String) -> Problem {
    Problem::new(code::JWT_REFUSED, said)
}

/// The policies of all triggers and domains, for all threads of the gateway. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TokenPolicies(Arc<RwLock<HashMap<String, Arc<TokenPolicy>>>>);

impl TokenPolicies {
    /// Those of an owner: a trigger by `trigger:`, its function and its name, a domain by `domain:` and its name.
    pub fn of(&self, owner: &str) -> Option<Arc<TokenPolicy>> {
        self.0.read().get(owner).cloned()
    }

    /// Puts these in the place of all whose owner begins so.
    pub fn replace(&self, beginning: &str, policies: Vec<(String, TokenPolicy)>) {
        let mut all = self.0.write();
        all.retain(|owner, _| !owner.starts_with(beginning));
        all.extend(policies.into_iter().map(|(owner, policy)| (owner, Arc::new(policy))));
    }

    /// Sets them; none takes them away.
    pub fn set(&self, owner: &str, policy: Option<TokenPolicy>) {
        let mut all = self.0.write();
        match policy {
            Some(policy) => drop(all.insert(owner.to_owned(), Arc::new(policy))),
            None => drop(all.remove(owner)),
        }
    }
}

/// A path without escapes; nothing where programs may read it in different ways.
fn plain(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let code = digit(rest.next())? * 16 + digit(rest.next())?;
                let decoded = u8::try_from(code).ok()?;
                if matches!(decoded, b'/' | b'%') || decoded.is_ascii_control() {
                    return None;
                }
                decoded
            }
            byte => byte,
        });
    }
    let path = String::from_utf8(bytes).ok()?;
    let odd = |part: &str| matches!(part, "." | "..") || part.contains(['\\', ';']);
    (!path.contains("//") && !path.split('/').any(odd)).then_some(path)
}

#[cfg(test)]
mod tests;
