//! Functions: deploy, list, show, remove, and what happened to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::Response;
use kip_control::{DecisionRecord, Direction};
use kip_records::metrics::{Evidence, Histogram};
use kip_spec::function::{FunctionSpec, Program};
use kip_spec::snapshot::Code;
use kip_spec::{FunctionName, Problem, QualifierName, VersionId, code};
use kip_store::{Object, TrafficShare};
use kip_wire::DecisionRecording;
use kip_wire::{
    DeployedVersion, Deployment, DeploymentResult, FunctionInfo, FunctionUsage, LatencySummary, RevisionEvidence,
    Rotation,
};
use serde::Deserialize;

use crate::deployed::begin_rollouts;
use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::guard::{Requester, tagged};
use crate::shares;
use crate::unchanged::FileOwner;
use crate::{Api, bad_request, model_names, unchanged, versions};

/// How many records to give, newest first.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct LimitQuery {
    limit: Option<u32>,
}

impl LimitQuery {
    fn get(&self) -> u32 {
        self.limit.unwrap_or(50).min(10_000)
    }
}

pub(crate) async fn deploy(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<Deployment>, JsonRejection>,
) -> ApiResult<Json<DeploymentResult>> {
    let Json(deployment) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    Ok(Json(deploy_document(&api, &who, deployment, FileOwner::Deployer).await?))
}

/// Deploys a manifest.
pub(crate) async fn deploy_document(
    api: &Api,
    who: &Requester,
    deployment: Deployment,
    owner: FileOwner,
) -> ApiResult<DeploymentResult> {
    if !FilePath::new(&deployment.directory).is_absolute() {
        let directory = &deployment.directory;
        return Err(bad_request(format!("`directory` must be an absolute path, not `{directory}`")));
    }
    let (read, deployment) = read_manifest(deployment, who).await?;
    let Deployment { file, directory, text, only, start, once, keep_unchanged, no_traffic: held, .. } = deployment;
    let mut specs = read.functions;
    specs.iter_mut().for_each(|spec| spec.owns_directory &= owner == FileOwner::Deployer);
    let share = |(to, millionths)| TrafficShare { to, millionths };
    let mut traffic: BTreeMap<FunctionName, Vec<TrafficShare>> =
        read.traffic.into_iter().map(|(name, shares)| (name, shares.into_iter().map(share).collect())).collect();
    if let Some(missing) = only.iter().find(|name| !specs.iter().any(|spec| spec.name.as_str() == **name)) {
        let problem = Problem::new(code::FUNCTION_NOT_FOUND, format!("the manifest declares no function `{missing}`"));
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        return Err(problem.hint(format!("it declares {}", names.join(", "))).into());
    }
    if !only.is_empty() {
        specs.retain(|spec| only.iter().any(|name| *name == spec.name.as_str()));
    }
    if held {
        // It stays as it is.
        traffic.clear();
    }
    traffic.retain(|name, _| specs.iter().any(|spec| spec.name == *name));
    // The first deployment makes the alias and points it at the version that serves: traffic to it is the same as none.
    traffic.retain(|name, shares| {
        let made =
            read.rollouts.get(name).filter(|rollout| api.control.alias(name.as_str(), rollout.alias.as_str()).is_err());
        !made.is_some_and(|made| shares.iter().any(|share| share.to == QualifierName::Alias(made.alias.clone())))
    });
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    who.changes(names.join(","));
    names.iter().try_for_each(|name| who.require_function(name))?;
    let jobs: BTreeSet<FunctionName> =
        specs.iter().filter(|spec| spec.job.is_some()).map(|spec| spec.name.clone()).collect();
    if once {
        specs.iter_mut().filter_map(|spec| spec.job.as_mut()).for_each(|job| job.once = true);
    }
    // A one-off run that can never be placed is refused before anything is deployed for it.
    let misfit = specs.iter().filter(|_| once).find_map(|spec| Some((&spec.name, api.control.never_fits(spec)?)));
    if let Some((name, why)) = misfit {
        return Err(Problem::new(code::NO_CAPACITY, format!("job `{name}` cannot run here: {why}"))
            .hint("ask for less, or declare what there is in kipwake.toml (`kip device ls`)")
            .into());
    }
    for spec in &mut specs {
        shares::resolve(api, spec).await?;
        api.control.resolve_image(spec).await?;
        api.control.unlimited(spec).map_or(Ok(()), Err)?;
        require_user(api, who, spec)?;
        api.control.broken_promise(spec).await?.map_or(Ok(()), Err)?;
    }
    model_names::require_free(api, &specs)?;
    let beside = [FilePath::new(&directory).join(&file)];
    let mut captured = Vec::new();
    for spec in &mut specs {
        match owner {
            FileOwner::Deployer => captured.extend(api.control.capture(spec, &beside, true).await?.told),
            FileOwner::Cache => spec.code = Code::default(),
        }
    }
    let mut unchanged = Vec::new();
    if keep_unchanged {
        (unchanged, specs) = unchanged::split(api, specs, &traffic, owner).await;
    }
    let label = |name: &FunctionName, version| api.control.cell(name.as_str()).map(|cell| cell.label(version));
    let made = |function: FunctionName, version| DeployedVersion {
        job: jobs.contains(&function),
        label: label(&function, version).unwrap_or_default(),
        function,
        version,
    };
    let unchanged = unchanged.into_iter().map(|(function, version)| made(function, version)).collect();
    let settings = specs.clone();
    let author = who.author();
    let by = author.by.clone();
    if author.if_match.is_some() && specs.len() != 1 {
        return Err(bad_request("If-Match is the revision of one function: deploy it alone, with `only`"));
    }
    let mut checked = Vec::new();
    for spec in &specs {
        checked.extend(api.control.check(spec).await);
    }
    // A deployment of nothing would be an empty commit.
    let deployed = match specs.is_empty() {
        true => Vec::new(),
        false => {
            api.control
                .deploy_with(specs, text, "kip.yaml", Direction { traffic, held, ..Direction::default() }, author)
                .await?
        }
    };
    api.events.jobs_changed();
    let deployed: Vec<DeployedVersion> = deployed.into_iter().map(|one| made(one.function, one.version)).collect();
    if start {
        for made in deployed.iter().filter(|made| !made.job) {
            api.control.start(made.function.as_str())?;
        }
    }
    let rollouts = if held { BTreeMap::new() } else { read.rollouts };
    let (rollouts, told) = begin_rollouts(api, &deployed, rollouts, by).await;
    let mut warnings = read.warnings;
    warnings.extend(told);
    warnings.extend(captured);
    warnings.extend(checked);
    for spec in &settings {
        warnings.extend(warned(api, spec).await);
    }
    Ok(DeploymentResult { deployed, unchanged, rollouts, warnings })
}

