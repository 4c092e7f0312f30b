//! Schedules in process, over real stores: a caller that leaves between a commit and memory.

use std::sync::Arc;
use std::time::Duration;

use kip_control::{Stores, testing};
use kip_records::metrics::Metrics;
use kip_spec::function::FunctionSpec;
use kip_spec::job::{Job, Timer};
use kip_store::gate::{CommitGate, GatedTasks};
use kip_store::tasks::{SqliteTasks, TaskReader as _};
use kip_store::{Author, Changes, SqliteControl, SqliteRecords};
use kip_tasks::Tasks;

use crate::service::{Events, Options};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_has_a_pause_of_a_schedule_though_its_caller_left() {
    let data = tempfile::tempdir().unwrap();
    let path = |name: &str| data.path().join(name);
    let changes = Changes::of_file(Arc::new(SqliteControl::open(&path("control.db")).unwrap()));
    let records = Arc::new(SqliteRecords::open(&path("records.db")).unwrap());
    let (control, _body) = testing::open(data.path(), 1, Stores { changes, records, files: None }, false).await;
    let store = SqliteTasks::open(&path("tasks.db")).unwrap();
    let gate = CommitGate::default();
    let gated = Arc::new(GatedTasks { store: store.clone(), gate: gate.clone() });
    let tasks = Tasks::open(gated, control.clone(), Metrics::new(8), Default::default()).await.unwrap();
    let events = Events::open(control.clone(), tasks, Options::default()).await.unwrap();

    let timer = Timer {
        cron: "0 0 0 1 1 *".parse().unwrap(),
        zone: "UTC".to_owned(),
        overlap: kip_spec::job::Overlap::default(),
        missed: kip_spec::job::MissedRuns::default(),
        deadline: None,
        paused: false,
    };
    let job = Job { timer: Some(timer), ..Job::default() };
    let spec = FunctionSpec { job: Some(job), ..testing::spec("job") };
    control.deploy(vec![spec], String::new(), "kip.yaml", Author::default()).await.unwrap();
    events.jobs_changed();
    until("the timer", async || store.configs().await.unwrap().len() == 1).await;
    let paused = async |expected: bool| {
        events
            .job(&kip_tasks::tenant::TenantScope::All, "job", 1)
            .await
            .unwrap()
            .schedule
            .is_some_and(|timer| timer.paused == expected)
    };
    gate.leave(events.pause_job("job", true)).await;
    until("the pause", async || paused(true).await).await;
    gate.leave(events.pause_job("job", false)).await;
    until("the end of the pause", async || paused(false).await).await;

    // Two changes at once: none is made of a state that the other one replaces.
    let timer = control.cell("job").unwrap().serving().spec.job.clone().unwrap().timer.unwrap();
    let (skip, pause) = tokio::join!(
        events.shared.change("job", timer.clone(), |kept| kept.leave_out(7, "a test")),
        events.shared.change("job", timer, |kept| kept.paused = Some(true)),
    );
    assert!(skip.is_ok() && pause.is_ok());
    let schedule = events.job(&kip_tasks::tenant::TenantScope::All, "job", 1).await.unwrap().schedule.unwrap();
    assert_eq!((schedule.paused, schedule.left_out), (true, 1));
}
