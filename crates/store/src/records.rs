//! Requests, decisions and usage in SQLite. Rows are JSON beside the columns that are asked for, so that a new field needs no
//! new schema.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::types::Value;
use rusqlite::{params, params_from_iter};
use serde::de::DeserializeOwned;

use crate::backup::Staged;
use crate::database::{Database, Error, Sync};
use crate::filter::RequestFilter;
use crate::health::{Care, Condition};
use crate::{DecisionRecord, Record, RecordStore, RequestRecord, Retention, ScalingRecord, UsageRecord};

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
];

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
        Self::open_with(path, Care::default())
    }

    /// Opens or makes the file, on a disk of which something is known.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Full`].
    pub fn open_with(path: &Path, care: Care) -> Result<Self, Error> {
        Ok(Self { database: Database::open(path, Sync::Normal, care, MIGRATIONS)? })
    }

    async fn read<T: DeserializeOwned + Send + 'static>(
        &self,
        query: String,
        values: Vec<Value>,
    ) -> Result<Vec<T>, Error> {
        self.database
            .read(move |c| {
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

    async fn prune(&self, retention: Retention, now: i64) -> Result<(), Error> {
        let oldest = now.saturating_sub(i64::try_from(retention.age).unwrap_or(i64::MAX));
        self.database
            .change(move |c| {
                for table in TABLES {
                    let count = retention.count;
                    c.execute(&format!("DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?1"), [count])?;
                    c.execute(&format!("DELETE FROM {table} WHERE at < ?1"), [oldest])?;
                }
                Ok(())
            })
            .await
    }

    async fn copy_to(&self, file: PathBuf) -> Result<(), Error> {
        self.database.read(move |c| c.execute("VACUUM INTO ?1", [file.to_string_lossy()]).map(drop)).await
    }

    async fn replace(&self, staged: &Staged) -> Result<(), Error> {
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
                    transaction.commit()
                };
                let replaced = replace(c);
                let detached = c.execute_batch("DETACH backup");
                replaced.and(detached)
            })
            .await
    }

    fn condition(&self) -> Condition {
        self.database.care().condition()
    }

    fn room_again(&self) {
        self.database.care().room_again();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(number: i64) -> Record {
        Record::Decision(DecisionRecord {
            at: number,
            function: if number % 2 == 0 { "even" } else { "odd" }.to_owned(),
            version: 1,
            instance: None,
            from: None,
            to: "ready".to_owned(),
            why: "done".to_owned(),
            detail: None,
        })
    }

    #[tokio::test]
    async fn newest_first_by_function_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteRecords::open(&folder.path().join("records.db")).unwrap();
        store.append((0..100).map(decision).collect()).await.unwrap();
        let ats = |found: Vec<DecisionRecord>| found.into_iter().map(|record| record.at).collect::<Vec<_>>();
        assert_eq!(ats(store.decisions("odd".to_owned(), 3).await.unwrap()), [99, 97, 95]);
        store.prune(Retention { count: 4, age: 1_000 }, 100).await.unwrap();
        assert_eq!(ats(store.decisions("even".to_owned(), 50).await.unwrap()), [98, 96]);
        store.prune(Retention { count: 4, age: 2 }, 100).await.unwrap();
        assert_eq!(ats(store.decisions("odd".to_owned(), 50).await.unwrap()), [99]);
        assert_eq!(store.requests(RequestFilter { limit: 5, ..RequestFilter::default() }).await.unwrap(), []);
    }

    #[tokio::test]
    async fn usage_is_kept_by_function() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteRecords::open(&folder.path().join("records.db")).unwrap();
        let usage = |function: &str, until| UsageRecord {
            function: function.to_owned(),
            version: 1,
            instance: "i-1-1-1".to_owned(),
            since: until - 7,
            until,
            served: 3,
            times: [("on-demand".to_owned(), [("ready".to_owned(), 7)].into())].into(),
        };
        store.append(vec![Record::Usage(usage("f", 10)), Record::Usage(usage("g", 20))]).await.unwrap();
        assert_eq!(store.usage("f".to_owned()).await.unwrap(), [usage("f", 10)]);
        store.prune(Retention { count: 10, age: 5 }, 16).await.unwrap();
        assert_eq!(
            (store.usage("f".to_owned()).await.unwrap().len(), store.usage("g".to_owned()).await.unwrap().len()),
            (0, 1)
        );
    }

    #[tokio::test]
    async fn what_scaling_policies_saw_is_bounded_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("records.db");
        let look = |function: &str, at: i64| ScalingRecord {
            at,
            function: function.to_owned(),
            mode: "kpa".to_owned(),
            version: Some(2),
            qualifier: None,
            observation: serde_json::json!({"t_ms": at, "ready": null, "stable": 0.25}),
            decision: serde_json::Value::Null,
            actual: 1,
            in_flight: 2,
            queued: 3,
        };
        let store = SqliteRecords::open(&file).unwrap();
        let looks = (0..50).flat_map(|at| [look("f", at), look("g", at)]).map(Record::Scaling);
        store.append(looks.collect()).await.unwrap();
        drop(store);
        let store = SqliteRecords::open(&file).unwrap();
        let of = async |function: &str| store.scaling(function.to_owned(), 100).await.unwrap();
        assert_eq!(of("f").await.len(), 50);
        assert_eq!(store.scaling("f".to_owned(), 2).await.unwrap(), [look("f", 49), look("f", 48)]);
        store.prune(Retention { count: 10, age: 1_000 }, 50).await.unwrap();
        assert_eq!((of("f").await.len(), of("g").await.len()), (5, 5), "the latest ten of all");
        store.prune(Retention { count: 10, age: 2 }, 50).await.unwrap();
        assert_eq!(of("f").await, [look("f", 49), look("f", 48)]);
    }

    fn request(number: u16) -> RequestRecord {
        RequestRecord {
            id: format!("r{number}"),
            at: i64::from(number) * 1_000,
            function: "f".to_owned(),
            version: Some(u64::from(number % 2)),
            instance: Some(format!("i-1-1-{}", number % 3)),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            status: if number.is_multiple_of(10) { 500 + number / 10 } else { 200 },
            code: (number == 10).then(|| "KW-2009".to_owned()),
            start: Some(if number == 0 { "cold" } else { "warm" }.to_owned()),
            queue_us: 0,
            first_byte_us: 0,
            total_us: u64::from(number),
            bytes: 0,
            bytes_in: 7,
            kind: Some("on-demand".to_owned()),
            peak_memory: None,
            outcome: if number == 20 { "left" } else { "done" }.to_owned(),
            key: (number == 30).then(|| "k".to_owned()),
            tenant: (number == 31).then(|| "t".to_owned()),
        }
    }

    /// Changes a filter.
    type Set = fn(&mut RequestFilter);

    #[tokio::test]
    async fn filters_choose_and_use_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteRecords::open(&folder.path().join("records.db")).unwrap();
        store.append((0..40).map(|number| Record::Request(request(number))).collect()).await.unwrap();
        let cases: [(Set, &[&str], &str); 13] = [
            (|f| f.key = Some("k".to_owned()), &["r30"], "requests_by_key"),
            (|f| f.tenant = Some("t".to_owned()), &["r31"], "requests_by_tenant"),
            (|f| (f.among, f.limit) = (vec!["f".to_owned(), "g".to_owned()], 1), &["r39"], ""),
            (|f| f.id = Some("r7".to_owned()), &["r7"], "requests_by_id"),
            (|f| f.since = Some(38_000), &["r39", "r38"], "requests_by_time"),
            (|f| f.status = "5xx".parse().ok(), &["r30", "r20", "r10", "r0"], "requests_failed"),
            (|f| f.status = "502".parse().ok(), &["r20"], "requests_failed"),
            (|f| f.code = Some("KW-2009".to_owned()), &["r10"], "requests_with_code"),
            (|f| f.start = Some("cold".to_owned()), &["r0"], "requests_not_warm"),
            (|f| f.slower_than = Some(37), &["r39", "r38"], "requests_by_total"),
            (|f| (f.instance, f.limit) = (Some("i-1-1-1".to_owned()), 2), &["r37", "r34"], "requests_by_instance"),
            (|f| (f.function, f.limit) = (Some("f".to_owned()), 1), &["r39"], "requests_by_function"),
            (
                |f| (f.outcome, f.version, f.kind) = (Some("left".to_owned()), Some(0), Some("on-demand".to_owned())),
                &["r20"],
                "",
            ),
        ];
        for (set, expected, index) in cases {
            let mut filter = RequestFilter { limit: 100, ..RequestFilter::default() };
            set(&mut filter);
            let ids: Vec<String> =
                store.requests(filter.clone()).await.unwrap().into_iter().map(|record| record.id).collect();
            assert_eq!(ids, expected, "{filter:?}");
            let (query, values) = filter.query();
            let plan: Vec<String> = store
                .database
                .read(move |c| {
                    let mut plan = c.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
                    plan.query_map(params_from_iter(values), |row| row.get(3))?.collect()
                })
                .await
                .unwrap();
            assert!(plan.join("; ").contains(index), "{filter:?} is not answered by {index}: {plan:?}");
        }
    }

    #[tokio::test]
    async fn records_of_the_first_schema_are_brought_along_after_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.db");
        let old = rusqlite::Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        let mut shape = serde_json::to_value(request(3)).unwrap();
        for newer in ["bytes_in", "kind", "peak_memory"] {
            shape.as_object_mut().unwrap().remove(newer);
        }
        old.execute("INSERT INTO requests (function, record) VALUES ('f', ?1)", [shape.to_string()]).unwrap();
        drop(old);

        let store = SqliteRecords::open(&path).unwrap();
        let filter = RequestFilter { id: Some("r3".to_owned()), limit: 9, ..RequestFilter::default() };
        let found = store.requests(filter).await.unwrap();
        assert_eq!(found, [RequestRecord { bytes_in: 0, kind: None, ..request(3) }]);
        let copy =
            rusqlite::Connection::open(folder.path().join(format!("records.before-schema-{}.db", MIGRATIONS.len())))
                .unwrap();
        let version: u32 = copy.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        let kept: u32 = copy.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)).unwrap();
        assert_eq!((version, kept), (1, 1));
    }
}
