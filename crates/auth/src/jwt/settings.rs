//! The settings of tokens, in the words of the vendor: `jwks`, `tokenLookup`, `claimPassBy`, `whitelist`, `blacklist`; and ours: `jwksUri`,
//! `jwksFile`, `issuer`, `audience`.

use std::fmt;

use http::{HeaderMap, HeaderName, Uri};
use serde_json::{Map, Value};

use super::TokenPolicy;
use super::keys::{KeySet, KeySource};

/// Entries of a list at most.
const MOST: usize = 20;

/// What is wrong with settings of tokens, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

fn wrong<T>(said: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError(said.into()))
}

/// Where something stands in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    Header,
    Query,
    Cookie,
}

/// Where a token is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lookup {
    position: Position,
    name: String,
    /// What stands before the token.
    prefix: String,
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Position::Header => write!(f, "the header {}", self.name),
            Position::Query => write!(f, "the query field {}", self.name),
            Position::Cookie => write!(f, "the cookie {}", self.name),
        }
    }
}

impl Lookup {
    pub(super) fn find(&self, headers: &HeaderMap, uri: &Uri) -> Option<String> {
        let value = match self.position {
            Position::Header => headers.get(&self.name)?.to_str().ok()?.trim().to_owned(),
            // Tokens have only characters that need no encoding.
            Position::Query => field(uri.query()?.split('&'), &self.name)?,
            Position::Cookie => {
                let cookies = headers.get_all(http::header::COOKIE).iter().filter_map(|value| value.to_str().ok());
                cookies.into_iter().find_map(|line| field(line.split(';').map(str::trim), &self.name))?
            }
        };
        let token = value.strip_prefix(self.prefix.trim_end())?.trim();
        (!token.is_empty()).then(|| token.to_owned())
    }
}

fn field<'a>(mut parts: impl Iterator<Item = &'a str>, name: &str) -> Option<String> {
    parts.find_map(|part| part.split_once('=').filter(|(known, _)| *known == name)).map(|(_, value)| value.to_owned())
}

/// Where a claim goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClaimTarget {
    pub(super) position: Position,
    pub(super) claim: String,
    pub(super) name: String,
}

/// What a list of paths means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKind {
    /// They are not checked.
    Unchecked,
    /// Nothing else is checked.
    Checked,
}

/// A setting by its name in any case: the vendor's examples have several.
fn setting<'a>(settings: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let found = settings.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value).filter(|value| !value.is_null())
}

fn text(settings: &Map<String, Value>, name: &str) -> Result<Option<String>, SettingsError> {
    match setting(settings, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => wrong(format!("{name} is text")),
    }
}

fn position(text: &str) -> Result<Position, SettingsError> {
    match text {
        "header" => Ok(Position::Header),
        "query" => Ok(Position::Query),
        "cookie" => Ok(Position::Cookie),
        other => wrong(format!("tokens and claims stand in a header, the query or a cookie, not in `{other}`")),
    }
}

fn header_name(position: Position, name: &str) -> Result<String, SettingsError> {
    if name.is_empty() {
        return wrong("a place for a token or a claim has a name, as in `header:Authorization:Bearer`");
    }
    if position != Position::Header {
        return Ok(name.to_owned());
    }
    match HeaderName::try_from(name) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => wrong(format!("`{name}` is no name of a header")),
    }
}

fn lookups(value: Option<&Value>) -> Result<Vec<Lookup>, SettingsError> {
    let made = |place: &str, name: &str, prefix: &str| {
        let position = position(place)?;
        Ok(Lookup { position, name: header_name(position, name)?, prefix: prefix.to_owned() })
    };
    let all: Result<Vec<Lookup>, SettingsError> = match value {
        None => Ok(vec![made("header", "Authorization", "Bearer")?]),
        Some(Value::String(text)) => text
            .split(',')
            .map(|one| {
                let mut parts = one.trim_start().splitn(3, ':');
                let mut part = || parts.next().unwrap_or_default();
                made(part(), part(), part())
            })
            .collect(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|one| {
                let part = |name: &str| one[name].as_str().unwrap_or_default();
                made(part("readPosition"), part("parameterName"), part("prefix"))
            })
            .collect(),
        Some(_) => wrong("tokenLookup is text such as `header:Authorization:Bearer`"),
    };
    all.and_then(
        |all| if all.is_empty() || all.len() > MOST { wrong("tokenLookup names 1 to 20 places") } else { Ok(all) },
    )
}

