//! The presets that come with the program, and those of the user.

use std::path::Path;

use kip_spec::{Problem, code};

use super::fields::Preset;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        const SHIPPED: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../presets/", $name, ".toml")))),*];
    };
}

shipped![
    "bentoml",
    "comfyui",
    "gradio",
    "gunicorn",
    "infer",
    "infinity",
    "litserve",
    "llama-cpp-python",
    "llama-server",
    "mlserver",
    "ollama",
    "pipeline",
    "ray-serve",
    "sglang",
    "speaches",
    "streamlit",
    "tei",
    "tensorflow-serving",
    "torchserve",
    "triton",
    "uvicorn",
    "vllm",
];

/// Bytes of a user's preset at most.
const LARGEST: u64 = 256 << 10;

/// All presets, by name.
#[derive(Debug, Clone)]
pub struct Presets {
    all: Vec<Preset>,
    /// The names of those that are the user's.
    own: Vec<String>,
}

impl Presets {
    /// The shipped ones.
    pub fn shipped() -> Self {
        // A test reads each of them.
        let all = SHIPPED.iter().filter_map(|(name, text)| Preset::read(text, name).ok()).collect();
        Self { all, own: Vec::new() }
    }

    /// The shipped ones, and those of a folder, which take the place of shipped ones of the same name. Blocks.
    ///
    /// # Errors
    /// The first file that is no preset.
    pub fn with_folder(folder: &Path) -> Result<Self, Problem> {
        let mut presets = Self::shipped();
        let Ok(entries) = std::fs::read_dir(folder) else { return Ok(presets) };
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "toml")) {
            let origin = file.display().to_string();
            let text = kip_host::directory::read_regular_text(file, LARGEST).map_err(|error| {
                Problem::new(code::PRESET_INVALID, format!("the preset {origin} cannot be read"))
                    .cause(error.to_string())
            })?;
            let preset = Preset::read(&text, &origin)?;
            presets.all.retain(|known| known.name != preset.name);
            presets.own.push(preset.name.clone());
            presets.all.push(preset);
        }
        presets.all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(presets)
    }

    /// All of them, by name.
    pub fn all(&self) -> &[Preset] {
        &self.all
    }

    /// One by its name.
    pub fn find(&self, name: &str) -> Option<&Preset> {
        self.all.iter().find(|preset| preset.name == name)
    }

    /// Whether it is the user's.
    pub fn is_own(&self, name: &str) -> bool {
        self.own.iter().any(|own| own == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_preset_can_be_read() {
        for (name, text) in SHIPPED {
            let preset = Preset::read(text, name).unwrap_or_else(|problem| panic!("{name}: {problem:?}"));
            assert_eq!(preset.name, *name);
        }
        let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("presets")).unwrap().count();
        assert_eq!(files, SHIPPED.len(), "each file is embedded");
    }

    #[test]
    fn the_page_says_how_far_each_preset_was_tried() {
        let page = include_str!("../../../../docs/presets.md");
        for preset in Presets::shipped().all() {
            let tried =
                if preset.evidence == crate::preset::fields::PresetEvidence::Run { "| run |" } else { "| unproven |" };
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", preset.name)));
            assert!(
                row.is_some_and(|row| row.ends_with(tried) && row.contains(&preset.about)),
                "{}: {row:?}",
                preset.name
            );
        }
    }

    #[test]
    fn a_users_preset_takes_the_place_of_a_shipped_one() {
        let folder = tempfile::tempdir().unwrap();
        let text = "name = \"infer\"\nabout = \"mine\"\nevidence = \"unproven\"\nformats = [\"onnx\"]\n";
        std::fs::write(folder.path().join("mine.toml"), text).unwrap();
        let presets = Presets::with_folder(folder.path()).unwrap();
        assert_eq!((presets.find("infer").unwrap().about.as_str(), presets.is_own("infer")), ("mine", true));
        assert_eq!(presets.all().len(), SHIPPED.len());
        std::fs::write(folder.path().join("bad.toml"), "nam = 1").unwrap();
        assert_eq!(Presets::with_folder(folder.path()).unwrap_err().code, code::PRESET_INVALID);
        assert!(Presets::with_folder(Path::new("/nowhere")).is_ok());
    }
}
