//! Requests, decisions and usage in SQLite. Rows are JSON beside the columns that are asked for, so that a new field needs no
//! new schema.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::types::Value;
use rusqlite::{Row, params, params_from_iter};
use serde::de::DeserializeOwned;

use crate::database::{Database, Error, Sync};
use crate::fair_share::share;
use crate::filter::RequestFilter;
use crate::health::{Condition, DiskHealth};
use crate::sqlite::{RecordsFile, SqliteFile};
use crate::staged::StagedBackup;
use crate::tasks::BlobHold;
use crate::time_limit::TimeLimit;
use crate::{
    DecisionRecord, InstanceTime, KeyTime, LearntHistory, PricedVersion, ReachedTarget, Record, RecordStore,
    RequestRecord, Retention, ScalingRecord, SpentDays, UsageRecord,
};

pub(crate) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE requests (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE INDEX requests_by_function ON requests (function, id);
    CREATE TABLE decisions (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE INDEX decisions_by_function ON decisions (function, id);
",
    "
    ALTER TABLE requests ADD COLUMN request TEXT AS (record ->> '$.id') VIRTUAL;
    ALTER TABLE requests ADD COLUMN at INTEGER AS (record ->> '$.at') VIRTUAL;
    ALTER TABLE requests ADD COLUMN version INTEGER AS (record ->> '$.version') VIRTUAL;
    ALTER TABLE requests ADD COLUMN instance TEXT AS (record ->> '$.instance') VIRTUAL;
    ALTER TABLE requests ADD COLUMN status INTEGER AS (record ->> '$.status') VIRTUAL;
    ALTER TABLE requests ADD COLUMN code TEXT AS (record ->> '$.code') VIRTUAL;
    ALTER TABLE requests ADD COLUMN start TEXT AS (record ->> '$.start') VIRTUAL;
    ALTER TABLE requests ADD COLUMN kind TEXT AS (record ->> '$.kind') VIRTUAL;
    ALTER TABLE requests ADD COLUMN outcome TEXT AS (record ->> '$.outcome') VIRTUAL;
    ALTER TABLE requests ADD COLUMN total_us INTEGER AS (record ->> '$.total_us') VIRTUAL;
    CREATE INDEX requests_by_id ON requests (request);
    CREATE INDEX requests_by_time ON requests (at);
    CREATE INDEX requests_by_instance ON requests (instance, id);
    CREATE INDEX requests_failed ON requests (status, id) WHERE status >= 400;
    CREATE INDEX requests_with_code ON requests (code, id) WHERE code IS NOT NULL;
    CREATE INDEX requests_not_warm ON requests (start, id) WHERE start <> 'warm';
    CREATE INDEX requests_by_total ON requests (total_us);
    ALTER TABLE decisions ADD COLUMN at INTEGER AS (record ->> '$.at') VIRTUAL;
    CREATE INDEX decisions_by_time ON decisions (at);
",
    "
    CREATE TABLE usage (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL) STRICT;
    ALTER TABLE usage ADD COLUMN at INTEGER AS (record ->> '$.until') VIRTUAL;
    CREATE INDEX usage_by_function ON usage (function, id);
    CREATE INDEX usage_by_time ON usage (at);
",
    "
    ALTER TABLE requests ADD COLUMN key TEXT AS (record ->> '$.key') VIRTUAL;
    ALTER TABLE requests ADD COLUMN tenant TEXT AS (record ->> '$.tenant') VIRTUAL;
    CREATE INDEX requests_by_key ON requests (key, id) WHERE key IS NOT NULL;
    CREATE INDEX requests_by_tenant ON requests (tenant, id) WHERE tenant IS NOT NULL;
",
    "
    CREATE TABLE scaling (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL) STRICT;
    ALTER TABLE scaling ADD COLUMN at INTEGER AS (record ->> '$.at') VIRTUAL;
    CREATE INDEX scaling_by_function ON scaling (function, id);
    CREATE INDEX scaling_by_time ON scaling (at);
",
    "
    CREATE TABLE reached (
        function TEXT NOT NULL, qualifier TEXT NOT NULL, target INTEGER NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (function, qualifier)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO reached
        SELECT function, record ->> '$.qualifier', record ->> '$.decision.target', max(at) FROM scaling
        WHERE record ->> '$.qualifier' IS NOT NULL AND typeof(record ->> '$.decision.target') = 'integer'
        GROUP BY 1, 2;
",
    "
    CREATE TABLE learnt (function TEXT PRIMARY KEY, history TEXT NOT NULL, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE instance_days (
        day INTEGER NOT NULL, function TEXT NOT NULL, version INTEGER NOT NULL, state TEXT NOT NULL, millis INTEGER NOT NULL,
        PRIMARY KEY (day, function, version, state)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE key_days (
        day INTEGER NOT NULL, function TEXT NOT NULL, version INTEGER NOT NULL, key TEXT NOT NULL,
        requests INTEGER NOT NULL, micros INTEGER NOT NULL,
        PRIMARY KEY (day, function, version, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE priced_versions (
        version INTEGER PRIMARY KEY, label TEXT NOT NULL, resources TEXT NOT NULL, pauses INTEGER NOT NULL
    ) STRICT;
",
];

/// Tables of other shapes, which a backup has whole.
const SUMS: [&str; 5] = ["reached", "learnt", "instance_days", "key_days", "priced_versions"];

/// Days that sums by day are kept for.
const DAYS: i64 = 400;

/// Rows of each table of sums by day; of more, the oldest days go.
const DAY_ROWS: i64 = 500_000;

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// A number of a row that is never negative.
fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0))
}

/// A number of SQLite.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Keeps so many rows of a table. Functions with few of them keep all of theirs: what is too much goes from those with the most.
fn prune_to_shares(c: &rusqlite::Connection, table: &str, most: u32) -> rusqlite::Result<()> {
    let counts = format!("SELECT function, count(*) FROM {table} GROUP BY function ORDER BY 2");
    let counts: Vec<(String, u64)> = c
        .prepare_cached(&counts)?
        .query_map([], |row| Ok((row.get(0)?, number(row, 1)?)))?
        .collect::<Result<_, _>>()?;
    let Some(share) = share(counts.iter().map(|(_, count)| *count), most.into()) else { return Ok(()) };
    let surplus = format!(
        "DELETE FROM {table} WHERE function = ?1
         AND id <= (SELECT id FROM {table} WHERE function = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)"
    );
    let mut surplus = c.prepare_cached(&surplus)?;
    for (function, _) in counts.iter().filter(|(_, count)| *count > share) {
        surplus.execute(params![function, signed(share)])?;
    }
    Ok(())
}

/// The tables, all of one shape.
const TABLES: [&str; 4] = ["requests", "decisions", "usage", "scaling"];

/// The record store in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteRecords {
    database: Database,
}

impl SqliteRecords {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// [`Error::Newer`] for a file of a newer version, [`Error::Database`] otherwise.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, DiskHealth::default())
    }

    /// Opens or makes the file, on a disk of which something is known.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Full`].
    pub fn open_with(path: &Path, care: DiskHealth) -> Result<Self, Error> {
        Ok(Self { database: Database::open(path, Sync::Normal, care, MIGRATIONS)? })
    }

    async fn read<T: DeserializeOwned + Send + 'static>(
        &self,
        query: String,
        values: Vec<Value>,
    ) -> Result<Vec<T>, Error> {
        self.database
            .read_wide(move |c| {
                let mut query = c.prepare_cached(&query)?;
                let rows = query.query_map(params_from_iter(values), |row| row.get::<_, String>(0))?;
                let mut found = Vec::new();
                for row in rows {
                    // A record of an older shape is left out rather than making the rest unreadable.
                    found.extend(serde_json::from_str(&row?).ok());
                }
                Ok(found)
            })
            .await
    }
}

