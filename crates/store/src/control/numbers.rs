//! Numbers as the tables have them.

use kip_spec::FunctionName;
use rusqlite::{Connection, OptionalExtension};

/// The number of a function; none if there is none of this name.
pub(super) fn id_of(c: &Connection, function: &FunctionName) -> Result<Option<i64>, rusqlite::Error> {
    c.query_row("SELECT id FROM functions WHERE name = ?1", [function.as_str()], |row| row.get(0)).optional()
}

/// SQLite counts with a sign; our numbers never come near its limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
