//! What people meet on their first day, as far as no other test has it.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::clients::program;
use crate::support::{Server, apart, open_folder, run, until_true};

#[test]
fn a_request_that_a_rate_refuses_leaves_a_record() {
    let server = Server::start();
    server.deploy_subject(&[], "trigger: {http: {auth: key}}");
    let key = server.kip(&["key", "create", "slow", "--rate", "1/h", "--burst", "1"]).ok().stdout;
    let headers = format!("authorization: Bearer {}\r\n", key.trim_end());
    assert_eq!(server.call_with("GET", "/pid", &headers, b"").status(), 200);
    let refused = server.call_with("GET", "/pid/refused", &headers, b"");
    assert_eq!((refused.status(), refused.code().as_str()), (429, "KW-7012"), "{refused:?}");
    let record = server.until_record("it is recorded", |record| record["status"] == 429);
    assert_eq!((&record["code"], &record["outcome"]), (&"KW-7012".into(), &"refused".into()), "{record}");
}

/// Who writes `mode: kpa` alone gets instances that share the load.
#[test]
fn requests_spread_under_kpa_without_a_word_about_dispatch() {
    let server = Server::start();
    server.deploy_subject(
        &[],
        "instances: {concurrency: 16}\nscaling: {mode: kpa, annotations: {min-scale: 2, max-scale: 2, target: 100}}",
    );
    until_true("both are ready", || {
        server.function()["hot"] == 2 || server.instances().iter().filter(|one| one["state"] == "ready").count() == 2
    });
    let calls: Vec<_> = (0..8).map(|_| server.later("GET", "/delay/300")).collect();
    until_true("all are under way", || server.function()["in_flight"] == 8);
    let shares: Vec<u64> = server.instances().iter().filter_map(|one| one["in_flight"].as_u64()).collect();
    calls.into_iter().for_each(|call| assert_eq!(call.join().unwrap().status(), 200));
    assert_eq!(shares, [4, 4], "half of them on each");
    let pids: BTreeSet<String> = (0..4).map(|_| server.get("/pid").text()).collect();
    assert_eq!(pids.len(), 2, "and one after the other as well");
}

