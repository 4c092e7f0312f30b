//! `kip import`: an s.yaml or a template.yml as a kip.yaml, or as an s.yaml of edition 3.

use std::path::{Path, PathBuf};

use kip_serverless::DeclaredFunction;
use kip_spec::function::{FunctionSpec, HttpAuth, Program};
use kip_spec::scaling::{Fc, Scaling};
use kip_spec::{Problem, code};
use serde_json::json;

use super::project_file::{ProjectFile, read};
use crate::arguments::{ConfirmArguments, Connection, Deploy, FileArguments, Import};
use crate::client::Client;
use crate::output::Output;
use crate::problem::warning;

/// Where functions are called if no server says so.
const USUAL_GATEWAY: &str = "127.0.0.1:5470";

pub(crate) async fn import(connection: &Connection, options: &Import, output: Output) -> anyhow::Result<()> {
    let file = read(&options.file, options.runtime_map.as_ref(), USUAL_GATEWAY)?;
    file.project.warnings.iter().for_each(|one| output.remark(&warning(one)));
    file.project.changes.iter().for_each(|change| output.remark(&format!("converted: {change}")));
    let name = options.write.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let is_edition3 = name.is_some_and(|name| name.starts_with("s.") || name.starts_with("s-"));
    let text = if is_edition3 {
        kip_serverless::write(&file.project, &file.directory)
    } else {
        manifest(&file, options, output)?
    };
    let Some(target) = &options.write else { return output.data(text.as_bytes()) };
    if target.exists() && !options.force {
        return Err(Problem::new(code::BACKUP_EXISTS, format!("{} exists already", target.display()))
            .hint("--force overwrites it, -o FILE names another")
            .into());
    }
    std::fs::write(target, &text).map_err(|error| {
        Problem::new(code::COMMAND_FAILED, format!("{} cannot be written", target.display())).cause(error.to_string())
    })?;
    let count = file.project.functions.len();
    if options.deploy {
        let deploy = deploy_arguments(target);
        let client = Client::find(connection)?;
        return match is_edition3 {
            true => super::apply::deploy(&client, target, &deploy, output).await,
            false => crate::commands::deploy::run(&client, &deploy, output).await,
        };
    }
    output.result(&json!({"written": target, "functions": count}), |_| {
        format!("{} has {count} functions\n", target.display())
    })
}

fn deploy_arguments(path: &Path) -> Deploy {
    Deploy {
        path: path.to_owned(),
        filename: None,
        file: FileArguments::default(),
        confirm: ConfirmArguments::default(),
        only: Vec::new(),
        wait: false,
        no_wait: false,
        no_traffic: false,
        publish: false,
        message: String::new(),
        alias: None,
    }
}

/// The functions as a kip.yaml. What it has no word for is named.
fn manifest(file: &ProjectFile, options: &Import, output: Output) -> anyhow::Result<String> {
    let target = options.write.as_deref().and_then(Path::parent).map(std::path::absolute);
    let directory = target.transpose().ok().flatten().unwrap_or_else(|| file.directory.clone());
    let mut specs = Vec::new();
    for function in &file.project.functions {
        specs.push(spec(function, &directory, output)?);
    }
    Ok(kip_manifest::write(&specs))
}

fn spec(function: &DeclaredFunction, directory: &Path, output: Output) -> anyhow::Result<FunctionSpec> {
    let runtime = function.config["runtime"].as_str().unwrap_or_default();
    if !runtime.starts_with("custom") {
        let message = format!("{} is a handler of {runtime}, which a kip.yaml has no word for", function.name);
        return Err(Problem::new(code::FILE_UNSUPPORTED, message)
            .hint("deploy the file as it is: kip deploy -t FILE")
            .place(function.place.clone())
            .into());
    }
    if function.code.as_ref().is_some_and(|code| code.from.is_some()) {
        let message = format!("the code of {} is not in the project, and a kip.yaml names a folder", function.name);
        return Err(Problem::new(code::FILE_CODE, message)
            .hint("deploy the file as it is, or unpack the code and write its folder: `code: ./code`")
            .place(function.place.clone())
            .into());
    }
    // Words of the command that begin with /code are relative to the folder then.
    let mut spec = kip_fc::declaration(function.name.clone(), &function.config, Path::new("."))?;
    if let (Program::Command { dir, .. }, Some(code)) = (&mut spec.program, &function.code) {
        *dir = relative(&code.path, directory);
    }
    for trigger in &function.triggers {
        match trigger.kind.as_str() {
            "http" => {
                let methods = trigger.config["methods"].as_array().into_iter().flatten();
                spec.http.methods = methods.filter_map(|method| method.as_str().map(str::to_owned)).collect();
                if trigger.config["authType"] != "function" {
                    spec.http.auth = HttpAuth::Anonymous;
                }
            }
            kind => output.remark(&format!("left out: the trigger {} of {} ({kind})", trigger.name, function.name)),
        }
    }
    if let Some(provision) = function.provisions.get("LATEST") {
        // It was checked when the file was read.
        if let Ok(provision) = kip_manifest::provision::read(provision) {
            spec.scaling = Scaling::Fc(Box::new(Fc::new(provision)));
        }
    }
    if let Some(most) = function.concurrency.and_then(|most| u32::try_from(most).ok()) {
        spec.instances.max = most;
    }
    Ok(spec)
}

fn relative(path: &Path, directory: &Path) -> PathBuf {
    path.strip_prefix(directory).map_or_else(|_| path.to_owned(), |path| Path::new(".").join(path))
}
