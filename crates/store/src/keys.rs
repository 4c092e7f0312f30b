//! Keys and the audit record, as they stand in the control database.

use std::collections::BTreeSet;

use kip_spec::{FunctionName, Rate};
use rusqlite::types::{Type, Value};
use rusqlite::{Connection, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};

use crate::ids::Seq;

/// An access-key pair as stored: its secret is needed for checking signatures, so it is sealed and not hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessPair {
    /// The access-key id, which callers send.
    pub id: String,
    /// Its secret, sealed with the id.
    pub sealed: Vec<u8>,
}

/// A key as stored: never the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Its number, never given again; 0 for one that is to be stored anew.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// When it was made, milliseconds since 1970.
    pub created: i64,
    /// What it may do.
    pub role: String,
    /// The only functions it is for, if it is not for all. An empty list is none.
    pub functions: Option<BTreeSet<FunctionName>>,
    /// How many requests it may send.
    pub rate: Option<Rate>,
    /// How many of them at once.
    pub burst: Option<u32>,
    /// How many it may have in flight.
    pub concurrency: Option<u32>,
    /// Whose it is.
    pub tenant: String,
    /// When it ends, milliseconds since 1970.
    pub expires: Option<i64>,
    /// Not taken until it is enabled again.
    pub disabled: bool,
    /// When it was last used, milliseconds since 1970.
    pub last_use: Option<i64>,
    /// When its secret was last replaced, milliseconds since 1970.
    pub rotated: Option<i64>,
    /// What makes it an access-key pair.
    pub pair: Option<AccessPair>,
    /// SHA-256 of the secret before that, and until when it is taken too.
    pub previous: Option<([u8; 32], i64)>,
    /// The commit that changed it last. The store sets it.
    pub rev: Seq,
}

impl StoredKey {
    /// A key without limits that is to be stored anew.
    pub fn new(name: &str, hash: [u8; 32], created: i64, role: &str, tenant: &str) -> Self {
        Self {
            id: 0,
            name: name.to_owned(),
            hash,
            created,
            role: role.to_owned(),
            functions: None,
            rate: None,
            burst: None,
            concurrency: None,
            tenant: tenant.to_owned(),
            expires: None,
            disabled: false,
            last_use: None,
            rotated: None,
            pair: None,
            previous: None,
            rev: Seq(0),
        }
    }
}

/// One change of the server that somebody asked for, or tried to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditRecord {
    /// Its number: later records have larger ones. 0 before it is stored.
    #[serde(default)]
    pub id: i64,
    /// When, milliseconds since 1970.
    pub at: i64,
    /// The name of the key that asked.
    pub key: String,
    /// The number of that key.
    pub key_id: u64,
    /// What was asked for, such as `function.remove`.
    pub action: String,
    /// Of what: names of functions or of a key, or a file.
    pub object: String,
    /// The address that asked.
    pub peer: String,
    /// `done`, the code of the refusal, or `unknown` if the server ended in the midst of it.
    pub result: String,
}

/// Which audit records are asked for. What is given must all be so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Asked for by this key.
    pub key: Option<String>,
    /// Of this action, or of this group of actions: `key` finds `key.create`.
    pub action: Option<String>,
    /// Of this object.
    pub object: Option<String>,
    /// With this result.
    pub result: Option<String>,
    /// At this time or later, milliseconds since 1970.
    pub since: Option<i64>,
    /// With a smaller number than this: older than a record that was read before.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// Audit records that are kept.
const KEPT_RECORDS: u32 = 10_000;
/// Of one key: it must not be able to push out what others did.
const KEPT_OF_A_KEY: u32 = 2_000;
/// How long an audit record is kept, milliseconds: 400 days.
const KEPT_FOR: i64 = 400 * 86_400_000;

/// The second schema of the control database: keys with roles and limits, and the audit record. Keys there were are
/// administrators', which is what they could do.
pub(crate) const MIGRATION: &str = "
    CREATE TABLE keys_2 (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        hash BLOB NOT NULL UNIQUE,
        created INTEGER NOT NULL,
        role TEXT NOT NULL,
        functions TEXT NOT NULL,
        rate TEXT,
        burst INTEGER,
        concurrency INTEGER,
        tenant TEXT NOT NULL,
        expires INTEGER,
        disabled INTEGER NOT NULL,
        last_use INTEGER,
        rotated INTEGER,
        previous BLOB,
        previous_until INTEGER
    ) STRICT;
    INSERT INTO keys_2 (name, hash, created, role, functions, tenant, disabled)
        SELECT name, hash, created, 'admin', '[]', 'default', 0 FROM keys ORDER BY created, name;
    DROP TABLE keys;
    ALTER TABLE keys_2 RENAME TO keys;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        key TEXT NOT NULL,
        key_id INTEGER NOT NULL,
        action TEXT NOT NULL,
        object TEXT NOT NULL,
        peer TEXT NOT NULL,
        result TEXT NOT NULL
    ) STRICT;
    CREATE INDEX audit_by_key ON audit (key, id);
    CREATE INDEX audit_by_object ON audit (object, id);
