//! What is beside the database: blobs, the log, copies, older and newer files.

use std::fs;

use bytes::Bytes;

use super::{end, look, store, task};
use crate::SqliteFile as _;
use crate::database::Error;
use crate::tasks::{NewTask, Output, SqliteTasks, SubmitOutcome, TaskNumber, TaskReader as _, TaskState, TaskStore};

fn files(folder: &std::path::Path) -> usize {
    fs::read_dir(folder.join("tasks.blobs")).unwrap().count()
}

/// Waits until there are so many, for as long as a healthy disk may take.
async fn until_files(folder: &std::path::Path, many: usize) {
    for _ in 0..3_000 {
        if files(folder) == many {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} files in place of {many}", files(folder));
}

#[tokio::test]
async fn files_go_with_their_last_row_and_strangers_at_the_start() {
    let (folder, store) = store();
    let large = Bytes::from(vec![7u8; 100_000]);
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let number = store.accept(NewTask { payload: large.clone(), ..task() }).await.unwrap().number();
        let mut over = end(&look(&store, number).await, TaskState::Succeeded);
        over.output = Some(Output { head: String::new(), body: Bytes::from(vec![9u8; 100_000]) });
        assert!(store.advance(over).await.unwrap().applied);
        numbers.push(number);
    }
    assert_eq!(files(folder.path()), 2, "the same content is stored once");
    let copy = folder.path().join("copy.db");
    let hold = store.copy_to(copy.clone()).await.unwrap();
    store.forget(numbers).await.unwrap();
    store.accept(task()).await.unwrap();
    assert_eq!(files(folder.path()), 2, "a backup needs them");
    drop(hold);
    let small = store.accept(task()).await.unwrap().number();
    // After its answer, so one has to wait a moment.
    until_files(folder.path(), 0).await;
    let over = end(&look(&store, small).await, TaskState::Succeeded);
    assert!(store.advance(over).await.unwrap().applied);
    store.accept(NewTask { payload: large, ..task() }).await.unwrap();
    drop(store);
    fs::write(folder.path().join("tasks.blobs/new-of-a-crash"), "x").unwrap();
    fs::write(folder.path().join("tasks.blobs/0123"), "x").unwrap();
    let store = SqliteTasks::open(&folder.path().join("tasks.db")).unwrap();
    assert_eq!(files(folder.path()), 1, "only what a row refers to");
    assert!(store.task(TaskNumber(5)).await.unwrap().is_some());
    let copied = rusqlite::Connection::open(copy).unwrap();
    let rows: i64 = copied.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2, "the copy is of the moment it was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_does_not_grow_without_end() {
    let (folder, store) = store();
    let log = folder.path().join("tasks.db-wal");
    let mut largest = 0;
    // About 160 MiB through a log that is to stay below its limit and what one checkpoint takes.
    for _ in 0..80 {
        let batch = (0..64).map(|_| store.accept(NewTask { payload: Bytes::from(vec![3u8; 32_000]), ..task() }));
        futures_util::future::join_all(batch).await.into_iter().for_each(|accepted| assert!(accepted.is_ok()));
        largest = largest.max(fs::metadata(&log).unwrap().len());
    }
    assert!(largest < 120 << 20, "{largest}");
}

#[tokio::test]
async fn a_newer_file_is_refused_and_an_own_one_opens_again() {
    let (folder, store) = store();
    let path = folder.path().join("tasks.db");
    let number = store.accept(task()).await.unwrap().number();
    assert!(store.sync_times().probe_us > 0 && store.sync_times().commits == 1);
    drop(store);
    let again = SqliteTasks::open(&path).unwrap();
    assert!(again.task(number).await.unwrap().is_some());
    drop(again);
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(SqliteTasks::open(&path), Err(Error::Newer { found: 99, .. })));
}

