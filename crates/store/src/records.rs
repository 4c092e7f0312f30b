//! Requests and decisions in SQLite. Rows are JSON beside the columns that are asked for, so that a new field needs no
//! new schema.

use std::path::Path;

use async_trait::async_trait;
use rusqlite::params;
use serde::de::DeserializeOwned;

use crate::database::{Database, Error, Sync};
use crate::{DecisionRecord, Record, RecordStore, RequestRecord};

const MIGRATIONS: &[&str] = &["
    CREATE TABLE requests (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE INDEX requests_by_function ON requests (function, id);
    CREATE TABLE decisions (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE INDEX decisions_by_function ON decisions (function, id);
"];

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
        Ok(Self { database: Database::open(path, Sync::Normal, MIGRATIONS)? })
    }

    async fn latest<T: DeserializeOwned + Send + 'static>(
        &self,
        table: &'static str,
        function: Option<String>,
        most: u32,
    ) -> Result<Vec<T>, Error> {
        self.database
            .call(move |c| {
                let filter = if function.is_some() { "WHERE function = ?1" } else { "WHERE ?1 IS NULL" };
                let mut query =
                    c.prepare_cached(&format!("SELECT record FROM {table} {filter} ORDER BY id DESC LIMIT ?2"))?;
                let rows = query.query_map(params![function, most], |row| row.get::<_, String>(0))?;
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
            .call(move |c| {
                let transaction = c.transaction()?;
                {
                    let mut request =
                        transaction.prepare_cached("INSERT INTO requests (function, record) VALUES (?1, ?2)")?;
                    let mut decision =
                        transaction.prepare_cached("INSERT INTO decisions (function, record) VALUES (?1, ?2)")?;
                    for record in batch {
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
                        };
                    }
                }
                transaction.commit()
            })
            .await
    }

    async fn requests(&self, function: Option<String>, most: u32) -> Result<Vec<RequestRecord>, Error> {
        self.latest("requests", function, most).await
    }

    async fn decisions(&self, function: String, most: u32) -> Result<Vec<DecisionRecord>, Error> {
        self.latest("decisions", Some(function), most).await
    }

    async fn prune(&self, keep: u32) -> Result<(), Error> {
        self.database
            .call(move |c| {
                for table in ["requests", "decisions"] {
                    c.execute(&format!("DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?1"), [keep])?;
                }
                Ok(())
            })
            .await
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
        store.prune(4).await.unwrap();
        assert_eq!(ats(store.decisions("even".to_owned(), 50).await.unwrap()), [98, 96]);
        assert_eq!(store.requests(None, 5).await.unwrap(), []);
    }
}
