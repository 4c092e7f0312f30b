//! Tests of the reader as a whole: good files, bad files, any text at all, and the documents that describe it.

mod documents;
mod environment;
mod errors;
mod limits;
mod properties;
mod reading;
mod validator;

use std::collections::BTreeMap;
use std::path::Path;

use kip_spec::Problem;
use kip_spec::function::FunctionSpec;

use crate::{Deployer, Manifest, Source, read};

/// A folder with what the tests' manifests name.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("ocr")).unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    std::fs::create_dir(folder.path().join("net")).unwrap();
    std::fs::write(folder.path().join("net/model.onnx"), b"").unwrap();
    std::fs::write(folder.path().join("digits.onnx"), b"").unwrap();
    std::fs::write(folder.path().join("notes.txt"), b"").unwrap();
    folder
}

fn read_in(folder: &Path, text: &str) -> Result<Manifest, Vec<Problem>> {
    read_from(folder, text, &BTreeMap::new(), &BTreeMap::new())
}

fn read_from(
    folder: &Path,
    text: &str,
    variables: &BTreeMap<String, String>,
    env_files: &BTreeMap<String, String>,
) -> Result<Manifest, Vec<Problem>> {
    read(&Source { file: "kip.yaml", text, directory: folder, deployer: Deployer { variables, env_files } })
}

/// Reads functions that must be right, without the first line.
fn good(functions: &str) -> Vec<FunctionSpec> {
    let folder = folder();
    let manifest = read_in(folder.path(), &format!("api: kip/v1\n{functions}"));
    manifest.map_err(|problems| render(&problems, folder.path())).unwrap().functions
}

/// One function with a program, given the rest of its keys in braces' content.
fn one(keys: &str) -> FunctionSpec {
    good(&format!("functions: {{f: {{run: serve, {keys}}}}}")).remove(0)
}

/// Problems as a person would read them; the temporary folder is written `<folder>`.
fn render(problems: &[Problem], folder: &Path) -> String {
    let mut lines = Vec::new();
    for problem in problems {
        lines.push(problem.to_string());
        if let Some(place) = &problem.place {
            lines.push(format!("  {}:{}:{}", place.file, place.line, place.column));
            if let Some(text) = &place.text {
                let column = usize::try_from(place.column).unwrap();
                lines.push(format!("  | {text}"));
                lines.push(format!("  | {}^", " ".repeat(column - 1)));
            }
        }
        if let Some(hint) = &problem.hint {
            lines.push(format!("  = {}", hint.replace('\n', "\n    ")));
        }
    }
    lines.join("\n").replace(&folder.display().to_string(), "<folder>")
}
