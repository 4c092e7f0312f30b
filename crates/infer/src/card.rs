//! `model.json` beside a model: what the model takes and gives in terms of pictures and labels. Optional; every key of
//! it is in `docs/infer.md`. Unknown keys are refused with a suggestion.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::datatype::Datatype;
use crate::description::{Description, Port};
use crate::error::Error;
use crate::text::Pooling;

/// What `model.json` says.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    /// The name it is served under, unless the options say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) licence: Option<String>,
    /// Whether rows of several requests may run as one; found out from the model unless said here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) picture: Option<PictureInput>,
    /// One for each score, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) labels: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<Output>,
    /// For models that take text; by default what the files beside the model say.
    #[serde(default)]
    pub(crate) text: TextSettings,
}

/// What becomes of texts and of their vectors.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextSettings {
    /// How the vectors of tokens become one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pooling: Option<Pooling>,
    /// Whether embeddings are given the length 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) normalize: Option<bool>,
    /// Tokens of a text at most, those that mark its ends included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<usize>,
    /// Whether callers may ask for shorter embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) matryoshka: Option<bool>,
}

/// How a picture becomes an input.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PictureInput {
    /// Which input; not needed where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<String>,
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub(crate) channels: usize,
    #[serde(default)]
    pub(crate) layout: Layout,
    #[serde(default)]
    pub(crate) ink: Ink,
    #[serde(default)]
    pub(crate) fit: FitMethod,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) glyph: Option<Glyph>,
    /// Rounds each value to one of so many steps above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) levels: Option<u16>,
    /// The value given to the model is `pixel * scale + offset`, with pixels from 0 to 1.
    #[serde(default = "one")]
    pub(crate) scale: PerChannel,
    #[serde(default = "zero")]
    pub(crate) offset: PerChannel,
}

/// In which order the values of a picture stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layout {
    /// `[channels, height, width]`.
    #[default]
    Chw,
    /// `[height, width, channels]`.
    Hwc,
    /// One list: row after row, channels together.
    Flat,
}

/// Which of light and dark the model takes for ink, that is, for high values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ink {
    /// Values as they are.
    #[default]
    Keep,
    /// Pictures have dark ink on a light ground: inverted.
    Dark,
    /// Pictures that are light on the whole are inverted.
    Auto,
}

/// How a picture of another size is brought to the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FitMethod {
    /// Both sides scaled on their own.
    #[default]
    Stretch,
    /// Scaled to fill, what juts out is cut off evenly.
    Cover,
    /// Scaled to fit, the rest filled with the ground.
    Contain,
    /// A single drawn sign: cut out, centred, its stroke brought to the usual width.
    Glyph,
}

/// The form of the signs that the model was trained on.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Glyph {
    /// Largest width of the sign, as a share of the picture's.
    pub(crate) width: f32,
    /// Largest height of the sign, as a share of the picture's.
    pub(crate) height: f32,
    /// Share of the picture that is ink; the stroke is thinned or thickened to it. Left out: kept as drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cover: Option<f32>,
    /// Each value counts the black ones among `grid` x `grid` points.
    pub(crate) grid: u8,
}

/// One number for all channels, or one for each.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum PerChannel {
    All(f32),
    Each(Vec<f32>),
}

/// What becomes of the output.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Output {
    /// Which output has the scores; not needed where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) activation: Activation,
}

/// What turns the output into scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Activation {
    #[default]
    None,
    Softmax,
    Sigmoid,
}

impl Activation {
    /// The scores of a row.
    pub(crate) fn apply(self, mut scores: Vec<f32>) -> Vec<f32> {
        match self {
            Self::None => {}
            Self::Sigmoid => scores.iter_mut().for_each(|score| *score = 1.0 / (1.0 + (-*score).exp())),
            Self::Softmax => {
                // Against overflow the largest becomes 0 first.
                let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                scores.iter_mut().for_each(|score| *score = (*score - most).exp());
                let sum: f32 = scores.iter().sum();
                scores.iter_mut().for_each(|score| *score /= sum);
            }
        }
        scores
    }
}

fn one() -> PerChannel {
    PerChannel::All(1.0)
}

fn zero() -> PerChannel {
    PerChannel::All(0.0)
}

impl PerChannel {
    pub(crate) fn of(&self, channel: usize) -> f32 {
        match self {
            Self::All(value) => *value,
            Self::Each(values) => values.get(channel).copied().unwrap_or_default(),
        }
    }

    fn fits(&self, channels: usize) -> bool {
        match self {
            Self::All(value) => value.is_finite(),
            Self::Each(values) => values.len() == channels && values.iter().all(|value| value.is_finite()),
        }
    }
}

/// The port of a name, or the only one.
pub(crate) fn port<'a>(ports: &'a [Port], name: Option<&str>) -> Option<(usize, &'a Port)> {
    match name {
        Some(name) => ports.iter().enumerate().find(|(_, port)| port.name == name),
        None => ports.iter().enumerate().next().filter(|_| ports.len() == 1),
    }
}

