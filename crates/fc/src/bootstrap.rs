//! The programs that run handlers of Python and Node, in each tree of code, so that a version keeps the one it was made with.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::object;
use crate::declaration::Runtime;
use crate::error::{FcError, FcResult};
use crate::request::{required, text};

/// The folder in a tree; no archive may have it.
pub(crate) const FOLDER: &str = ".kipwake";
const PYTHON: (&str, &str) = ("python.py", include_str!("runtimes/python.py"));
const NODE: (&str, &str) = ("node.js", include_str!("runtimes/node.js"));

/// Writes the programs into a tree.
pub(crate) fn write(tree: &Path) -> io::Result<()> {
    let folder = tree.join(FOLDER);
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    for (name, text) in [PYTHON, NODE] {
        let file = folder.join(name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// The command that runs a configuration's handler.
pub(crate) fn command(runtime: &Runtime, config: &Map<String, Value>) -> FcResult<Vec<String>> {
    let handler = required(config, "handler")?;
    if handler.rsplit_once('.').is_none_or(|(module, function)| module.is_empty() || function.is_empty()) {
        return Err(FcError::invalid(format!("handler is MODULE.FUNCTION, such as index.handler, not `{handler}`")));
    }
    let name = text(config, "runtime")?.unwrap_or_default();
    let mut argv = match runtime {
        Runtime::Node => vec!["node".to_owned(), format!("{FOLDER}/{}", NODE.0)],
        _ => vec![interpreter(name), "-u".to_owned(), format!("{FOLDER}/{}", PYTHON.0)],
    };
    argv.push(handler.to_owned());
    let lifecycle = object(config, "instanceLifecycleConfig")?;
    let initializer = lifecycle.map(|lifecycle| object(lifecycle, "initializer")).transpose()?.flatten();
    if let Some(initializer) = initializer.map(|hook| text(hook, "handler")).transpose()?.flatten()
        && !initializer.is_empty()
    {
        argv.push(initializer.to_owned());
    }
    Ok(argv)
}

/// The interpreter of a runtime: of its own version where the host has it, else the host's Python 3.
fn interpreter(runtime: &str) -> String {
    let path = kip_host::environment::read("PATH").unwrap_or_default();
    // A shim is there whether its version is installed or not.
    let is_shims = |folder: &PathBuf| folder.file_name().is_some_and(|name| name == "shims");
    let folders: Vec<PathBuf> = std::env::split_paths(&path).filter(|folder| !is_shims(folder)).collect();
    let has = |name: &str| folders.iter().any(|folder| folder.join(name).is_file());
    if has(runtime) { runtime.to_owned() } else { "python3".to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn handlers_and_initializers_are_arguments() {
        let config = json!({"runtime": "nodejs20", "handler": "a/index.handler",
            "instanceLifecycleConfig": {"initializer": {"handler": "a/index.begin"}}});
        let argv = command(&Runtime::Node, config.as_object().unwrap()).unwrap();
        assert_eq!(argv, ["node", ".kipwake/node.js", "a/index.handler", "a/index.begin"]);
        for wrong in ["handler", ".x", "x.", ""] {
            assert!(command(&Runtime::Python, json!({"handler": wrong}).as_object().unwrap()).is_err(), "{wrong}");
        }
        assert_eq!(interpreter("python3.99"), "python3");
    }

    #[test]
    fn nothing_in_the_programs_is_taken_for_a_reference() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        assert!(folder.path().join(FOLDER).join("node.js").is_file());
        assert!(write(folder.path()).is_err(), "an archive that has the folder is no archive of ours");
    }
}
