//! The shell in process, over real stores: a caller that leaves, an answer that is lost, a function that is made again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kip_control::{Control, Stores, testing};
use kip_host::clock::wall_millis;
use kip_records::metrics::Metrics;
use kip_spec::function::FunctionSpec;
use kip_store::gate::{CommitGate, GatedTasks};
use kip_store::tasks::{
    SqliteTasks, Step, TaskFilter, TaskNumber, TaskProgress, TaskReader, TaskState, TaskStore as _,
};
use kip_store::{Author, Changes, SqliteControl, SqliteRecords};

use crate::config::{AsyncConfig, LATEST, Options};
use crate::dispatch::settle;
use crate::event::Event;
use crate::operations::BulkAction;
use crate::progress;
use crate::rounds::{expire, forget_counts, look_at_functions};
use crate::shared::{Submission, Tasks};
use crate::tenant::TenantScope;

const ALL: TenantScope = TenantScope::All;

struct World {
    data: tempfile::TempDir,
    control: Control,
    tasks: Tasks,
    gate: CommitGate,
    store: SqliteTasks,
}

async fn deploy(control: &Control, spec: FunctionSpec) {
    control.deploy(vec![spec], String::new(), "kip.yaml", Author::default()).await.unwrap();
}

async fn world() -> World {
    let data = tempfile::tempdir().unwrap();
    let path = |name: &str| data.path().join(name);
    let changes = Changes::of_file(Arc::new(SqliteControl::open(&path("control.db")).unwrap()));
    let records = Arc::new(SqliteRecords::open(&path("records.db")).unwrap());
    let (control, _body) = testing::open(data.path(), 1, Stores { changes, records, files: None }, false).await;
    deploy(&control, testing::spec("f")).await;
    let store = SqliteTasks::open(&path("tasks.db")).unwrap();
    let gate = CommitGate::default();
    let tasks = open(&control, &store, &gate).await;
    World { data, control, tasks, gate, store }
}

async fn open(control: &Control, store: &SqliteTasks, gate: &CommitGate) -> Tasks {
    let gated = GatedTasks { store: store.clone(), gate: gate.clone() };
    let options = Options { server: "me".to_owned(), secret: vec![7; 16], ..Options::default() };
    Tasks::open(Arc::new(gated), control.clone(), Metrics::new(8), options).await.unwrap()
}

/// A submission that is not run within the test.
fn later(id: &str) -> Submission {
    Submission {
        function: "f".to_owned(),
        id: Some(id.to_owned()),
        delay: Some(Duration::from_secs(3_600)),
        payload: Bytes::from_static(b"work"),
        request: "r".to_owned(),
        ..Submission::default()
    }
}

/// Waits for something that comes soon.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} does not come");
}

impl World {
    /// Begins a change whose caller leaves when its commit is on the disk.
    async fn leave<F: Future>(&self, change: F) {
        self.gate.leave(change).await;
    }

    async fn submit(&self, id: &str) -> TaskNumber {
        self.tasks.submit(later(id)).await.unwrap().number
    }

    async fn state(&self, number: TaskNumber) -> TaskState {
        self.store.task(number).await.unwrap().unwrap().now.state
    }

    /// The state in memory; none for a task that is over.
    fn memory(&self, number: TaskNumber) -> Option<TaskState> {
        self.tasks.shared.book().entry(number).map(|entry| entry.state)
    }

    /// The claim that a thread would make for a task, as a step.
    fn claim(&self, number: TaskNumber) -> Step {
        let entry = self.tasks.shared.book().entry(number).unwrap().clone();
        let to = TaskProgress {
            state: TaskState::Running,
            epoch: entry.epoch + 1,
            server: Arc::from("me"),
            boot: 1,
            started: wall_millis(),
            instance: Some(Arc::from("i-1-1-1")),
            ..entry.progressed()
        };
        let events = vec![Event::became(&to).at(wall_millis())];
        Step {
            number,
            function: None,
            from: entry.state,
            epoch: entry.epoch,
            to,
            events,
            output: None,
            deliveries: vec![],
        }
    }

