//! What an ONNX file says of its model: inputs, outputs, operators. Read once, whichever runtime executes it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimensionValue;
use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto, type_proto};

use crate::datatype::Datatype;
use crate::error::Error;
use crate::tensor::Tensor;

/// One dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dimension {
    Fixed(usize),
    /// Any length, but the same wherever the name occurs.
    Named(String),
    Any,
}

/// An input or output.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<Dimension>,
}

/// What the file says of the model.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) operators: BTreeSet<String>,
    /// Whether the first dimension of every input and output counts rows.
    pub(crate) has_rows: bool,
    /// Whether rows of several requests may be run as one.
    pub(crate) batches: bool,
    /// Whether the runtime takes strings in UTF-8 only; others take any bytes.
    pub(crate) only_text: bool,
}

impl Serialize for Port {
    /// As in the metadata of the protocol: -1 for a dimension that is not fixed.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let shape: Vec<i64> = self.shape.iter().map(|dimension| dimension.fixed().map_or(-1, signed)).collect();
        let mut port = serializer.serialize_struct("Port", 3)?;
        port.serialize_field("name", &self.name)?;
        port.serialize_field("datatype", self.datatype.name())?;
        port.serialize_field("shape", &shape)?;
        port.end()
    }
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

impl Dimension {
    pub(crate) fn fixed(&self) -> Option<usize> {
        match self {
            Self::Fixed(length) => Some(*length),
            Self::Named(_) | Self::Any => None,
        }
    }
}

impl Port {
    /// The shape of one row, if all of it is fixed.
    pub(crate) fn row_shape(&self) -> Option<Vec<usize>> {
        self.shape.get(1..)?.iter().map(Dimension::fixed).collect()
    }

    fn accepts(&self, shape: &[usize]) -> bool {
        shape.len() == self.shape.len()
            && self.shape.iter().zip(shape).all(|(wanted, given)| wanted.fixed().is_none_or(|wanted| wanted == *given))
    }

    fn shape_text(&self) -> String {
        let dimensions: Vec<String> = self
            .shape
            .iter()
            .map(|dimension| match dimension {
                Dimension::Fixed(length) => length.to_string(),
                Dimension::Named(name) => name.clone(),
                Dimension::Any => "any".to_owned(),
            })
            .collect();
        format!("[{}]", dimensions.join(", "))
    }

    /// Whether a tensor may be given here.
    pub(crate) fn check(&self, tensor: &Tensor, only_text: bool) -> Result<(), Error> {
        let name = &self.name;
        if tensor.datatype() != self.datatype {
            let (wanted, given) = (self.datatype, tensor.datatype());
            return Err(Error::Type(format!("input `{name}` takes {wanted}, not {given}")));
        }
        if !self.accepts(tensor.shape()) {
            let (wanted, given) = (self.shape_text(), tensor.shape());
            return Err(Error::Shape(format!("input `{name}` takes the shape {wanted}, not {given:?}")));
        }
        if only_text
            && tensor.datatype() == Datatype::Bytes
            && let Some(at) = tensor.strings().position(|text| std::str::from_utf8(text).is_err())
        {
            return Err(Error::Type(format!(
                "input `{name}`: element {at} is not UTF-8; tract takes strings in UTF-8 only, ONNX Runtime takes any bytes"
            )));
        }
        if tensor.shape().contains(&0) {
            return Err(Error::Shape(format!("input `{name}` is empty: its shape is {:?}", tensor.shape())));
        }
        Ok(())
    }
}

impl Description {
    /// Reads it from the file's content.
    pub(crate) fn of(model: &ModelProto) -> Result<Self, String> {
        let graph = model.graph.as_ref().ok_or("it has no graph; is it an ONNX file?")?;
        let weights: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        let inputs: Vec<Port> = graph
            .input
            .iter()
            .filter(|input| !weights.contains(input.name.as_str()))
            .map(|input| port(input, "input"))
            .collect::<Result<_, _>>()?;
        let outputs: Vec<Port> = graph.output.iter().map(|output| port(output, "output")).collect::<Result<_, _>>()?;
        if inputs.is_empty() || outputs.is_empty() {
            return Err("it has no inputs or no outputs".to_owned());
        }
        let mut operators = BTreeSet::new();
        collect_operators(graph, &mut operators);
        let has_rows = has_batch_dimension(&inputs, &outputs);
        Ok(Self { inputs, outputs, operators, has_rows, batches: has_rows, only_text: false })
    }

    /// Operators that tract runs more than a thousand times slower than ONNX Runtime.
    pub(crate) fn tree_ensembles(&self) -> Vec<&str> {
        self.operators.iter().filter(|name| name.starts_with("TreeEnsemble")).map(String::as_str).collect()
    }

    /// Whether these may be given as the model's inputs, in its order.
    pub(crate) fn check(&self, inputs: &[Tensor]) -> Result<(), Error> {
        let mut lengths: BTreeMap<&str, usize> = BTreeMap::new();
        for (port, tensor) in self.inputs.iter().zip(inputs) {
            port.check(tensor, self.only_text)?;
            for (dimension, length) in port.shape.iter().zip(tensor.shape()) {
                let Dimension::Named(name) = dimension else { continue };
                let first = *lengths.entry(name).or_insert(*length);
                if first != *length {
                    let text =
                        format!("the inputs disagree about `{name}`: it is {first} and, in `{}`, {length}", port.name);
                    return Err(Error::Shape(text));
                }
            }
        }
        Ok(())
    }

