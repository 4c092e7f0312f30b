//! Tensor data in JSON: nested or flat lists, kept as compact as their numbers allow while the datatype is not known.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};
use tract_onnx::prelude::f16;

use crate::datatype::Datatype;
use crate::error::Error;
use crate::tensor::{Element, Tensor};

/// Numbers, truths or strings from JSON and the shape of the lists they stood in (empty for a single value).
#[derive(Debug, Default, Clone)]
pub(crate) struct Data {
    values: Values,
    /// Length of the lists at each depth, once one has ended.
    lengths: Vec<Option<usize>>,
    shape: Vec<usize>,
    leaf_depth: Option<usize>,
    ragged: bool,
    mixed: bool,
}

#[derive(Debug, Default, Clone)]
enum Values {
    #[default]
    None,
    Signed(Vec<i64>),
    /// Only once a number beyond `i64` was met.
    Wide(Vec<i128>),
    Floats(Vec<f64>),
    Truths(Vec<bool>),
    Strings(Vec<String>),
}

impl Data {
    /// The shape of the lists, unless they are ragged.
    pub(crate) fn shape(&self) -> Option<&[usize]> {
        (!self.ragged).then_some(self.shape.as_slice())
    }

    /// Reads a list whose first bracket has been read already.
    pub(crate) fn from_list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        let mut data = Self::default();
        Node { data: &mut data, depth: 0 }.visit_seq(list)?;
        Ok(data.finished())
    }

    fn finished(mut self) -> Self {
        self.shape = self.lengths.iter().flatten().copied().collect();
        self.ragged |= self.leaf_depth.is_some_and(|depth| depth != self.shape.len());
        self
    }

    /// Forgets how the lists are nested.
    pub(crate) fn flattened(mut self) -> Self {
        self.shape = vec![self.len()];
        self
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::None => 0,
            Values::Signed(values) => values.len(),
            Values::Wide(values) => values.len(),
            Values::Floats(values) => values.len(),
            Values::Truths(values) => values.len(),
            Values::Strings(values) => values.len(),
        }
    }

    /// As a tensor. Flat data takes any shape of its length, nested data only its own.
    pub(crate) fn into_tensor(self, name: &str, datatype: Datatype, shape: Vec<usize>) -> Result<Tensor, Error> {
        if self.ragged {
            return Err(Error::Shape(format!("the lists of input `{name}` are of different lengths")));
        }
        if self.mixed {
            return Err(Error::Type(format!("input `{name}` mixes numbers, truths and strings, or has null in it")));
        }
        let given = self.len();
        let fits = crate::tensor::element_count(&shape) == Some(given);
        if !fits || (self.shape.len() > 1 && self.shape != shape) {
            let lists = &self.shape;
            let text =
                format!("input `{name}` has {given} values in lists of shape {lists:?}, not the shape {shape:?}");
            return Err(Error::Shape(text));
        }
        let wrong = |what: &str| Error::Type(format!("input `{name}` is {datatype}, but its data has {what}"));
        let tensor = match (datatype, self.values) {
            (Datatype::Bool, Values::Truths(values)) => Tensor::from_elements(shape, values.into_iter()),
            (Datatype::Bytes, Values::Strings(values)) => {
                Tensor::from_strings(shape, values.iter().map(String::as_bytes))
            }
            (_, Values::None) if datatype == Datatype::Bytes => Tensor::from_strings(shape, [].into_iter()),
            (_, Values::None) => Tensor::new(name, datatype, shape, bytes::Bytes::new()).ok(),
            (_, Values::Truths(_)) => return Err(wrong("truths (true, false)")),
            (_, Values::Strings(_)) => return Err(wrong("strings")),
            (Datatype::Bool, _) => return Err(wrong("numbers; write true or false")),
            (Datatype::Bytes, _) => return Err(wrong("numbers; write strings")),
            (float, Values::Floats(values)) if float.is_float() => return floats(name, float, shape, &values),
            (_, Values::Floats(values)) => {
                let first = values.iter().find(|value| value.fract() != 0.0).or_else(|| values.first()).copied();
                return Err(wrong(&format!("the number {:?}, which is no whole number", first.unwrap_or(0.5))));
            }
            (_, Values::Signed(values)) => return integers(name, datatype, shape, &values),
            (_, Values::Wide(values)) => return integers(name, datatype, shape, &values),
        };
        tensor.ok_or_else(|| Error::Shape(format!("input `{name}` does not fit its shape")))
    }

    fn leaf(&mut self, depth: usize) {
        self.ragged |= *self.leaf_depth.get_or_insert(depth) != depth;
    }

    fn push_integer(&mut self, value: i128) {
        if let (Values::None, Ok(value)) = (&self.values, i64::try_from(value)) {
            self.values = Values::Signed(vec![value]);
            return;
        }
        match &mut self.values {
            Values::Signed(values) => match i64::try_from(value) {
                Ok(value) => values.push(value),
                Err(_) => {
                    self.values = Values::Wide(values.iter().map(|value| i128::from(*value)).chain([value]).collect());
                }
            },
            Values::Wide(values) => values.push(value),
            Values::Floats(values) => values.push(value as f64),
            Values::None => self.values = Values::Wide(vec![value]),
            Values::Truths(_) | Values::Strings(_) => self.mixed = true,
        }
    }

    fn push_float(&mut self, value: f64) {
        match &mut self.values {
            Values::None => self.values = Values::Floats(vec![value]),
            Values::Floats(values) => values.push(value),
            Values::Signed(values) => {
                self.values = Values::Floats(values.iter().map(|value| *value as f64).chain([value]).collect());
            }
            Values::Wide(values) => {
                self.values = Values::Floats(values.iter().map(|value| *value as f64).chain([value]).collect());
            }
            Values::Truths(_) | Values::Strings(_) => self.mixed = true,
        }
    }
}

