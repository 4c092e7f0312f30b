//! Versions, aliases, provisioned instances, scaling, concurrency and instances by lines of `s`.

use std::time::Duration;

use kip_host::clock::boot_millis;
use kip_serverless::DeclaredFunction;
use kip_spec::{Problem, code};
use serde_json::{Map, Value, json};

use super::line::CommandLine;
use crate::arguments::{Exec, json_or_file};
use crate::client::{Client, segment};
use crate::commands::exec;
use crate::output::{Output, table};
use crate::progress::Progress;

/// How long `--wait` waits, milliseconds.
const LONGEST_WAIT: u64 = 1_800_000;

pub(crate) async fn run(
    client: &Client,
    line: &CommandLine,
    function: &DeclaredFunction,
    output: Output,
) -> anyhow::Result<()> {
    let name = function.name.as_str();
    let at = |rest: &str| format!("/2023-03-30/functions/{}{rest}", segment(name));
    let qualifier = line.flag("qualifier").unwrap_or("LATEST");
    let by_qualifier = |what: &str| at(&format!("/{what}?qualifier={}", segment(qualifier)));
    let verb = line.verb.as_deref().unwrap_or("list");
    let list_of = |what: &str| format!("/2023-03-30/{what}?functionName={}&limit=100", segment(name));
    match (line.command.as_str(), verb) {
        ("version", "publish") => {
            let body = json!({"description": line.flag("description").unwrap_or_default()});
            show(output, &client.post(&at("/versions"), &body).await?)
        }
        ("version", "list") => rows(output, &client.get(&at("/versions?limit=100")).await?, "versions"),
        ("version", "remove") => {
            gone(client, output, &at(&format!("/versions/{}", segment(needed(line, "version-id")?)))).await
        }
        ("alias", "publish") => {
            let body = alias(line)?;
            let alias = segment(needed(line, "alias-name")?);
            let path = at(&format!("/aliases/{alias}"));
            let made: Value = match there(client, &path).await? {
                true => client.put(&path, &body).await?,
                false => client.post(&at("/aliases"), &body).await?,
            };
            show(output, &made)
        }
        ("alias", "list") => rows(output, &client.get(&at("/aliases?limit=100")).await?, "aliases"),
        ("alias", "get" | "remove") => {
            let path = at(&format!("/aliases/{}", segment(needed(line, "alias-name")?)));
            match verb {
                "get" => show(output, &client.get(&path).await?),
                _ => gone(client, output, &path).await,
            }
        }
        ("provision", "put") => {
            let put: Value = client.put(&by_qualifier("provision-config"), &provision(line)?).await?;
            match line.has("wait") {
                true => wait(client, &by_qualifier("provision-config"), ("target", "current"), output).await,
                false => show(output, &put),
            }
        }
        ("provision", "list") => rows(output, &client.get(&list_of("provision-configs")).await?, "provisionConfigs"),
        ("provision", "get") => show(output, &client.get(&by_qualifier("provision-config")).await?),
        ("provision", "remove") => gone(client, output, &by_qualifier("provision-config")).await,
        ("scaling", "put") => {
            let put: Value = client.put(&by_qualifier("scaling-config"), &scaling(line)?).await?;
            match line.has("wait") {
                true => {
                    let fields = ("targetInstances", "currentInstances");
                    wait(client, &by_qualifier("scaling-config"), fields, output).await
                }
                false => show(output, &put),
            }
        }
        ("scaling", "list") => rows(output, &client.get(&list_of("scaling-configs")).await?, "scalingConfigs"),
        ("scaling", "get") => show(output, &client.get(&by_qualifier("scaling-config")).await?),
        ("scaling", "remove") => gone(client, output, &by_qualifier("scaling-config")).await,
        ("concurrency", "put") => {
            let most = number(needed(line, "reserved-concurrency")?, "reserved-concurrency")?;
            show(output, &client.put(&at("/concurrency"), &json!({"reservedConcurrency": most})).await?)
        }
        ("concurrency", "get" | "list") => show(output, &client.get(&at("/concurrency")).await?),
        ("concurrency", "remove") => gone(client, output, &at("/concurrency")).await,
        ("instance", "list") => rows(output, &client.get(&at("/instances?limit=100")).await?, "instances"),
        ("instance", "exec") => {
            // As the tool does it: a line for a shell, or a shell.
            let words = match line.flag("cmd") {
                Some(cmd) => vec!["sh".to_owned(), "-c".to_owned(), cmd.to_owned()],
                None => vec!["sh".to_owned()],
            };
            let at = line.flag("qualifier").map(|qualifier| format!("@{qualifier}")).unwrap_or_default();
            let instance = Some(needed(line, "instance-id")?.to_owned());
            exec::run(client, &Exec::of(format!("{name}{at}"), instance, words), output).await
        }
        (command, verb) => {
            Err(Problem::new(code::COMMAND_INPUT, format!("`s {command} {verb}` is not carried out here"))
                .hint(format!("verbs of `s {command}` are list, get, put, publish and remove, as far as it has them"))
                .into())
        }
    }
}

