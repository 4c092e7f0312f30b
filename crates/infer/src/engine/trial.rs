//! One run with made-up inputs when a model is loaded: a model that fails each request is not ready.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};

use super::Engine;
use crate::datatype::Datatype;
use crate::description::{Description, Port};
use crate::tensor::{Tensor, element_count};

/// Lengths that are tried for dimensions that are free, until a run succeeds: some models need a certain length at least, or
/// a multiple of one.
const LENGTHS: [usize; 6] = [1, 4, 16, 32, 128, 224];
/// More elements than this are not tried.
const MOST: usize = 4 << 20;

/// Runs it until one run succeeds.
///
/// # Errors
/// What every run said, if all said the same. Reasons that differ from length to length are no proof: the model may want lengths that
/// nobody can guess.
pub(super) fn run(engine: &dyn Engine, description: &Description) -> Result<(), String> {
    let free = description.inputs.iter().any(|input| input.shape.iter().any(|dimension| dimension.fixed().is_none()));
    let mut reasons = BTreeSet::new();
    for whole in [0, 1] {
        for length in LENGTHS.into_iter().take(if free { LENGTHS.len() } else { 1 }) {
            let of = |port| made_up(port, length, description.batches, whole);
            // None is too large to be tried, and so are those after it.
            let Some(inputs) = description.inputs.iter().map(of).collect::<Option<Vec<Tensor>>>() else { break };
            // Some operators panic where others fail, as the division of whole numbers by zero does.
            match catch_unwind(AssertUnwindSafe(|| engine.run(inputs))) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(reason)) => drop(reasons.insert(reason)),
                Err(_) => drop(reasons.insert("the run panics".to_owned())),
            }
        }
    }
    if reasons.len() > 1 {
        let reason = reasons.last().map(String::as_str).unwrap_or_default();
        tracing::warn!(reason, "the model failed at all trial runs with made-up inputs, for different reasons");
        return Ok(());
    }
    reasons.pop_first().map_or(Ok(()), Err)
}

/// Floats are zeros and strings empty; whole numbers are `whole`: an index that is zero is in every table, but some models divide by
/// their input. A mask of zeros hides everything, so masks are ones.
fn made_up(port: &Port, length: usize, batches: bool, whole: u8) -> Option<Tensor> {
    let row = |axis: usize| if axis == 0 && batches { 1 } else { length };
    let shape: Vec<usize> =
        port.shape.iter().enumerate().map(|(axis, dimension)| dimension.fixed().unwrap_or_else(|| row(axis))).collect();
    let count = element_count(&shape).filter(|count| *count <= MOST)?;
    if port.datatype == Datatype::Bytes {
        return Tensor::from_strings(shape, vec![&b""[..]; count].into_iter());
    }
    let width = port.datatype.width()?;
    let mut bytes = BytesMut::zeroed(count * width);
    if matches!(port.datatype, Datatype::Int64 | Datatype::Int32 | Datatype::Bool) {
        let value = if port.name.contains("mask") { 1 } else { whole };
        bytes.iter_mut().step_by(width).for_each(|byte| *byte = value);
    }
    Tensor::new(&port.name, port.datatype, shape, Bytes::from(bytes)).ok()
}
