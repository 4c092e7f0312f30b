//! Secrets as they are stored: sealed. This room has no key for them.

use rusqlite::{Connection, Row, params};

use crate::ids::Seq;

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// Its name.
    pub name: String,
    /// Counts its values, from 1.
    pub generation: u64,
    /// Its value, sealed with name and generation.
    pub sealed: Vec<u8>,
    /// When its value was set, milliseconds since 1970.
    pub changed: i64,
    /// The commit that changed it last. The store sets it.
    pub rev: Seq,
}

/// The secrets of a backup that are not known here. What is ours stays as it is.
pub(crate) const MERGE: &str = "
    INSERT OR IGNORE INTO secrets (name, generation, sealed, changed, rev)
        SELECT name, generation, sealed, changed, (SELECT max(seq) FROM main.changes) FROM backup.secrets;
";

pub(crate) fn put(c: &Connection, secret: &StoredSecret, seq: Seq) -> Result<(), rusqlite::Error> {
    let StoredSecret { name, generation, sealed, changed, .. } = secret;
    let put = "INSERT OR REPLACE INTO secrets (name, generation, sealed, changed, rev) VALUES (?1, ?2, ?3, ?4, ?5)";
    c.execute(put, params![name, signed(*generation), sealed, changed, signed(seq.0)]).map(drop)
}

pub(crate) fn remove(c: &Connection, name: &str) -> Result<bool, rusqlite::Error> {
    Ok(c.execute("DELETE FROM secrets WHERE name = ?1", [name])? > 0)
}

pub(crate) fn all(c: &Connection) -> Result<Vec<StoredSecret>, rusqlite::Error> {
    let read = |row: &Row<'_>| {
        Ok(StoredSecret {
            name: row.get(0)?,
            generation: row.get::<_, i64>(1)?.unsigned_abs(),
            sealed: row.get(2)?,
            changed: row.get(3)?,
            rev: Seq(row.get::<_, i64>(4)?.unsigned_abs()),
        })
    };
    c.prepare("SELECT name, generation, sealed, changed, rev FROM secrets ORDER BY name")?
        .query_map([], read)?
        .collect()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