    /// A task that runs, as far as stores and memory know.
    async fn running(&self, id: &str) -> TaskNumber {
        let number = self.submit(id).await;
        assert!(self.tasks.shared.advance(self.claim(number)).await.unwrap());
        number
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_has_each_change_of_a_task_though_its_caller_left() {
    let world = world().await;
    let tasks = &world.tasks;
    world.leave(tasks.submit(later("submitted"))).await;
    until("the submitted task", async || tasks.shared.book().counts("f").later == 1).await;

    let number = world.submit("stopped").await;
    world.leave(tasks.stop(&ALL, "f", "stopped")).await;
    until("the stop", async || world.memory(number).is_none()).await;

    world.leave(tasks.retry(&ALL, "f", "stopped")).await;
    until("the retry", async || world.memory(number) == Some(TaskState::Enqueued)).await;

    let stop_all = TaskFilter { function: Some("f".to_owned()), ..TaskFilter::default() };
    world.leave(tasks.bulk(&ALL, BulkAction::Stop, stop_all.clone(), false)).await;
    until("the stop of all", async || tasks.shared.book().queued() == 0).await;

    world.leave(tasks.bulk(&ALL, BulkAction::Retry, stop_all, false)).await;
    until("the retry of all", async || tasks.shared.book().queued() == 2).await;

    tasks.stop(&ALL, "f", "stopped").await.unwrap();
    world.leave(tasks.purge(&ALL, "f", "stopped")).await;
    until("the purge", async || world.store.task(number).await.unwrap().is_none()).await;

    let running = world.running("running").await;
    let token = progress::token(&tasks.shared, running, 1);
    world.leave(tasks.note_progress(running, 1, &token, "half")).await;
    until("the progress", async || world.store.task(running).await.unwrap().unwrap().progress.is_some()).await;

    world.leave(tasks.stop(&ALL, "f", "running")).await;
    until("the stop of a run", async || world.memory(running) == Some(TaskState::Stopping)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_has_each_setting_though_its_caller_left() {
    let world = world().await;
    let tasks = &world.tasks;
    let config = AsyncConfig { max_async_retry_attempts: 1, ..AsyncConfig::default() };
    world.leave(tasks.put_config("f", LATEST, Some(config.clone()))).await;
    until("the configuration", async || tasks.config("f", LATEST) == Some(config.clone())).await;
    world.leave(tasks.put_config("f", LATEST, None)).await;
    until("its removal", async || tasks.config("f", LATEST).is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_stopped_frees_its_ordering_key_though_its_caller_left() {
    let world = world().await;
    let ordered = |id: &str| Submission { order: Some("k".to_owned()), ..later(id) };
    let first = world.tasks.submit(ordered("first")).await.unwrap().number;
    let second = world.tasks.submit(ordered("second")).await.unwrap().number;
    world.leave(world.tasks.stop(&ALL, "f", "first")).await;
    until("the stop", async || world.memory(first).is_none()).await;
    assert_ne!(world.tasks.shared.book().wait(second), Some(kip_queue::book::Wait::Order));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_of_an_end_that_comes_behind_the_retry_changes_nothing() {
    let world = world().await;
    let number = world.running("a").await;
    let failed = |world: &World| {
        let entry = world.tasks.shared.book().entry(number).unwrap().clone();
        let to = TaskProgress { state: TaskState::Failed, ended: wall_millis(), ..entry.progressed() };
        let (events, from, epoch) = (vec![Event::became(&to).at(1)], entry.state, entry.epoch);
        Step { number, function: None, from, epoch, to, events, output: None, deliveries: vec![] }
    };
    let step = failed(&world);
    // The end is on the disk, and memory has not heard of it.
    let stepped = world.store.advance(step.clone()).await.unwrap();
    assert!(stepped.applied && world.memory(number) == Some(TaskState::Running));
    world.tasks.retry(&ALL, "f", "a").await.unwrap();
    until("the retry", async || world.memory(number) == Some(TaskState::Enqueued)).await;
    world.tasks.shared.applied(number, &step.to, stepped.order);
    assert_eq!(world.memory(number), Some(TaskState::Enqueued));
    assert_eq!(world.state(number).await, TaskState::Enqueued);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_answer_was_lost_is_settled_by_its_row() {
    let world = world().await;
    let shared = &world.tasks.shared;
    for (id, reaches_the_disk) in [("there", true), ("not", false)] {
        let number = world.submit(id).await;
        let step = world.claim(number);
        // As a thread takes it: out of the queues until something is known of it.
        shared.book().settle(number, |entry| entry.run_at = 0, wall_millis());
        assert_eq!(shared.book().take("f", LATEST, |_| true), Some(number));
        if reaches_the_disk {
            world.gate.lose();
            let sent = step.clone();
            let lost = shared.commits.unit("claim", move |store| async move { store.advance_all(vec![sent]).await });
            assert!(lost.await.is_err());
        }
        settle(shared, number, Some(step.to));
        until("a state that is known", async || !shared.book().is_out(number)).await;
        let state = if reaches_the_disk { TaskState::Retrying } else { TaskState::Enqueued };
        assert_eq!((world.memory(number), world.state(number).await), (Some(state), state), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_or_without_a_function_ends_in_one_commit() {
    let world = world().await;
    let shared = &world.tasks.shared;
    let commits = || world.store.sync_times().commits;
    for id in 0..60 {
        world.submit(&format!("a{id}")).await;
    }
    let before = commits();
    expire(shared, wall_millis() + 40 * 86_400_000).await.unwrap();
    assert_eq!(commits() - before, 1, "sixty ends");
    assert_eq!(shared.book().queued(), 0);

    for id in 0..60 {
        world.submit(&format!("b{id}")).await;
    }
    world.control.remove("f", Author::default()).await.unwrap();
    let before = commits();
    look_at_functions(shared).await.unwrap();
    assert!(commits() - before <= 1, "sixty ends");
    until("their ends", async || shared.book().queued() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_a_function_that_was_removed_are_not_those_of_its_name() {
    let world = world().await;
    let number = world.submit("old").await;
    world.control.remove("f", Author::default()).await.unwrap();
    deploy(&world.control, testing::spec("f")).await;
    let new = world.submit("new").await;
    look_at_functions(&world.tasks.shared).await.unwrap();
    until("the end of the old one", async || world.state(number).await == TaskState::Invalid).await;
    assert_eq!(world.state(new).await, TaskState::Enqueued);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_go_with_their_function() {
    let world = world().await;
    world.submit("a").await;
    let mut seen = None;
    forget_counts(&world.tasks.shared, &mut seen);
    assert_eq!(world.tasks.shared.stats.functions().len(), 1);
    world.control.remove("f", Author::default()).await.unwrap();
    look_at_functions(&world.tasks.shared).await.unwrap();
    until("its end", async || world.tasks.shared.book().queued() == 0).await;
    forget_counts(&world.tasks.shared, &mut seen);
    assert_eq!(world.tasks.shared.stats.functions().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_voids_its_own_servers_claims_only() {
    let world = world().await;
    let own = world.running("own").await;
    let other = world.submit("other").await;
    let mut claim = world.claim(other);
    claim.to.server = Arc::from("another");
    assert!(world.store.advance(claim).await.unwrap().applied);
    let again = open(&world.control, &world.store, &world.gate).await;
    assert_eq!(world.state(own).await, TaskState::Retrying, "its run ended with the server");
    assert_eq!(world.state(other).await, TaskState::Running, "another server works on it");
    assert!(again.shared.book().is_out(other));
    drop(world.data);
}