fn targets(value: Option<&Value>) -> Result<Vec<ClaimTarget>, SettingsError> {
    let made = |place: &str, claim: &str, name: &str| {
        // `query::` is how the vendor's tool writes none.
        if claim.is_empty() && name.is_empty() {
            return Ok(None);
        }
        let position = position(place)?;
        if position == Position::Cookie {
            return wrong("claims are passed in a header or in the query, not in a cookie");
        }
        let name = header_name(position, if name.is_empty() { claim } else { name })?;
        let ours = ["x-fc-", "x-kip-"].iter().any(|prefix| name.starts_with(prefix));
        let of_the_message = ["host", "content-length", "transfer-encoding", "connection", "authorization"];
        if position == Position::Header && (ours || of_the_message.contains(&name.as_str())) {
            return wrong(format!("a claim cannot be passed in the header {name}"));
        }
        let claim = if claim.is_empty() { name.clone() } else { claim.to_owned() };
        Ok(Some(ClaimTarget { position, claim, name }))
    };
    let all: Result<Vec<Option<ClaimTarget>>, SettingsError> = match value {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => text
            .split(',')
            .filter(|one| !one.trim().is_empty())
            .map(|one| {
                let mut parts = one.trim().splitn(3, ':');
                let mut part = || parts.next().unwrap_or_default();
                made(part(), part(), part())
            })
            .collect(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|one| {
                let part = |name: &str| one[name].as_str().unwrap_or_default();
                made(part("mappingParameterPosition"), part("claimName"), part("mappingParameterName"))
            })
            .collect(),
        Some(_) => wrong("claimPassBy is text such as `header:name:name`"),
    };
    let all: Vec<ClaimTarget> = all?.into_iter().flatten().collect();
    if all.len() > MOST { wrong("claimPassBy names at most 20 claims") } else { Ok(all) }
}

fn paths(value: &Value) -> Result<Vec<String>, SettingsError> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let read: Option<Vec<String>> = list.iter().map(|one| one.as_str().map(str::to_owned)).collect();
    match read {
        Some(paths) if paths.len() <= MOST && paths.iter().all(|path| path.starts_with('/')) => Ok(paths),
        _ => wrong("whitelist and blacklist are at most 20 paths that begin with `/`"),
    }
}

pub(super) fn read(settings: &Map<String, Value>) -> Result<TokenPolicy, SettingsError> {
    let inline = match setting(settings, "jwks") {
        None => None,
        // An empty set is how some tools say that there is none.
        Some(value) if value["keys"].as_array().is_some_and(Vec::is_empty) => None,
        Some(value) => Some(KeySet::read(value).map_err(SettingsError)?),
    };
    let keys = match (inline, text(settings, "jwksUri")?, text(settings, "jwksFile")?) {
        (Some(keys), None, None) => KeySource::inline(keys),
        (None, Some(uri), None) => KeySource::of_uri(&uri).map_err(SettingsError)?,
        (None, None, Some(file)) => KeySource::of_file(&file).map_err(SettingsError)?,
        (None, None, None) => return wrong("jwks is required: the keys whose signatures are accepted"),
        _ => return wrong("one of jwks, jwksUri and jwksFile is given"),
    };
    let list = |name: &str| {
        setting(settings, name).map(paths).transpose().map(|paths| paths.filter(|paths| !paths.is_empty()))
    };
    let paths = match (list("whitelist")?, list("blacklist")?) {
        (Some(_), Some(_)) => return wrong("whitelist and blacklist are not given together"),
        (Some(paths), None) => Some((ListKind::Unchecked, paths)),
        (None, Some(paths)) => Some((ListKind::Checked, paths)),
        (None, None) => None,
    };
    Ok(TokenPolicy {
        keys,
        lookups: lookups(setting(settings, "tokenLookup").filter(|value| value.as_str() != Some("")))?,
        claims: targets(setting(settings, "claimPassBy"))?,
        paths,
        issuer: text(settings, "issuer")?,
        audience: text(settings, "audience")?,
    })
}

/// A text in which only unreserved characters are bare.
pub(super) fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// A text of a query without its encoding; bytes that are not UTF-8 are replaced.
pub(super) fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&kip_spec::escape::unescaped(&text.replace('+', " "))).into_owned()
}
