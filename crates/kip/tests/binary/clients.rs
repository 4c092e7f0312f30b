//! Other people's clients against functions that they start. The scripts are in `tests/clients`; `cargo xtask test` installs
//! what they need.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use crate::support::{CommandOutput, Server, apart, function, manifest, run, until, until_true};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Python that has this module, or a line that says why not.
fn python(module: &str) -> Option<PathBuf> {
    let python = root().join(".venv/bin/python");
    let has = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    if has.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    eprintln!("skipped: no Python with {module} in .venv; `cargo xtask test` installs it");
    None
}

/// A program of the host, or a line that says why not.
pub(crate) fn program(name: &str) -> Option<&str> {
    let there = Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("skipped: {name} is not installed; `cargo xtask test` installs it");
    }
    there.then_some(name)
}

/// Runs a script to its end, with the gateway's address first.
fn client(server: &Server, python: &Path, script: &str, arguments: &[&str]) -> CommandOutput {
    let mut command = Command::new(python);
    command.arg(root().join("tests/clients").join(script)).arg(server.gateway.to_string()).args(arguments);
    let ran = run(&mut command);
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "ok"), "{}", ran.stderr);
    ran
}

/// A function that runs a script.
fn scripted(name: &str, python: &Path, script: &str, settings: &str) -> String {
    let script = root().join("tests/clients").join(script);
    let settings: String = settings.lines().map(|line| format!("    {line}\n")).collect();
    format!("  {name}:\n    run: [{}, {}]\n{settings}", python.display(), script.display())
}

#[test]
fn grpcio() {
    let Some(python) = python("grpc") else { return };
    let server = Server::start();
    server.deploy(&manifest(&[scripted("f", &python, "grpc_server.py", "instances: {concurrency: 8}")]));
    client(&server, &python, "grpc_client.py", &["f"]);
    until_true("the program saw that its caller left", || {
        server.kip(&["logs", "f"]).stdout.contains("grpc: the caller left")
    });
    server.until_quiet();
}

#[test]
fn websockets() {
    let Some(python) = python("websockets") else { return };
    let server = Server::start();
    server.deploy(&manifest(&[scripted("f", &python, "web_server.py", "instances: {concurrency: 4}")]));
    client(&server, &python, "websocket_client.py", &["f"]);
    until_true("the program saw a clean end", || {
        server.kip(&["logs", "f"]).stdout.contains("websocket: over with 1000")
    });
    server.until_quiet();
}

#[test]
fn websockets_over_http2() {
    let Some(python) = python("websockets, h2") else { return };
    let server = Server::start();
    server.deploy(&manifest(&[scripted("f", &python, "web_server.py", "instances: {concurrency: 4}")]));
    client(&server, &python, "websocket_h2_client.py", &["f"]);
    server.until_quiet();
}

#[test]
fn httpx() {
    let Some(python) = python("httpx, h2") else { return };
    let server = Server::start();
    server.deploy(&manifest(&[function("f", &[], "")]));
    client(&server, &python, "httpx_client.py", &["f"]);
    server.until_quiet();
}

/// Calls functions that have no instance yet, that sleep, and that have no instance any more. `declare` gives their declarations with such
/// times of idleness.
fn at_zero(server: &Server, declare: impl Fn(&str) -> Vec<String>, call: impl Fn()) {
    server.deploy(&manifest(&declare("idle: {pause: 100ms}")));
    assert_eq!(server.instances(), Vec::<Value>::new());
    call();
    until_true("all sleep", || {
        let all = server.instances();
        !all.is_empty() && all.iter().all(|instance| instance["state"] == "paused")
    });
    call();
    server.deploy(&manifest(&declare("idle: {pause: 100ms, stop: 500ms}")));
    server.until_no_instance();
    call();
}

#[test]
fn openai_of_functions_at_zero() {
    let Some(python) = python("openai") else { return };
    let server = Server::start();
    let declare = |idle: &str| {
        let settings = format!("env: {{KIND: chat}}\ninstances: {{max: 1}}\n{idle}");
        ["chat", "other"].map(|name| scripted(name, &python, "web_server.py", &settings)).to_vec()
    };
    at_zero(&server, declare, || drop(client(&server, &python, "openai_client.py", &[])));
}

#[test]
fn anthropic_of_a_function_at_zero() {
    let Some(python) = python("anthropic") else { return };
    let server = Server::start();
    let declare = |idle: &str| {
        let settings =
            format!("env: {{KIND: anthropic}}\nnames: [org/claude]\ninstances: {{max: 1, concurrency: 2}}\n{idle}");
        vec![scripted("chat", &python, "dialect_server.py", &settings)]
    };
    at_zero(&server, declare, || drop(client(&server, &python, "anthropic_client.py", &["org/claude"])));
}

#[test]
fn ollama_of_a_function_at_zero() {
    let Some(python) = python("ollama") else { return };
    let server = Server::start();
    let declare = |idle: &str| {
        let settings = format!("env: {{KIND: ollama}}\nnames: [tiny]\ninstances: {{max: 1, concurrency: 2}}\n{idle}");
        vec![scripted("chat", &python, "dialect_server.py", &settings)]
    };
    at_zero(&server, declare, || drop(client(&server, &python, "ollama_client.py", &["chat"])));
}

#[test]
fn tritonclient_of_a_function_at_zero() {
    let Some(python) = python("tritonclient.http") else { return };
    let server = Server::start();
    let model = root().join("examples/digits/model");
    assert!(model.is_dir(), "{} is not there", model.display());
    let declare = |idle: &str| vec![format!("  digits:\n    model: {}\n    {idle}\n", model.display())];
    at_zero(&server, declare, || drop(client(&server, &python, "triton_client.py", &["digits"])));
}

