//! Rollouts: steps under load, versions that are worse, commands, and a server that is killed in the midst.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;

use crate::support::{Server, apart, call, function, manifest, until, until_true};

/// A server with `f`, whose version 1 has the alias `prod`, and the next version with these arguments as version 2.
fn two_versions(arguments: &[&str]) -> Server {
    versions_with(Server::start(), "instances: {max: 4}\nidle: {pause: 1s}", arguments)
}

/// The same where a device has room for one version only, whose instances can sleep without it.
fn two_versions_on_one_device(arguments: &[&str]) -> Server {
    let settings = "resources: {gpu: {memory: 16GiB}}\nlifecycle: {sleep: {down: \"/sleep?level=1\", up: /wake_up}}";
    versions_with(Server::with("[[device]]\nname = \"gpu0\"\nmemory = \"24GiB\""), settings, arguments)
}

fn versions_with(server: Server, settings: &str, arguments: &[&str]) -> Server {
    server.deploy(&manifest(&[function("f", &[], settings)]));
    server.kip(&["version", "publish", "f"]).ok();
    server.kip(&["alias", "set", "f", "prod", "1"]).ok();
    std::fs::write(server.folder().join("kip.yaml"), manifest(&[function("f", arguments, settings)])).unwrap();
    server.kip(&["deploy", server.folder().to_str().unwrap(), "--no-traffic"]).ok();
    let published = server.kip(&["version", "publish", "f"]).ok().stdout;
    assert!(published.contains("is version 2"), "{published}");
    server
}

fn status(server: &Server) -> Value {
    server.ask(&["rollout", "status", "f", "prod"])
}

fn version_of(server: &Server) -> (u16, String) {
    let answer = call(server.gateway, "GET", "/f/f@prod/pid", "", b"");
    (answer.status(), answer.header("x-kip-version").unwrap_or_default().to_owned())
}

