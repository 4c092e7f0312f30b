//! A server in this process on a port of its own, calls to it, and small models made on the spot.
#![expect(dead_code, reason = "each test file uses a part of this")]
#![expect(clippy::unwrap_used, reason = "a helper of tests, which may panic")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says why")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::Full;
use kip_host::http_client::{self, Answer};
use kip_infer::{Error, Options, Runtime, Server};
use prost::Message;
use serde_json::Value;
use tract_onnx::pb;

/// A server that ends with the value.
pub(crate) struct RunningServer {
    pub(crate) address: SocketAddr,
    runtime: tokio::runtime::Runtime,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    serving: Option<tokio::task::JoinHandle<()>>,
}

pub(crate) fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits")
}

/// A file of the Python environment of the tests, which `cargo xtask test` makes.
pub(crate) fn venv(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv").join(path)
}

/// The library of ONNX Runtime in this environment. `None` leaves it to `KIPWAKE_ONNXRUNTIME` and the usual places.
pub(crate) fn onnxruntime_library() -> Option<PathBuf> {
    let versions = std::fs::read_dir(venv("lib")).ok()?.flatten();
    let mut folders = versions.map(|version| version.path().join("site-packages/onnxruntime/capi"));
    let files = folders.find_map(|folder| std::fs::read_dir(folder).ok())?.flatten();
    let is_library = |path: &PathBuf| path.to_string_lossy().contains("/libonnxruntime.so.");
    files.map(|file| file.path()).find(is_library)
}

/// Options for a model in ONNX Runtime.
pub(crate) fn in_onnxruntime(model: &Path) -> Options {
    let onnxruntime_library = onnxruntime_library();
    Options { runtime: Runtime::OnnxRuntime, onnxruntime_library, ..Options::new(model) }
}

/// Options for a model in tract, and in ONNX Runtime where it is found.
pub(crate) fn runtimes(model: &Path) -> Vec<Options> {
    let onnxruntime = in_onnxruntime(model);
    if let Err(Error::RuntimeMissing { reason }) = start(onnxruntime.clone()).map(drop) {
        println!("skipped: ONNX Runtime is not here ({reason}); set KIPWAKE_ONNXRUNTIME");
        return vec![options(model)];
    }
    vec![options(model), onnxruntime]
}

/// Options for a model in tract, whatever the machine has.
pub(crate) fn options(model: &Path) -> Options {
    Options { runtime: Runtime::Tract, ..Options::new(model) }
}

pub(crate) fn start(options: Options) -> Result<RunningServer, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start(&options))?;
    let address = server.address().unwrap();
    let (end, ended) = tokio::sync::oneshot::channel();
    let serving = kip_host::tasks::spawn_on(
        runtime.handle(),
        "test server",
        server.serve(async move {
            let _ = ended.await;
        }),
    );
    Ok(RunningServer { address, runtime, end: Some(end), serving: Some(serving) })
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(serving) = self.serving.take() {
            self.runtime.block_on(serving).unwrap();
        }
    }
}

impl RunningServer {
    pub(crate) fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let address = self.address.to_string();
        self.runtime.block_on(http_client::call(&address, request, Duration::from_secs(60))).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], "")
    }

    pub(crate) fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.call(Method::POST, path, &[("content-type", "application/json")], body)
    }

    /// Where the test may spawn calls.
    pub(crate) fn handle(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// Runs futures of the test on the server's runtime.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}

pub(crate) fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no JSON: {:?}", answer.body))
}

/// Status, code and text of an error answer in the form for KServe clients.
pub(crate) fn refusal(answer: &Answer) -> (u16, String, String) {
    let code = header(&answer.headers, "x-kip-error");
    (answer.status, code, json(answer)["error"].as_str().unwrap().to_owned())
}

pub(crate) fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// An element type of ONNX.
pub(crate) type Kind = pb::tensor_proto::DataType;

/// An input or output: -1 for a free dimension with the name `batch`.
pub(crate) fn port(name: &str, kind: Kind, shape: &[i64]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = shape
        .iter()
        .map(|length| Dimension {
            value: Some(if *length < 0 { Value::DimParam("batch".to_owned()) } else { Value::DimValue(*length) }),
            ..Dimension::default()
        })
        .collect();
    let tensor = pb::type_proto::Tensor { elem_type: kind as i32, shape: Some(pb::TensorShapeProto { dim }) };
    let kind = pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), ..pb::TypeProto::default() };
    pb::ValueInfoProto { name: name.to_owned(), r#type: Some(kind), ..pb::ValueInfoProto::default() }
}

pub(crate) fn node(operator: &str, inputs: &[&str], output: &str) -> pb::NodeProto {
    pb::NodeProto {
        op_type: operator.to_owned(),
        name: output.to_owned(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..pb::NodeProto::default()
    }
}

/// Writes a model to a folder and answers the folder.
pub(crate) fn model(
    nodes: Vec<pb::NodeProto>,
    inputs: Vec<pb::ValueInfoProto>,
    outputs: Vec<pb::ValueInfoProto>,
    card: Option<&str>,
) -> tempfile::TempDir {
    model_with(nodes, inputs, outputs, Vec::new(), card)
}

/// The same, with weights.
pub(crate) fn model_with(
    nodes: Vec<pb::NodeProto>,
    inputs: Vec<pb::ValueInfoProto>,
    outputs: Vec<pb::ValueInfoProto>,
    weights: Vec<pb::TensorProto>,
    card: Option<&str>,
) -> tempfile::TempDir {
    let graph = pb::GraphProto {
        name: "test".to_owned(),
        node: nodes,
        input: inputs,
        output: outputs,
        initializer: weights,
        ..pb::GraphProto::default()
    };
    let model = pb::ModelProto {
        ir_version: 8,
        opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: 13 }],
        graph: Some(graph),
        ..pb::ModelProto::default()
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("test.onnx"), model.encode_to_vec()).unwrap();
    if let Some(card) = card {
        std::fs::write(folder.path().join("model.json"), card).unwrap();
    }
    folder
}

/// `sum = a + b`, rows of two, named `test`.
pub(crate) fn adder() -> tempfile::TempDir {
    model(
        vec![node("Add", &["a", "b"], "sum"), node("Mul", &["a", "b"], "product")],
        vec![port("a", Kind::Float, &[-1, 2]), port("b", Kind::Float, &[-1, 2])],
        vec![port("sum", Kind::Float, &[-1, 2]), port("product", Kind::Float, &[-1, 2])],
        None,
    )
}
