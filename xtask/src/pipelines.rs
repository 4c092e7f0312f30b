//! The preset `pipeline` with the real libraries: several GB, so it is no part of `cargo xtask test`.

use anyhow::{Context, Result};

use crate::command::{command, root, show};

/// Where the libraries are.
const FOLDER: &str = ".pipelines";
/// The test.
const TEST: &str = "real_engines::real_pipelines_of_a_text_and_of_a_picture";

/// Installs the packages of the preset, unless the same are there, and runs the test.
pub(crate) fn run() -> Result<()> {
    let root = root();
    let preset = root.join("crates/models/presets/pipeline.toml");
    let text = std::fs::read_to_string(preset).context("the preset cannot be read")?;
    let wanted = packages(&text)?;
    let stamp = root.join(FOLDER).join("packages.installed");
    if !std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted.join("\n")) {
        println!("install: {FOLDER} with {}", wanted.join(" "));
        show(command("python3", &["-m", "venv", "--clear", FOLDER]))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        let python = root.join(FOLDER).join("bin/python").display().to_string();
        let mut install = command(&python, &pip);
        install.args(&wanted);
        show(install)?;
        std::fs::write(stamp, wanted.join("\n")).context("the stamp cannot be written")?;
    }
    let cargo = ["test", "--release", "-p", "kip", "--test", "binary", "--", "--exact", TEST, "--nocapture"];
    show(command("cargo", &cargo))
}

/// The packages of a preset. The list of a preset is JSON as well.
fn packages(preset: &str) -> Result<Vec<String>> {
    let line =
        preset.lines().find_map(|line| line.strip_prefix("packages = ")).context("the preset has no packages")?;
    serde_json::from_str(line).context("the packages are no list in a line")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_those_of_the_preset() {
        let text = "name = \"x\"\n[engine]\npackages = [\"a==1\", \"b\"]\n";
        assert_eq!(packages(text).unwrap(), ["a==1", "b"]);
        assert!(packages("name = \"x\"\n").is_err());
    }
}