#[test]
fn curl() {
    let Some(curl) = program("curl") else { return };
    let server = Server::start();
    server.deploy(&manifest(&[function("f", &[], "")]));
    let url = format!("http://{}/f/f/echo?q=%20x", server.gateway);
    for (version, expected) in
        [("--http1.0", "1"), ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2"), ("--http2", "1.1")]
    {
        let arguments =
            ["-sS", "--max-time", "30", version, "-w", "|%{http_version} %{http_code}", "--data-binary", "abc", &url];
        let ran = run(Command::new(curl).args(arguments)).ok();
        assert!(ran.stdout.ends_with(&format!("|{expected} 200")), "{version}: {ran:?}");
        assert!(ran.stdout.contains("\"target\":\"/echo?q=%20x\"") && ran.stdout.contains("\"length\":3"), "{ran:?}");
    }
    let large = vec![b'x'; 3 << 20];
    let file = server.folder().join("large");
    std::fs::write(&file, large).unwrap();
    let upload = format!("@{}", file.display());
    // Large enough for curl to ask first (Expect: 100-continue).
    let ran = run(Command::new(curl).args(["-sS", "--max-time", "30", "--data-binary", &upload, &url])).ok();
    assert!(ran.stdout.contains("\"length\":3145728"), "{ran:?}");
}

#[test]
fn h2load() {
    let Some(h2load) = program("h2load") else { return };
    let server = Server::start();
    server.deploy(&manifest(&[function("f", &[], "instances: {concurrency: 64}\nqueue: {depth: 1000}")]));
    let url = format!("http://{}/f/f/pid", server.gateway);
    for version in [&["-n2000", "-c4", "-m16"][..], &["-n2000", "-c8", "--h1"]] {
        let ran = run(Command::new(h2load).args(version).arg(&url)).ok();
        assert!(ran.stdout.contains("2000 succeeded, 0 failed, 0 errored"), "{ran:?}");
    }
    server.until_quiet();
}

/// A collector: answers each batch with the next of these statuses, then with 200, and keeps what it took.
fn collector(mut statuses: Vec<u16>) -> (std::net::SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::<Mutex<String>>::default());
    let kept = taken.clone();
    apart(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let status = if statuses.is_empty() { 200 } else { statuses.remove(0) };
            if status == 200 {
                *kept.lock() += &format!("{}\n", String::from_utf8(body).unwrap());
            }
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, taken)
}

#[test]
fn a_collector_of_traces() {
    let Some(python) = python("opentelemetry.proto.collector.trace.v1.trace_service_pb2") else { return };
    // The first batch is refused for now, and offered again.
    let (address, taken) = collector(vec![503]);
    let server = Server::with(&format!("[traces]\nendpoint = \"http://{address}\"\nshare = 0"));
    server.deploy(&manifest(&[function("f", &[], "instances: {max: 1}")]));
    let of_caller = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced = |flags: &str| format!("traceparent: 00-{of_caller}-00f067aa0ba902b7-{flags}\r\ntracestate: a=1\r\n");
    let seen = |headers: &str, name: &str| {
        let echo = server.call_with("GET", "/echo", headers, b"").json();
        let found = echo["headers"].as_array().unwrap().iter().find(|header| header[0] == name).cloned();
        found.map(|header| header[1].as_str().unwrap().to_owned())
    };
    let told = seen(&traced("01"), "traceparent").unwrap();
    let parts: Vec<&str> = told.split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", of_caller, "01"));
    // What its caller does not trace passes as it is, and with a share of none no trace is begun.
    assert_eq!(seen(&traced("00"), "traceparent"), Some(format!("00-{of_caller}-00f067aa0ba902b7-00")));
    assert_eq!((seen(&traced("01"), "tracestate"), seen("", "traceparent")), (Some("a=1".to_owned()), None));
    assert_eq!(server.call_with("POST", "/status/500", &traced("01"), b"x").status(), 500);

    let spans = until("all traces are there", || {
        let file = server.folder().join("batches");
        std::fs::write(&file, taken.lock().as_str()).unwrap();
        let mut command = Command::new(&python);
        let ran = run(command.arg(root().join("tests/clients/otlp_check.py")).arg(file));
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let spans = ran.json().as_array().unwrap().clone();
        (spans.iter().filter(|span| span["kind"] == 2).count() == 3).then_some(spans)
    });
    let found = |fits: &dyn Fn(&Value) -> bool| spans.iter().find(|span| fits(span)).unwrap().clone();
    let whole = found(&|span| span["attributes"]["faas.coldstart"] == true);
    assert_eq!(whole["name"], "GET f");
    assert_eq!((&whole["trace"], &whole["parent"]), (&of_caller.into(), &"00f067aa0ba902b7".into()));
    let attributes = &whole["attributes"];
    assert_eq!((&attributes["http.response.status_code"], &attributes["url.path"]), (&200.into(), &"/echo".into()));
    let start = found(&|span| span["name"] == "start");
    let instance = found(&|span| span["id"] == parts[2]);
    for part in [&start, &instance] {
        assert_eq!((&part["trace"], &part["parent"]), (&whole["trace"], &whole["id"]));
    }
    let micros = |span: &Value| span["micros"].as_u64().unwrap();
    assert!(micros(&start) + micros(&instance) <= micros(&whole) + 1 && micros(&start) > 0, "{spans:?}");
    let failed = found(&|span| span["name"] == "POST f");
    assert_eq!((&failed["status"], &failed["attributes"]["faas.coldstart"]), (&2.into(), &false.into()));
    assert_eq!(spans.iter().filter(|span| span["trace"] != of_caller).count(), 0, "nothing else is traced");
}
