//! YAML as a tree in which every key and value knows its place.
//!
//! The whole text becomes a tree first, because a typed reader stops at its first error and we want them all. The
//! limits here bound time and memory whatever the text is: see [`parse`].

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, Spanned};

/// Where something begins; line and column from 1, the column in characters. Line 0 is "not known".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// From 1; 0 is "not known".
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
}

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Nothing after the colon, `null` or `~`.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A number as it was written: `1.10` stays `1.10`.
    Number(String),
    /// Text, quoted or plain.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values in the order of the file; a repeated key is there twice.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// What it is, in words of YAML, for "… expected, not …".
    pub fn described(&self) -> &'static str {
        match self.kind {
            Kind::Null => "empty",
            Kind::Flag(_) => "true or false",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map of keys",
        }
    }

    /// The text of anything that is written as one word or one string.
    pub fn scalar(&self) -> Option<&str> {
        match &self.kind {
            Kind::Flag(true) => Some("true"),
            Kind::Flag(false) => Some("false"),
            Kind::Number(text) | Kind::Text(text) => Some(text),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }
}

/// Nesting that no manifest reaches; every level costs stack.
const DEEPEST: usize = 32;
/// Nodes after aliases are expanded. A file of the largest size has at most half as many of its own.
const MOST_NODES: usize = 700_000;
/// Events that aliases may add.
const MOST_REPLAYED: usize = 100_000;
/// Bytes of text after aliases are expanded.
const MOST_TEXT: usize = 4 << 20;

/// Reads one document.
pub(crate) fn parse(text: &str) -> Result<Node, Box<serde_saphyr::Error>> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            max_nodes: MOST_NODES,
            max_events: 2 * MOST_NODES,
            max_total_scalar_bytes: MOST_TEXT,
            max_documents: 2,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MOST_REPLAYED,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    let raw: RawValue = serde_saphyr::from_str_with_options(text, options)?;
    Ok(raw.into_node(text))
}

/// The deserialised form, in which numbers have lost their spelling.
struct RawValue(Spanned<RawKind>);

enum RawKind {
    Null,
    Flag(bool),
    Number(String),
    Text(String),
    List(Vec<RawValue>),
    Map(Vec<(RawValue, RawValue)>),
}

impl RawValue {
    fn into_node(self, text: &str) -> Node {
        let Self(Spanned { value, referenced, defined }) = self;
        let kind = match value {
            RawKind::Null => Kind::Null,
            RawKind::Flag(flag) => Kind::Flag(flag),
            RawKind::Number(number) => Kind::Number(spelling(text, &defined).unwrap_or(number)),
            RawKind::Text(text) => Kind::Text(text),
            RawKind::List(items) => Kind::List(items.into_iter().map(|item| item.into_node(text)).collect()),
            RawKind::Map(pairs) => {
                Kind::Map(pairs.into_iter().map(|(key, value)| (key.into_node(text), value.into_node(text))).collect())
            }
        };
        Node { at: Position { line: referenced.line(), column: referenced.column() }, kind }
    }
}

/// How a number stands in the file, tags and odd cases left to the parsed form.
fn spelling(text: &str, place: &Location) -> Option<String> {
    let span = place.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    let written = text.get(start..start.checked_add(length)?)?.trim();
    let plain =
        !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    plain.then(|| written.to_owned())
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for RawKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor)
    }
}

/// Takes whatever comes.
struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = RawKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Null)
    }

    fn visit_none<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawKind, D::Error> {
        RawKind::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawKind, E> {
        Ok(RawKind::Flag(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawKind, E> {
        Ok(RawKind::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawKind, E> {
        Ok(RawKind::Number(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<RawKind, E> {
        Ok(RawKind::Number(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<RawKind, E> {
        Ok(RawKind::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawKind, E> {
        Ok(RawKind::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<RawKind, E> {
        Ok(RawKind::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<RawKind, E> {
        Ok(RawKind::Text(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<RawKind, E> {
        Ok(RawKind::Text(String::from_utf8_lossy(value).into_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawKind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(RawKind::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawKind, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = access.next_entry()? {
            pairs.push(pair);
        }
        Ok(RawKind::Map(pairs))
    }
}