/// Callers of the alias until it is dropped.
struct Load {
    going: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    callers: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn begin(server: &Server, path: &'static str) -> Self {
        let (going, failed) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let caller = || {
            let (gateway, going, failed) = (server.gateway, going.clone(), failed.clone());
            apart(move || {
                while going.load(Ordering::Relaxed) {
                    if call(gateway, "GET", path, "", b"").status() != 200 {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        let callers = (0..3).map(|_| caller()).collect();
        Self { going, failed, callers }
    }

    fn end(mut self) -> u64 {
        self.going.store(false, Ordering::Relaxed);
        self.callers.drain(..).for_each(|caller| caller.join().unwrap());
        self.failed.load(Ordering::Relaxed)
    }
}

#[test]
fn an_alias_moves_in_steps_under_load_and_no_request_fails() {
    let server = two_versions(&[]);
    let load = Load::begin(&server, "/f/f@prod/delay/5");
    let done = server
        .kip(&[
            "rollout",
            "start",
            "f",
            "prod",
            "--to",
            "2",
            "--steps",
            "20,100",
            "--every",
            "1s",
            "--max-slower",
            "0",
            "--wait",
        ])
        .ok();
    assert!(done.stderr.contains("2 has 20 %") && done.stdout.contains("completed"), "{done:?}");
    assert_eq!(load.end(), 0, "no request failed");
    assert_eq!(version_of(&server), (200, "2".to_owned()));
    let why = server.api_get("/api/v1/functions/f/decisions?limit=1000").text();
    for line in ["rollout of prod: 2 has 20 %", "rollout of prod: 2 has 100 %", "rollout of prod to 2 is complete"] {
        assert!(why.contains(line), "{line}: {why}");
    }
    // However many steps it took, it goes back at once.
    server.kip(&["rollback", "f", "prod"]).ok();
    assert_eq!(version_of(&server), (200, "1".to_owned()));
}

#[test]
fn one_that_never_starts_is_aborted_and_the_old_one_serves() {
    let server = two_versions(&["--exit-now", "3"]);
    let load = Load::begin(&server, "/f/f@prod/delay/5");
    let failed = server.kip(&["rollout", "start", "f", "prod", "--to", "2", "--every", "1s", "--wait"]);
    failed.failed(&["KW-3035", "3 starts of the new version failed in a row"]);
    assert_eq!(load.end(), 0, "nobody noticed");
    assert_eq!(version_of(&server), (200, "1".to_owned()));
    assert_eq!(status(&server)["stage"], "aborted");
}

#[test]
fn one_that_fails_under_load_is_aborted_by_its_errors() {
    // The path is a failure for the new version alone.
    let server = two_versions(&["--fail-work"]);
    let load = Load::begin(&server, "/f/f@prod/worse");
    let failed =
        server.kip(&["rollout", "start", "f", "prod", "--to", "2", "--steps", "50,100", "--every", "30s", "--wait"]);
    failed.failed(&["KW-3035", "of the new version's requests failed"]);
    let bad = load.end();
    assert!(bad >= 10, "it was judged by {bad} failures");
    assert_eq!(version_of(&server), (200, "1".to_owned()));
    let shares = server.kip(&["alias", "show", "f", "prod"]).ok().stdout;
    assert!(shares.contains("versions     1\n"), "{shares}");
}

#[test]
fn one_that_is_slower_under_load_is_aborted_by_its_times() {
    let server = two_versions(&["--slow-work", "120"]);
    let load = Load::begin(&server, "/f/f@prod/worse");
    let failed =
        server.kip(&["rollout", "start", "f", "prod", "--to", "2", "--steps", "50,100", "--every", "60s", "--wait"]);
    failed.failed(&["KW-3035", "99th percentile"]);
    assert_eq!(load.end(), 0, "all were answered");
    assert_eq!(version_of(&server), (200, "1".to_owned()));
    assert_eq!(status(&server)["stage"], "aborted");
}

#[test]
fn one_whose_canary_answers_otherwise_gets_no_request() {
    let settings = "instances: {max: 4}\nidle: {pause: 1s}\ncanary: {path: /worse}";
    let server = versions_with(Server::start(), settings, &["--fail-work"]);
    let load = Load::begin(&server, "/f/f@prod/delay/5");
    let failed = server.kip(&["rollout", "start", "f", "prod", "--to", "2", "--every", "60s", "--wait"]);
    failed.failed(&["KW-3035", "starts of the new version failed in a row"]);
    assert_eq!(load.end(), 0, "nobody noticed");
    assert_eq!(version_of(&server), (200, "1".to_owned()));
}

#[test]
fn a_server_killed_after_each_commit_of_a_rollout_goes_on_with_it() {
    let mut server = two_versions(&[]);
    for point in ["rollout: begun", "rollout: shifted", "rollout: whole", "rollout: completed"] {
        server.terminate();
        let mut command = server.serve_command();
        command.env(kip_host::environment::FAIL_POINT, point);
        server.start_by(command);
        let steps = ["--to", "2", "--steps", "50,100", "--every", "1s", "--max-slower", "0"];
        // At the first commit its answer is lost.
        drop(server.kip(&[&["rollout", "start", "f", "prod"], &steps[..]].concat()));
        assert!(!server.wait().success(), "the server killed itself at `{point}`");
        server.start_again();
        until_true("it is complete", || status(&server)["stage"] == "completed");
        assert_eq!(version_of(&server), (200, "2".to_owned()), "after a crash at `{point}`");
        server.kip(&["alias", "set", "f", "prod", "1"]).ok();
        assert_eq!(version_of(&server), (200, "1".to_owned()));
    }
}

#[test]
fn the_example_shows_a_good_and_a_bad_upgrade_with_reasons() {
    if ["python3", "curl"].iter().any(|program| std::process::Command::new(program).arg("--version").output().is_err())
    {
        println!("skipped: the example needs python3 and curl");
        return;
    }
    let server = Server::start();
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/rollout");
    let folder = server.folder().join("rollout");
    std::fs::create_dir(&folder).unwrap();
    for file in ["app.py", "kip.yaml", "run.sh"] {
        std::fs::copy(example.join(file), folder.join(file)).unwrap();
    }
    let kip = server.folder().join("kip-of-the-test");
    let script = format!("#!/bin/sh\nexec {} --data-dir {} \"$@\"\n", crate::support::KIP, server.data().display());
    std::fs::write(&kip, script).unwrap();
    std::fs::set_permissions(&kip, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.arg("run.sh").current_dir(&folder).env("KIP", kip).env("GATEWAY", server.gateway.to_string());
    let began = kip_host::clock::boot_millis();
    let shown = crate::support::run_within(std::time::Duration::from_secs(180), &mut shell).ok();
    println!("the example took {} ms", kip_host::clock::boot_millis() - began);
    let order = ["release 1\n", "release 2\n", "release 2\n", "== the reasons"];
    let mut rest = shown.stdout.as_str();
    for part in order {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("{part}: {shown:?}")).1;
    }
    for reason in
        ["rollout of prod: 2 has 20 %", "rollout of prod to 2 is complete", "of the new version's requests failed"]
    {
        assert!(rest.contains(reason), "{reason}: {rest}");
    }
}

#[test]
fn commands_of_a_rollout_and_what_is_refused_meanwhile() {
    let server = two_versions(&[]);
    let start =
        |steps: &str| server.kip(&["rollout", "start", "f", "prod", "--to", "2", "--steps", steps, "--every", "1h"]);
    for (steps, part) in
        [("10,5,100", "do not ascend"), ("10,50", "do not ascend"), ("0,100", "no share"), ("x", "no share")]
    {
        start(steps).failed(&["KW-3034", part]);
    }
    server.kip(&["rollout", "start", "f", "prod", "--to", "1"]).failed(&["KW-3023", "already"]);
    server.kip(&["rollout", "start", "f", "prod", "--to", "9"]).failed(&["KW-3007"]);
    server.kip(&["rollout", "start", "f", "none", "--to", "2"]).failed(&["KW-3022"]);
    server.kip(&["rollout", "status", "f", "prod"]).failed(&["KW-3033"]);

    start("50,100").ok();
    until_true("the first step is made", || status(&server)["percent"] == "50");
    start("50,100").failed(&["KW-3032"]);
    server.kip(&["alias", "set", "f", "prod", "2"]).failed(&["KW-3032", "kip rollout promote"]);
    server.kip(&["alias", "rm", "f", "prod"]).failed(&["a rollout"]);
    server.kip(&["rollback", "f", "prod"]).failed(&["KW-3032"]);
    server.kip(&["rollout", "pause", "f", "prod"]).ok();
    assert_eq!(status(&server)["paused"], true);
    server.kip(&["rollout", "resume", "f", "prod"]).ok();
    server.kip(&["rollout", "promote", "f", "prod"]).ok();
    assert_eq!(version_of(&server), (200, "2".to_owned()));
    server.kip(&["rollout", "abort", "f", "prod"]).ok();
    assert_eq!(version_of(&server), (200, "1".to_owned()));
    server.kip(&["rollout", "abort", "f", "prod"]).failed(&["KW-3033"]);
    server.kip(&["alias", "rm", "f", "prod"]).ok();
}

#[test]
fn a_rollout_goes_on_after_its_server_was_killed() {
    let mut server = two_versions(&[]);
    server.kip(&["rollout", "start", "f", "prod", "--to", "2", "--steps", "50,100", "--every", "2s"]).ok();
    until_true("the first step is made", || status(&server)["percent"] == "50");
    server.crash();
    server.start_again();
    let alias = until("it is complete", || {
        let now = status(&server);
        (now["stage"] == "completed").then(|| server.ask(&["alias", "show", "f", "prod"]))
    });
    assert_eq!(alias["targets"][0]["version"], "2", "{alias}");
    assert_eq!(version_of(&server), (200, "2".to_owned()));
}

#[test]
fn a_manifest_asks_for_a_rollout_with_each_deployment() {
    let server = Server::start();
    let deploy = |arguments: &[&str]| {
        let settings = "rollout: {alias: prod, steps: [50, 100], every: 4s, max_slower: 0, least: 1}";
        server.try_deploy(&manifest(&[function("f", arguments, settings)])).ok().stderr
    };
    // The first deployment has nothing to move from: it makes the alias.
    let told = deploy(&[]);
    assert!(!told.contains("rollout of"), "{told}");
    assert_eq!(version_of(&server), (200, "1".to_owned()));
    let told = deploy(&["--a"]);
    assert!(told.contains("rollout of f@prod to 2 in steps of 50, 100 %"), "{told}");
    // One at a time: a deployment meanwhile is told, and made all the same.
    let told = deploy(&["--b"]);
    assert!(told.contains("KW-3032") && told.contains("r3 is deployed"), "{told}");
    until_true("the rollout is complete", || status(&server)["stage"] == "completed");
    assert_eq!(version_of(&server), (200, "2".to_owned()));
    let versions = server.ask(&["version", "ls", "f"]);
    assert_eq!(versions.as_array().unwrap().len(), 3, "nothing was published for nothing: {versions}");
    assert!(versions[2]["number"].is_null(), "{versions}");

    for (settings, part) in [
        ("rollout: {steps: [50, 100]}", "lacks `alias`"),
        ("rollout: {alias: prod, steps: [50, 20, 100]}", "do not ascend to 100"),
        ("rollout: {alias: prod, steps: [50]}", "do not ascend to 100"),
        ("rollout: {alias: \"3\"}", "rollout.alias"),
        ("rollout: {alias: prod, evry: 5m}", "every"),
        ("rollout: prod", "rollout"),
    ] {
        server.try_deploy(&manifest(&[function("f", &[], settings)])).failed(&[part]);
    }
}

#[test]
fn traffic_of_an_alias_that_the_first_deployment_makes() {
    let server = Server::start();
    let deploy = |arguments: &[&str], options: &[&str]| {
        let settings = "traffic: {prod: 100}\nrollout: {alias: prod, steps: [100], every: 1s, max_slower: 0, least: 1}";
        std::fs::write(server.folder().join("kip.yaml"), manifest(&[function("f", arguments, settings)])).unwrap();
        server.kip(&[&["deploy", server.folder().to_str().unwrap()], options].concat()).ok()
    };
    deploy(&[], &[]);
    assert_eq!(version_of(&server), (200, "1".to_owned()));
    // An alias that moves in steps is not pointed at once, and no error.
    let told = deploy(&["--a"], &["--alias", "prod"]).stderr;
    assert!(told.contains("rollout of f@prod to 2"), "{told}");
    assert_eq!(server.ask(&["inspect", "f"])["traffic"][0][0], "prod");
    until_true("the rollout is complete", || status(&server)["stage"] == "completed");
    let plain = call(server.gateway, "GET", "/f/f/pid", "", b"");
    assert_eq!(plain.header("x-kip-version").unwrap_or_default(), "2");
    let planned = server.kip(&["plan", server.folder().to_str().unwrap()]).ok().stdout;
    assert!(planned.contains("moves to it in steps"), "{planned}");
}

fn states(server: &Server) -> Vec<(String, String)> {
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    server.instances().iter().map(|one| (text(one, "label"), text(one, "state"))).collect()
}

#[test]
fn on_a_full_device_the_old_version_is_parked_for_the_new_one_and_wakes_for_a_rollback() {
    let server = two_versions_on_one_device(&[]);
    let before = call(server.gateway, "GET", "/f/f@prod/pid", "", b"").text();
    let load = Load::begin(&server, "/f/f@prod/delay/5");
    let begin = ["rollout", "start", "f", "prod", "--to", "2", "--every", "1s", "--max-slower", "0", "--park-old"];
    let done = server.kip(&[&begin[..], &["--wait"]].concat()).ok();
    assert!(done.stderr.contains("the old version is set aside"), "{done:?}");
    assert_eq!(load.end(), 0, "no request failed");
    assert_eq!(version_of(&server), (200, "2".to_owned()));
    assert!(states(&server).contains(&("1".to_owned(), "parked".to_owned())), "{:?}", states(&server));
    let why = server.api_get("/api/v1/functions/f/decisions?limit=1000").text();
    for line in ["the new version finds no room beside it", "rollout of prod: 2 has 100 %"] {
        assert!(why.contains(line), "{line}: {why}");
    }
    server.kip(&["rollback", "f", "prod"]).ok();
    let after = call(server.gateway, "GET", "/f/f@prod/pid", "", b"");
    assert_eq!((after.header("x-kip-start"), after.text()), (Some("woken"), before), "the same process serves again");
}

#[test]
fn a_new_version_that_fails_there_gives_the_old_one_its_device_back() {
    let server = two_versions_on_one_device(&["--exit-now", "3"]);
    let before = call(server.gateway, "GET", "/f/f@prod/pid", "", b"").text();
    let load = Load::begin(&server, "/f/f@prod/delay/5");
    let begin = ["rollout", "start", "f", "prod", "--to", "2", "--every", "1s", "--park-old", "--wait"];
    server.kip(&begin).failed(&["KW-3035", "3 starts of the new version failed in a row"]);
    assert_eq!(load.end(), 0, "callers waited, and none was refused");
    assert_eq!(call(server.gateway, "GET", "/f/f@prod/pid", "", b"").text(), before);
}

#[test]
fn a_server_killed_while_the_old_version_is_set_aside_goes_on_with_it() {
    let mut server = two_versions_on_one_device(&["--ready-after", "4000"]);
    assert_eq!(version_of(&server), (200, "1".to_owned()));
    server.kip(&["rollout", "start", "f", "prod", "--to", "2", "--every", "1s", "--park-old"]).ok();
    until_true("it is set aside", || status(&server)["old_is_parked"] == true);
    server.crash();
    server.start_again();
    until_true("it is complete", || status(&server)["stage"] == "completed");
    assert_eq!(version_of(&server), (200, "2".to_owned()));
}
