//! The environment of instances: `env`, and the files under `env_file` below it.

use std::collections::BTreeMap;

use kip_spec::named_secret::{SecretName, SecretNameError};
use kip_spec::reference::{self, Piece};
use kip_spec::{Problem, code};

use crate::deployer::{OURS, is_set_at_start};
use crate::env_file;
use crate::report::{Report, shown};
use crate::section::{Field, Section};
use crate::tree::{Kind, Position};
use crate::value::{refuse, wrong_type};

/// Bytes of one variable: Linux takes no longer string in an environment (131,072 with name, `=` and the end).
const LONGEST: usize = 131_000;

/// What a function adds to the environment of its instances.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    pub(crate) env: BTreeMap<String, String>,
    /// Variables whose values are secrets, by the name of the secret.
    pub(crate) secrets: BTreeMap<String, SecretName>,
}

pub(crate) fn read(function: &Section<'_>, report: &mut Report<'_>) -> Variables {
    let mut variables = files(function, report);
    let mut secrets = BTreeMap::new();
    let entries = function.entries("env", report);
    let declared: Vec<&str> = entries.iter().map(|field| field.key).collect();
    for field in &entries {
        if let Kind::Map(_) = &field.node.kind {
            if let Some(secret) = secret(field, report) {
                variables.remove(field.key);
                secrets.insert(field.key.to_owned(), secret);
            }
            continue;
        }
        let Some(written) = variable(field, report) else { continue };
        // References to other variables of the function are resolved when an instance starts.
        let later = |name: &str| {
            let own = declared.contains(&name) || variables.contains_key(name);
            is_set_at_start(name) || (own && name != field.key)
        };
        if let Some(value) = resolved(field, &written, later, report) {
            let fault = fault_of(field.key, &value);
            if let Some(fault) = fault {
                report.add(field.node.at, too_long(field, fault));
                continue;
            }
            variables.insert(field.key.to_owned(), value);
        }
    }
    Variables { env: variables, secrets }
}

/// A value with what it takes from the deployer's environment. In `defaults` nothing is taken yet: each function does that.
fn resolved(field: &Field<'_>, written: &str, later: impl Fn(&str) -> bool, report: &mut Report<'_>) -> Option<String> {
    let Some(deployer) = report.deployer() else { return Some(written.to_owned()) };
    let mut value = String::with_capacity(written.len());
    for piece in reference::pieces(written) {
        match piece {
            Piece::Text(text) => value.push_str(&reference::escaped(text)),
            Piece::Variable { name, written, .. } if later(name) => value.push_str(written),
            Piece::Variable { name, otherwise, written } => {
                match (deployer.variables.get(name).filter(|value| otherwise.is_none() || !value.is_empty()), otherwise)
                {
                    (Some(given), _) => value.push_str(&reference::escaped(given)),
                    (None, Some(otherwise)) => value.push_str(&reference::escaped(otherwise)),
                    (None, None) => {
                        let message = format!("`{written}` is not set in the environment of the deployer");
                        let problem = refuse(field, code::MANIFEST_BAD_VALUE, message);
                        let hint = format!(
                            "set {name} and deploy again, write `${{{name}:-}}` if it may be missing, or `${written}` for the text itself"
                        );
                        report.add(field.node.at, problem.hint(hint));
                        return None;
                    }
                }
            }
        }
    }
    Some(value)
}

