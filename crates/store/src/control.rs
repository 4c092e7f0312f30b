//! Functions, versions and keys in SQLite.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kip_spec::function::FunctionSpec;
use kip_spec::scaling::Fc;
use kip_spec::{FunctionName, VersionId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::backup::Staged;
use crate::database::{Database, Error, Sync};
use crate::health::{Care, Condition};
use crate::keys::{self, AuditFilter, AuditRecord, StoredKey};
use crate::{ControlStore, Identity, StoredVersion, VersionSource};

pub(crate) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE server (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, boot INTEGER NOT NULL) STRICT;
    CREATE TABLE documents (id INTEGER PRIMARY KEY, text TEXT NOT NULL, facade TEXT NOT NULL) STRICT;
    CREATE TABLE versions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        function TEXT NOT NULL,
        spec TEXT NOT NULL,
        created INTEGER NOT NULL,
        document INTEGER NOT NULL REFERENCES documents (id)
    ) STRICT;
    CREATE INDEX versions_by_function ON versions (function, id);
    CREATE INDEX versions_by_document ON versions (document);
    CREATE TABLE functions (
        name TEXT PRIMARY KEY,
        latest INTEGER NOT NULL REFERENCES versions (id),
        serving INTEGER REFERENCES versions (id)
    ) STRICT;
    CREATE TABLE keys (hash BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL) STRICT;
",
    keys::MIGRATION,
    "
    CREATE TABLE provisions (
        function TEXT NOT NULL,
        qualifier TEXT NOT NULL,
        settings TEXT NOT NULL,
        PRIMARY KEY (function, qualifier)
    ) STRICT;
",
];

/// Documents that no version was made from any more.
const FORGET_DOCUMENTS: &str = "DELETE FROM documents WHERE id NOT IN (SELECT document FROM versions)";

/// Earlier versions of a function that are kept.
const KEPT_VERSIONS: u32 = 50;

/// The control store in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteControl {
    database: Database,
}

impl SqliteControl {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// [`Error::Newer`] for a file of a newer version, [`Error::Database`] otherwise.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, Care::default())
    }

    /// Opens or makes the file, with room that is kept for it.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Full`] if there is no room even so.
    pub fn open_with(path: &Path, care: Care) -> Result<Self, Error> {
        Ok(Self { database: Database::open(path, Sync::Full, care, MIGRATIONS)? })
    }
}

#[async_trait]
impl ControlStore for SqliteControl {
    async fn begin_boot(&self) -> Result<Identity, Error> {
        let fresh = format!("{:016x}", kip_host::random::bits() >> 64);
        self.database
            .change(move |c| {
                // A transaction of its own: a statement that returns rows would keep an error of its commit to itself.
                let transaction = c.transaction()?;
                let identity = transaction.query_row(
                    "INSERT INTO server VALUES (1, ?1, 1) ON CONFLICT (one) DO UPDATE SET boot = boot + 1 RETURNING id, boot",
                    [fresh.as_str()],
                    |row| Ok(Identity { server: row.get(0)?, boot: row.get(1)? }),
                )?;
                transaction.commit()?;
                Ok(identity)
            })
            .await
    }

    async fn add_versions(
        &self,
        specs: Vec<FunctionSpec>,
        source: String,
        facade: &'static str,
    ) -> Result<Vec<StoredVersion>, Error> {
        let created = kip_host::clock::wall_millis();
        self.database
            .change(move |c| {
                let transaction = c.transaction()?;
                let mut stored = Vec::with_capacity(specs.len());
                // Once for all of them: a document may declare thousands of functions.
                transaction
                    .execute("INSERT INTO documents (text, facade) VALUES (?1, ?2)", [source.as_str(), facade])?;
                let document = transaction.last_insert_rowid();
                for spec in &specs {
                    let id = add_version(&transaction, spec, created, document)?;
                    stored.push(StoredVersion { id, spec: spec.clone() });
                }
                transaction.execute(FORGET_DOCUMENTS, [])?;
                transaction.commit()?;
                Ok(stored)
            })
            .await
    }

    async fn current_versions(&self) -> Result<Vec<StoredVersion>, Error> {
        let query = "SELECT v.id, v.spec FROM functions f JOIN versions v ON v.id = coalesce(f.serving, f.latest) ORDER BY f.name";
        self.database.read(move |c| c.prepare(query)?.query_map([], read_version)?.collect()).await
    }

