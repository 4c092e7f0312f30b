//! Which files a version runs: `code` and `writable`.

use std::path::{Component, Path};

use kip_spec::code;
use kip_spec::function::Program;
use kip_spec::snapshot::{Code, CodeMode};

use crate::report::Report;
use crate::section::Section;
use crate::value::{refuse, texts, word};

/// More are a slip of the pen.
const MOST_WRITABLE: usize = 16;

/// What was declared of the code.
#[derive(Debug)]
pub(crate) struct CodeDeclaration {
    mode: Option<CodeMode>,
    writable: Vec<String>,
}

impl CodeDeclaration {
    /// For this program. Only a command has a folder with its code.
    pub(crate) fn of(self, program: &Program) -> Code {
        match program {
            Program::Command { .. } => {
                Code { mode: self.mode.unwrap_or(CodeMode::Auto), writable: self.writable, snapshot: None }
            }
            Program::Model { .. } | Program::Image(_) => Code::default(),
        }
    }
}

pub(crate) fn code(function: &Section<'_>, report: &mut Report<'_>) -> CodeDeclaration {
    const WORDS: [(&str, CodeMode); 2] = [("snapshot", CodeMode::Snapshot), ("live", CodeMode::Live)];
    let mode = function.field("code").and_then(|field| word(&field, &WORDS, &[], report));
    let mut writable = Vec::new();
    if let Some(field) = function.field("writable") {
        writable = texts(&field, is_below, "write folders below `dir`, such as [outputs, data]", report);
        writable.iter_mut().for_each(|path| *path = normal(path));
        if writable.len() > MOST_WRITABLE {
            let message = format!("more than {MOST_WRITABLE} paths");
            report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message));
        }
        let inner = writable.iter().find_map(|path| {
            let outer = writable.iter().find(|outer| *outer != path && Path::new(path).starts_with(outer))?;
            Some((path, outer))
        });
        if let Some((path, outer)) = inner {
            // An instance could put a link in the place of a folder between both.
            let message = format!("`{path}` is below `{outer}`, which may be written as a whole");
            report.add(field.node.at, refuse(&field, code::MANIFEST_CONTRADICTION, message).hint("name the outer one"));
        }
        if mode == Some(CodeMode::Live) {
            let problem = refuse(&field, code::MANIFEST_CONTRADICTION, "has no effect beside `code: live`");
            report.add(field.key_at, problem.hint("remove one of both: live code is written where it is"));
        }
    }
    CodeDeclaration { mode, writable }
}

/// Says what has no effect beside a model or an image.
pub(crate) fn check(function: &Section<'_>, report: &mut Report<'_>) {
    let Some(program) = ["model", "image"].into_iter().find_map(|key| function.field(key)) else { return };
    for key in ["code", "writable"] {
        // What stands in `defaults` is for those that have a folder.
        if let Some(field) = function.field(key).filter(|_| function.own_keys().any(|own| own == key)) {
            let message = format!("has no effect beside `{}`", program.path);
            report.add(field.key_at, refuse(&field, code::MANIFEST_CONTRADICTION, message).hint("remove it"));
        }
    }
}

fn is_below(path: &str) -> bool {
    let parts = || Path::new(path).components();
    let is_part = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    let is_pattern = path.contains(['*', '?', '[']) || path.trim() != path;
    !is_pattern && parts().all(is_part) && parts().any(|part| matches!(part, Component::Normal(_)))
}

/// Without `./` and a slash at its end.
fn normal(path: &str) -> String {
    let parts = Path::new(path).components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_folder() {
        for (path, expected) in
            [("outputs", Some("outputs")), ("./a/b/", Some("a/b")), ("a/../b", None), ("/tmp", None)]
        {
            assert_eq!(is_below(path).then(|| normal(path)).as_deref(), expected, "{path}");
        }
        for path in ["", ".", "..", "*.db", " out", "out "] {
            assert!(!is_below(path), "{path}");
        }
    }
}
