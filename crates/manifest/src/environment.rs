//! Extra environment of instances.

use std::collections::BTreeMap;

use kip_spec::code;

use crate::report::{Report, shown};
use crate::section::{Field, Section};
use crate::value::{refuse, wrong_type};

/// Set for every instance; a declared one would be overwritten in silence.
const OURS: [&str; 3] = ["PORT", "FC_SERVER_PORT", "FC_CUSTOM_LISTEN_PORT"];
/// Bytes of one variable: Linux takes no longer string in an environment (131,072 with name, `=` and the end).
const LONGEST: usize = 131_000;

pub(crate) fn read(function: &Section<'_>, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for field in function.entries("env", report) {
        if let Some(value) = variable(&field, report) {
            variables.insert(field.key.to_owned(), value);
        }
    }
    variables
}

fn variable(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
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
    let Some(value) = field.node.scalar() else {
        wrong_type(field, "text, a number, true or false", report);
        return None;
    };
    let fault = if value.contains('\0') {
        Some("an environment variable cannot hold a zero byte")
    } else if name.len() + value.len() > LONGEST {
        Some("an environment variable cannot be longer than 128 KiB")
    } else {
        None
    };
    if let Some(fault) = fault {
        let hint = "put large values into a file and give its path";
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, fault).hint(hint));
        return None;
    }
    Some(value.to_owned())
}