    async fn version(&self, version: VersionId) -> Result<Option<StoredVersion>, Error> {
        let query = "SELECT id, spec FROM versions WHERE id = ?1";
        self.database.read(move |c| c.query_row(query, params![signed(version)], read_version).optional()).await
    }

    async fn versions(&self, function: FunctionName) -> Result<Vec<VersionSource>, Error> {
        let query = "SELECT v.id, v.created, d.facade, d.text FROM versions v JOIN documents d ON d.id = v.document
                     WHERE v.function = ?1 ORDER BY v.id";
        let read = |row: &Row<'_>| {
            let id: i64 = row.get(0)?;
            Ok(VersionSource {
                id: VersionId(id.unsigned_abs()),
                created: row.get(1)?,
                facade: row.get(2)?,
                source: row.get(3)?,
            })
        };
        self.database.read(move |c| c.prepare(query)?.query_map([function.as_str()], read)?.collect()).await
    }

    async fn set_serving(&self, function: FunctionName, version: VersionId) -> Result<(), Error> {
        // The version may have been removed, with its function, since it proved itself.
        let set = "UPDATE functions SET serving = ?2 WHERE name = ?1 AND EXISTS (SELECT 1 FROM versions WHERE id = ?2)";
        self.database.change(move |c| c.execute(set, params![function.as_str(), signed(version)])).await?;
        Ok(())
    }

    async fn remove_function(&self, function: FunctionName) -> Result<bool, Error> {
        self.database
            .change(move |c| {
                let transaction = c.transaction()?;
                let removed = transaction.execute("DELETE FROM functions WHERE name = ?1", [function.as_str()])?;
                transaction.execute("DELETE FROM versions WHERE function = ?1", [function.as_str()])?;
                transaction.execute("DELETE FROM provisions WHERE function = ?1", [function.as_str()])?;
                transaction.execute(FORGET_DOCUMENTS, [])?;
                transaction.commit()?;
                Ok(removed > 0)
            })
            .await
    }

    async fn put_provision(
        &self,
        function: FunctionName,
        qualifier: String,
        settings: Option<Fc>,
    ) -> Result<bool, Error> {
        self.database
            .change(move |c| {
                let Some(settings) = &settings else {
                    let forget = "DELETE FROM provisions WHERE function = ?1 AND qualifier = ?2";
                    return Ok(c.execute(forget, params![function.as_str(), qualifier])? > 0);
                };
                let text = serde_json::to_string(settings);
                let text = text.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                let put = "INSERT OR REPLACE INTO provisions (function, qualifier, settings) VALUES (?1, ?2, ?3)";
                c.execute(put, params![function.as_str(), qualifier, text]).map(|_| true)
            })
            .await
    }

    async fn provisions(&self) -> Result<Vec<(FunctionName, String, Fc)>, Error> {
        self.database
            .read(|c| {
                let mut query = c.prepare("SELECT function, qualifier, settings FROM provisions ORDER BY 1, 2")?;
                let rows =
                    query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
                let mut all = Vec::new();
                for row in rows {
                    let (function, qualifier, text): (String, String, String) = row?;
                    // What an older build wrote otherwise is left out rather than making the rest unreadable.
                    if let (Ok(function), Ok(settings)) = (function.parse(), serde_json::from_str(&text)) {
                        all.push((function, qualifier, settings));
                    }
                }
                Ok(all)
            })
            .await
    }

    async fn put_key(&self, key: StoredKey) -> Result<u64, Error> {
        self.database.change(move |c| keys::put(c, &key)).await
    }

    async fn remove_key(&self, id: u64) -> Result<bool, Error> {
        self.database.change(move |c| keys::remove(c, id)).await
    }

    async fn keys_used(&self, uses: Vec<(u64, i64)>) -> Result<(), Error> {
        self.database.change(move |c| keys::used(c, &uses)).await
    }

    async fn keys(&self) -> Result<Vec<StoredKey>, Error> {
        self.database.read(|c| keys::all(c)).await
    }

    async fn audit_begin(&self, record: AuditRecord) -> Result<i64, Error> {
        self.database.change(move |c| keys::audit_begin(c, &record)).await
    }

    async fn audit_end(&self, record: i64, object: String, result: String) -> Result<(), Error> {
        self.database.change(move |c| keys::audit_end(c, record, &object, &result)).await
    }

    async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditRecord>, Error> {
        self.database.read(move |c| keys::audit(c, &filter)).await
    }

    async fn identity(&self) -> Result<Option<Identity>, Error> {
        let read = |row: &Row<'_>| Ok(Identity { server: row.get(0)?, boot: row.get(1)? });
        self.database.read(move |c| c.query_row("SELECT id, boot FROM server", [], read).optional()).await
    }

    async fn copy_to(&self, file: PathBuf) -> Result<(), Error> {
        self.database.read(move |c| c.execute("VACUUM INTO ?1", [file.to_string_lossy()]).map(drop)).await
    }

    async fn replace(&self, staged: &Staged, renew: Vec<FunctionName>) -> Result<Vec<StoredVersion>, Error> {
        let file = staged.control.to_string_lossy().into_owned();
        self.database
            .change(move |c| {
                // Attaching is not possible inside a transaction.
                c.execute("ATTACH ?1 AS backup", [file.as_str()])?;
                let replaced = replace(c, &renew);
                let detached = c.execute_batch("DETACH backup");
                replaced.and(detached)
            })
            .await?;
        self.current_versions().await
    }

    fn condition(&self) -> Condition {
        self.database.care().condition()
    }

    fn room_again(&self) {
        self.database.care().room_again();
    }
}

