//! A disk that is full or fails below the store. The library that makes it so is the one of the binary's tests.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use kip_host::disk::{Pressure, Reserve};

use super::{claim, end, look, run_below, task};
use crate::SqliteFile as _;
use crate::database::Error;
use crate::health::{Condition, DiskHealth};
use crate::tasks::{NewTask, SqliteTasks, TaskFilter, TaskNumber, TaskReader as _, TaskState, TaskStore, Tuning};

fn with_faults(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("faults"), "").unwrap();
    run_below("../kip/tests/binary/faults.c", &format!("faults::below::{test}"), folder.path(), ("FAULTS", "faults"));
}

#[test]
fn a_failed_write_or_sync_ends_all_changes() {
    with_faults("failed_writes_and_syncs");
}

#[test]
fn a_full_disk_takes_the_reserve_then_refuses_and_recovers() {
    with_faults("full_disk");
}

#[test]
fn a_checkpoint_that_fails_loses_nothing() {
    with_faults("failed_checkpoint");
}

mod below {
    use super::*;

    /// From now on these rules hold, and no others.
    fn rules(rules: &str) {
        fs::write("faults.new", rules).unwrap();
        fs::rename("faults.new", "faults").unwrap();
    }

    fn large(byte: u8) -> NewTask {
        NewTask { payload: Bytes::from(vec![byte; 100_000]), ..task() }
    }

    #[tokio::test]
    #[ignore = "run by a_failed_write_or_sync_ends_all_changes in a process of its own"]
    async fn failed_writes_and_syncs() {
        let faults = [
            ("lost tasks.db-wal", false),
            ("broken tasks.db-wal", false),
            ("lost tasks.blobs", true),
            ("broken tasks.blobs", true),
        ];
        for (round, (rule, in_file)) in faults.into_iter().enumerate() {
            let path = format!("{round}/tasks.db");
            fs::create_dir(round.to_string()).unwrap();
            let store = SqliteTasks::open(Path::new(&path)).unwrap();
            let kept = store.accept(task()).await.unwrap().number();
            rules(rule);
            let new = || if in_file { large(1) } else { task() };
            let failed = store.accept(new()).await;
            assert!(matches!(failed, Err(Error::NotDurable { .. })), "{rule}: {failed:?}");
            rules("");
            for _ in 0..3 {
                let failed = store.accept(task()).await;
                assert!(matches!(failed, Err(Error::NotDurable { .. })), "{rule}: {failed:?}");
            }
            let claimed = store.advance(claim(&look(&store, kept).await, 1)).await;
            assert!(matches!(claimed, Err(Error::NotDurable { .. })), "{rule}: {claimed:?}");
            assert!(matches!(store.condition(), Condition::NotDurable(_)));
            assert_eq!(look(&store, kept).await.now.state, TaskState::Enqueued, "{rule}: it can be read");
            store.room_again();
            assert!(matches!(store.condition(), Condition::NotDurable(_)), "room does not heal it");
            drop(store);
            // A new start reads what is on the disk.
            let store = SqliteTasks::open(Path::new(&path)).unwrap();
            assert_eq!(look(&store, kept).await.now.state, TaskState::Enqueued);
            assert!(store.count(TaskFilter::default(), 10).await.unwrap() <= 2, "at most the one that was in doubt");
            store.accept(large(2)).await.unwrap();
        }
    }

    #[tokio::test]
    #[ignore = "run by a_full_disk_takes_the_reserve_then_refuses_and_recovers in a process of its own"]
    async fn full_disk() {
        for (round, rule) in ["full tasks.db-wal", "full tasks.blobs"].into_iter().enumerate() {
            fs::create_dir(round.to_string()).unwrap();
            let reserve = Reserve::new(format!("{round}/reserve").into(), 1 << 20);
            reserve.hold().unwrap();
            let care = DiskHealth::with_reserve(Pressure::default(), reserve.clone());
            let path = format!("{round}/tasks.db");
            let store = SqliteTasks::open_with(Path::new(&path), care, Tuning::default()).unwrap();
            let over = store.accept(task()).await.unwrap().number();
            assert!(store.advance(end(&look(&store, over).await, TaskState::Stopped)).await.unwrap().applied);
            let here = std::env::current_dir().unwrap();
            rules(&format!("{rule} {}/{round}/reserve", here.display()));
            let first = store.accept(large(1)).await.unwrap().number();
            assert!(!reserve.is_held(), "{rule}: the reserve was given up");
            rules(rule);
            for _ in 0..2 {
                let failed = store.accept(large(2)).await;
                assert!(matches!(failed, Err(Error::Full { .. })), "{rule}: {failed:?}");
                assert_eq!(store.condition(), Condition::Full);
            }
            // What makes room is tried all the same; whether it goes depends on what has none.
            let forgotten = store.forget(vec![over]).await;
            if rule.contains("blobs") {
                assert_eq!(forgotten.unwrap(), 1, "{rule}");
            } else {
                assert!(matches!(forgotten, Err(Error::Full { .. })), "{rule}: {forgotten:?}");
            }
            rules("");
            store.room_again();
            let next = store.accept(large(2)).await.unwrap().number();
            assert_eq!(next, TaskNumber(first.0 + 1), "{rule}: what was refused is not there");
            assert_eq!(store.payload(next).await.unwrap().unwrap().len(), 100_000);
        }
    }

    #[tokio::test]
    #[ignore = "run by a_checkpoint_that_fails_loses_nothing in a process of its own"]
    async fn failed_checkpoint() {
        let store = SqliteTasks::open(Path::new("tasks.db")).unwrap();
        rules("broken tasks.db$");
        let mut kept = Vec::new();
        // The log grows until a checkpoint is tried, which fails.
        let failed = loop {
            assert!(kept.len() < 5_000, "no checkpoint was tried");
            match store.accept(NewTask { payload: Bytes::from(vec![1; 30_000]), ..task() }).await {
                Ok(accepted) => kept.push(accepted.number()),
                Err(error) => break error,
            }
        };
        assert!(matches!(failed, Error::NotDurable { .. }), "{failed:?}");
        rules("");
        drop(store);
        let store = SqliteTasks::open(Path::new("tasks.db")).unwrap();
        for number in kept {
            assert_eq!(store.payload(number).await.unwrap().unwrap().len(), 30_000);
        }
    }
}
