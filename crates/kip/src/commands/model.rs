//! `kip model`: the models of the server's cache.

use std::path::Path;
use std::time::Duration;

use kip_spec::people;
use kip_wire::{
    AdoptedModels, LoadFigures, ModelAdoption, ModelInfo, ModelList, ModelLoads, ModelPrefetch, ModelPull,
    ModelRequest, ModelUsage, PullPhase,
};

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
        Model::Ls { verbose } => list(client, *verbose, output).await,
        Model::Show(name) => {
            let info: ModelInfo = client.get(&path_of(name, "")).await?;
            output.result(&info, described)
        }
        Model::Pull(options) => pull(client, options, output).await,
        Model::Adopt { folder } => {
            let asked = ModelAdoption { folder: std::path::absolute(folder)?.display().to_string() };
            let done: AdoptedModels = client.pulling().post("/api/v1/models/adoptions", &asked).await?;
            for refused in &done.refused {
                output.remark(&format!("not adopted: {}: {}", refused.place, refused.why));
            }
            output.result(&done, |done| {
                let line = |info: &ModelInfo| format!("Adopted   {}, {}\n", info.id, people::size(info.size));
                done.adopted.iter().map(line).collect()
            })
        }
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
        Model::Prefetch(name) => {
            let patient = client.pulling();
            let done: ModelPrefetch = patient.post(&path_of(name, "/prefetch"), &serde_json::json!({})).await?;
            output.result(&done, prefetched)
        }
        Model::Evict(name) => {
            let info: ModelInfo = client.post(&path_of(name, "/evict"), &serde_json::json!({})).await?;
            output.result(&info, |info| {
                format!("Evicted   {}, {}; the next start pulls it again\n", info.id, people::size(info.size))
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

/// How much of a model is in the page cache.
fn resident(info: &ModelInfo) -> String {
    match info.resident {
        Some(resident) => format!("{} %", resident.saturating_mul(100).checked_div(info.size).unwrap_or(100)),
        None => "not known".to_owned(),
    }
}

fn prefetched(done: &ModelPrefetch) -> String {
    let before = done.before.map_or_else(String::new, |before| format!(", {} were there before", people::size(before)));
    let now = done.resident.unwrap_or(done.size);
    let share = match now < done.size {
        true => format!("; only {} stay: the memory is short", people::size(now)),
        false => String::new(),
    };
    format!("Prefetched {}: {} in {} ms{before}{share}\n", done.model, people::size(done.size), done.took_ms)
}

/// Starts and their mean time.
fn mean(figures: LoadFigures) -> String {
    match figures.total_ms.checked_div(figures.starts) {
        Some(mean) => format!("{}, {mean} ms each", figures.starts),
        None => "none".to_owned(),
    }
}

async fn list(client: &Client, verbose: bool, output: Output) -> anyhow::Result<()> {
    let list: ModelList = client.get(&format!("/api/v1/models?residency={verbose}")).await?;
    output.result(&list, |list| {
        let cells = |model: &ModelInfo| {
            let state = match (model.evicted.is_some(), model.damaged.is_empty(), model.pinned) {
                (_, true, _) if model.adopted.is_some() => "adopted",
                (true, _, _) => "evicted",
                (_, false, _) => "damaged",
                (_, true, true) => "pinned",
                (_, true, false) => "-",
            };
            let mut cells = vec![
                model.source.clone(),
                model.commit.chars().take(SHORT).collect(),
                people::size(model.size),
                model.licence.clone().unwrap_or_else(|| "-".to_owned()),
                state.to_owned(),
                if model.used_by.is_empty() { "-".to_owned() } else { model.used_by.join(", ") },
                date(model.pulled),
            ];
            if verbose {
                let loads = model.loads;
                let starts = loads.memory.starts + loads.disk.starts + loads.remote.starts;
                let hits = loads.memory.starts.saturating_mul(100).checked_div(starts);
                cells.push(resident(model));
                cells.push(model.used.map_or_else(|| "never".to_owned(), date));
                cells.push(starts.to_string());
                cells.push(hits.map_or_else(|| "-".to_owned(), |hits| format!("{hits} %")));
            }
            cells
        };
        let rows: Vec<Vec<String>> = list.models.iter().map(cells).collect();
        let mut heads = vec!["MODEL", "COMMIT", "#SIZE", "LICENCE", "STATE", "FUNCTIONS", "PULLED"];
        if verbose {
            heads.extend(["IN MEMORY", "USED", "#STARTS", "#FROM MEMORY"]);
        }
        let mut text = table(&heads, &rows);
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
    if let Some(root) = &info.adopted {
        line("Adopted", &format!("from {root}; never evicted"));
    }
    line("Size", &people::size(info.size));
    line("Pulled", &date(info.pulled));
    line("Verified", &info.verified.map_or_else(|| "not since".to_owned(), date));
    match &info.evicted {
        Some(evicted) => line("Evicted", &format!("{}: {}", date(evicted.at), evicted.why)),
        None => line("In memory", &resident(info)),
    }
    line("Used", &info.used.map_or_else(|| "never".to_owned(), date));
    let loads = info.loads;
    if loads != ModelLoads::default() {
        let tiers = [("memory", loads.memory), ("disk", loads.disk), ("the source", loads.remote)];
        let starts = tiers.iter().filter(|(_, figures)| figures.starts > 0);
        let starts: Vec<String> = starts.map(|(tier, figures)| format!("from {tier} {}", mean(*figures))).collect();
        line("Starts", &starts.join("; "));
    }
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
        .map(|model| {
            let kept = model.kept_for.clone().unwrap_or_else(|| "-".to_owned());
            vec![model.model.clone(), people::size(model.size), people::size(model.own), kept]
        })
        .collect();
    let total = format!(
        "\n{} in {}, {} of them for pulls that are not complete; {} are free\n",
        people::size(usage.used + usage.partial),
        usage.folder,
        people::size(usage.partial),
        people::size(usage.free)
    );
    let quota = match (usage.quota, usage.high, usage.low) {
        (Some(quota), Some(high), Some(low)) => format!(
            "quota {}: above {} models are evicted, down to {}\n",
            people::size(quota),
            people::size(high),
            people::size(low)
        ),
        _ => "no quota (models.quota)\n".to_owned(),
    };
    table(&["MODEL", "#SIZE", "#ITS OWN", "KEPT FOR"], &rows) + &total + &quota
}
