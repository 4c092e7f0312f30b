//! Tensors as they travel here: datatype, shape and little-endian bytes, which is also their binary wire form.
//!
//! Keeping the bytes means that a binary request reaches the runtime after one copy, and that joining and parting the
//! rows of a batch is joining and parting of bytes.

use bytes::{Bytes, BytesMut};
use tract_onnx::prelude::f16;

use crate::datatype::Datatype;
use crate::error::Error;

/// A tensor whose bytes fit its datatype and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    datatype: Datatype,
    shape: Vec<usize>,
    bytes: Bytes,
}

/// A Rust type that is an element of a datatype of fixed width.
pub(crate) trait Element: Copy + Sized + 'static {
    const DATATYPE: Datatype;
    /// Reads one from exactly its width of bytes.
    fn read(bytes: &[u8]) -> Self;
    fn write(self, into: &mut BytesMut);
}

macro_rules! elements {
    ($($name:ty => $datatype:ident),*) => {$(
        impl Element for $name {
            const DATATYPE: Datatype = Datatype::$datatype;
            fn read(bytes: &[u8]) -> Self {
                bytes.try_into().map_or(Self::from_le_bytes([0; size_of::<Self>()]), Self::from_le_bytes)
            }
            fn write(self, into: &mut BytesMut) {
                into.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
elements!(u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64, i8 => Int8, i16 => Int16, i32 => Int32,
    i64 => Int64, f32 => Fp32, f64 => Fp64, f16 => Fp16);

impl Element for bool {
    const DATATYPE: Datatype = Datatype::Bool;
    fn read(bytes: &[u8]) -> Self {
        bytes.iter().any(|byte| *byte != 0)
    }
    fn write(self, into: &mut BytesMut) {
        into.extend_from_slice(&[u8::from(self)]);
    }
}

/// The number of elements; `None` when it does not fit the machine.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, dimension| product.checked_mul(*dimension))
}

impl Tensor {
    /// Checks that the bytes are as long as datatype and shape say.
    pub(crate) fn new(name: &str, datatype: Datatype, shape: Vec<usize>, bytes: Bytes) -> Result<Self, Error> {
        let too_many = || Error::Shape(format!("input `{name}` has more elements than this machine can count"));
        let count = element_count(&shape).ok_or_else(too_many)?;
        let given = bytes.len();
        match datatype.width() {
            Some(width) => {
                let expected = count.checked_mul(width).ok_or_else(too_many)?;
                if given != expected {
                    let text = format!(
                        "input `{name}` has {given} bytes of data; {datatype} of shape {shape:?} needs {expected}"
                    );
                    return Err(Error::Shape(text));
                }
                if datatype == Datatype::Bool && bytes.iter().any(|byte| *byte > 1) {
                    return Err(Error::Type(format!("input `{name}` is BOOL; its bytes must be 0 or 1")));
                }
            }
            None => {
                let found = strings(&bytes).count();
                let whole = strings(&bytes).map(|part| part.len() + 4).sum::<usize>() == given;
                if !whole || found != count {
                    let text = format!(
                        "input `{name}` needs {count} strings, each after its length in four bytes; found {found} in {given} bytes"
                    );
                    return Err(Error::Shape(text));
                }
            }
        }
        Ok(Self { datatype, shape, bytes })
    }

    /// From elements; `None` when their number does not fit the shape.
    pub(crate) fn from_elements<T: Element>(
        shape: Vec<usize>,
        elements: impl ExactSizeIterator<Item = T>,
    ) -> Option<Self> {
        if element_count(&shape) != Some(elements.len()) {
            return None;
        }
        let mut bytes = BytesMut::with_capacity(elements.len() * size_of::<T>());
        elements.for_each(|element| element.write(&mut bytes));
        Some(Self { datatype: T::DATATYPE, shape, bytes: bytes.freeze() })
    }

    /// From strings; `None` when their number does not fit the shape or one is beyond 4 GiB.
    pub(crate) fn from_strings<'a>(
        shape: Vec<usize>,
        elements: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        if element_count(&shape) != Some(elements.len()) {
            return None;
        }
        let mut bytes = BytesMut::new();
        for element in elements {
            u32::try_from(element.len()).ok()?.write(&mut bytes);
            bytes.extend_from_slice(element);
        }
        Some(Self { datatype: Datatype::Bytes, shape, bytes: bytes.freeze() })
    }

    pub(crate) fn datatype(&self) -> Datatype {
        self.datatype
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The binary wire form.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same data with the first dimension, which must be 1, left out.
    pub(crate) fn without_first_dimension(&self) -> Self {
        let shape = self.shape.get(1..).unwrap_or_default().to_vec();
        Self { datatype: self.datatype, shape, bytes: self.bytes.clone() }
    }

    /// Length of the first dimension; 1 for a scalar.
    pub(crate) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Its elements; they are those of `T`'s datatype, or the answer has no meaning.
    pub(crate) fn elements<T: Element>(&self) -> impl ExactSizeIterator<Item = T> + '_ {
        self.bytes.chunks_exact(size_of::<T>()).map(T::read)
    }

    /// Its elements, for a tensor of [`Datatype::Bytes`].
    pub(crate) fn strings(&self) -> impl Iterator<Item = &[u8]> {
        strings(&self.bytes)
    }

    /// Its elements as numbers for scores; empty for strings.
    pub(crate) fn to_floats(&self) -> Vec<f32> {
        fn convert<T: Element>(tensor: &Tensor, convert: impl Fn(T) -> f32) -> Vec<f32> {
            tensor.elements::<T>().map(convert).collect()
        }
        #[expect(clippy::cast_possible_truncation, reason = "scores need no more precision")]
        match self.datatype {
            Datatype::Bool => convert(self, |value: bool| f32::from(u8::from(value))),
            Datatype::Uint8 => convert::<u8>(self, f32::from),
            Datatype::Uint16 => convert::<u16>(self, f32::from),
            Datatype::Uint32 => convert(self, |value: u32| value as f32),
            Datatype::Uint64 => convert(self, |value: u64| value as f32),
            Datatype::Int8 => convert::<i8>(self, f32::from),
            Datatype::Int16 => convert::<i16>(self, f32::from),
            Datatype::Int32 => convert(self, |value: i32| value as f32),
            Datatype::Int64 => convert(self, |value: i64| value as f32),
            Datatype::Fp16 => convert(self, f16::to_f32),
            Datatype::Fp32 => convert(self, |value: f32| value),
            Datatype::Fp64 => convert(self, |value: f64| value as f32),
            Datatype::Bytes => Vec::new(),
        }
    }

    /// Joins along the first dimension. All parts must agree in datatype and in the other dimensions.
    pub(crate) fn join(parts: &[&Self]) -> Option<Self> {
        let first = parts.first()?;
        if let [only] = parts {
            return Some((*only).clone());
        }
        let mut bytes = BytesMut::with_capacity(parts.iter().map(|part| part.bytes.len()).sum());
        parts.iter().for_each(|part| bytes.extend_from_slice(&part.bytes));
        let mut shape = first.shape.clone();
        *shape.first_mut()? = parts.iter().map(|part| part.rows()).sum();
        Some(Self { datatype: first.datatype, shape, bytes: bytes.freeze() })
    }

    /// Parts along the first dimension, without copying. `None` if the counts do not add up to its rows.
    pub(crate) fn part(&self, counts: &[usize]) -> Option<Vec<Self>> {
        if self.shape.is_empty() || counts.iter().sum::<usize>() != self.rows() {
            return None;
        }
        let per_row = element_count(&self.shape[1..])?;
        let mut rest = self.bytes.clone();
        let mut parts = Vec::with_capacity(counts.len());
        for count in counts {
            let length = match self.datatype.width() {
                Some(width) => count * per_row * width,
                None => strings(&rest).take(count * per_row).map(|part| part.len() + 4).sum(),
            };
            let mut shape = self.shape.clone();
            shape[0] = *count;
            parts.push(Self { datatype: self.datatype, shape, bytes: rest.split_to(length) });
        }
        Some(parts)
    }
}

/// The strings in the binary form; stops where a length points beyond the end.
fn strings(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (string, tail) = after.split_at_checked(length)?;
        rest = tail;
        Some(string)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_and_parting_are_inverse() {
        let one = Tensor::from_elements(vec![1, 2], [1f32, 2.0].into_iter()).unwrap();
        let two = Tensor::from_elements(vec![2, 2], [3f32, 4.0, 5.0, 6.0].into_iter()).unwrap();
        let joined = Tensor::join(&[&one, &two]).unwrap();
        assert_eq!(joined.shape(), [3, 2]);
        assert_eq!(joined.part(&[1, 2]).unwrap(), [one, two]);
        assert_eq!(joined.part(&[1, 1]), None);
    }

    #[test]
    fn strings_join_and_part_too() {
        let words = Tensor::from_strings(vec![3], [&b"a"[..], b"", b"long"].into_iter()).unwrap();
        let parts = words.part(&[1, 2]).unwrap();
        assert_eq!(parts[1].strings().collect::<Vec<_>>(), [&b""[..], b"long"]);
        assert_eq!(Tensor::join(&[&parts[0], &parts[1]]).unwrap(), words);
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let wrong = Tensor::new("x", Datatype::Fp32, vec![1, 2], Bytes::from_static(&[0; 7])).unwrap_err();
        assert_eq!(wrong.to_string(), "input `x` has 7 bytes of data; FP32 of shape [1, 2] needs 8");
        assert!(Tensor::new("x", Datatype::Fp32, vec![usize::MAX, 2], Bytes::new()).is_err());
        assert!(Tensor::new("x", Datatype::Bytes, vec![1], Bytes::from_static(&[9, 0, 0, 0, b'a'])).is_err());
        assert!(Tensor::new("x", Datatype::Bytes, vec![2], Bytes::from_static(&[1, 0, 0, 0, b'a'])).is_err());
    }
}
