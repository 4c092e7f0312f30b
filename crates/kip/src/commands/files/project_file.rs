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
}

impl ProjectFile {
    /// The functions that are meant: all, or those of these names and keys.
    pub(crate) fn functions(&self, only: &[String]) -> anyhow::Result<Vec<&DeclaredFunction>> {
        let all = &self.project.functions;
        // A name, a key, `service$function`, or a service for all functions of it.
        let has = |function: &DeclaredFunction, name: &String| {
            let name = name.replacen('$', "/", 1);
            function.name.as_str() == name
                || function.key == name
                || function.key.split_once('/').is_some_and(|(service, _)| service == name)
        };
        if let Some(name) = only.iter().find(|name| !all.iter().any(|function| has(function, name))) {
            let known: Vec<&str> = all.iter().map(|function| function.name.as_str()).collect();
            let message = format!("{} has no function `{name}`", self.file);
            let hint = format!("functions of the file: {}", known.join(", "));
            return Err(Problem::new(code::FILE_REFERENCE, message).hint(hint).into());
        }
        Ok(all.iter().filter(|one| only.is_empty() || only.iter().any(|name| has(one, name))).collect())
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
    let runtimes = map.cloned().unwrap_or_default().over(of_file.unwrap_or_default());
    let file = path.display().to_string();
    let source =
        Source { file: &file, text: &text, directory: &directory, variables: &variables, gateway, runtimes: &runtimes };
    let mut project = kip_serverless::read(&source).map_err(Problems)?;
    project.functions.iter_mut().for_each(crate::commands::install::add_variables);
    Ok(ProjectFile { file, directory, project, gateway: gateway.to_owned() })
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
            Some(ours) => project.changes.push(format!("{theirs} is a card of the type {ours} ([gpu_types] of kipwake.toml)")),
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
