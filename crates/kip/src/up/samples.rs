//! `try.yaml` beside a `kip.yaml`: requests whose answers are known, for `kip up` to send.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kip_spec::{Problem, code};
use serde::Deserialize;

/// What to send and what to look at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TryFile {
    /// The function to call.
    pub(crate) function: String,
    /// Its path.
    pub(crate) path: String,
    /// A file of samples, one JSON object a line.
    pub(crate) samples: String,
    /// Where in the answer the prediction is, as a JSON pointer.
    pub(crate) answer: String,
    /// How many are shown one by one.
    #[serde(default = "eight")]
    pub(crate) show: usize,
    /// The share of right answers below which something is broken.
    #[serde(default)]
    pub(crate) accuracy: f64,
    /// A file for the curl line.
    pub(crate) curl: Option<Curl>,
}

/// The curl line's example.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Curl {
    pub(crate) file: String,
    pub(crate) content_type: String,
}

fn eight() -> usize {
    8
}

/// A request whose answer is known.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) truth: String,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

#[derive(Debug, Deserialize)]
struct Line {
    name: String,
    truth: String,
    content_type: String,
    body: String,
}

impl TryFile {
    /// Reads the file; a folder without one is fine.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Option<Self>> {
        let file = directory.join("try.yaml");
        let Ok(text) = std::fs::read_to_string(&file) else { return Ok(None) };
        let parsed = serde_saphyr::from_str(&text).map_err(|error| bad(&file, &error.to_string()))?;
        Ok(Some(parsed))
    }

    /// Reads the samples.
    pub(crate) fn samples(&self, directory: &Path) -> anyhow::Result<Vec<Sample>> {
        let file = directory.join(&self.samples);
        let text = std::fs::read_to_string(&file).map_err(|error| bad(&file, &error.to_string()))?;
        let mut samples = Vec::new();
        for line in text.lines() {
            let Line { name, truth, content_type, body } =
                serde_json::from_str(line).map_err(|error| bad(&file, &error.to_string()))?;
            let body = STANDARD.decode(body).map_err(|error| bad(&file, &error.to_string()))?.into();
            samples.push(Sample { name, truth, content_type, body });
        }
        if samples.is_empty() {
            return Err(bad(&file, "it has no samples").into());
        }
        Ok(samples)
    }
}

fn bad(file: &Path, cause: &str) -> Problem {
    Problem::new(code::MANIFEST_UNREADABLE, format!("{} cannot be used", file.display())).cause(cause)
}
