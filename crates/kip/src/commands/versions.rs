//! `kip version` and `kip alias`.

use kip_wire::{
    AliasInfo, AliasSettings, DeployedVersion, DeploymentPlan, DeploymentResult, PlannedFunction, Publication,
    Published, RevisionInfo, Rollback, RollbackResult, TargetInfo, VersionDiff, VersionInfo, VersionStatus,
};
use serde_json::Value;

use crate::arguments::{Alias, AliasPut, Deploy, Plan, RollbackArguments, Versions};
use crate::client::{Client, segment};
use crate::commands::deploy::{self, Deploying};
use crate::commands::knative;
use crate::output::{Output, clock, table};
use crate::problem::warning;

pub(crate) async fn run(client: &Client, command: &Versions, output: Output) -> anyhow::Result<()> {
    match command {
        Versions::Publish { function, message, revision } => {
            let body = Publication { description: message.clone(), revision: revision.clone() };
            let published: Published = client.post(&path(function, "versions", None), &body).await?;
            output.result(&published, |published| {
                let (number, ordinal) = (&published.version.label, published.version.ordinal);
                match published.fresh {
                    true => format!("{function} r{ordinal} is version {number}\n"),
                    false => format!("{function} r{ordinal} is version {number} already; nothing was changed\n"),
                }
            })
        }
        Versions::List { function } => {
            let all: Vec<RevisionInfo> = client.get(&path(function, "versions", None)).await?;
            output.result(&all, |all| list(all))
        }
        Versions::Show { function, version } => {
            let shown: VersionInfo = client.get(&path(function, "versions", Some(version))).await?;
            output.result(&shown, |shown| one(function, shown))
        }
        Versions::Diff { function, from, to } => {
            let path = format!("{}/diff?to={}", path(function, "versions", Some(from)), segment(to));
            let diff: VersionDiff = client.get(&path).await?;
            output.result(&diff, |diff| differences(function, diff))
        }
        Versions::Rm { function, version } => {
            let removed: Value = client.delete(&path(function, "versions", Some(version))).await?;
            output.result(&removed, |_| format!("version {version} of {function} is removed\n"))
        }
    }
}

pub(crate) async fn alias(client: &Client, command: &Alias, output: Output) -> anyhow::Result<()> {
    match command {
        Alias::Put(AliasPut { function, alias, targets, message, sticky, if_match }) => {
            let body = AliasSettings { targets: targets.clone(), description: message.clone(), sticky: sticky.clone() };
            let path = path(function, "aliases", Some(alias));
            let info: AliasInfo = client.comparing(*if_match).put(&path, &body).await?;
            output.result(&info, |info| format!("{function}@{} is {}\n", info.name, shares(&info.targets)))
        }
        Alias::List { function } => {
            let all: Vec<AliasInfo> = client.get(&path(function, "aliases", None)).await?;
            output.result(&all, |all| {
                let sticky =
                    |info: &AliasInfo| info.sticky.as_deref().map(|by| format!(", sticky by {by}")).unwrap_or_default();
                let row = |info: &AliasInfo| {
                    vec![info.name.clone(), shares(&info.targets) + &sticky(info), info.description.clone()]
                };
                let rows: Vec<Vec<String>> = all.iter().map(row).collect();
                table(&["ALIAS", "VERSIONS", "NOTE"], &rows)
            })
        }
        Alias::Get { function, alias } => {
            let info: AliasInfo = client.get(&path(function, "aliases", Some(alias))).await?;
            let gateway = client.gateway().await?;
            output.result(&info, |info| {
                let AliasInfo { name, targets, description, rev, host, sticky, .. } = info;
                let sticky = sticky.as_deref().map(|by| format!("sticky       {by}\n")).unwrap_or_default();
                let port = gateway.rsplit(':').next().unwrap_or_default();
                format!(
                    "alias        {function}@{name}\nversions     {}\nnote         {description}\n{sticky}url          http://{gateway}/f/{function}@{name}/\nhost         http://{host}:{port}/\nrevision     {rev}\n",
                    shares(targets)
                )
            })
        }
        Alias::Rm { function, alias, if_match } => {
            let removed: Value = client.comparing(*if_match).delete(&path(function, "aliases", Some(alias))).await?;
            output.result(&removed, |_| format!("alias {alias} of {function} is removed\n"))
        }
    }
}

fn path(function: &str, what: &str, name: Option<&str>) -> String {
    let name = name.map(|name| format!("/{}", segment(name))).unwrap_or_default();
    format!("/api/v1/functions/{}/{what}{name}", segment(function))
}

/// `3`, or `3 90 %, 4 10 %`.
fn shares(targets: &[TargetInfo]) -> String {
    if let [only] = targets {
        return only.version.clone();
    }
    let each: Vec<String> = targets.iter().map(|target| format!("{} {} %", target.version, target.percent)).collect();
    each.join(", ")
}

/// What a revision is for at present.
fn state(info: &RevisionInfo) -> String {
    let status = match &info.status {
        Some(VersionStatus::Candidate) => "is starting",
        Some(VersionStatus::Failed { .. }) => "failed",
        _ if info.serves => "serves",
        _ => "",
    };
    status.to_owned()
}

