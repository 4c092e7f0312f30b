//! Deployments of models: one call, then phases to a function with an instance that is ready, or to the reason why not. They go on
//! whoever asked for them, and end with the server.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kip_host::clock::boot_millis;
use kip_models::preset::{Expansion, expand};
use kip_models::{Record, Source};
use kip_spec::{Problem, code};
use kip_wire::{
    DeployedVersion, Deployment, DeploymentPhase, ModelDeployment, ModelDeploymentInfo, ModelPlan, ModelQuestion,
    VersionStatus,
};
use serde_json::{Map, Value, json};

use super::planning::{DeploymentDraft, drafted};
use super::services::{failed, taken};
use crate::error::ApiResult;
use crate::extract::Path;
use crate::functions;
use crate::guard::Requester;
use crate::unchanged::FileOwner;
use crate::{Api, bad_request};

/// Between two looks at an instance that starts.
const LOOK: Duration = Duration::from_millis(50);
/// An instance may take so much longer than a start may, milliseconds.
const LATE: u64 = 10_000;

pub(crate) async fn plan(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<ModelDeployment>, JsonRejection>,
) -> ApiResult<Json<ModelPlan>> {
    Ok(Json(drafted(&api, &who, &taken(body)?).await?.plan(&api)))
}

pub(crate) async fn deploy(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<ModelDeployment>, JsonRejection>,
) -> ApiResult<Json<ModelDeploymentInfo>> {
    let asked = taken(body)?;
    let request = api.model_request(&who, &asked.model)?;
    who.changes(asked.function.clone().unwrap_or_else(|| request.source.to_string()));
    let info = api.models()?.deployments.begin(request.source.to_string());
    let id = info.id;
    kip_host::tasks::spawn("model deployment", async move {
        let done = carry_out(&api, &who, &asked, id).await;
        let Ok(services) = api.models() else { return };
        services.deployments.change(id, |info| match done {
            Ok(()) => info.phase = DeploymentPhase::Deployed,
            Err(error) => {
                info.phase = DeploymentPhase::Failed;
                info.error = Some(error.into_problem());
            }
        });
    });
    Ok(Json(info))
}

pub(crate) async fn show(
    State(api): State<Api>,
    who: Requester,
    Path(id): Path<u64>,
) -> ApiResult<Json<ModelDeploymentInfo>> {
    let found = api.models()?.deployments.find(id);
    let seen = found.filter(|info| info.plan.as_ref().is_none_or(|plan| who.sees(&plan.function)));
    let missing = || Problem::new(code::DEPLOYMENT_NOT_FOUND, format!("there is no deployment {id} of a model"));
    Ok(Json(seen.ok_or_else(missing)?))
}

pub(crate) async fn list(State(api): State<Api>, who: Requester) -> ApiResult<Json<Vec<ModelDeploymentInfo>>> {
    let mut all = api.models()?.deployments.list();
    all.retain(|info| info.plan.as_ref().is_none_or(|plan| who.sees(&plan.function)));
    Ok(Json(all))
}

/// All phases. A drop between two of them leaves what the phases before have done: files in the cache, or a function.
async fn carry_out(api: &Api, who: &Requester, asked: &ModelDeployment, id: u64) -> ApiResult<()> {
    let services = api.models()?;
    let note = |change: &dyn Fn(&mut ModelDeploymentInfo)| services.deployments.change(id, |info| change(info));
    let draft = drafted(api, who, asked).await?;
    let (plan, question) = (draft.plan(api), question(&draft));
    note(&|info| {
        info.total = draft.choice.size;
        info.plan = Some(plan.clone());
        info.question.clone_from(&question);
        info.phase = DeploymentPhase::Installing;
    });
    install(api, &draft).await?;
    note(&|info| info.phase = DeploymentPhase::Downloading);
    // Until a version is stored, nobody else knows that the model is needed.
    let _hold = services.models.hold(&draft.request.source);
    let record = download(api, &draft, &|received| note(&|info| info.received = received)).await?;
    note(&|info| {
        info.received = info.total;
        info.phase = DeploymentPhase::Deploying;
    });
    let (deployed, warnings) = declare(api, who, asked, &draft, record.as_ref()).await?;
    note(&|info| {
        info.deployed = Some(deployed.clone());
        info.warnings.clone_from(&warnings);
        info.phase = DeploymentPhase::Starting;
    });
    started(api, &deployed).await
}

/// Installs the engine, where it is missing and may be.
async fn install(api: &Api, draft: &DeploymentDraft) -> ApiResult<()> {
    let engines = api.models()?.engines.clone();
    let preset = draft.choice.preset.clone();
    if engines.serves(&preset) {
        return Ok(());
    }
    let installed = kip_host::tasks::blocking("engine", move || engines.install(&preset)).await;
    installed.unwrap_or_else(|| Err(kip_control::Error::ShuttingDown.into()))?;
    Ok(())
}

/// Brings the files. What is on this host already is used where it is.
async fn download(api: &Api, draft: &DeploymentDraft, progress: &(dyn Fn(u64) + Sync)) -> ApiResult<Option<Record>> {
    let models = &api.models()?.models;
    if let Source::Path(path) = &draft.request.source {
        return Ok(models.adopted_at(path));
    }
    let pull = models.pull(draft.request.clone());
    let mut done = std::pin::pin!(models.pulled(pull.id));
    loop {
        tokio::select! {
            record = &mut done => return Ok(Some(record.map_err(failed)?)),
            () = tokio::time::sleep(LOOK) => {
                if let Ok(info) = models.pull_info(pull.id) {
                    progress(info.received);
                }
            }
        }
    }
}

