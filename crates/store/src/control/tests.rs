//! What only the file can show: it is there after a restart, and older schemas are brought along.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;

use super::contract::{commit, deploy, name, put_key};
use super::{MIGRATIONS, SqliteControl};
use crate::change::{Change, ControlReader as _, ControlStore, Effect};
use crate::ids::{FunctionId, Object, Seq};
use crate::keys::{AuditFilter, StoredKey};
use crate::version::AliasTarget;

#[tokio::test]
async fn the_file_keeps_the_contract() {
    let folders = Mutex::new(Vec::new());
    let fresh = || -> Arc<dyn ControlStore> {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteControl::open(&folder.path().join("control.db")).unwrap();
        folders.lock().push(folder);
        Arc::new(store)
    };
    super::contract::all(fresh).await;
}

#[tokio::test]
async fn what_is_stored_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.db");
    let store = SqliteControl::open(&path).unwrap();
    let first = store.begin_boot().await.unwrap();
    let made = deploy(&store, &["a", "b"]).await;
    commit(&store, Change::Serve { function: name("b"), revision: made[1].id }).await;
    drop(store);
    let store = SqliteControl::open(&path).unwrap();
    assert_eq!(store.begin_boot().await.unwrap().server, first.server);
    assert_eq!(store.current_revisions().await.unwrap(), made);
    commit(&store, Change::RemoveFunction(name("b"))).await;
    drop(store);
    let store = SqliteControl::open(&path).unwrap();
    let again = deploy(&store, &["b"]).await;
    assert!(again[0].function > made[1].function && again[0].id > made[1].id);
}

/// A file of the schema before functions had ids, as the server of that time wrote it.
const SCHEMA_3: &str = r#"
    INSERT INTO server VALUES (1, 'abc', 7);
    INSERT INTO documents VALUES (1, 'one', 'kip.yaml'), (2, 'two', 'kip.yaml');
    INSERT INTO versions (id, function, spec, created, document) VALUES
        (3, 'b', '{B}', 10, 1), (5, 'a', '{A}', 20, 1), (8, 'a', '{A}', 30, 2), (9, 'gone', '{A}', 30, 2);
    DELETE FROM versions WHERE id = 9;
    INSERT INTO functions VALUES ('b', 3, 3), ('a', 8, 5);
    INSERT INTO provisions VALUES ('a', 'LATEST', '{FC}'), ('b', 'v3', 'not json'), ('gone', 'LATEST', '{FC}');
    INSERT INTO keys (id, name, hash, created, role, functions, tenant, disabled)
        VALUES (4, 'admin', zeroblob(32), 1, 'admin', '[]', 'default', 0);
    INSERT INTO audit VALUES (1, 11, 'admin', 4, 'function.deploy', 'a', '127.0.0.1', 'done');
"#;

#[tokio::test]
async fn everything_of_the_schema_before_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.db");
    let old = Connection::open(&path).unwrap();
    for script in &MIGRATIONS[..3] {
        old.execute_batch(script).unwrap();
    }
    old.pragma_update(None, "user_version", 3).unwrap();
    let spec = |name: &str| serde_json::to_string(&super::contract::spec(name)).unwrap();
    let fc = kip_spec::scaling::Fc::new(kip_spec::scaling::Provision { default_target: 2, ..Default::default() });
    let fixture = SCHEMA_3.replace("{A}", &spec("a")).replace("{B}", &spec("b"));
    old.execute_batch(&fixture.replace("{FC}", &serde_json::to_string(&fc).unwrap())).unwrap();
    drop(old);

    let store = SqliteControl::open(&path).unwrap();
    let copy = format!("control.before-schema-{}.db", MIGRATIONS.len());
    assert!(folder.path().join(copy).exists());
    let boot = store.begin_boot().await.unwrap();
    assert_eq!((boot.server.as_str(), boot.boot), ("abc", 8));
    let current = store.current_revisions().await.unwrap();
    let found: Vec<(u64, u64, FunctionId)> =
        current.iter().map(|revision| (revision.id.0, revision.ordinal, revision.function)).collect();
    assert_eq!(found, [(5, 1, FunctionId(1)), (3, 1, FunctionId(2))]);
    assert_eq!(current[0].spec, super::contract::spec("a"));
    let kept = store.revisions(name("a")).await.unwrap();
    let kept: Vec<(u64, u64, i64, &str)> = kept
        .iter()
        .map(|revision| (revision.id.0, revision.ordinal, revision.created, revision.source.as_str()))
        .collect();
    assert_eq!(kept, [(5, 1, 20, "one"), (8, 2, 30, "two")]);
    let (provisions, unreadable) = store.provisions().await.unwrap();
    assert_eq!(provisions, [(name("a"), "LATEST".to_owned(), fc)]);
    assert_eq!(unreadable.len(), 1, "a row that cannot be read is told and stays");
    assert_eq!(unreadable[0].object, "provision/b/v3");
    let keys = store.keys().await.unwrap();
    assert_eq!((keys[0].id, keys[0].name.as_str(), keys[0].rev), (4, "admin", Seq(1)));
    let audit = store.audit(AuditFilter { limit: 9, ..AuditFilter::default() }).await.unwrap();
    assert_eq!((audit.len(), audit[0].at), (1, 11));
    assert_eq!(store.rev(Object::Function(name("a"))).await.unwrap(), Seq(1));
    let next = deploy(&store, &["c"]).await;
    assert_eq!(next[0].id.0, 10, "numbers go on behind the last that was ever given");
    assert_eq!(next[0].function, FunctionId(3));
    let key = StoredKey::new("k", [7; 32], 1, "invoke", "default");
    assert_eq!(put_key(&store, key).await, 5);
}

