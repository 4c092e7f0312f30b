//! Which requests are asked for.

use std::str::FromStr;

use rusqlite::types::Value;

/// Which requests are asked for; an empty filter means all. What is given must all be so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFilter {
    /// Of this function.
    pub function: Option<String>,
    /// That arrived at this time or later, milliseconds since 1970.
    pub since: Option<i64>,
    /// Answered with one of these statuses.
    pub status: Option<StatusRange>,
    /// With this error code.
    pub code: Option<String>,
    /// warm, woken or cold.
    pub start: Option<String>,
    /// provisioned or on-demand.
    pub kind: Option<String>,
    /// Served by this instance.
    pub instance: Option<String>,
    /// Served by this version, by the number of its revision in the store.
    pub version: Option<u64>,
    /// Served by a version that was shown so.
    pub label: Option<String>,
    /// That came with this qualifier.
    pub qualifier: Option<String>,
    /// That took longer than this, in microseconds.
    pub slower_than: Option<u64>,
    /// done, refused, broken or left.
    pub outcome: Option<String>,
    /// With this id.
    pub id: Option<String>,
    /// Called with the key of this name.
    pub key: Option<String>,
    /// Called with a key of this tenant.
    pub tenant: Option<String>,
    /// Of one of these functions; empty means all.
    pub among: Vec<String>,
    /// At most so many.
    pub limit: u32,
}

/// Statuses from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    /// The lowest.
    pub from: u16,
    /// The highest.
    pub to: u16,
}

/// Statuses have three digits; 0 is a caller that left before there was one.
const HIGHEST: u16 = 999;

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a status: write 404, 5xx, >=500 or <400");
        let number =
            |digits: &str| digits.trim().parse::<u16>().ok().filter(|number| *number <= HIGHEST).ok_or_else(wrong);
        if let Some(class) = text.strip_suffix("xx") {
            let class = number(class)?;
            return (1..=5)
                .contains(&class)
                .then(|| Self { from: class * 100, to: class * 100 + 99 })
                .ok_or_else(wrong);
        }
        let range = if let Some(digits) = text.strip_prefix(">=") {
            Self { from: number(digits)?, to: HIGHEST }
        } else if let Some(digits) = text.strip_prefix("<=") {
            Self { from: 0, to: number(digits)? }
        } else if let Some(digits) = text.strip_prefix('>') {
            Self { from: number(digits)? + 1, to: HIGHEST }
        } else if let Some(digits) = text.strip_prefix('<') {
            Self { from: 0, to: number(digits)?.checked_sub(1).ok_or_else(wrong)? }
        } else {
            let status = number(text)?;
            Self { from: status, to: status }
        };
        Ok(range)
    }
}

impl RequestFilter {
    /// The query and its values. Terms that repeat an index's own condition let SQLite use it.
    pub(crate) fn query(&self) -> (String, Vec<Value>) {
        let mut terms: Vec<String> = Vec::new();
        let mut values: Vec<Value> = Vec::new();
        let mut add = |term: &str, value: Value| {
            values.push(value);
            terms.push(term.replace('?', &format!("?{}", values.len())));
        };
        let texts = [
            ("function = ?", &self.function),
            ("code = ?", &self.code),
            ("kind = ?", &self.kind),
            ("instance = ?", &self.instance),
            ("outcome = ?", &self.outcome),
            ("request = ?", &self.id),
            ("key = ?", &self.key),
            ("tenant = ?", &self.tenant),
            ("record ->> '$.label' = ?", &self.label),
            ("record ->> '$.qualifier' = ?", &self.qualifier),
        ];
        for (term, text) in texts {
            if let Some(text) = text {
                add(term, Value::Text(text.clone()));
            }
        }
        if !self.among.is_empty() {
            let names = serde_json::Value::from(self.among.clone()).to_string();
            add("function IN (SELECT value FROM json_each(?))", Value::Text(names));
        }
        if let Some(start) = &self.start {
            add(
                if start == "warm" { "start = ?" } else { "start = ? AND start <> 'warm'" },
                Value::Text(start.clone()),
            );
        }
        if let Some(since) = self.since {
            // Ids ascend with time but for a stepped clock, so that the newest first is a walk along the ids.
            add("id >= (SELECT min(+id) FROM requests WHERE at >= ?)", Value::Integer(since));
            add("at >= ?", Value::Integer(since));
        }
        if let Some(version) = self.version {
            add("version = ?", Value::Integer(i64::try_from(version).unwrap_or(i64::MAX)));
        }
        if let Some(slower) = self.slower_than {
            add("total_us > ?", Value::Integer(i64::try_from(slower).unwrap_or(i64::MAX)));
        }
        if let Some(StatusRange { from, to }) = self.status {
            add(if from >= 400 { "status >= ? AND status >= 400" } else { "status >= ?" }, Value::Integer(from.into()));
            add("status <= ?", Value::Integer(to.into()));
        }
        values.push(Value::Integer(self.limit.into()));
        let limit = values.len();
        let condition = if terms.is_empty() { String::new() } else { format!("WHERE {}", terms.join(" AND ")) };
        // The plus keeps SQLite from walking all ids where another index finds the few.
        let order = if self.slower_than.is_some() { "+id" } else { "id" };
        (format!("SELECT record FROM requests {condition} ORDER BY {order} DESC LIMIT ?{limit}"), values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_written_in_several_ways() {
        let range = |text: &str| text.parse::<StatusRange>().map(|range| (range.from, range.to));
        assert_eq!(range("404"), Ok((404, 404)));
        assert_eq!(range("5xx"), Ok((500, 599)));
        assert_eq!(range(">=500"), Ok((500, 999)));
        assert_eq!(range("> 500"), Ok((501, 999)));
        assert_eq!(range("<400"), Ok((0, 399)));
        assert_eq!(range("<=0"), Ok((0, 0)));
        for wrong in ["", "x", "xx", "0xx", "6xx", "9xx", "5x", "<0", "-1", ">=", "70000", "55xx"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }
}