/// Everything of the backup instead of everything of ours, but for who we are and the keys that open us. Keys are merged
/// before it, while it can still be told whose backup it is.
const REPLACE: &str = "
    DELETE FROM functions; DELETE FROM versions; DELETE FROM documents;
    INSERT INTO documents SELECT id, text, facade FROM backup.documents;
    INSERT INTO versions SELECT id, function, spec, created, document FROM backup.versions;
    INSERT INTO functions SELECT name, latest, serving FROM backup.functions;
    DELETE FROM provisions;
    INSERT INTO provisions SELECT function, qualifier, settings FROM backup.provisions;
    INSERT OR IGNORE INTO server SELECT one, id, boot FROM backup.server;
";

fn replace(c: &mut Connection, renew: &[FunctionName]) -> Result<(), rusqlite::Error> {
    let transaction = c.transaction()?;
    transaction.execute_batch(keys::MERGE)?;
    transaction.execute_batch(REPLACE)?;
    for name in renew {
        let copy = "INSERT INTO versions (function, spec, created, document)
                    SELECT v.function, v.spec, v.created, v.document FROM functions f
                    JOIN versions v ON v.id = coalesce(f.serving, f.latest) WHERE f.name = ?1";
        transaction.execute(copy, [name.as_str()])?;
        let latest = transaction.last_insert_rowid();
        transaction.execute(
            "UPDATE functions SET latest = ?2, serving = NULL WHERE name = ?1",
            params![name.as_str(), latest],
        )?;
    }
    transaction.commit()
}

fn add_version(c: &Connection, spec: &FunctionSpec, created: i64, document: i64) -> Result<VersionId, rusqlite::Error> {
    let text = serde_json::to_string(spec).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let name = spec.name.as_str();
    let insert = "INSERT INTO versions (function, spec, created, document) VALUES (?1, ?2, ?3, ?4)";
    c.execute(insert, params![name, text, created, document])?;
    let id = c.last_insert_rowid();
    let upsert = "INSERT INTO functions (name, latest) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET latest = excluded.latest";
    c.execute(upsert, params![name, id])?;
    let serving: Option<i64> =
        c.query_row("SELECT serving FROM functions WHERE name = ?1", [name], |row| row.get(0)).optional()?.flatten();
    let prune = "DELETE FROM versions WHERE function = ?1 AND id IS NOT ?2 AND id NOT IN
                 (SELECT id FROM versions WHERE function = ?1 ORDER BY id DESC LIMIT ?3)";
    c.execute(prune, params![name, serving, KEPT_VERSIONS])?;
    Ok(VersionId(id.unsigned_abs()))
}

fn read_version(row: &Row<'_>) -> Result<StoredVersion, rusqlite::Error> {
    let text: String = row.get(1)?;
    let spec = serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, error.into()))?;
    let id: i64 = row.get(0)?;
    Ok(StoredVersion { id: VersionId(id.unsigned_abs()), spec })
}