    /// The rows of a set of inputs, if they may join a batch.
    pub(crate) fn rows(&self, inputs: &[Tensor]) -> Option<usize> {
        let rows = inputs.first()?.rows();
        (self.batches && inputs.iter().all(|input| input.rows() == rows)).then_some(rows)
    }
}

fn port(value: &ValueInfoProto, what: &str) -> Result<Port, String> {
    let name = &value.name;
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return Err(format!(
            "its {what} `{name}` is no tensor but a sequence or map; export it without (skl2onnx: zipmap=False)"
        ));
    };
    let datatype = datatype(tensor.elem_type).ok_or_else(|| {
        format!("its {what} `{name}` has the element type {}, which is not supported", tensor.elem_type)
    })?;
    let shape = tensor.shape.iter().flat_map(|shape| &shape.dim).map(|dimension| match &dimension.value {
        Some(DimensionValue::DimValue(length)) => usize::try_from(*length).map_or(Dimension::Any, Dimension::Fixed),
        Some(DimensionValue::DimParam(name)) if !name.is_empty() && name != "?" => Dimension::Named(name.clone()),
        _ => Dimension::Any,
    });
    Ok(Port { name: name.clone(), datatype, shape: shape.collect() })
}

fn datatype(element: i32) -> Option<Datatype> {
    Some(match DataType::try_from(element).ok()? {
        DataType::Bool => Datatype::Bool,
        DataType::Uint8 => Datatype::Uint8,
        DataType::Uint16 => Datatype::Uint16,
        DataType::Uint32 => Datatype::Uint32,
        DataType::Uint64 => Datatype::Uint64,
        DataType::Int8 => Datatype::Int8,
        DataType::Int16 => Datatype::Int16,
        DataType::Int32 => Datatype::Int32,
        DataType::Int64 => Datatype::Int64,
        DataType::Float16 => Datatype::Fp16,
        DataType::Float => Datatype::Fp32,
        DataType::Double => Datatype::Fp64,
        DataType::String => Datatype::Bytes,
        _ => return None,
    })
}

/// The first dimension is one of rows when it is free in all inputs and outputs and, where it has a name, has the same
/// one everywhere. A lone free dimension is more likely a length, so inputs need another one.
fn has_batch_dimension(inputs: &[Port], outputs: &[Port]) -> bool {
    let ports = || inputs.iter().chain(outputs);
    let names: BTreeSet<&str> = ports()
        .filter_map(|port| match port.shape.first() {
            Some(Dimension::Named(name)) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let free = |port: &Port| port.shape.first().is_some_and(|dimension| dimension.fixed().is_none());
    ports().all(free) && names.len() <= 1 && inputs.iter().all(|input| input.shape.len() > 1)
}

fn collect_operators(graph: &GraphProto, into: &mut BTreeSet<String>) {
    for node in &graph.node {
        into.insert(node.op_type.clone());
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).for_each(|inner| collect_operators(inner, into));
        }
    }
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{NodeProto, TypeProto};

    use super::*;

    fn port_of(name: &str, shape: Vec<Dimension>) -> Port {
        Port { name: name.to_owned(), datatype: Datatype::Fp32, shape }
    }

    fn named(name: &str) -> Dimension {
        Dimension::Named(name.to_owned())
    }

    #[test]
    fn which_first_dimension_counts_rows() {
        let row = || Dimension::Fixed(4);
        let has = |input: Vec<Dimension>, output: Vec<Dimension>| {
            has_batch_dimension(&[port_of("x", input)], &[port_of("y", output)])
        };
        assert!(has(vec![named("N"), row()], vec![named("N")]));
        assert!(has(vec![Dimension::Any, row()], vec![Dimension::Any, row()]), "without names, as skl2onnx writes it");
        assert!(!has(vec![named("N"), row()], vec![named("M"), row()]), "another name is another length");
        assert!(!has(vec![Dimension::Fixed(1), row()], vec![Dimension::Any]));
        assert!(!has(vec![named("N")], vec![named("N")]), "a lone free dimension is a length");
        assert!(!has(vec![named("N"), row()], vec![]), "a scalar output mixes the rows");
    }

    #[test]
    fn tree_ensembles_are_seen_and_outputs_that_are_no_tensors_refused() {
        let float = i32::from(DataType::Float);
        let tensor = type_proto::Tensor { elem_type: float, shape: None };
        let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
        let value = |name: &str, kind: Option<TypeProto>| ValueInfoProto {
            name: name.to_owned(),
            r#type: kind,
            ..ValueInfoProto::default()
        };
        let node = NodeProto { op_type: "TreeEnsembleClassifier".to_owned(), ..NodeProto::default() };
        let mut graph = GraphProto {
            node: vec![node],
            input: vec![value("x", Some(kind.clone()))],
            output: vec![value("y", Some(kind))],
            ..GraphProto::default()
        };
        let model = |graph: &GraphProto| ModelProto { graph: Some(graph.clone()), ..ModelProto::default() };
        let description = Description::of(&model(&graph)).unwrap();
        assert_eq!(description.tree_ensembles(), ["TreeEnsembleClassifier"]);
        // The decoder knows tensors only, so a sequence or map comes as nothing.
        graph.output = vec![value("probabilities", Some(TypeProto::default()))];
        assert!(Description::of(&model(&graph)).unwrap_err().contains("zipmap=False"));
    }
}
