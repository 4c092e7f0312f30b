//! `kip install`: what the functions of a project need, into folders of the project, as Fun lays them out. Nothing of the host changes.

mod funfile;
mod others;
mod places;
mod python;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kip_serverless::DeclaredFunction;
use kip_spec::{Problem, code};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::funfile::Instruction;
use self::places::Places;
use self::python::Interpreter;
use crate::arguments::Dependencies;
use crate::commands::files::ask;
use crate::commands::{files, nas};
use crate::output::Output;

/// Where it is kept what an installation was made of, below the folder of the code.
const KEPT: &str = ".fun/install.json";

/// What an installation was made of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct InstallRecord {
    digest: String,
}

/// What was installed for a function.
#[derive(Debug, Serialize)]
struct InstallResult {
    function: String,
    /// The file that says what is needed; nothing if there is none.
    from: Option<PathBuf>,
    /// Whether all of it was there.
    up_to_date: bool,
    /// Where packages of Python are, if there are any.
    python: Option<PathBuf>,
}

pub(crate) fn run(options: &Dependencies, output: Output) -> anyhow::Result<()> {
    let file = nas::open(&options.project)?;
    let mut results = Vec::new();
    for function in file.functions(&options.functions)? {
        results.push(install(&file, function, options, output)?);
    }
    output.result(&results, |results| results.iter().map(|one| line(one, &file.directory)).collect())?;
    if results
        .iter()
        .any(|one| one.python.as_ref().is_some_and(|path| path.starts_with(file.directory.join(".fun/nas"))))
    {
        output.remark("next: `kip nas sync`, then `kip deploy`");
    }
    Ok(())
}

fn line(result: &InstallResult, directory: &Path) -> String {
    let name = &result.function;
    let Some(from) = &result.from else {
        return format!("{name}: nothing to install: there is no Funfile, requirements.txt or package.json\n");
    };
    let short = |path: &Path| path.strip_prefix(directory).unwrap_or(path).display().to_string();
    let done = if result.up_to_date { "is up to date with" } else { "is installed from" };
    let place = result.python.as_ref().map(|path| format!("  {}", short(path))).unwrap_or_default();
    format!("{name} {done} {}{place}\n", short(from))
}

/// The file that says what a function needs, in the folder of its code or, for a Funfile, in that of the project.
fn recipe(directory: &Path, code_folder: &Path) -> Option<PathBuf> {
    let places = [
        code_folder.join("Funfile"),
        directory.join("Funfile"),
        code_folder.join("requirements.txt"),
        code_folder.join("package.json"),
    ];
    places.into_iter().find(|path| path.is_file())
}

/// The steps of a recipe, with their lines.
fn steps(recipe: &Path) -> anyhow::Result<Vec<(usize, Instruction)>> {
    let text = std::fs::read_to_string(recipe).map_err(|error| {
        Problem::new(code::FUNFILE, format!("{} cannot be read", recipe.display())).cause(error.to_string())
    })?;
    let name = recipe.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(match name.as_str() {
        "requirements.txt" => vec![(1, Instruction::Pip(vec!["-r".to_owned(), name]))],
        "package.json" => vec![(1, Instruction::Npm(Vec::new()))],
        _ => funfile::read(&recipe.display().to_string(), &text)?.steps,
    })
}

