//! What tests need beyond Rust and a C compiler: declared here, installed only if it is missing.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::{command, root, show, works};

/// A package of Debian, and how to see that what it brings is there already, from wherever.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    pub(crate) arguments: &'static [&'static str],
}

/// For the Python environment of the tests with real clients.
const FOR_PYTHON: [Package; 2] = [
    Package { name: "python3", program: "python3", arguments: &["--version"] },
    Package { name: "python3-venv", program: "python3", arguments: &["-c", "import ensurepip, venv"] },
];

/// For the clients that are packages of Node.
const FOR_NODE: [Package; 2] = [
    Package { name: "nodejs", program: "node", arguments: &["--version"] },
    Package { name: "npm", program: "npm", arguments: &["--version"] },
];

/// Clients that tests use as they are, and what fuzzing needs.
const PROGRAMS: [Package; 4] = [
    // Not a client: libFuzzer is C++.
    Package { name: "g++", program: "g++", arguments: &["--version"] },
    Package { name: "curl", program: "curl", arguments: &["--version"] },
    Package { name: "nghttp2-client", program: "h2load", arguments: &["--version"] },
    Package { name: "openssl", program: "openssl", arguments: &["version"] },
];

/// Installs what is missing. Where that is not possible, it says what to type; the tests that need it then say so and skip.
pub(crate) fn run() -> Result<()> {
    debian(&PROGRAMS)?;
    let root = root();
    let requirements = root.join("tests/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).context("tests/requirements.txt cannot be read")?;
    let loose = unpinned(&wanted);
    if !loose.is_empty() {
        bail!("tests/requirements.txt names versions that are not pinned with `==`: {}", loose.join(", "));
    }
    if !is_present(&root, &wanted) && debian(&FOR_PYTHON)? {
        environment(&root, &wanted)?;
    }
    clients_of_node(&root)
}

/// Packages of Node, beside the tree so that its own tools do not look at them.
fn clients_of_node(root: &Path) -> Result<()> {
    let wanted =
        std::fs::read_to_string(root.join("tests/package.json")).context("tests/package.json cannot be read")?;
    let folder = root.join(".node");
    let stamp = folder.join("package.installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) || !debian(&FOR_NODE)? {
        return Ok(());
    }
    println!("install: .node from tests/package.json");
    std::fs::create_dir_all(&folder).context("the folder .node cannot be made")?;
    std::fs::write(folder.join("package.json"), &wanted).context("the list of packages cannot be written")?;
    // Nothing that a package brings is run at its installation.
    let quiet = ["install", "--prefix", ".node", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"];
    show(command("npm", &quiet))?;
    std::fs::write(stamp, wanted).context("the stamp of .node cannot be written")
}

/// Installs packages that are missing; answers whether all are there now.
pub(crate) fn debian(packages: &[Package]) -> Result<bool> {
    let is_missing = |package: &&Package| !works(package.program, package.arguments);
    let missing: Vec<&str> = packages.iter().filter(is_missing).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(true);
    }
    let arguments = [&["install", "--yes", "--no-install-recommends"], missing.as_slice()].concat();
    if !works("apt-get", &["--version"]) || !is_root() {
        eprintln!(
            "note: some tests need {}; install them with\n  sudo apt-get {}",
            missing.join(" "),
            arguments.join(" ")
        );
        return Ok(false);
    }
    println!("install: {}", missing.join(" "));
    show(command("apt-get", &["update", "--quiet"]))?;
    let mut install = command("apt-get", &arguments);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    show(install)?;
    Ok(true)
}

pub(crate) fn is_root() -> bool {
    // The owner of our own entry is the effective user.
    std::fs::metadata("/proc/self").is_ok_and(|entry| std::os::unix::fs::MetadataExt::uid(&entry) == 0)
}

/// Where the requirements of a finished environment are kept, to see whether they have changed.
const STAMP: &str = ".venv/requirements.installed";

fn is_present(root: &Path, wanted: &str) -> bool {
    std::fs::read_to_string(root.join(STAMP)).is_ok_and(|installed| installed == wanted)
        && works(&root.join(".venv/bin/python").display().to_string(), &["--version"])
}

fn environment(root: &Path, wanted: &str) -> Result<()> {
    println!("install: .venv from tests/requirements.txt");
    show(command("python3", &["-m", "venv", "--clear", ".venv"]))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "tests/requirements.txt"];
    show(command(&root.join(".venv/bin/python").display().to_string(), &pip))?;
    std::fs::write(root.join(STAMP), wanted).context("the stamp of .venv cannot be written")
}

/// Requirements without an exact version.
fn unpinned(requirements: &str) -> Vec<&str> {
    let lines = requirements.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('-') && !line.contains("==")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_must_be_pinned() {
        let text = "# clients\nopenai==2.1.0\nrequests>=2 # loose\n\nnumpy\n-c constraints.txt\n";
        assert_eq!(unpinned(text), ["requests>=2", "numpy"]);
    }

    #[test]
    fn an_environment_of_other_requirements_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_present(folder.path(), "a==1\n"));
        std::fs::create_dir_all(folder.path().join(".venv/bin")).unwrap();
        std::fs::write(folder.path().join(STAMP), "a==1\n").unwrap();
        // The stamp alone is not enough: there is no Python in it.
        assert!(!is_present(folder.path(), "a==1\n"));
    }
}