";

/// The keys of a backup beside ours. A key that is ours stays as it is here: the backup may know a secret of it that was
/// replaced since. Nor does a backup of this very server bring back a key that was removed here.
pub(crate) const MERGE: &str = "
    INSERT INTO keys (name, hash, created, role, functions, rate, burst, concurrency, tenant, expires, disabled, last_use,
        rotated, previous, previous_until, rev, access_id, sealed)
    SELECT CASE WHEN name IN (SELECT name FROM main.keys) THEN name || '-' || lower(hex(substr(hash, 1, 8))) ELSE name END,
        hash, created, role, functions, rate, burst, concurrency, tenant, expires, disabled, last_use,
        rotated, previous, previous_until, (SELECT max(seq) FROM main.changes), access_id, sealed
    FROM backup.keys theirs
    WHERE hash NOT IN (SELECT hash FROM main.keys)
        AND NOT EXISTS (SELECT 1 FROM main.keys ours WHERE ours.access_id = theirs.access_id)
        AND NOT EXISTS (SELECT 1 FROM main.keys ours WHERE ours.previous = theirs.hash)
        AND NOT EXISTS (SELECT 1 FROM main.server JOIN backup.server ON main.server.id = backup.server.id);
";

/// A key for all functions, as its list has always been written. So a key for none needs a word of its own.
const ALL_FUNCTIONS: &str = "[]";
const NO_FUNCTION: &str = "none";
const COLUMNS: &str = "id, name, hash, created, role, functions, rate, burst, concurrency, tenant, expires, disabled, \
                       last_use, rotated, previous, previous_until, rev, access_id, sealed";

/// Stores a key: a new one if its number is 0, else what is different of it. Gives its number.
pub(crate) fn put(c: &Connection, key: &StoredKey, seq: Seq) -> Result<u64, rusqlite::Error> {
    let functions = match &key.functions {
        None => Ok(ALL_FUNCTIONS.to_owned()),
        Some(functions) if functions.is_empty() => Ok(NO_FUNCTION.to_owned()),
        Some(functions) => serde_json::to_string(functions),
    };
    let functions = functions.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let id = if key.id == 0 { None } else { Some(signed(key.id)) };
    let (previous, previous_until) = key.previous.map_or((None, None), |(hash, until)| (Some(hash), Some(until)));
    // The use of a key is written apart from this and must not be put back.
    let put = format!(
        "INSERT INTO keys ({COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
         ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, role = excluded.role, functions = excluded.functions,
         rate = excluded.rate, burst = excluded.burst, concurrency = excluded.concurrency, tenant = excluded.tenant,
         expires = excluded.expires, disabled = excluded.disabled, rotated = excluded.rotated,
         previous = excluded.previous, previous_until = excluded.previous_until, rev = excluded.rev, access_id = excluded.access_id,
         sealed = excluded.sealed"
    );
    c.execute(
        &put,
        params![
            id,
            key.name,
            key.hash,
            key.created,
            key.role,
            functions,
            key.rate.map(|rate| rate.to_string()),
            key.burst,
            key.concurrency,
            key.tenant,
            key.expires,
            key.disabled,
            key.last_use,
            key.rotated,
            previous,
            previous_until,
            signed(seq.0),
            key.pair.as_ref().map(|pair| &pair.id),
            key.pair.as_ref().map(|pair| &pair.sealed)
        ],
    )?;
    Ok(if key.id == 0 { c.last_insert_rowid().unsigned_abs() } else { key.id })
}

pub(crate) fn remove(c: &Connection, id: u64) -> Result<bool, rusqlite::Error> {
    Ok(c.execute("DELETE FROM keys WHERE id = ?1", [signed(id)])? > 0)
}

pub(crate) fn all(c: &Connection) -> Result<Vec<StoredKey>, rusqlite::Error> {
    c.prepare(&format!("SELECT {COLUMNS} FROM keys ORDER BY name"))?.query_map([], read)?.collect()
}

/// Notes when keys were used, all in one commit.
pub(crate) fn used(c: &mut Connection, uses: &[(u64, i64)]) -> Result<(), rusqlite::Error> {
    let transaction = c.transaction()?;
    for (id, at) in uses {
        transaction.execute(
            "UPDATE keys SET last_use = max(coalesce(last_use, 0), ?2) WHERE id = ?1",
            params![signed(*id), at],
        )?;
    }
    transaction.commit()
}

