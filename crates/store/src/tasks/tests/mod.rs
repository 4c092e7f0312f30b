mod contract;
mod faults;
mod files;
mod million;
mod power;

use std::sync::Arc;

use bytes::Bytes;

use super::{NewEvent, NewTask, SqliteTasks, Step, Task, TaskNumber, TaskProgress, TaskState, TaskStore};

/// A task of function `f` with nothing special about it.
pub(super) fn task() -> NewTask {
    NewTask {
        function: Arc::from("f"),
        qualifier: Arc::from("LATEST"),
        tenant: Arc::from("default"),
        created: 1_000,
        run_at: 1_000,
        expires_at: 90_000,
        envelope: "{}".to_owned(),
        payload: Bytes::from_static(b"work"),
        ..NewTask::default()
    }
}

/// The step that claims a task.
pub(super) fn claim(task: &Task, boot: u32) -> Step {
    let to = TaskProgress {
        state: TaskState::Running,
        epoch: task.now.epoch + 1,
        boot,
        lease_until: 15_000,
        started: 2_000,
        instance: Some(Arc::from("i-1-1-1")),
        ..task.now.clone()
    };
    step(task, to, "\"Running\"")
}

/// The step that ends a task in this state.
pub(super) fn end(task: &Task, state: TaskState) -> Step {
    step(task, TaskProgress { state, ended: 3_000, ..task.now.clone() }, "\"over\"")
}

pub(super) fn step(task: &Task, to: TaskProgress, event: &str) -> Step {
    Step {
        number: task.number,
        function: None,
        from: task.now.state,
        epoch: task.now.epoch,
        to,
        events: vec![NewEvent { at: 2_000, value: event.to_owned() }],
        output: None,
        deliveries: Vec::new(),
    }
}

pub(super) async fn look(store: &dyn TaskStore, number: TaskNumber) -> Task {
    store.task(number).await.unwrap().unwrap()
}

/// A store in a folder of its own.
pub(super) fn store() -> (tempfile::TempDir, SqliteTasks) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteTasks::open(&folder.path().join("tasks.db")).unwrap();
    (folder, store)
}

/// Runs one of these tests, marked `ignored`, in a process of its own with a C library before the system's. The test works in
/// the folder. False without a C compiler.
pub(super) fn run_below(source: &str, test: &str, folder: &std::path::Path, variable: (&str, &str)) -> bool {
    use std::process::Command;
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let library = folder.join("below.so");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-pthread", "-o"]).arg(&library).arg(source).status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no C compiler");
        return false;
    }
    let name = format!("tasks::tests::{test}");
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", &name, "--nocapture", "--test-threads", "1"])
        .current_dir(folder)
        .env("LD_PRELOAD", &library)
        .env(variable.0, folder.join(variable.1))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    true
}
