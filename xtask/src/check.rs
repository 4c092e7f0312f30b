//! Everything that can be said about the code without running it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::command::{command, show};
use crate::{arrows, circles, crates, errors, generated, schema, words};

/// A check and its name.
type Stage = (&'static str, fn() -> Result<()>);

/// Runs every check, also after one has failed, and says at the end which did.
pub(crate) fn run() -> Result<()> {
    let stages: [Stage; 11] = [
        ("format", || show(command("cargo", &["fmt", "--all", "--check"]))),
        ("arrows", arrows::run),
        ("circles", circles::run),
        ("words", words::run),
        ("crates", crates::run),
        ("errors", || errors::run(false)),
        ("schema", || schema::run(false)),
        ("OpenAPI document", || generated::openapi(false)),
        ("schemas of databases", || generated::databases(false)),
        ("lints", lints),
        ("API documentation", documentation),
    ];
    let mut summary = Vec::new();
    let mut failed = Vec::new();
    for (name, stage) in stages {
        println!("== {name}");
        let (result, took) = timed(stage);
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        summary.push(format!("  {verdict:<6} {name} ({:.1} s)", took.as_secs_f64()));
        if let Err(error) = result {
            eprintln!("{error:#}");
            failed.push(name);
        }
    }
    println!("== check\n{}", summary.join("\n"));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Optimised like the tests, so that what both need is compiled once.
fn lints() -> Result<()> {
    show(command("cargo", &["clippy", "--workspace", "--all-targets", "--release", "--", "-D", "warnings"]))
}

fn documentation() -> Result<()> {
    let mut command =
        command("cargo", &["doc", "--no-deps", "--workspace", "--release", "--quiet", "--document-private-items"]);
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    show(command)
}

/// Runs something and says how long it took.
pub(crate) fn timed<T>(body: impl FnOnce() -> T) -> (T, Duration) {
    #[expect(clippy::disallowed_methods, reason = "a tool of development has no tests with a clock of their own")]
    let start = Instant::now();
    let result = body();
    (result, start.elapsed())
}