impl Card {
    /// Reads the file, if it is there, and checks that it fits the model.
    pub(crate) fn read(path: &Path, description: &Description) -> Result<Self, Error> {
        let failed = |reason: String| Error::Card { path: path.to_owned(), reason };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error.to_string())),
        };
        let card: Self = serde_json::from_str(&text).map_err(|error| failed(with_suggestion(&error.to_string())))?;
        card.check(description).map_err(failed)?;
        Ok(card)
    }

    fn check(&self, description: &Description) -> Result<(), String> {
        if let Some(picture) = &self.picture {
            picture.check(description)?;
        }
        if self.batch == Some(true)
            && description.inputs.iter().any(|input| input.shape.first().is_none_or(|first| first.fixed().is_some()))
        {
            return Err("`batch` is true, but an input's first dimension is fixed".to_owned());
        }
        let name = self.output.as_ref().and_then(|output| output.name.as_deref());
        if self.output.is_none() && self.labels.is_empty() {
            return Ok(());
        }
        let names = || description.outputs.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
        let Some((_, output)) = port(&description.outputs, name) else {
            return Err(format!("`output.name` must be one of the model's outputs: {}", names()));
        };
        if output.datatype == Datatype::Bytes && !self.labels.is_empty() {
            return Err(format!("`labels` need scores, but the output `{}` gives strings", output.name));
        }
        if let Some(row) = output.row_shape()
            && !self.labels.is_empty()
            && row.iter().product::<usize>() != self.labels.len()
        {
            let count = row.iter().product::<usize>();
            return Err(format!(
                "`labels` has {} entries, but `{}` gives {count} scores",
                self.labels.len(),
                output.name
            ));
        }
        Ok(())
    }
}

impl PictureInput {
    fn check(&self, description: &Description) -> Result<(), String> {
        if !(1..=4_096).contains(&self.width) || !(1..=4_096).contains(&self.height) {
            return Err("`picture.width` and `picture.height` must be from 1 to 4096".to_owned());
        }
        if !matches!(self.channels, 1 | 3) {
            return Err("`picture.channels` must be 1 or 3".to_owned());
        }
        if !self.scale.fits(self.channels) || !self.offset.fits(self.channels) {
            return Err("`picture.scale` and `picture.offset` are one number, or one for each channel".to_owned());
        }
        if self.levels == Some(0) {
            return Err("`picture.levels` must be at least 1".to_owned());
        }
        match (self.fit, &self.glyph) {
            (FitMethod::Glyph, None) => return Err("`fit` is `glyph`, so `picture.glyph` must say its form".to_owned()),
            (FitMethod::Glyph, Some(_)) if self.channels != 1 => {
                return Err("`fit: glyph` needs `channels: 1`".to_owned());
            }
            (FitMethod::Glyph, Some(_)) if self.width.max(self.height) > 128 => {
                return Err("`fit: glyph` is for pictures of at most 128 x 128".to_owned());
            }
            (FitMethod::Glyph, Some(glyph)) => glyph.check()?,
            (_, Some(_)) => return Err("`picture.glyph` means something with `fit: glyph` only".to_owned()),
            (_, None) => {}
        }
        let Some((_, input)) = port(&description.inputs, self.input.as_deref()) else {
            return Err("`picture.input` must be one of the model's inputs".to_owned());
        };
        if description.inputs.len() != 1 {
            return Err("`picture` works with models of one input only".to_owned());
        }
        if !matches!(input.datatype, Datatype::Fp32 | Datatype::Uint8) {
            return Err(format!("pictures become FP32 or UINT8, but `{}` takes {}", input.name, input.datatype));
        }
        let row = self.row_shape();
        let wanted = input.shape.get(1..).unwrap_or_default();
        let fits = wanted.len() == row.len()
            && wanted
                .iter()
                .zip(&row)
                .all(|(dimension, length)| dimension.fixed().is_none_or(|wanted| wanted == *length));
        if !fits || input.shape.first().and_then(crate::description::Dimension::fixed).is_some_and(|first| first != 1) {
            return Err(format!("pictures become rows of shape {row:?}, which `{}` does not take", input.name));
        }
        Ok(())
    }

    /// The shape of one picture as the model takes it.
    pub(crate) fn row_shape(&self) -> Vec<usize> {
        match self.layout {
            Layout::Chw => vec![self.channels, self.height, self.width],
            Layout::Hwc => vec![self.height, self.width, self.channels],
            Layout::Flat => vec![self.height * self.width * self.channels],
        }
    }
}

impl Glyph {
    fn check(&self) -> Result<(), String> {
        let share = |value: f32| value > 0.0 && value <= 1.0;
        if !share(self.width) || !share(self.height) || !self.cover.is_none_or(|cover| cover > 0.0 && cover < 1.0) {
            return Err("`width`, `height` and `cover` of `picture.glyph` are shares between 0 and 1".to_owned());
        }
        if !(1..=16).contains(&self.grid) {
            return Err("`picture.glyph.grid` must be from 1 to 16".to_owned());
        }
        Ok(())
    }
}

/// Adds the nearest known word to serde's list of what it expected.
fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next().filter(|_| message.starts_with("unknown ")) else { return message.to_owned() };
    let nearest =
        quoted.max_by(|one, other| strsim::jaro_winkler(unknown, one).total_cmp(&strsim::jaro_winkler(unknown, other)));
    match nearest.filter(|known| strsim::jaro_winkler(unknown, known) > 0.75) {
        Some(known) => format!("{message}; did you mean `{known}`?"),
        None => message.to_owned(),
    }
}
