//! Published versions and aliases.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use kip_control::{AliasChange, Error};
use kip_spec::function::{FunctionSpec, Program, Strategy};
use kip_spec::qualifier::shares;
use kip_spec::scaling::Scaling;
use kip_spec::secret::{masked, masked_text, masked_words};
use kip_spec::sticky::StickyError;
use kip_spec::{QualifierName, VersionId};
use kip_store::Seq;
use kip_wire::{
    AliasInfo, AliasSettings, DeployedVersion, Deployment, DeploymentPlan, PlannedFunction, Publication, Published,
    RevisionInfo, Rollback, RollbackResult, RolloutInfo, RolloutOrder, RolloutSettings, VersionDiff, VersionInfo,
};
use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::guard::{Requester, tagged};
use crate::{Api, bad_request, functions};

/// The other side of a comparison.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct DiffQuery {
    /// A version, a revision or LATEST, which is what is compared with if this is left out.
    to: Option<String>,
}

pub(crate) async fn list(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
) -> ApiResult<Json<Vec<RevisionInfo>>> {
    let mut all = api.control.revisions(&name).await?;
    for info in &mut all {
        hide(&api, &who, info).await?;
    }
    Ok(Json(all))
}

/// Hides what a document holds beside the function, or should not have been written into it.
async fn hide(api: &Api, who: &Requester, info: &mut RevisionInfo) -> ApiResult<()> {
    info.source = match who.sees_all() {
        true => masked_text(&info.source).into_owned(),
        false => own_part(api, info.id).await?,
    };
    Ok(())
}

/// The part of a document that is about one revision's function, for a key that may not see the others.
async fn own_part(api: &Api, revision: VersionId) -> ApiResult<String> {
    let Some(mut spec) = api.control.revision(revision).await? else { return Ok(String::new()) };
    mask(&mut spec);
    let name = &spec.name;
    let remark =
        format!("# The part of `{name}`: this key is for some functions, and its document may declare others.\n");
    Ok(remark + &kip_manifest::write(&[spec]))
}

/// Hides what looks like a secret in a declaration.
pub(crate) fn mask(spec: &mut FunctionSpec) {
    for (name, value) in &mut spec.env {
        *value = masked(name, value).into_owned();
    }
    match &mut spec.program {
        Program::Command { argv, .. } => *argv = masked_words(argv),
        Program::Image(container) => {
            container.argv = masked_words(&container.argv);
            container.entrypoint = masked_words(&container.entrypoint);
        }
        Program::Model { .. } => {}
    }
}

fn read(name: &str, qualifier: &str) -> ApiResult<QualifierName> {
    let unknown = || Error::NoQualifier { function: name.to_owned(), qualifier: qualifier.to_owned() };
    match qualifier.parse() {
        Ok(QualifierName::Alias(_)) | Err(_) => Err(unknown().into()),
        Ok(qualifier) => Ok(qualifier),
    }
}

async fn info_of(api: &Api, who: &Requester, name: &str, id: VersionId) -> ApiResult<RevisionInfo> {
    let unknown = || Error::NoQualifier { function: name.to_owned(), qualifier: id.to_string() };
    let info = api.control.revisions(name).await?.into_iter().find(|info| info.id == id);
    let mut info = info.ok_or_else(unknown)?;
    hide(api, who, &mut info).await?;
    Ok(info)
}

pub(crate) async fn show(
    State(api): State<Api>,
    who: Requester,
    Path((name, version)): Path<(String, String)>,
) -> ApiResult<Json<VersionInfo>> {
    let version = api.control.revision_named(&name, &read(&name, &version)?).await?;
    let mut spec = version.spec.clone();
    mask(&mut spec);
    Ok(Json(VersionInfo { revision: info_of(&api, &who, &name, version.id).await?, spec }))
}

pub(crate) async fn publish(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    body: Result<Json<Publication>, JsonRejection>,
) -> ApiResult<Json<Published>> {
    let Json(Publication { description, revision }) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    let revision = revision.map(|revision| read(&name, &revision)).transpose()?;
    let (mut version, fresh) = api.control.publish(&name, revision, description, who.author()).await?;
    if fresh {
        who.changes(format!("{name}@{}", version.label));
    }
    hide(&api, &who, &mut version).await?;
    Ok(Json(Published { version, fresh }))
}

