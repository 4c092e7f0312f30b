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
    let locked = std::fs::read_to_string(root.join(LOCK)).with_context(|| format!("{LOCK} cannot be read"))?;
    let missing = unlocked(&wanted, &locked);
    if !missing.is_empty() {
        bail!("{LOCK} has no hashes of {}: write it anew, its head says how", missing.join(", "));
    }
    if !is_present(&root, &locked) && debian(&FOR_PYTHON)? {
        environment(&root, &locked)?;
    }
    OF_NODE.iter().try_for_each(|packages| node_packages(&root, packages))
}

/// Packages of Node that tests use.
struct NodePackages {
    /// The file that lists them.
    list: &'static str,
    /// Where they are, beside the tree so that its own tools do not look at them.
    folder: &'static str,
    /// What npm is told beyond the usual.
    more: &'static [&'static str],
    /// Whether tests without them are a failure of the installation.
    needed: bool,
}

const OF_NODE: [NodePackages; 2] = [
    NodePackages { list: "tests/package.json", folder: ".node", more: &[], needed: true },
    // Its optional packages are builds for GPUs, 600 MB of them. There is a build for one kind of processor only.
    NodePackages { list: "tests/llama/package.json", folder: ".llama", more: &["--omit=optional"], needed: false },
];

fn node_packages(root: &Path, packages: &NodePackages) -> Result<()> {
    let NodePackages { list, folder: name, more, needed } = packages;
    let read = |file: &str| std::fs::read_to_string(root.join(file)).with_context(|| format!("{file} cannot be read"));
    let (declared, lock) = (read(list)?, read(&list.replace("package.json", "package-lock.json"))?);
    let wanted = format!("{declared}{lock}");
    let folder = root.join(name);
    let stamp = folder.join("package.installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) || !debian(&FOR_NODE)? {
        return Ok(());
    }
    println!("install: {name} from {list}");
    std::fs::create_dir_all(&folder).with_context(|| format!("the folder {name} cannot be made"))?;
    for (file, text) in [("package.json", &declared), ("package-lock.json", &lock)] {
        std::fs::write(folder.join(file), text).context("the list of packages cannot be written")?;
    }
    // Just what the lock file has, by its hashes. Nothing that a package brings is run at its installation.
    let quiet = ["ci", "--prefix", name, "--ignore-scripts", "--no-audit", "--no-fund"];
    match show(command("npm", &[&quiet, *more].concat())) {
        Err(error) if !needed => {
            eprintln!("note: {name} is not there, and its tests skip: {error:#}");
            return Ok(());
        }
        installed => installed?,
    }
    std::fs::write(stamp, wanted).with_context(|| format!("the stamp of {name} cannot be written"))
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
/// All packages that the requirements lead to, with their hashes.
const LOCK: &str = "tests/requirements.lock";

fn is_present(root: &Path, wanted: &str) -> bool {
    std::fs::read_to_string(root.join(STAMP)).is_ok_and(|installed| installed == wanted)
        && works(&root.join(".venv/bin/python").display().to_string(), &["--version"])
}

fn environment(root: &Path, wanted: &str) -> Result<()> {
    println!("install: .venv from {LOCK}");
    show(command("python3", &["-m", "venv", "--clear", ".venv"]))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", LOCK];
    show(command(&root.join(".venv/bin/python").display().to_string(), &pip))?;
    std::fs::write(root.join(STAMP), wanted).context("the stamp of .venv cannot be written")
}

/// Requirements without an exact version.
fn unpinned(requirements: &str) -> Vec<&str> {
    let lines = requirements.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('-') && !line.contains("==")).collect()
}

/// Requirements whose hashes are not in the lock file.
fn unlocked<'a>(requirements: &'a str, lock: &str) -> Vec<&'a str> {
    let plain = |line: &str| line.split([';', ' ', '[']).next().unwrap_or_default().to_owned();
    let version = |line: &'a str| line.split('#').next().unwrap_or_default().trim();
    let has = |line: &&str| {
        let Some((name, number)) = line.split_once("==") else { return false };
        let wanted = format!("{}==", plain(name));
        let locked = |row: &str| {
            let Some((name, rest)) = row.split_once("==") else { return false };
            format!("{}==", plain(name)).eq_ignore_ascii_case(&wanted.replace('_', "-")) && plain(rest) == number
        };
        lock.lines().any(locked)
    };
    requirements.lines().map(version).filter(|line| !line.is_empty() && !has(line)).collect()
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
    fn requirements_have_hashes() {
        let lock = "httpx==0.28.1 \\\n    --hash=sha256:00\nhuggingface-hub==2.4.0 ; python_version < '4' \\\n";
        let wanted = "httpx[http2]==0.28.1  # clients\nhuggingface_hub==2.4.0\n\nnumpy==1.0\nhttpx==0.28.2\n";
        assert_eq!(unlocked(wanted, lock), ["numpy==1.0", "httpx==0.28.2"]);
        let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
        assert!(unlocked(&read("tests/requirements.txt"), &read(LOCK)).is_empty());
        for list in OF_NODE {
            let lock: serde_json::Value =
                serde_json::from_str(&read(&list.list.replace("package.json", "package-lock.json"))).unwrap();
            let declared: serde_json::Value = serde_json::from_str(&read(list.list)).unwrap();
            assert_eq!(lock["packages"][""]["dependencies"], declared["dependencies"], "{}", list.list);
        }
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