#[async_trait]
impl RecordStore for SqliteRecords {
    async fn append(&self, batch: Vec<Record>) -> Result<(), Error> {
        self.database
            .change(move |c| {
                let transaction = c.transaction()?;
                {
                    let mut request =
                        transaction.prepare_cached("INSERT INTO requests (function, record) VALUES (?1, ?2)")?;
                    let mut decision =
                        transaction.prepare_cached("INSERT INTO decisions (function, record) VALUES (?1, ?2)")?;
                    let mut usage =
                        transaction.prepare_cached("INSERT INTO usage (function, record) VALUES (?1, ?2)")?;
                    let mut scaling =
                        transaction.prepare_cached("INSERT INTO scaling (function, record) VALUES (?1, ?2)")?;
                    let mut reached =
                        transaction.prepare_cached("INSERT OR REPLACE INTO reached VALUES (?1, ?2, ?3, ?4)")?;
                    let mut learnt = transaction.prepare_cached("INSERT OR REPLACE INTO learnt VALUES (?1, ?2, ?3)")?;
                    let mut instances = transaction.prepare_cached(
                        "INSERT INTO instance_days VALUES (?1, ?2, ?3, ?4, ?5)
                         ON CONFLICT DO UPDATE SET millis = millis + excluded.millis",
                    )?;
                    let mut keys = transaction.prepare_cached(
                        "INSERT INTO key_days VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET
                         requests = requests + excluded.requests, micros = micros + excluded.micros",
                    )?;
                    let mut version =
                        transaction.prepare_cached("INSERT OR REPLACE INTO priced_versions VALUES (?1, ?2, ?3, ?4)")?;
                    for record in &batch {
                        let json = |result: Result<String, serde_json::Error>| {
                            result.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
                        };
                        match record {
                            Record::Request(record) => {
                                request.execute(params![record.function, json(serde_json::to_string(&record))?])?
                            }
                            Record::Decision(record) => {
                                decision.execute(params![record.function, json(serde_json::to_string(&record))?])?
                            }
                            Record::Usage(record) => {
                                usage.execute(params![record.function, json(serde_json::to_string(&record))?])?
                            }
                            Record::Reached(ReachedTarget { function, qualifier, target, at }) => {
                                reached.execute(params![function, qualifier, target, at])?
                            }
                            Record::Learnt(LearntHistory { function, history, at }) => {
                                learnt.execute(params![function, history, at])?
                            }
                            Record::InstanceTime(InstanceTime { day, function, version, state, millis }) => {
                                instances.execute(params![day, function, signed(*version), state, signed(*millis)])?
                            }
                            Record::KeyTime(KeyTime { day, function, version, key, requests, micros }) => keys
                                .execute(params![
                                    day,
                                    function,
                                    signed(*version),
                                    key,
                                    signed(*requests),
                                    signed(*micros)
                                ])?,
                            Record::PricedVersion(PricedVersion { version: of, label, resources, pauses }) => {
                                version.execute(params![signed(*of), label, resources, pauses])?
                            }
                            Record::Scaling(record) => {
                                scaling.execute(params![record.function, json(serde_json::to_string(&record))?])?
                            }
                        };
                    }
                }
                transaction.commit()
            })
            .await
    }