/// Makes the function.
async fn declare(
    api: &Api,
    who: &Requester,
    asked: &ModelDeployment,
    draft: &DeploymentDraft,
    record: Option<&Record>,
) -> ApiResult<(DeployedVersion, Vec<Problem>)> {
    let services = api.models()?;
    let (folder, entry) = match (&draft.request.source, record) {
        (_, Some(record)) => (services.models.folder(record), draft.choice.entry.as_ref().map(ToString::to_string)),
        // The one file that was named: its folder is the model's.
        (Source::Path(path), None) if path.is_file() => {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            (path.parent().unwrap_or(path).to_owned(), name)
        }
        (Source::Path(path), None) => (path.clone(), draft.choice.entry.as_ref().map(ToString::to_string)),
        (Source::Hub { .. } | Source::Url(_) | Source::Bucket { .. } | Source::Adopted(_), None) => {
            return Err(bad_request("the model has no files here"));
        }
    };
    let (engines, preset) = (services.engines.clone(), draft.choice.preset.clone());
    let app = kip_host::tasks::blocking("app of a preset", move || engines.app(&preset)).await;
    let app = app.unwrap_or_else(|| Err(kip_control::Error::ShuttingDown.into()))?;
    let model = record.map_or_else(|| draft.request.source.to_string(), Record::id);
    let what = Expansion {
        function: &draft.function,
        names: &draft.names,
        folder: &folder,
        entry: entry.as_deref(),
        program: services.engines.own_program(&draft.choice.preset),
        app,
        task: draft.listing.task.as_deref(),
        model: &model,
        provisioned: asked.provisioned,
        resources: resources(asked, draft.choice.preset.device && api.control.has_devices()),
    };
    let deployment = Deployment {
        file: format!("preset {}", draft.choice.preset.name),
        text: expand(&draft.choice.preset, &what),
        directory: folder.display().to_string(),
        variables: BTreeMap::new(),
        env_files: BTreeMap::new(),
        only: Vec::new(),
        start: false,
        once: false,
        keep_unchanged: true,
        no_traffic: false,
    };
    let owner = if record.is_some() { FileOwner::Cache } else { FileOwner::Deployer };
    let result = functions::deploy_document(api, who, deployment, owner).await?;
    let deployed = result.deployed.into_iter().chain(result.unchanged).next();
    Ok((deployed.ok_or_else(|| bad_request("nothing was deployed"))?, result.warnings))
}

/// What was asked for of a device. `takes`: the host has one, and the engine uses it: without an amount, it is measured.
fn resources(asked: &ModelDeployment, takes: bool) -> Map<String, Value> {
    let mut gpu = Map::new();
    for (key, value) in [("memory", &asked.gpu_memory), ("type", &asked.gpu)] {
        if let Some(value) = value {
            gpu.insert(key.to_owned(), json!(value));
        }
    }
    if takes || asked.gpu.is_some() {
        gpu.entry("memory").or_insert_with(|| json!("auto"));
    }
    if gpu.is_empty() { Map::new() } else { [("gpu".to_owned(), Value::Object(gpu))].into_iter().collect() }
}

fn question(draft: &DeploymentDraft) -> Option<ModelQuestion> {
    let question = draft.choice.preset.question.as_ref()?;
    let name = draft.names.first().map_or_else(|| draft.function.to_string(), ToString::to_string);
    Some(ModelQuestion {
        method: question.method.clone(),
        path: question.path.clone(),
        json: question.json.as_ref().map(|body| filled(body, &name)),
        answer: question.answer.clone(),
    })
}

/// A body with the name that callers use.
fn filled(body: &Value, name: &str) -> Value {
    match body {
        Value::String(text) => Value::String(text.replace("${NAME}", name)),
        Value::Array(items) => Value::Array(items.iter().map(|item| filled(item, name)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), filled(value, name))).collect())
        }
        other => other.clone(),
    }
}

/// Starts an instance, and waits until it is ready.
async fn started(api: &Api, deployed: &DeployedVersion) -> ApiResult<()> {
    let name = deployed.function.as_str();
    let since = boot_millis();
    let mut asked = false;
    loop {
        let info = api.control.require(name)?.info();
        let outcome =
            info.outcomes.iter().find(|(version, _)| *version == deployed.version).map(|(_, outcome)| outcome);
        let logs = || format!("`kip logs {name}` shows what the program wrote");
        match outcome {
            Some(VersionStatus::Failed { code, why, detail }) => {
                let message = format!("{name} {} did not become ready: {why}", deployed.label);
                return Err(Problem::new(*code, message).cause(detail).hint(logs()).into());
            }
            Some(VersionStatus::Replaced { .. }) => {
                let message = format!("a later deployment of {name} took the place of {}", deployed.label);
                return Err(Problem::new(code::VERSION_REPLACED, message).into());
            }
            Some(VersionStatus::Candidate) => {}
            Some(VersionStatus::Serving) | None if info.version == deployed.version => {
                if info.hot + info.asleep > 0 {
                    return Ok(());
                }
                if !asked {
                    api.control.start(name)?;
                    asked = true;
                }
                let waited = boot_millis().saturating_sub(since);
                if info.failed_starts > 0 || waited > info.spec.timeouts.startup.0.saturating_add(LATE) {
                    let code = info.last_failure_code.unwrap_or(code::NEVER_READY);
                    let cause = info.last_failure.unwrap_or_else(|| "it takes too long".to_owned());
                    let message = format!("{name} {} is deployed, but does not start", deployed.label);
                    return Err(Problem::new(code, message).cause(cause).hint(logs()).into());
                }
            }
            Some(VersionStatus::Serving) | None => return Ok(()),
        }
        tokio::time::sleep(LOOK).await;
    }
}
