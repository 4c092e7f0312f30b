//! `/predict`, `/model`, the page, and `model.json`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Kind, RunningServer, adder, digits, header, json, model, node, options, port, start};
use http::Method;
use kip_infer::Error;
use kip_spec::problem::Envelope;
use serde_json::json;

/// Status, code and message of an error answer in the usual form.
fn refused(server: &RunningServer, kind: &str, body: impl Into<bytes::Bytes>) -> (u16, String, String) {
    let answer = server.call(Method::POST, "/predict", &[("content-type", kind)], body);
    let envelope: Envelope = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(header(&answer.headers, "x-kip-error"), envelope.error.code.to_string());
    (answer.status, envelope.error.code.to_string(), envelope.error.to_string())
}

/// Gives its input back; rows of `[2, 2]`.
fn echo(card: Option<&str>) -> tempfile::TempDir {
    let shape = [-1, 2, 2];
    let ports = |name| vec![port(name, Kind::Float, &shape)];
    model(vec![node("Identity", &["x"], "y")], ports("x"), ports("y"), card)
}

fn card_error(card: &str) -> String {
    let folder = echo(Some(card));
    match start(options(folder.path())) {
        Err(error @ Error::Card { .. }) => error.to_string(),
        other => panic!("{card} was not refused: {:?}", other.map(|_| ())),
    }
}

