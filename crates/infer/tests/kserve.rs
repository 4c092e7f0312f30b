//! The open inference protocol as its clients speak it.

mod common;

use common::{Kind, adder, header, json, model, node, options, port, refusal, start};
use http::Method;
use serde_json::json;

const INFER: &str = "/v2/models/test/infer";

fn request(a: &serde_json::Value, b: &serde_json::Value) -> String {
    json!({ "id": "42", "inputs": [
        { "name": "b", "shape": [1, 2], "datatype": "FP32", "data": b },
        { "name": "a", "shape": [1, 2], "datatype": "FP32", "data": a },
    ]})
    .to_string()
}

#[test]
fn server_and_model_tell_of_themselves() {
    let folder = adder();
    let server = start(options(folder.path())).unwrap();
    for path in ["/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models/test/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
        assert_eq!(server.call(Method::HEAD, path, &[], "").status, 200, "{path}");
    }
    assert_eq!(json(&server.get("/v2"))["extensions"], json!(["binary_tensor_data", "statistics"]));
    for path in ["/v2/models/test", "/v2/models/test/versions/1"] {
        let metadata = json(&server.get(path));
        assert_eq!(metadata["name"], "test");
        assert_eq!(metadata["versions"], json!(["1"]));
        assert_eq!(metadata["platform"], "onnx_tract");
        assert_eq!(metadata["inputs"][1], json!({ "name": "b", "datatype": "FP32", "shape": [-1, 2] }));
        assert_eq!(metadata["outputs"][0]["name"], "sum");
        assert_eq!(metadata["parameters"]["max_batch"], 32);
    }
}

#[test]
fn json_tensors_flat_and_nested() {
    let folder = adder();
    let server = start(options(folder.path())).unwrap();
    for path in [INFER, "/v2/models/test/versions/1/infer"] {
        let answer = server.post(path, request(&json!([[1, 2.5]]), &json!([10, 20])));
        let answer = json(&answer);
        assert_eq!(answer["model_name"], "test");
        assert_eq!(answer["model_version"], "1");
        assert_eq!(answer["id"], "42", "the id comes back");
        let sum = json!({ "name": "sum", "datatype": "FP32", "shape": [1, 2], "data": [11.0, 22.5] });
        assert_eq!(answer["outputs"][0], sum);
        assert_eq!(answer["outputs"][1]["data"], json!([10.0, 50.0]));
    }
}

