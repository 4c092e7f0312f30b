//! `kip model`: the models of the server's cache.

use std::path::Path;
use std::time::Duration;

use kip_spec::people;
use kip_wire::{ModelInfo, ModelList, ModelPull, ModelRequest, ModelUsage, PullPhase};

use crate::arguments::models::{From, Model, Name, Pull};
use crate::client::{Client, segment};
use crate::commands::eject;
use crate::output::{Output, date, table};
use crate::progress::{Progress, interruptible};

/// Between two looks at a pull.
const EVERY: Duration = Duration::from_millis(200);
/// Characters of a commit that are shown.
const SHORT: usize = 12;

pub(crate) async fn run(client: &Client, command: &Model, output: Output) -> anyhow::Result<()> {
    match command {
        Model::Ls => list(client, output).await,
        Model::Show(name) => {
            let info: ModelInfo = client.get(&path_of(name, "")).await?;
            output.result(&info, described)
        }
        Model::Pull(options) => pull(client, options, output).await,
        Model::Cancel { pull } => {
            let info: ModelPull = client.delete(&format!("/api/v1/models/pulls/{pull}")).await?;
            output.result(&info, |info| format!("Cancelled {}\n", info.source))
        }
        Model::Verify(name) => {
            let patient = client.pulling();
            let info: ModelInfo = patient.post(&path_of(name, "/verify"), &serde_json::json!({})).await?;
            output.result(&info, |info| match info.damaged.as_slice() {
                [] => format!("Verified  {}: {} files, {}\n", info.id, info.files.len(), people::size(info.size)),
                damaged => format!(
                    "Damaged   {}: {}; `kip model pull {}` brings them again\n",
                    info.id,
                    damaged.join(", "),
                    info.source
                ),
            })
        }
        Model::Du => {
            let usage: ModelUsage = client.get("/api/v1/models/usage").await?;
            output.result(&usage, used)
        }
        Model::Pin(name) => {
            let info: ModelInfo = client.put(&path_of(name, "/pin"), &serde_json::json!({})).await?;
            output.result(&info, |info| format!("Pinned    {}\n", info.id))
        }
        Model::Unpin(name) => {
            let info: ModelInfo = client.delete(&path_of(name, "/pin")).await?;
            output.result(&info, |info| format!("Unpinned  {}\n", info.id))
        }
        Model::Eject { function, folder } => eject::run(client, function, folder, output).await,
        Model::Rm(name) => {
            let info: ModelInfo = client.delete(&path_of(name, "")).await?;
            output.result(&info, |info| format!("Removed   {}, {}\n", info.id, people::size(info.size)))
        }
    }
}

fn path_of(name: &Name, rest: &str) -> String {
    format!("/api/v1/models/{}{rest}", segment(&name.model))
}

/// What the server is asked for. A path is made absolute here; endpoint and token come of the environment where no flag names them.
pub(crate) fn request(source: &str, from: &From, include: &[String]) -> anyhow::Result<ModelRequest> {
    let hub = if source.starts_with("modelscope:") || source.starts_with("ms:") { "modelscope" } else { "hf" };
    let is_hub = ["hf:", "huggingface:", "modelscope:", "ms:"].iter().any(|prefix| source.starts_with(prefix));
    let read = |names: &[&str]| names.iter().find_map(|name| kip_host::environment::read(name)).filter(|_| is_hub);
    let (endpoint, token) = match hub {
        "modelscope" => (read(&["MODELSCOPE_ENDPOINT"]), read(&["MODELSCOPE_API_TOKEN"])),
        _ => (read(&["HF_ENDPOINT"]), read(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])),
    };
    let is_path =
        !is_hub && !source.starts_with("http://") && !source.starts_with("https://") && Path::new(source).exists();
    let source = if is_path { std::path::absolute(source)?.display().to_string() } else { source.to_owned() };
    Ok(ModelRequest {
        source,
        revision: from.revision.clone(),
        endpoint: from.endpoint.clone().or(endpoint),
        token: token.filter(|_| from.token_secret.is_none()),
        token_secret: from.token_secret.clone(),
        include: include.to_vec(),
    })
}

