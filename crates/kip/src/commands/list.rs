//! Lists: functions and instances.

use std::time::Duration;

use kip_spec::qualifier::{LATEST, split_name};
use kip_spec::{FunctionName, Problem, QualifierName, code, people};
use kip_wire::{AliasInfo, FunctionInfo, HostInfo, InstanceInfo, RevisionInfo};

use crate::arguments::Ps;
use crate::client::{Client, segment};
use crate::output::{Output, millis, screen, table};

pub(crate) async fn functions(client: &Client, output: Output) -> anyhow::Result<()> {
    let functions: Vec<FunctionInfo> = client.get("/api/v1/functions").await?;
    let gateway = client.about().await?.gateway;
    let warnings = super::cost::exceeded(client, output).await;
    output.result(&functions, |functions| {
        let row = |info: &FunctionInfo| {
            vec![
                info.name.to_string(),
                info.label.clone(),
                info.hot.to_string(),
                info.starting.to_string(),
                info.asleep.to_string(),
                info.in_flight.to_string(),
                info.queued.to_string(),
                match info.spec.job.is_some() {
                    true => format!("job: kip job show {}", info.name),
                    false => format!("http://{gateway}/f/{}/", info.name),
                },
            ]
        };
        let rows: Vec<Vec<String>> = functions.iter().map(row).collect();
        let header = ["FUNCTION", "VERSION", "#HOT", "#STARTING", "#ASLEEP", "#IN FLIGHT", "#QUEUED", "URL"];
        let mut text = table(&header, &rows);
        for info in functions {
            if let Some(version) = info.crash_loop {
                let (name, version) = (&info.name, info.label_of(version));
                text.push_str(&format!("{name} {version} is in a crash loop: `kip why {name}` tells more\n"));
            }
        }
        text + &warnings
    })
}