/// The file that programs copy goes on while the server is away, and ends a run that another one has replaced.
#[test]
fn the_helper_for_tasks_survives_a_server_that_is_away() {
    let Some(python) = program("python3") else { return };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let helped = |script: &str| {
        let script = format!(
            "import sys, time\nsys.path.insert(0, {:?})\nimport kip_task\n{script}",
            example.display().to_string()
        );
        run(Command::new(python).args(["-B", "-c", &script])).ok()
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = format!(
        "task = kip_task.Task(id='a', progress='http://{closed}/x')\nbegin = time.monotonic()\n\
         for n in range(1000): task.report(n)\nassert time.monotonic() - begin < 2, 'it tries seldom'\nprint('goes on')"
    );
    assert_eq!(helped(&away).stdout.trim(), "goes on");
    // One that takes connections and never answers costs one waiting time, not one for each report.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = format!(
        "task = kip_task.Task(id='a', progress='http://{}/x')\nbegin = time.monotonic()\n\
         for n in range(50): task.report(n, timeout=0.3)\nassert time.monotonic() - begin < 3\nprint('goes on')",
        silent.local_addr().unwrap()
    );
    assert_eq!(helped(&hangs).stdout.trim(), "goes on");
    let answers = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = answers.local_addr().unwrap();
    let answering = apart(move || {
        let (mut caller, _) = answers.accept().unwrap();
        let mut bytes = [0; 4_096];
        let _ = std::io::Read::read(&mut caller, &mut bytes);
        let _ =
            std::io::Write::write_all(&mut caller, b"HTTP/1.1 409 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    let replaced = format!(
        "task = kip_task.Task(id='a', progress='http://{address}/x')\ntry: task.report('x')\nexcept kip_task.Replaced: print('replaced')"
    );
    assert_eq!(helped(&replaced).stdout.trim(), "replaced");
    answering.join().unwrap();
    assert_eq!(helped("task = kip_task.current()\ntask.report('x')\nprint(task.id)").stdout.trim(), "None");
}

/// A model that cannot be served is named when it is deployed, not when somebody asks it.
#[test]
fn a_missing_or_corrupt_model_is_named_at_its_deployment() {
    let server = Server::start();
    let folder = server.folder().join("models");
    open_folder(&folder);
    fs::write(folder.join("corrupt.onnx"), b"\xff\xfe this is no model").unwrap();
    let text = |file: &str| format!("api: kip/v1\nfunctions:\n  m:\n    model: {}\n", folder.join(file).display());
    server.try_deploy(&text("missing.onnx")).failed(&["missing.onnx", "does not exist"]);
    fs::write(server.folder().join("kip.yaml"), text("corrupt.onnx")).unwrap();
    let told = server.kip(&["deploy", "kip.yaml", "--wait"]);
    assert_ne!(told.code, Some(0), "{told:?}");
    assert!(told.stderr.contains("corrupt.onnx") || told.stderr.contains("cannot be read"), "{told:?}");
}

/// Memory that forks share is counted once: an instance with workers is not replaced for it.
#[test]
fn memory_that_workers_share_is_counted_once() {
    let server = Server::start();
    let script = "import os, sys, time\nheld = bytearray(120 << 20)\nfor n in range(4):\n    if os.fork() == 0:\n        time.sleep(1000)\n        os._exit(0)\nos.execv(sys.argv[1], sys.argv[1:])";
    // The parent becomes the server; its workers keep what they share.
    let words =
        serde_json::to_string(&["python3", "-c", script, &crate::support::subject().display().to_string()]).unwrap();
    if program("python3").is_none() {
        return;
    }
    server.deploy(&format!(
        "api: kip/v1\nfunctions:\n  f:\n    run: {words}\n    idle: {{pause: never}}\n    rotation: {{max_memory: 300MiB}}\n"
    ));
    let first = server.get("/pid").text();
    // Memory is looked at every 10 s.
    let instance = server.instances()[0]["id"].as_str().unwrap().to_owned();
    let looked = || {
        let peak = server.api_get(&format!("/api/v1/instances/{instance}")).json()["peak_memory"].as_u64();
        peak.is_none_or(|bytes| bytes > 100 << 20)
    };
    until_true("it holds its memory", looked);
    let end = kip_host::clock::boot_millis() + 12_000;
    until_true("its memory was looked at", || kip_host::clock::boot_millis() > end);
    assert_eq!(server.get("/pid").text(), first, "four workers with 120 MiB in common are below 300 MiB");
    assert_eq!(server.instances().len(), 1);
}

/// Launchers that wait for a child and hand no signal on: the program behind them ends in its own order.
#[test]
fn programs_behind_npm_and_uv_end_in_their_own_order() {
    for launcher in ["npm", "uv"] {
        let Some(found) = program(launcher) else { continue };
        let server = Server::start();
        let folder = server.folder().join("program");
        open_folder(&folder);
        let program = "import http.server, os, signal, time\ndef end(number, frame):\n    time.sleep(0.3)\n    open('ended', 'w').write('saved')\n    os._exit(0)\nsignal.signal(signal.SIGTERM, end)\nclass Handler(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200); self.send_header('content-length', '0'); self.end_headers()\nhttp.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()\n";
        fs::write(folder.join("server.py"), program).unwrap();
        fs::write(folder.join("package.json"), r#"{"private": true, "scripts": {"start": "python3 server.py"}}"#)
            .unwrap();
        let words = match launcher {
            "npm" => format!("[{found}, start, --silent]"),
            _ => format!("[{found}, run, --no-project, --offline, python3, server.py]"),
        };
        server.deploy_without_wait(&format!(
            "api: kip/v1\nfunctions:\n  f:\n    dir: {}\n    code: live\n    run: {words}\n    timeouts: {{grace: 20s}}\n",
            folder.display()
        ));
        let answer = server.get("/");
        assert_eq!(answer.status(), 200, "{launcher}: {} {}", answer.text(), server.kip(&["logs", "f"]).stdout);
        server.kip(&["rm", "f"]).ok();
        until_true("nothing is left", || server.instances().is_empty() && server.processes().is_empty());
        assert_eq!(fs::read_to_string(folder.join("ended")).unwrap_or_default(), "saved", "{launcher}");
    }
}
