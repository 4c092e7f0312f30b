//! The app of preset `pipeline`, deployed and ejected. In these tests, small modules stand in for `transformers` and `modelscope`: they have
//! the form of pipelines and no models. `real_engines` has the real ones.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::real_engines::{install, post, root};
use crate::support::{Server, call};

/// The Python of the tests, or the host's.
fn python() -> Option<PathBuf> {
    let own = root().join(".venv/bin/python");
    let has = std::process::Command::new(&own).args(["-c", "import PIL"]).output();
    if has.is_ok_and(|output| output.status.success()) {
        return Some(own);
    }
    eprintln!("skipped: no Python with PIL in .venv; `cargo xtask test` installs it");
    None
}

/// The environment of the preset, with modules that stand in for the libraries.
fn install_standins(server: &Server, python: &Path) {
    let modules = root().join("tests/clients/standins");
    install(server, "pipeline", "python", &format!("env PYTHONPATH={} {}", modules.display(), python.display()));
}

fn model(server: &Server, name: &str, files: &[(&str, &str)]) -> String {
    let folder = server.folder().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for (file, text) in files {
        std::fs::write(folder.join(file), text).unwrap();
    }
    folder.display().to_string()
}

/// A picture of 3 x 2 red points, as base64.
pub(crate) const PICTURE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAAAEElEQVR4nGP8zwAFTDAGAwATKQED8NgHhAAAAABJRU5ErkJggg==";

