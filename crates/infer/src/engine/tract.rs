//! tract: built in, nothing to install, as fast as ONNX Runtime on small dense networks, slower on convolutions.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::tract_ndarray::{ArrayD, IxDyn};
use tract_onnx::prelude::{
    DatumType, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, IntoTValue, TDim, TValue,
    Tensor as TractTensor, ToDim, TractResult, TypedModel, TypedRunnableModel,
};

use super::{Engine, chain};
use crate::datatype::Datatype;
use crate::description::{Description, Dimension, Port};
use crate::tensor::Tensor;

/// The version that Cargo.toml of the workspace asks for.
pub(super) const VERSION: &str = "0.23";

/// Plans kept for shapes met before.
const KEPT_PLANS: usize = 8;

type Plan = Arc<TypedRunnableModel>;
type Shapes = Vec<Vec<usize>>;

/// A model in tract.
pub(super) struct TractEngine {
    outputs: Vec<Port>,
    plans: Plans,
}

enum Plans {
    /// One plan for any lengths of the free dimensions.
    Symbolic(Plan),
    /// Some models need their lengths to be planned: a plan for each set of shapes, the latest first.
    ByShape { model: Box<InferenceModel>, kept: Mutex<VecDeque<(Shapes, Plan)>> },
}

/// Reads and plans a model.
pub(super) fn load(proto: &ModelProto, file: &Path, description: &Description) -> Result<TractEngine, String> {
    let folder = file.parent().and_then(Path::to_str);
    let parsed = tract_onnx::onnx().parse(proto, folder).map_err(|error| chain(&*error))?;
    if !parsed.unresolved_inputs.is_empty() {
        return Err(format!("nothing produces {}", parsed.unresolved_inputs.join(", ")));
    }
    let model = parsed.model;
    let symbolic = with_shapes(model.clone(), description, &|port, axis| symbol(&model, description, port, axis));
    let plans = match symbolic.and_then(plan) {
        Ok(plan) => Plans::Symbolic(plan),
        Err(error) if description.inputs.iter().all(|input| input.shape.iter().all(|d| d.fixed().is_some())) => {
            return Err(chain(&*error));
        }
        Err(error) => {
            // Show now what cannot work with any lengths: unknown operators, mostly.
            let ones = with_shapes(model.clone(), description, &|port, axis| one_if_free(port, axis).to_dim());
            if let Err(concrete) = ones.and_then(plan).map(drop)
                && chain(&*concrete).contains("nimplemented")
            {
                return Err(chain(&*concrete));
            }
            tracing::info!(reason = %chain(&*error), "the model is planned anew for each set of input shapes");
            Plans::ByShape { model: Box::new(model), kept: Mutex::default() }
        }
    };
    Ok(TractEngine { outputs: description.outputs.clone(), plans })
}

fn plan(model: TypedModel) -> TractResult<Plan> {
    model.into_runnable()
}

fn with_shapes(
    mut model: InferenceModel,
    description: &Description,
    dimension: &dyn Fn(&Port, usize) -> TDim,
) -> TractResult<TypedModel> {
    for (index, port) in description.inputs.iter().enumerate() {
        let shape: Vec<TDim> = (0..port.shape.len()).map(|axis| dimension(port, axis)).collect();
        model.set_input_fact(index, InferenceFact::dt_shape(datum_type(port.datatype), &*shape))?;
    }
    // Declared output shapes may name dimensions otherwise than the inputs do; they are found out anyway.
    for output in 0..description.outputs.len() {
        model.set_output_fact(output, InferenceFact::default())?;
    }
    model.into_optimized()
}

fn symbol(model: &InferenceModel, description: &Description, port: &Port, axis: usize) -> TDim {
    match &port.shape[axis] {
        Dimension::Fixed(length) => length.to_dim(),
        _ if axis == 0 && description.batches => model.symbols.sym("kip_batch").to_dim(),
        Dimension::Named(name) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            model.symbols.sym(name).to_dim()
        }
        Dimension::Named(_) | Dimension::Any => model.symbols.sym(&format!("kip_{}_{axis}", port.name)).to_dim(),
    }
}

