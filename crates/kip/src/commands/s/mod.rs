//! `kip s …`: a line of the tool `s`, carried out here. Its functions come from an s.yaml or a template.yml.

mod invoke;
mod line;
mod settings;

use std::path::{Path, PathBuf};

use clap::{CommandFactory, FromArgMatches};
use kip_serverless::DeclaredFunction;
use kip_spec::{Problem, code};

use self::line::CommandLine;
use crate::arguments::{Arguments, Command, Connection, FileArguments, Format};
use crate::client::Client;
use crate::commands::files::{self, ProjectFile};
use crate::commands::layer;
use crate::output::Output;

/// Commands of the tool that are carried out here.
const KNOWN: &str =
    "deploy, plan, info, invoke, remove, version, alias, provision, scaling, concurrency, instance, layer, logs, local";

pub(crate) async fn run(connection: &Connection, words: &[String], output: Output) -> anyhow::Result<()> {
    let line = CommandLine::read(words)
        .map_err(|fault| Problem::new(code::COMMAND_INPUT, fault).hint(format!("write `kip s COMMAND`: {KNOWN}")))?;
    let output = if line.flag("output") == Some("json") { Output::new(Format::Json) } else { output };
    match line.command.as_str() {
        "deploy" | "plan" | "info" | "remove" | "logs" => again(connection, &line, output).await,
        "invoke" => {
            let (client, file) = open(connection, &line, output).await?;
            invoke::run(&client, &line, one(&file, &line)?, output).await
        }
        "version" | "alias" | "provision" | "scaling" | "concurrency" | "instance" => {
            let (client, file) = open(connection, &line, output).await?;
            settings::run(&client, &line, one(&file, &line)?, output).await
        }
        "local" => local(connection, &line, output).await,
        "layer" => layers(&Client::find(connection)?, &line, output).await,
        other => {
            let twin = TWINS.iter().find(|(name, _)| *name == other).map(|(_, twin)| (*twin).to_owned());
            let hint = twin.unwrap_or_else(|| format!("known are {KNOWN}; `kip --help` lists the rest"));
            Err(Problem::new(code::COMMAND_INPUT, format!("`s {other}` is not carried out here")).hint(hint).into())
        }
    }
}

/// Commands of the tool that are not carried out, with what to run in their place.
const TWINS: [(&str, &str); 6] = [
    ("build", "`kip install` installs dependencies into the project; images are built with docker or podman"),
    ("list", "`kip ls` lists the functions of the server"),
    ("sync", "`kip inspect FUNCTION` shows the declaration of a function; GetFunctionCode of the API gives its code"),
    ("session", "`kip exec FUNCTION` opens a shell in an instance; sessions of the vendor are not kept here"),
    ("model", "`kip model pull` downloads a model, and `kip up hf:ORG/MODEL` serves it"),
    ("config", "`kip key create NAME --access-key` makes a pair; `s config add` stores it for the vendor's tool"),
];

/// The file that a line means: that of `-t`, or one in this folder.
fn file_of(line: &CommandLine) -> anyhow::Result<PathBuf> {
    let arguments = FileArguments { template: line.flag("template").map(PathBuf::from), ..FileArguments::default() };
    files::wanted(Path::new("."), &arguments).ok_or_else(|| {
        Problem::new(code::MANIFEST_UNREADABLE, "there is no s.yaml or template.yml in this folder")
            .hint("name it: -t FILE")
            .into()
    })
}

/// Layers by lines of `s`. They belong to no file.
async fn layers(client: &Client, line: &CommandLine, output: Output) -> anyhow::Result<()> {
    let needed = |name: &str| {
        line.flag(name).ok_or_else(|| Problem::new(code::COMMAND_INPUT, format!("`s layer` needs --{name} here")))
    };
    let version = || line.flag("version-id").map(str::parse::<u64>).transpose();
    match line.verb.as_deref().unwrap_or("list") {
        "list" => layer::list(client, output).await,
        "versions" | "info" => layer::versions(client, needed("layer-name")?, output).await,
        "publish" => {
            let runtimes: Vec<String> = line
                .flag("compatible-runtime")
                .unwrap_or_default()
                .split(',')
                .filter(|one| !one.is_empty())
                .map(str::to_owned)
                .collect();
            let about = (runtimes.as_slice(), line.flag("description").unwrap_or_default());
            layer::publish(client, needed("layer-name")?, Path::new(needed("code")?), about, output).await
        }
        "remove" => layer::remove(client, needed("layer-name")?, version()?, output).await,
        other => {
            let hint = match other {
                "download" => "GetLayerVersion of the API gives the address of its archive: docs/fc-api.md",
                "acl" => "every function of this server may name a layer; PutLayerACL of the API stores what is said",
                _ => "known are list, versions, info, publish, remove",
            };
            let said = format!("`s layer {other}` is not carried out here");
            Err(Problem::new(code::COMMAND_INPUT, said).hint(hint).into())
        }
    }
}