async fn pull(client: &Client, options: &Pull, output: Output) -> anyhow::Result<()> {
    let request = request(&options.source, &options.from, &options.include)?;
    let begun: ModelPull = client.post("/api/v1/models/pulls", &request).await?;
    if options.no_wait {
        return output.result(&begun, |pull| format!("Pulling   {} as pull {}\n", pull.source, pull.id));
    }
    let goes_on = || format!("the pull goes on in the server; `kip model cancel {}` ends it", begun.id);
    let over = async {
        let mut progress = Progress::new(output);
        loop {
            let pull: ModelPull = client.get(&format!("/api/v1/models/pulls/{}", begun.id)).await?;
            match pull.phase {
                PullPhase::Listing => progress.say(&format!("{}: asking for its files", pull.source)),
                PullPhase::Downloading => progress.say(&received(&pull.source, pull.received, pull.total)),
                PullPhase::Done | PullPhase::Failed => return Ok(pull),
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    let mut pull = interruptible(output, goes_on, over).await?;
    if let Some(problem) = pull.error.take() {
        return Err(problem.into());
    }
    output.result(&pull, |pull| {
        format!(
            "Pulled    {}: {} files, {}\n",
            pull.model.as_deref().unwrap_or(&pull.source),
            pull.files,
            people::size(pull.total)
        )
    })
}

/// How far a download has come.
pub(crate) fn received(source: &str, received: u64, total: u64) -> String {
    let percent = received.saturating_mul(100).checked_div(total).unwrap_or(100);
    format!("{source}: {} of {}, {percent} %", people::size_of(received, total), people::size(total))
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let list: ModelList = client.get("/api/v1/models").await?;
    output.result(&list, |list| {
        let cells = |model: &ModelInfo| {
            let state = match (model.damaged.is_empty(), model.pinned) {
                (false, _) => "damaged",
                (true, true) => "pinned",
                (true, false) => "-",
            };
            vec![
                model.source.clone(),
                model.commit.chars().take(SHORT).collect(),
                people::size(model.size),
                model.licence.clone().unwrap_or_else(|| "-".to_owned()),
                state.to_owned(),
                if model.used_by.is_empty() { "-".to_owned() } else { model.used_by.join(", ") },
                date(model.pulled),
            ]
        };
        let rows: Vec<Vec<String>> = list.models.iter().map(cells).collect();
        let mut text = table(&["MODEL", "COMMIT", "#SIZE", "LICENCE", "STATE", "FUNCTIONS", "PULLED"], &rows);
        for pull in list.pulls.iter().filter(|pull| matches!(pull.phase, PullPhase::Listing | PullPhase::Downloading)) {
            text.push_str(&format!("pull {}: {}\n", pull.id, received(&pull.source, pull.received, pull.total)));
        }
        text
    })
}

fn described(info: &ModelInfo) -> String {
    let mut text = format!("Model     {}\n", info.id);
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<10}{value}\n"));
    line("Revisions", &info.revisions.join(", "));
    line("Licence", info.licence.as_deref().unwrap_or("not named"));
    line("Task", info.task.as_deref().unwrap_or("not named"));
    line("Folder", &info.folder);
    line("Size", &people::size(info.size));
    line("Pulled", &date(info.pulled));
    line("Verified", &info.verified.map_or_else(|| "not since".to_owned(), date));
    line("Functions", &if info.used_by.is_empty() { "none".to_owned() } else { info.used_by.join(", ") });
    let rows: Vec<Vec<String>> = info
        .files
        .iter()
        .map(|file| vec![file.path.clone(), people::size(file.size), file.sha256.clone().unwrap_or_default()])
        .collect();
    text + "\n" + &table(&["FILE", "#SIZE", "SHA-256"], &rows)
}

fn used(usage: &ModelUsage) -> String {
    let rows: Vec<Vec<String>> = usage
        .models
        .iter()
        .map(|model| vec![model.model.clone(), people::size(model.size), people::size(model.own)])
        .collect();
    let total = format!(
        "\n{} in {}, {} of them for pulls that are not complete; {} are free\n",
        people::size(usage.used + usage.partial),
        usage.folder,
        people::size(usage.partial),
        people::size(usage.free)
    );
    table(&["MODEL", "#SIZE", "#ITS OWN"], &rows) + &total
}
