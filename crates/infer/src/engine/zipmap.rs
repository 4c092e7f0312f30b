//! Classifiers as skl2onnx exports them: the scores are an output of type "sequence of maps", made by an operator `ZipMap`. Neither
//! protocol nor runtimes here have maps. The operator is replaced: the output is the tensor of scores, and the keys of the maps
//! become the labels of its columns.

use prost::Message as _;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, type_proto};

/// An output of scores and the classes of its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassScores {
    pub(crate) output: String,
    /// One for each column. Numbers are written as text.
    pub(crate) classes: Vec<String>,
    /// The output with the class that the model itself chooses.
    pub(crate) chosen: Option<String>,
}

/// What became of a model.
#[derive(Debug, Default)]
pub(super) struct Replacement {
    /// Whether the model differs from its file.
    pub(super) changed: bool,
    /// The output of scores, if there is exactly one.
    pub(super) scores: Option<ClassScores>,
}

/// Replaces the operators whose outputs are outputs of the model. Other outputs that are no tensors stay and are refused later.
pub(super) fn replace(model: &mut ModelProto) -> Replacement {
    let Some(graph) = model.graph.as_mut() else { return Replacement::default() };
    let rows = first_dimension(graph);
    let mut found = Vec::new();
    for node in &mut graph.node {
        let Some(output) = graph.output.iter_mut().find(|output| node.output.first() == Some(&output.name)) else {
            continue;
        };
        let Some(classes) = classes(node) else { continue };
        let columns = Dimension {
            value: i64::try_from(classes.len()).ok().map(dimension::Value::DimValue),
            ..Dimension::default()
        };
        output.r#type = Some(tensor(DataType::Float, vec![rows.clone(), columns]));
        found.push((output.name.clone(), classes));
        (node.op_type, node.domain) = ("Identity".to_owned(), String::new());
        node.attribute.clear();
    }
    if !found.is_empty() && model.opset_import.iter().all(|set| !set.domain.is_empty()) {
        model.opset_import.push(OperatorSetIdProto { domain: String::new(), version: 13 });
    }
    let changed = !found.is_empty();
    let only = found.pop().filter(|_| found.is_empty());
    let scores = only.map(|(output, classes)| {
        let others = model.graph.iter().flat_map(|graph| &graph.output).filter(|other| other.name != output);
        let chosen = others.into_iter().find(|other| is_column(other)).map(|other| other.name.clone());
        ClassScores { output, classes, chosen }
    });
    Replacement { changed, scores }
}

/// The keys of the maps of a `ZipMap`.
fn classes(node: &NodeProto) -> Option<Vec<String>> {
    if node.op_type != "ZipMap" || node.domain != "ai.onnx.ml" {
        return None;
    }
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let texts = attribute("classlabels_strings")
        .map(|labels| {
            labels.strings.iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect::<Vec<_>>()
        })
        .filter(|labels| !labels.is_empty());
    texts.or_else(|| attribute("classlabels_int64s").map(|labels| labels.ints.iter().map(i64::to_string).collect()))
}

/// The number of rows, as the first input has it.
fn first_dimension(graph: &GraphProto) -> Dimension {
    let is_weight = |name: &str| graph.initializer.iter().any(|weight| weight.name == name);
    let input = graph.input.iter().find(|input| !is_weight(&input.name));
    let shape = input.and_then(|input| match input.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => tensor.shape.as_ref(),
    });
    shape.and_then(|shape| shape.dim.first()).cloned().unwrap_or_default()
}

fn tensor(kind: DataType, dim: Vec<Dimension>) -> TypeProto {
    let tensor = type_proto::Tensor { elem_type: kind as i32, shape: Some(TensorShapeProto { dim }) };
    TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }
}

/// Whether an output has one text or whole number for each row.
fn is_column(output: &tract_onnx::pb::ValueInfoProto) -> bool {
    let Some(type_proto::Value::TensorType(tensor)) = output.r#type.as_ref().and_then(|kind| kind.value.as_ref())
    else {
        return false;
    };
    let is_label = [DataType::Int64 as i32, DataType::String as i32].contains(&tensor.elem_type);
    is_label && tensor.shape.as_ref().is_none_or(|shape| shape.dim.len() <= 1)
}

/// The model as a file's content.
pub(super) fn encoded(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{AttributeProto, ValueInfoProto};

    use super::*;

    fn value(name: &str, kind: Option<TypeProto>) -> ValueInfoProto {
        ValueInfoProto { name: name.to_owned(), r#type: kind, ..ValueInfoProto::default() }
    }

    fn zipmap(from: &str, to: &str) -> NodeProto {
        let labels =
            AttributeProto { name: "classlabels_int64s".to_owned(), ints: vec![3, 7], ..AttributeProto::default() };
        NodeProto {
            op_type: "ZipMap".to_owned(),
            domain: "ai.onnx.ml".to_owned(),
            input: vec![from.to_owned()],
            output: vec![to.to_owned()],
            attribute: vec![labels],
            ..NodeProto::default()
        }
    }

    #[test]
    fn the_one_output_of_maps_becomes_a_tensor_and_two_have_no_labels() {
        let rows = Dimension { value: Some(dimension::Value::DimParam("N".to_owned())), ..Dimension::default() };
        let graph = GraphProto {
            node: vec![zipmap("scores", "probability")],
            input: vec![value("x", Some(tensor(DataType::Float, vec![rows.clone(), Dimension::default()])))],
            output: vec![
                value("label", Some(tensor(DataType::Int64, vec![Dimension::default()]))),
                value("probability", Some(TypeProto::default())),
            ],
            ..GraphProto::default()
        };
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let mut two = model.clone();
        let scores = replace(&mut model).scores.unwrap();
        assert_eq!(scores.classes, ["3", "7"]);
        assert_eq!((scores.output.as_str(), scores.chosen.as_deref()), ("probability", Some("label")));
        let graph = model.graph.as_ref().unwrap();
        assert_eq!((graph.node[0].op_type.as_str(), graph.node[0].attribute.len()), ("Identity", 0));
        let Some(type_proto::Value::TensorType(made)) = graph.output[1].r#type.as_ref().unwrap().value.as_ref() else {
            panic!("no tensor");
        };
        assert_eq!(made.shape.as_ref().unwrap().dim[0], rows);
        assert_eq!(model.opset_import.len(), 1, "Identity is of the main set");
        let graph = two.graph.as_mut().unwrap();
        graph.node.push(zipmap("others", "second"));
        graph.output.push(value("second", Some(TypeProto::default())));
        let replacement = replace(&mut two);
        assert!(replacement.changed && replacement.scores.is_none(), "{replacement:?}");
        assert!(two.graph.unwrap().node.iter().all(|node| node.op_type == "Identity"));
    }
}
