//! Errors as a person meets them: what happened, why, where, what to do.

use std::fmt;
use std::process::ExitCode;

use kip_spec::{Problem, code};
use kip_wire::Errors;

use crate::output::{Output, printable};

/// Several problems of one document.
#[derive(Debug)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} problems", self.0.len())
    }
}

impl std::error::Error for Problems {}

/// A failure whose every word was printed as the result.
#[derive(Debug)]
pub(crate) struct AlreadyPrinted;

impl fmt::Display for AlreadyPrinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the result says what is wrong")
    }
}

impl std::error::Error for AlreadyPrinted {}

/// An end with an exit code of its own. What there was to say is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(pub(crate) u8);

impl Exit {
    /// After SIGINT, as shells have it.
    pub(crate) const INTERRUPTED: Self = Self(130);
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Exit {}

/// The exit code of an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    error.downcast_ref::<Exit>().map_or(ExitCode::FAILURE, |exit| ExitCode::from(exit.0))
}

/// Shows an error: for people on standard error, with `-o json` as one JSON value on standard output.
pub(crate) fn show(error: &anyhow::Error, output: Output) {
    if error.is::<AlreadyPrinted>() || error.is::<Exit>() {
        return;
    }
    let problems = of(error);
    if output.is_json()
        && let Some(first) = problems.first()
    {
        let errors = if problems.len() > 1 { problems.clone() } else { Vec::new() };
        let _ = output.result(&Errors { error: first.clone(), errors }, |_| String::new());
        return;
    }
    for problem in &problems {
        output.remark(&render(problem));
    }
}

/// The problems behind an error. What has no code of its own came from the operating system.
pub(crate) fn of(error: &anyhow::Error) -> Vec<Problem> {
    if let Some(problems) = error.downcast_ref::<Problems>() {
        return problems.0.clone();
    }
    match error.downcast_ref::<Problem>() {
        Some(problem) => vec![problem.clone()],
        None => vec![Problem::new(code::COMMAND_FAILED, format!("{error:#}"))],
    }
}

/// A problem that did not keep anything from being done, in lines.
pub(crate) fn warning(problem: &Problem) -> String {
    render(problem).replacen("error[", "warning[", 1)
}

/// A problem in lines.
pub(crate) fn render(problem: &Problem) -> String {
    let mut text = format!("error[{}]: {}", problem.code, problem.message);
    if let Some(place) = &problem.place {
        text.push_str(&format!("\n  --> {}:{}:{}", place.file, place.line, place.column));
        if let Some(line) = &place.text {
            let number = place.line.to_string();
            let before: String =
                line.chars().take(usize::try_from(place.column).unwrap_or(1).saturating_sub(1)).map(blank).collect();
            text.push_str(&format!("\n  {number} | {line}\n  {} | {before}^", " ".repeat(number.len())));
        }
    }
    if let Some(cause) = problem.cause.as_deref().filter(|cause| !cause.is_empty()) {
        // What a program wrote may be among it.
        let lines: Vec<_> = cause.lines().map(printable).collect();
        text.push_str(&format!("\n  why: {}", lines.join("\n       ")));
    }
    if let Some(hint) = &problem.hint {
        text.push_str(&format!("\n  try: {hint}"));
    }
    text
}

fn blank(c: char) -> char {
    if c == '\t' { '\t' } else { ' ' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_spec::problem::Place;

    #[test]
    fn a_problem_points_at_its_place() {
        let place = Place { file: "kip.yaml".to_owned(), line: 3, column: 5, text: Some("    idel: 5s".to_owned()) };
        let problem = Problem::new(code::MANIFEST_UNKNOWN_KEY, "there is no key `idel`")
            .hint("did you mean `idle`?")
            .place(place);
        let expected = "error[KW-1002]: there is no key `idel`\n  --> kip.yaml:3:5\n  3 |     idel: 5s\n    |     ^\n  try: did you mean `idle`?";
        assert_eq!(render(&problem), expected);
    }
}
