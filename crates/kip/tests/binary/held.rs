//! Runs of stateful tasks, each held by a process that outlives the server.

use std::fs;

use serde_json::json;

use crate::support::{KIP, Server, is_alive, manifest, until_true};
use crate::tasks::{Bench, noted};

/// A run of a stateful task is held by a process of its own: the server can be killed, restarted and replaced in the midst of it.
#[test]
fn a_long_run_outlives_its_server() {
    let mut bench = Bench::start("instances: {max: 2}\ntimeouts: {total: 2s}");
    bench.configure(&json!({"asyncTask": true}));
    let [first, second, third] = ["1", "2", "3"].map(|name| bench.server.folder().join(name));
    let through = bench.task("", &format!("wait {}\nanswer through", first.display()));
    let process = bench.until_begun(&through);
    bench.server.crash();
    // Another binary takes it up, as after an upgrade.
    let upgraded = bench.server.folder().join("kip-upgraded");
    fs::copy(KIP, &upgraded).unwrap();
    let known = bench.server.serve_command();
    let mut command = std::process::Command::new(&upgraded);
    command.args(known.get_args());
    for (name, _) in known.get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(name);
    }
    bench.server.start_by(command);
    assert_eq!(bench.show(&through)["status"], "Running");
    // Longer than any request of the function may take.
    let then = kip_host::clock::boot_millis() + 2_500;
    until_true("that time is over", || kip_host::clock::boot_millis() > then);
    bench.server.terminate();
    bench.server.start_again();
    fs::write(&first, "").unwrap();
    let task = bench.until(&through, "Succeeded");
    assert_eq!((&task["returnPayload"], &task["crashes"], &task["epoch"]), (&json!("through"), &json!(0), &json!(1)));
    assert_eq!(bench.runs(&through), 1);
    assert!(is_alive(process), "its instance goes on");
    // A held run has a record as any request has; before the next kill, which may take the last second's.
    let recorded = |bench: &Bench, id: &str, outcome: &str| {
        let request = bench.show(id)["requestId"].as_str().unwrap().to_owned();
        let record = bench.server.until_record("a held run has a record", |record| record["id"] == request);
        assert_eq!((&record["outcome"], &record["path"]), (&json!(outcome), &json!("/task")), "{record}");
    };
    recorded(&bench, &through, "done");
    // Over while nobody was there.
    let away = bench.task("", &format!("wait {}\nanswer away", second.display()));
    bench.until_begun(&away);
    bench.server.crash();
    fs::write(&second, "").unwrap();
    until_true("it has ended", || noted(&bench.ledger).iter().any(|line| line.what == "end" && line.id == away));
    bench.server.start_again();
    let task = bench.until(&away, "Succeeded");
    assert_eq!((&task["returnPayload"], &task["crashes"], bench.runs(&away)), (&json!("away"), &json!(0), 1), "{task}");
    // Stopped by the next server.
    let stopped = bench.task("", &format!("wait {}", third.display()));
    let process = bench.until_begun(&stopped);
    bench.server.crash();
    bench.server.start_again();
    assert_eq!(bench.stop(&stopped), "Stopping");
    bench.until(&stopped, "Stopped");
    until_true("its instance has ended", || !is_alive(process));
    recorded(&bench, &stopped, "left");
    // It takes too long for the next server.
    bench.configure(&json!({"asyncTask": true, "timeoutInSeconds": 3, "maxAsyncRetryAttempts": 0}));
    let long = bench.task("", "hang");
    let process = bench.until_begun(&long);
    bench.server.crash();
    bench.server.start_again();
    assert_eq!(bench.until(&long, "Failed")["errorKind"], "FunctionTimeout");
    until_true("its instance has ended", || !is_alive(process));
    // And while there is none.
    let away = bench.task("", "hang");
    let process = bench.until_begun(&away);
    bench.server.crash();
    until_true("it is over", || {
        fs::read_dir(bench.server.data().join("held")).unwrap().flatten().any(|held| {
            fs::read_to_string(held.path().join("outcome")).is_ok_and(|outcome| outcome.contains("TooLong"))
        })
    });
    bench.server.start_again();
    assert_eq!(bench.until(&away, "Failed")["errorKind"], "FunctionTimeout");
    until_true("its instance has ended", || !is_alive(process));
    fs::write(&third, "").unwrap();
    until_true("nothing is held any more", || {
        fs::read_dir(bench.server.data().join("held")).is_ok_and(|mut left| left.next().is_none())
    });
}

/// What is held is the instance's work for the next server too: it neither sleeps nor ends, and finishes though a newer version
/// takes its place. Nor does a server that ends in order wait for it.
#[test]
fn a_held_run_keeps_its_instance_at_work_under_the_next_server() {
    let mut bench = Bench::start("");
    let settings = "instances: {max: 1, concurrency: 2}\nidle: {pause: 300ms, stop: 1s}\ntimeouts: {total: 1s}";
    bench.server.deploy(&manifest(&[bench.function("f", settings)]));
    bench.configure(&json!({"asyncTask": true}));
    let gate = bench.server.folder().join("gate");
    let ids = ["", ""].map(|headers| bench.task(headers, &format!("wait {}", gate.display())));
    let pids = ids.each_ref().map(|id| bench.until_begun(id));
    let script = format!("echo begun >> {0}.job; while [ ! -e {0} ]; do sleep 0.05; done", gate.display());
    let words = ["-o", "json", "run", "--name", "job", "--detach", "--", "sh", "-c", &script];
    let job = bench.server.kip(&words).ok().json();
    let job = job["taskId"].as_str().unwrap();
    until_true("the job runs", || gate.with_extension("job").exists());
    bench.server.terminate();
    bench.server.start_again();
    let passes = |millis: u64| {
        let then = kip_host::clock::boot_millis() + millis;
        until_true("time passes", || kip_host::clock::boot_millis() > then);
    };
    passes(2_000);
    bench.server.crash();
    bench.server.start_again();
    let busy = |server: &Server| server.instances().iter().filter(|instance| instance["state"] == "busy").count();
    assert_eq!(busy(&bench.server), 2, "{:?}", bench.server.instances());
    passes(2_500);
    assert_eq!(busy(&bench.server), 2, "{:?}", bench.server.instances());
    bench.server.deploy(&manifest(&[bench.function("f", &format!("{settings}\nqueue: {{depth: 7}}"))]));
    passes(2_500);
    assert!(is_alive(pids[0]), "it is left to finish");
    fs::write(&gate, "").unwrap();
    for id in &ids {
        let task = bench.until(id, "Succeeded");
        assert_eq!((&task["crashes"], bench.runs(id)), (&json!(0), 1), "{task}");
    }
    until_true("the job is over", || bench.server.ask(&["task", "show", "job", job])["status"] == "Succeeded");
    assert_eq!(fs::read_to_string(gate.with_extension("job")).unwrap(), "begun\n");
    until_true("then it goes", || !is_alive(pids[0]));
}
