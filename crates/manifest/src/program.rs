//! What an instance executes: a command or a model of this host, or a container of an image.

use std::path::{Component, Path, PathBuf};

use kip_spec::function::Program;
use kip_spec::{Problem, code};

use crate::report::{Report, shown};
use crate::section::{Field, Section};
use crate::tree::{Kind, Position};
use crate::value::{refuse, wrong_type};
use crate::{image, keys};

/// Words that only a shell understands; commands run without one.
const OPERATORS: [&str; 14] = ["&&", "||", "|", "&", ";", ">", ">>", "<", "<<", "2>", "2>>", "&>", "2>&1", ">&2"];
/// Bytes of one argument: Linux takes no longer one.
const LONGEST: usize = 131_000;
const A_SHELL: &str = "commands run without a shell; for one, write `run: [sh, -c, \"…\"]`";

/// Keys by which a program could be named, the later ones included: one of these is enough not to say that it is missing.
const WAYS: [&str; 4] = ["run", "model", "image", "preset"];

pub(crate) fn read(
    function: &Section<'_>,
    key_at: Position,
    directory: &Path,
    report: &mut Report<'_>,
) -> Option<Program> {
    let dir = function.field("dir");
    if let Some(field) = function.field("image") {
        return of_image(function, &field, directory, report);
    }
    for key in image::BESIDE {
        if let Some(field) = function.field(key) {
            let problem = refuse(&field, code::MANIFEST_CONTRADICTION, "has no effect without `image`");
            report.add(field.key_at, problem.hint("name an image, or remove it"));
        }
    }
    match (function.field("run"), function.field("model")) {
        (Some(_), Some(model)) => {
            let problem = refuse(&model, code::MANIFEST_CONTRADICTION, "`run` and `model` are both given");
            report.add(
                model.key_at,
                problem.hint("keep one: `run` starts your program, `model` the built-in model server"),
            );
            None
        }
        (Some(run), None) => {
            let dir =
                dir.map_or_else(|| Some(directory.to_owned()), |field| working_directory(&field, directory, report));
            let argv = command(&run, report);
            Some(Program::Command { argv: argv?, dir: dir? })
        }
        (None, Some(field)) => {
            if let Some(dir) = dir {
                let problem = refuse(&dir, code::MANIFEST_CONTRADICTION, "has no effect beside `model`");
                report.add(dir.key_at, problem.hint("remove it"));
            }
            model(&field, directory, report)
        }
        (None, None) => {
            // A misspelt `run` has been told already; that it is missing too would only confuse.
            let is_named =
                |key: &str| WAYS.contains(&key) || keys::FUNCTION.meant(key).is_some_and(|meant| WAYS.contains(&meant));
            if !function.own_keys().any(is_named) {
                let message = format!("`{}` names no program: `run`, `model` or `image` is missing", function.owner());
                let hint = "write `run:` with the command that starts it, `model:` with the path of an .onnx file, or `image:` with the name of an image";
                report.add(key_at, Problem::new(code::MANIFEST_MISSING_KEY, message).hint(hint));
            }
            None
        }
    }
}

/// A container: `run` takes the place of the image's command, and `dir` is inside.
fn of_image(function: &Section<'_>, field: &Field<'_>, directory: &Path, report: &mut Report<'_>) -> Option<Program> {
    if let Some(model) = function.field("model") {
        let problem = refuse(&model, code::MANIFEST_CONTRADICTION, "`image` and `model` are both given");
        report.add(model.key_at, problem.hint("keep one: `image` runs a container, `model` the built-in model server"));
        return None;
    }
    let argv = match function.field("run") {
        Some(run) => command(&run, report)?,
        None => Vec::new(),
    };
    let container = image::read(function, field, argv, directory, report)?;
    Some(Program::Image(Box::new(container)))
}

