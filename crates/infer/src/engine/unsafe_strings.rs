//! The unsafe part of strings in ONNX Runtime. The safe calls of its crate take texts that end at a zero byte and give texts in UTF-8;
//! these calls of the library take and give any bytes.
#![expect(unsafe_code, reason = "the library's calls with lengths have no safe form in its crate")]

use std::ffi::c_char;
use std::ptr;

use ort::value::{DynValue, Tensor as OrtTensor, TensorElementType, ValueType};
use ort::{AsPointer as _, ortsys};

/// A tensor of strings with any bytes.
pub(super) fn tensor(shape: &[usize], strings: &[&[u8]]) -> ort::Result<DynValue> {
    let empty = vec![""; strings.len()];
    let mut value = OrtTensor::from_string_array((shape.to_vec(), empty.as_slice()))?;
    for (place, string) in strings.iter().enumerate() {
        let mut buffer: *mut c_char = ptr::null_mut();
        // SAFETY: the value is a tensor of as many strings as there are here, and nothing else has it. The library checks the place.
        ortsys![unsafe GetResizedStringTensorElementBuffer(value.ptr_mut(), place, string.len(), &mut buffer)?];
        if !string.is_empty() && !buffer.is_null() {
            // SAFETY: the buffer that the library gave has this length, and belongs to the value, which lives longer than this.
            unsafe { ptr::copy_nonoverlapping(string.as_ptr(), buffer.cast::<u8>(), string.len()) };
        }
    }
    Ok(value.into_dyn())
}

/// Strings with their shape.
pub(super) struct StringTensor {
    pub(super) shape: Vec<i64>,
    pub(super) strings: Vec<Vec<u8>>,
}

/// The strings of a tensor; `None` if it is no tensor of strings.
pub(super) fn strings(value: &DynValue) -> ort::Result<Option<StringTensor>> {
    let ValueType::Tensor { ty: TensorElementType::String, shape, .. } = value.dtype() else { return Ok(None) };
    let shape: Vec<i64> = shape.to_vec();
    let count = shape.iter().product::<i64>();
    let Ok(count) = usize::try_from(count) else { return Ok(None) };
    let mut length = 0;
    // SAFETY: the value is a tensor of strings.
    ortsys![unsafe GetStringTensorDataLength(value.ptr(), &mut length)?];
    let mut content = vec![0u8; length];
    let mut offsets = vec![0usize; count];
    // SAFETY: the content has the length that the library named, and there is an offset for each string of the shape.
    ortsys![unsafe GetStringTensorContent(value.ptr(), content.as_mut_ptr().cast(), length, offsets.as_mut_ptr(), count)?];
    offsets.push(length);
    let part = |ends: &[usize]| content.get(ends[0]..ends[1]).map(<[u8]>::to_vec).unwrap_or_default();
    Ok(Some(StringTensor { shape, strings: offsets.windows(2).map(part).collect() }))
}
