//! ONNX Runtime, where its library is found: `cargo xtask test` installs it into `.venv`; otherwise set `KIPWAKE_ONNXRUNTIME`, or
//! have it in a usual place.
#![expect(clippy::print_stdout, reason = "a test that is skipped says why")]

mod common;

use common::{Kind, adder, digits, json, model, node, port, start};
use http::Method;
use kip_infer::{Error, Options, Runtime};
use serde_json::json;

/// Options that ask for ONNX Runtime, or `None`, and why, where it is not there.
fn with_onnxruntime(folder: &std::path::Path) -> Option<Options> {
    let options = common::in_onnxruntime(folder);
    match start(options.clone()).map(|_| ()) {
        Err(Error::RuntimeMissing { reason }) => {
            println!("skipped: ONNX Runtime is not here ({reason}); set KIPWAKE_ONNXRUNTIME");
            None
        }
        _ => Some(options),
    }
}

#[test]
fn a_library_that_was_named_and_is_missing_stops_the_start() {
    let folder = adder();
    for runtime in [Runtime::Auto, Runtime::OnnxRuntime] {
        let library = Some(folder.path().join("libonnxruntime.so"));
        let options = Options { runtime, onnxruntime_library: library, ..Options::new(folder.path()) };
        let problem = start(options).map(|_| ()).unwrap_err().problem();
        assert_eq!(problem.code, kip_spec::code::MODEL_RUNTIME_MISSING);
        assert!(problem.message.contains("No such file"), "{problem}");
    }
    // tract was asked for, so the library does not matter.
    let library = Some(folder.path().join("libonnxruntime.so"));
    let options = Options { runtime: Runtime::Tract, onnxruntime_library: library, ..Options::new(folder.path()) };
    assert!(start(options).is_ok());
}

#[test]
fn it_answers_as_tract_does() {
    let Some(options) = with_onnxruntime(&digits().join("model")) else { return };
    let runtimes = [start(options).unwrap(), start(common::options(&digits().join("model"))).unwrap()];
    let picture = std::fs::read(digits().join("samples/7.png")).unwrap();
    let answers = runtimes
        .each_ref()
        .map(|server| json(&server.call(Method::POST, "/predict", &[("content-type", "image/png")], picture.clone())));
    assert_eq!((&answers[0]["runtime"], &answers[1]["runtime"]), (&json!("onnxruntime"), &json!("tract")));
    assert_eq!((&answers[0]["label"], &answers[1]["label"]), (&json!("7"), &json!("7")));
    for digit in 0..10 {
        let scores = answers.each_ref().map(|answer| answer["scores"][digit.to_string()].as_f64().unwrap());
        assert!((scores[0] - scores[1]).abs() < 1e-4, "{digit}: {scores:?}");
    }
    let metadata = json(&runtimes[0].get("/v2/models/digits"));
    assert_eq!(metadata["platform"], "onnx_onnxruntime");
    assert!(metadata["parameters"]["runtime_version"].as_str().unwrap().starts_with("1."));
}

#[test]
fn it_takes_every_datatype() {
    let folder = adder();
    if with_onnxruntime(folder.path()).is_none() {
        return;
    }
    for (kind, name, data) in [
        (Kind::Int64, "INT64", json!([9_007_199_254_740_993_i64, -1])),
        (Kind::Int8, "INT8", json!([-128, 127])),
        (Kind::Uint8, "UINT8", json!([0, 255])),
        (Kind::Double, "FP64", json!([0.1, 1e300])),
        (Kind::Bool, "BOOL", json!([true, false])),
        (Kind::Float16, "FP16", json!([0.5, 1.0])),
        (Kind::String, "BYTES", json!(["eins", "zwei"])),
    ] {
        let ports = |port_name| vec![port(port_name, kind, &[-1, 2])];
        let folder = model(vec![node("Identity", &["x"], "y")], ports("x"), ports("y"), None);
        let Some(options) = with_onnxruntime(folder.path()) else { return };
        let server = start(options).unwrap();
        let body = json!({ "inputs": [{ "name": "x", "shape": [1, 2], "datatype": name, "data": data }] });
        let answer = json(&server.post("/v2/models/test/infer", body.to_string()));
        assert_eq!(answer["outputs"][0]["data"], data, "{name}: {answer}");
    }
}

#[test]
fn what_it_cannot_load_says_why() {
    let ports = |name| vec![port(name, Kind::Float, &[-1, 2])];
    let folder = model(vec![node("FancyNewOperator", &["x"], "y")], ports("x"), ports("y"), None);
    let Some(options) = with_onnxruntime(folder.path()) else { return };
    let problem = start(options).map(|_| ()).unwrap_err().problem();
    assert_eq!(problem.code, kip_spec::code::MODEL_UNREADABLE);
    assert!(problem.to_string().contains("FancyNewOperator"), "{problem}");
}