/// The program of a job.
pub(crate) fn of_job(
    job: &Section<'_>,
    key_at: Position,
    directory: &Path,
    report: &mut Report<'_>,
) -> Option<Program> {
    if let Some(field) = job.field("image") {
        return of_image(job, &field, directory, report);
    }
    for key in image::BESIDE {
        if let Some(field) = job.field(key) {
            let problem = refuse(&field, code::MANIFEST_CONTRADICTION, "has no effect without `image`");
            report.add(field.key_at, problem.hint("name an image, or remove it"));
        }
    }
    let Some(run) = job.field("run") else {
        // A misspelt `run` has been told already.
        let is_named = |key: &str| matches!(keys::JOB.meant(key), Some("run" | "image"));
        if !job.own_keys().any(is_named) {
            let message = format!("`{}` names no program: `run` is missing", job.owner());
            let problem = Problem::new(code::MANIFEST_MISSING_KEY, message);
            let hint =
                "write `run:` with the command that does the work and ends, or `image:` with the name of an image";
            report.add(key_at, problem.hint(hint));
        }
        return None;
    };
    let dir = job.field("dir");
    let dir = dir.map_or_else(|| Some(directory.to_owned()), |field| working_directory(&field, directory, report));
    Some(Program::Command { argv: command(&run, report)?, dir: dir? })
}

fn working_directory(field: &Field<'_>, base: &Path, report: &mut Report<'_>) -> Option<PathBuf> {
    let Kind::Text(text) = &field.node.kind else {
        wrong_type(field, "the path of a directory", report);
        return None;
    };
    let path = resolve(base, text);
    if !path.is_dir() {
        let what = if path.exists() { "is not a directory" } else { "does not exist" };
        let message = format!("the directory {} {what}", path.display());
        let hint = "the path counts from the folder of the manifest";
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, message).hint(hint));
        return None;
    }
    Some(path)
}

pub(crate) fn command(field: &Field<'_>, report: &mut Report<'_>) -> Option<Vec<String>> {
    let before = report.count();
    let argv = match &field.node.kind {
        Kind::Text(text) => words(field, text, report)?,
        Kind::List(items) => {
            let mut argv = Vec::with_capacity(items.len());
            for item in items {
                match item.scalar() {
                    Some(text) => argv.push(text.to_owned()),
                    None => {
                        let message = format!("`{}`: each item must be text; here is {}", field.path, item.described());
                        let problem = Problem::new(code::MANIFEST_WRONG_TYPE, message);
                        report.add(item.at, problem.hint("put quotes around it"));
                    }
                }
            }
            argv
        }
        _ => {
            wrong_type(field, "a command, as text or as a list", report);
            return None;
        }
    };
    let fault = if argv.first().is_none_or(String::is_empty) {
        Some("names no program")
    } else if argv.iter().any(|word| word.contains('\0')) {
        Some("has a zero byte, which no argument can hold")
    } else if argv.iter().any(|word| word.len() > LONGEST) {
        Some("has an argument longer than 128 KiB")
    } else {
        None
    };
    if let Some(fault) = fault
        && report.count() == before
    {
        report.add(field.node.at, Problem::new(code::MANIFEST_BAD_VALUE, format!("`{}` {fault}", field.path)));
    }
    (report.count() == before).then_some(argv)
}

/// A command line with its continued lines joined: a backslash at the end of a line, outside of single quotes, goes with the line break.
fn without_continuations(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    let (mut single, mut double) = (false, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '\\' if !single => match characters.next() {
                Some('\n') => continue,
                Some(next) => {
                    joined.extend(['\\', next]);
                    continue;
                }
                None => {}
            },
            _ => {}
        }
        joined.push(character);
    }
    joined
}