#[test]
fn rows_nested_or_flat_one_or_several() {
    let folder = echo(None);
    let server = start(options(folder.path())).unwrap();
    let single = json(&server.post("/predict", r#"{"input": [[1, 2], [3, 4]]}"#));
    let expected = json!({ "outputs": { "y": [[[1.0, 2.0], [3.0, 4.0]]] }, "model": "test", "runtime": "tract" });
    assert_eq!(single, expected);
    assert_eq!(json(&server.post("/predict", r#"{"input": [1, 2, 3, 4]}"#)), expected);
    let several = json(&server.post("/predict", r#"{"inputs": [[1, 2, 3, 4], [5, 6, 7, 8]]}"#));
    assert_eq!(several["predictions"][1], json!({ "outputs": { "y": [[[5.0, 6.0], [7.0, 8.0]]] } }));
    let statistics = json(&server.get("/v2/models/test/stats"));
    assert_eq!(statistics["model_stats"][0]["batch_stats"][1]["batch_size"], 2, "several inputs are one run");
    let named = json(&server.post("/predict", r#"{"inputs": {"x": [[1, 2, 3, 4]]}}"#));
    assert_eq!(named["predictions"].as_array().unwrap().len(), 1, "`inputs` are answered with a list");
}

#[test]
fn several_inputs_by_name_and_models_without_rows() {
    let folder = adder();
    let server = start(options(folder.path())).unwrap();
    let answer = json(&server.post("/predict", r#"{"inputs": {"a": [[1, 2], [3, 4]], "b": [[1, 1], [2, 2]]}}"#));
    assert_eq!(answer["predictions"][1]["outputs"], json!({ "sum": [[5.0, 6.0]], "product": [[6.0, 8.0]] }));
    for (body, part) in [
        (r#"{"input": [1, 2]}"#, "several inputs"),
        (r#"{"input": {"a": [1, 2]}}"#, "`b` is missing"),
        (r#"{"input": {"a": [1, 2], "b": [1, 2], "c": [1]}}"#, "no input `c`"),
        (r#"{"inputs": {"a": [[1, 2]], "b": [[1, 2], [3, 4]]}}"#, "different numbers"),
    ] {
        let (status, code, message) = refused(&server, "application/json", body);
        assert_eq!((status, code.as_str()), (400, "KW-6004"), "{message}");
        assert!(message.contains(part), "{message}");
    }
    // A fixed first dimension that is not 1 is not one of rows.
    let ports = |name| vec![port(name, Kind::Int64, &[3])];
    let folder = model(vec![node("Neg", &["x"], "y")], ports("x"), ports("y"), None);
    let server = start(options(folder.path())).unwrap();
    let answer = json(&server.post("/predict", r#"{"inputs": [[1, 2, 3], [4, 5, 6]]}"#));
    assert_eq!(answer["predictions"][1]["outputs"]["y"], json!([-4, -5, -6]));
    assert_eq!(json(&server.get("/model"))["max_batch"], 1);
}

#[test]
fn what_cannot_be_read_is_refused() {
    let folder = echo(None);
    let server = start(options(folder.path())).unwrap();
    for (kind, body, code, part) in [
        ("application/json", "", "KW-6006", "JSON cannot be read"),
        ("application/json", "{}", "KW-6006", "exactly one of"),
        ("application/json", r#"{"input": [1], "inputs": [[1]]}"#, "KW-6006", "exactly one of"),
        ("application/json", r#"{"rows": [1]}"#, "KW-6006", "unknown field `rows`"),
        ("application/json", r#"{"input": "text"}"#, "KW-6006", "a list"),
        ("application/json", r#"{"input": [NaN, 1, 2, 3]}"#, "KW-6006", "cannot be read"),
        ("application/json", r#"{"input": [1, 2, 3]}"#, "KW-6004", "takes the shape"),
        ("application/json", r#"{"input": [[1, 2], [3]]}"#, "KW-6004", "different lengths"),
        ("application/json", r#"{"inputs": []}"#, "KW-6004", "empty"),
        ("application/json", r#"{"input": [1, 2, 3, "4"]}"#, "KW-6005", "mixes"),
        ("application/json", r#"{"input": [1, 2, 3, 1e60]}"#, "KW-6005", "cannot hold 1e60"),
        ("image/png", "\u{89}PNG", "KW-6006", "takes no pictures"),
        ("multipart/form-data; boundary=x", "--x", "KW-6006", "forms"),
    ] {
        let (status, found, message) = refused(&server, kind, body);
        assert_eq!((status, found.as_str()), (400, code), "{body}: {message}");
        assert!(message.contains(part), "{body}: {message}");
    }
    let answer = server.get("/nothing");
    let envelope: Envelope = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, envelope.error.code.to_string().as_str()), (404, "KW-6011"));
    assert_eq!(server.get("/predict").status, 405);
}

#[test]
fn pictures_that_cannot_be_read_are_refused() {
    let mut options = options(&digits().join("model"));
    options.max_pixels = 10_000;
    let server = start(options).unwrap();
    let jpeg = include_bytes!("seven.jpg").as_slice();
    for (body, status, code, part) in [
        (&b"GIF89a"[..], 400, "KW-6006", "neither PNG nor JPEG"),
        (b"\x89PNG\r\n\x1a\nrest", 400, "KW-6006", "PNG picture cannot be read"),
        (&[0xff, 0xd8, 0xff, 0], 400, "KW-6006", "JPEG picture cannot be read"),
        (jpeg, 413, "KW-6007", "120 x 160 pixels"),
    ] {
        let (found, number, message) = refused(&server, "image/png", body);
        assert_eq!((found, number.as_str()), (status, code), "{message}");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn the_page_stands_alone() {
    let server = start(options(&digits().join("model"))).unwrap();
    let page = server.get("/");
    assert_eq!((page.status, header(&page.headers, "content-type").as_str()), (200, "text/html; charset=utf-8"));
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    for foreign in ["http://", "https://", "src=\"/", "href=\"/", "fetch(\"/", "@import"] {
        assert!(!text.contains(foreign), "the page must work below any path and without a network: {foreign}");
    }
    let head = server.call(Method::HEAD, "/", &[], "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let about = json(&server.get("/model"));
    assert_eq!((&about["takes_pictures"], &about["runtime"]), (&json!(true), &json!("tract")));
    assert_eq!(about["labels"].as_array().unwrap().len(), 10);
    assert!(about["licence"].as_str().unwrap().contains("CC BY 4.0"));
}

#[test]
fn model_json_is_checked_when_the_model_is_loaded() {
    for (card, part) in [
        ("{", "EOF"),
        (r#"{"label": ["a"]}"#, "did you mean `labels`?"),
        (r#"{"picture": {"widht": 1}}"#, "did you mean `width`?"),
        (r#"{"picture": {"width": 2, "height": 2, "channels": 1, "fit": "glyf"}}"#, "did you mean `glyph`?"),
        (r#"{"picture": {"width": 2, "height": 2, "channels": 2}}"#, "1 or 3"),
        (r#"{"picture": {"width": 0, "height": 2, "channels": 1}}"#, "from 1 to 4096"),
        (r#"{"picture": {"width": 2, "height": 2, "channels": 1, "fit": "glyph"}}"#, "must say its form"),
        (r#"{"picture": {"width": 2, "height": 2, "channels": 1, "scale": [1, 2]}}"#, "one for each channel"),
        (r#"{"picture": {"width": 2, "height": 2, "channels": 1}}"#, "[1, 2, 2], which `x` does not take"),
        (r#"{"picture": {"width": 2, "height": 2, "channels": 1, "input": "z"}}"#, "one of the model's inputs"),
        (r#"{"labels": ["a", "b"]}"#, "`labels` has 2 entries, but `y` gives 4 scores"),
        (r#"{"output": {"name": "z"}}"#, "one of the model's outputs: y"),
        (r#"{"output": {"activation": "softmaks"}}"#, "did you mean `softmax`?"),
    ] {
        let message = card_error(card);
        assert!(message.contains(part), "{card}: {message}");
    }
}

#[test]
fn scores_labels_and_activations() {
    let labels = r#"["a", "b", "c", "d"]"#;
    let scores = |activation: &str| {
        let folder = echo(Some(&format!(
            r#"{{"name": "my model", "labels": {labels}, "output": {{"activation": "{activation}"}}}}"#
        )));
        let server = start(options(folder.path())).unwrap();
        json(&server.post("/predict", r#"{"input": [0, 0, 1000, 0]}"#))
    };
    let softmax = scores("softmax");
    assert_eq!((&softmax["label"], &softmax["model"]), (&json!("c"), &json!("my-model")));
    assert_eq!(softmax["scores"], json!({ "a": 0.0, "b": 0.0, "c": 1.0, "d": 0.0 }));
    assert_eq!(scores("sigmoid")["scores"], json!({ "a": 0.5, "b": 0.5, "c": 1.0, "d": 0.5 }));
    assert_eq!(scores("none")["scores"]["c"], json!(1000.0));
    let folder = echo(Some(r#"{"output": {"activation": "none"}, "batch": false}"#));
    let server = start(options(folder.path())).unwrap();
    let answer = json(&server.post("/predict", r#"{"inputs": [[1, 2, 3, 4], [5, 6, 7, 8]]}"#));
    assert_eq!(answer["predictions"][1]["scores"], json!([5.0, 6.0, 7.0, 8.0]), "scores without labels are a list");
    assert_eq!(json(&server.get("/model"))["max_batch"], 1, "`batch: false` keeps requests apart");
}

#[test]
fn models_that_cannot_be_served_say_why() {
    let code = |folder: &tempfile::TempDir| start(options(folder.path())).map(|_| ()).unwrap_err().problem();
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(code(&empty).code, kip_spec::code::MODEL_NOT_FOUND);
    std::fs::write(empty.path().join("model.onnx"), "this is no model").unwrap();
    assert_eq!(code(&empty).code, kip_spec::code::MODEL_UNREADABLE);
    let ports = |name| vec![port(name, Kind::Float, &[-1, 2])];
    let unknown = model(vec![node("FancyNewOperator", &["x"], "y")], ports("x"), ports("y"), None);
    let problem = code(&unknown);
    assert_eq!(problem.code, kip_spec::code::MODEL_UNREADABLE);
    assert!(problem.to_string().contains("FancyNewOperator"), "{problem}");
    // A port that is taken.
    let folder = adder();
    let server = start(options(folder.path())).unwrap();
    let mut taken = options(folder.path());
    taken.port = server.address.port();
    assert!(matches!(start(taken).map(|_| ()), Err(Error::Listen { .. })));
}

#[test]
fn a_model_that_fails_on_an_input_says_so_and_lives_on() {
    // Integer division by zero.
    let ports = |name| vec![port(name, Kind::Int64, &[-1, 1])];
    let inputs = [ports("x"), ports("z")].concat();
    let folder = model(vec![node("Div", &["x", "z"], "y")], inputs, ports("y"), None);
    let server = start(options(folder.path())).unwrap();
    let (status, code, _) = refused(&server, "application/json", r#"{"input": {"x": [1], "z": [0]}}"#);
    assert_eq!((status, code.as_str()), (500, "KW-6008"));
    let answer = json(&server.post("/predict", r#"{"input": {"x": [6], "z": [3]}}"#));
    assert_eq!(answer["outputs"]["y"], json!([[2]]));
}

#[test]
fn a_model_that_needs_its_lengths_is_planned_for_each() {
    // The rows must number two for the fixed shape to fit, which cannot be planned for any number of rows.
    let shape = tract_onnx::pb::TensorProto {
        name: "shape".to_owned(),
        data_type: Kind::Int64 as i32,
        dims: vec![1],
        int64_data: vec![4],
        ..tract_onnx::pb::TensorProto::default()
    };
    let inputs = vec![port("x", Kind::Float, &[-1, 2])];
    let outputs = vec![port("y", Kind::Float, &[4])];
    let folder = common::model_with(vec![node("Reshape", &["x", "shape"], "y")], inputs, outputs, vec![shape], None);
    let server = start(options(folder.path())).unwrap();
    for _ in 0..2 {
        let answer = json(&server.post("/predict", r#"{"input": [[1, 2], [3, 4]]}"#));
        assert_eq!(answer["outputs"]["y"], json!([1.0, 2.0, 3.0, 4.0]));
    }
    let (status, code, _) = refused(&server, "application/json", r#"{"input": [[1, 2]]}"#);
    assert_eq!((status, code.as_str()), (500, "KW-6008"));
}
