//! From the vectors of a text's tokens to the vector of the text.

use serde_json::{Map, Value};

/// How the vectors of tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pooling {
    /// The mean over all tokens.
    Mean,
    /// The first token's.
    Cls,
    /// The largest value of each dimension.
    Max,
    /// The last token's.
    Last,
}

/// The keys of a pooling module by which each is switched on.
const MODES: [(&str, Pooling); 4] = [
    ("mean_tokens", Pooling::Mean),
    ("cls_token", Pooling::Cls),
    ("max_tokens", Pooling::Max),
    ("lasttoken", Pooling::Last),
];

impl Pooling {
    /// Reads the settings of a pooling module.
    ///
    /// # Errors
    /// The mode that is not supported, or all where there are several.
    pub(super) fn of(settings: &Map<String, Value>) -> Result<Self, String> {
        let mut on: Vec<&str> = match settings.get("pooling_mode") {
            Some(Value::String(mode)) => mode.split('+').collect(),
            _ => settings
                .iter()
                .filter(|(_, value)| **value == Value::Bool(true))
                .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
                .collect(),
        };
        on.sort_unstable();
        let known = |mode: &str| {
            let same = |(name, _): &&(&str, Self)| *name == mode || name.split('_').next() == Some(mode);
            MODES.iter().find(same).map(|(_, pooling)| *pooling)
        };
        match on.as_slice() {
            [] => Ok(Self::Mean),
            [mode] => known(mode).ok_or_else(|| format!("the pooling `{mode}` is not supported")),
            several => Err(format!("several poolings at once are not supported: {}", several.join(", "))),
        }
    }

    /// The name as files and answers have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Max => "max",
            Self::Last => "last",
        }
    }

    /// The vector of a text: `vectors` has one of `width` for each token, those of the padding after the first `tokens` not
    /// counted.
    pub(super) fn pool(self, vectors: &[f32], width: usize, tokens: usize) -> Vec<f32> {
        let rows = || vectors.chunks_exact(width).take(tokens);
        match self {
            Self::Cls => rows().next().map(<[f32]>::to_vec).unwrap_or_default(),
            Self::Last => rows().next_back().map(<[f32]>::to_vec).unwrap_or_default(),
            Self::Max => rows().fold(vec![f32::NEG_INFINITY; width], |most, row| {
                most.iter().zip(row).map(|(most, value)| most.max(*value)).collect()
            }),
            Self::Mean => {
                let mut sum = vec![0f32; width];
                rows().for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value));
                #[expect(clippy::cast_precision_loss, reason = "texts have fewer tokens than 2^24")]
                let count = tokens.max(1) as f32;
                sum.iter_mut().for_each(|value| *value /= count);
                sum
            }
        }
    }
}

/// Gives a vector the length 1. A vector of zeros stays as it is.
pub(super) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_does_not_count() {
        let vectors = [1.0, 2.0, 3.0, 8.0, 100.0, 100.0];
        assert_eq!(Pooling::Mean.pool(&vectors, 2, 2), [2.0, 5.0]);
        assert_eq!(Pooling::Max.pool(&vectors, 2, 2), [3.0, 8.0]);
        assert_eq!(Pooling::Cls.pool(&vectors, 2, 2), [1.0, 2.0]);
        assert_eq!(Pooling::Last.pool(&vectors, 2, 2), [3.0, 8.0]);
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        normalize(&mut [0.0, 0.0]);
    }

    #[test]
    fn modes_as_modules_write_them() {
        let read = |text: &str| Pooling::of(&serde_json::from_str(text).unwrap());
        assert_eq!(read(r#"{"word_embedding_dimension": 3, "pooling_mode_mean_tokens": true}"#), Ok(Pooling::Mean));
        assert_eq!(read(r#"{"pooling_mode": "lasttoken"}"#), Ok(Pooling::Last));
        assert_eq!(read(r#"{"pooling_mode": "cls", "include_prompt": true}"#), Ok(Pooling::Cls));
        assert!(read(r#"{"pooling_mode_mean_sqrt_len_tokens": true}"#).unwrap_err().contains("mean_sqrt_len_tokens"));
        let both = r#"{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}"#;
        assert!(read(both).unwrap_err().contains("cls_token, max_tokens"));
    }
}
