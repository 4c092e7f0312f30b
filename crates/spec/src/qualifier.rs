//! How a caller says which version of a function it means, and the host name that says the same.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::VersionId;

/// The qualifier of the version that serves.
pub const LATEST: &str = "LATEST";
/// The longest label of a host name (RFC 1035, section 2.3.4).
const LABEL: usize = 63;
/// Of a label that would be longer, so much is kept before the hash.
const LABEL_BEGIN: usize = LABEL - 9;
/// Between a function and its qualifier in a host name.
const BETWEEN: &str = "--";

/// Why a qualifier was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QualifierError {
    /// Neither a number, an ordinal, nor a name.
    #[error(
        "`{0}` is no qualifier: write LATEST, a version such as 3, a revision such as r12, or the name of an alias"
    )]
    Form(String),
    /// A name that means something else already.
    #[error("`{0}` cannot be the name of an alias: it is read as a version, a revision or LATEST")]
    Reserved(String),
}

/// The name of an alias: 1 to 64 ASCII letters, digits, `-` or `_`, beginning with a letter or `_`, and nothing that is read as a
/// version, a revision or LATEST.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AliasName(Arc<str>);

impl AliasName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AliasName {
    type Err = QualifierError;

    fn from_str(text: &str) -> Result<Self, QualifierError> {
        match text.parse()? {
            QualifierName::Alias(name) => Ok(name),
            _ => Err(QualifierError::Reserved(text.to_owned())),
        }
    }
}

impl TryFrom<String> for AliasName {
    type Error = QualifierError;

    fn try_from(text: String) -> Result<Self, QualifierError> {
        text.parse()
    }
}

impl From<AliasName> for String {
    fn from(name: AliasName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A qualifier as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum QualifierName {
    /// The version that serves.
    Latest,
    /// A published version, by the number that its function gave it.
    Number(u64),
    /// A revision, by its place among those of its function: `r12`.
    Ordinal(u64),
    /// A revision, by its number in the store: `v7`, as older records have it.
    Revision(VersionId),
    /// An alias.
    Alias(AliasName),
}

impl FromStr for QualifierName {
    type Err = QualifierError;

    fn from_str(text: &str) -> Result<Self, QualifierError> {
        let form = || QualifierError::Form(text.to_owned());
        if text.eq_ignore_ascii_case(LATEST) {
            return Ok(Self::Latest);
        }
        let digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = |digits: &str| digits.parse().ok().filter(|number| *number > 0).ok_or_else(form);
        if digits(text) {
            return number(text).map(Self::Number);
        }
        for (letter, numbered) in [("r", Self::Ordinal as fn(u64) -> Self), ("v", |id| Self::Revision(VersionId(id)))] {
            if let Some(rest) = text.strip_prefix(letter).or_else(|| text.strip_prefix(&letter.to_uppercase()))
                && digits(rest)
            {
                return number(rest).map(numbered);
            }
        }
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if first && rest && text.len() <= 64 { Ok(Self::Alias(AliasName(text.into()))) } else { Err(form()) }
    }
}

impl fmt::Display for QualifierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str(LATEST),
            Self::Number(number) => write!(f, "{number}"),
            Self::Ordinal(ordinal) => write!(f, "r{ordinal}"),
            Self::Revision(revision) => revision.fmt(f),
            Self::Alias(name) => name.fmt(f),
        }
    }
}

impl TryFrom<String> for QualifierName {
    type Error = QualifierError;

    fn try_from(text: String) -> Result<Self, QualifierError> {
        text.parse()
    }
}

impl From<QualifierName> for String {
    fn from(name: QualifierName) -> Self {
        name.to_string()
    }
}

/// How a revision is shown: the number of its version if it has one, else its ordinal.
pub fn label(number: Option<u64>, ordinal: u64) -> String {
    match number {
        Some(number) => number.to_string(),
        None => format!("r{ordinal}"),
    }
}

/// A share in percent with at most four places, such as `90` or `0.5`, as millionths.
pub fn share(text: &str) -> Option<u32> {
    let text = text.trim().trim_end_matches('%').trim_end();
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 3 || places.len() > 4 || !digits(whole) || !digits(places) {
        return None;
    }
    let millionths = whole.parse::<u32>().ok()? * 10_000 + format!("{places:0<4}").parse::<u32>().ok()?;
    (millionths <= 1_000_000).then_some(millionths)
}

