//! The lists of STYLE rules 16 and 17: type names that are no things, and phrases that readers must parse twice.
//!
//! `xtask/words.txt` holds the lists. A line `type Told` bans a name for a type (struct, enum, trait, alias) in every crate. A line
//! `phrase is told` bans a phrase in the pages that users read (docs, README and the like) and in the texts of the program.
//! `phrase is told (docs)` bans it in the pages only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::root;

const LISTS: &str = "xtask/words.txt";
/// Faults that are printed; the count says how many more there are.
const SHOWN: usize = 40;

#[derive(Debug, Default, PartialEq, Eq)]
struct Lists {
    types: BTreeSet<String>,
    /// In lower case, and whether sources are searched as well as pages.
    phrases: Vec<(String, bool)>,
}

pub(crate) fn run() -> Result<()> {
    let lists = parse(&std::fs::read_to_string(root().join(LISTS)).context(LISTS)?)?;
    let mut faults = Vec::new();
    for (folder, extension) in [("crates", "rs"), ("xtask", "rs"), ("docs", "md"), ("examples", "md"), (".", "md")] {
        let mut files = Vec::new();
        // The root's own pages are in no folder of their own.
        collect(&root().join(folder), extension, folder != ".", &mut files)?;
        for file in files {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
            let found = if extension == "rs" { in_source(&lists, &text) } else { in_page(&lists, &text) };
            faults.extend(found.into_iter().map(|(line, fault)| format!("{name}:{line}: {fault}")));
        }
    }
    if !faults.is_empty() {
        let rest = faults.len().saturating_sub(SHOWN);
        let more = if rest > 0 { format!("\n  and {rest} more") } else { String::new() };
        faults.truncate(SHOWN);
        bail!("words that {LISTS} bans (STYLE rules 16 and 17):\n  {}{more}", faults.join("\n  "));
    }
    println!("words: none of {} type names and {} phrases occurs", lists.types.len(), lists.phrases.len());
    Ok(())
}

fn parse(text: &str) -> Result<Lists> {
    let mut lists = Lists::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once(' ') {
            Some(("type", name)) => drop(lists.types.insert(name.trim().to_owned())),
            Some(("phrase", phrase)) => {
                let pages = phrase.strip_suffix("(docs)");
                lists.phrases.push((pages.unwrap_or(phrase).trim().to_lowercase(), pages.is_none()));
            }
            _ => bail!("{LISTS}: a line is `type NAME` or `phrase WORDS`, not `{line}`"),
        }
    }
    Ok(lists)
}

fn collect(folder: &Path, extension: &str, below: bool, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            // Decisions are dated and stay as they were written.
            if below
                && !path.ends_with("docs/decisions")
                && !path.ends_with("target")
                && !path.ends_with("node_modules")
            {
                collect(&path, extension, below, files)?;
            }
        } else if path.extension().is_some_and(|end| end == extension) {
            files.push(path);
        }
    }
    Ok(())
}

/// Lines, from 1, with what is wrong with them.
fn in_source(lists: &Lists, text: &str) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(name) = declared(line).filter(|name| lists.types.contains(*name)) {
            faults.push((number, format!("`{name}` is no name for a type")));
        }
        let sought = lists.phrases.iter().filter(|(_, sources)| *sources).map(|(phrase, _)| phrase);
        for phrase in sought.filter(|phrase| line.contains('"') && holds(line, phrase)) {
            faults.push((number, format!("`{phrase}`")));
        }
    }
    faults
}

fn in_page(lists: &Lists, text: &str) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let found = lists.phrases.iter().filter(|(phrase, _)| holds(line, phrase));
        faults.extend(found.map(|(phrase, _)| (number, format!("`{phrase}`"))));
    }
    faults
}

/// The name of the type that a line declares.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let rest = match line.strip_prefix("pub") {
        Some(rest) => rest.strip_prefix('(').map_or(Some(rest), |scope| Some(scope.split_once(')')?.1))?,
        None => line,
    };
    let mut words = rest.split_whitespace();
    if !matches!(words.next()?, "struct" | "enum" | "trait" | "type" | "union") {
        return None;
    }
    let name = words.next()?;
    let end = name.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(name.len());
    name.get(..end)
}

/// Whether a line has a phrase, as whole words.
fn holds(line: &str, phrase: &str) -> bool {
    let line = line.to_lowercase();
    line.match_indices(phrase).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + phrase.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::{declared, holds, in_page, in_source, parse};

    #[test]
    fn names_of_types_are_found() {
        assert_eq!(declared("pub(crate) struct Told(u32);"), Some("Told"));
        assert_eq!(declared("    enum Seen<'a> {"), Some("Seen"));
        assert_eq!(declared("pub(in crate::a) trait Blame: Send {"), Some("Blame"));
        assert_eq!(declared("let structure = Told;"), None);
    }

    #[test]
    fn phrases_are_whole_words() {
        assert!(holds("The caller Is told.", "is told"));
        assert!(!holds("This toldest", "is told"));
    }

    #[test]
    fn both_lists_are_kept() {
        let lists = parse("# why\ntype Told\nphrase is told\nphrase goes on (docs)\n").unwrap();
        let source = "pub struct Told;\nlet a = \"it is told\";\n// it is told\nlet b = \"goes on\";\n";
        let lines = |faults: Vec<(usize, String)>| faults.into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(lines(in_source(&lists, source)), [1, 2]);
        assert_eq!(lines(in_page(&lists, "It goes on.\nIt is told.\n")), [1, 2]);
        assert!(parse("Told").is_err());
    }
}
