//! Which preset serves a model, and which of its files that takes. Decided by the names of the files, before any of them is downloaded.

use kip_spec::{Problem, code, people};

use super::fields::{Format, Preset};
use crate::hub::Listing;
use crate::path::FilePath;

/// How a model is to be served.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The preset.
    pub preset: Preset,
    /// The file that the engine is given; its folder where there is none.
    pub entry: Option<FilePath>,
    /// The files that it needs.
    pub files: Vec<FilePath>,
    /// Bytes of these.
    pub size: u64,
    /// Why this preset and these files.
    pub why: String,
}

/// What the caller asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Preference<'a> {
    /// The preset.
    pub preset: Option<&'a str>,
    /// The file that the engine is to be given.
    pub file: Option<&'a str>,
}

/// Small files that belong to every model: descriptions, tokenizers, licences.
const COMPANIONS: [&str; 7] = [".json", ".txt", ".md", ".model", ".yaml", ".yml", ".jinja"];
/// Bytes of such a file at most.
const LARGEST_COMPANION: u64 = 64 << 20;
/// Of several files of quantised weights, the first of these that there is.
const QUANTISATIONS: [&str; 8] = ["q4_k_m", "q4_k_s", "q4_0", "q5_k_m", "q8_0", "f16", "bf16", "f32"];
/// Of several ONNX files, the first of these that there is.
const ONNX: [&str; 5] =
    ["model.onnx", "onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model_int8.onnx", "model_quantized.onnx"];
/// Ends of files with weights that pipelines of ModelScope read.
const WEIGHTS: [&str; 7] = [".safetensors", ".bin", ".pt", ".pth", ".onnx", ".pb", ".ckpt"];
/// Programs of Python by which a folder is an app.
const APPS: [&str; 3] = ["app.py", "server.py", "main.py"];

/// Chooses among presets. `is_there` says whether an engine is installed.
///
/// # Errors
/// When nothing serves the model, or the engine that would is not installed.
pub fn choose(
    listing: &Listing,
    presets: &[Preset],
    wish: Preference<'_>,
    is_there: impl Fn(&Preset) -> bool,
) -> Result<Choice, Problem> {
    let named = |name: &str| presets.iter().find(|preset| preset.name == name);
    if let Some(name) = wish.preset {
        let preset = named(name).ok_or_else(|| {
            Problem::new(code::PRESET_UNKNOWN, format!("there is no preset `{name}`"))
                .hint("`kip preset ls` lists them")
        })?;
        let found = entry(listing, preset, wish.file)?;
        let (entry, why) = found
            .ok_or_else(|| nothing(listing).cause(format!("preset `{name}` serves {}", formats(&preset.formats))))?;
        return installed(preset, is_there).and_then(|()| complete(listing, preset, entry, why));
    }
    let mut fitting = Vec::new();
    for preset in presets {
        let does_task = match &listing.task {
            Some(task) => preset.tasks.is_empty() || preset.tasks.contains(task),
            None => true,
        };
        if does_task && let Some((entry, why)) = entry(listing, preset, wish.file)? {
            fitting.push((preset, entry, why));
        }
    }
    fitting.sort_by_key(|(preset, _, _)| (!is_there(preset), preset.order));
    let Some((preset, entry, why)) = fitting.into_iter().next() else { return Err(nothing(listing)) };
    installed(preset, is_there)?;
    complete(listing, preset, entry, why)
}

fn installed(preset: &Preset, is_there: impl Fn(&Preset) -> bool) -> Result<(), Problem> {
    let Some(engine) = preset.engine.as_ref().filter(|_| !is_there(preset)) else { return Ok(()) };
    let message =
        format!("preset `{}` would serve the model, and its engine `{}` is not installed", preset.name, engine.program);
    let by_us =
        if engine.packages.is_empty() { String::new() } else { format!("`kip preset install {}`, or ", preset.name) };
    Err(Problem::new(code::ENGINE_MISSING, message).hint(format!("{by_us}{}", engine.install)))
}