fn beyond(name: &str, datatype: Datatype, value: impl fmt::Display) -> Error {
    Error::Type(format!("input `{name}` is {datatype}, which cannot hold {value}"))
}

fn floats(name: &str, datatype: Datatype, shape: Vec<usize>, values: &[f64]) -> Result<Tensor, Error> {
    let largest = match datatype {
        Datatype::Fp16 => 65_504.0,
        Datatype::Fp32 => f64::from(f32::MAX),
        _ => f64::MAX,
    };
    if let Some(value) = values.iter().find(|value| value.abs() > largest) {
        return Err(beyond(name, datatype, format_args!("{value:e}")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked above; the rest is rounding")]
    let tensor = match datatype {
        Datatype::Fp16 => Tensor::from_elements(shape, values.iter().map(|value| f16::from_f64(*value))),
        Datatype::Fp32 => Tensor::from_elements(shape, values.iter().map(|value| *value as f32)),
        _ => Tensor::from_elements(shape, values.iter().copied()),
    };
    tensor.ok_or_else(|| Error::Shape(format!("input `{name}` does not fit its shape")))
}

fn integers<T: Copy + Into<i128>>(
    name: &str,
    datatype: Datatype,
    shape: Vec<usize>,
    values: &[T],
) -> Result<Tensor, Error> {
    fn narrow<N: Element + TryFrom<i128>, T: Copy + Into<i128>>(
        name: &str,
        shape: Vec<usize>,
        values: &[T],
    ) -> Result<Tensor, Error> {
        let narrowed: Vec<N> = values
            .iter()
            .map(|value| N::try_from((*value).into()).map_err(|_| beyond(name, N::DATATYPE, (*value).into())))
            .collect::<Result<_, _>>()?;
        Tensor::from_elements(shape, narrowed.into_iter())
            .ok_or_else(|| Error::Shape(format!("input `{name}` does not fit its shape")))
    }
    match datatype {
        Datatype::Uint8 => narrow::<u8, T>(name, shape, values),
        Datatype::Uint16 => narrow::<u16, T>(name, shape, values),
        Datatype::Uint32 => narrow::<u32, T>(name, shape, values),
        Datatype::Uint64 => narrow::<u64, T>(name, shape, values),
        Datatype::Int8 => narrow::<i8, T>(name, shape, values),
        Datatype::Int16 => narrow::<i16, T>(name, shape, values),
        Datatype::Int32 => narrow::<i32, T>(name, shape, values),
        Datatype::Int64 => narrow::<i64, T>(name, shape, values),
        _ => {
            let values: Vec<f64> = values.iter().map(|value| (*value).into() as f64).collect();
            floats(name, datatype, shape, &values)
        }
    }
}

impl<'de> serde::Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut data = Self::default();
        Node { data: &mut data, depth: 0 }.deserialize(deserializer)?;
        Ok(data.finished())
    }
}

struct Node<'a> {
    data: &'a mut Data,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers, truths or strings, nested or flat")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { data, depth } = self;
        // Inner lists end before outer ones, so the place is made now and filled at the end.
        if data.lengths.len() <= depth {
            data.lengths.resize(depth + 1, None);
        }
        let mut length = 0usize;
        while list.next_element_seed(Node { data, depth: depth + 1 })?.is_some() {
            length += 1;
        }
        data.ragged |= *data.lengths[depth].get_or_insert(length) != length;
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.data.leaf(self.depth);
        match &mut self.data.values {
            Values::None => self.data.values = Values::Truths(vec![value]),
            Values::Truths(values) => values.push(value),
            _ => self.data.mixed = true,
        }
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.data.leaf(self.depth);
        self.data.push_integer(value.into());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.data.leaf(self.depth);
        self.data.push_integer(value.into());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.data.leaf(self.depth);
        self.data.push_float(value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.data.leaf(self.depth);
        match &mut self.data.values {
            Values::None => self.data.values = Values::Strings(vec![value.to_owned()]),
            Values::Strings(values) => values.push(value.to_owned()),
            _ => self.data.mixed = true,
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.data.leaf(self.depth);
        self.data.mixed = true;
        Ok(())
    }
}

/// A tensor's data as a flat JSON list. Infinite values and NaN, which JSON has no form for, become `null`.
#[derive(Debug)]
pub(crate) struct FlatData<'a>(pub(crate) &'a Tensor);

