//! By what callers of an alias stay on their version.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What makes two requests those of one caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Sticky {
    /// The value of a header, whose name is in lower case.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The key that was sent.
    Key,
}

/// Why a text says no such thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is nothing by which callers stay on their version: write header:NAME, cookie:NAME or key")]
pub struct StickyError(String);

impl Sticky {
    /// The caller in a request with this value. Equal values give equal numbers, on every server and for ever.
    pub fn caller(value: &[u8]) -> u64 {
        // FNV-1a, and the finalizer of SplitMix64: short values that differ in one byte are far apart.
        let hash = value.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        mixed(hash)
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
pub const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl FromStr for Sticky {
    type Err = StickyError;

    fn from_str(text: &str) -> Result<Self, StickyError> {
        let is_token = |name: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            !name.is_empty() && name.len() <= 128 && name.bytes().all(fits)
        };
        match text.split_once(':') {
            None if text == "key" => Ok(Self::Key),
            Some(("header", name)) if is_token(name) => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(("cookie", name)) if is_token(name) => Ok(Self::Cookie(name.to_owned())),
            _ => Err(StickyError(text.chars().take(100).collect())),
        }
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Key => f.write_str("key"),
        }
    }
}

impl TryFrom<String> for Sticky {
    type Error = StickyError;

    fn try_from(text: String) -> Result<Self, StickyError> {
        text.parse()
    }
}

impl From<Sticky> for String {
    fn from(sticky: Sticky) -> Self {
        sticky.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_nothing_else_is_taken() {
        for text in ["header:x-user", "cookie:Session", "key"] {
            assert_eq!(text.parse::<Sticky>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-User".parse::<Sticky>().unwrap(), Sticky::Header("x-user".to_owned()));
        for text in ["", "header:", "header:a b", "cookie:a=b", "ip", "header", "Key", "header:a:b"] {
            assert!(text.parse::<Sticky>().is_err(), "{text}");
        }
    }
}