    async fn requests(&self, filter: RequestFilter) -> Result<Vec<RequestRecord>, Error> {
        let (query, values) = filter.query();
        self.read(query, values).await
    }

    async fn decisions(&self, function: String, most: u32) -> Result<Vec<DecisionRecord>, Error> {
        let query = "SELECT record FROM decisions WHERE function = ?1 ORDER BY id DESC LIMIT ?2";
        self.read(query.to_owned(), vec![Value::Text(function), Value::Integer(most.into())]).await
    }

    async fn usage(&self, function: String) -> Result<Vec<UsageRecord>, Error> {
        let query = "SELECT record FROM usage WHERE function = ?1 ORDER BY id";
        self.read(query.to_owned(), vec![Value::Text(function)]).await
    }

    async fn scaling(&self, function: String, most: u32) -> Result<Vec<ScalingRecord>, Error> {
        let query = "SELECT record FROM scaling WHERE function = ?1 ORDER BY id DESC LIMIT ?2";
        self.read(query.to_owned(), vec![Value::Text(function), Value::Integer(most.into())]).await
    }

    async fn reached(&self) -> Result<Vec<ReachedTarget>, Error> {
        let read = |row: &Row<'_>| {
            Ok(ReachedTarget { function: row.get(0)?, qualifier: row.get(1)?, target: row.get(2)?, at: row.get(3)? })
        };
        let query = "SELECT function, qualifier, target, at FROM reached ORDER BY 1, 2";
        self.database.read_wide(move |c| c.prepare(query)?.query_map([], read)?.collect()).await
    }

    async fn forget_reached(&self, functions: Vec<String>) -> Result<(), Error> {
        self.database
            .change(move |c| {
                let transaction = c.transaction()?;
                for function in &functions {
                    transaction.execute("DELETE FROM reached WHERE function = ?1", [function])?;
                }
                transaction.commit()
            })
            .await
    }

    async fn learnt(&self) -> Result<Vec<LearntHistory>, Error> {
        let read = |row: &Row<'_>| Ok(LearntHistory { function: row.get(0)?, history: row.get(1)?, at: row.get(2)? });
        let query = "SELECT function, history, at FROM learnt ORDER BY 1";
        self.database.read_wide(move |c| c.prepare(query)?.query_map([], read)?.collect()).await
    }

    async fn forget_learnt(&self, functions: Vec<String>) -> Result<(), Error> {
        self.database
            .change(move |c| {
                let transaction = c.transaction()?;
                for function in &functions {
                    transaction.execute("DELETE FROM learnt WHERE function = ?1", [function])?;
                }
                transaction.commit()
            })
            .await
    }

    async fn spent(&self, from: i64, to: i64) -> Result<SpentDays, Error> {
        let instance = |row: &Row<'_>| {
            let (day, function, state) = (row.get(0)?, row.get(1)?, row.get(3)?);
            Ok(InstanceTime { day, function, version: number(row, 2)?, state, millis: number(row, 4)? })
        };
        let key = |row: &Row<'_>| {
            let (day, function, key) = (row.get(0)?, row.get(1)?, row.get(3)?);
            let (version, requests, micros) = (number(row, 2)?, number(row, 4)?, number(row, 5)?);
            Ok(KeyTime { day, function, version, key, requests, micros })
        };
        let version = |row: &Row<'_>| {
            let (label, resources, pauses) = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(PricedVersion { version: number(row, 0)?, label, resources, pauses })
        };
        self.database
            .read_wide(move |c| {
                let of_days = "WHERE day BETWEEN ?1 AND ?2 ORDER BY 1, 2, 3, 4";
                let mut instances = c.prepare_cached(&format!("SELECT * FROM instance_days {of_days}"))?;
                let mut keys = c.prepare_cached(&format!("SELECT * FROM key_days {of_days}"))?;
                let mut versions = c.prepare_cached("SELECT * FROM priced_versions ORDER BY 1")?;
                Ok(SpentDays {
                    instances: instances.query_map([from, to], instance)?.collect::<Result<_, _>>()?,
                    keys: keys.query_map([from, to], key)?.collect::<Result<_, _>>()?,
                    versions: versions.query_map([], version)?.collect::<Result<_, _>>()?,
                })
            })
            .await
    }

    async fn prune(&self, retention: Retention, now: i64) -> Result<(), Error> {
        let oldest = now.saturating_sub(i64::try_from(retention.age).unwrap_or(i64::MAX));
        self.database
            .change(move |c| {
                for table in TABLES {
                    c.execute(&format!("DELETE FROM {table} WHERE at < ?1"), [oldest])?;
                    prune_to_shares(c, table, retention.count)?;
                }
                for table in ["instance_days", "key_days"] {
                    let surplus = format!("SELECT day FROM {table} ORDER BY day DESC LIMIT 1 OFFSET ?1");
                    c.execute(&format!("DELETE FROM {table} WHERE day < ?1"), [now / DAY - DAYS])?;
                    c.execute(&format!("DELETE FROM {table} WHERE day <= ({surplus})"), [DAY_ROWS])?;
                }
                c.execute(
                    "DELETE FROM priced_versions WHERE version NOT IN (SELECT version FROM instance_days)
                     AND version NOT IN (SELECT version FROM key_days)",
                    [],
                )?;
                Ok(())
            })
            .await
    }

    fn condition(&self) -> Condition {
        self.database.care().condition()
    }
}

