//! `kip deploy` of an s.yaml or a template.yml: the plan, the question, then each step through the API of Function Compute.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kip_host::clock::boot_millis;
use kip_serverless::DeclaredFunction;
use kip_serverless::plan::Step;
use kip_spec::{Problem, code};
use serde::Serialize;
use serde_json::{Value, json};

use super::actions;
use super::archive::{self, Archive};
use super::compare::{self, FunctionPlan, PartKind, PartPlan};
use super::mounts;
use super::project_file::{ProjectFile, address, load};
use super::render;
use super::roles;
use super::server;
use crate::arguments::Deploy;
use crate::client::{Client, segment};
use crate::commands::image;
use crate::output::Output;
use crate::progress::{Progress, interruptible};

/// The longest wait for a new version, milliseconds; its start has limits of its own.
const LONGEST_WAIT: u64 = 3_600_000;

/// A function after its deployment.
#[derive(Debug, Serialize)]
struct FunctionResult {
    function: String,
    /// What was done to its configuration.
    configuration: Step,
    /// Whether code was sent.
    code: bool,
    /// Whether anything was another than in the file.
    changed: bool,
    url: String,
    /// A line that calls it.
    call: String,
}

/// Options that only the deployment of a kip.yaml has.
fn check(options: &Deploy) -> Result<(), Problem> {
    let given = [
        ("--wait", options.wait),
        ("--no-traffic", options.no_traffic),
        ("--publish", options.publish),
        ("--alias", options.alias.is_some()),
        ("--message", !options.message.is_empty()),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((name, _)) => Err(Problem::new(code::COMMAND_INPUT, format!("{name} is for a kip.yaml"))
            .hint("deploy without it, then `kip version publish NAME` and `kip alias set NAME ALIAS VERSION`")),
    }
}

/// Deploys a file.
pub(crate) async fn deploy(client: &Client, path: &Path, options: &Deploy, output: Output) -> anyhow::Result<()> {
    check(options)?;
    let file = load(client, path, &options.file, output).await?;
    let functions = file.functions(&options.only)?;
    let may_run = actions::permission(&file, &functions, "deploy", &options.confirm, output)?;
    if may_run {
        actions::run(&file.project.actions, "pre", "deploy", output)?;
        for function in &functions {
            actions::run(&function.actions, "pre", "deploy", output)?;
        }
    }
    let moved = mounts::moved(client, &file, &options.confirm.mounts).await?;
    let mut plans = Vec::new();
    for function in &functions {
        let archive = archive::of(function)?;
        let mut plan = compare::plan(client, function, archive.as_ref()).await?;
        mounts::note(&mut plan, &file, function, &moved)?;
        plans.push((*function, plan, archive));
    }
    confirm(&file, &plans, options, output)?;
    mounts::set(client, &moved).await?;
    roles::set(client, &options.confirm.roles, &mut plans).await?;
    for (function, plan, archive) in &plans {
        if let Err(error) = apply(client, function, plan, archive.as_ref(), output).await {
            // What is refused leaves the folders as they were.
            mounts::put_back(client, &moved).await?;
            return Err(error);
        }
        if !options.no_wait && !plan.is_nothing() {
            let name = function.name.as_str();
            let goes_on = || format!("the deployment goes on; `kip why {name}` shows how it stands");
            interruptible(output, goes_on, wait(client, name, output)).await?;
        }
        if may_run {
            actions::run(&function.actions, "post", "deploy", output)?;
        }
    }
    if may_run {
        actions::run(&file.project.actions, "post", "deploy", output)?;
    }
    for (function, plan, _) in &plans {
        mounts::show(client, &file, function, plan, output).await?;
    }
    let result = |(function, plan, _): &'_ (&DeclaredFunction, FunctionPlan, Option<Archive>)| {
        let (url, call) = address(&file, function);
        let (configuration, code) = (plan.configuration.clone(), plan.code);
        FunctionResult { function: plan.function.clone(), configuration, code, changed: !plan.is_nothing(), url, call }
    };
    let results: Vec<FunctionResult> = plans.iter().map(result).collect();
    output.result(&results, |results| results.iter().map(line).collect())?;
    if let Some(first) = results.iter().find(|result| matches!(result.configuration, Step::Create)) {
        let name = &first.function;
        output.remark(&format!("next: kip logs {name} -f, kip version publish {name}, kip bench {}", first.url));
    }
    Ok(())
}

/// Deploys one function without a question, and waits until its newest version serves.
pub(crate) async fn deploy_one(client: &Client, function: &DeclaredFunction, output: Output) -> anyhow::Result<()> {
    let archive = archive::of(function)?;
    let plan = compare::plan(client, function, archive.as_ref()).await?;
    if plan.is_nothing() {
        return Ok(());
    }
    apply(client, function, &plan, archive.as_ref(), output).await?;
    wait(client, function.name.as_str(), output).await
}

fn line(result: &FunctionResult) -> String {
    let done = match &result.configuration {
        _ if !result.changed => "is as the file has it",
        Step::Create => "is created",
        _ => "is changed",
    };
    format!("{} {done}  {}\n  {}\n", result.function, result.url, result.call)
}

