//! Packages of the system and of Node, commands, and files.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use kip_spec::{Problem, code};

fn run(command: &mut Command, what: &str, hint: &str) -> Result<(), Problem> {
    let failed =
        |cause: String| Problem::new(code::INSTALL_FAILED, format!("{what} failed")).cause(cause).hint(hint.to_owned());
    match command.stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr())).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(format!("it ended with {status}; what it wrote is above"))),
        Err(error) => Err(failed(format!("{} cannot be started: {error}", command.get_program().display()))),
    }
}

/// Packages of the system, unpacked below a folder; nothing of the host changes. What the host has already is left out.
pub(super) fn apt(names: &[String], root: &Path) -> Result<(), Problem> {
    const HINT: &str = "run `apt-get update` once; on another system install the packages by hand";
    std::fs::create_dir_all(root).map_err(|error| {
        Problem::new(code::INSTALL_FAILED, format!("{} cannot be made", root.display())).cause(error.to_string())
    })?;
    let folder = tempfile::tempdir().map_err(|error| {
        Problem::new(code::INSTALL_FAILED, "there is no room for packages").cause(error.to_string())
    })?;
    let what = format!("apt-get install {}", names.join(" "));
    let mut asked = Command::new("apt-get");
    asked.args(["--print-uris", "-qq", "-y", "install", "--no-install-recommends"]).args(names).stdin(Stdio::null());
    let listed = asked.output().map_err(|error| {
        Problem::new(code::INSTALL_FAILED, format!("{what} failed"))
            .cause(format!("apt-get cannot be started: {error}"))
            .hint(HINT)
    })?;
    if !listed.status.success() {
        let said = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
        return Err(Problem::new(code::INSTALL_FAILED, format!("{what} failed")).cause(said).hint(HINT));
    }
    let missing = listed_packages(&String::from_utf8_lossy(&listed.stdout));
    if missing.is_empty() {
        return Ok(());
    }
    run(Command::new("apt-get").arg("download").args(&missing).current_dir(folder.path()), &what, HINT)?;
    for entry in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
        let unpack = format!("unpacking {}", entry.file_name().to_string_lossy());
        run(Command::new("dpkg").arg("-x").arg(entry.path()).arg(root), &unpack, HINT)?;
    }
    Ok(())
}

/// `NAME=VERSION` of each archive: `'https://…/libgl1_1.3_amd64.deb' libgl1_1.3_amd64.deb 123 SHA256:…`.
fn listed_packages(text: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let mut parts = line.split_whitespace().nth(1)?.strip_suffix(".deb")?.split('_');
        let (name, version) = (parts.next()?, parts.next()?);
        // A colon is written so in names of files.
        Some(format!("{name}={}", version.replace("%3a", ":")))
    };
    text.lines().filter_map(of_line).collect()
}

/// Packages of Node: those of package.json, or those named, into `node_modules` of a folder.
pub(super) fn npm(
    arguments: &[String],
    directory: &Path,
    environment: &BTreeMap<String, String>,
) -> Result<(), Problem> {
    let mut command = Command::new("npm");
    command
        .args(["install", "--omit=dev", "--no-audit", "--no-fund"])
        .args(arguments)
        .current_dir(directory)
        .envs(environment);
    run(
        &mut command,
        &format!("npm install {}", arguments.join(" ")),
        "install Node and npm; `npm --version` must work",
    )
}

/// A command of the shell, in the folder of the code.
pub(super) fn shell(text: &str, directory: &Path, environment: &BTreeMap<String, String>) -> Result<(), Problem> {
    let mut command = Command::new("sh");
    command.args(["-c", text]).current_dir(directory).envs(environment);
    run(&mut command, &format!("`{text}`"), "run it by hand in the folder of the code")
}

/// Copies files of the Funfile's folder into the code. `/code` is its folder; other absolute paths are below `.fun/root`.
pub(super) fn copy(from: &[PathBuf], to: &Path, base: &Path, code_folder: &Path, root: &Path) -> Result<(), Problem> {
    let target = match to.strip_prefix("/code") {
        Ok(rest) => code_folder.join(rest),
        Err(_) if to.is_absolute() => root.join(to.strip_prefix("/").unwrap_or(to)),
        Err(_) => code_folder.join(to),
    };
    let is_folder = from.len() > 1 || target.is_dir() || to.as_os_str().to_string_lossy().ends_with('/');
    for source in from {
        let failed = |cause: String| {
            Problem::new(code::INSTALL_FAILED, format!("COPY {} {} failed", source.display(), to.display()))
                .cause(cause)
                .hint("paths are relative to the Funfile and stay in its folder")
        };
        let leaves = |path: &Path| path.components().any(|part| part == Component::ParentDir);
        if source.is_absolute() || leaves(source) || leaves(to) {
            return Err(failed("it leaves the folder of the project".to_owned()));
        }
        let path = base.join(source);
        // The content of a folder is copied, as images are built.
        let place = match (path.is_dir(), is_folder) {
            (false, true) => target.join(path.file_name().unwrap_or_default()),
            _ => target.clone(),
        };
        if path.canonicalize().ok().is_some_and(|real| place.canonicalize().ok() == Some(real)) {
            continue;
        }
        tree(&path, &place).map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

fn tree(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        to.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        return std::fs::copy(from, to).map(drop);
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        // What is installed already is no source.
        if entry.file_name() != ".fun" {
            tree(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_what_apt_lists() {
        let listed = "'https://example/libgl1_1.3.4-2_amd64.deb' libgl1_1.3.4-2_amd64.deb 80000 SHA256:ab\n\
             'https://example/x' libx11-6_2%3a1.8-1_amd64.deb 1 SHA256:cd\nnonsense\n";
        assert_eq!(listed_packages(listed), ["libgl1=1.3.4-2", "libx11-6=2:1.8-1"]);
    }

    #[test]
    fn files_are_copied_as_images_have_them() {
        let folder = tempfile::tempdir().unwrap();
        let (base, root) = (folder.path(), folder.path().join("root"));
        let code_folder = base.join("code");
        std::fs::create_dir_all(base.join("model")).unwrap();
        std::fs::write(base.join("model/weights"), "w").unwrap();
        std::fs::write(base.join("a"), "a").unwrap();
        let copy = |from: &[&str], to: &str| {
            let from: Vec<PathBuf> = from.iter().map(PathBuf::from).collect();
            super::copy(&from, Path::new(to), base, &code_folder, &root)
        };
        copy(&["model"], "./model").unwrap();
        copy(&["a"], "/code/sub/").unwrap();
        copy(&["a"], "/usr/share/a").unwrap();
        for path in ["code/model/weights", "code/sub/a", "root/usr/share/a"] {
            assert!(base.join(path).is_file(), "{path}");
        }
        for (from, to) in [("../x", "x"), ("/etc/passwd", "x"), ("a", "../x"), ("none", "x")] {
            assert_eq!(copy(&[from], to).unwrap_err().code, code::INSTALL_FAILED, "{from} {to}");
        }
    }
}
