//! What the files beside a text model say of it: the layout in which transformers and sentence-transformers save models.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::pooling::Pooling;

/// Bytes of a file of settings at most.
const LARGEST: u64 = 64 << 20;
/// The length of texts where no file says it.
const USUAL_TOKENS: usize = 512;
/// Models whose positions begin behind the one of the padding token.
const SHIFTED: [&str; 5] = ["roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"];

/// The folder of a text model.
#[derive(Debug, Clone)]
pub(super) struct TextFolder {
    path: PathBuf,
    config: Config,
    modules: Option<Vec<Module>>,
}

/// The part of `config.json` that matters here.
#[derive(Debug, Clone, Default, Deserialize)]
struct Config {
    #[serde(default)]
    model_type: Option<String>,
    #[serde(default)]
    id2label: Option<serde_json::Map<String, Value>>,
    #[serde(default)]
    problem_type: Option<String>,
    #[serde(default)]
    max_position_embeddings: Option<usize>,
    #[serde(default)]
    is_matryoshka: Option<bool>,
    #[serde(default)]
    matryoshka_dimensions: Option<Vec<usize>>,
}

/// A step of `modules.json`.
#[derive(Debug, Clone, Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// A file of JSON; `None` where there is no such file. Caches of downloads keep links, so they are followed.
fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, String> {
    let Some(data) = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file) else { return Ok(None) };
    let shown = path.display();
    if data.len() > LARGEST {
        return Err(format!("{shown}: it has more than {LARGEST} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    serde_json::from_str(&text).map(Some).map_err(|error| format!("{shown}: {error}"))
}

impl TextFolder {
    /// The folder of a model file that has a tokenizer: its own, or the one above a folder `onnx`.
    pub(super) fn find(model: &Path) -> Option<PathBuf> {
        let own = model.parent()?;
        let own = if own.as_os_str().is_empty() { Path::new(".") } else { own };
        let above = own.canonicalize().ok().filter(|own| own.file_name().is_some_and(|name| name == "onnx"));
        let above = above.as_deref().and_then(Path::parent).map(Path::to_owned);
        [Some(own.to_owned()), above].into_iter().flatten().find(|folder| folder.join("tokenizer.json").is_file())
    }

    /// Reads the settings.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let config = read(&path.join("config.json"))?.unwrap_or_default();
        let modules = read(&path.join("modules.json"))?;
        Ok(Self { path: path.to_owned(), config, modules })
    }

    /// The content of `tokenizer.json`.
    pub(super) fn tokenizer(&self) -> Result<Value, String> {
        read(&self.path.join("tokenizer.json"))?.ok_or_else(|| "there is no tokenizer.json".to_owned())
    }

    /// Labels of a classifier, in the order of its scores. Labels that nobody has named (`LABEL_0`) count too.
    pub(super) fn labels(&self) -> Option<Vec<String>> {
        let labels = self.config.id2label.as_ref()?;
        (0..labels.len()).map(|at| labels.get(&at.to_string())?.as_str().map(str::to_owned)).collect()
    }

    /// Whether several labels can be right at once.
    pub(super) fn has_many_labels(&self) -> bool {
        self.config.problem_type.as_deref() == Some("multi_label_classification")
    }

    /// Whether shorter embeddings than the model's have a meaning.
    pub(super) fn is_matryoshka(&self) -> bool {
        self.config.is_matryoshka == Some(true) || self.config.matryoshka_dimensions.is_some()
    }

    /// How the vectors of tokens become one. Mean where no file says it.
    pub(super) fn pooling(&self) -> Result<Pooling, String> {
        let modules = self.modules.iter().flatten();
        let named = modules.into_iter().find(|module| module.is("Pooling")).map(|module| module.path.clone());
        let file = self.path.join(named.as_deref().unwrap_or("1_Pooling")).join("config.json");
        match read::<serde_json::Map<String, Value>>(&file)? {
            Some(settings) => Pooling::of(&settings).map_err(|reason| format!("{}: {reason}", file.display())),
            None => Ok(Pooling::Mean),
        }
    }

    /// Whether embeddings have the length 1. They have where no `modules.json` says what happens to them.
    pub(super) fn normalizes(&self) -> bool {
        self.modules.as_ref().is_none_or(|modules| modules.iter().any(|module| module.is("Normalize")))
    }

    /// A step that this server does not have.
    pub(super) fn unknown_module(&self) -> Option<String> {
        let known = |module: &&Module| ["Transformer", "Pooling", "Normalize"].iter().any(|kind| module.is(kind));
        self.modules.iter().flatten().find(|module| !known(module)).map(|module| module.kind.clone())
    }

    /// Tokens of a text at most, those that mark its ends included.
    pub(super) fn max_tokens(&self, tokenizer: &Value) -> Result<usize, String> {
        let number = |value: Option<&Value>| {
            // "No limit" is written as a number beyond all integers.
            value.and_then(Value::as_u64).and_then(|length| usize::try_from(length).ok()).filter(|length| *length > 0)
        };
        let settings = |name: &str| read::<Value>(&self.path.join(name));
        let sentence = settings("sentence_bert_config.json")?;
        let shift = usize::from(self.config.model_type.as_deref().is_some_and(|kind| SHIFTED.contains(&kind))) * 2;
        let positions = self.config.max_position_embeddings.map(|positions| positions.saturating_sub(shift));
        let named = number(sentence.as_ref().and_then(|settings| settings.get("max_seq_length")));
        let tokens = named.or_else(|| {
            let other = settings("tokenizer_config.json").ok().flatten();
            let own = number(other.as_ref().and_then(|settings| settings.get("model_max_length")));
            let cut = number(tokenizer.pointer("/truncation/max_length"));
            [own, cut].into_iter().flatten().min()
        });
        let tokens = [tokens, positions].into_iter().flatten().filter(|length| *length > 0).min();
        Ok(tokens.unwrap_or(USUAL_TOKENS))
    }
}

impl Module {
    fn is(&self, kind: &str) -> bool {
        self.kind.rsplit('.').next() == Some(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn the_tokenizer_is_beside_the_model_or_above_its_folder() {
        let folder = folder(&[("tokenizer.json", "{}"), ("onnx/model.onnx", ""), ("other/model.onnx", "")]);
        let found = |name: &str| TextFolder::find(&folder.path().join(name));
        assert!(found("model.onnx").is_some() && found("onnx/model.onnx").is_some());
        assert_eq!(found("other/model.onnx"), None);
    }

    #[test]
    fn files_say_how_long_texts_may_be_and_what_becomes_of_vectors() {
        let plain = folder(&[("config.json", r#"{"model_type": "roberta", "max_position_embeddings": 514}"#)]);
        let read = TextFolder::read(plain.path()).unwrap();
        let none = Value::Null;
        assert_eq!(read.max_tokens(&none), Ok(512));
        assert_eq!(read.max_tokens(&serde_json::json!({"truncation": {"max_length": 128}})), Ok(128));
        assert!(read.normalizes() && read.pooling() == Ok(Pooling::Mean) && !read.is_matryoshka());
        let sentence = folder(&[
            (
                "modules.json",
                r#"[{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "p", "type": "x.Pooling"}]"#,
            ),
            ("p/config.json", r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#),
            ("sentence_bert_config.json", r#"{"max_seq_length": 256}"#),
            ("tokenizer_config.json", r#"{"model_max_length": 64}"#),
            ("config.json", r#"{"matryoshka_dimensions": [64, 128], "id2label": {"0": "no", "1": "yes"}}"#),
        ]);
        let read = TextFolder::read(sentence.path()).unwrap();
        assert_eq!((read.max_tokens(&none), read.normalizes()), (Ok(256), false));
        assert_eq!((read.pooling(), read.is_matryoshka()), (Ok(Pooling::Cls), true));
        assert_eq!(read.labels().unwrap(), ["no", "yes"]);
        assert_eq!(read.unknown_module(), None);
        let dense =
            folder(&[("modules.json", r#"[{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]"#)]);
        let read = TextFolder::read(dense.path()).unwrap();
        assert_eq!(read.unknown_module().as_deref(), Some("sentence_transformers.models.Dense"));
        let huge = folder(&[("tokenizer_config.json", r#"{"model_max_length": 1000000000000000019884624838656}"#)]);
        assert_eq!(TextFolder::read(huge.path()).unwrap().max_tokens(&none), Ok(USUAL_TOKENS));
    }
}
