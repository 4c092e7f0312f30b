//! The model cache and functions: what is needed stays, what is evicted comes again at a start, and how starts went is shown.

use std::path::Path;

use serde_json::{Value, json};

use crate::models::standin::{Faults, Hub, git, noise, sha256};
use crate::models::{hub_with_digits, root};
use crate::support::{Server, apart, call, kill, until, until_true};

fn digits(name: &str) -> Vec<u8> {
    std::fs::read(root().join("examples/digits/model").join(name)).unwrap()
}

/// The same model at another commit.
fn change(hub: &Hub, readme: &str) {
    let files = [
        ("onnx/model.onnx", digits("model.onnx")),
        ("onnx/model.json", digits("model.json")),
        ("README.md", readme.as_bytes().to_vec()),
    ];
    hub.add("org/Digits", &files);
}

fn model(server: &Server, commit: &str) -> Value {
    server.ask(&["model", "show", &format!("hf:org/Digits@{commit}")])
}

#[test]
fn a_model_stays_for_every_version_that_is_kept() {
    let (server, hub) = (Server::with("[models]\nquota = \"2MiB\"\nhigh = 100\nlow = 100\n"), hub_with_digits());
    let endpoint = hub.endpoint();
    let first = hub.commit("org/Digits");
    server.up(&hub, &["hf:org/Digits"]).ok();
    change(&hub, "# New\n");
    server.up(&hub, &["hf:org/Digits"]).ok();
    let old = format!("hf:org/Digits@{first}");
    // The first version is the target of a rollback: its model cannot be removed, and is not evicted when room is needed.
    server.kip(&["model", "rm", &old]).failed(&["KW-9011", "digits"]);
    assert_eq!(model(&server, &first)["used_by"], json!(["digits"]));
    for (seed, name) in [(1, "org/one"), (3, "org/two"), (5, "org/three")] {
        hub.add(name, &[("model.bin", noise(800 << 10, seed))]);
        server.kip(&["model", "pull", &format!("hf:{name}"), "--endpoint", &endpoint]).ok();
    }
    let listed = server.kip(&["model", "ls"]).ok().stdout;
    let state = |name: &str| listed.lines().find(|line| line.contains(name)).unwrap().contains("evicted");
    assert_eq!(["org/one", "org/two", "org/three"].map(state), [true, false, false], "{listed}");
    assert_eq!(model(&server, &first)["evicted"], Value::Null);
    assert!(server.log().contains("a model was evicted"), "{}", server.log());
    let du = server.kip(&["model", "du"]).ok().stdout;
    assert!(du.contains("quota 2 MiB") && du.contains("digits"), "{du}");
    hub.add("org/large", &[("model.bin", noise(3 << 20, 7))]);
    server.kip(&["model", "pull", "hf:org/large", "--endpoint", &endpoint]).failed(&["KW-9041", "models.quota"]);
    server.kip(&["rollback", "digits"]).ok();
    assert_eq!(server.post("/f/digits/predict", &json!({"input": vec![0; 64]})).status(), 200);
    // Without its function, the model can go.
    server.kip(&["rm", "digits"]).ok();
    until_true("nothing runs", || server.instances().is_empty());
    server.kip(&["model", "rm", &old]).ok();
}

#[test]
fn an_evicted_model_is_fetched_when_an_instance_starts() {
    let (server, hub) = (Server::start(), hub_with_digits());
    server.up(&hub, &["hf:org/Digits"]).ok();
    server.kip(&["model", "evict", "hf:org/Digits"]).failed(&["KW-9011", "digits"]);
    let stop = || {
        server.processes().into_iter().for_each(|process| kill(process, rustix::process::Signal::KILL));
        server.instances().is_empty()
    };
    until_true("no instance is left", stop);
    server.kip(&["model", "evict", "hf:org/Digits"]).ok();
    let shown = server.kip(&["model", "show", "hf:org/Digits"]).ok().stdout;
    assert!(shown.contains("Evicted") && shown.contains("it was asked for"), "{shown}");
    let folder = server.ask(&["model", "show", "hf:org/Digits"])["folder"].as_str().unwrap().to_owned();
    assert!(!Path::new(&folder).exists());
    hub.set(Faults { unavailable: 2, ..Faults::default() });
    let (gateway, body) = (server.gateway, json!({"input": vec![0; 64]}).to_string());
    let predict =
        move || call(gateway, "POST", "/f/digits/predict", "content-type: application/json\r\n", body.as_bytes());
    let answer = apart(predict.clone());
    let waits = until("it says what it waits for", || {
        let instance = server.instances().into_iter().next()?;
        instance["waits_for"].as_str().map(str::to_owned)
    });
    assert!(waits.contains("its model hf:org/Digits@") && waits.contains("being fetched"), "{waits}");
    assert_eq!(answer.join().unwrap().status(), 200);
    let info = server.ask(&["model", "show", "hf:org/Digits"]);
    assert_eq!((&info["evicted"], &info["loads"]["remote"]["starts"]), (&Value::Null, &json!(1)), "{info}");
    assert_eq!(info["loads"]["memory"]["starts"], 1, "the first start found what was just written: {info}");
    let metrics = server.api_get("/metrics").text();
    assert!(metrics.contains("tier=\"remote\"} 1"), "{metrics}");
    // A hub that has the commit no more.
    until_true("no instance is left", stop);
    server.kip(&["model", "evict", "hf:org/Digits"]).ok();
    change(&hub, "# Other\n");
    let refused = predict();
    assert_eq!(refused.head.header("x-kip-error"), Some("KW-9040"), "{refused:?}");
}

