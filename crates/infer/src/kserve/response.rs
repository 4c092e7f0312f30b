//! Metadata, statistics and inference answers.

use bytes::{Bytes, BytesMut};
use http::header::HeaderValue;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Value, json};

use super::HEADER_LENGTH;
use super::request::RequestedOutput;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::http::answer;
use crate::json::FlatData;
use crate::served::{LoadedModel, VERSION};
use crate::tensor::Tensor;

#[derive(Serialize)]
struct WireResponse<'a> {
    model_name: &'a str,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    parameters: Value,
    outputs: Vec<WireOutput<'a>>,
}

#[derive(Serialize)]
struct WireOutput<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<FlatData<'a>>,
}

/// The answer to `GET /v2/models/{name}`.
pub(super) fn metadata(served: &LoadedModel) -> Value {
    json!({
        "name": served.name,
        "versions": [VERSION],
        "platform": format!("onnx_{}", served.runtime),
        "inputs": served.description.inputs,
        "outputs": served.description.outputs,
        "parameters": { "runtime": served.runtime, "runtime_version": served.runtime_version, "max_batch": served.max_batch },
    })
}

/// The answer to `GET /v2/models/{name}/stats`.
pub(super) fn statistics(served: &LoadedModel) -> Value {
    let counts = served.batcher.statistics().counts();
    let sizes: Vec<Value> =
        counts.by_size.iter().map(|(size, count)| json!({ "batch_size": size, "compute_infer": count })).collect();
    json!({ "model_stats": [{
        "name": served.name,
        "version": VERSION,
        "inference_count": counts.rows,
        "execution_count": counts.succeeded.count,
        "inference_stats": { "compute_infer": counts.succeeded, "fail": counts.failed },
        "batch_stats": sizes,
    }] })
}

/// The answer to an inference request.
///
/// # Errors
/// When an output has strings that JSON cannot express.
pub(super) fn infer(
    served: &LoadedModel,
    id: Option<&str>,
    wanted: &[RequestedOutput],
    outputs: &[Tensor],
) -> Result<Response<Full<Bytes>>, Error> {
    let ports = &served.description.outputs;
    let chosen =
        || wanted.iter().filter_map(|wanted| Some((wanted, ports.get(wanted.index)?, outputs.get(wanted.index)?)));
    let is_text = |tensor: &Tensor| {
        tensor.datatype() != Datatype::Bytes || tensor.strings().all(|string| std::str::from_utf8(string).is_ok())
    };
    if let Some((_, port, _)) = chosen().find(|(wanted, _, tensor)| !wanted.binary && !is_text(tensor)) {
        return Err(Error::Unreadable {
            message: format!("the output `{}` has strings that are not UTF-8, which JSON cannot express", port.name),
            hint: Some(
                "ask for it as binary data: `binary_data` of the output, or `binary_data_output` of the request",
            ),
        });
    }
    let wire = WireResponse {
        model_name: &served.name,
        model_version: VERSION,
        id,
        parameters: json!({ "runtime": served.runtime }),
        outputs: chosen()
            .map(|(wanted, port, tensor)| WireOutput {
                name: &port.name,
                datatype: tensor.datatype().name(),
                shape: tensor.shape(),
                parameters: wanted.binary.then(|| json!({ "binary_data_size": tensor.bytes().len() })),
                data: (!wanted.binary).then_some(FlatData(tensor)),
            })
            .collect(),
    };
    if !wanted.iter().any(|wanted| wanted.binary) {
        return Ok(answer::json(StatusCode::OK, &wire));
    }
    let header = serde_json::to_vec(&wire).unwrap_or_default();
    let length = HeaderValue::from(header.len());
    let mut body = BytesMut::from(header.as_slice());
    chosen().filter(|(wanted, ..)| wanted.binary).for_each(|(_, _, tensor)| body.extend_from_slice(tensor.bytes()));
    let kind = HeaderValue::from_static("application/octet-stream");
    let mut response = answer::with_type(StatusCode::OK, kind, body);
    response.headers_mut().insert(HEADER_LENGTH, length);
    Ok(response)
}
