//! Inference requests: JSON, or JSON followed by binary tensors.

use bytes::Bytes;
use serde::Deserialize;

use crate::datatype::Datatype;
use crate::description::Description;
use crate::error::Error;
use crate::json::Data;
use crate::tensor::Tensor;

/// A request that fits the model.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: Option<String>,
    /// In the model's order.
    pub(super) inputs: Vec<Tensor>,
    /// In the order asked for.
    pub(super) outputs: Vec<RequestedOutput>,
}

/// An output that was asked for.
#[derive(Debug)]
pub(super) struct RequestedOutput {
    /// Its place among the model's outputs.
    pub(super) index: usize,
    pub(super) binary: bool,
}

#[derive(Deserialize)]
struct WireRequest {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: RequestParameters,
    inputs: Vec<WireInput>,
    #[serde(default)]
    outputs: Vec<WireOutput>,
}

#[derive(Deserialize, Default)]
struct RequestParameters {
    #[serde(default)]
    binary_data_output: bool,
    #[serde(default)]
    sequence_id: Option<serde_json::Value>,
    #[serde(default)]
    sequence_start: Option<serde_json::Value>,
    #[serde(default)]
    sequence_end: Option<serde_json::Value>,
}

impl RequestParameters {
    /// A part of a sequence must go to the instance that has the others, with what it remembers of them: no such thing is here.
    fn check(&self) -> Result<(), Error> {
        // Clients send 0 and false where they mean none.
        let says = |value: &Option<serde_json::Value>| match value {
            None | Some(serde_json::Value::Null | serde_json::Value::Bool(false)) => false,
            Some(serde_json::Value::Number(number)) => number.as_u64() != Some(0),
            Some(serde_json::Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        if [&self.sequence_id, &self.sequence_start, &self.sequence_end].into_iter().any(says) {
            return Err(Error::Unreadable {
                message: "the request is part of a sequence, which this server does not have".to_owned(),
                hint: Some("GET /v2 lists the extensions"),
            });
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct WireInput {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: TensorParameters,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize)]
struct WireOutput {
    name: String,
    #[serde(default)]
    parameters: TensorParameters,
}

#[derive(Deserialize, Default)]
struct TensorParameters {
    #[serde(default)]
    binary_data_size: Option<usize>,
    #[serde(default)]
    binary_data: Option<bool>,
    #[serde(default)]
    classification: Option<serde_json::Value>,
    #[serde(default)]
    shared_memory_region: Option<serde_json::Value>,
}

impl TensorParameters {
    fn check(&self, name: &str) -> Result<(), Error> {
        let unknown = match (&self.classification, &self.shared_memory_region) {
            (Some(_), _) => "the classification extension",
            (_, Some(_)) => "shared memory",
            (None, None) => return Ok(()),
        };
        Err(Error::Unreadable {
            message: format!("`{name}` asks for {unknown}, which this server does not have"),
            hint: Some("GET /v2 lists the extensions"),
        })
    }
}

impl Request {
    /// Reads a body. With `header_length`, binary tensors follow after so many bytes of JSON.
    pub(super) fn read(description: &Description, body: &Bytes, header_length: Option<usize>) -> Result<Self, Error> {
        let json_length = header_length.unwrap_or(body.len());
        let request: WireRequest =
            serde_json::from_slice(&body[..json_length]).map_err(|error| Error::unreadable_json(&error))?;
        request.parameters.check()?;
        let mut binary = body.slice(json_length..);
        let mut inputs: Vec<Option<Tensor>> = vec![None; description.inputs.len()];
        for input in request.inputs {
            let name = input.name.clone();
            let Some(index) = description.inputs.iter().position(|port| port.name == name) else {
                let known = names(description.inputs.iter().map(|port| port.name.as_str()));
                return Err(Error::Shape(format!("the model has no input `{name}`; it has {known}")));
            };
            if inputs[index].is_some() {
                return Err(Error::Shape(format!("input `{name}` is given twice")));
            }
            inputs[index] = Some(tensor(input, &mut binary, header_length.is_some())?);
        }
        if !binary.is_empty() {
            let left = binary.len();
            return Err(Error::Shape(format!("{left} bytes follow after the last binary tensor")));
        }
        let inputs = inputs
            .into_iter()
            .zip(&description.inputs)
            .map(|(input, port)| input.ok_or_else(|| Error::Shape(format!("input `{}` is missing", port.name))))
            .collect::<Result<_, _>>()?;
        let outputs = wanted(description, &request.outputs, request.parameters.binary_data_output)?;
        Ok(Self { id: request.id, inputs, outputs })
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn tensor(input: WireInput, binary: &mut Bytes, has_binary_part: bool) -> Result<Tensor, Error> {
    let name = &input.name;
    input.parameters.check(name)?;
    let datatype = Datatype::parse(&input.datatype).ok_or_else(|| {
        Error::Type(format!("input `{name}` has the datatype `{}`, which is not one of the protocol", input.datatype))
    })?;
    let shape: Vec<usize> =
        input.shape.iter().map(|length| usize::try_from(*length)).collect::<Result<_, _>>().map_err(|_| {
            Error::Shape(format!("input `{name}` has the shape {:?}; lengths are not negative", input.shape))
        })?;
    match (input.data, input.parameters.binary_data_size) {
        (Some(data), None) => data.into_tensor(name, datatype, shape),
        (None, Some(size)) => {
            if !has_binary_part {
                let text =
                    format!("input `{name}` is binary, but the header Inference-Header-Content-Length is missing");
                return Err(Error::unreadable(text));
            }
            if size > binary.len() {
                let left = binary.len();
                return Err(Error::Shape(format!("input `{name}` says {size} bytes, but only {left} follow")));
            }
            Tensor::new(name, datatype, shape, binary.split_to(size))
        }
        (Some(_), Some(_)) => Err(Error::unreadable(format!("input `{name}` has both JSON and binary data"))),
        (None, None) => Err(Error::unreadable(format!("input `{name}` has no data"))),
    }
}

fn wanted(description: &Description, asked: &[WireOutput], binary: bool) -> Result<Vec<RequestedOutput>, Error> {
    if asked.is_empty() {
        return Ok((0..description.outputs.len()).map(|index| RequestedOutput { index, binary }).collect());
    }
    asked
        .iter()
        .map(|output| {
            output.parameters.check(&output.name)?;
            let index = description.outputs.iter().position(|port| port.name == output.name).ok_or_else(|| {
                let known = names(description.outputs.iter().map(|port| port.name.as_str()));
                Error::Shape(format!("the model has no output `{}`; it has {known}", output.name))
            })?;
            Ok(RequestedOutput { index, binary: output.parameters.binary_data.unwrap_or(binary) })
        })
        .collect()
}