fn one_if_free(port: &Port, axis: usize) -> usize {
    port.shape[axis].fixed().unwrap_or(1)
}

impl TractEngine {
    fn plan_for(&self, inputs: &[Tensor]) -> Result<Plan, String> {
        let (model, kept) = match &self.plans {
            Plans::Symbolic(plan) => return Ok(Arc::clone(plan)),
            Plans::ByShape { model, kept } => (model, kept),
        };
        let shapes: Shapes = inputs.iter().map(|input| input.shape().to_vec()).collect();
        let lock = || kept.lock();
        if let Some((_, plan)) = lock().iter().find(|(known, _)| *known == shapes) {
            return Ok(Arc::clone(plan));
        }
        let mut model = (**model).clone();
        let describe = |error: tract_onnx::prelude::TractError| chain(&*error);
        for (index, input) in inputs.iter().enumerate() {
            let fact = InferenceFact::dt_shape(datum_type(input.datatype()), input.shape());
            model.set_input_fact(index, fact).map_err(describe)?;
        }
        for output in 0..self.outputs.len() {
            model.set_output_fact(output, InferenceFact::default()).map_err(describe)?;
        }
        let made = model.into_optimized().and_then(plan).map_err(describe)?;
        let mut kept = lock();
        kept.push_front((shapes, Arc::clone(&made)));
        kept.truncate(KEPT_PLANS);
        Ok(made)
    }
}

impl Engine for TractEngine {
    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        let plan = self.plan_for(&inputs)?;
        let values = inputs.iter().map(to_tract).collect::<TractResult<_>>().map_err(|error| chain(&*error))?;
        let outputs = plan.run(values).map_err(|error| chain(&*error))?;
        self.outputs.iter().zip(outputs).map(|(port, value)| from_tract(port, &value)).collect()
    }
}

fn datum_type(datatype: Datatype) -> DatumType {
    match datatype {
        Datatype::Bool => DatumType::Bool,
        Datatype::Uint8 => DatumType::U8,
        Datatype::Uint16 => DatumType::U16,
        Datatype::Uint32 => DatumType::U32,
        Datatype::Uint64 => DatumType::U64,
        Datatype::Int8 => DatumType::I8,
        Datatype::Int16 => DatumType::I16,
        Datatype::Int32 => DatumType::I32,
        Datatype::Int64 => DatumType::I64,
        Datatype::Fp16 => DatumType::F16,
        Datatype::Fp32 => DatumType::F32,
        Datatype::Fp64 => DatumType::F64,
        Datatype::Bytes => DatumType::String,
    }
}

// Bytes are copied as they are, and theirs is the wire's order.
const _: () = assert!(cfg!(target_endian = "little"), "the model server runs on little-endian machines only");

fn to_tract(tensor: &Tensor) -> TractResult<TValue> {
    if tensor.datatype() == Datatype::Bytes {
        // That they are text has been checked.
        let strings: Vec<String> = tensor.strings().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        let array = ArrayD::from_shape_vec(IxDyn(tensor.shape()), strings)?;
        return Ok(TractTensor::from(array).into_tvalue());
    }
    let mut value = TractTensor::zero_dt(datum_type(tensor.datatype()), tensor.shape())?;
    value.try_as_plain_ram_mut()?.as_bytes_mut().copy_from_slice(tensor.bytes());
    Ok(value.into_tvalue())
}

fn from_tract(port: &Port, value: &TValue) -> Result<Tensor, String> {
    let convert = || -> TractResult<Tensor> {
        let value = value.cast_to_dt(datum_type(port.datatype))?;
        let view = value.try_as_plain_ram()?;
        let shape = view.shape().to_vec();
        let tensor = if port.datatype == Datatype::Bytes {
            Tensor::from_strings(shape, view.as_slice::<String>()?.iter().map(String::as_bytes))
        } else {
            Tensor::new(&port.name, port.datatype, shape, Bytes::copy_from_slice(view.as_bytes())).ok()
        };
        Ok(tensor.ok_or_else(|| std::io::Error::other("an output does not fit its own shape"))?)
    };
    convert().map_err(|error| chain(&*error))
}