#[tokio::test]
async fn tasks_of_the_schema_before_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    for script in &crate::tasks::MIGRATIONS[..2] {
        old.execute_batch(script).unwrap();
    }
    old.pragma_update(None, "user_version", 2).unwrap();
    old.execute_batch(
        r#"INSERT INTO tasks VALUES (7, 'f', 'LATEST', 'default', NULL, 0, 5, NULL, 1, 99, 1, 1, 4, 0, 1, 2, 0, 0, 0, 0,
             'i-4-1-1', 0, NULL, NULL, '5 Dequeued
5 Running {"instance":"i-4-1-1","epoch":1}
6 Progress {"text":"half"}
', '', 'half');
           INSERT INTO inputs VALUES (7, '{}', x'77', NULL, NULL, zeroblob(16));"#,
    )
    .unwrap();
    drop(old);
    let store = SqliteTasks::open(&path).unwrap();
    let task = look(&store, TaskNumber(7)).await;
    assert_eq!((task.now.state, task.now.boot, &*task.now.server), (TaskState::Running, 4, ""));
    let events: Vec<(u64, i64, &str)> =
        task.events.iter().map(|event| (event.number, event.at, event.value.as_str())).collect();
    let running = r#"{"Running":{"instance":"i-4-1-1","epoch":1}}"#;
    assert_eq!(events, [(2, 5, r#"{"Dequeued":null}"#), (3, 5, running), (4, 6, r#"{"Progress":{"text":"half"}}"#)]);
    assert!(store.note_progress(task.number, 1, 8, "all".to_owned()).await.unwrap());
    assert!(store.advance(end(&task, TaskState::Succeeded)).await.unwrap().applied);
    let numbers: Vec<u64> = look(&store, task.number).await.events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, [2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn ids_and_keys_of_the_schema_before_take_the_tenants_of_their_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    for script in &crate::tasks::MIGRATIONS[..3] {
        old.execute_batch(script).unwrap();
    }
    old.pragma_update(None, "user_version", 3).unwrap();
    // Number, tenant, id, idempotency key, envelope.
    for (number, tenant, id, key, envelope) in [
        (1, "alpha", Some("a"), Some("k"), r#"{"key":"shop"}"#),
        (2, "default", Some("b"), None, r#"{"key":"admin"}"#),
        (3, "default", Some("c"), Some("l"), "{}"),
        (4, "default", Some("at-20240701T040000Z"), None, r#"{"due":1719806400000}"#),
        (5, "default", None, Some("kip-word-3-1"), "{}"),
        (6, "default", None, Some("kip-word-2-9"), "{}"),
        (7, "default", None, None, "spoilt"),
    ] {
        old.execute(
            "INSERT INTO tasks VALUES (?1, 'f', 'LATEST', ?2, ?3, 0, 5, NULL, 1, 99, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, NULL, 0, NULL,
                 NULL, '', '', NULL, 0, '', 0, 1)",
            rusqlite::params![number, tenant, id],
        )
        .unwrap();
        let bytes = (number != 6).then_some("work");
        let blob = (number == 6).then_some("0123");
        old.execute(
            "INSERT INTO inputs VALUES (?1, ?2, CAST(?3 AS BLOB), ?4, ?5, x'07070707070707070707070707070707')",
            rusqlite::params![number, envelope, bytes, blob, key],
        )
        .unwrap();
        for (kind, id) in [(0, id), (1, key)] {
            let Some(id) = id else { continue };
            old.execute("INSERT INTO ids VALUES ('f', ?1, ?2, ?3)", rusqlite::params![kind, id, number]).unwrap();
        }
    }
    drop(old);
    let store = SqliteTasks::open(&path).unwrap();
    let mut tenants = Vec::new();
    for number in 1..=7 {
        let task = look(&store, TaskNumber(number)).await;
        tenants.push((task.tenant.to_string(), task.size));
    }
    let of = |tenant: &str, size| (tenant.to_owned(), size);
    assert_eq!(
        tenants,
        [
            of("alpha", 4),
            of("default", 4),
            of("@anonymous", 4),
            of("@system", 4),
            of("@anonymous", 4),
            of("default", 65_537),
            of("@anonymous", 4)
        ]
    );
    for (id, tenant, number) in
        [("a", "alpha", 1), ("b", "default", 2), ("c", "@anonymous", 3), ("at-20240701T040000Z", "@system", 4)]
    {
        let found = store.find("f".to_owned(), None, id.to_owned()).await.unwrap();
        assert_eq!(found, [(tenant.to_owned(), TaskNumber(number))], "{id}");
    }
    let again = |tenant: &str, key: &str, earlier: u8| NewTask {
        tenant: tenant.into(),
        key: Some(key.to_owned()),
        fingerprint: [1; 32],
        earlier_fingerprint: [earlier; 16],
        ..task()
    };
    let known = |number| SubmitOutcome::Known(TaskNumber(number));
    assert_eq!(
        store.accept(again("alpha", "k", 7)).await.unwrap(),
        known(1),
        "a repetition across the change is known"
    );
    assert!(matches!(store.accept(again("alpha", "k", 8)).await.unwrap(), SubmitOutcome::Conflict(_)));
    assert_eq!(store.accept(again("@anonymous", "l", 7)).await.unwrap(), known(3));
    assert!(matches!(store.accept(again("beta", "k", 7)).await.unwrap(), SubmitOutcome::New(_)));
}