fn install(
    file: &files::ProjectFile,
    function: &DeclaredFunction,
    options: &Dependencies,
    output: Output,
) -> anyhow::Result<InstallResult> {
    let name = function.name.to_string();
    let folder = function.code.as_ref().map(|code| code.path.clone()).filter(|path| path.is_dir());
    let Some((code_folder, recipe)) =
        folder.and_then(|folder| Some((folder.clone(), recipe(&file.directory, &folder)?)))
    else {
        return Ok(InstallResult { function: name, from: None, up_to_date: true, python: None });
    };
    let steps = steps(&recipe)?;
    let places = Places::of(function, &file.directory, &code_folder)?;
    let needs_python = steps.iter().any(|(_, step)| matches!(step, Instruction::Pip(_)));
    let runtime = function.config.get("runtime").and_then(|runtime| runtime.as_str()).unwrap_or_default();
    let interpreter = if needs_python { Some(Interpreter::of(runtime)?) } else { None };
    let python = interpreter.as_ref().map(|_| places.python.clone());
    let base = recipe.parent().unwrap_or(&code_folder);
    let digest = digest(&recipe, &steps, (base, &code_folder), interpreter.as_ref(), &places)?;
    let kept =
        std::fs::read(code_folder.join(KEPT)).ok().and_then(|text| serde_json::from_slice::<InstallRecord>(&text).ok());
    let there = interpreter.as_ref().is_none_or(|interpreter| interpreter.packages(&places.python).is_dir());
    if kept.is_some_and(|kept| kept.digest == digest) && there && !options.force {
        return Ok(InstallResult { function: name, from: Some(recipe), up_to_date: true, python });
    }
    allow(&steps, &recipe, options, output)?;
    output.remark(&format!("{name}: installing what {} names", recipe.display()));
    // An installation that fails leaves the packages that were there.
    let fresh = places.fresh();
    let _ = std::fs::remove_dir_all(&fresh);
    let done = carry_out(&steps, interpreter.as_ref(), &fresh, (base, &code_folder), &places);
    if let Err(problem) = done {
        let _ = std::fs::remove_dir_all(&fresh);
        return Err(problem.into());
    }
    if fresh.is_dir() {
        places.take(&fresh)?;
    }
    let kept = code_folder.join(KEPT);
    kept.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(&kept, serde_json::to_vec(&InstallRecord { digest })?)?;
    Ok(InstallResult { function: name, from: Some(recipe), up_to_date: false, python })
}

/// Commands of a Funfile run on this host: they are shown first.
fn allow(steps: &[(usize, Instruction)], recipe: &Path, options: &Dependencies, output: Output) -> anyhow::Result<()> {
    let commands: Vec<&String> = steps
        .iter()
        .filter_map(|(_, step)| if let Instruction::Run(text) = step { Some(text) } else { None })
        .collect();
    if commands.is_empty() || options.yes {
        return Ok(());
    }
    commands.iter().for_each(|text| output.remark(&format!("RUN {text}")));
    if ask("run these commands on this host?", false, output)? {
        return Ok(());
    }
    let message = format!("{} has {} commands to run, and nobody allowed them", recipe.display(), commands.len());
    Err(Problem::new(code::ACTION_NOT_ALLOWED, message).hint("-y runs them").into())
}

fn carry_out(
    steps: &[(usize, Instruction)],
    interpreter: Option<&Interpreter>,
    fresh: &Path,
    (base, code_folder): (&Path, &Path),
    places: &Places,
) -> Result<(), Problem> {
    let mut environment = BTreeMap::new();
    for (_, step) in steps {
        match (step, interpreter) {
            (Instruction::Pip(arguments), Some(interpreter)) => {
                interpreter.install(arguments, fresh, base, &environment)?;
            }
            (Instruction::Pip(_), None) => {}
            (Instruction::Apt(names), _) => others::apt(names, &places.root)?,
            (Instruction::Npm(arguments), _) => others::npm(arguments, code_folder, &environment)?,
            (Instruction::Run(text), _) => others::shell(text, code_folder, &environment)?,
            (Instruction::Copy { from, to }, _) => others::copy(from, to, base, code_folder, &places.root)?,
            (Instruction::Environment(name, value), _) => drop(environment.insert(name.clone(), value.clone())),
        }
    }
    Ok(())
}

/// What an installation is made of: the recipe, the files that it names, the interpreter, and the place.
fn digest(
    recipe: &Path,
    steps: &[(usize, Instruction)],
    (base, code_folder): (&Path, &Path),
    interpreter: Option<&Interpreter>,
    places: &Places,
) -> std::io::Result<String> {
    let mut sum = Sha256::new();
    sum.update(std::fs::read(recipe)?);
    for name in ["package.json", "package-lock.json"] {
        sum.update(std::fs::read(code_folder.join(name)).unwrap_or_default());
    }
    for (_, step) in steps {
        let named: Vec<PathBuf> = match step {
            Instruction::Pip(arguments) => arguments.iter().map(|word| base.join(word)).collect(),
            Instruction::Copy { from, .. } => from.iter().map(|source| base.join(source)).collect(),
            _ => Vec::new(),
        };
        for path in named {
            if path.is_dir() {
                sum.update(kip_snapshot::fingerprint(&path, &[]).unwrap_or_default());
            } else {
                sum.update(std::fs::read(&path).unwrap_or_default());
            }
        }
    }
    sum.update(format!("{interpreter:?} {}", places.python.display()));
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
