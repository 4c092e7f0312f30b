//! The tests, all of them, and one line that says how many passed, failed and were skipped.
//!
//! Plain `cargo test` runs them too; this also installs what they need and counts honestly: a test that prints a line
//! beginning with `skipped: ` did not test anything and does not count as passed.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::check::timed;
use crate::command::command;
use crate::install;

/// Answers whether all passed. The line with the counts is the last one, so nothing is said after it.
pub(crate) fn run(arguments: &[&str]) -> Result<bool> {
    install::run()?;
    let which = if arguments.is_empty() { &["--workspace"] } else { arguments };
    let (result, took) = timed(|| stream(which));
    let (tally, clean) = result?;
    if !tally.reasons.is_empty() {
        println!("\nskipped:");
        tally.reasons.iter().for_each(|reason| println!("  {reason}"));
    }
    println!("\nthe tests took {:.0} s, building included", took.as_secs_f64());
    println!("{}", tally.line(clean));
    Ok(tally.failed == 0 && clean)
}

/// Runs cargo, shows what it writes, and counts. The second value is whether cargo itself was content.
fn stream(which: &[&str]) -> Result<(Tally, bool)> {
    // Without --show-output the harness keeps the `skipped:` lines of passing tests to itself.
    let arguments = [&["test", "--release", "--no-fail-fast"], which, &["--", "--show-output"]].concat();
    let mut child = command("cargo", &arguments).stdout(Stdio::piped()).spawn().context("cargo cannot be started")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut tally = Tally::default();
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if tally.take(text.trim_end_matches(['\n', '\r'])) {
            print!("{text}");
        }
        line.clear();
    }
    Ok((tally, child.wait()?.success()))
}

/// What the lines of a test run add up to.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Lines beginning with `skipped: `.
    skipped_lines: u64,
    /// Tests that wrote such lines.
    skipped_tests: u64,
    /// Why, one for each that was skipped.
    reasons: Vec<String>,
    /// Within the output of passing tests, which nobody wants to read.
    quiet: bool,
    /// The test whose output is being read.
    current: Option<String>,
    /// Whether it has been counted as skipped.
    counted: bool,
}

impl Tally {
    /// Takes a line; answers whether to show it.
    fn take(&mut self, line: &str) -> bool {
        if line == "successes:" {
            self.quiet = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.quiet = false;
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.current = Some(name.to_owned());
            self.counted = false;
        } else if let Some(reason) = line.strip_prefix("skipped: ") {
            self.skip(reason);
        } else if let Some(rest) = line.strip_prefix("test ") {
            self.result_line(rest);
        }
        !self.quiet
    }

    fn skip(&mut self, reason: &str) {
        let name = self.current.clone().unwrap_or_else(|| "a test".to_owned());
        self.reasons.push(format!("{name}: {reason}"));
        self.skipped_lines += 1;
        // Only what is counted as passed is taken off again.
        if self.quiet && !self.counted {
            self.counted = true;
            self.skipped_tests += 1;
        }
    }

    /// `test result: …` or `test <name> ... ignored, <reason>`.
    fn result_line(&mut self, rest: &str) {
        if let Some(counts) = rest.strip_prefix("result: ") {
            self.current = None;
            for part in counts.split([';', '.']) {
                let mut words = part.split_whitespace();
                let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                    continue;
                };
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        } else if let Some((name, reason)) = rest.split_once(" ... ignored") {
            let reason = reason.trim_start_matches([',', ' ']);
            let reason = if reason.is_empty() { "ignored without a reason" } else { reason };
            self.reasons.push(format!("{name}: {reason}"));
        }
    }

    /// The closing line. A crash or a build that failed leaves no count of its own, so it counts as one.
    fn line(&self, clean: bool) -> String {
        let failed = if clean { self.failed } else { self.failed.max(1) };
        let passed = self.passed.saturating_sub(self.skipped_tests);
        format!("tests: {passed} passed, {failed} failed, {} skipped", self.ignored + self.skipped_lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 4 tests
test a ... ok
test b ... ok
test c ... ignored, needs a GPU
test d ... ok

successes:

---- a stdout ----
some noise
skipped: no Docker here
skipped: no Podman either


successes:
    a
    b

test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

running 1 test
test e ... FAILED

failures:

---- e stdout ----
boom

failures:
    e

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.00s
";

    #[test]
    fn lines_add_up_and_noise_is_left_out() {
        let mut tally = Tally::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|line| tally.take(line)).collect();
        assert_eq!(tally.line(false), "tests: 2 passed, 1 failed, 3 skipped");
        assert_eq!(tally.reasons, ["c: needs a GPU", "a: no Docker here", "a: no Podman either"]);
        assert!(shown.contains(&"boom") && !shown.contains(&"some noise") && !shown.contains(&"    b"));
    }

    #[test]
    fn a_run_that_breaks_off_is_not_a_success() {
        assert_eq!(Tally::default().line(false), "tests: 0 passed, 1 failed, 0 skipped");
        assert_eq!(Tally::default().line(true), "tests: 0 passed, 0 failed, 0 skipped");
    }
}
