//! Tasks: what a durable accept costs, and accept, claim and complete, beside a raw log on the same disk.

use anyhow::{Result, bail};

use super::gpu::target;
use crate::command::{command, show};

/// `bench tasks [SECONDS] [ROWS] [FOLDER]`: seconds a figure, rows that wait in the last part (0 leaves it out), and where.
pub(super) fn run(arguments: &[&str]) -> Result<()> {
    let (seconds, rows, folder) = match arguments {
        [] => ("2", "1000000", None),
        [seconds] => (*seconds, "1000000", None),
        [seconds, rows] => (*seconds, *rows, None),
        [seconds, rows, folder] => (*seconds, *rows, Some(*folder)),
        _ => bail!("bench tasks [SECONDS] [ROWS] [FOLDER]"),
    };
    show(command("cargo", &["build", "--release", "--quiet", "-p", "kip-store", "--example", "tasks_bench"]))?;
    let target = target()?;
    let own = target.display().to_string();
    let program = target.join("release/examples/tasks_bench");
    show(command(&program.display().to_string(), &[folder.unwrap_or(&own), seconds, rows]))
}
