//! `kip info`: what the server has of a file's functions.

use kip_serverless::DeclaredFunction;
use kip_spec::{Problem, code};
use serde::Serialize;
use serde_json::{Map, Value};

use super::project_file::{ProjectFile, address, load, wanted};
use super::server;
use crate::arguments::Info;
use crate::client::Client;
use crate::output::Output;

/// A function of a file as the server has it.
#[derive(Debug, Serialize)]
struct FunctionState {
    function: String,
    url: String,
    /// Nothing if it is not deployed.
    configuration: Option<Map<String, Value>>,
    triggers: Vec<Map<String, Value>>,
    provision: Option<Map<String, Value>>,
}

pub(crate) async fn info(client: &Client, options: &Info, output: Output) -> anyhow::Result<()> {
    let path = wanted(&options.path, &options.file).ok_or_else(|| {
        Problem::new(
            code::MANIFEST_UNREADABLE,
            format!("there is no s.yaml or template.yml in {}", options.path.display()),
        )
        .hint("`kip inspect NAME` shows a function without a file; -t FILE names a file")
    })?;
    let file = load(client, &path, &options.file, output).await?;
    let mut states = Vec::new();
    for function in file.functions(&[])? {
        states.push(state(client, &file, function).await?);
    }
    output.result(&states, |states| states.iter().map(text).collect())
}

async fn state(client: &Client, file: &ProjectFile, function: &DeclaredFunction) -> anyhow::Result<FunctionState> {
    let name = function.name.as_str();
    let configuration = server::function(client, name).await?;
    let (triggers, provision) = match &configuration {
        Some(_) => {
            let path = server::path(name, "/provision-config?qualifier=LATEST");
            (server::triggers(client, name).await?, server::find(client, &path).await?)
        }
        None => (Vec::new(), None),
    };
    let provision = provision.filter(|provision| provision.contains_key("functionArn"));
    Ok(FunctionState { function: name.to_owned(), url: address(file, function).0, configuration, triggers, provision })
}

fn text(state: &FunctionState) -> String {
    let Some(there) = &state.configuration else {
        return format!("{} is not deployed\n", state.function);
    };
    let mut text = format!("function     {}\nurl          {}\n", state.function, state.url);
    let fields = [
        ("runtime", "runtime"),
        ("description", "description"),
        ("timeout", "timeout"),
        ("memory", "memorySize"),
        ("cpu", "cpu"),
        ("changed", "lastModifiedTime"),
        ("state", "lastUpdateStatus"),
    ];
    for (label, field) in fields {
        match there.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(value)) if value.is_empty() => {}
            Some(Value::String(value)) => text.push_str(&format!("{label:<13}{value}\n")),
            Some(other) => text.push_str(&format!("{label:<13}{other}\n")),
        }
    }
    for trigger in &state.triggers {
        let field = |name: &str| trigger.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, kind, qualifier) = (field("triggerName"), field("triggerType"), field("qualifier"));
        text.push_str(&format!("trigger      {name} ({kind}, {qualifier})\n"));
    }
    if let Some(provision) = &state.provision {
        text.push_str(&format!("provisioned  {} wanted, {} there\n", provision["target"], provision["current"]));
    }
    text
}
