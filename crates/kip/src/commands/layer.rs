//! `kip layer` and `kip s layer`: folders that several functions share.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kip_serverless::CodeSource;
use kip_spec::problem::Place;
use serde_json::{Map, Value, json};

use crate::arguments::Layer;
use crate::client::{Client, segment};
use crate::commands::files::{archive, server};
use crate::output::{Output, table};

pub(crate) async fn run(client: &Client, command: &Layer, output: Output) -> anyhow::Result<()> {
    match command {
        Layer::Ls { name: None } => list(client, output).await,
        Layer::Ls { name: Some(name) } => versions(client, name, output).await,
        Layer::Publish { name, folder, runtimes, description } => {
            publish(client, name, folder, (runtimes, description), output).await
        }
        Layer::Rm { name, version } => remove(client, name, *version, output).await,
    }
}

fn path(name: &str, rest: &str) -> String {
    format!("{}/layers/{}/versions{rest}", server::API, segment(name))
}

fn rows(layers: &[Map<String, Value>]) -> String {
    let text = |layer: &Map<String, Value>, name: &str| match &layer[name] {
        Value::String(text) => text.clone(),
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    let row = |layer: &Map<String, Value>| {
        ["layerName", "version", "compatibleRuntime", "description", "layerVersionArn"]
            .map(|name| text(layer, name))
            .into()
    };
    let rows: Vec<Vec<String>> = layers.iter().map(row).collect();
    table(&["LAYER", "#VERSION", "RUNTIMES", "DESCRIPTION", "NAME FOR FUNCTIONS"], &rows)
}

/// All rows of a list, over its pages; `next` names the field of the next page, `asks` the one that asks for it.
async fn all(client: &Client, path: &str, (next, asks): (&str, &str)) -> anyhow::Result<Vec<Map<String, Value>>> {
    let mut found = Vec::new();
    let mut from = String::new();
    loop {
        let page: Value = client.get(&format!("{path}?limit=100{from}")).await?;
        found.extend(server::list(&page, "layers"));
        from = match &page[next] {
            Value::String(token) if !token.is_empty() => format!("&{asks}={}", segment(token)),
            Value::Number(number) => format!("&{asks}={number}"),
            _ => return Ok(found),
        };
    }
}

/// The newest version of each.
pub(crate) async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let found = all(client, &format!("{}/layers", server::API), ("nextToken", "nextToken")).await?;
    output.result(&found, |found| rows(found))
}

/// The versions of one.
pub(crate) async fn versions(client: &Client, name: &str, output: Output) -> anyhow::Result<()> {
    let found = all(client, &path(name, ""), ("nextVersion", "startVersion")).await?;
    output.result(&found, |found| rows(found))
}

/// Makes a version of a folder or an archive.
pub(crate) async fn publish(
    client: &Client,
    name: &str,
    folder: &Path,
    (runtimes, description): (&[String], &str),
    output: Output,
) -> anyhow::Result<()> {
    let whole = std::path::absolute(folder)?;
    let source = CodeSource {
        path: whole,
        from: None,
        place: Place { file: folder.display().to_string(), line: 0, column: 0, text: None },
    };
    let archive = archive::made(&format!("the layer {name}"), &source)?;
    let code = json!({"zipFile": BASE64_STANDARD.encode(&archive.bytes), "checksum": archive.checksum});
    let body = json!({"code": code, "compatibleRuntime": runtimes, "description": description});
    let made: Value = client.post(&path(name, ""), &body).await?;
    output.result(&made, |made| {
        let text = |field: &str| made[field].as_str().unwrap_or_default();
        format!("published version {} of the layer {name}\n  layers: [{}]\n", made["version"], text("layerVersionArn"))
    })
}

/// Removes a version, or all of them.
pub(crate) async fn remove(client: &Client, name: &str, version: Option<u64>, output: Output) -> anyhow::Result<()> {
    let numbers: Vec<u64> = match version {
        Some(version) => vec![version],
        None => {
            let found = all(client, &path(name, ""), ("nextVersion", "startVersion")).await?;
            found.iter().filter_map(|one| one["version"].as_u64()).collect()
        }
    };
    // Of a layer that is not there, the first version is asked for, so that the answer says so.
    let numbers = if numbers.is_empty() { vec![1] } else { numbers };
    for number in &numbers {
        client.remove(&path(name, &format!("/{number}"))).await?;
    }
    output.result(&json!({"removed": numbers}), |_| {
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        format!("removed version {} of the layer {name}\n", numbers.join(", "))
    })
}
