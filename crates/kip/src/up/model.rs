//! `kip up` of a model: what it would do, the download, the deployment, one question, and how to call it.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use kip_spec::{Problem, code, people};
use kip_wire::{DeploymentPhase, ModelDeployment, ModelDeploymentInfo, ModelPlan, ModelQuestion};
use serde::Serialize;
use serde_json::{Value, json};

use super::failed;
use crate::arguments::models::UpModel;
use crate::client::Client;
use crate::commands::invoke::{InvokeAnswer, call};
use crate::commands::model;
use crate::output::{Output, micros};
use crate::problem::warning;
use crate::progress::{Progress, interruptible};

/// Between two looks at a deployment.
const EVERY: Duration = Duration::from_millis(200);
/// Files that a plan shows one by one.
const FILES: usize = 6;
/// Characters of an answer that are shown.
const ANSWER: usize = 400;
/// Ends of files by which a file or a folder is a model.
const MODELS: [&str; 3] = ["onnx", "gguf", "mar"];
/// Files by which a folder is an app or a model.
const SIGNS: [&str; 8] = [
    "app.py",
    "server.py",
    "main.py",
    "service.py",
    "config.json",
    "configuration.json",
    "model-settings.json",
    "bentofile.yaml",
];

/// What `kip up MODEL -o json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct ModelSummary {
    pub(crate) function: String,
    pub(crate) url: String,
    /// The names by which clients in the style of OpenAI call it.
    pub(crate) models: Vec<String>,
    pub(crate) deployment: ModelDeploymentInfo,
    /// The answer to the question.
    pub(crate) answer: Option<String>,
    /// What was asked.
    #[serde(skip)]
    asked: Option<ModelQuestion>,
}

/// Whether what `kip up` was given is a model and no folder with a kip.yaml.
pub(crate) fn is_model(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let prefixes = ["hf:", "huggingface:", "modelscope:", "ms:", "ollama:", "s3://", "oss://", "http://", "https://"];
    if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
        return true;
    }
    let is_file =
        |path: &Path| path.is_file() && path.extension().is_some_and(|end| MODELS.iter().any(|known| end == *known));
    if is_file(path) {
        return true;
    }
    if !path.is_dir() || ["kip.yaml", "kip.yml"].iter().any(|name| path.join(name).is_file()) {
        return false;
    }
    let has_model = |folder: &Path| {
        std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(|entry| is_file(&entry.path())))
    };
    SIGNS.iter().any(|name| path.join(name).is_file()) || has_model(path) || has_model(&path.join("onnx"))
}

/// Shows the plan, asks, deploys, asks the model a question, and says how to call it.
pub(crate) async fn run(client: &Client, source: &str, options: &UpModel, output: Output) -> anyhow::Result<()> {
    let summary = deploy(client, source, options, output).await?;
    if output.is_json() {
        return output.result(&summary, |_| String::new());
    }
    show(&summary, output);
    Ok(())
}

/// Deploys a model and asks it a question.
pub(crate) async fn deploy(
    client: &Client,
    source: &str,
    options: &UpModel,
    output: Output,
) -> anyhow::Result<ModelSummary> {
    let asked = ModelDeployment {
        model: model::request(source, &options.from, &[])?,
        function: options.name.clone(),
        preset: options.preset.clone(),
        file: options.file.clone(),
        provisioned: options.provisioned,
        gpu_memory: options.gpu_memory.clone(),
        gpu: options.gpu.clone(),
        install_engine: options.install_engine,
    };
    let plan: ModelPlan = client.pulling().post("/api/v1/models/plan", &asked).await?;
    show_plan(&plan, output);
    let is_local = plan.source.starts_with('/');
    if !is_local && !options.yes {
        confirm(&plan)?;
    }
    let begun: ModelDeploymentInfo = client.post("/api/v1/models/deployments", &asked).await?;
    let goes_on = || "the deployment goes on in the server; `kip model ls` and `kip ls` show how it stands".to_owned();
    let mut deployment = interruptible(output, goes_on, follow(client, begun.id, output)).await?;
    deployment.warnings.iter().for_each(|one| output.remark(&warning(one)));
    if let Some(problem) = deployment.error.take() {
        return Err(problem.into());
    }
    let deployed = deployment.deployed.clone().ok_or_else(|| failed("nothing was deployed"))?;
    output.say(&format!("Deployed  {} {}", deployed.function, deployed.label));
    let gateway = client.gateway().await?;
    let asked = ask(client, &gateway, &plan, deployment.question.as_ref(), output).await?;
    let (asked, answer) = asked.unzip();
    let mut models = plan.names.clone();
    models.push(plan.function.clone());
    Ok(ModelSummary {
        url: format!("http://{gateway}/f/{}/", plan.function),
        function: plan.function,
        models,
        deployment,
        answer,
        asked,
    })
}