fn read(row: &Row<'_>) -> Result<StoredKey, rusqlite::Error> {
    let unreadable = |column: usize, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
    };
    let id: i64 = row.get(0)?;
    let functions: String = row.get(5)?;
    let rate: Option<String> = row.get(6)?;
    let previous: Option<[u8; 32]> = row.get(14)?;
    let until: Option<i64> = row.get(15)?;
    Ok(StoredKey {
        id: id.unsigned_abs(),
        name: row.get(1)?,
        hash: row.get(2)?,
        created: row.get(3)?,
        role: row.get(4)?,
        functions: match functions.as_str() {
            ALL_FUNCTIONS => None,
            NO_FUNCTION => Some(BTreeSet::new()),
            names => Some(serde_json::from_str(names).map_err(|error| unreadable(5, error.into()))?),
        },
        rate: rate
            .map(|rate| rate.parse())
            .transpose()
            .map_err(|error: kip_spec::rate::RateError| unreadable(6, error.into()))?,
        burst: row.get(7)?,
        concurrency: row.get(8)?,
        tenant: row.get(9)?,
        expires: row.get(10)?,
        disabled: row.get(11)?,
        last_use: row.get(12)?,
        rotated: row.get(13)?,
        previous: previous.zip(until),
        rev: Seq(row.get::<_, i64>(16)?.unsigned_abs()),
        pair: row.get::<_, Option<String>>(17)?.zip(row.get(18)?).map(|(id, sealed)| AccessPair { id, sealed }),
    })
}

/// Writes a record down and forgets the oldest ones. Gives its number, by which its result is noted later.
pub(crate) fn audit_begin(c: &mut Connection, record: &AuditRecord) -> Result<i64, rusqlite::Error> {
    let AuditRecord { id: _, at, key, key_id, action, object, peer, result } = record;
    let transaction = c.transaction()?;
    transaction.execute(
        "INSERT INTO audit (at, key, key_id, action, object, peer, result) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![at, key, signed(*key_id), action, object, peer, result],
    )?;
    let id = transaction.last_insert_rowid();
    transaction.execute(
        "DELETE FROM audit WHERE key_id = ?1
         AND id <= (SELECT id FROM audit WHERE key_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        params![signed(*key_id), KEPT_OF_A_KEY],
    )?;
    transaction.execute("DELETE FROM audit WHERE at < ?1", [at - KEPT_FOR])?;
    prune_to_shares(&transaction)?;
    transaction.commit()?;
    Ok(id)
}

/// What is too much goes from the keys with the most records: a few busy ones push out nothing of the others.
fn prune_to_shares(c: &Connection) -> Result<(), rusqlite::Error> {
    let all: u32 = c.query_row("SELECT count(*) FROM audit", [], |row| row.get(0))?;
    if all <= KEPT_RECORDS {
        return Ok(());
    }
    let mut counts = c.prepare_cached("SELECT key_id, count(*) FROM audit GROUP BY key_id ORDER BY 2")?;
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, u64::from(row.get::<_, u32>(1)?)));
    let counts: Vec<(i64, u64)> = counts.query_map([], read)?.collect::<Result<_, _>>()?;
    let share = crate::fair_share::share(counts.iter().map(|(_, count)| *count), KEPT_RECORDS.into());
    let Some(share) = share else { return Ok(()) };
    for (key, _) in counts.iter().filter(|(_, count)| *count > share) {
        c.execute(
            "DELETE FROM audit WHERE key_id = ?1
             AND id <= (SELECT id FROM audit WHERE key_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            params![key, signed(share)],
        )?;
    }
    Ok(())
}

pub(crate) fn audit_end(c: &Connection, id: i64, object: &str, result: &str) -> Result<(), rusqlite::Error> {
    c.execute("UPDATE audit SET object = ?2, result = ?3 WHERE id = ?1", params![id, object, result]).map(drop)
}

/// The records that fit, newest first.
pub(crate) fn audit(c: &Connection, filter: &AuditFilter) -> Result<Vec<AuditRecord>, rusqlite::Error> {
    let mut terms: Vec<String> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    let mut add = |term: &str, value: Value| {
        values.push(value);
        terms.push(term.replace('?', &format!("?{}", values.len())));
    };
    let texts = [
        ("key = ?", &filter.key),
        ("object = ?", &filter.object),
        ("result = ?", &filter.result),
        ("substr(action || '.', 1, length(?) + 1) = ? || '.'", &filter.action),
    ];
    for (term, text) in texts {
        if let Some(text) = text {
            add(term, Value::Text(text.clone()));
        }
    }
    if let Some(since) = filter.since {
        add("at >= ?", Value::Integer(since));
    }
    if let Some(before) = filter.before {
        add("id < ?", Value::Integer(before));
    }
    values.push(Value::Integer(filter.limit.into()));
    let condition = if terms.is_empty() { String::new() } else { format!("WHERE {}", terms.join(" AND ")) };
    let query = format!(
        "SELECT at, key, key_id, action, object, peer, result, id FROM audit {condition} ORDER BY id DESC LIMIT ?{}",
        values.len()
    );
    let read = |row: &Row<'_>| {
        let key_id: i64 = row.get(2)?;
        Ok(AuditRecord {
            id: row.get(7)?,
            at: row.get(0)?,
            key: row.get(1)?,
            key_id: key_id.unsigned_abs(),
            action: row.get(3)?,
            object: row.get(4)?,
            peer: row.get(5)?,
            result: row.get(6)?,
        })
    };
    c.prepare(&query)?.query_map(params_from_iter(values), read)?.collect()
}

fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