/// `3`, which then gets everything, or `3=90,4=10`: qualifiers with their shares in millionths. What cannot be read otherwise.
///
/// # Errors
/// The part that cannot be read.
pub fn shares(text: &str) -> Result<Vec<(QualifierName, u32)>, String> {
    if !text.contains(['=', ',']) {
        return Ok(vec![(text.trim().parse().map_err(|error: QualifierError| error.to_string())?, 1_000_000)]);
    }
    let read = |part: &str| {
        let (name, percent) =
            part.split_once('=').ok_or_else(|| format!("`{}` has no share: write 3=90,4=10", part.trim()))?;
        let name = name.trim().parse().map_err(|error: QualifierError| error.to_string())?;
        let share = share(percent).ok_or_else(|| {
            format!("`{}` is no share: write a percentage with at most four places, such as 90 or 0.5", percent.trim())
        })?;
        Ok((name, share))
    };
    text.split(',').map(read).collect()
}

/// The first label of the host name under which a function, or a qualifier of it, is called. In lower case, as host names know no other;
/// a label that would be too long ends in a hash of all of it.
pub fn host_label(function: &str, qualifier: Option<&str>) -> String {
    let mut label = function.to_ascii_lowercase();
    if let Some(qualifier) = qualifier {
        label.push_str(BETWEEN);
        label.push_str(&qualifier.to_ascii_lowercase());
    }
    if label.len() <= LABEL {
        return label;
    }
    // FNV-1a: no secret depends on it, and two names with the same label are refused.
    let hash = label.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}-{hash:08x}", &label[..LABEL_BEGIN])
}

/// How a label may be read as a function and a qualifier, the longest function first.
pub fn split_label(label: &str) -> impl Iterator<Item = (&str, &str)> {
    let places = label.rmatch_indices(BETWEEN);
    places.map(|(at, _)| (&label[..at], &label[at + BETWEEN.len()..])).filter(|(f, q)| !f.is_empty() && !q.is_empty())
}

/// `ocr@prod` as a function and what follows the `@`, if anything does.
pub fn split_name(name: &str) -> (&str, Option<&str>) {
    match name.split_once('@') {
        Some((function, qualifier)) => (function, Some(qualifier)),
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualifiers_are_told_apart_by_their_form() {
        let read = |text: &str| text.parse::<QualifierName>();
        assert_eq!(read("latest"), Ok(QualifierName::Latest));
        assert_eq!(read("3"), Ok(QualifierName::Number(3)));
        assert_eq!(read("r12"), Ok(QualifierName::Ordinal(12)));
        assert_eq!(read("V7"), Ok(QualifierName::Revision(VersionId(7))));
        for name in ["prod", "_x", "v7a", "r", "Prod-2", &"a".repeat(64)] {
            assert_eq!(read(name).unwrap().to_string(), name);
            assert!(name.parse::<AliasName>().is_ok(), "{name}");
        }
        for wrong in ["", "0", "r0", "a.b", "a/b", "é", "-a", "3a", &"a".repeat(65), "99999999999999999999"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for reserved in ["LATEST", "Latest", "3", "r12", "v7"] {
            assert_eq!(reserved.parse::<AliasName>(), Err(QualifierError::Reserved(reserved.to_owned())));
        }
    }

    #[test]
    fn shares_are_read_exactly() {
        let rows = [("90", Some(900_000)), ("0.5", Some(5_000)), ("100%", Some(1_000_000)), ("33.3333", Some(333_333))];
        let wrong = ["", ".5", "100.0001", "1e1", "-1", "0.00001", "1000", "x"].map(|text| (text, None));
        for (text, millionths) in rows.into_iter().chain(wrong) {
            assert_eq!(share(text), millionths, "{text}");
        }
        let number = |number, share| (QualifierName::Number(number), share);
        assert_eq!(shares("3=90, 4=10"), Ok(vec![number(3, 900_000), number(4, 100_000)]));
        assert_eq!(shares(" LATEST "), Ok(vec![(QualifierName::Latest, 1_000_000)]));
        for wrong in ["", "3=", "3=x", "3,4", "a b", "3=90,"] {
            assert!(shares(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_label_fits_a_host_name_and_is_another_for_another_name() {
        assert_eq!(host_label("OCR", Some("Prod")), "ocr--prod");
        assert_eq!(host_label(&"a".repeat(63), None), "a".repeat(63));
        let long = host_label(&"a".repeat(60), Some("prod"));
        assert_eq!(long.len(), 63);
        assert_ne!(long, host_label(&"a".repeat(60), Some("pros")));
        let split: Vec<(&str, &str)> = split_label("a--b--c").collect();
        assert_eq!(split, [("a--b", "c"), ("a", "b--c")]);
        assert_eq!(split_label("a--").count() + split_label("--b").count(), 0);
        assert_eq!(split_name("ocr@prod"), ("ocr", Some("prod")));
    }
}
