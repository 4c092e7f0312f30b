//! Classifiers whose classes are texts, for tract, whose classifiers have numbers only: the classes are numbered, and the numbers
//! become texts again behind the model.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto, attribute_proto::AttributeType, type_proto};

use super::Engine;
use crate::datatype::Datatype;
use crate::description::Description;
use crate::tensor::Tensor;

/// Operators that pass labels on as they are.
const PASSING: [&str; 6] = ["Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"];

/// The classes of each output that has numbers in place of texts.
pub(super) type Numbered = BTreeMap<usize, Vec<String>>;

/// Numbers the classes of classifiers whose labels are outputs of the model and nothing else.
pub(super) fn number(model: &mut ModelProto, description: &mut Description) -> Numbered {
    let mut numbered = Numbered::new();
    let Some(graph) = model.graph.as_mut() else { return numbered };
    let classifiers: Vec<(usize, Vec<String>)> =
        graph.node.iter().enumerate().filter_map(|(at, node)| Some((at, classes(node)?))).collect();
    for (at, classes) in classifiers {
        let mut names: BTreeSet<String> = graph.node[at].output.first().cloned().into_iter().collect();
        // Nodes are in the order of their inputs.
        let followers: Vec<usize> = (0..graph.node.len())
            .filter(|place| {
                let node = &graph.node[*place];
                let follows = node.input.iter().any(|input| names.contains(input));
                if follows {
                    names.extend(node.output.iter().cloned());
                }
                follows
            })
            .collect();
        if followers.iter().any(|place| !PASSING.contains(&graph.node[*place].op_type.as_str())) {
            continue;
        }
        relabel(&mut graph.node[at], classes.len());
        for place in followers {
            graph.node[place].attribute.iter_mut().filter(|one| one.name == "to").for_each(|to| to.i = INT64);
        }
        for output in graph.output.iter_mut().filter(|output| names.contains(&output.name)) {
            let Some(port) = description.outputs.iter().position(|port| port.name == output.name) else { continue };
            if let Some(type_proto::Value::TensorType(tensor)) =
                output.r#type.as_mut().and_then(|kind| kind.value.as_mut())
            {
                tensor.elem_type = DataType::Int64 as i32;
            }
            description.outputs[port].datatype = Datatype::Int64;
            numbered.insert(port, classes.clone());
        }
    }
    numbered
}

const INT64: i64 = DataType::Int64 as i64;

/// The classes of a classifier that has texts.
fn classes(node: &NodeProto) -> Option<Vec<String>> {
    if !matches!(node.op_type.as_str(), "LinearClassifier" | "TreeEnsembleClassifier") {
        return None;
    }
    let texts = node.attribute.iter().find(|attribute| attribute.name == "classlabels_strings")?;
    Some(texts.strings.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
}

fn relabel(node: &mut NodeProto, count: usize) {
    let name = if node.op_type == "LinearClassifier" { "classlabels_ints" } else { "classlabels_int64s" };
    node.attribute.retain(|attribute| !attribute.name.starts_with("classlabels_"));
    node.attribute.push(AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: (0..i64::try_from(count).unwrap_or_default()).collect(),
        ..AttributeProto::default()
    });
}

/// An engine whose numbers become texts.
pub(super) struct Named<E> {
    pub(super) engine: E,
    pub(super) classes: Numbered,
}

impl<E: Engine> Engine for Named<E> {
    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        let mut outputs = self.engine.run(inputs)?;
        for (place, classes) in &self.classes {
            let Some(output) = outputs.get_mut(*place) else { continue };
            let name =
                |number: i64| usize::try_from(number).ok().and_then(|number| classes.get(number)).map(String::as_bytes);
            let names: Option<Vec<&[u8]>> = output.elements::<i64>().map(name).collect();
            let names = names.and_then(|names| Tensor::from_strings(output.shape().to_vec(), names.into_iter()));
            *output = names.ok_or("a label is none of the classes")?;
        }
        Ok(outputs)
    }
}
