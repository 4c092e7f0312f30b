//! Packages of Python, into a folder that `PYTHONUSERBASE` names. pip installs them, or uv where there is no pip.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kip_spec::{Problem, code};

/// An interpreter of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interpreter {
    pub(super) program: String,
    /// Such as 3.11.
    pub(super) version: String,
}

impl Interpreter {
    /// That of a runtime, else the host's Python 3, as instances get it.
    pub(super) fn of(runtime: &str) -> Result<Self, Problem> {
        let ask = |program: &str| {
            let said = "import sys; print('%d.%d' % sys.version_info[:2])";
            let output = Command::new(program).args(["-c", said]).stdin(Stdio::null()).stderr(Stdio::null()).output();
            let output = output.ok().filter(|output| output.status.success())?;
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Some(Self { program: program.to_owned(), version })
        };
        let found = Some(runtime).filter(|name| name.starts_with("python3.")).and_then(ask).or_else(|| ask("python3"));
        found.ok_or_else(|| {
            Problem::new(code::INSTALL_FAILED, "there is no python3 on this host")
                .hint("install python3; `python3 --version` must work")
        })
    }

    /// Where packages are, below a folder.
    pub(super) fn packages(&self, base: &Path) -> PathBuf {
        base.join("lib").join(format!("python{}", self.version)).join("site-packages")
    }

    fn has_pip(&self) -> bool {
        let mut asked = Command::new(&self.program);
        asked.args(["-m", "pip", "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    }

    /// Installs packages into a folder. What the installer prints is shown.
    pub(super) fn install(
        &self,
        arguments: &[String],
        base: &Path,
        directory: &Path,
        environment: &BTreeMap<String, String>,
    ) -> Result<(), Problem> {
        let mut command = Command::new(&self.program);
        command.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--upgrade", "--target"]);
        if !self.has_pip() {
            command = Command::new("uv");
            command.args(["pip", "install", "--python", &self.program, "--target"]);
        }
        command.arg(self.packages(base)).args(arguments).current_dir(directory).envs(environment);
        // A user's own settings of virtual environments are about other places.
        command.env_remove("PIP_REQUIRE_VIRTUALENV").env_remove("PIP_USER");
        command.stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr())).stderr(Stdio::piped());
        let what = arguments.join(" ");
        let output = command.output().map_err(|error| {
            Problem::new(code::INSTALL_FAILED, format!("{what} cannot be installed"))
                .cause(format!("{} has no pip, and uv cannot be started: {error}", self.program))
                .hint("install pip (python3 -m ensurepip) or uv")
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        if let Some(missing) = MissingPin::find(&said) {
            return Err(missing.problem(&self.version));
        }
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n");
        Err(Problem::new(code::INSTALL_FAILED, format!("{what} cannot be installed ({})", output.status))
            .cause(last)
            .hint("what the installer wrote is above; settings such as PIP_INDEX_URL go into the environment or an ENV line"))
    }
}

/// A requirement that no version fulfils.
#[derive(Debug, PartialEq, Eq)]
struct MissingPin {
    /// Such as `tensorflow==1.8.0`.
    requirement: String,
    /// Those there are for this interpreter.
    versions: Vec<String>,
}

impl MissingPin {
    /// From what pip says.
    fn find(said: &str) -> Option<Self> {
        let rest = said.split_once("Could not find a version that satisfies the requirement ")?.1;
        let line = rest.lines().next()?;
        let requirement = line.split(" (from").next()?.trim().to_owned();
        let versions = line.rsplit_once("(from versions:")?.1.trim().trim_end_matches(')');
        let versions = versions.split(',').map(str::trim).filter(|one| !one.is_empty() && *one != "none");
        Some(Self { requirement, versions: versions.map(str::to_owned).collect() })
    }

    fn problem(&self, python: &str) -> Problem {
        let message = format!("{} does not exist for Python {python}", self.requirement);
        let problem = Problem::new(code::INSTALL_PIN, message);
        let (name, wanted) = self.requirement.split_once("==").unwrap_or((&self.requirement, ""));
        match nearest(wanted, &self.versions) {
            Some(near) => problem
                .cause(format!("the nearest version that does is {near}"))
                .hint(format!("write {}=={near}", name.trim())),
            None => problem
                .cause("no version of it exists for this interpreter, or the index does not have it")
                .hint(format!("check the name, or install another Python for the runtime, such as {}", "python3.10")),
        }
    }
}

/// The parts of a version that are numbers, and whether it is a release.
fn release(version: &str) -> (Vec<u64>, bool) {
    let begin = version.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).unwrap_or(version.len());
    let numbers = version[..begin].split('.').filter_map(|part| part.parse().ok()).collect();
    let rest = &version[begin..];
    (numbers, rest.is_empty() || rest.starts_with('+') || rest.starts_with(".post"))
}

/// The smallest release above a version, else the largest below it. Releases come before what is none.
fn nearest(wanted: &str, versions: &[String]) -> Option<String> {
    let target = release(wanted.trim()).0;
    let releases: Vec<&String> = versions.iter().filter(|one| release(one).1).collect();
    let all = if releases.is_empty() { versions.iter().collect() } else { releases };
    let above = all.iter().filter(|one| release(one).0 >= target).min_by_key(|one| release(one).0);
    above.or_else(|| all.iter().max_by_key(|one| release(one).0)).map(|one| (*one).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_does_not_exist_is_named_with_the_nearest_that_does() {
        let said = "ERROR: Ignored the following versions that require a different python version: 1.8.0\n\
             ERROR: Could not find a version that satisfies the requirement tensorflow==1.8.0 (from -r r.txt (line 1)) (from versions: 2.16.0rc0, 2.16.1, 2.17.0)\n\
             ERROR: No matching distribution found for tensorflow==1.8.0\n";
        let missing = MissingPin::find(said).unwrap();
        assert_eq!((missing.requirement.as_str(), missing.versions.len()), ("tensorflow==1.8.0", 3));
        let problem = missing.problem("3.12");
        assert_eq!(problem.code, code::INSTALL_PIN);
        assert!(problem.message.contains("tensorflow==1.8.0 does not exist for Python 3.12"));
        assert_eq!(problem.hint.as_deref(), Some("write tensorflow==2.16.1"));
        let none =
            MissingPin::find("Could not find a version that satisfies the requirement x==1 (from versions: none)");
        assert!(none.unwrap().problem("3.12").cause.unwrap().contains("no version"));
        assert_eq!(MissingPin::find("no space left"), None);
        let of =
            |wanted: &str, all: &[&str]| nearest(wanted, &all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
        assert_eq!(of("9.9", &["1.0", "1.10", "1.9"]).as_deref(), Some("1.10"));
        assert_eq!(of("1.2", &["1.0", "1.10", "1.9"]).as_deref(), Some("1.9"));
        assert_eq!(of("1.2", &["2.0rc1"]).as_deref(), Some("2.0rc1"));
        assert_eq!(of("1", &[]), None);
    }
}