#[tokio::test]
async fn a_row_for_each_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.db");
    let store = SqliteControl::open(&path).unwrap();
    deploy(&store, &["a", "b"]).await;
    let id = put_key(&store, StoredKey::new("k", [7; 32], 1, "invoke", "default")).await;
    commit(&store, Change::RemoveKey(id)).await;
    commit(&store, Change::RemoveFunction(name("a"))).await;
    let c = Connection::open(&path).unwrap();
    let rows: Vec<(i64, String, String)> = c
        .prepare("SELECT seq, op, object FROM changes ORDER BY seq")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let expected = [
        (1, "migrate", ""),
        (2, "deploy", "function/a function/b"),
        (3, "key.put", "key/k"),
        (4, "key.remove", "key/1"),
        (5, "function.remove", "function/a"),
    ];
    let expected = expected.map(|(seq, op, object)| (seq, op.to_owned(), object.to_owned()));
    assert_eq!(rows, expected);
}

/// A file of schema 4, as the server of that time wrote it: `a` serves an earlier revision than the one that was deployed last.
const SCHEMA_4: &str = r#"
    BEGIN;
    INSERT INTO server VALUES (1, 'abc', 7);
    INSERT INTO documents VALUES (1, 'one', 'kip.yaml'), (2, 'two', 'kip.yaml');
    INSERT INTO changes (at, key, object, op) VALUES (10, 'admin', 'function/a function/b', 'deploy');
    INSERT INTO functions (id, name, desired, serving, rev) VALUES (3, 'a', 8, 5, 2), (4, 'b', 6, NULL, 2);
    INSERT INTO revisions (id, function, ordinal, spec, document, created) VALUES
        (5, 3, 1, '{A}', 1, 20), (6, 4, 1, '{B}', 1, 20), (8, 3, 2, '{A}', 2, 30), (9, 4, 2, '{B}', 2, 30);
    DELETE FROM revisions WHERE id = 9;
    INSERT INTO settings VALUES (3, 'LATEST', 'provision', '{FC}', 2);
    COMMIT;
"#;

#[tokio::test]
async fn a_file_of_schema_4_is_brought_along_with_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.db");
    let old = Connection::open(&path).unwrap();
    for script in &MIGRATIONS[..4] {
        old.execute_batch(script).unwrap();
    }
    old.pragma_update(None, "user_version", 4).unwrap();
    let spec = |name: &str| serde_json::to_string(&super::contract::spec(name)).unwrap();
    let fc = kip_spec::scaling::Fc::new(kip_spec::scaling::Provision { default_target: 2, ..Default::default() });
    let fixture = SCHEMA_4.replace("{A}", &spec("a")).replace("{B}", &spec("b"));
    old.execute_batch(&fixture.replace("{FC}", &serde_json::to_string(&fc).unwrap())).unwrap();
    drop(old);

    let store = SqliteControl::open(&path).unwrap();
    assert!(folder.path().join("control.before-schema-8.db").exists());
    let current = store.current_revisions().await.unwrap();
    let found: Vec<(u64, u64, FunctionId)> =
        current.iter().map(|revision| (revision.id.0, revision.ordinal, revision.function)).collect();
    assert_eq!(found, [(5, 1, FunctionId(3)), (6, 1, FunctionId(4))], "what instances and records hold stays");
    assert_eq!(store.provisions().await.unwrap().0.len(), 1);
    assert_eq!((store.versions().await.unwrap().len(), store.aliases().await.unwrap().0.len()), (0, 0));
    let publish = Change::PublishVersion { function: name("a"), revision: current[0].id, description: String::new() };
    let Effect::Published(version) = commit(&store, publish).await.effect else { panic!("not published") };
    assert_eq!((version.number, version.ordinal), (1, 1));
    assert_eq!(deploy(&store, &["a"]).await[0].id.0, 10, "numbers go on behind the last that was ever given");
}

#[tokio::test]
async fn old_revisions_go_but_not_what_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.db");
    let store = SqliteControl::open(&path).unwrap();
    let mut made = Vec::new();
    for _ in 0..30 {
        made.extend(deploy(&store, &["a"]).await);
    }
    assert_eq!(store.revisions(name("a")).await.unwrap().len(), 30, "the young stay");
    commit(&store, Change::Serve { function: name("a"), revision: made[0].id }).await;
    let publish = Change::PublishVersion { function: name("a"), revision: made[2].id, description: String::new() };
    commit(&store, publish).await;
    let targets = vec![
        AliasTarget { revision: Some(made[4].id), millionths: 500_000 },
        AliasTarget { revision: None, millionths: 500_000 },
    ];
    let (function, alias) = (name("a"), "prod".parse().unwrap());
    commit(
        &store,
        Change::PutAlias { function, name: alias, targets, description: String::new(), sticky: None, rollout: None },
    )
    .await;
    Connection::open(&path).unwrap().execute("UPDATE revisions SET created = 1", []).unwrap();
    let Change::Deploy { specs, document, facade, traffic, held, extra, .. } = super::contract::deployment(&["a"])
    else {
        unreachable!()
    };
    let keep = vec![made[6].id];
    commit(&store, Change::Deploy { specs, document, facade, traffic, held, keep, extra }).await;
    let kept = store.revisions(name("a")).await.unwrap();
    let kept: Vec<u64> = kept.iter().map(|revision| revision.ordinal).collect();
    assert_eq!(
        kept,
        [1, 3, 5, 7, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31],
        "serving, published, pointed at, alive, newest"
    );
}
