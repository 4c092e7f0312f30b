//! Other people's clients against functions that they start. The scripts are in `tests/clients`; `cargo xtask test` installs
//! what they need.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Ran, Server, function, manifest, run, until_true};

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
fn client(server: &Server, python: &Path, script: &str, arguments: &[&str]) -> Ran {
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

#[test]
fn openai() {
    let Some(python) = python("openai") else { return };
    let server = Server::start();
    let settings = "env: {KIND: chat}\ninstances: {max: 1}";
    let chat = |name| scripted(name, &python, "web_server.py", settings);
    server.deploy(&manifest(&[chat("chat"), chat("other")]));
    client(&server, &python, "openai_client.py", &[]);
}

#[test]
fn tritonclient() {
    let Some(python) = python("tritonclient.http") else { return };
    let server = Server::start();
    let model = root().join("examples/digits/model");
    assert!(model.is_dir(), "{} is not there", model.display());
    server.deploy(&manifest(&[format!("  digits:\n    model: {}\n", model.display())]));
    client(&server, &python, "triton_client.py", &["digits"]);
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