pub(crate) async fn instances(client: &Client, options: &Ps, output: Output) -> anyhow::Result<()> {
    let Some(interval) = options.watch else {
        let shown = look(client, options, output).await?;
        return output.result(&shown.instances, |_| shown.text());
    };
    loop {
        let shown = look(client, options, output).await?;
        match output.is_json() {
            true => output.line(&shown.instances, |_| String::new())?,
            false => screen(output, &shown.text())?,
        }
        tokio::select! {
            () = tokio::time::sleep(interval.to_std().max(Duration::from_millis(100))) => {}
            Ok(()) = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// What one look at the instances shows.
struct Snapshot {
    instances: Vec<InstanceInfo>,
    functions: Vec<FunctionInfo>,
    host: Option<HostInfo>,
}

/// A function, and the versions of it that are meant; none for all of them.
async fn meant(client: &Client, wanted: &str) -> anyhow::Result<(FunctionName, Option<Vec<String>>)> {
    let (name, qualifier) = split_name(wanted);
    let path = format!("/api/v1/functions/{}", segment(name));
    let info: FunctionInfo = client.get(&path).await?;
    let labels = match qualifier.map(str::parse::<QualifierName>).transpose() {
        Ok(None) => None,
        Ok(Some(QualifierName::Latest)) => Some(vec![info.label]),
        Ok(Some(QualifierName::Alias(alias))) => {
            let alias: AliasInfo = client.get(&format!("{path}/aliases/{}", segment(alias.as_str()))).await?;
            let label = |version: String| if version == LATEST { info.label.clone() } else { version };
            Some(alias.targets.into_iter().map(|target| label(target.version)).collect())
        }
        // A revision that was published is shown by its number.
        Ok(Some(other)) => {
            let revisions: Vec<RevisionInfo> = client.get(&format!("{path}/versions")).await?;
            let is_meant = |revision: &RevisionInfo| match &other {
                QualifierName::Number(number) => revision.number == Some(*number),
                QualifierName::Ordinal(ordinal) => revision.ordinal == *ordinal,
                _ => false,
            };
            let labels: Vec<String> = revisions.into_iter().filter(is_meant).map(|revision| revision.label).collect();
            if labels.is_empty() {
                let problem = Problem::new(code::VERSION_NOT_FOUND, format!("`{name}` has no version {other}"));
                return Err(problem.hint(format!("kip version ls {name}")).into());
            }
            Some(labels)
        }
        Err(error) => return Err(Problem::new(code::COMMAND_INPUT, error.to_string()).into()),
    };
    Ok((info.name, labels))
}

async fn look(client: &Client, options: &Ps, output: Output) -> anyhow::Result<Snapshot> {
    let mut instances: Vec<InstanceInfo> = client.get("/api/v1/instances").await?;
    if let Some(wanted) = &options.function {
        let (function, labels) = meant(client, wanted).await?;
        instances.retain(|info| {
            info.function == function && labels.as_ref().is_none_or(|labels| labels.contains(&info.label))
        });
    }
    let functions: Vec<FunctionInfo> =
        if output.is_json() { Vec::new() } else { client.get("/api/v1/functions").await? };
    let host = if output.is_json() { None } else { Some(client.status().await?.host) };
    Ok(Snapshot { instances, functions, host })
}

impl Snapshot {
    fn text(&self) -> String {
        let Self { instances, functions, host } = self;
        let pools = instances.iter().any(|info| info.pool.is_some());
        let devices = host.as_ref().is_some_and(|host| !host.devices.is_empty());
        let row = |info: &InstanceInfo| {
            let mut row = vec![
                info.id.to_string(),
                info.function.to_string(),
                info.label.clone(),
                state(info),
                millis(info.for_ms),
                info.kind.clone(),
                info.in_flight.to_string(),
                info.served.to_string(),
                info.process.map_or_else(|| "-".to_owned(), |process| process.to_string()),
            ];
            if pools {
                row.push(info.pool.clone().unwrap_or_else(|| "-".to_owned()));
            }
            if devices {
                row.push(if info.devices.is_empty() { "-".to_owned() } else { info.devices.join(",") });
            }
            row
        };
        let rows: Vec<Vec<String>> = instances.iter().map(row).collect();
        let mut header =
            vec!["INSTANCE", "FUNCTION", "VERSION", "STATE", "#FOR", "KIND", "#IN FLIGHT", "#SERVED", "#PROCESS"];
        header.extend(pools.then_some("POOL"));
        header.extend(devices.then_some("DEVICES"));
        let holders = host.as_ref().map(|host| holders(host, instances)).unwrap_or_default();
        format!("{}{}{holders}", table(&header, &rows), wanted(functions))
    }
}

/// What scaling policies want of functions, and why.
fn wanted(functions: &[FunctionInfo]) -> String {
    let mut text = String::new();
    for info in functions {
        for scaling in &info.scaling {
            let (name, target, current) = (&info.name, scaling.target, scaling.current);
            let (whom, mode, why) = (&scaling.whom, &scaling.mode, &scaling.why);
            text.push_str(&format!("{name} {whom} by {mode}: {target} wanted, {current} there; {why}\n"));
        }
    }
    text
}

/// The state, and what is amiss with it.
fn state(info: &InstanceInfo) -> String {
    let state = &info.state;
    if info.lost {
        return format!("{state} (unreachable)");
    }
    match (&info.waits_for, info.unready, &info.replace) {
        (Some(lack), _, _) => format!("{state} (waits for {lack})"),
        (None, true, _) => format!("{state} (probe fails)"),
        (None, false, Some(_)) => format!("{state} (is replaced)"),
        (None, false, None) => state.clone(),
    }
}

/// Who holds what of the host, where there is something to share.
fn holders(host: &HostInfo, instances: &[InstanceInfo]) -> String {
    let mut text = String::new();
    for device in &host.devices {
        let holders: Vec<String> = instances
            .iter()
            .filter(|instance| instance.devices.contains(&device.name) && instance.state != "requested")
            .map(|instance| format!("{} {}", instance.function, instance.id))
            .collect();
        let by = if holders.is_empty() { String::new() } else { format!(": {}", holders.join(", ")) };
        let held = people::size_of(device.granted, device.memory);
        text.push_str(&format!("device {}: {held} reserved{by}\n", device.name));
    }
    if !host.devices.is_empty() || host.reserved_memory > 0 {
        let reserved = people::size_of(host.reserved_memory, host.memory);
        text.push_str(&format!("memory: {reserved} reserved\n"));
    }
    if host.waiting_for_room > 0 {
        text.push_str(&format!("{} instances wait for room\n", host.waiting_for_room));
    }
    if host.thrash_per_mille > 0 {
        let (percent, tenth) = (host.thrash_per_mille / 10, host.thrash_per_mille % 10);
        text.push_str(&format!("changing hands took {percent}.{tenth} % of the last ten minutes\n"));
    }
    text
}