fn list(all: &[RevisionInfo]) -> String {
    let row = |info: &RevisionInfo| {
        vec![
            info.number.map(|number| number.to_string()).unwrap_or_default(),
            format!("r{}", info.ordinal),
            state(info),
            info.aliases.join(","),
            clock(info.created),
            info.facade.clone(),
            info.description.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    table(&["VERSION", "REVISION", "STATE", "ALIASES", "DEPLOYED", "FROM", "NOTE"], &rows)
}

fn one(function: &str, shown: &VersionInfo) -> String {
    let info = &shown.revision;
    let number = info.number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let mut text = format!("function     {function}\nversion      {number}\nrevision     r{}\n", info.ordinal);
    let lines = [
        ("state", state(info)),
        ("aliases", info.aliases.join(", ")),
        ("deployed", clock(info.created)),
        ("from", info.facade.clone()),
        ("note", info.description.clone()),
    ];
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{name:<13}{value}\n"));
    }
    text.push('\n');
    text.push_str(&info.source);
    if !info.source.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn differences(function: &str, diff: &VersionDiff) -> String {
    let VersionDiff { from, to, fields } = diff;
    if fields.is_empty() {
        return format!("{function} {from} and {to} declare the same\n");
    }
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let row = |field: &kip_wire::FieldChange| vec![field.field.clone(), shown(&field.before), shown(&field.after)];
    let rows: Vec<Vec<String>> = fields.iter().map(row).collect();
    table(&["FIELD", from, to], &rows)
}

/// Publishes a deployed revision and points an alias at it, as the options of `kip deploy` say.
pub(crate) async fn name(
    client: &Client,
    made: &DeployedVersion,
    (options, rolls): (&Deploy, bool),
    output: Output,
) -> anyhow::Result<()> {
    let (function, note) = (made.function.as_str(), options.message.clone());
    let mut label = made.label.clone();
    if options.publish {
        let body = Publication { description: note.clone(), revision: Some(label.clone()) };
        let published: Published = client.post(&path(function, "versions", None), &body).await?;
        output.remark(&format!("{function} {label} is version {}", published.version.label));
        label = published.version.label;
    }
    if let Some(alias) = options.alias.as_ref().filter(|_| !rolls) {
        let body = AliasSettings { targets: label, description: (!note.is_empty()).then_some(note), sticky: None };
        let info: AliasInfo = client.put(&path(function, "aliases", Some(alias)), &body).await?;
        output.remark(&format!("{function}@{} is {}", info.name, shares(&info.targets)));
    }
    Ok(())
}

/// Points an alias at what was deployed.
pub(crate) async fn point(client: &Client, made: &DeployedVersion, alias: &str, output: Output) -> anyhow::Result<()> {
    let function = made.function.as_str();
    let body = AliasSettings { targets: made.label.clone(), description: None, sticky: None };
    let info: AliasInfo = client.put(&path(function, "aliases", Some(alias)), &body).await?;
    output.remark(&format!("{function}@{} is {}", info.name, shares(&info.targets)));
    Ok(())
}

pub(crate) async fn plan(client: &Client, options: &Plan, output: Output) -> anyhow::Result<()> {
    let (only, no_traffic) = (options.only.clone(), options.no_traffic);
    knative::tell(&options.path, output)?;
    let deployment = deploy::deployment(&options.path, Deploying { only, no_traffic, ..Deploying::default() })?;
    let plan: DeploymentPlan = client.post("/api/v1/plan", &deployment).await?;
    plan.warnings.iter().for_each(|one| output.remark(&warning(one)));
    output.result(&plan, |plan| plan.functions.iter().map(planned).collect())
}

fn planned(planned: &PlannedFunction) -> String {
    let PlannedFunction { function, serving, fields, steps, traffic } = planned;
    let mut text = match (serving, fields.is_empty()) {
        (None, _) => format!("{function} is new\n"),
        (Some(serving), true) => format!("{function}: the manifest declares what {serving} has\n"),
        (Some(serving), false) => format!("{function}: the manifest differs from {serving}\n"),
    };
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    for field in fields {
        text.push_str(&format!("  {}: {} → {}\n", field.field, shown(&field.before), shown(&field.after)));
    }
    for step in steps {
        text.push_str(&format!("  {step}\n"));
    }
    match traffic.0 == traffic.1 {
        true => text.push_str(&format!("  traffic stays {}\n", traffic.0)),
        false => text.push_str(&format!("  traffic: {} → {}\n", traffic.0, traffic.1)),
    }
    text
}

pub(crate) async fn rollback(client: &Client, options: &RollbackArguments, output: Output) -> anyhow::Result<()> {
    let function = &options.function;
    let path = format!("/api/v1/functions/{}/rollback", segment(function));
    let result: RollbackResult = client.post(&path, &Rollback { alias: options.alias.clone() }).await?;
    if let (Some(made), false) = (&result.version, options.no_wait) {
        let (deployed, unchanged, warnings) = (vec![made.clone()], Vec::new(), Vec::new());
        deploy::wait(client, &DeploymentResult { deployed, unchanged, rollouts: Vec::new(), warnings }, false, output)
            .await?;
    }
    output.result(&result, |result| match (&result.version, &result.alias) {
        (Some(made), _) if options.no_wait => format!("{function} returns to {}\n", made.label),
        (Some(made), _) => format!("{function} serves {} again\n", made.label),
        (None, Some(info)) => format!("{function}@{} is {} again\n", info.name, shares(&info.targets)),
        (None, None) => String::new(),
    })
}