pub(crate) async fn remove(
    State(api): State<Api>,
    who: Requester,
    Path((name, version)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let QualifierName::Number(number) = read(&name, &version)? else {
        return Err(bad_request(format!("`{version}` is no published version: write its number, such as 3")));
    };
    api.control.remove_version(&name, number, who.author()).await?;
    Ok(Json(serde_json::json!({"removed": number, "function": name})))
}

pub(crate) async fn diff(
    State(api): State<Api>,
    Path((name, version)): Path<(String, String)>,
    Query(query): Query<DiffQuery>,
) -> ApiResult<Json<VersionDiff>> {
    let to = query.to.as_deref().unwrap_or(kip_control::LATEST);
    Ok(Json(api.control.diff(&name, &read(&name, &version)?, &read(&name, to)?).await?))
}

pub(crate) async fn aliases(State(api): State<Api>, Path(name): Path<String>) -> ApiResult<Json<Vec<AliasInfo>>> {
    Ok(Json(api.control.aliases(&name)?))
}

pub(crate) async fn alias(State(api): State<Api>, Path((name, alias)): Path<(String, String)>) -> ApiResult<Response> {
    let info = api.control.alias(&name, &alias)?;
    Ok(tagged(Seq(info.rev), info))
}

pub(crate) async fn set_alias(
    State(api): State<Api>,
    who: Requester,
    Path((name, alias)): Path<(String, String)>,
    body: Result<Json<AliasSettings>, JsonRejection>,
) -> ApiResult<Response> {
    let Json(AliasSettings { targets, description, sticky }) =
        body.map_err(|rejection| bad_request(rejection.body_text()))?;
    let hint = "write a version such as 3, or versions with shares: 3=90,4=10".to_owned();
    let targets = shares(&targets).map_err(|detail| Error::AliasInvalid { detail, hint })?;
    who.changes(format!("{name}@{alias}"));
    let sticky = match sticky.as_deref() {
        None => None,
        Some("off") => Some(None),
        Some(text) => Some(Some(text.parse().map_err(|error: StickyError| Error::AliasInvalid {
            detail: error.to_string(),
            hint: "write off to draw each request by itself".to_owned(),
        })?)),
    };
    let change = AliasChange { targets, description, sticky };
    let info = api.control.set_alias(&name, &alias, change, who.author()).await?;
    Ok(tagged(Seq(info.rev), info))
}

pub(crate) async fn remove_alias(
    State(api): State<Api>,
    who: Requester,
    Path((name, alias)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    who.changes(format!("{name}@{alias}"));
    api.control.remove_alias(&name, &alias, who.author()).await?;
    Ok(Json(serde_json::json!({"removed": alias, "function": name})))
}

pub(crate) async fn rollout(
    State(api): State<Api>,
    Path((name, alias)): Path<(String, String)>,
) -> ApiResult<Json<RolloutInfo>> {
    Ok(Json(api.control.rollout(&name, &alias)?))
}

pub(crate) async fn start_rollout(
    State(api): State<Api>,
    who: Requester,
    Path((name, alias)): Path<(String, String)>,
    body: Result<Json<RolloutSettings>, JsonRejection>,
) -> ApiResult<Json<RolloutInfo>> {
    let Json(settings) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes(format!("{name}@{alias}"));
    Ok(Json(api.control.start_rollout(&name, &alias, &settings, who.author()).await?))
}

pub(crate) async fn direct_rollout(
    State(api): State<Api>,
    who: Requester,
    Path((name, alias)): Path<(String, String)>,
    body: Result<Json<RolloutOrder>, JsonRejection>,
) -> ApiResult<Json<RolloutInfo>> {
    let Json(RolloutOrder { action }) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes(format!("{name}@{alias}"));
    Ok(Json(api.control.direct_rollout(&name, &alias, action, who.author()).await?))
}

/// What a deployment would change, without changing anything.
pub(crate) async fn plan(
    State(api): State<Api>,
    who: Requester,
    body: Result<Json<Deployment>, JsonRejection>,
) -> ApiResult<Json<DeploymentPlan>> {
    let Json(deployment) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    let (read, deployment) = functions::read_manifest(deployment, &who).await?;
    let Deployment { file, directory, only, no_traffic, .. } = deployment;
    let beside = [std::path::Path::new(&directory).join(&file)];
    let mut plan = DeploymentPlan { functions: Vec::new(), warnings: read.warnings };
    let (traffic, functions) = (read.traffic, read.functions);
    for mut spec in functions {
        if !only.is_empty() && !only.iter().any(|name| *name == spec.name.as_str()) {
            continue;
        }
        who.require_function(spec.name.as_str())?;
        plan.warnings.extend(api.control.preview_image(&mut spec).await);
        let captured = api.control.capture(&mut spec, &beside, false).await?;
        plan.warnings.extend(captured.told);
        plan.warnings.extend(api.control.check(&spec).await);
        let shares = traffic.get(&spec.name).map(Vec::as_slice).unwrap_or_default();
        let mut planned = planned(&api, &spec, shares, no_traffic);
        planned.fields.extend(captured.files);
        if let Some(rollout) = read.rollouts.get(&spec.name).filter(|_| !no_traffic) {
            let alias = &rollout.alias;
            planned.steps.push(match api.control.alias(spec.name.as_str(), alias.as_str()) {
                Ok(_) => format!("the alias {alias} moves to it in steps (rollout)"),
                Err(_) => format!("the alias {alias} is made and points at it"),
            });
        }
        plan.functions.push(planned);
    }
    Ok(Json(plan))
}

fn planned(api: &Api, spec: &FunctionSpec, traffic: &[(QualifierName, u32)], no_traffic: bool) -> PlannedFunction {
    let shown = |shares: &[(QualifierName, u32)]| match shares {
        [] => kip_control::LATEST.to_owned(),
        shares => {
            let each = shares.iter().map(|(to, share)| format!("{to} {} %", f64::from(*share) / 10_000.0));
            each.collect::<Vec<_>>().join(", ")
        }
    };
    let Some(cell) = api.control.cell(spec.name.as_str()) else {
        let steps = vec![match spec.instances.min {
            0 => "the function is new; its first request starts an instance".to_owned(),
            min => format!("the function is new; {min} of its instances start"),
        }];
        let (function, to) = (spec.name.clone(), shown(traffic));
        return PlannedFunction { function, serving: None, fields: Vec::new(), steps, traffic: ("-".to_owned(), to) };
    };
    let (serving, info) = (cell.serving(), cell.info());
    let label = serving.label();
    let running = info.hot + info.starting + info.asleep;
    let now: Vec<(QualifierName, u32)> = cell.traffic().into_iter().map(|share| (share.to, share.millionths)).collect();
    let after = if no_traffic { now.clone() } else { traffic.to_vec() };
    let mut steps = match (no_traffic, running, spec.deploy.strategy) {
        (true, ..) => vec![format!("a revision is made; {label} serves on, and nothing starts or ends")],
        (_, 0, _) => vec![format!("nothing of it runs; the new revision serves at once in place of {label}")],
        (_, _, Strategy::Recreate) => {
            vec![format!("its {running} instances of {label} end first"), "then the new revision starts".to_owned()]
        }
        (_, _, Strategy::Rolling) => vec![
            format!("one instance of the new revision starts while {label} serves"),
            format!("when it is ready it takes new requests, and {}", ending(running, &label)),
        ],
    };
    if matches!((&serving.spec.scaling, &spec.scaling), (Scaling::Fixed, Scaling::Auto(_))) {
        steps
            .push("its scaling follows what is measured (auto); `scaling: {mode: fixed}` keeps what it was".to_owned());
    }
    PlannedFunction {
        function: spec.name.clone(),
        fields: kip_control::differences(&serving.spec, spec),
        serving: Some(label),
        steps,
        traffic: (shown(&now), shown(&after)),
    }
}

/// That instances of a version end.
fn ending(running: u32, label: &str) -> String {
    match running {
        1 => format!("its instance of {label} ends"),
        several => format!("its {several} instances of {label} end"),
    }
}

pub(crate) async fn rollback(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    body: Result<Json<Rollback>, JsonRejection>,
) -> ApiResult<Json<RollbackResult>> {
    let Json(Rollback { alias }) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    Ok(Json(match alias {
        Some(alias) => {
            who.changes(format!("{name}@{alias}"));
            let alias = api.control.rollback_alias(&name, &alias, who.author()).await?;
            RollbackResult { version: None, alias: Some(alias) }
        }
        None => {
            let made = api.control.rollback(&name, who.author()).await?;
            api.events.jobs_changed();
            let (function, version, label) = (made.function, made.version, made.label);
            RollbackResult { version: Some(DeployedVersion { function, version, label, job: false }), alias: None }
        }
    }))
}