/// A command line as text, split by the quoting rules of a shell and nothing else of it.
fn words(field: &Field<'_>, text: &str, report: &mut Report<'_>) -> Option<Vec<String>> {
    let at = field.node.at;
    let Some(argv) = shlex::split(&without_continuations(text)) else {
        let message = format!("a quote or a backslash is left open in `{}`", shown(text));
        let problem = refuse(field, code::MANIFEST_BAD_VALUE, message);
        report.add(at, problem.hint("close it, or write the command as a list: `run: [program, argument]`"));
        return None;
    };
    let operator = argv.iter().find(|word| {
        OPERATORS.contains(&word.as_str()) || word.ends_with(';') || word.contains("$(") || word.contains('`')
    });
    if let Some(operator) = operator {
        let message = format!("`{}` is for a shell, and none reads this command", shown(operator));
        report.add(at, refuse(field, code::MANIFEST_BAD_VALUE, message).hint(A_SHELL));
        return None;
    }
    if let Some((name, _)) = argv.first().and_then(|word| word.split_once('='))
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        let message = format!("`{name}=…` before the program is for a shell, and none reads this command");
        let problem = refuse(field, code::MANIFEST_BAD_VALUE, message);
        report.add(at, problem.hint(format!("write it below `env:` as `{name}: …`")));
        return None;
    }
    Some(argv)
}

fn model(field: &Field<'_>, base: &Path, report: &mut Report<'_>) -> Option<Program> {
    let Kind::Text(text) = &field.node.kind else {
        wrong_type(field, "the path of an .onnx file or of a folder", report);
        return None;
    };
    let is_path = text == "." || text == ".." || ["./", "../", "/"].iter().any(|start| text.starts_with(start));
    if !is_path {
        report.add(field.node.at, not_a_path(field, text, base));
        return None;
    }
    let path = resolve(base, text);
    let fault = if path.is_dir() {
        (!path.join("model.onnx").is_file()).then_some((code::MODEL_NOT_FOUND, "is a folder without a model.onnx"))
    } else if !path.exists() {
        Some((code::MODEL_NOT_FOUND, "does not exist"))
    } else if path.extension().is_none_or(|extension| extension != "onnx") {
        Some((code::MANIFEST_BAD_VALUE, "is not an .onnx file"))
    } else {
        None
    };
    if let Some((code, fault)) = fault {
        let problem = refuse(field, code, format!("{} {fault}", path.display()));
        let hint =
            "name an .onnx file, or a folder that holds a model.onnx; the path counts from the folder of the manifest";
        report.add(field.node.at, problem.hint(hint));
        return None;
    }
    Some(Program::Model { path: if path.is_dir() { path.join("model.onnx") } else { path } })
}

fn not_a_path(field: &Field<'_>, text: &str, base: &Path) -> Problem {
    if resolve(base, text).exists() || text.ends_with(".onnx") {
        let message = format!("`{}` does not look like a path", shown(text));
        let problem = refuse(field, code::MANIFEST_BAD_VALUE, message);
        return problem.hint(format!("write `./{}`", shown(text)));
    }
    let hint = "download the model, and give its path: `model: ./model.onnx`";
    keys::not_yet(&format!("{}: {}", field.path, shown(text)), hint)
}

/// Absolute, without `.` parts. `..` stays: behind a symbolic link it is not the folder above in the text.
pub(crate) fn resolve(base: &Path, text: &str) -> PathBuf {
    base.join(text).components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `sh -c` reads them.
    #[test]
    fn continued_lines_are_one_line() {
        for (text, words) in [
            ("serve \\\n  --model /m \\\n  --port 1\n", vec!["serve", "--model", "/m", "--port", "1"]),
            ("a\\\nb", vec!["ab"]),
            ("a \"b\\\nc\"", vec!["a", "bc"]),
            ("a 'b\\\nc'", vec!["a", "b\\\nc"]),
            ("a \\\\\nb", vec!["a", "\\", "b"]),
            ("a \\'b", vec!["a", "'b"]),
            ("a \"it's\" \\\n b", vec!["a", "it's", "b"]),
        ] {
            assert_eq!(shlex::split(&without_continuations(text)).unwrap(), words, "{text:?}");
        }
    }
}