const CLASSIFIER: [(&str, &str); 2] = [
    ("config.json", r#"{"architectures": ["BertForSequenceClassification"], "labels": ["even", "odd"]}"#),
    ("model.safetensors", ""),
];

#[test]
fn a_pipeline_answers_as_the_one_click_deployment_does_and_its_app_can_be_ejected() {
    let Some(python) = python() else { return };
    let server = Server::start();
    install_standins(&server, &python);
    let folder = model(&server, "tiny", &CLASSIFIER);
    let up = server.kip(&["up", "--no-follow", &folder, "--preset", "pipeline"]).ok();
    for said in ["Asked     POST /: 200", "Answer    [{\"label\":\"even\"", "-d '{\"input\":{\"text\":"] {
        assert!(up.stdout.contains(said), "`{said}`: {up:?}");
    }
    let answered = |path: &str, body: Value| {
        let answer = post(&server, path, &body);
        assert_eq!(answer.status(), 200, "{body}: {answer:?}");
        answer.json()
    };
    let output = json!([{"label": "odd", "score": 0.75}]);
    // The request of the sample code, and the answer around the output.
    let whole = answered("/f/tiny/", json!({"input": {"text": "abc"}, "parameters": {}}));
    assert_eq!((&whole["Code"], &whole["Success"], &whole["Data"]), (&json!(200), &json!(true), &output));
    assert!(whole["RequestId"].as_str().is_some_and(|id| !id.is_empty()), "{whole}");
    assert_eq!(answered("/f/tiny/invoke", json!({"input": "abc"}))["Data"], output);
    assert_eq!(answered("/f/tiny/call", json!({"input": {"text": "abc"}})), output);
    assert_eq!(answered("/f/tiny/", json!({"inputs": "abc"})), output, "the form of Hugging Face");
    assert_eq!(answered("/f/tiny/", json!({"input": "abc", "parameters": {"top_k": 0}}))["Data"], json!([]));
    for (body, part) in [
        (json!({"text": "abc"}), "an object with `input`"),
        (json!({"input": {"text": 3}}), "a text is needed"),
        (json!({"input": {}}), "is empty"),
        (json!({"input": "a", "parameters": {"odd": 1}}), "odd"),
        (json!({"input": "a", "parameters": [1]}), "not an object"),
        (json!({"input": {"image": "no picture!"}}), "base64"),
        (json!({"input": {"image": "aGVsbG8="}}), "not a picture"),
        (json!({"input": {"image": "http://127.0.0.1:1/x"}}), "PIPELINE_URLS"),
    ] {
        let answer = post(&server, "/f/tiny/", &body);
        let refused = answer.json();
        assert_eq!((answer.status(), &refused["Success"]), (400, &json!(false)), "{body}: {refused}");
        assert!(refused["Message"].as_str().is_some_and(|message| message.contains(part)), "{body}: {refused}");
    }

    // The ejected app is the same file, and answers the same.
    let target = server.folder().join("ejected");
    let target = target.display().to_string();
    server.kip(&["model", "eject", "tiny", &target]).ok();
    let text = std::fs::read_to_string(Path::new(&target).join("app.py")).unwrap();
    assert_eq!(text, std::fs::read_to_string(root().join("crates/models/apps/pipeline.py")).unwrap());
    server.kip(&["model", "eject", "tiny", &target]).failed(&["KW-9030", "not empty"]);
    server.kip(&["rm", "tiny", "--yes"]).ok();
    server.kip(&["up", "--no-follow", &target]).ok();
    assert_eq!(answered("/f/tiny/", json!({"input": {"text": "abc"}}))["Data"], output);
    let instance = server.instances().into_iter().find(|one| one["function"] == "tiny").unwrap();
    assert!(instance.to_string().contains("tiny"), "{instance}");
    server.kip(&["model", "eject", "tiny", &format!("{target}-2")]).failed(&["KW-9030", "does not run an app"]);
    assert!(!Path::new(&format!("{target}-2")).exists());
}

#[test]
fn the_files_of_a_model_name_its_task_and_its_library() {
    let Some(python) = python() else { return };
    let server = Server::start();
    install_standins(&server, &python);
    let weights = ("pytorch_model.bin", "");
    let up = |name: &str, files: &[(&str, &str)]| {
        let folder = model(&server, name, files);
        server.kip(&["up", "--no-follow", &folder, "--preset", "pipeline"]).ok();
    };
    up("vision", &[("config.json", r#"{"architectures": ["ViTForImageClassification"]}"#), weights]);
    let ask = |path: &str, body: Value| post(&server, path, &body).json();
    let answer = ask("/f/vision/", json!({"input": {"image": PICTURE}}));
    assert_eq!(answer["Data"], json!([{"label": "3 x 2", "score": 1.0}]), "{answer}");
    let data = format!("data:image/png;base64,{}", PICTURE);
    assert_eq!(ask("/f/vision/call", json!({"input": data})), json!([{"label": "3 x 2", "score": 1.0}]));
    up("answers", &[("config.json", r#"{"architectures": ["BertForQuestionAnswering"]}"#), weights]);
    let input = json!({"question": "where?", "context": "it is here"});
    assert_eq!(ask("/f/answers/", json!({ "input": input }))["Data"]["answer"], "here");
    // The page of a model, and ModelScope's own configuration.
    let page = "---\nlicense: mit\npipeline_tag: feature-extraction\n---\n# Model\n";
    up("vectors", &[("config.json", "{}"), ("README.md", page), weights]);
    assert_eq!(ask("/f/vectors/call", json!({"input": "four"})), json!([4.0, -1.0]));
    let ranking = r#"{"task": "text-ranking", "pipeline": {"type": "ranking"}}"#;
    up("ranks", &[("configuration.json", ranking), weights]);
    let input = json!({"source_sentence": ["a"], "sentences_to_compare": ["b", "ccc"]});
    assert_eq!(ask("/f/ranks/", json!({ "input": input }))["Data"], json!({"scores": [1, 3], "device": "cpu"}));
    let about = call(server.gateway, "GET", "/f/ranks/describe", "", b"").json();
    assert_eq!((&about["library"], &about["task"]), (&json!("modelscope"), &json!("text-ranking")));
    // A model that breaks, and one whose task nobody knows.
    up("breaks", &[("config.json", r#"{"architectures": ["WhisperForCTC"]}"#), weights]);
    let answer = post(&server, "/f/breaks/", &json!({"input": {"audio": "AAAA"}}));
    assert_eq!((answer.status(), answer.json()["Success"].clone()), (500, json!(false)), "{answer:?}");
    let folder = model(&server, "unknown", &[("config.json", "{}"), weights]);
    let up = server.kip(&["up", "--no-follow", &folder, "--preset", "pipeline"]);
    assert_eq!(up.code, Some(1), "{up:?}");
    assert!(server.kip(&["logs", "unknown"]).stdout.contains("give --task"));
}
