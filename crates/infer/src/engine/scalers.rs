//! `Scaler` of scikit-learn's exports, for tract, which does not have it: a subtraction and a product.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto, TensorProto, attribute_proto::AttributeType};

/// Replaces each `Scaler` by `Cast`, `Sub` and `Mul`.
pub(super) fn replace(model: &mut ModelProto) {
    let Some(graph) = model.graph.as_mut() else { return };
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        let ends = node.input.first().cloned().zip(node.output.first().cloned());
        let is_scaler = node.op_type == "Scaler" && node.domain == "ai.onnx.ml";
        let (true, Some((input, output))) = (is_scaler, ends) else {
            nodes.push(node);
            continue;
        };
        let values = |name: &str, usual: f32| {
            let found = node.attribute.iter().find(|attribute| attribute.name == name);
            found.map(|found| found.floats.clone()).filter(|floats| !floats.is_empty()).unwrap_or_else(|| vec![usual])
        };
        let name = |part: &str| format!("{output}/kip_{part}");
        for (part, values) in [("offset", values("offset", 0.0)), ("scale", values("scale", 1.0))] {
            graph.initializer.push(TensorProto {
                name: name(part),
                data_type: DataType::Float as i32,
                dims: vec![i64::try_from(values.len()).unwrap_or_default()],
                float_data: values,
                ..TensorProto::default()
            });
        }
        let to = AttributeProto {
            name: "to".to_owned(),
            r#type: AttributeType::Int as i32,
            i: DataType::Float as i64,
            ..AttributeProto::default()
        };
        nodes.push(NodeProto { attribute: vec![to], ..operator("Cast", &[input], name("floats")) });
        nodes.push(operator("Sub", &[name("floats"), name("offset")], name("moved")));
        nodes.push(operator("Mul", &[name("moved"), name("scale")], output.clone()));
    }
    graph.node = nodes;
}

fn operator(kind: &str, inputs: &[String], output: String) -> NodeProto {
    NodeProto {
        op_type: kind.to_owned(),
        name: output.clone(),
        input: inputs.to_vec(),
        output: vec![output],
        ..NodeProto::default()
    }
}