#[test]
fn only_the_outputs_asked_for() {
    let folder = adder();
    let server = start(options(folder.path())).unwrap();
    let mut body: serde_json::Value = serde_json::from_str(&request(&json!([1, 2]), &json!([3, 4]))).unwrap();
    body["outputs"] = json!([{ "name": "product" }]);
    let answer = json(&server.post(INFER, body.to_string()));
    assert_eq!(answer["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(answer["outputs"][0]["data"], json!([3.0, 8.0]));
    body["outputs"] = json!([{ "name": "difference" }]);
    let (status, code, text) = refusal(&server.post(INFER, body.to_string()));
    assert_eq!((status, code.as_str()), (400, "KW-6004"));
    assert!(text.contains("`sum`, `product`"), "{text}");
}

#[test]
fn binary_tensors_in_and_out() {
    let folder = adder();
    let server = start(options(folder.path())).unwrap();
    let head = json!({
        "inputs": [
            { "name": "a", "shape": [1, 2], "datatype": "FP32", "parameters": { "binary_data_size": 8 } },
            { "name": "b", "shape": [1, 2], "datatype": "FP32", "data": [1, 1] },
        ],
        "outputs": [
            { "name": "product", "parameters": { "binary_data": true } },
            { "name": "sum", "parameters": { "binary_data": false } },
        ],
    })
    .to_string();
    let mut body = head.clone().into_bytes();
    body.extend([7f32, f32::NAN].iter().flat_map(|value| value.to_le_bytes()));
    let length = head.len().to_string();
    let headers = [("inference-header-content-length", length.as_str()), ("content-type", "application/octet-stream")];
    let answer = server.call(Method::POST, INFER, &headers, body.clone());
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let json_length: usize = header(&answer.headers, "inference-header-content-length").parse().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&answer.body[..json_length]).unwrap();
    assert_eq!(told["outputs"][0]["parameters"]["binary_data_size"], 8);
    assert_eq!(told["outputs"][1]["data"], json!([8.0, null]), "JSON has no NaN");
    let product: Vec<f32> =
        answer.body[json_length..].chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(product[0], 7.0);
    assert!(product[1].is_nan() && product.len() == 2, "binary tensors have NaN");

    let all = head.replacen("{\"inputs\"", "{\"parameters\":{\"binary_data_output\":true},\"inputs\"", 1);
    let all = all
        .replace(",\"parameters\":{\"binary_data\":false}", "")
        .replace(",\"parameters\":{\"binary_data\":true}", "");
    let length = all.len().to_string();
    let mut whole = all.into_bytes();
    whole.extend([0; 8]);
    let answer = server.call(Method::POST, INFER, &[("inference-header-content-length", &length)], whole);
    let json_length: usize = header(&answer.headers, "inference-header-content-length").parse().unwrap();
    assert_eq!(answer.body.len() - json_length, 16, "both outputs are binary");

    // Lengths that do not fit.
    let refused = |length: &str, body: &[u8]| {
        refusal(&server.call(Method::POST, INFER, &[("inference-header-content-length", length)], body.to_vec()))
    };
    let length = head.len().to_string();
    assert!(refused(&length, &body[..body.len() - 1]).2.contains("only 7 follow"));
    assert!(refused(&length, &[&body[..], &[0]].concat()).2.contains("1 bytes follow after"));
    assert_eq!(refused("99999", &body).1, "KW-6006");
    assert_eq!(refused("-1", &body).1, "KW-6006");
    let (status, code, text) = refusal(&server.post(INFER, head));
    assert_eq!((status, code.as_str()), (400, "KW-6006"));
    assert!(text.contains("Inference-Header-Content-Length is missing"), "{text}");
}

#[test]
fn what_does_not_fit_is_refused_with_code_and_reason() {
    let folder = adder();
    let server = start(options(folder.path())).unwrap();
    let a = |a: serde_json::Value| json!({ "inputs": [a] }).to_string();
    let cases = [
        (request(&json!([1, 2, 3]), &json!([1, 2])), "KW-6004", "3 values"),
        (request(&json!([[1], [2]]), &json!([1, 2])), "KW-6004", "lists of shape [2, 1]"),
        (request(&json!(["x", "y"]), &json!([1, 2])), "KW-6005", "strings"),
        (request(&json!([1, true]), &json!([1, 2])), "KW-6005", "mixes"),
        (a(json!({ "name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2] })), "KW-6004", "`b` is missing"),
        (a(json!({ "name": "c", "shape": [1, 2], "datatype": "FP32", "data": [1, 2] })), "KW-6004", "no input `c`"),
        (a(json!({ "name": "a", "shape": [1, 2], "datatype": "FLOAT", "data": [1, 2] })), "KW-6005", "`FLOAT`"),
        (a(json!({ "name": "a", "shape": [-1, 2], "datatype": "FP32", "data": [1, 2] })), "KW-6004", "not negative"),
        (a(json!({ "name": "a", "shape": [1, 2], "datatype": "FP32" })), "KW-6006", "no data"),
        ("{\"inputs\": [NaN]}".to_owned(), "KW-6006", "no NaN or Infinity"),
        ("{\"inputs\": 5}".to_owned(), "KW-6006", "cannot be read"),
        (String::new(), "KW-6006", "cannot be read"),
        ("[".repeat(100_000), "KW-6006", "cannot be read"),
        (format!("{{\"inputs\": [{{\"name\":\"a\",\"data\":{}", "[".repeat(100_000)), "KW-6006", "recursion limit"),
    ];
    for (body, code, part) in cases {
        let shown: String = body.chars().take(80).collect();
        let (status, found, text) = refusal(&server.post(INFER, body));
        assert_eq!((status, found.as_str()), (400, code), "{shown}: {text}");
        assert!(text.contains(part) && text.starts_with(&format!("[{code}] ")), "{shown}: {text}");
    }
    let two = |a: serde_json::Value, b: serde_json::Value| json!({ "inputs": [a, b] }).to_string();
    let int = json!({ "name": "a", "shape": [1, 2], "datatype": "INT32", "data": [1, 2] });
    let wide = json!({ "name": "a", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3] });
    let rows = json!({ "name": "a", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4] });
    let none = json!({ "name": "a", "shape": [0, 2], "datatype": "FP32", "data": [] });
    let shared =
        json!({ "name": "a", "shape": [1, 2], "datatype": "FP32", "parameters": { "shared_memory_region": "x" } });
    let b = json!({ "name": "b", "shape": [1, 2], "datatype": "FP32", "data": [1, 2] });
    for (body, code, part) in [
        (two(int, b.clone()), "KW-6005", "takes FP32, not INT32"),
        (two(wide, b.clone()), "KW-6004", "takes the shape [batch, 2], not [1, 3]"),
        (two(rows, b.clone()), "KW-6004", "disagree about `batch`"),
        (two(none, b.clone()), "KW-6004", "is empty"),
        (two(shared, b.clone()), "KW-6006", "shared memory"),
        (two(b.clone(), b), "KW-6004", "given twice"),
    ] {
        let (status, found, text) = refusal(&server.post(INFER, body));
        assert_eq!((status, found.as_str()), (400, code), "{text}");
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn unknown_models_paths_and_methods() {
    let folder = adder();
    let server = start(options(folder.path())).unwrap();
    for path in ["/v2/models/other", "/v2/models/test/versions/2", "/v2/models/other/ready", "/v2/models/other/stats"] {
        let (status, code, _) = refusal(&server.get(path));
        assert_eq!((status, code.as_str()), (404, "KW-6001"), "{path}");
    }
    assert_eq!(refusal(&server.post("/v2/models/other/infer", "{}")).1, "KW-6001");
    assert_eq!(refusal(&server.get("/v2/nothing")).1, "KW-6011");
    let (status, code, text) = refusal(&server.get(INFER));
    assert_eq!((status, code.as_str()), (405, "KW-6012"));
    assert!(text.contains("only POST"), "{text}");
    assert_eq!(refusal(&server.post("/v2", "")).1, "KW-6012");
    let encoded = server.call(Method::POST, INFER, &[("content-encoding", "gzip")], "x");
    assert_eq!(refusal(&encoded).1, "KW-6006");
}

#[test]
fn bodies_beyond_the_limit_are_refused() {
    let folder = adder();
    let mut options = options(folder.path());
    options.max_body = kip_spec::Bytes(1_000);
    let server = start(options).unwrap();
    let (status, code, text) = refusal(&server.post(INFER, vec![b' '; 2_000]));
    assert_eq!((status, code.as_str()), (413, "KW-6007"));
    assert!(text.contains("2000 bytes") && text.contains("1000B"), "{text}");
    assert_eq!(server.get("/v2/health/ready").status, 200);
}

#[test]
fn other_datatypes() {
    let kinds = [
        (Kind::Int64, "INT64", json!([9_007_199_254_740_993_i64, -1])),
        (Kind::Int32, "INT32", json!([1, -1])),
        (Kind::Uint8, "UINT8", json!([0, 255])),
        (Kind::Double, "FP64", json!([0.1, 1e300])),
        (Kind::Bool, "BOOL", json!([true, false])),
        (Kind::Float16, "FP16", json!([0.5, 1.0])),
    ];
    for (kind, name, data) in kinds {
        let folder = model(
            vec![node("Identity", &["x"], "y")],
            vec![port("x", kind, &[-1, 2])],
            vec![port("y", kind, &[-1, 2])],
            None,
        );
        let server = start(options(folder.path())).unwrap();
        let body = json!({ "inputs": [{ "name": "x", "shape": [1, 2], "datatype": name, "data": data }] });
        let answer = json(&server.post(INFER, body.to_string()));
        assert_eq!(answer["outputs"][0]["data"], data, "{name}: {answer}");
        assert_eq!(answer["outputs"][0]["datatype"], name);
    }
}

#[test]
fn concurrent_requests_share_runs() {
    let folder = adder();
    let mut options = options(folder.path());
    // The delay never ends; only full batches run, so every run must have been one of eight.
    options.max_batch = 8.try_into().unwrap();
    options.max_delay = kip_spec::Millis(3_600_000);
    let server = start(options).unwrap();
    let address = server.address.to_string();
    let calls: Vec<_> = (0..16)
        .map(|index| {
            let address = address.clone();
            async move {
                let body = request(&json!([index, 0]), &json!([1, 1]));
                let request = http::Request::post(INFER).body(http_body_util::Full::from(body)).unwrap();
                let limit = std::time::Duration::from_secs(60);
                (index, kip_host::http_client::call(&address, request, limit).await.unwrap())
            }
        })
        .map(|call| kip_host::tasks::spawn_on(server.handle(), "call", call))
        .collect();
    for call in calls {
        let (index, answer) = server.block_on(call).unwrap();
        assert_eq!(json(&answer)["outputs"][0]["data"], json!([f64::from(index) + 1.0, 1.0]), "each gets its own row");
    }
    let statistics = json(&server.get("/v2/models/test/stats"));
    let model = &statistics["model_stats"][0];
    assert_eq!((&model["inference_count"], &model["execution_count"]), (&json!(16), &json!(2)));
    assert_eq!(model["batch_stats"][0]["batch_size"], 8);
}