/// `s local start|invoke` in the words of `kip local`.
async fn local(connection: &Connection, line: &CommandLine, output: Output) -> anyhow::Result<()> {
    let verb = line.verb.as_deref().unwrap_or("start");
    if !["start", "invoke"].contains(&verb) {
        return Err(Problem::new(code::COMMAND_INPUT, format!("`s local {verb}` is not carried out here"))
            .hint("known are start and invoke")
            .into());
    }
    let mut words = vec!["kip".to_owned(), "local".to_owned(), verb.to_owned()];
    words.extend(["-t".to_owned(), file_of(line)?.display().to_string()]);
    words.extend(line.resource.clone());
    for (theirs, ours) in [("event", "-e"), ("event-file", "-f"), ("server-port", "-p"), ("port", "-p")] {
        if let Some(value) = line.flag(theirs).filter(|_| (ours == "-p") == (verb == "start")) {
            words.extend([ours.to_owned(), value.to_owned()]);
        }
    }
    let matches = Arguments::command().try_get_matches_from(words)?;
    let command: Command = Arguments::from_arg_matches(&matches)?.command;
    Box::pin(super::run(connection, command, output)).await
}

async fn open(connection: &Connection, line: &CommandLine, output: Output) -> anyhow::Result<(Client, ProjectFile)> {
    let client = Client::find(connection)?;
    let file = files::load(&client, &file_of(line)?, &FileArguments::default(), output).await?;
    Ok((client, file))
}

/// The function that a line is about.
fn one<'a>(file: &'a ProjectFile, line: &CommandLine) -> anyhow::Result<&'a DeclaredFunction> {
    let named = line.resource.clone().or_else(|| line.flag("function-name").map(str::to_owned));
    let only: Vec<String> = named.into_iter().collect();
    match file.functions(&only)?.as_slice() {
        [one] => Ok(one),
        several => {
            let names: Vec<&str> = several.iter().map(|function| function.key.as_str()).collect();
            Err(Problem::new(code::COMMAND_INPUT, format!("{} has {} functions: which one?", file.file, several.len()))
                .hint(format!("put its key before the command: kip s {} {}", names.join("|"), line.command))
                .into())
        }
    }
}

/// Commands that `kip` has itself: the line in its words.
async fn again(connection: &Connection, line: &CommandLine, output: Output) -> anyhow::Result<()> {
    let mut words = vec!["kip".to_owned()];
    let file = file_of(line)?.display().to_string();
    if line.command == "logs" {
        let client = Client::find(connection)?;
        let loaded = files::load(&client, Path::new(&file), &FileArguments::default(), output).await?;
        words.extend(["logs".to_owned(), one(&loaded, line)?.name.to_string()]);
        for (theirs, ours) in [
            ("request-id", "--request"),
            ("instance-id", "--instance"),
            ("start-time", "--since"),
            ("end-time", "--until"),
            ("search", "--search"),
        ] {
            // `-e` is an event elsewhere.
            let value = line.flag(theirs).or_else(|| line.flag("event").filter(|_| theirs == "end-time"));
            if let Some(value) = value {
                words.extend([ours.to_owned(), value.to_owned()]);
            }
        }
        if line.has("tail") {
            words.push("--follow".to_owned());
        }
    } else {
        let verb = if line.command == "remove" { "rm" } else { &line.command };
        words.extend([verb.to_owned(), "-t".to_owned(), file]);
        match (line.command.as_str(), &line.resource) {
            ("deploy" | "plan", Some(name)) => words.extend(["--only".to_owned(), name.clone()]),
            ("remove", Some(name)) => words.push(name.clone()),
            _ => {}
        }
        if matches!(line.command.as_str(), "deploy" | "remove") && line.has("assume-yes") {
            words.push("-y".to_owned());
        }
        if line.has("function") || line.has("trigger") {
            output.remark("the whole function is compared, and what differs is deployed");
        }
        for flag in ["allow-actions", "skip-actions"] {
            if line.command == "deploy" && line.has(flag) {
                words.push(format!("--{flag}"));
            }
        }
        if let Some(map) = line.flag("runtime-map") {
            words.extend(["--runtime-map".to_owned(), map.to_owned()]);
        }
    }
    let matches = Arguments::command().try_get_matches_from(words)?;
    let command: Command = Arguments::from_arg_matches(&matches)?.command;
    Box::pin(super::run(connection, command, output)).await
}
