//! `kip remove -t`: the functions of a file.

use std::path::Path;

use kip_spec::{Problem, code};
use serde_json::json;

use super::actions;
use super::project_file::load;
use super::server;
use crate::arguments::Remove;
use crate::client::Client;
use crate::output::Output;

pub(crate) async fn remove(client: &Client, path: &Path, options: &Remove, output: Output) -> anyhow::Result<()> {
    let file = load(client, path, &options.file, output).await?;
    let mut there = Vec::new();
    // In the opposite order of the deployment.
    for function in file.functions(&options.functions)?.into_iter().rev() {
        if server::function(client, function.name.as_str()).await?.is_some() {
            there.push(function.name.to_string());
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
    for name in &there {
        client.remove(&server::path(name, "")).await?;
    }
    output.result(&json!({"removed": there}), |_| match there.len() {
        0 => format!("no function of {} is on the server\n", file.file),
        _ => format!("removed {}\n", there.join(", ")),
    })
}
