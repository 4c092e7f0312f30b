//! `${NAME}` in arguments, and where the shell would find a program.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kip_spec::reference::{Piece, pieces};

use crate::body::StartProblem;

/// Replaces `${NAME}` by the variable's value. A name that is not set stays as it is, so that the mistake can be seen.
pub(crate) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = rest.split_at(start);
        result.push_str(before);
        let value = after[2..].find('}').and_then(|end| Some((env.get(&after[2..2 + end])?, end)));
        match value {
            Some((value, end)) => {
                result.push_str(value);
                rest = &after[end + 3..];
            }
            None => {
                result.push_str("${");
                rest = &after[2..];
            }
        }
    }
    result.push_str(rest);
    result
}

/// References to a variable that refers to others, and so on, in a row.
const DEEPEST: usize = 16;

/// Resolves `${NAME}` in the variables that a function declares: its other variables, and what the instance has besides. A name that is
/// not set stays as it is written, and so does one that leads back to itself.
pub(crate) fn declared(env: &mut BTreeMap<String, String>, declared: &BTreeMap<String, String>) {
    // What Kipwake sets wins over a declaration of the same name.
    let of_function =
        |name: &str| declared.get(name).filter(|value| value.contains("${") && env.get(name) == Some(value));
    let names = declared.keys().filter(|name| of_function(name).is_some());
    let resolved: Vec<(String, String)> =
        names.filter_map(|name| Some((name.clone(), resolve(name, env, &of_function, DEEPEST)?))).collect();
    env.extend(resolved);
}

fn resolve<'a>(
    name: &str,
    env: &'a BTreeMap<String, String>,
    of_function: &impl Fn(&str) -> Option<&'a String>,
    deeper: usize,
) -> Option<String> {
    let Some(value) = of_function(name) else { return env.get(name).cloned() };
    let deeper = deeper.checked_sub(1)?;
    let mut result = String::with_capacity(value.len());
    for piece in pieces(value) {
        match piece {
            Piece::Text(text) => result.push_str(text),
            Piece::Variable { name: other, otherwise, written } => {
                let known = if other == name { None } else { resolve(other, env, of_function, deeper) };
                match (known.filter(|known| otherwise.is_none() || !known.is_empty()), otherwise) {
                    (Some(known), _) => result.push_str(&known),
                    (None, Some(otherwise)) => result.push_str(otherwise),
                    (None, None) => result.push_str(written),
                }
            }
        }
    }
    Some(result)
}

/// The program file that a command names: a path from `directory`, or a name on the instance's `PATH`. `seen` is where we find what the
/// instance finds at a path.
pub(crate) fn program(
    command: &str,
    directory: &Path,
    env: &BTreeMap<String, String>,
    seen: impl Fn(&Path) -> PathBuf,
) -> Result<PathBuf, (StartProblem, String)> {
    let candidates: Vec<PathBuf> = if command.contains('/') {
        vec![directory.join(command)]
    } else {
        let path = env.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
        path.split(':').filter(|folder| !folder.is_empty()).map(|folder| directory.join(folder).join(command)).collect()
    };
    let found: Vec<&PathBuf> = candidates.iter().filter(|file| seen(file).is_file()).collect();
    if let Some(file) = found.iter().find(|file| is_executable(&seen(file))) {
        return Ok((*file).clone());
    }
    if let Some(file) = found.first() {
        return Err((StartProblem::CommandNotExecutable, format!("{} is not marked executable", file.display())));
    }
    let detail = match candidates.as_slice() {
        [only] if seen(only).is_dir() => {
            return Err((StartProblem::CommandNotExecutable, format!("{} is a folder", only.display())));
        }
        [only] => format!("there is no file {}", only.display()),
        _ => format!("there is no program `{command}` on the instance's PATH"),
    };
    Err((StartProblem::CommandNotFound, detail))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_unknown_ones_stay() {
        let env = BTreeMap::from([("PORT".to_owned(), "81".to_owned()), ("A".to_owned(), "${PORT}".to_owned())]);
        for (text, expected) in [
            ("--port=${PORT}", "--port=81"),
            ("${PORT}${PORT}", "8181"),
            ("${A}", "${PORT}"),
            ("${NOPE} $PORT ${", "${NOPE} $PORT ${"),
        ] {
            assert_eq!(expand(text, &env), expected);
        }
    }

    #[test]
    fn declared_variables_refer_to_each_other_and_to_what_the_instance_has() {
        let declared_ones = BTreeMap::from(
            [
                ("URL", "http://127.0.0.1:${PORT}/${BASE}"),
                ("BASE", "${ROOT}/v1"),
                ("ROOT", "api"),
                ("TEXT", "$${PORT} $PORT"),
                ("OTHERWISE", "${NONE:-x}"),
                ("UNKNOWN", "${NONE}"),
                ("LOOP", "${POOL}"),
                ("POOL", "${LOOP}"),
                ("PATH", "/own:${PATH}"),
                ("FC_X", "${PORT}"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let mut env = BTreeMap::from([("HOME".to_owned(), "/h".to_owned())]);
        env.extend(declared_ones.clone());
        env.insert("PORT".to_owned(), "81".to_owned());
        env.insert("FC_X".to_owned(), "ours".to_owned());
        declared(&mut env, &declared_ones);
        for (name, expected) in [
            ("URL", "http://127.0.0.1:81/api/v1"),
            ("BASE", "api/v1"),
            ("TEXT", "${PORT} $PORT"),
            ("OTHERWISE", "x"),
            ("UNKNOWN", "${NONE}"),
            ("PATH", "/own:${PATH}"),
            ("FC_X", "ours"),
        ] {
            assert_eq!(env[name], expected, "{name}");
        }
        assert!(env["LOOP"].starts_with("${"), "{}", env["LOOP"]);
    }

    #[test]
    fn programs_are_found_or_the_reason_is_said() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plain"), "x").unwrap();
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        assert!(program("sh", folder.path(), &env, Path::to_owned).is_ok());
        assert!(matches!(
            program("./plain", folder.path(), &env, Path::to_owned),
            Err((StartProblem::CommandNotExecutable, _))
        ));
        assert!(matches!(
            program("./none", folder.path(), &env, Path::to_owned),
            Err((StartProblem::CommandNotFound, _))
        ));
        assert!(matches!(
            program("no-such-program", folder.path(), &env, Path::to_owned),
            Err((StartProblem::CommandNotFound, _))
        ));
    }
}
