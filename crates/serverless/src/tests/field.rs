//! The readers over files that people have in the field: `KIPWAKE_TEST_FILES` names their folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kip_spec::Problem;

use super::{keys, read_in};
use crate::Project;

/// Runtimes for the ones that do not run here.
const MAP: &str = "python2.7=python3,nodejs4=nodejs20,nodejs6=nodejs20,nodejs8=nodejs20";
/// Codes of refusals that are right whatever the file is: it needs more than wiring.
const RIGHT: [&str; 6] = ["KW-1031", "KW-1033", "KW-1034", "KW-1035", "KW-1037", "KW-1038"];

fn folder() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "only this test reads it")]
    let folder = std::env::var_os("KIPWAKE_TEST_FILES").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: KIPWAKE_TEST_FILES names no folder of files");
    }
    folder
}

/// The files of a folder, with their texts.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml"))
        .collect();
    all.sort();
    all.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Variables that its author had in the environment.
fn surroundings(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for call in ["env('", "secret('"] {
        for (at, _) in text.match_indices(call) {
            let begin = at + call.len();
            let name: String = text[begin..].chars().take_while(|c| *c != '\'').collect();
            if !text[begin + name.len()..].starts_with("',") {
                all.insert(name, "value".to_owned());
            }
        }
    }
    all
}

fn read(path: &Path, text: &str) -> Result<Project, Vec<Problem>> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    // The file that one of them extends has another name there.
    let directory = path.parent().unwrap();
    read_in(directory, &name, text, &surroundings(text), MAP)
}

#[test]
fn files_that_need_nothing_but_wiring_are_taken() {
    let Some(folder) = folder() else { return };
    let (mut taken, mut refused, mut wrong) = (0u32, Vec::new(), Vec::new());
    for kind in ["fc3", "fc1", "fun", "reference"] {
        let (mut of_kind, mut count) = (0u32, 0u32);
        for (path, text) in files(&folder.join(kind)) {
            if crate::format(&text).is_none() {
                continue;
            }
            count += 1;
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match read(&path, &text) {
                Ok(project) => {
                    assert!(!project.functions.is_empty(), "{name}");
                    keys::check(&name, &text, &project);
                    of_kind += 1;
                }
                Err(problems) => {
                    for problem in &problems {
                        let place = problem.place.as_ref().map(|place| (place.line, place.column));
                        assert!(place.is_some() && problem.hint.is_some(), "{name}: {problem:?}");
                    }
                    let codes: Vec<String> = problems.iter().map(|problem| problem.code.to_string()).collect();
                    let first = problems.iter().find(|problem| !RIGHT.contains(&problem.code.to_string().as_str()));
                    let line = format!("{kind}/{name}: {}", first.unwrap_or(&problems[0]).message);
                    if codes.iter().any(|code| RIGHT.contains(&code.as_str())) {
                        refused.push(line)
                    } else {
                        wrong.push(line)
                    }
                }
            }
        }
        println!("{kind}: {of_kind} of {count} taken");
        taken += of_kind;
    }
    println!("refused with a right reason:\n  {}\nother refusals:\n  {}", refused.join("\n  "), wrong.join("\n  "));
    let wiring = taken + u32::try_from(wrong.len()).unwrap();
    println!("{taken} of {wiring} files that need nothing but wiring are taken");
    assert!(taken * 100 >= wiring * 95, "{wrong:#?}");
}

#[test]
fn services_of_knative_are_taken_or_refused_with_a_reason() {
    let Some(folder) = folder() else { return };
    let (mut taken, mut refused, mut wrong) = (0u32, Vec::new(), Vec::new());
    for kind in ["knative", "reference"] {
        for (path, text) in files(&folder.join(kind)) {
            if !crate::is_knative(&text) {
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match crate::read_knative(&name, &text) {
                Ok(found) => {
                    assert!(!found.services.is_empty() && found.effects.iter().all(|key| key.line > 0), "{name}");
                    let document = found.document();
                    let nothing = BTreeMap::new();
                    let deployer = kip_manifest::Deployer { variables: &nothing, env_files: &nothing };
                    let source =
                        kip_manifest::Source { file: &name, text: &document, directory: Path::new("/"), deployer };
                    match kip_manifest::read(&source) {
                        Ok(_) => taken += 1,
                        Err(problems) => wrong.push(format!("{name}: {}", problems[0].message)),
                    }
                }
                Err(problems) => {
                    let problem = &problems[0];
                    assert!(problem.hint.is_some(), "{name}: {problem:?}");
                    let line = format!("{name}: {} {}", problem.code, problem.message);
                    let right = RIGHT.contains(&problem.code.to_string().as_str());
                    if right { refused.push(line) } else { wrong.push(line) }
                }
            }
        }
    }
    println!("refused with a right reason:\n  {}\nother refusals:\n  {}", refused.join("\n  "), wrong.join("\n  "));
    let wiring = taken + u32::try_from(wrong.len()).unwrap();
    println!("{taken} of {wiring} files are taken, {} need more", refused.len());
    assert!(taken * 100 >= wiring * 95, "{wrong:#?}");
}
