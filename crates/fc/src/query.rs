//! Queries and paths as clients send them: percent-encoded, with `+` for a blank in queries.

use serde_json::{Value, json};

use crate::error::{FcError, FcResult};

/// The pairs of a query, decoded.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decoded(name, true), decoded(value, true))
        })
        .collect()
}

/// A text without its percent-encoding; bytes that are not UTF-8 are replaced.
pub(crate) fn decoded(text: &str, blanks: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |byte: &u8| char::from(*byte).to_digit(16);
        let pair = match after {
            [high, low, ..] if *first == b'%' => hex(high).zip(hex(low)),
            _ => None,
        };
        match pair {
            Some((high, low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = &after[2..];
            }
            None => {
                bytes.push(if blanks && *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A text in which only unreserved characters are bare.
pub(crate) fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueryFields(Vec<(String, String)>);

impl QueryFields {
    pub(crate) fn read(query: &str) -> Self {
        Self(pairs(query))
    }

    /// A field; one that is empty is not given.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// The qualifier; LATEST if none is given.
    pub(crate) fn qualifier(&self) -> &str {
        self.get("qualifier").unwrap_or(kip_control::LATEST)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// How many rows of a list are wanted.
    pub(crate) fn limit(&self) -> FcResult<usize> {
        self.limit_of("limit")
    }

    pub(crate) fn limit_of(&self, name: &str) -> FcResult<usize> {
        match self.get(name).map_or(Ok(FEW), str::parse) {
            Ok(limit @ 1..=MANY) => Ok(limit),
            _ => Err(FcError::invalid(format!("{name} is a number from 1 to {MANY}"))),
        }
    }

    /// A list, which clients write as JSON.
    pub(crate) fn list(&self, name: &str) -> FcResult<Vec<Value>> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(text) => serde_json::from_str(text)
                .map_err(|_| FcError::invalid(format!("{name} is a list in JSON, such as [\"a\"]"))),
        }
    }

    pub(crate) fn number(&self, name: &str) -> FcResult<Option<i64>> {
        let number = self.get(name).map(str::parse).transpose();
        number.map_err(|_| FcError::invalid(format!("{name} is a whole number")))
    }
}

/// Rows of a list where nothing is said, and at most.
const FEW: usize = 20;
const MANY: usize = 100;

/// A page of rows that are sorted by name, and the token of the next page.
pub(crate) fn page<T>(
    rows: Vec<T>,
    query: &QueryFields,
    name: impl Fn(&T) -> String,
) -> FcResult<(Vec<T>, Option<String>)> {
    let limit = query.limit()?;
    let (prefix, after) = (query.get("prefix").unwrap_or_default(), query.get("nextToken"));
    let mut rest = rows.into_iter().filter(|row| {
        let name = name(row);
        name.starts_with(prefix) && after.is_none_or(|after| name.as_str() > after)
    });
    let page: Vec<T> = rest.by_ref().take(limit).collect();
    let more = rest.next().is_some();
    let next = if more { page.last().map(&name) } else { None };
    Ok((page, next))
}

/// A list with the token of its next page, if there is one.
pub(crate) fn listed(name: &str, rows: Vec<Value>, next: Option<String>) -> Value {
    let mut answer = json!({name: rows});
    if let Some(next) = next {
        answer["nextToken"] = next.into();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_blanks_and_stars_are_the_same_text() {
        assert_eq!(pairs("a=1+2&b=1%202&c=*&d=%2A&e"), pairs("a=1%202&b=1+2&c=%2A&d=*&e="));
        assert_eq!(encoded("a b*/ä~"), "a%20b%2A%2F%C3%A4~");
        assert_eq!(decoded("a%2Fb+c%zz%", false), "a/b+c%zz%");
    }

    #[test]
    fn pages_add_up_to_the_list() {
        let rows = || ["a1", "a2", "b1", "b2", "b3"].map(str::to_owned).to_vec();
        let (mut all, mut token) = (Vec::new(), String::new());
        for round in 0.. {
            assert!(round < 9);
            let query = QueryFields::read(&format!("limit=2&nextToken={token}"));
            let (page, next) = page(rows(), &query, Clone::clone).unwrap();
            all.extend(page);
            let Some(next) = next else { break };
            token = next;
        }
        assert_eq!(all, rows());
        let (found, next) = page(rows(), &QueryFields::read("prefix=b&limit=3"), Clone::clone).unwrap();
        assert_eq!((found.len(), next), (3, None));
        assert!(QueryFields::read("limit=0").limit().is_err() && QueryFields::read("limit=101").limit().is_err());
    }
}
