//! Counts test results honestly: a test that prints a line beginning with `skipped: ` did not test anything and does not count as
//! passed.

/// What the lines of a test run add up to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
    ignored: u64,
    /// Lines beginning with `skipped: `.
    skipped_lines: u64,
    /// Tests that wrote such lines.
    skipped_tests: u64,
    /// Why, one for each that was skipped.
    pub(super) reasons: Vec<String>,
    /// Tests that failed since this was last taken.
    pub(super) broken: Vec<String>,
    /// Within the output of passing tests, which nobody wants to read.
    quiet: bool,
    /// The test whose output is being read.
    current: Option<String>,
    /// Whether it has been counted as skipped.
    counted: bool,
}

impl Tally {
    /// Takes a line; answers whether to show it.
    pub(super) fn take(&mut self, line: &str) -> bool {
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
        } else if let Some(name) = rest.strip_suffix(" ... FAILED") {
            self.broken.push(name.to_owned());
        } else if let Some((name, reason)) = rest.split_once(" ... ignored") {
            let reason = reason.trim_start_matches([',', ' ']);
            let reason = if reason.is_empty() { "ignored without a reason" } else { reason };
            self.reasons.push(format!("{name}: {reason}"));
        }
    }

    /// A test that failed has passed when it ran once more.
    pub(super) fn forgive(&mut self) {
        self.failed = self.failed.saturating_sub(1);
    }

    /// A whole suite cannot run here.
    pub(super) fn leave_out(&mut self, reason: String) {
        self.reasons.push(reason);
        self.skipped_lines += 1;
    }

    /// The closing line. A crash or a build that failed leaves no count of its own, so it counts as one.
    pub(super) fn line(&self, clean: bool) -> String {
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
        assert_eq!(tally.broken, ["e"]);
        tally.forgive();
        assert_eq!(tally.line(true), "tests: 2 passed, 0 failed, 3 skipped");
        assert!(shown.contains(&"boom") && !shown.contains(&"some noise") && !shown.contains(&"    b"));
    }

    #[test]
    fn a_run_that_breaks_off_is_not_a_success() {
        assert_eq!(Tally::default().line(false), "tests: 0 passed, 1 failed, 0 skipped");
        assert_eq!(Tally::default().line(true), "tests: 0 passed, 0 failed, 0 skipped");
    }
}