#[test]
fn a_model_is_read_into_the_page_cache() {
    let (server, hub) = (Server::start(), Hub::start());
    hub.add("org/large", &[("model.bin", noise(24 << 20, 5))]);
    server.kip(&["model", "pull", "hf:org/large", "--endpoint", &hub.endpoint()]).ok();
    let info = server.ask(&["model", "show", "hf:org/large"]);
    let file = Path::new(info["folder"].as_str().unwrap()).join("model.bin");
    let file = std::fs::File::open(file).unwrap();
    let resident = || server.ask(&["model", "show", "hf:org/large"])["resident"].as_u64().unwrap();
    until_true("its pages are dropped", || {
        // Pages that are still to be written stay.
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        resident() < 4 << 20
    });
    let done = server.ask(&["model", "prefetch", "hf:org/large"]);
    assert_eq!((&done["resident"], &done["size"]), (&json!(24 << 20), &json!(24 << 20)), "{done}");
    assert!(done["before"].as_u64().unwrap() < 4 << 20, "{done}");
    assert_eq!(resident(), 24 << 20);
    let listed = server.kip(&["model", "ls", "--verbose"]).ok().stdout;
    assert!(listed.contains("100 %") && listed.contains("never"), "{listed}");
    server.kip(&["model", "prefetch", "hf:org/none"]).failed(&["KW-9010"]);
}

#[test]
fn a_model_of_another_program_is_served_without_a_download() {
    let (server, hub) = (Server::start(), hub_with_digits());
    let commit = hub.commit("org/Digits");
    let root = server.folder().join("huggingface");
    let snapshot = root.join("hub/models--org--Digits/snapshots").join(&commit);
    let blobs = root.join("hub/models--org--Digits/blobs");
    std::fs::create_dir_all(snapshot.join("onnx")).unwrap();
    std::fs::create_dir_all(&blobs).unwrap();
    for (path, content) in [
        ("onnx/model.onnx", digits("model.onnx")),
        ("onnx/model.json", digits("model.json")),
        ("README.md", b"# Digits\n".to_vec()),
    ] {
        let name = if content.len() < 1 << 10 { git(&content) } else { sha256(&content) };
        std::fs::write(blobs.join(&name), content).unwrap();
        let up = "../".repeat(path.matches('/').count() + 2);
        std::os::unix::fs::symlink(format!("{up}blobs/{name}"), snapshot.join(path)).unwrap();
    }
    let folder = root.display().to_string();
    let adopted = server.kip(&["model", "adopt", &folder]).ok();
    assert!(adopted.stdout.contains(&format!("hf:org/Digits@{commit}")), "{adopted:?}");
    server.up(&hub, &["hf:org/Digits"]).ok();
    assert!(hub.seen().iter().all(|seen| !seen.storage && !seen.target.contains("/resolve/")), "nothing is downloaded");
    assert_eq!(server.post("/f/digits/predict", &json!({"input": vec![0; 64]})).status(), 200);
    let listed = server.kip(&["model", "ls"]).ok().stdout;
    assert!(listed.contains("adopted") && listed.contains("digits"), "{listed}");
    server.kip(&["model", "rm", "hf:org/Digits"]).failed(&["KW-9011"]);
    server.kip(&["model", "adopt", &server.folder().join("none").display().to_string()]).failed(&["KW-9046", "none"]);
    let key = server.kip(&["key", "create", "d", "--role", "deploy"]).ok();
    let headers = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", key.stdout.trim_end());
    let refused =
        call(server.api, "POST", "/api/v1/models/adoptions", &headers, json!({"folder": root}).to_string().as_bytes());
    assert_eq!(refused.status(), 403, "{refused:?}");
    assert!(snapshot.join("README.md").exists());
}
