//! Files that are generated from code and committed: each has a program that writes it, and a test that compares it.

use anyhow::{Result, bail};

use crate::command::{command, read, root, show};

/// The OpenAPI documents of the native API and of that of Function Compute.
pub(crate) fn openapi(write: bool) -> Result<()> {
    run("openapi", "docs/api/openapi.json", "openapi", write)?;
    run("fc_openapi", "docs/api/fc.json", "openapi", write)
}

/// The schemas of the databases.
pub(crate) fn databases(write: bool) -> Result<()> {
    run("schema", "docs/schema", "databases", write)
}

/// Writes a file anew; without `write`, what is different then is a fault, and the file is put back.
fn run(example: &str, path: &str, task: &str, write: bool) -> Result<()> {
    let before = contents(path)?;
    // Of the whole workspace, so that it has the features that the tests have: then nothing is compiled twice.
    show(command("cargo", &["build", "--release", "--quiet", "--workspace", "--example", example]))?;
    let program = root().join("target/release/examples").join(example);
    show(command(&program.to_string_lossy(), &[]))?;
    let changed: Vec<_> = before.iter().filter(|(file, text)| contents_of(file).as_ref() != Some(text)).collect();
    if !write && !changed.is_empty() {
        for (file, text) in &before {
            std::fs::write(file, text)?;
        }
        bail!("{path} is out of date: run `cargo xtask {task} --write`");
    }
    println!("{task}: {path} is the present one");
    Ok(())
}

fn contents_of(file: &std::path::Path) -> Option<Vec<u8>> {
    std::fs::read(file).ok()
}

/// The files of git below a path, with what is in them.
fn contents(path: &str) -> Result<Vec<(std::path::PathBuf, Vec<u8>)>> {
    let listed = read(command("git", &["ls-files", path]))?;
    let files = listed.lines().map(|line| root().join(line));
    Ok(files.filter_map(|file| Some((file.clone(), contents_of(&file)?))).collect())
}
