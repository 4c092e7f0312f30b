//! The fields of a preset, and what a file of one must keep.

use std::collections::BTreeMap;

use kip_spec::{Millis, Problem, code};
use serde::{Deserialize, Serialize};

use super::apps::App;

/// Kinds of model files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `*.onnx`.
    Onnx,
    /// `*.gguf`.
    Gguf,
    /// `*.safetensors` or `pytorch_model*.bin` with a `config.json`.
    Transformers,
    /// A program of Python: `app.py`, `server.py` or `main.py`.
    App,
    /// A repository of Triton: `NAME/config.pbtxt`.
    TritonRepository,
    /// `saved_model.pb`.
    SavedModel,
    /// `*.mar`.
    ModelArchive,
    /// `model-settings.json`.
    MlServer,
    /// `bentofile.yaml` or `service.py`.
    Bento,
    /// A `configuration.json` of ModelScope with weights.
    Modelscope,
}

/// How far a preset was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PresetEvidence {
    /// The real engine ran with it.
    Run,
    /// Only its text was checked.
    Unproven,
}

/// What is known about an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name.
    pub name: String,
    /// The engine, in a few words.
    pub about: String,
    /// How far it was tried.
    pub evidence: PresetEvidence,
    /// Of the presets that fit a model, the one with the smallest number is chosen.
    #[serde(default = "default_order")]
    pub order: u32,
    /// What it serves.
    #[serde(default)]
    pub formats: Vec<Format>,
    /// The tasks that it serves; all if empty.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// The program; the built-in model server without one.
    #[serde(default)]
    pub engine: Option<Engine>,
    /// A program that comes with Kipwake and runs in the engine's environment.
    #[serde(default)]
    pub app: Option<String>,
    /// The command. `${MODEL}` is the model's file or folder, `${NAME}` the name that callers use, `${FUNCTION}` the function's, `${MODULE}`
    /// the module of an app, `${APP}` the file of `app`, `${TASK}` the model's task or `auto`; `${PORT}` and other names are left for the
    /// instance.
    #[serde(default)]
    pub command: Vec<String>,
    /// What follows the command of an instance with a share of a device: the engine's own limit of device memory.
    #[serde(default)]
    pub cap: Vec<String>,
    /// The official image, for a container in place of the command.
    #[serde(default)]
    pub image: Option<String>,
    /// Variables of the instance, with the same names in them.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Further ports.
    #[serde(default)]
    pub ports: Vec<String>,
    /// The path that answers 200 when the engine is ready; the open port without one.
    #[serde(default)]
    pub ready: Option<String>,
    /// The path that answers 200 while the engine is well.
    #[serde(default)]
    pub live: Option<String>,
    /// Paths that do not count as load.
    #[serde(default)]
    pub exempt: Vec<String>,
    /// Requests at once, as many as the engine batches.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// Instances at most.
    #[serde(default)]
    pub max: Option<u32>,
    /// The limits of a declaration's `timeouts`.
    #[serde(default)]
    pub timeouts: BTreeMap<String, Millis>,
    /// Whom the signal to stop reaches, and which signal.
    #[serde(default)]
    pub stop: BTreeMap<String, String>,
    /// Without a byte for so long, a busy instance is replaced.
    #[serde(default)]
    pub stall: Option<Millis>,
    /// Where the engine says how busy it is.
    #[serde(default)]
    pub load: Option<Load>,
    /// Requests that give device memory back and take it again.
    #[serde(default)]
    pub sleep: Option<Sleep>,
    /// Whether it takes a device where the host has one.
    #[serde(default = "takes_a_device")]
    pub device: bool,
    /// How much memory a model takes.
    #[serde(default)]
    pub memory: Memory,
    /// Paths that the engine serves.
    #[serde(default)]
    pub routes: Vec<String>,
    /// A request that shows that it works.
    #[serde(default)]
    pub question: Option<Question>,
    /// What else to know.
    #[serde(default)]
    pub notes: Vec<String>,
}

fn takes_a_device() -> bool {
    true
}

fn default_order() -> u32 {
    100
}

fn default_concurrency() -> u32 {
    1
}

/// The program of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// The program, looked for in the engine's own environment and in `PATH`.
    pub program: String,
    /// Packages of Python with their versions, which `--install-engine` installs.
    #[serde(default)]
    pub packages: Vec<String>,
    /// How to install it by hand.
    pub install: String,
}

/// Where an engine says how busy it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// The path of its metrics.
    pub path: String,
    /// The metric of requests at work.
    #[serde(default)]
    pub busy: Option<String>,
    /// The metric of requests that wait.
    #[serde(default)]
    pub queued: Option<String>,
}

