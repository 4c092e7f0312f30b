//! As many open tasks as a queue has to take at least.

use bytes::Bytes;

use super::task;
use crate::health::DiskHealth;
use crate::tasks::{NewTask, SqliteTasks, TaskNumber, TaskReader as _, TaskState, TaskStore, Tuning};

const ROWS: u64 = 1_000_000;
/// Submitted at once.
const WAVE: u64 = 10_000;

/// What the task of this number was given.
fn payload(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_that_wait_are_there_in_their_order_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.db");
    // What a sync is good for is seen elsewhere; without, this takes seconds.
    let open =
        || SqliteTasks::open_with(&path, DiskHealth::default(), Tuning { synced: false, ..Tuning::default() }).unwrap();
    let store = open();
    let mut first = None;
    for wave in 0..ROWS / WAVE {
        let tasks = (wave * WAVE..(wave + 1) * WAVE).map(|at| {
            let priority = u8::try_from(at % 8).unwrap();
            store.accept(NewTask { payload: payload(at), priority, ..task() })
        });
        for (at, accepted) in (wave * WAVE..).zip(futures_util::future::join_all(tasks).await) {
            let number = accepted.unwrap().number().0;
            assert_eq!(number, *first.get_or_insert(number) + at, "numbers follow the order of submission");
        }
    }
    let first = first.unwrap();
    drop(store);
    let store = open();
    let (mut found, mut behind) = (0, TaskNumber(0));
    loop {
        let page = store.open(behind, 10_000).await.unwrap();
        let Some(last) = page.last() else { break };
        behind = last.number;
        for task in page {
            assert_eq!((task.number.0, task.now.state), (first + found, TaskState::Enqueued));
            assert_eq!(u64::from(task.priority), found % 8);
            found += 1;
        }
    }
    assert_eq!(found, ROWS);
    for at in [0, 1, WAVE - 1, WAVE, 123_456, ROWS - 1] {
        assert_eq!(store.payload(TaskNumber(first + at)).await.unwrap().unwrap(), payload(at));
    }
    assert!(store.accept(task()).await.unwrap().number().0 >= first + ROWS, "a number is never given twice");
}
