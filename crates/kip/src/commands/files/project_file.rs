//! A file of Function Compute: which one a command means, what it says, and where its functions are called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kip_serverless::{DeclaredFunction, Effect, Project, RuntimeMap, Source};
use kip_spec::{Problem, code};

use crate::arguments::FileArguments;
use crate::client::Client;
use crate::output::Output;
use crate::problem::{Problems, warning};

/// The variable of `.env` that holds a map of runtimes.
const RUNTIME_MAP: &str = "KIPWAKE_RUNTIME_MAP";

/// The settings of a project, beside its file.
const SETTINGS: &str = "kip.toml";

/// A file that was read.
#[derive(Debug)]
pub(crate) struct ProjectFile {
    /// As the user named it.
    pub(crate) file: String,
    /// The absolute folder it is in.
    pub(crate) directory: PathBuf,
    pub(crate) project: Project,
    /// Host and port where functions are called.
    pub(crate) gateway: String,
    /// Archives of code that were downloaded.
    pub(crate) fetched: Option<tempfile::TempDir>,
}

impl ProjectFile {
    /// The functions that are meant: all, or those of these names and keys.
    pub(crate) fn functions(&self, only: &[String]) -> anyhow::Result<Vec<&DeclaredFunction>> {
        let all = &self.project.functions;
        let mut meant: BTreeSet<&str> = BTreeSet::new();
        for name in only {
            let found = self.named(name);
            if found.is_empty() {
                let known: Vec<&str> = all.iter().map(|function| function.name.as_str()).collect();
                let message = format!("{} has no function `{name}`", self.file);
                let hint = format!("functions of the file: {}", known.join(", "));
                return Err(Problem::new(code::FILE_REFERENCE, message).hint(hint).into());
            }
            meant.extend(found.iter().map(|function| function.name.as_str()));
        }
        Ok(all.iter().filter(|one| only.is_empty() || meant.contains(one.name.as_str())).collect())
    }

    /// The functions that a word means: a name on the server, a key, `service$function`, a function of a service, or a service for all of its
    /// functions.
    fn named(&self, word: &str) -> Vec<&DeclaredFunction> {
        let key = word.replacen('$', "/", 1);
        let of_service =
            |function: &DeclaredFunction| function.key.split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned()));
        type Fits<'a> = &'a dyn Fn(&DeclaredFunction) -> bool;
        let ways: [Fits<'_>; 3] = [
            &|function| function.name.as_str() == word || function.key == key,
            &|function| of_service(function).is_some_and(|(_, name)| name == word),
            &|function| of_service(function).is_some_and(|(service, _)| service == word),
        ];
        let found =
            |fits: Fits<'_>| self.project.functions.iter().filter(|function| fits(function)).collect::<Vec<_>>();
        ways.into_iter().map(found).find(|found| !found.is_empty()).unwrap_or_default()
    }
}

/// The file of Function Compute that a command means, if it means one and no kip.yaml.
pub(crate) fn wanted(path: &Path, file: &FileArguments) -> Option<PathBuf> {
    match &file.template {
        Some(template) => (!is_kip_yaml(template)).then(|| template.clone()),
        None if path.is_dir() => {
            let in_folder = |name: &&str| if path == Path::new(".") { PathBuf::from(name) } else { path.join(name) };
            let has = |names: &[&str]| names.iter().map(in_folder).find(|file| file.is_file());
            has(&["kip.yaml", "kip.yml"]).is_none().then(|| has(&kip_serverless::NAMES)).flatten()
        }
        None => {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // One with a slip in its YAML is known by its name.
            let is_named = ["s.", "s-", "template."].iter().any(|begin| name.starts_with(begin));
            let is_one = |text: String| kip_serverless::format(&text).is_some() || is_named;
            std::fs::read_to_string(path).is_ok_and(is_one).then(|| path.to_owned())
        }
    }
}

/// Whether a file says that it is a kip.yaml.
fn is_kip_yaml(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.starts_with("api:")))
}

/// Reads a file. `gateway` is where its functions will be called.
pub(crate) fn read(path: &Path, map: Option<&RuntimeMap>, gateway: &str) -> anyhow::Result<ProjectFile> {
    let unreadable = |cause: std::io::Error| {
        Problem::new(code::MANIFEST_UNREADABLE, format!("{} cannot be read", path.display()))
            .cause(cause.to_string())
            .hint("name an s.yaml or a template.yml: -t FILE")
    };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let absolute = std::path::absolute(path)?;
    let directory = absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let variables = variables(&directory)?;
    let of_file = variables.get(RUNTIME_MAP).map(|text| text.parse::<RuntimeMap>()).transpose();
    let of_file = of_file.map_err(|fault| {
        Problem::new(code::COMMAND_INPUT, format!("{RUNTIME_MAP} cannot be used: {fault}"))
            .hint("write python2.7=python3,nodejs8=nodejs20")
    })?;
    let of_settings = settings(&directory.join(SETTINGS))?;
    let runtimes = map.cloned().unwrap_or_default().over(of_file.unwrap_or_default()).over(of_settings);
    let file = path.display().to_string();
    let source =
        Source { file: &file, text: &text, directory: &directory, variables: &variables, gateway, runtimes: &runtimes };
    let mut project = kip_serverless::read(&source).map_err(Problems)?;
    project.functions.iter_mut().for_each(super::dependencies::add_variables);
    Ok(ProjectFile { file, directory, project, gateway: gateway.to_owned(), fetched: None })
}