fn formats(formats: &[Format]) -> String {
    let name = |format: &Format| serde_json::to_string(format).unwrap_or_default().trim_matches('"').to_owned();
    formats.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn nothing(listing: &Listing) -> Problem {
    let some: Vec<&str> = listing.files.iter().take(8).map(|file| file.path.as_str()).collect();
    let message = "no preset serves a model with these files";
    Problem::new(code::NO_PRESET, message)
        .cause(format!("it has {}{}", some.join(", "), if listing.files.len() > some.len() { ", …" } else { "" }))
        .hint("`kip preset ls` shows which files presets serve; --file names one, --preset a preset")
}

/// The file that an engine is given, and why; none where the preset does not serve such files.
fn entry(
    listing: &Listing,
    preset: &Preset,
    file: Option<&str>,
) -> Result<Option<(Option<FilePath>, String)>, Problem> {
    let all = || listing.files.iter().map(|file| &file.path);
    let has = |name: &str| all().any(|path| path.as_str() == name);
    for format in &preset.formats {
        let found = match format {
            Format::Onnx => one_of(all().filter(|path| path.as_str().ends_with(".onnx")), file, &ONNX, |_, _| false)?,
            Format::Gguf => {
                let weights = all().filter(|path| {
                    path.as_str().ends_with(".gguf") && !path.name().starts_with("mmproj") && is_first_part(path)
                });
                one_of(weights, file, &QUANTISATIONS, |path, quantisation| {
                    path.to_ascii_lowercase().contains(quantisation)
                })?
            }
            Format::ModelArchive => {
                one_of(all().filter(|path| path.as_str().ends_with(".mar")), file, &[], |_, _| false)?
            }
            Format::App => {
                all().find(|path| APPS.contains(&path.as_str())).map(|path| (path.clone(), format!("it has {path}")))
            }
            Format::Transformers => {
                let weights = |path: &FilePath| {
                    path.as_str().ends_with(".safetensors")
                        || (path.name().starts_with("pytorch_model") && path.as_str().ends_with(".bin"))
                };
                if has("config.json") && all().any(weights) {
                    return Ok(Some((None, "it has a config.json and weights".to_owned())));
                }
                None
            }
            Format::TritonRepository => {
                if all().any(|path| path.as_str().matches('/').count() == 1 && path.name() == "config.pbtxt") {
                    return Ok(Some((None, "it is a repository of Triton".to_owned())));
                }
                None
            }
            Format::SavedModel => {
                if all().any(|path| path.name() == "saved_model.pb") {
                    return Ok(Some((None, "it has a saved_model.pb".to_owned())));
                }
                None
            }
            Format::Modelscope => {
                let weights = |path: &FilePath| WEIGHTS.iter().any(|end| path.as_str().ends_with(end));
                if has("configuration.json") && all().any(weights) {
                    return Ok(Some((None, "it has a configuration.json of ModelScope and weights".to_owned())));
                }
                None
            }
            Format::MlServer if has("model-settings.json") => {
                return Ok(Some((None, "it has a model-settings.json".to_owned())));
            }
            Format::Bento if has("bentofile.yaml") || has("service.py") => {
                return Ok(Some((None, "it is a service of BentoML".to_owned())));
            }
            Format::MlServer | Format::Bento => None,
        };
        if let Some((path, why)) = found {
            return Ok(Some((Some(path), why)));
        }
    }
    Ok(None)
}

/// Not a later part of weights in several files, `…-00002-of-00003.gguf`.
fn is_first_part(path: &FilePath) -> bool {
    let name = path.name();
    !name.contains("-of-") || name.contains("-00001-of-")
}

/// The one that is asked for, the only one, or the first of what is preferred.
fn one_of<'a>(
    files: impl Iterator<Item = &'a FilePath>,
    asked: Option<&str>,
    preferred: &[&str],
    fits: impl Fn(&str, &str) -> bool,
) -> Result<Option<(FilePath, String)>, Problem> {
    let files: Vec<&FilePath> = files.collect();
    if let Some(asked) = asked {
        return Ok(files
            .iter()
            .find(|path| path.as_str() == asked)
            .map(|path| ((*path).clone(), "--file names it".to_owned())));
    }
    match files.as_slice() {
        [] => return Ok(None),
        [only] => return Ok(Some(((*only).clone(), format!("{only} is the only one of its kind")))),
        _ => {}
    }
    for choice in preferred {
        if let Some(path) = files.iter().find(|path| path.as_str() == *choice || fits(path.as_str(), choice)) {
            return Ok(Some(((*path).clone(), format!("of {} files of its kind, {path} is preferred", files.len()))));
        }
    }
    let names: Vec<&str> = files.iter().take(12).map(|path| path.as_str()).collect();
    Err(Problem::new(code::NO_PRESET, format!("the model has {} files that could be served", files.len()))
        .cause(names.join(", "))
        .hint(format!("name one: --file {}", names[0])))
}

/// The files that go with an entry.
fn complete(listing: &Listing, preset: &Preset, entry: Option<FilePath>, why: String) -> Result<Choice, Problem> {
    let is_companion = |path: &FilePath, size: u64| {
        size <= LARGEST_COMPANION && COMPANIONS.iter().any(|end| path.as_str().ends_with(end))
    };
    let belongs = |path: &FilePath, size: u64| match &entry {
        // An app is its whole folder; so is a model that an engine finds by itself, but for weights that are there in another form.
        None => {
            !(path.as_str().ends_with(".onnx")
                || path.as_str().ends_with(".gguf")
                || path.as_str().ends_with(".h5")
                || path.as_str().ends_with(".msgpack"))
        }
        Some(file) if file.as_str().ends_with(".py") => true,
        Some(file) => path == file || is_part_of(path, file) || is_companion(path, size),
    };
    let needed: Vec<_> = listing.files.iter().filter(|file| belongs(&file.path, file.size)).collect();
    let size = needed.iter().map(|file| file.size).sum();
    let files = needed.iter().map(|file| file.path.clone()).collect();
    let why = format!("{why}; {} files, {}", needed.len(), people::size(size));
    Ok(Choice { preset: preset.clone(), entry, files, size, why })
}

