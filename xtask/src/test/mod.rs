//! The tests, all of them, and one line that says how many passed, failed and were skipped.
//!
//! Plain `cargo test` runs them too. This installs what they need while cargo compiles, runs suite after suite from one build, and
//! holds each against the time it may take.

pub(crate) mod engines;
mod suites;
mod tally;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::check::timed;
use crate::command::{command, read, root};
use crate::install;
use suites::{Program, SUITES, Suite};
use tally::Tally;

/// Runs the suites of these names; if there are none, all. Words for cargo, such as `-p kip-fleet`, run what cargo makes of them.
/// Answers whether all passed. The line with the counts is the last one, so nothing is said after it.
pub(crate) fn run(arguments: &[&str]) -> Result<bool> {
    let mut tally = Tally::default();
    let clean = match arguments.first() {
        Some(first) if first.starts_with('-') => {
            install::run()?;
            let words = [&["test", "--release", "--no-fail-fast"], arguments, &["--", "--show-output"]].concat();
            stream(command("cargo", &words), &mut tally)?
        }
        first => all(&chosen(arguments)?, first.is_some(), &mut tally)?,
    };
    if !tally.reasons.is_empty() {
        println!("\nskipped:");
        tally.reasons.iter().for_each(|reason| println!("  {reason}"));
    }
    println!("{}", tally.line(clean));
    Ok(tally.failed == 0 && clean)
}

fn chosen(names: &[&str]) -> Result<Vec<&'static Suite>> {
    if names.is_empty() {
        return Ok(SUITES.iter().collect());
    }
    let find = |name: &&str| {
        let known = SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ");
        SUITES.iter().find(|suite| suite.name == *name).with_context(|| format!("no suite `{name}`: {known}"))
    };
    names.iter().map(find).collect()
}

/// Builds once, then runs suite after suite. Whoever names a suite wants it to run; else one whose engines cannot run here is left out.
/// The answer is whether all went as it should.
fn all(suites: &[&Suite], named: bool, tally: &mut Tally) -> Result<bool> {
    let (built, took) = timed(build_and_install);
    let programs = built?;
    let mut clean = true;
    let mut summary = vec![format!("  {:>5.1} min  building and installing", minutes(took))];
    for suite in suites {
        let engines = match suite.engines.then(engines::Engines::start).transpose() {
            Ok(engines) => engines.flatten(),
            Err(error) if named => return Err(error),
            Err(error) => {
                tally.leave_out(format!("the suite {}: {error:#}", suite.name));
                continue;
            }
        };
        let (passed, took) = timed(|| {
            let own = programs.iter().filter(|program| suite.has(&program.folder));
            let mut run = |program| {
                let mut command = start(program, suite);
                engines.iter().for_each(|engines| engines.announce(&mut command));
                command.args(suite.filters());
                tally.broken.clear();
                Ok(stream(command, tally)? || engines.is_some() && once_more(program, suite, engines.as_ref(), tally)?)
            };
            own.map(&mut run).collect::<Result<Vec<bool>>>()
        });
        drop(engines);
        clean &= passed?.iter().all(|passed| *passed);
        let verdict = match minutes(took) / suite.cap as f64 {
            share if share > 2.0 => {
                clean = false;
                "FAILED: more than twice that"
            }
            share if share > 1.0 => "more than that",
            _ => "",
        };
        summary.push(format!("  {:>5.1} min  {} (cap {} min) {verdict}", minutes(took), suite.name, suite.cap));
    }
    println!("\nsuites:\n{}", summary.join("\n"));
    Ok(clean)
}

fn minutes(took: Duration) -> f64 {
    took.as_secs_f64() / 60.0
}

/// What tests need is fetched while cargo compiles: the one waits for the network, the other for the processor.
fn build_and_install() -> Result<Vec<Program>> {
    std::thread::scope(|scope| {
        let installing = scope.spawn(install::run);
        // With what is left out by default: it is tested too.
        let arguments = ["test", "--release", "--workspace", "--features", "kip/s3", "--no-run", "--quiet"];
        let form = ["--message-format", "json-render-diagnostics"];
        let messages = read(command("cargo", &[&arguments[..], &form].concat()));
        match installing.join() {
            Ok(installed) => installed?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        let programs = suites::programs(&messages?, &root());
        if programs.is_empty() {
            bail!("cargo has built no tests");
        }
        Ok(programs)
    })
}

/// The command that runs a test program as cargo would.
fn start(program: &Program, suite: &Suite) -> Command {
    let mut command = Command::new(&program.file);
    let folder = root().join(&program.folder);
    // Without --show-output the harness keeps the `skipped:` lines of passing tests to itself.
    command.arg("--show-output").current_dir(&folder).env("CARGO_MANIFEST_DIR", &folder);
    if let Some(threads) = suite.threads {
        command.arg(format!("--test-threads={threads}"));
    }
    println!("== {}: {}", suite.name, program.folder.display());
    command
}

/// What failed beside engines that many tests share runs once more, alone; it is named, whatever comes of it. Answers whether all of it
/// passed.
fn once_more(program: &Program, suite: &Suite, engines: Option<&engines::Engines>, tally: &mut Tally) -> Result<bool> {
    let broken = std::mem::take(&mut tally.broken);
    let mut passed = !broken.is_empty();
    for name in broken {
        let mut command = start(program, suite);
        engines.iter().for_each(|engines| engines.announce(&mut command));
        command.args(["--exact", &name]);
        if stream(command, tally)? {
            println!("passed at the second try: {name}");
            tally.forgive();
        } else {
            // It is counted once.
            tally.forgive();
            passed = false;
        }
    }
    Ok(passed)
}

/// Runs a command, shows what it writes, and counts. The answer is whether it ended well.
fn stream(mut command: Command, tally: &mut Tally) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("the tests cannot be started")?;
    let output = child.stdout.take().context("the tests have no output")?;
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if tally.take(text.trim_end_matches(['\n', '\r'])) {
            print!("{text}");
        }
        line.clear();
    }
    Ok(child.wait()?.success())
}
