//! Circles of files: those that need each other, directly or by way of others. Two that belong together are fine; more are one
//! concept in several places, or several concepts that cannot be read apart.
//!
//! Read as text: `use` declarations and paths that begin with `crate`, `super` or `self`. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::root;

/// Files in one circle at most.
const MOST: usize = 2;

/// A module's path within its crate; the root is empty.
type Module = Vec<String>;

#[derive(Debug, Default)]
struct Source {
    text: String,
    /// Names that it hands on, and the modules they come from, as written.
    exports: BTreeMap<String, Module>,
}

/// Circles that are known and wait to be broken, one a line. It only ever gets shorter.
const KNOWN: &str = "xtask/circles.txt";

pub(crate) fn run() -> Result<()> {
    let mut found: Vec<(String, BTreeSet<String>)> = Vec::new();
    let crates = std::fs::read_dir(root().join("crates"))?;
    for folder in crates.flatten().map(|entry| entry.path()).chain([root().join("xtask")]) {
        let room = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let sources = read(&folder.join("src"))?;
        let named = |circle: Vec<Module>| circle.iter().map(name).collect();
        found.extend(circles(&sources).into_iter().map(|circle| (room.clone(), named(circle))));
    }
    let text = std::fs::read_to_string(root().join(KNOWN)).context(KNOWN)?;
    let known = known(&text);
    let faults = faults(&found, &known);
    if !faults.is_empty() {
        bail!("circles of more than {MOST} files:\n  {}", faults.join("\n  "));
    }
    println!("circles: {} of more than {MOST} files, all of them known; none is new or larger", found.len());
    Ok(())
}

fn known(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let line = |line: &str| {
        let (room, files) = line.split_once(':')?;
        Some((room.to_owned(), files.split(',').map(|file| file.trim().to_owned()).collect()))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect()
}

/// Circles that are new or have grown, and lines that are too long by now.
fn faults(found: &[(String, BTreeSet<String>)], known: &[(String, BTreeSet<String>)]) -> Vec<String> {
    let line = |files: &BTreeSet<String>| files.iter().cloned().collect::<Vec<_>>().join(", ");
    let mut faults = Vec::new();
    for (room, files) in found {
        if !known.iter().any(|(other, all)| other == room && files.is_subset(all)) {
            faults.push(format!("{room}: {}", line(files)));
        }
    }
    for (room, all) in known {
        if !found.iter().any(|(other, files)| other == room && files == all) {
            faults.push(format!("{room}: {} is smaller now or gone: write so in {KNOWN}", line(all)));
        }
    }
    faults
}

fn name(module: &Module) -> String {
    if module.is_empty() { "lib".to_owned() } else { module.join("/") }
}

fn read(src: &Path) -> Result<BTreeMap<Module, Source>> {
    let mut sources = BTreeMap::new();
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?.flatten() {
            let path = entry.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if stem != "tests" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") && !stem.ends_with("tests") {
                let mut module: Module = path
                    .strip_prefix(src)?
                    .with_extension("")
                    .components()
                    .map(|part| part.as_os_str().to_string_lossy().into_owned())
                    .collect();
                if matches!(stem.as_str(), "lib" | "main" | "mod") {
                    module.pop();
                }
                let source = Source { text: without_tests(&std::fs::read_to_string(&path)?), ..Source::default() };
                sources.insert(module, source);
            }
        }
    }
    let modules: BTreeSet<Module> = sources.keys().cloned().collect();
    for (module, source) in &mut sources {
        for path in uses(&source.text, true) {
            let absolute = absolute(module, &path, &modules);
            if let Some((last, rest)) = absolute.split_last() {
                source.exports.insert(last.clone(), rest.to_vec());
            }
        }
    }
    Ok(sources)
}

/// A file up to its tests, without comments.
fn without_tests(text: &str) -> String {
    const HEADS: [&str; 2] = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(crate) mod tests {"];
    let end = HEADS.iter().filter_map(|head| text.find(head)).min().unwrap_or(text.len());
    let code = &text[..end];
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The paths of `use` declarations, with their braces spelled out; only those that are handed on, or all.
fn uses(text: &str, handed_on: bool) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for (at, _) in text.match_indices("use ") {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let before = text[line..at].trim();
        let is_pub = before.starts_with("pub");
        let counts = if handed_on { is_pub } else { is_pub || before.is_empty() };
        if !counts {
            continue;
        }
        let Some(end) = text[at..].find(';') else { continue };
        spell_out(&text[at + 4..at + end], &[], &mut paths);
    }
    paths
}

fn spell_out(tree: &str, before: &[String], paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut path = before.to_vec();
        path.extend(tree[..open].split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
        let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
        let (mut depth, mut start) = (0, 0);
        for (at, letter) in inner.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    spell_out(&inner[start..at], &path, paths);
                    start = at + 1;
                }
                _ => {}
            }
        }
        spell_out(&inner[start..], &path, paths);
    } else if !tree.is_empty() {
        let tree = tree.split(" as ").next().unwrap_or_default();
        let parts = tree.split("::").map(|part| part.trim().to_owned());
        paths.push(before.iter().cloned().chain(parts).collect());
    }
}

