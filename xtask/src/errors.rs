//! A help page for every error code, in one form, and an index of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kip_spec::code::{self, Entry};

use crate::command::root;

const SECTIONS: [&str; 3] = ["## What happened", "## Likely causes", "## What to run"];

/// Thousands of the codes, and what lives there.
const GROUPS: [(u16, &str); 9] = [
    (1, "Manifests"),
    (2, "Gateway"),
    (3, "Functions and instances"),
    (4, "Programs"),
    (5, "Tasks and events"),
    (6, "The built-in model server"),
    (7, "Keys and the API"),
    (8, "Server, store and host"),
    (9, "Model cache and presets"),
];

pub(crate) fn run(write: bool) -> Result<()> {
    let folder = root().join("docs/errors");
    let index = index(code::ALL);
    if write {
        let path = folder.join("README.md");
        std::fs::write(&path, &index).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let faults = faults(code::ALL, &index, &read(&folder)?);
    if !faults.is_empty() {
        bail!("pages of docs/errors:\n  {}", faults.join("\n  "));
    }
    println!("errors: each of the {} codes has its page", code::ALL.len());
    Ok(())
}

/// The files of a folder, by name.
fn read(folder: &Path) -> Result<BTreeMap<String, String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut files = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(entry.path()).with_context(|| format!("{name} cannot be read"))?;
        files.insert(name, text);
    }
    Ok(files)
}

fn faults(codes: &[Entry], index: &str, files: &BTreeMap<String, String>) -> Vec<String> {
    let mut faults = Vec::new();
    for entry in codes {
        let name = format!("{}.md", entry.code);
        match files.get(&name) {
            None => faults.push(format!("{name} is missing: {}", entry.title)),
            Some(text) => faults.extend(page_faults(entry, text).into_iter().map(|fault| format!("{name}: {fault}"))),
        }
    }
    for name in files.keys().filter(|name| *name != "README.md") {
        let known =
            name.strip_suffix(".md").is_some_and(|code| codes.iter().any(|entry| entry.code.to_string() == code));
        if !known {
            faults.push(format!("{name} is the page of no code"));
        }
    }
    if files.get("README.md").is_none_or(|text| text != index) {
        faults.push("README.md is out of date: run `cargo xtask errors --write`".to_owned());
    }
    faults
}

fn page_faults(entry: &Entry, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let title = format!("# {}: {}", entry.code, entry.title);
    if text.lines().next() != Some(title.as_str()) {
        faults.push(format!("its first line must be `{title}`"));
    }
    let headings: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
    if headings != SECTIONS {
        faults.push(format!("its sections must be {}, in this order", SECTIONS.join(", ")));
        return faults;
    }
    for heading in SECTIONS {
        let body = text.split(heading).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
        if body.trim().is_empty() {
            faults.push(format!("nothing stands under `{heading}`"));
        }
    }
    faults
}

fn index(codes: &[Entry]) -> String {
    let mut text = "# Error codes\n\n<!-- Written by `cargo xtask errors --write`. -->\n\n".to_owned();
    text.push_str("Every error that reaches a person or a program carries one of these. They are never reused.\n");
    for (thousand, name) in GROUPS {
        let mut rows = codes.iter().filter(|entry| entry.code.0 / 1_000 == thousand).peekable();
        if rows.peek().is_none() {
            continue;
        }
        text.push_str(&format!("\n## {name}\n\n| code | HTTP status | what it means |\n|---|---|---|\n"));
        for entry in rows {
            text.push_str(&format!("| [{0}]({0}.md) | {1} | {2} |\n", entry.code, entry.status, entry.title));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use kip_spec::Code;

    use super::*;

    const ENTRY: Entry = Entry { code: Code(1203), title: "something is wrong", status: 400 };
    const PAGE: &str =
        "# KW-1203: something is wrong\n\n## What happened\n\na\n\n## Likely causes\n\nb\n\n## What to run\n\nc\n";

    fn faults_of(files: &[(&str, &str)]) -> Vec<String> {
        let index = index(&[ENTRY]);
        let mut files: BTreeMap<String, String> =
            files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        files.entry("README.md".to_owned()).or_insert_with(|| index.clone());
        faults(&[ENTRY], &index, &files)
    }

    #[test]
    fn a_page_in_the_right_form_is_let_through() {
        assert_eq!(faults_of(&[("KW-1203.md", PAGE)]), Vec::<String>::new());
    }

    #[test]
    fn missing_wrong_and_left_over_pages_are_caught() {
        assert_eq!(faults_of(&[]).len(), 1);
        assert_eq!(faults_of(&[("KW-1203.md", PAGE), ("KW-1204.md", PAGE)]), ["KW-1204.md is the page of no code"]);
        for wrong in [
            PAGE.replace("something", "anything"),
            PAGE.replace("## Likely causes", "## Causes"),
            PAGE.replace("\nb\n", "\n"),
            PAGE.replace("## What to run", "## More\n\nx\n\n## What to run"),
        ] {
            assert_eq!(faults_of(&[("KW-1203.md", &wrong)]).len(), 1, "{wrong}");
        }
        assert_eq!(faults_of(&[("KW-1203.md", PAGE), ("README.md", "old")]).len(), 1);
    }

    #[test]
    fn every_code_belongs_to_a_group_of_the_index() {
        let index = index(code::ALL);
        assert!(code::ALL.iter().all(|entry| index.contains(&format!("[{0}]({0}.md)", entry.code))));
    }
}