impl Serialize for FlatData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tensor = self.0;
        match tensor.datatype() {
            Datatype::Bool => serializer.collect_seq(tensor.elements::<bool>()),
            Datatype::Uint8 => serializer.collect_seq(tensor.elements::<u8>()),
            Datatype::Uint16 => serializer.collect_seq(tensor.elements::<u16>()),
            Datatype::Uint32 => serializer.collect_seq(tensor.elements::<u32>()),
            Datatype::Uint64 => serializer.collect_seq(tensor.elements::<u64>()),
            Datatype::Int8 => serializer.collect_seq(tensor.elements::<i8>()),
            Datatype::Int16 => serializer.collect_seq(tensor.elements::<i16>()),
            Datatype::Int32 => serializer.collect_seq(tensor.elements::<i32>()),
            Datatype::Int64 => serializer.collect_seq(tensor.elements::<i64>()),
            Datatype::Fp16 => serializer.collect_seq(tensor.elements::<f16>().map(f16::to_f32)),
            Datatype::Fp32 => serializer.collect_seq(tensor.elements::<f32>()),
            Datatype::Fp64 => serializer.collect_seq(tensor.elements::<f64>()),
            Datatype::Bytes => serializer.collect_seq(tensor.strings().map(String::from_utf8_lossy)),
        }
    }
}

/// A tensor's data as lists nested like its shape.
#[derive(Debug)]
pub(crate) struct NestedData<'a>(pub(crate) &'a Tensor);

impl Serialize for NestedData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tensor = self.0;
        let ones = vec![1; tensor.rows()];
        match (tensor.shape(), tensor.part(&ones)) {
            ([_, inner @ ..], Some(rows)) if !inner.is_empty() => {
                let mut list = serializer.serialize_seq(Some(rows.len()))?;
                for row in &rows {
                    list.serialize_element(&NestedData(&row.without_first_dimension()))?;
                }
                list.end()
            }
            _ => FlatData(tensor).serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(text: &str, datatype: Datatype, shape: &[usize]) -> Result<Tensor, Error> {
        serde_json::from_str::<Data>(text).unwrap().into_tensor("x", datatype, shape.to_vec())
    }

    #[test]
    fn nested_and_flat_data_give_the_same_tensor() {
        let flat = tensor("[1, 2, 3, 4]", Datatype::Fp32, &[2, 2]).unwrap();
        assert_eq!(tensor("[[1, 2.0], [3, 4]]", Datatype::Fp32, &[2, 2]).unwrap(), flat);
        assert_eq!(serde_json::to_string(&NestedData(&flat)).unwrap(), "[[1.0,2.0],[3.0,4.0]]");
        assert_eq!(serde_json::to_string(&FlatData(&flat)).unwrap(), "[1.0,2.0,3.0,4.0]");
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        for (text, shape) in [
            ("[1, 2, 3]", &[2, 2][..]),
            ("[[1, 2], [3, 4]]", &[4]),
            ("[[1, 2], [3]]", &[3]),
            ("[[1], 2]", &[2]),
            ("[1, [2]]", &[2]),
            ("[[], 1]", &[1]),
            ("[]", &[1]),
        ] {
            let refusal = tensor(text, Datatype::Fp32, shape).unwrap_err();
            assert!(matches!(refusal, Error::Shape(_)), "{text}: {refusal}");
        }
        assert!(tensor("[]", Datatype::Fp32, &[0, 3]).is_ok());
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        for (text, datatype) in [
            ("[1.5]", Datatype::Int64),
            ("[300]", Datatype::Uint8),
            ("[-1]", Datatype::Uint64),
            ("[1e300]", Datatype::Fp32),
            ("[70000]", Datatype::Fp16),
            ("[1]", Datatype::Bool),
            ("[\"NaN\"]", Datatype::Fp32),
            ("[null]", Datatype::Fp32),
            ("[true]", Datatype::Fp32),
            ("[1]", Datatype::Bytes),
        ] {
            let refusal = tensor(text, datatype, &[1]).unwrap_err();
            assert!(matches!(refusal, Error::Type(_)), "{text}: {refusal}");
        }
        assert!(tensor("[1, true]", Datatype::Fp32, &[2]).is_err());
    }

    #[test]
    fn large_whole_numbers_stay_exact() {
        let most = u64::MAX;
        let unsigned = tensor(&format!("[1, {most}]"), Datatype::Uint64, &[2]).unwrap();
        assert_eq!(unsigned.elements::<u64>().collect::<Vec<_>>(), [1, most]);
        let signed = tensor("[9007199254740993]", Datatype::Int64, &[1]).unwrap();
        assert_eq!(signed.elements::<i64>().next(), Some(9_007_199_254_740_993));
    }
}
