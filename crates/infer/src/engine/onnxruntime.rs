//! ONNX Runtime, loaded from a shared library at run time. One library and one environment a process.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor as OrtTensor};
use parking_lot::Mutex;
use tract_onnx::prelude::f16;

use super::{Engine, unsafe_strings};
use crate::datatype::Datatype;
use crate::description::{Description, Port};
use crate::tensor::{Element, Tensor};

/// Why a model is not in ONNX Runtime.
pub(super) enum LoadError {
    Library(String),
    Model(String),
}

/// A model in ONNX Runtime.
pub(super) struct OnnxRuntimeEngine {
    /// A run takes the session alone; it uses all the threads it was given.
    session: Mutex<Session>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// Where a model is.
#[derive(Debug, Clone, Copy)]
pub(super) enum ModelSource<'a> {
    File(&'a Path),
    /// In memory, its weights included or in files of this folder.
    Content(&'a [u8], &'a Path),
}

/// The key of the folder with the weights of a model in memory.
const WEIGHTS_FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// Starts the library and loads a model. Answers the engine and the library's version.
pub(super) fn load(
    library: &Path,
    source: ModelSource<'_>,
    description: &Description,
    threads: NonZeroUsize,
) -> Result<(OnnxRuntimeEngine, String), LoadError> {
    let environment = environment(library).map_err(LoadError::Library)?;
    let minor = ort::util::probe(library).unwrap_or_default();
    let model = |error: &dyn std::fmt::Display| LoadError::Model(error.to_string());
    let mut builder = Session::builder(environment)
        .map_err(|error| model(&error))?
        .with_intra_threads(threads.get())
        .map_err(|error| model(&error))?
        // Threads that spin between runs would make an idle instance look busy.
        .with_intra_op_spinning(false)
        .map_err(|error| model(&error))?;
    let session = match source {
        ModelSource::File(file) => builder.commit_from_file(file),
        ModelSource::Content(content, weights) => builder
            .with_config_entry(WEIGHTS_FOLDER, weights.to_string_lossy())
            .map_err(|error| model(&error))?
            .commit_from_memory(content),
    };
    let session = session.map_err(|error| model(&error))?;
    let (inputs, outputs) = (description.inputs.clone(), description.outputs.clone());
    Ok((OnnxRuntimeEngine { session: Mutex::new(session), inputs, outputs }, format!("1.{minor}")))
}

/// The one environment of this process; the library of the first call stays.
fn environment(library: &Path) -> Result<&'static Environment, String> {
    static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();
    let made = ENVIRONMENT.get_or_init(|| {
        let builder = ort::init_from(library).map_err(|error| error.to_string())?;
        builder.with_telemetry(false).build().map_err(|error| error.to_string())
    });
    made.as_ref().map_err(Clone::clone)
}

impl Engine for OnnxRuntimeEngine {
    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        let values: Vec<(&str, SessionInputValue<'_>)> = self
            .inputs
            .iter()
            .zip(&inputs)
            .map(|(port, tensor)| Ok((port.name.as_str(), to_ort(tensor).map_err(|error| error.to_string())?.into())))
            .collect::<Result<_, String>>()?;
        let mut session = self.session.lock();
        let outputs = session.run(values).map_err(|error| error.to_string())?;
        self.outputs
            .iter()
            .map(|port| {
                let value = outputs.get(&port.name).ok_or_else(|| format!("it gave no output `{}`", port.name))?;
                from_ort(port, value)
            })
            .collect()
    }
}

fn to_ort(tensor: &Tensor) -> ort::Result<DynValue> {
    fn numbers<T: Element + PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static>(
        tensor: &Tensor,
    ) -> ort::Result<DynValue> {
        let elements: Vec<T> = tensor.elements::<T>().collect();
        Ok(OrtTensor::from_array((tensor.shape().to_vec(), elements))?.into_dyn())
    }
    match tensor.datatype() {
        Datatype::Bool => numbers::<bool>(tensor),
        Datatype::Uint8 => numbers::<u8>(tensor),
        Datatype::Uint16 => numbers::<u16>(tensor),
        Datatype::Uint32 => numbers::<u32>(tensor),
        Datatype::Uint64 => numbers::<u64>(tensor),
        Datatype::Int8 => numbers::<i8>(tensor),
        Datatype::Int16 => numbers::<i16>(tensor),
        Datatype::Int32 => numbers::<i32>(tensor),
        Datatype::Int64 => numbers::<i64>(tensor),
        Datatype::Fp16 => numbers::<f16>(tensor),
        Datatype::Fp32 => numbers::<f32>(tensor),
        Datatype::Fp64 => numbers::<f64>(tensor),
        Datatype::Bytes => {
            let strings: Vec<&[u8]> = tensor.strings().collect();
            unsafe_strings::tensor(tensor.shape(), &strings)
        }
    }
}

fn from_ort(port: &Port, value: &DynValue) -> Result<Tensor, String> {
    fn numbers<T: Element + PrimitiveTensorElementType>(value: &DynValue) -> ort::Result<Option<Tensor>> {
        let (shape, elements) = value.try_extract_tensor::<T>()?;
        Ok(lengths(shape).and_then(|shape| Tensor::from_elements(shape, elements.iter().copied())))
    }
    let tensor = match port.datatype {
        Datatype::Bool => numbers::<bool>(value),
        Datatype::Uint8 => numbers::<u8>(value),
        Datatype::Uint16 => numbers::<u16>(value),
        Datatype::Uint32 => numbers::<u32>(value),
        Datatype::Uint64 => numbers::<u64>(value),
        Datatype::Int8 => numbers::<i8>(value),
        Datatype::Int16 => numbers::<i16>(value),
        Datatype::Int32 => numbers::<i32>(value),
        Datatype::Int64 => numbers::<i64>(value),
        Datatype::Fp16 => numbers::<f16>(value),
        Datatype::Fp32 => numbers::<f32>(value),
        Datatype::Fp64 => numbers::<f64>(value),
        Datatype::Bytes => unsafe_strings::strings(value).map(|found| {
            let unsafe_strings::StringTensor { shape, strings } = found?;
            lengths(&shape).and_then(|shape| Tensor::from_strings(shape, strings.iter().map(Vec::as_slice)))
        }),
    };
    tensor
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("the output `{}` does not fit its own shape", port.name))
}

fn lengths(shape: &[i64]) -> Option<Vec<usize>> {
    shape.iter().map(|length| usize::try_from(*length).ok()).collect()
}