/// The map of runtimes in the settings of a project: the table `[runtimes]` of kip.toml.
fn settings(file: &Path) -> anyhow::Result<RuntimeMap> {
    let Ok(text) = std::fs::read_to_string(file) else { return Ok(RuntimeMap::default()) };
    let wrong = |what: String| {
        Problem::new(code::FILE_VALUE, format!("{} cannot be read: {what}", file.display()))
            .hint("write [runtimes] and below it \"python2.7\" = \"python3\"")
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    if let Some(other) = table.keys().find(|key| *key != "runtimes") {
        return Err(wrong(format!("there is no key `{other}`")).into());
    }
    let mut pairs = Vec::new();
    for (old, new) in table.get("runtimes").and_then(toml::Value::as_table).into_iter().flatten() {
        let new = new.as_str().ok_or_else(|| wrong(format!("`{old}` is no text")))?;
        pairs.push(format!("{old}={new}"));
    }
    Ok(pairs.join(",").parse().map_err(wrong)?)
}

/// The variables that a file may name: those of the environment over those of `.env` beside the file.
fn variables(directory: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let file = directory.join(".env");
    let mut all = BTreeMap::new();
    if let Ok(text) = std::fs::read_to_string(&file) {
        let read = kip_manifest::env_file(&text).map_err(|(line, what)| {
            Problem::new(code::FILE_VALUE, format!("line {line} of {} cannot be read: {what}", file.display()))
                .hint("write NAME=VALUE")
        })?;
        all.extend(read);
    }
    all.extend(kip_host::environment::all());
    Ok(all)
}

/// Reads the file of a command, with the server's address, and shows its warnings.
pub(crate) async fn load(
    client: &Client,
    path: &Path,
    file: &FileArguments,
    output: Output,
) -> anyhow::Result<ProjectFile> {
    let gateway = client.gateway().await?;
    let mut read = read(path, file.runtime_map.as_ref(), &gateway)?;
    name_devices(client, &mut read.project).await;
    super::remote_code::bring(client, &mut read.project, &mut read.fetched, output).await?;
    read.project.warnings.iter().for_each(|one| output.remark(&warning(one)));
    Ok(read)
}

/// Says which cards stand for the types that a file names.
async fn name_devices(client: &Client, project: &mut Project) {
    let types = |function: &DeclaredFunction| {
        function.config.get("gpuConfig").and_then(|gpu| gpu["gpuType"].as_str()).map(str::to_owned)
    };
    let asked: BTreeSet<String> = project.functions.iter().filter_map(types).collect();
    // Without the right to see the server, the plan says what holds where no type is named.
    let Some(known) = (match asked.is_empty() {
        true => None,
        false => client.about().await.ok(),
    }) else {
        return;
    };
    for theirs in &asked {
        match known.gpu_types.get(theirs) {
            Some(ours) => {
                project.changes.push(format!("{theirs} is a card of the type {ours} ([gpu_types] of kipwake.toml)"))
            }
            None => continue,
        }
    }
    if asked.iter().all(|theirs| known.gpu_types.contains_key(theirs)) {
        for key in project.keys.iter_mut().filter(|key| key.path.ends_with("gpuConfig.gpuType")) {
            (key.effect, key.note) = (Effect::Mapped, "");
        }
    }
}

/// The names of a file's functions: of `-t`, or of the file in this folder.
pub(crate) async fn names(client: &Client, file: &FileArguments, output: Output) -> anyhow::Result<Vec<String>> {
    let path = wanted(Path::new("."), file).ok_or_else(|| {
        Problem::new(code::COMMAND_INPUT, "no function is named").hint("write its name, or a file: -t s.yaml")
    })?;
    let read = load(client, &path, file, output).await?;
    Ok(read.project.functions.iter().map(|function| function.name.to_string()).collect())
}

/// The URL of a function, and a line that calls it.
pub(crate) fn address(file: &ProjectFile, function: &DeclaredFunction) -> (String, String) {
    let http = function.triggers.iter().find(|trigger| trigger.kind == "http");
    let qualifier = http.map(|trigger| trigger.qualifier.as_str()).filter(|qualifier| *qualifier != "LATEST");
    let qualifier = qualifier.map(|qualifier| format!("@{qualifier}")).unwrap_or_default();
    let url = format!("http://{}/f/{}{qualifier}/", file.gateway, function.name);
    let line = match http {
        Some(trigger) if trigger.config["authType"] == "function" => {
            format!("curl -H \"Authorization: Bearer $KIPWAKE_KEY\" {url}")
        }
        Some(_) => format!("curl {url}"),
        None => format!("kip s invoke -t {} {} -e '{{}}'", file.file, function.name),
    };
    (url, line)
}