/// Paths within code that begin with `crate`, `super` or `self`.
fn inline(text: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for word in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(word) {
            let is_whole =
                !text[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':');
            let rest = &text[at..];
            let end = rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':'));
            if is_whole {
                let path = rest[..end.unwrap_or(rest.len())].trim_end_matches(':');
                paths.push(path.split("::").map(str::to_owned).collect());
            }
        }
    }
    paths
}

/// A path from the root of the crate; empty for other crates.
fn absolute(module: &Module, path: &[String], modules: &BTreeSet<Module>) -> Module {
    let mut base = module.clone();
    let mut rest = path;
    match path.first().map(String::as_str) {
        Some("crate") => {
            base.clear();
            rest = &path[1..];
        }
        Some("self") => rest = &path[1..],
        Some("super") => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        Some(first) => {
            let mut child = base.clone();
            child.push(first.to_owned());
            if !modules.contains(&child) {
                return Vec::new();
            }
        }
        None => {}
    }
    base.into_iter().chain(rest.iter().cloned()).collect()
}

/// The file in which what a path names is defined.
fn file_of(mut path: Module, sources: &BTreeMap<Module, Source>) -> Option<Module> {
    // A name may be handed on several times.
    for _ in 0..8 {
        let length = (0..=path.len()).rev().find(|length| sources.contains_key(&path[..*length]))?;
        let module = path[..length].to_vec();
        let export = path.get(length).and_then(|name| sources[&module].exports.get(name)).cloned();
        match export {
            Some(target) if target != module => {
                path = target.into_iter().chain(path[length..].iter().cloned()).collect();
            }
            _ => return Some(module),
        }
    }
    None
}

fn circles(sources: &BTreeMap<Module, Source>) -> Vec<Vec<Module>> {
    let modules: BTreeSet<Module> = sources.keys().cloned().collect();
    let mut needs: BTreeMap<&Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, source) in sources {
        let mut of = BTreeSet::new();
        for path in uses(&source.text, false).into_iter().chain(inline(&source.text)) {
            let path = absolute(module, &path, &modules);
            // What a file hands on, it does not need itself.
            if let Some(file) = file_of(path, sources).filter(|file| file != module && !file.is_empty()) {
                of.insert(file);
            }
        }
        if module.is_empty() {
            of.clear();
        }
        needs.insert(module, of);
    }
    let reach = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&Module> = needs.get(from).into_iter().flatten().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module.clone()) {
                next.extend(needs.get(module).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> = sources.keys().map(|module| (module, reach(module))).collect();
    let mut done: BTreeSet<Module> = BTreeSet::new();
    let mut found = Vec::new();
    for (module, all) in &reached {
        if done.contains(*module) || !all.contains(*module) {
            continue;
        }
        let circle: Vec<Module> = all.iter().filter(|other| reached[other].contains(*module)).cloned().collect();
        done.extend(circle.iter().cloned());
        if circle.len() > MOST {
            found.push(circle);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> BTreeMap<Module, Source> {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        read(folder.path()).unwrap()
    }

    #[test]
    fn three_files_that_need_each_other_are_found_and_two_are_not() {
        let two = [("lib.rs", "mod a;\nmod b;"), ("a.rs", "use crate::b::B;"), ("b.rs", "use super::a::A;")];
        assert!(circles(&sources(&two)).is_empty());
        let three = [
            ("lib.rs", "mod a;\nmod b;\nmod c;\npub use c::C;"),
            ("a.rs", "use crate::{b::{self, B}, x};"),
            ("b.rs", "fn f() { crate::C::new() }"),
            ("c.rs", "use crate::a;"),
        ];
        let found = circles(&sources(&three));
        assert_eq!(found, [[["a".to_owned()], ["b".to_owned()], ["c".to_owned()]]]);
    }

    #[test]
    fn what_is_handed_on_by_a_parent_is_the_childs() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod one;\nmod two;\npub use one::One;\nuse two::Two;"),
            ("a/one.rs", "pub struct One;"),
            ("a/two.rs", "use super::One;"),
        ];
        assert!(circles(&sources(&files)).is_empty());
    }

    #[test]
    fn what_is_known_may_shrink_and_never_grow() {
        let circles = |text: &str| known(text);
        let list = circles("# why\nroom: a, b, c, d\n");
        assert!(faults(&circles("room: a, b, c, d"), &list).is_empty());
        assert_eq!(faults(&circles("room: a, b, e"), &list).len(), 2, "new, and the known one is gone");
        assert_eq!(
            faults(&circles("room: a, b, c"), &list),
            ["room: a, b, c, d is smaller now or gone: write so in xtask/circles.txt"]
        );
    }

    #[test]
    fn tests_and_comments_do_not_count() {
        for tests in ["mod tests", "pub(crate) mod tests"] {
            let text = format!("// use crate::b;\nuse crate::c::C;\n#[cfg(test)]\n{tests} {{\n use crate::d;\n}}");
            assert_eq!(uses(&without_tests(&text), false), [["crate", "c", "C"].map(str::to_owned)]);
        }
    }
}