fn show_plan(plan: &ModelPlan, output: Output) {
    let commit: String = plan.commit.chars().take(12).collect();
    let at = if commit.is_empty() { String::new() } else { format!(" at {commit}") };
    output.say(&format!("Model     {}{at}, {}", plan.source, plan.task.as_deref().unwrap_or("no task is named")));
    output.say(&format!("Licence   {}", plan.licence.as_deref().unwrap_or("not named by the source")));
    for file in plan.files.iter().take(FILES) {
        output.say(&format!("          {:>10}  {}", people::size(file.size), file.path));
    }
    if plan.files.len() > FILES {
        output.say(&format!("                      and {} more", plan.files.len() - FILES));
    }
    output.say(&format!("Preset    {}: {}", plan.preset, plan.why));
    let fits = if plan.memory <= plan.host_memory { "fits" } else { "does not fit" };
    output.say(&format!(
        "Memory    about {}: {fits} into the {} of this host",
        people::size(plan.memory),
        people::size(plan.host_memory)
    ));
}

fn confirm(plan: &ModelPlan) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Problem::new(
            code::COMMAND_INPUT,
            format!("the model is {} to download, and nobody can be asked", people::size(plan.size)),
        )
        .hint("add --yes")
        .into());
    }
    let mut output = std::io::stderr();
    std::io::Write::write_all(
        &mut output,
        format!("Download {} and deploy it as `{}`? [Y/n] ", people::size(plan.size), plan.function).as_bytes(),
    )?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    match line.trim().to_ascii_lowercase().as_str() {
        "" | "y" | "yes" => Ok(()),
        _ => Err(Problem::new(code::COMMAND_INPUT, "nothing was downloaded").into()),
    }
}