/// Whoever names a user takes what belongs to that: only an administrator gives it.
fn require_user(api: &Api, who: &Requester, spec: &FunctionSpec) -> ApiResult<()> {
    if spec.user.is_none() {
        return Ok(());
    }
    if !who.is_administrator() {
        let message = format!("`{}` names a user, and the key `{}` is not an administrator's", spec.name, who.name());
        return Err(Problem::new(code::USER_NOT_ALLOWED, message)
            .hint("remove `user`, or deploy with a key whose role is admin")
            .into());
    }
    Ok(api.control.foreign_user(spec).map_or(Ok(()), Err)?)
}

/// What was measured of earlier versions may speak against the new one's settings.
async fn warned(api: &Api, spec: &FunctionSpec) -> Vec<Problem> {
    let Ok(advised) = api.control.advise_for(spec.name.as_str(), spec).await else { return Vec::new() };
    let scaling = advised.advice.into_iter().filter(|advice| advice.setting.starts_with("scaling."));
    scaling
        .map(|advice| {
            let message = format!("`functions.{}.{}` is {}", spec.name, advice.setting, advice.now);
            Problem::new(code::SCALING_ADVICE, message).cause(advice.why).hint(format!("write {}", advice.better))
        })
        .collect()
}

/// Reads the manifest away from the runtime's threads: it looks at folders and may be large. The folders of an administrator's functions
/// are theirs to write: others could name one that is not theirs to give.
pub(crate) async fn read_manifest(
    deployment: Deployment,
    who: &Requester,
) -> ApiResult<(kip_manifest::Manifest, Deployment)> {
    let read = move || {
        let Deployment { file, text, directory, variables, env_files, .. } = &deployment;
        let deployer = kip_manifest::Deployer { variables, env_files };
        let source = kip_manifest::Source { file, text, directory: FilePath::new(directory), deployer };
        kip_manifest::read(&source).map(|manifest| (manifest, deployment))
    };
    let done = tokio::task::spawn_blocking(read).await;
    let (mut manifest, deployment) =
        done.map_err(|error| bad_request(format!("the manifest could not be read: {error}")))??;
    for spec in &mut manifest.functions {
        spec.owns_directory = who.is_administrator() && matches!(spec.program, Program::Command { .. });
    }
    Ok((manifest, deployment))
}

