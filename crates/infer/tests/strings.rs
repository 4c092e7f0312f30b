//! Strings, sequences, weights behind links, and models that cannot run.

mod common;

use common::{Kind, adder, json, model, model_with, node, options, port, refusal, start};
use serde_json::json;

const INFER: &str = "/v2/models/test/infer";

fn identity() -> tempfile::TempDir {
    let shape = [-1, 2];
    let (input, output) = (port("x", Kind::String, &shape), port("y", Kind::String, &shape));
    model(vec![node("Identity", &["x"], "y")], vec![input], vec![output], None)
}

fn body(data: &serde_json::Value) -> String {
    json!({ "inputs": [{ "name": "x", "shape": [1, 2], "datatype": "BYTES", "data": data }] }).to_string()
}

#[test]
fn strings_come_back_as_they_went_in() {
    let folder = identity();
    let server = start(options(folder.path())).unwrap();
    let answer = server.post(INFER, body(&json!(["abc", "ä€"])));
    assert_eq!(json(&answer)["outputs"][0]["data"], json!(["abc", "ä€"]));
}

/// A request with two binary strings, and its headers.
fn binary(strings: [&[u8]; 2], binary_output: bool) -> (String, Vec<u8>) {
    let mut data = Vec::new();
    for text in strings {
        data.extend_from_slice(&u32::try_from(text.len()).expect("a short text").to_le_bytes());
        data.extend_from_slice(text);
    }
    let input =
        json!({ "name": "x", "shape": [1, 2], "datatype": "BYTES", "parameters": { "binary_data_size": data.len() } });
    let head = json!({ "parameters": { "binary_data_output": binary_output }, "inputs": [input] }).to_string();
    (head.len().to_string(), [head.into_bytes(), data].concat())
}

#[test]
fn strings_of_any_bytes_come_back_byte_for_byte_where_the_runtime_takes_them() {
    let folder = identity();
    for options in common::runtimes(folder.path()) {
        let runtime = options.runtime;
        let server = start(options).unwrap();
        let call = |(length, body): (String, Vec<u8>)| {
            server.call(http::Method::POST, INFER, &[("inference-header-content-length", &length)], body)
        };
        for strings in [[&b"a\0b"[..], b""], [b"\xff\xfe\0\0", b"d"], [&[7; 70_000], "ä€".as_bytes()]] {
            let is_text = strings.iter().all(|string| std::str::from_utf8(string).is_ok());
            let request = binary(strings, true);
            let sent = request.1[request.0.parse::<usize>().unwrap()..].to_vec();
            let answer = call(request);
            if runtime == kip_infer::Runtime::Tract && !is_text {
                let (status, _, message) = refusal(&answer);
                assert!(status == 400 && message.contains("element 0 is not UTF-8"), "{status} {message}");
                continue;
            }
            assert_eq!(answer.status, 200, "{runtime:?}: {answer:?}");
            assert!(answer.body.ends_with(&sent), "{runtime:?}: {strings:?}");
        }
        if runtime != kip_infer::Runtime::Tract {
            let (status, _, message) = refusal(&call(binary([b"\xff", b"d"], false)));
            assert!(status == 400 && message.contains("binary_data"), "{status} {message}");
        }
    }
}

#[test]
fn a_sequence_is_refused_and_no_sequence_is_not() {
    let folder = adder();
    let server = start(options(folder.path())).unwrap();
    let with = |parameters: serde_json::Value| {
        let input = |name: &str| json!({ "name": name, "shape": [1, 2], "datatype": "FP32", "data": [1, 2] });
        server.post(INFER, json!({ "parameters": parameters, "inputs": [input("a"), input("b")] }).to_string())
    };
    for parameters in [json!({ "sequence_id": 7 }), json!({ "sequence_id": "a" }), json!({ "sequence_start": true })] {
        let (status, _, message) = refusal(&with(parameters));
        assert!(status == 400 && message.contains("sequence"), "{status} {message}");
    }
    let none = json!({ "sequence_id": 0, "sequence_start": false, "sequence_end": false });
    assert_eq!(with(none).status, 200);
}

/// A weight of two numbers.
fn weight(name: &str) -> tract_onnx::pb::TensorProto {
    tract_onnx::pb::TensorProto {
        name: name.to_owned(),
        data_type: Kind::Float as i32,
        dims: vec![2],
        ..tract_onnx::pb::TensorProto::default()
    }
}

#[test]
fn a_model_that_fails_each_run_is_not_ready() {
    // Rows of two never have the shape of the weight.
    let mut five = weight("five");
    (five.dims, five.float_data) = (vec![5], vec![1.0; 5]);
    let broken = model_with(
        vec![node("Add", &["x", "five"], "y")],
        vec![port("x", Kind::Float, &[-1, 2])],
        vec![port("y", Kind::Float, &[-1, 2])],
        vec![five],
        None,
    );
    let problem = start(options(broken.path())).map(drop).unwrap_err().problem();
    assert_eq!(problem.code.to_string(), "KW-6002", "{problem:?}");
}

#[test]
fn weights_behind_a_link_are_read() {
    let entry = |key: &str, value: &str| tract_onnx::pb::StringStringEntryProto {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let mut outside = weight("w");
    outside.external_data = vec![entry("location", "model.onnx.data"), entry("offset", "0"), entry("length", "8")];
    outside.data_location = Some(tract_onnx::pb::tensor_proto::DataLocation::External as i32);
    let folder = model_with(
        vec![node("Add", &["x", "w"], "y")],
        vec![port("x", Kind::Float, &[-1, 2])],
        vec![port("y", Kind::Float, &[-1, 2])],
        vec![outside],
        None,
    );
    let blobs = tempfile::tempdir().unwrap();
    std::fs::write(blobs.path().join("aaa"), [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat()).unwrap();
    std::os::unix::fs::symlink(blobs.path().join("aaa"), folder.path().join("model.onnx.data")).unwrap();
    for options in common::runtimes(folder.path()) {
        let runtime = options.runtime;
        let server = start(options).unwrap_or_else(|error| panic!("{runtime:?}: {:?}", error.problem()));
        let input = json!({ "name": "x", "shape": [1, 2], "datatype": "FP32", "data": [10, 20] });
        let answer = server.post(INFER, json!({ "inputs": [input] }).to_string());
        assert_eq!(json(&answer)["outputs"][0]["data"], json!([11.0, 22.0]), "{runtime:?}");
    }
}