async fn follow(client: &Client, id: u64, output: Output) -> anyhow::Result<ModelDeploymentInfo> {
    let mut progress = Progress::new(output);
    loop {
        let info: ModelDeploymentInfo = client.get(&format!("/api/v1/models/deployments/{id}")).await?;
        match info.phase {
            DeploymentPhase::Planning => progress.say("asking for the model's files"),
            DeploymentPhase::Installing => progress.say("installing the engine"),
            DeploymentPhase::Downloading => progress.say(&model::received(&info.source, info.received, info.total)),
            DeploymentPhase::Deploying | DeploymentPhase::Starting => progress.say("its first instance starts"),
            DeploymentPhase::Deployed | DeploymentPhase::Failed => return Ok(info),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Sends a request to the function, with our key.
async fn send(
    client: &Client,
    gateway: &str,
    function: &str,
    question: &ModelQuestion,
) -> anyhow::Result<InvokeAnswer> {
    let mut headers = vec![(AUTHORIZATION, HeaderValue::from_str(&client.bearer())?)];
    let body = match &question.json {
        Some(json) => {
            headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
            Bytes::from(serde_json::to_vec(json)?)
        }
        None => Bytes::new(),
    };
    let called = call(gateway, &question.method, &format!("/f/{function}{}", question.path), headers, body).await?;
    if !(200..300).contains(&called.status) {
        let text = String::from_utf8_lossy(&called.body).into_owned();
        return Err(failed(format!("the model answered {}: {}", called.status, shortened(&text))).into());
    }
    Ok(called)
}

/// Asks the model the preset's question. The built-in server is asked for an embedding or a label if the model takes text, otherwise
/// with an input of zeros.
async fn ask(
    client: &Client,
    gateway: &str,
    plan: &ModelPlan,
    question: Option<&ModelQuestion>,
    output: Output,
) -> anyhow::Result<Option<(ModelQuestion, String)>> {
    let Some(question) = question else { return Ok(None) };
    let first = send(client, gateway, &plan.function, question).await?;
    let about: Value = serde_json::from_slice(&first.body).unwrap_or_default();
    let own = match plan.preset.as_str() {
        "infer" => own_question(&about, plan),
        "pipeline" => sample(&about),
        _ => None,
    };
    let (asked, called) = match own {
        Some(own) => match send(client, gateway, &plan.function, &own).await {
            Ok(called) => (own, called),
            // A sample need not fit each model of its task.
            Err(_) if plan.preset == "pipeline" => (question.clone(), first),
            Err(error) => return Err(error),
        },
        None => (question.clone(), first),
    };
    let text = String::from_utf8_lossy(&called.body).trim().to_owned();
    let at = asked.answer.as_ref().and_then(|pointer| {
        let value: Value = serde_json::from_str(&text).ok()?;
        let found = value.pointer(pointer)?;
        Some(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
    });
    let answer = at.unwrap_or(text);
    output.say(&format!("Asked     {} {}: {} in {}", asked.method, asked.path, called.status, micros(called.total_us)));
    output.say(&format!("Answer    {}", shortened(&answer)));
    Ok(Some((asked, answer)))
}

/// The sample of a pipeline's task, if it is of texts: no picture of ours means something to a model.
fn sample(about: &Value) -> Option<ModelQuestion> {
    let json = about.get("sample").filter(|_| about["askable"] == true)?.clone();
    let (method, path, answer) = ("POST".to_owned(), "/".to_owned(), Some("/Data".to_owned()));
    Some(ModelQuestion { method, path, json: Some(json), answer })
}

/// What a model of the built-in server is asked, by what it says of itself.
fn own_question(about: &Value, plan: &ModelPlan) -> Option<ModelQuestion> {
    let name = plan.names.first().unwrap_or(&plan.function);
    let (path, json, answer) = match about["text"]["task"].as_str() {
        Some("embedding") => ("/v1/embeddings", json!({"model": name, "input": "hello"}), Some("/data/0/embedding")),
        Some(_) => ("/predict", json!({"text": "hello"}), Some("/label")),
        None => ("/predict", zeros(about)?, None),
    };
    let answer = answer.map(str::to_owned);
    Some(ModelQuestion { method: "POST".to_owned(), path: path.to_owned(), json: Some(json), answer })
}

/// A row of zeros for each input of a model of the built-in server. Text has no zero.
fn zeros(about: &Value) -> Option<Value> {
    let mut inputs = serde_json::Map::new();
    for input in about["inputs"].as_array()? {
        if input["datatype"] == "BYTES" {
            return None;
        }
        let shape: Vec<u64> = input["shape"].as_array()?.iter().map(|length| length.as_u64().unwrap_or(1)).collect();
        if shape.iter().product::<u64>() > 1 << 20 {
            return None;
        }
        let zero = if input["datatype"] == "BOOL" { json!(false) } else { json!(0) };
        let nested =
            shape.iter().rev().fold(zero, |inner, length| json!(vec![inner; usize::try_from(*length).unwrap_or(1)]));
        inputs.insert(input["name"].as_str()?.to_owned(), nested);
    }
    Some(json!({ "inputs": inputs }))
}

fn shortened(text: &str) -> String {
    let line = text.replace(['\n', '\r'], " ");
    match line.char_indices().nth(ANSWER) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// How to call it.
fn show(summary: &ModelSummary, output: Output) {
    let name = &summary.models[0];
    let base = summary.url.split("/f/").next().unwrap_or_default();
    let function = &summary.function;
    output.say("");
    output.say(&format!("URL       {}", summary.url));
    output.say(&format!("OpenAI    base_url {base}/v1, model \"{name}\""));
    let json = |question: &ModelQuestion| question.json.clone().unwrap_or_default().to_string();
    let (path, body) = match &summary.asked {
        Some(question) if question.path.starts_with("/v1/") => (format!("{base}{}", question.path), json(question)),
        Some(question)
            if ["text", "input"]
                .iter()
                .any(|key| question.json.as_ref().is_some_and(|json| json.get(key).is_some())) =>
        {
            (format!("{base}/f/{function}{}", question.path), json(question))
        }
        _ if summary.deployment.plan.as_ref().is_some_and(|plan| plan.preset == "infer") => {
            (format!("{base}/f/{function}/predict"), r#"{"input": [0, 0]}"#.to_owned())
        }
        _ => {
            output.say(&format!("curl      curl -s {}", summary.url));
            output
                .say(&format!("Next      kip logs -f {function} · kip why {function} · kip rm {function} · kip stop"));
            return;
        }
    };
    output.say(&format!("curl      curl -s {path} -H 'content-type: application/json' -d '{body}'"));
    output.say(&format!("Python    import httpx; print(httpx.post(\"{path}\", json={body}, timeout=600).json())"));
    output.say(&format!(
        "JS        console.log(await (await fetch(\"{path}\", {{method: \"POST\", headers: {{\"content-type\": \"application/json\"}}, body: JSON.stringify({body})}})).json())"
    ));
    output
        .say(&format!("Next      kip logs -f {function} · kip why {function} · kip version ls {function} · kip stop"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_told_from_folders_with_a_kip_yaml() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(is_model(Path::new("hf:org/model")) && is_model(Path::new("https://h/m.gguf")));
        assert!(!is_model(folder.path()) && !is_model(&at("none.onnx")));
        std::fs::write(at("m.onnx"), "").unwrap();
        assert!(is_model(folder.path()) && is_model(&at("m.onnx")));
        std::fs::write(at("kip.yaml"), "").unwrap();
        assert!(!is_model(folder.path()) && is_model(&at("m.onnx")));
        for sign in ["service.py", "configuration.json"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(sign), "").unwrap();
            assert!(is_model(folder.path()), "{sign}");
        }
    }

    #[test]
    fn a_model_is_asked_with_zeros_of_its_shape() {
        let about = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}, {"name": "y", "datatype": "BOOL", "shape": [1]}]});
        assert_eq!(zeros(&about), Some(json!({"inputs": {"x": [[0, 0]], "y": [false]}})));
        assert_eq!(zeros(&json!({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1]}]})), None);
    }
}