pub(crate) async fn list(State(api): State<Api>, who: Requester) -> Json<Vec<FunctionInfo>> {
    let mut functions = api.control.functions();
    functions.retain(|info| who.sees(info.name.as_str()));
    functions.iter_mut().for_each(|info| mask(&api, &who, info));
    Json(functions)
}

pub(crate) async fn show(State(api): State<Api>, who: Requester, Path(name): Path<String>) -> ApiResult<Response> {
    let cell = api.control.require(&name)?;
    let rev = api.control.rev(Object::Function(cell.name().clone())).await?;
    let mut info = cell.info();
    mask(&api, &who, &mut info);
    Ok(tagged(rev, info))
}

fn mask(api: &Api, who: &Requester, info: &mut FunctionInfo) {
    versions::mask(&mut info.spec);
    // Who holds what it waits for may be somebody else's.
    info.missing = info.missing.take().map(|text| who.without_foreign(api, &text));
    info.waits.iter_mut().for_each(|wait| wait.why = who.without_foreign(api, &wait.why));
}

/// Records what decides for a function from here on.
pub(crate) async fn record(State(api): State<Api>, who: Requester, Path(name): Path<String>) -> ApiResult<StatusCode> {
    who.changes(name.clone());
    api.control.require(&name)?.record(true);
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn end_recording(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
) -> ApiResult<StatusCode> {
    who.changes(name.clone());
    match api.control.require(&name)?.record(false) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_recording(&name).into()),
    }
}

pub(crate) async fn recording(State(api): State<Api>, Path(name): Path<String>) -> ApiResult<Json<DecisionRecording>> {
    let cell = api.control.require(&name)?;
    let recording = cell.recording().ok_or_else(|| no_recording(&name))?;
    let (from, to) = recording.span().unzip();
    let steps = recording.len();
    let recording = serde_json::to_value(&recording)
        .map_err(|error| Problem::new(code::STORE_FAILED, format!("the recording cannot be written: {error}")))?;
    Ok(Json(DecisionRecording { function: cell.name().clone(), from, to, steps, recording }))
}

fn no_recording(name: &str) -> Problem {
    let problem = Problem::new(code::NO_RECORDING, format!("nothing is recorded of the function `{name}`"));
    problem.hint(format!("start it with `kip scaler record {name}`"))
}

pub(crate) async fn remove(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
) -> ApiResult<Json<serde_json::Value>> {
    api.control.remove(&name, who.author()).await?;
    Ok(Json(serde_json::json!({"removed": name})))
}

pub(crate) async fn evidence(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> ApiResult<Json<Vec<RevisionEvidence>>> {
    let cell = api.control.require(&name)?;
    let all = api.control.evidence(&name)?;
    Ok(Json(all.into_iter().map(|(version, evidence)| evidence_of(version, cell.label(version), &evidence)).collect()))
}

fn evidence_of(version: VersionId, label: String, evidence: &Evidence) -> RevisionEvidence {
    let Evidence { requests, failed, abandoned, latencies } = evidence;
    RevisionEvidence {
        version,
        label,
        requests: *requests,
        failed: *failed,
        abandoned: *abandoned,
        queue: summary(&latencies.queue),
        first_byte: summary(&latencies.first_byte),
        total: summary(&latencies.total),
    }
}

fn summary(histogram: &Histogram) -> LatencySummary {
    let count = histogram.count();
    LatencySummary {
        count,
        mean_us: histogram.sum.checked_div(count),
        p50_us: histogram.quantile(0.5),
        p90_us: histogram.quantile(0.9),
        p99_us: histogram.quantile(0.99),
    }
}

pub(crate) async fn usage(State(api): State<Api>, Path(name): Path<String>) -> ApiResult<Json<FunctionUsage>> {
    Ok(Json(api.control.usage(&name).await?))
}

/// Asks for the replacement; it goes on after the answer.
pub(crate) async fn rotate(State(api): State<Api>, Path(name): Path<String>) -> ApiResult<Json<Rotation>> {
    Ok(Json(Rotation { replacing: api.control.rotate(&name)? }))
}

pub(crate) async fn decisions(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    Query(most): Query<LimitQuery>,
) -> ApiResult<Json<Vec<DecisionRecord>>> {
    api.control.recorder().flush().await;
    let mut found = api.control.records().decisions(name, most.get()).await.map_err(kip_control::Error::from)?;
    found.iter_mut().for_each(|decision| decision.why = who.without_foreign(&api, &decision.why));
    Ok(Json(found))
}