/// Shows what changes, and asks on a terminal where something existing changes.
fn confirm(
    file: &ProjectFile,
    plans: &[(&DeclaredFunction, FunctionPlan, Option<Archive>)],
    options: &Deploy,
    output: Output,
) -> anyhow::Result<()> {
    let changing = plans.iter().filter(|(_, plan, _)| !plan.is_nothing());
    if output.is_json() {
        return Ok(());
    }
    let text: String = changing.map(|(_, plan, _)| render::steps(plan)).collect();
    if !text.is_empty() {
        output.remark(text.trim_end());
        let notes = render::notes(&file.project.keys);
        if !notes.is_empty() {
            output.remark(&format!("not in force here:\n{}", notes.trim_end()));
        }
    }
    let touches = plans.iter().any(|(_, plan, _)| plan.touches_existing());
    if touches && !options.confirm.yes && !actions::ask("change what exists?", true, output)? {
        return Err(Problem::new(code::NOT_CONFIRMED, "nothing was changed: the change was not confirmed")
            .hint("`kip plan` shows what would change; -y changes it without a question")
            .into());
    }
    Ok(())
}

/// Carries out the plan of a function. A step that fails leaves those before it in force; another deployment goes on from there.
async fn apply(
    client: &Client,
    function: &DeclaredFunction,
    plan: &FunctionPlan,
    archive: Option<&Archive>,
    output: Output,
) -> anyhow::Result<()> {
    let name = function.name.as_str();
    let mut body = Value::from(plan.config.clone());
    if plan.code
        && let Some(archive) = archive
    {
        body["code"] = json!({"zipFile": BASE64_STANDARD.encode(&archive.bytes), "checksum": archive.checksum});
    }
    let patient = client.pulling();
    match &plan.configuration {
        Step::Create => {
            let path = format!("{}/functions", server::API);
            let _made: Value = image::pulling(client, patient.post(&path, &body), output).await?;
        }
        Step::Keep if !plan.code => {}
        _ => {
            let path = server::path(name, "");
            let _made: Value = image::pulling(client, patient.put(&path, &body), output).await?;
        }
    }
    for part in plan.parts.iter().filter(|part| !part.step.is_nothing()) {
        put(client, name, part).await?;
    }
    Ok(())
}

async fn put(client: &Client, name: &str, part: &PartPlan) -> anyhow::Result<()> {
    let is_new = matches!(part.step, Step::Create);
    let one = segment(&part.name);
    let by_qualifier = |at: &str| server::path(name, &format!("/{at}?qualifier={one}"));
    let _done: Value = match part.kind {
        PartKind::Alias => {
            let mut body = part.body.clone();
            if body["versionId"].is_null() {
                let published: Value = client.post(&server::path(name, "/versions"), &json!({})).await?;
                body["versionId"] = published["versionId"].clone();
            }
            match is_new {
                true => client.post(&server::path(name, "/aliases"), &body).await?,
                false => client.put(&server::path(name, &format!("/aliases/{one}")), &body).await?,
            }
        }
        PartKind::Trigger if is_new => client.post(&server::path(name, "/triggers"), &part.body).await?,
        PartKind::Trigger => client.put(&server::path(name, &format!("/triggers/{one}")), &part.body).await?,
        PartKind::AsyncInvokeConfig => client.put(&by_qualifier("async-invoke-config"), &part.body).await?,
        PartKind::ProvisionConfig => client.put(&by_qualifier("provision-config"), &part.body).await?,
        PartKind::ScalingConfig => client.put(&by_qualifier("scaling-config"), &part.body).await?,
        PartKind::Concurrency => client.put(&server::path(name, "/concurrency"), &part.body).await?,
        PartKind::VpcBinding => {
            client.post_for_nothing(&server::path(name, "/vpc-bindings"), &part.body).await?;
            Value::Null
        }
        PartKind::Domain => {
            let wanted = part.body.as_object().cloned().unwrap_or_default();
            let now = compare::domain(client, name, &wanted).await?;
            match now.step {
                Step::Create => client.post(&format!("{}/custom-domains", server::API), &now.body).await?,
                Step::Keep => Value::Null,
                _ => client.put(&crate::commands::domain::path(&now.name), &now.body).await?,
            }
        }
        PartKind::Tags => client.put(&server::path(name, ""), &json!({"tags": part.body})).await?,
    };
    Ok(())
}

/// Waits until the newest version of a function serves.
pub(crate) async fn wait(client: &Client, name: &str, output: Output) -> anyhow::Result<()> {
    let begun = boot_millis();
    let mut progress = Progress::new(output);
    loop {
        let there = server::function(client, name).await?.unwrap_or_default();
        let text = |field: &str| there.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        match text("lastUpdateStatus").as_str() {
            "InProgress" if boot_millis().saturating_sub(begun) < LONGEST_WAIT => {
                progress.say(&format!("{name}: the first instance of the new version starts"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            "Failed" => {
                let own = text("lastUpdateStatusReasonCode").parse().unwrap_or(code::NEVER_READY);
                let message =
                    format!("the new version of {name} did not become ready: {}", text("lastUpdateStatusReason"));
                return Err(Problem::new(own, message)
                    .hint(format!("`kip logs {name}` shows what the program wrote; fix it and deploy again"))
                    .into());
            }
            _ => return Ok(()),
        }
    }
}