/// Requests that give device memory back and take it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    /// In this order, to sleep.
    pub down: Vec<Call>,
    /// In this order, to wake.
    pub up: Vec<Call>,
}

/// A request to an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The method; POST if left out.
    #[serde(default = "default_method")]
    pub method: String,
    /// Path and query.
    pub path: String,
    /// A body of JSON.
    #[serde(default)]
    pub json: Option<serde_json::Value>,
}

fn default_method() -> String {
    "POST".to_owned()
}

/// How much memory a model takes: its files times a factor, and something more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Times the files.
    pub factor: f64,
    /// And so much more.
    pub extra: kip_spec::Bytes,
}

impl Default for Memory {
    fn default() -> Self {
        Self { factor: 1.2, extra: kip_spec::Bytes(256 << 20) }
    }
}

impl Memory {
    /// The estimate for files of so many bytes.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    pub fn of(&self, files: u64) -> u64 {
        (files as f64 * self.factor) as u64 + self.extra.0
    }
}

/// A request that shows that a model works, with the place of its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The method; POST if left out.
    #[serde(default = "default_method")]
    pub method: String,
    /// The path.
    pub path: String,
    /// A body of JSON; `${NAME}` in its texts is the name that callers use.
    #[serde(default)]
    pub json: Option<serde_json::Value>,
    /// A JSON pointer to the answer; the whole answer without one.
    #[serde(default)]
    pub answer: Option<String>,
}

/// Names that a command may use; every other one is the instance's.
pub(super) const NAMES: [&str; 6] = ["MODEL", "NAME", "FUNCTION", "MODULE", "APP", "TASK"];

impl Preset {
    /// Reads a preset.
    ///
    /// # Errors
    /// A problem that names the field.
    pub fn read(text: &str, origin: &str) -> Result<Self, Problem> {
        let invalid = |cause: String| {
            Problem::new(code::PRESET_INVALID, format!("the preset {origin} cannot be used"))
                .cause(cause)
                .hint("docs/presets.md lists the fields")
        };
        let preset: Self = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        preset.fault().map_or(Ok(()), |fault| Err(invalid(fault)))?;
        Ok(preset)
    }

    fn fault(&self) -> Option<String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.name.is_empty() || self.name.len() > 40 || !self.name.bytes().all(plain) {
            return Some("`name` has 1 to 40 lower-case letters, digits and `-`".to_owned());
        }
        if self.engine.is_some() == self.command.is_empty() {
            return Some("`engine` and `command` belong together".to_owned());
        }
        if let Some(app) = &self.app
            && App::find(app).is_none()
        {
            let known: Vec<&str> = App::names().collect();
            return Some(format!("there is no app `{app}`; there is {}", known.join(", ")));
        }
        if self.concurrency == 0 {
            return Some("`concurrency` is at least 1".to_owned());
        }
        let paths = self.ready.iter().chain(&self.live).chain(&self.exempt).chain(&self.routes);
        if let Some(path) = paths.into_iter().find(|path| !path.starts_with('/')) {
            return Some(format!("`{path}` is no path: it begins with a slash"));
        }
        let texts = self.command.iter().chain(self.env.values());
        let unused = texts.clone().all(|text| !text.contains("${MODEL}") && !text.contains("${MODULE}"));
        let serves =
            self.formats.iter().any(|format| !matches!(format, Format::MlServer | Format::Bento | Format::App));
        (unused && serves && self.engine.is_some()).then(|| "the command names no ${MODEL}".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_preset_is_named() {
        let good = "name = \"x\"\nabout = \"X\"\nevidence = \"unproven\"\n";
        assert!(Preset::read(good, "x.toml").is_ok());
        for (more, part) in [
            ("colour = \"red\"\n", "colour"),
            ("command = [\"x\"]\n", "belong together"),
            ("concurrency = 0\n", "at least 1"),
            ("app = \"nothing\"\n", "pipeline"),
            ("ready = \"health\"\n", "slash"),
            ("timeouts = {startup = \"soon\"}\n", "soon"),
            ("formats = [\"gguf\"]\ncommand = [\"x\"]\nengine = {program = \"x\", install = \"y\"}\n", "${MODEL}"),
        ] {
            let problem = Preset::read(&format!("{good}{more}"), "x.toml").unwrap_err();
            assert!(
                problem.code == code::PRESET_INVALID
                    && problem.cause.as_deref().is_some_and(|cause| cause.contains(part)),
                "{problem:?}"
            );
        }
    }
}