fn signed(version: VersionId) -> i64 {
    i64::try_from(version.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_spec::function::Program;

    fn spec(name: &str) -> FunctionSpec {
        let program = Program::Command { argv: vec!["true".to_owned()], dir: "/".into() };
        let env = [("A".to_owned(), "ä".to_owned())].into();
        FunctionSpec { env, ..FunctionSpec::new(name.parse().unwrap(), program) }
    }

    #[tokio::test]
    async fn what_is_stored_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.db");
        let store = SqliteControl::open(&path).unwrap();
        let first = store.begin_boot().await.unwrap();
        assert_eq!(first.boot, 1);
        let made = store.add_versions(vec![spec("a"), spec("b")], "text".to_owned(), "kip.yaml").await.unwrap();
        store.set_serving("a".parse().unwrap(), made[0].id).await.unwrap();
        let newer = store.add_versions(vec![spec("a")], "text".to_owned(), "kip.yaml").await.unwrap();
        drop(store);

        let store = SqliteControl::open(&path).unwrap();
        assert_eq!(store.begin_boot().await.unwrap(), Identity { server: first.server, boot: 2 });
        assert_eq!(store.current_versions().await.unwrap(), made, "a candidate that never served is not current");
        assert_eq!(store.version(newer[0].id).await.unwrap(), Some(newer[0].clone()));
        assert_eq!(store.version(VersionId(1_000)).await.unwrap(), None);
        let kept = store.versions("a".parse().unwrap()).await.unwrap();
        assert_eq!(kept.iter().map(|version| version.id).collect::<Vec<_>>(), [made[0].id, newer[0].id]);
        assert!(kept.iter().all(|version| version.source == "text" && version.facade == "kip.yaml"));
        assert!(store.remove_function("a".parse().unwrap()).await.unwrap());
        assert!(!store.remove_function("a".parse().unwrap()).await.unwrap());
        let again = store.add_versions(vec![spec("a")], String::new(), "kip.yaml").await.unwrap();
        assert!(again[0].id > newer[0].id, "numbers of versions are never reused");
    }

    #[tokio::test]
    async fn what_is_provisioned_is_kept_until_it_or_its_function_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.db");
        let name = |name: &str| name.parse::<FunctionName>().unwrap();
        let two = Fc::new(kip_spec::scaling::Provision { default_target: 2, ..Default::default() });
        let store = SqliteControl::open(&path).unwrap();
        store.add_versions(vec![spec("a"), spec("b")], String::new(), "kip.yaml").await.unwrap();
        let put = async |store: &SqliteControl, function, qualifier: &str, settings| {
            store.put_provision(name(function), qualifier.to_owned(), settings).await.unwrap()
        };
        put(&store, "b", "LATEST", Some(Fc::new(kip_spec::scaling::Provision::default()))).await;
        put(&store, "b", "LATEST", Some(two.clone())).await;
        put(&store, "a", "v1", Some(two.clone())).await;
        drop(store);
        let store = SqliteControl::open(&path).unwrap();
        let all = [(name("a"), "v1".to_owned(), two.clone()), (name("b"), "LATEST".to_owned(), two)];
        assert_eq!(store.provisions().await.unwrap(), all);
        assert!(!put(&store, "a", "LATEST", None).await && put(&store, "a", "v1", None).await);
        assert_eq!(store.provisions().await.unwrap(), all[1..]);
        store.remove_function(name("b")).await.unwrap();
        assert_eq!(store.provisions().await.unwrap(), []);
    }

    #[tokio::test]
    async fn old_versions_go_but_never_the_serving_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteControl::open(&folder.path().join("control.db")).unwrap();
        let first = store.add_versions(vec![spec("a")], String::new(), "kip.yaml").await.unwrap();
        store.set_serving("a".parse().unwrap(), first[0].id).await.unwrap();
        for _ in 0..60 {
            store.add_versions(vec![spec("a")], String::new(), "kip.yaml").await.unwrap();
        }
        let kept = store.versions("a".parse().unwrap()).await.unwrap();
        assert_eq!(kept.len(), 51);
        assert_eq!(kept[0].id, first[0].id);
    }
}
