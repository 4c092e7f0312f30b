//! Presets with the real engines, where `cargo xtask test` or `cargo xtask soak pipelines` has installed them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::Answer;
use crate::support::{Server, call, kip, run, run_within};

/// The libraries of models take long to read, on a machine that is busy above all.
const LONG: Duration = Duration::from_secs(300);

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Puts a program into the environment of a preset, as its installation does: a script that runs these words.
pub(crate) fn install(server: &Server, preset: &str, program: &str, words: &str) {
    let environment = server.data().join("engines").join(preset);
    std::fs::create_dir_all(environment.join("bin")).unwrap();
    let file = environment.join("bin").join(program);
    std::fs::write(&file, format!("#!/bin/sh\nexec {words} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(environment.join("installed.txt"), "").unwrap();
}

pub(crate) fn post(server: &Server, path: &str, body: &Value) -> Answer {
    call(server.gateway, "POST", path, "content-type: application/json\r\n", body.to_string().as_bytes())
}

/// Deploys a model, however long its engine takes to start.
fn up(server: &Server, arguments: &[&str]) -> Value {
    let mut command = kip(&server.data());
    command.args(["up", "--no-follow", "-o", "json"]).args(arguments).current_dir(server.folder());
    run_within(LONG, &mut command).ok().json()
}

#[test]
fn a_language_model_of_ours_runs_in_llama_cpp() {
    let (packages, scripts) = (root().join(".llama"), root().join("tests/clients"));
    if !packages.join("node_modules/node-llama-cpp").is_dir() {
        eprintln!("skipped: no node-llama-cpp in .llama; `cargo xtask test` installs it");
        return;
    }
    let server = Server::start();
    let words =
        format!("env LLAMA_PACKAGES={} node {}", packages.display(), scripts.join("llama_server.mjs").display());
    install(&server, "llama-server", "llama-server", &words);
    // In a folder of its own: a version holds the folder of its files.
    let file = server.folder().join("models/tiny.gguf");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    let made = run(Command::new("python3").arg(scripts.join("tiny_gguf.py")).arg(&file));
    assert_eq!(made.code, Some(0), "{made:?}");
    let up = up(&server, &[&file.display().to_string()]);
    let plan = &up["deployment"]["plan"];
    assert_eq!((&plan["preset"], &up["function"]), (&json!("llama-server"), &json!("tiny")), "{up}");
    assert!(up["answer"].as_str().is_some_and(|answer| !answer.is_empty()), "{up}");
    let ask = |stream: bool| {
        let messages = json!([{"role": "user", "content": "hello"}]);
        let body = json!({"model": "tiny", "messages": messages, "max_tokens": 12, "stream": stream});
        let answer = post(&server, "/v1/chat/completions", &body);
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer
    };
    let whole = ask(false).json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let stream = ask(true);
    let text = String::from_utf8(stream.body).unwrap();
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"), "{text}");
    let delta = |event: &&str| {
        let event: Value = serde_json::from_str(event).ok()?;
        Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned())
    };
    let parts: Vec<String> = events.iter().filter_map(delta).collect();
    assert!(parts.len() > 2, "{text}");
    assert_eq!(parts.concat(), whole, "weights without chance give the same text");
}

#[test]
fn real_pipelines_of_a_text_and_of_a_picture() {
    let python = root().join(".pipelines/bin/python");
    if !python.is_file() {
        eprintln!(
            "skipped: no Python with transformers and torch in .pipelines; `cargo xtask soak pipelines` installs them"
        );
        return;
    }
    let server = Server::start();
    install(&server, "pipeline", "python", &python.display().to_string());
    let make = root().join("tests/clients/tiny_models.py");
    let made = run_within(LONG, Command::new(&python).arg(make).arg(server.folder()));
    assert_eq!(made.code, Some(0), "{made:?}");
    for (name, input, labels) in [
        ("tiny-text", json!({"text": "I like this."}), ["bad", "good"]),
        ("tiny-vision", json!({"image": super::pipelines::PICTURE}), ["cat", "dog"]),
    ] {
        let folder = server.folder().join(name).display().to_string();
        let up = up(&server, &[&folder, "--preset", "pipeline"]);
        let said = up["answer"].as_str().unwrap_or_default();
        assert!(said.contains("score") || said.contains("image-classification"), "{up}");
        let answer = post(&server, &format!("/f/{name}/"), &json!({ "input": input, "parameters": {} }));
        let value = answer.json();
        assert_eq!((answer.status(), &value["Success"]), (200, &json!(true)), "{value}");
        let label = value["Data"][0]["label"].as_str().unwrap_or_default();
        assert!(labels.contains(&label) && value["Data"][0]["score"].is_f64(), "{value}");
        let refused = post(&server, &format!("/f/{name}/"), &json!({"input": {"image": "AAAA"}}));
        assert_eq!(refused.status(), 400, "{refused:?}");
    }
}

#[test]
fn web_apps_run_in_their_real_servers() {
    for (preset, program) in [
        (
            "uvicorn",
            "async def app(scope, receive, send):\n    if scope['type'] == 'http':\n        await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n        await send({'type': 'http.response.body', 'body': b'asgi ' + scope['path'].encode()})\n",
        ),
        (
            "gunicorn",
            "def app(environ, start):\n    start('200 OK', [])\n    return [b'wsgi ' + environ['PATH_INFO'].encode()]\n",
        ),
    ] {
        let engine = root().join(".venv/bin").join(preset);
        if !engine.is_file() {
            eprintln!("skipped: no {preset} in .venv; `cargo xtask test` installs it");
            continue;
        }
        let server = Server::start();
        install(&server, preset, preset, &engine.display().to_string());
        let folder = server.folder().join("shop");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("app.py"), program).unwrap();
        let folder = folder.display().to_string();
        let up = up(&server, &[&folder, "--preset", preset]);
        assert!(up["answer"].as_str().is_some_and(|answer| answer.ends_with("sgi /")), "{up}");
        let answer = call(server.gateway, "GET", "/f/shop/some/path", "", b"");
        assert_eq!((answer.status(), answer.body.ends_with(b"sgi /some/path")), (200, true), "{answer:?}");
    }
}
