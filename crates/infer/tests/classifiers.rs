//! Classifiers with a `ZipMap`, as scikit-learn's models are exported by default: in tract, and in ONNX Runtime where it is found.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Kind, json, node, port, start};
use prost::Message;
use serde_json::{Value, json};
use tract_onnx::pb;

/// The classes of a test model.
enum Classes {
    Numbers([i64; 3]),
    Texts([&'static str; 3]),
}

fn attribute(name: &str, fill: impl FnOnce(&mut pb::AttributeProto)) -> pb::AttributeProto {
    let mut attribute = pb::AttributeProto { name: name.to_owned(), ..pb::AttributeProto::default() };
    fill(&mut attribute);
    attribute
}

/// A field of a message as bytes of its wire form.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

/// Writes a linear classifier of two numbers that are scaled before, (x - 1) * 2 and (y + 1) / 2: the class with the largest of both and
/// 1. Its scores are a sequence of maps.
fn classifier(classes: &Classes) -> tempfile::TempDir {
    use pb::attribute_proto::AttributeType::{Floats, Ints, String as Text, Strings};
    let labels = |ints: &str| match classes {
        Classes::Numbers(numbers) => attribute(ints, |a| (a.r#type, a.ints) = (Ints as i32, numbers.to_vec())),
        Classes::Texts(texts) => attribute("classlabels_strings", |a| {
            (a.r#type, a.strings) = (Strings as i32, texts.iter().map(|text| text.as_bytes().to_vec()).collect());
        }),
    };
    let floats =
        |name: &str, values: &[f32]| attribute(name, |a| (a.r#type, a.floats) = (Floats as i32, values.to_vec()));
    let text = |name: &str, value: &str| attribute(name, |a| (a.r#type, a.s) = (Text as i32, value.into()));
    let ml = |operator: &str, input: &str, outputs: &[&str], attribute: Vec<pb::AttributeProto>| pb::NodeProto {
        domain: "ai.onnx.ml".to_owned(),
        output: outputs.iter().map(|name| (*name).to_owned()).collect(),
        attribute,
        ..node(operator, &[input], outputs[0])
    };
    let linear = vec![
        labels("classlabels_ints"),
        floats("coefficients", &[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
        floats("intercepts", &[0.0, 0.0, 1.0]),
        text("post_transform", "NONE"),
    ];
    let scaler = vec![floats("offset", &[1.0, -1.0]), floats("scale", &[2.0, 0.5])];
    let nodes = vec![
        ml("Scaler", "unscaled", &["x"], scaler),
        ml("LinearClassifier", "x", &["chosen", "raw"], linear),
        ml("Normalizer", "raw", &["normal"], vec![text("norm", "L1")]),
        node("Identity", &["chosen"], "output_label"),
        ml("ZipMap", "normal", &["output_probability"], vec![labels("classlabels_int64s")]),
    ];
    let kind = if matches!(classes, Classes::Numbers(_)) { Kind::Int64 } else { Kind::String };
    let graph = pb::GraphProto {
        name: "test".to_owned(),
        node: nodes,
        input: vec![port("unscaled", Kind::Float, &[-1, 2])],
        output: vec![port("output_label", kind, &[-1])],
        ..pb::GraphProto::default()
    };
    let set = |domain: &str, version| pb::OperatorSetIdProto { domain: domain.to_owned(), version };
    let model = pb::ModelProto {
        ir_version: 8,
        opset_import: vec![set("", 13), set("ai.onnx.ml", 1)],
        graph: Some(graph),
        ..pb::ModelProto::default()
    };
    // The types of sequences and maps are not in our decoder: sequence_type { elem_type { map_type { key_type, value_type: FLOAT } } }.
    let tensor = field(1, &[8, 1]);
    let map = field(5, &[&[8, u8::try_from(kind as i32).unwrap()][..], &field(2, &tensor)].concat());
    let sequence = field(4, &field(1, &map));
    let output = [field(1, b"output_probability"), field(2, &sequence)].concat();
    let more = field(7, &field(12, &output));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("test.onnx"), [model.encode_to_vec(), more].concat()).unwrap();
    folder
}

fn serves(classes: &Classes, names: [&str; 3], wire: &Value, datatype: &str) {
    let folder = classifier(classes);
    for options in common::runtimes(folder.path()) {
        let runtime = options.runtime;
        let server = start(options).unwrap_or_else(|error| panic!("{runtime:?}: {:?}", error.problem()));
        let about = json(&server.get("/model"));
        assert_eq!(about["labels"], json!(names), "{runtime:?}");
        assert_eq!(about["outputs"][0]["datatype"], datatype);
        assert_eq!(about["outputs"][1], json!({"name": "output_probability", "datatype": "FP32", "shape": [-1, 3]}));
        let body = json!({"inputs": [[4.0, 5.0], [1.0, -1.0], [1.25, 4.0]]});
        let answer = json(&server.post("/predict", body.to_string()));
        let found: Vec<&Value> = answer["predictions"].as_array().unwrap().iter().map(|one| &one["label"]).collect();
        assert_eq!(found, [&json!(names[0]), &json!(names[2]), &json!(names[1])], "{runtime:?}: {answer}");
        assert_eq!(answer["predictions"][0]["scores"][names[0]], 0.6, "{answer}");
        let input = json!({"name": "unscaled", "shape": [2, 2], "datatype": "FP32", "data": [4, 5, 1.25, 4]});
        let answer = json(&server.post("/v2/models/test/infer", json!({"inputs": [input]}).to_string()));
        assert_eq!(&answer["outputs"][0]["data"], wire, "{runtime:?}: {answer}");
        assert_eq!(answer["outputs"][1]["shape"], json!([2, 3]), "{answer}");
    }
}

#[test]
fn a_classifier_with_numbers_as_classes() {
    serves(&Classes::Numbers([3, 5, 9]), ["3", "5", "9"], &json!([3, 5]), "INT64");
}

#[test]
fn a_classifier_with_texts_as_classes() {
    serves(&Classes::Texts(["no", "yes", "ä"]), ["no", "yes", "ä"], &json!(["no", "yes"]), "BYTES");
}

#[test]
fn labels_of_model_json_come_before_the_classes() {
    let folder = classifier(&Classes::Numbers([0, 1, 2]));
    let card = r#"{"labels": ["setosa", "versicolor", "virginica"], "output": {"name": "output_probability"}}"#;
    std::fs::write(folder.path().join("model.json"), card).unwrap();
    let server = start(common::options(folder.path())).unwrap();
    let answer = json(&server.post("/predict", r#"{"input": [4, 5]}"#));
    assert_eq!(answer["label"], "setosa", "{answer}");
}
