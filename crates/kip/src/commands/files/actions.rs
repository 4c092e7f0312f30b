//! Commands of a file, run only if that was allowed.

use std::io::{BufRead, IsTerminal};
use std::process::{Command, Stdio};

use kip_serverless::{Action, ActionKind, DeclaredFunction};
use kip_spec::{Problem, code};

use super::project_file::ProjectFile;
use crate::arguments::ConfirmArguments;
use crate::output::Output;

/// Asks on a terminal; elsewhere the answer is `otherwise`.
pub(crate) fn ask(question: &str, otherwise: bool, output: Output) -> anyhow::Result<bool> {
    if !output.shows_progress() || !std::io::stdin().is_terminal() {
        return Ok(otherwise);
    }
    output.remark(&format!("{question} [y/N]"));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Whether the commands of a file may run.
pub(crate) fn permission(
    file: &ProjectFile,
    functions: &[&DeclaredFunction],
    verb: &str,
    confirm: &ConfirmArguments,
    output: Output,
) -> anyhow::Result<bool> {
    let of_functions = functions.iter().flat_map(|function| &function.actions);
    let is_command = |action: &&Action| {
        action.kind == ActionKind::Run && (action.is_for("pre", verb) || action.is_for("post", verb))
    };
    let commands: Vec<&Action> = file.project.actions.iter().chain(of_functions).filter(is_command).collect();
    if commands.is_empty() || confirm.allow_actions {
        return Ok(true);
    }
    if confirm.skip_actions {
        return Ok(false);
    }
    for action in &commands {
        output.remark(&format!("{}: {} (in {})", action.when, action.text, action.directory.display()));
    }
    if ask("run these commands?", false, output)? {
        return Ok(true);
    }
    let message = format!("{} has {} commands to run, and nobody allowed them", file.file, commands.len());
    let first = commands.first().map(|action| action.text.clone()).unwrap_or_default();
    Err(Problem::new(code::ACTION_NOT_ALLOWED, message)
        .cause(format!("the first is: {first}"))
        .hint("--allow-actions runs them, --skip-actions leaves them out")
        .into())
}

/// Runs the commands of a phase. What they print goes to standard error.
pub(crate) fn run(actions: &[Action], phase: &str, verb: &str, output: Output) -> anyhow::Result<()> {
    for action in actions.iter().filter(|action| action.is_for(phase, verb)) {
        if action.kind != ActionKind::Run {
            output.remark(&format!("left out: {} {} (only commands are run)", action.when, action.text));
            continue;
        }
        output.remark(&format!("{}: {}", action.when, action.text));
        let mut command = Command::new("sh");
        command.args(["-c", &action.text]).current_dir(&action.directory).stdin(Stdio::null());
        let ended = command.stdout(Stdio::from(std::io::stderr())).status();
        let fault = match ended {
            Ok(status) if status.success() => continue,
            Ok(status) => format!("it ended with {status}"),
            Err(error) => format!("it cannot be started in {}: {error}", action.directory.display()),
        };
        let message = format!("the command of `{}` failed: {}", action.when, action.text);
        return Err(Problem::new(code::ACTION_FAILED, message)
            .cause(fault)
            .hint("run it by hand in its folder; --skip-actions leaves it out")
            .into());
    }
    Ok(())
}