fn needed<'a>(line: &'a CommandLine, flag: &str) -> anyhow::Result<&'a str> {
    line.flag(flag).ok_or_else(|| {
        let verb = line.verb.as_deref().unwrap_or_default();
        Problem::new(code::COMMAND_INPUT, format!("`s {} {verb}` needs --{flag}", line.command))
            .hint(format!("write --{flag} VALUE"))
            .into()
    })
}

fn number(text: &str, flag: &str) -> anyhow::Result<u64> {
    text.parse().map_err(|_| {
        let message = format!("--{flag} is a whole number, not `{text}`");
        Problem::new(code::COMMAND_INPUT, message).hint(format!("write --{flag} 1")).into()
    })
}

fn alias(line: &CommandLine) -> anyhow::Result<Value> {
    let mut body = json!({
        "aliasName": needed(line, "alias-name")?,
        "versionId": needed(line, "version-id")?,
        "description": line.flag("description").unwrap_or_default(),
    });
    if let Some(weights) = line.flag("version-weight") {
        body["additionalVersionWeight"] = json_or_file(weights)?;
    }
    Ok(body)
}

/// A list that stands alone, or in an object by its name.
fn list(text: &str, key: &str) -> anyhow::Result<Value> {
    let read = json_or_file(text)?;
    Ok(match read {
        Value::Object(mut map) if map.contains_key(key) => map.remove(key).unwrap_or_default(),
        other => other,
    })
}

fn provision(line: &CommandLine) -> anyhow::Result<Value> {
    let mut body = Map::new();
    if let Some(target) = line.flag("target").or_else(|| line.flag("default-target")) {
        body.insert("defaultTarget".to_owned(), number(target, "target")?.into());
    }
    for (flag, key) in
        [("target-tracking-policies", "targetTrackingPolicies"), ("scheduled-actions", "scheduledActions")]
    {
        if let Some(text) = line.flag(flag) {
            body.insert(key.to_owned(), list(text, key)?);
        }
    }
    for (flag, key) in [("always-allocate-cpu", "alwaysAllocateCPU"), ("always-allocate-gpu", "alwaysAllocateGPU")] {
        if line.flag(flag).is_some() {
            body.insert(key.to_owned(), line.has(flag).into());
        }
    }
    Ok(body.into())
}

fn scaling(line: &CommandLine) -> anyhow::Result<Value> {
    let mut body = Map::new();
    if let Some(least) = line.flag("min-instances") {
        body.insert("minInstances".to_owned(), number(least, "min-instances")?.into());
    }
    for (flag, key) in
        [("horizontal-scaling-policies", "horizontalScalingPolicies"), ("scheduled-policies", "scheduledPolicies")]
    {
        if let Some(text) = line.flag(flag) {
            body.insert(key.to_owned(), list(text, key)?);
        }
    }
    Ok(body.into())
}

async fn there(client: &Client, path: &str) -> anyhow::Result<bool> {
    match client.get::<Value>(path).await {
        Ok(_) => Ok(true),
        Err(error) if error.downcast_ref::<Problem>().is_some_and(|problem| problem.code.status() == 404) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn gone(client: &Client, output: Output, path: &str) -> anyhow::Result<()> {
    client.remove(path).await?;
    output.result(&json!({"removed": true}), |_| "removed\n".to_owned())
}

/// Waits until there are as many instances as wanted.
async fn wait(client: &Client, path: &str, (target, current): (&str, &str), output: Output) -> anyhow::Result<()> {
    let begun = boot_millis();
    let mut progress = Progress::new(output);
    loop {
        let now: Value = client.get(path).await?;
        let (wanted, there) = (now[target].as_u64().unwrap_or_default(), now[current].as_u64().unwrap_or_default());
        if wanted == there {
            return show(output, &now);
        }
        let why = now["currentError"].as_str().unwrap_or_default().to_owned();
        if boot_millis().saturating_sub(begun) > LONGEST_WAIT {
            return Err(Problem::new(
                code::PROVISION_LATE,
                format!("{there} of {wanted} provisioned instances are there"),
            )
            .cause(why)
            .hint("`kip ps` lists the instances, `kip why NAME` the decisions")
            .into());
        }
        progress.say(&format!("{there} of {wanted} provisioned instances are there {why}"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An object, a line for each field.
fn show(output: Output, value: &Value) -> anyhow::Result<()> {
    output.result(value, |value| {
        let fields = value.as_object().into_iter().flatten();
        fields.map(|(name, value)| format!("{name:<26}{}\n", text(value))).collect()
    })
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A list as a table; an empty one has no lines.
fn rows(output: Output, listed: &Value, name: &str) -> anyhow::Result<()> {
    let items = listed[name].clone();
    output.result(&items, |items| {
        let all: Vec<&Map<String, Value>> =
            items.as_array().into_iter().flatten().filter_map(Value::as_object).collect();
        let Some(first) = all.first() else { return "none\n".to_owned() };
        let header: Vec<&str> = first.keys().map(String::as_str).collect();
        let row = |item: &&Map<String, Value>| {
            header.iter().map(|name| item.get(*name).map(text).unwrap_or_default()).collect()
        };
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        table(&header, &rows)
    })
}