/// The variables of the files under `env_file`; a later file wins.
fn files(function: &Section<'_>, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let Some(field) = function.field("env_file") else { return variables };
    let paths: Vec<(Position, Option<&str>)> = match &field.node.kind {
        Kind::List(items) => items.iter().map(|item| (item.at, item.scalar())).collect(),
        _ => vec![(field.node.at, field.node.scalar())],
    };
    for (at, path) in paths {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            wrong_type(&field, "the path of a file, or a list of paths", report);
            return variables;
        };
        let Some(deployer) = report.deployer() else { continue };
        let unreadable = |message: String| Problem::new(code::MANIFEST_UNREADABLE, message);
        let Some(text) = deployer.env_files.get(path) else {
            let message = format!("`{}`: the file `{}` was not found or not sent", field.path, shown(path));
            let hint = "paths count from the folder of the manifest; over the API, `env_files` of the deployment holds the texts";
            report.add(at, unreadable(message).hint(hint));
            continue;
        };
        match env_file::parse(text) {
            Ok(found) => {
                for (name, value) in found {
                    let ours = OURS.contains(&name.as_str()) || name.starts_with("KIPWAKE_");
                    let fault = if ours { Some("Kipwake sets this variable itself") } else { fault_of(&name, &value) };
                    if let Some(fault) = fault {
                        let message = format!("`{}`: {name} in `{}`: {fault}", field.path, shown(path));
                        report.add(at, Problem::new(code::MANIFEST_BAD_VALUE, message));
                        continue;
                    }
                    // The values of a file stand for themselves.
                    variables.insert(name, reference::escaped(&value));
                }
            }
            Err(fault) => {
                let message = format!("`{}`: line {} of `{}`: {}", field.path, fault.line, shown(path), fault.what);
                report.add(at, Problem::new(code::MANIFEST_BAD_VALUE, message).hint("write NAME=VALUE, one a line"));
            }
        }
    }
    variables
}

/// The secret that a variable takes its value from: `{secret: NAME}`.
fn secret(field: &Field<'_>, report: &mut Report<'_>) -> Option<SecretName> {
    checked_name(field, report)?;
    let Kind::Map(pairs) = &field.node.kind else { return None };
    let name = match pairs.as_slice() {
        [(key, value)] if key.scalar() == Some("secret") => value.scalar(),
        _ => None,
    };
    let Some(name) = name else {
        wrong_type(field, "text, or the name of a secret: {secret: NAME}", report);
        return None;
    };
    let read = name.parse().map_err(|error: SecretNameError| error.to_string());
    read.map_err(|fault| report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, fault))).ok()
}

fn checked_name(field: &Field<'_>, report: &mut Report<'_>) -> Option<()> {
    let name = field.key;
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !first || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        let message = format!("`{}` cannot be the name of an environment variable", shown(name));
        let problem = refuse(field, code::MANIFEST_BAD_VALUE, message);
        report.add(field.key_at, problem.hint("use letters, digits and `_`, not beginning with a digit"));
        return None;
    }
    if OURS.contains(&name) || name.starts_with("KIPWAKE_") {
        let problem = refuse(field, code::MANIFEST_BAD_VALUE, "Kipwake sets this variable itself");
        let hint = if name.starts_with("KIPWAKE_") {
            "choose a name that does not begin with KIPWAKE_"
        } else {
            "remove it; each instance gets its own port, and `${PORT}` in `run` stands for it"
        };
        report.add(field.key_at, problem.hint(hint));
        return None;
    }
    Some(())
}

fn variable(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    checked_name(field, report)?;
    let name = field.key;
    let Some(value) = field.node.scalar() else {
        wrong_type(field, "text, a number, true or false, or {secret: NAME}", report);
        return None;
    };
    if let Some(fault) = fault_of(name, value) {
        report.add(field.node.at, too_long(field, fault));
        return None;
    }
    Some(value.to_owned())
}

/// Why Linux would not take a variable.
fn fault_of(name: &str, value: &str) -> Option<&'static str> {
    if value.contains('\0') {
        Some("an environment variable cannot hold a zero byte")
    } else if name.len() + value.len() > LONGEST {
        Some("an environment variable cannot be longer than 128 KiB")
    } else {
        None
    }
}

fn too_long(field: &Field<'_>, fault: &str) -> Problem {
    refuse(field, code::MANIFEST_BAD_VALUE, fault).hint("put large values into a file and give its path")
}