/// External data of an ONNX file, and further parts of weights.
fn is_part_of(path: &FilePath, file: &FilePath) -> bool {
    if let Some(stem) = file.as_str().strip_suffix(".onnx") {
        let rest = path.as_str().strip_prefix(file.as_str()).or_else(|| path.as_str().strip_prefix(stem));
        return rest.is_some_and(|rest| {
            ["_data", ".data", ".onnx_data", ".onnx.data"].iter().any(|end| rest.starts_with(end))
        });
    }
    match file.as_str().split_once("-00001-of-") {
        Some((before, after)) => path.as_str().starts_with(before) && path.as_str().ends_with(after),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::ListedFile;
    use crate::preset::shipped::Presets;

    fn listing(files: &[(&str, u64)], task: Option<&str>) -> Listing {
        let file =
            |(path, size): &(&str, u64)| ListedFile { path: FilePath::new(path).unwrap(), size: *size, digest: None };
        Listing {
            commit: String::new(),
            licence: None,
            task: task.map(str::to_owned),
            files: files.iter().map(file).collect(),
        }
    }

    fn chosen(
        files: &[(&str, u64)],
        task: Option<&str>,
        wish: Preference<'_>,
        there: bool,
    ) -> Result<(String, Option<String>, Vec<String>), Problem> {
        let choice =
            choose(&listing(files, task), Presets::shipped().all(), wish, |preset| there || preset.engine.is_none())?;
        Ok((choice.preset.name, choice.entry.map(Into::into), choice.files.into_iter().map(Into::into).collect()))
    }

    #[test]
    fn files_decide_which_preset_serves() {
        let any = Preference::default();
        let files = [
            ("README.md", 1),
            ("config.json", 1),
            ("onnx/model.onnx", 9),
            ("onnx/model.onnx_data", 9),
            ("onnx/model_fp16.onnx", 5),
            ("pytorch_model.bin", 9),
        ];
        let (preset, entry, needed) = chosen(&files, Some("image-classification"), any, false).unwrap();
        assert_eq!((preset.as_str(), entry.as_deref()), ("infer", Some("onnx/model.onnx")));
        assert_eq!(needed, ["README.md", "config.json", "onnx/model.onnx", "onnx/model.onnx_data"]);
        let files = [("m-Q8_0.gguf", 9), ("m-Q4_K_M-00001-of-00002.gguf", 5), ("m-Q4_K_M-00002-of-00002.gguf", 5)];
        let (preset, entry, needed) = chosen(&files, None, any, true).unwrap();
        assert_eq!((preset.as_str(), entry.as_deref()), ("llama-server", Some("m-Q4_K_M-00001-of-00002.gguf")));
        assert_eq!(needed.len(), 2);
        let files = [("config.json", 1), ("model.safetensors", 9), ("flax_model.msgpack", 9)];
        let (preset, entry, needed) = chosen(&files, Some("text-generation"), any, true).unwrap();
        assert_eq!((preset.as_str(), entry, needed.len()), ("vllm", None, 2));
        let (preset, ..) =
            chosen(&files, Some("text-generation"), Preference { preset: Some("sglang"), file: None }, true).unwrap();
        assert_eq!(preset, "sglang");
        // A task that engines for language models do not have; and a model of ModelScope alone.
        let (preset, ..) = chosen(&files, Some("image-classification"), any, true).unwrap();
        assert_eq!(preset, "pipeline");
        let files = [("configuration.json", 1), ("pytorch_model.pt", 9)];
        let (preset, entry, needed) = chosen(&files, Some("ocr-recognition"), any, true).unwrap();
        assert_eq!((preset.as_str(), entry, needed.len()), ("pipeline", None, 2));
    }

    #[test]
    fn what_cannot_run_ends_before_the_download() {
        let weights = [("config.json", 1), ("model.safetensors", 9)];
        let problem = chosen(&weights, Some("text-generation"), Preference::default(), false).unwrap_err();
        assert_eq!(problem.code, code::ENGINE_MISSING);
        assert!(problem.hint.as_deref().is_some_and(|hint| hint.contains("install")), "{problem:?}");
        assert_eq!(chosen(&[("x.bin", 1)], None, Preference::default(), true).unwrap_err().code, code::NO_PRESET);
        let problem = chosen(&[("a.onnx", 1), ("b.onnx", 1)], None, Preference::default(), true).unwrap_err();
        assert!(problem.hint.as_deref() == Some("name one: --file a.onnx"), "{problem:?}");
        let (_, entry, _) =
            chosen(&[("a.onnx", 1), ("b.onnx", 1)], None, Preference { preset: None, file: Some("b.onnx") }, true)
                .unwrap();
        assert_eq!(entry.as_deref(), Some("b.onnx"));
        let unknown = Preference { preset: Some("nothing"), file: None };
        assert_eq!(chosen(&weights, None, unknown, true).unwrap_err().code, code::PRESET_UNKNOWN);
    }
}
