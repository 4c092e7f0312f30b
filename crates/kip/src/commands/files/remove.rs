//! `kip remove -t`: the functions of a file.

use std::collections::BTreeSet;
use std::path::Path;

use kip_spec::{Problem, code};
use serde_json::{Value, json};

use super::actions;
use super::project_file::load;
use super::server;
use crate::arguments::Remove;
use crate::client::Client;
use crate::output::Output;

pub(crate) async fn remove(client: &Client, path: &Path, options: &Remove, output: Output) -> anyhow::Result<()> {
    let file = load(client, path, &options.file, output).await?;
    let (mut there, mut domains) = (Vec::new(), BTreeSet::new());
    // In the opposite order of the deployment.
    for function in file.functions(&options.functions)?.into_iter().rev() {
        if server::function(client, function.name.as_str()).await?.is_some() {
            there.push(function.name.to_string());
            let names = function.domains.iter().filter_map(|domain| domain["domainName"].as_str());
            domains.extend(names.map(str::to_ascii_lowercase));
        }
    }
    if !there.is_empty() {
        output.remark(&format!("- function {}", there.join("\n- function ")));
    }
    if !there.is_empty() && !options.yes && !actions::ask("remove them?", true, output)? {
        return Err(Problem::new(code::NOT_CONFIRMED, "nothing was removed: the removal was not confirmed")
            .hint("-y removes without a question")
            .into());
    }
    for name in &domains {
        leave_domain(client, name, &there).await?;
    }
    for name in &there {
        client.remove(&server::path(name, "")).await?;
    }
    output.result(&json!({"removed": there}), |_| match there.len() {
        0 => format!("no function of {} is on the server\n", file.file),
        _ => format!("removed {}\n", there.join(", ")),
    })
}

/// Takes the routes of functions out of a domain, and the domain away with its last one.
async fn leave_domain(client: &Client, name: &str, functions: &[String]) -> anyhow::Result<()> {
    let path = crate::commands::domain::path(name);
    let Some(domain) = server::find(client, &path).await? else { return Ok(()) };
    let routes = domain.get("routeConfig").map(|routes| routes["routes"].clone()).unwrap_or_default();
    let is_gone = |route: &Value| functions.iter().any(|function| route["functionName"] == function.as_str());
    let left: Vec<&Value> = routes.as_array().into_iter().flatten().filter(|route| !is_gone(route)).collect();
    if left.is_empty() {
        return client.remove(&path).await;
    }
    let _changed: Value = client.put(&path, &json!({"routeConfig": {"routes": left}})).await?;
    Ok(())
}
