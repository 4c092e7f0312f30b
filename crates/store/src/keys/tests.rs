use super::*;
use crate::control::contract::{commit, put_key};
use crate::{Change, ControlReader as _, ControlStore as _, Effect, Proposal, SqliteControl};

fn key(name: &str, secret: u8) -> StoredKey {
    StoredKey {
        functions: Some(["a".parse().unwrap(), "b".parse().unwrap()].into()),
        rate: Some("10/s".parse().unwrap()),
        burst: Some(20),
        concurrency: Some(4),
        expires: Some(1_000),
        ..StoredKey::new(name, [secret; 32], 7, "invoke", "t")
    }
}

#[tokio::test]
async fn keys_are_stored_changed_and_their_numbers_never_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteControl::open(&folder.path().join("control.db")).unwrap();
    let first = StoredKey { id: put_key(&store, key("x", 1)).await, rev: Seq(2), ..key("x", 1) };
    assert_eq!(store.keys().await.unwrap(), std::slice::from_ref(&first));
    store.keys_used(vec![(first.id, 50), (99, 1)]).await.unwrap();
    let changed = StoredKey { hash: [2; 32], previous: Some(([1; 32], 90)), rotated: Some(60), ..first.clone() };
    assert_eq!(put_key(&store, changed.clone()).await, first.id);
    store.keys_used(vec![(first.id, 40)]).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), [StoredKey { last_use: Some(50), rev: Seq(3), ..changed }]);
    let taken = Change::PutKey(Box::new(key("x", 3)));
    assert!(store.commit(Proposal::own(taken)).await.is_err(), "names are unique");
    assert_eq!(commit(&store, Change::RemoveKey(first.id)).await.effect, Effect::Done);
    assert_eq!(commit(&store, Change::RemoveKey(first.id)).await.effect, Effect::Nothing);
    assert!(put_key(&store, key("x", 1)).await > first.id);
}

#[tokio::test]
async fn keys_of_the_first_schema_are_administrators() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(crate::control::MIGRATIONS[0]).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    old.execute("INSERT INTO keys (hash, name, created) VALUES (?1, 'admin', 5)", [[9u8; 32]]).unwrap();
    drop(old);
    let keys = SqliteControl::open(&path).unwrap().keys().await.unwrap();
    let [found] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!((found.name.as_str(), found.role.as_str(), found.hash), ("admin", "admin", [9; 32]));
    assert!(!found.disabled && found.functions.is_none() && found.expires.is_none());
    assert!(folder.path().join(format!("control.before-schema-{}.db", crate::control::MIGRATIONS.len())).exists());
}

#[tokio::test]
async fn audit_records_are_found_by_each_filter_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteControl::open(&folder.path().join("control.db")).unwrap();
    let record = |number: i64| AuditRecord {
        id: 0,
        at: number,
        key: if number % 2 == 0 { "even" } else { "odd" }.to_owned(),
        key_id: 1,
        action: if number == 3 { "key.create" } else { "keyring" }.to_owned(),
        object: String::new(),
        peer: "127.0.0.1".to_owned(),
        result: "unknown".to_owned(),
    };
    let mut last = 0;
    for number in 0..6 {
        last = store.audit_begin(record(number)).await.unwrap();
    }
    store.audit_end(last, "f".to_owned(), "done".to_owned()).await.unwrap();
    let found = async |set: fn(&mut AuditFilter)| -> Vec<i64> {
        let mut filter = AuditFilter { limit: 100, ..AuditFilter::default() };
        set(&mut filter);
        store.audit(filter).await.unwrap().into_iter().map(|record| record.at).collect()
    };
    assert_eq!(found(|_| {}).await, [5, 4, 3, 2, 1, 0]);
    assert_eq!(found(|f| f.limit = 1).await, [5]);
    assert_eq!(found(|f| f.key = Some("even".to_owned())).await, [4, 2, 0]);
    assert_eq!(found(|f| f.action = Some("key".to_owned())).await, [3]);
    assert_eq!(found(|f| f.action = Some("key.create".to_owned())).await, [3]);
    assert_eq!(found(|f| f.action = Some("%".to_owned())).await, [0; 0]);
    assert_eq!(found(|f| f.object = Some("f".to_owned())).await, [5]);
    let page = store.audit(AuditFilter { limit: 2, ..AuditFilter::default() }).await.unwrap();
    let next = AuditFilter { limit: 2, before: page.last().map(|record| record.id), ..AuditFilter::default() };
    let next: Vec<i64> = store.audit(next).await.unwrap().into_iter().map(|record| record.at).collect();
    assert_eq!((page[1].at, next), (4, vec![3, 2]), "the next page begins where this one ends");
    assert_eq!(found(|f| (f.result, f.since) = (Some("unknown".to_owned()), Some(3))).await, [4, 3]);

    let mut plain = Connection::open_in_memory().unwrap();
    plain.execute_batch(crate::control::MIGRATIONS[0]).unwrap();
    plain.execute_batch(MIGRATION).unwrap();
    let count = |plain: &Connection, condition: &str| -> u32 {
        let query = format!("SELECT count(*) FROM audit WHERE {condition}");
        plain.query_row(&query, [], |row| row.get(0)).unwrap()
    };
    let fill = |plain: &Connection, most: u32, key: &str| {
        let query = format!(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?1)
             INSERT INTO audit (at, key, key_id, action, object, peer, result) SELECT x, '', {key}, '', '', '', '' FROM n"
        );
        plain.execute(&query, [most]).unwrap();
    };
    fill(&plain, 1, "2");
    fill(&plain, KEPT_OF_A_KEY + 500, "1");
    audit_begin(&mut plain, &record(2)).unwrap();
    assert_eq!(count(&plain, "key_id = 1"), KEPT_OF_A_KEY, "one key keeps its newest");
    assert_eq!(count(&plain, "key_id = 2"), 1, "and pushes out nobody else's");
    assert_eq!(audit(&plain, &AuditFilter { limit: 1, ..AuditFilter::default() }).unwrap()[0].at, 2);
    fill(&plain, KEPT_RECORDS, "3 + x % 9");
    audit_begin(&mut plain, &record(2)).unwrap();
    // Whole shares: a few less than there may be.
    assert!((KEPT_RECORDS - 10..=KEPT_RECORDS).contains(&count(&plain, "1")), "{} in all", count(&plain, "1"));
    assert_eq!(count(&plain, "key_id = 2"), 1, "and the only one of a key is among them");
    let late = AuditRecord { at: KEPT_FOR + 5, ..record(2) };
    audit_begin(&mut plain, &late).unwrap();
    assert_eq!(count(&plain, "at < 5"), 0, "what is too old goes");
}
