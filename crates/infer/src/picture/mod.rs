//! Pictures: from the bytes of a PNG or JPEG file to the values that a model takes.

mod decode;
mod glyph;
mod resize;

use crate::card::{FitMethod, Ink, Layout, PictureInput};
use crate::datatype::Datatype;
use crate::error::Error;
use crate::tensor::Tensor;

pub(crate) use decode::{Format, decode};

/// A picture with values from 0 (black) to 1 (white); channels of a point stand together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Raster {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    pub(crate) values: Vec<f32>,
}

impl Raster {
    fn filled(width: usize, height: usize, channels: usize, value: f32) -> Self {
        Self { width, height, channels, values: vec![value; width * height * channels] }
    }

    fn mean(&self) -> f32 {
        let count = self.values.len().max(1) as f32;
        self.values.iter().sum::<f32>() / count
    }

    fn inverted(mut self) -> Self {
        self.values.iter_mut().for_each(|value| *value = 1.0 - *value);
        self
    }

    /// Grey by the weights of ITU-R BT.601, or grey repeated.
    fn with_channels(self, channels: usize) -> Self {
        let values = match (self.channels, channels) {
            (3, 1) => self.values.chunks_exact(3).map(|rgb| 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]).collect(),
            (1, 3) => self.values.iter().flat_map(|grey| [*grey; 3]).collect(),
            _ => return self,
        };
        Self { channels, values, ..self }
    }
}

/// Brings a picture to the form that `model.json` describes, as a tensor of one row.
pub(crate) fn prepare(raster: Raster, picture: &PictureInput, datatype: Datatype) -> Result<Tensor, Error> {
    let raster = raster.with_channels(picture.channels);
    let raster = match picture.ink {
        Ink::Dark => raster.inverted(),
        Ink::Auto if raster.mean() > 0.5 => raster.inverted(),
        Ink::Keep | Ink::Auto => raster,
    };
    let size = (picture.width, picture.height);
    let mut raster = match picture.fit {
        // A picture of the model's size is in its form already.
        _ if (raster.width, raster.height) == size => raster,
        FitMethod::Stretch => resize::stretch(&raster, size),
        FitMethod::Cover => resize::cover(&raster, size),
        FitMethod::Contain => resize::contain(&raster, size),
        FitMethod::Glyph => match &picture.glyph {
            Some(form) => glyph::normalise(&raster, size, form)?,
            None => raster,
        },
    };
    if let Some(levels) = picture.levels {
        let levels = f32::from(levels);
        raster.values.iter_mut().for_each(|value| *value = (*value * levels).round() / levels);
    }
    let values = arranged(&raster, picture);
    let mut shape = vec![1];
    shape.extend(picture.row_shape());
    let tensor = match datatype {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of a byte")]
        Datatype::Uint8 => {
            let bytes: Vec<u8> = values.iter().map(|value| value.round().clamp(0.0, 255.0) as u8).collect();
            Tensor::from_elements(shape, bytes.into_iter())
        }
        _ => Tensor::from_elements(shape, values.into_iter()),
    };
    tensor.ok_or_else(|| Error::Inference("the prepared picture does not fit the model".to_owned()))
}

/// Scaled, moved, and in the model's order.
fn arranged(raster: &Raster, picture: &PictureInput) -> Vec<f32> {
    let channels = raster.channels;
    let value = |point: usize, channel: usize| {
        raster.values[point * channels + channel] * picture.scale.of(channel) + picture.offset.of(channel)
    };
    let points = raster.width * raster.height;
    match picture.layout {
        Layout::Chw => (0..channels)
            .flat_map(|channel| (0..points).map(move |point| (point, channel)))
            .map(|(p, c)| value(p, c))
            .collect(),
        Layout::Hwc | Layout::Flat => (0..points)
            .flat_map(|point| (0..channels).map(move |channel| (point, channel)))
            .map(|(p, c)| value(p, c))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