#[async_trait]
impl SqliteFile for SqliteRecords {
    async fn copy_to(&self, file: PathBuf) -> Result<Option<BlobHold>, Error> {
        self.database.copy_to(file).await.map(|()| None)
    }

    fn room_again(&self) {
        self.database.care().room_again();
    }
}

#[async_trait]
impl RecordsFile for SqliteRecords {
    async fn replace(&self, staged: &StagedBackup) -> Result<(), Error> {
        let file = staged.records.to_string_lossy().into_owned();
        self.database
            .change(move |c| {
                c.execute("ATTACH ?1 AS backup", [file.as_str()])?;
                let replace = |c: &mut rusqlite::Connection| {
                    let transaction = c.transaction()?;
                    for table in TABLES {
                        transaction.execute_batch(&format!(
                            "DELETE FROM {table}; INSERT INTO {table} (id, function, record)
                             SELECT id, function, record FROM backup.{table};"
                        ))?;
                    }
                    for table in SUMS {
                        transaction.execute_batch(&format!(
                            "DELETE FROM {table}; INSERT INTO {table} SELECT * FROM backup.{table};"
                        ))?;
                    }
                    transaction.commit()
                };
                let limit = TimeLimit::of(c, Path::new(&file));
                let replaced = replace(c);
                drop(limit);
                let detached = c.execute_batch("DETACH backup");
                replaced.and(detached)
            })
            .await
    }
}

#[cfg(test)]
mod tests;
