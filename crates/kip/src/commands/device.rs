//! `kip device`: the devices of this host, and their qualification for freezing.

use std::path::Path;

use kip_freezer::probe::ProbeOptions;
use kip_freezer::qualification::Qualification;
use kip_freezer::qualify::{Task, qualify};
use kip_freezer::tree::Limits;
use kip_freezer::{DeviceLocks, Qualifications, Report, report};
use kip_spec::{Problem, code};
use kip_wire::InstanceInfo;
use serde::Serialize;

use super::{device_use, gpu};
use crate::arguments::{Connection, Device, Qualify};
use crate::client::{Client, data_directory};
use crate::config::{Config, Flags};
use crate::output::{Output, table};
use crate::start;

/// A device, as it is listed.
#[derive(Debug, Serialize)]
struct Row {
    label: String,
    /// Its name in kipwake.toml.
    declared: Option<String>,
    /// Its type in kipwake.toml.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Its memory for instances, bytes, as kipwake.toml declares it.
    declared_memory: Option<u64>,
    /// How it is known: `driver`, `declaration` or `both`.
    known_by: &'static str,
    /// As the driver shows it.
    device: Option<report::Device>,
    /// yes, no or failed.
    qualified: String,
    /// The instances of the running server on it.
    instances: Vec<String>,
}

pub(crate) async fn run(connection: &Connection, command: &Device, output: Output) -> anyhow::Result<()> {
    let data = data_directory(connection)?;
    match command {
        Device::Ls { verbose: false } => list(&data, output).await,
        Device::Ls { verbose: true } => device_use::list(&Client::find(connection)?, output).await,
        Device::Yield { device, time, no_wait } => {
            device_use::yield_device(&Client::find(connection)?, device, *time, !no_wait, output).await
        }
        Device::Use { device } => device_use::regain(&Client::find(connection)?, device, output).await,
        Device::Qualify(options) => prove(&data, options, output).await,
    }
}

async fn list(data: &Path, output: Output) -> anyhow::Result<()> {
    let (_, report) = gpu::look().await?;
    let qualifications = Qualifications::read(data);
    let declared = declarations(data);
    let instances: Vec<InstanceInfo> = match start::running(data).await {
        Some(client) => client.get("/api/v1/instances").await?,
        None => Vec::new(),
    };
    let on = |name: &str| -> Vec<String> {
        let here = instances.iter().filter(|instance| instance.devices.iter().any(|device| device == name));
        here.map(|instance| format!("{} {}", instance.function, instance.id)).collect()
    };
    if report.devices.is_empty() {
        let why = report.cuda_missing.clone().or_else(|| report.nvml_missing.clone());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        output.remark(&format!("the driver shows no devices{why}"));
    }
    let mut rows: Vec<Row> = Vec::new();
    for number in 0..report.devices.len().max(declared.len()) {
        let seen = report.devices.iter().find(|device| device.index as usize == number);
        let own = declared.get(number);
        let known_by = match (seen, own) {
            (Some(_), Some(_)) => "both",
            (Some(_), None) => "driver",
            (None, Some(_)) => "declaration",
            (None, None) => continue,
        };
        rows.push(Row {
            label: seen.map_or_else(|| format!("gpu{number}"), report::Device::label),
            declared: own.map(|device| device.name.clone()),
            kind: own.and_then(|device| device.kind.clone()),
            declared_memory: own.map(|device| device.memory.0),
            known_by,
            qualified: seen.map_or_else(|| "no".to_owned(), |device| state(&qualifications, &report, device)),
            device: seen.cloned(),
            // One that is not declared has the name by which it is listed.
            instances: on(&own.map_or_else(|| format!("gpu{number}"), |device| device.name.clone())),
        });
    }
    output.result(&rows, |rows| {
        let none = || "-".to_owned();
        let cells = |row: &Row| {
            let seen = row.device.as_ref();
            let mut holders = row.instances.clone();
            holders.extend(seen.iter().flat_map(|device| &device.holders).map(gpu::held_by));
            let memory = seen.map(|device| device.memory.total).or(row.declared_memory);
            vec![
                row.label.clone(),
                row.declared.clone().unwrap_or_else(none),
                row.kind.clone().unwrap_or_else(none),
                seen.map_or_else(none, |device| device.name.clone()),
                seen.map_or_else(none, |device| gpu::size(device.memory.free)),
                memory.map_or_else(none, gpu::size),
                row.known_by.to_owned(),
                row.qualified.clone(),
                if holders.is_empty() { none() } else { holders.join(", ") },
            ]
        };
        let header =
            ["DEVICE", "DECLARED AS", "TYPE", "PRODUCT", "#FREE", "#MEMORY", "KNOWN BY", "QUALIFIED", "HELD BY"];
        table(&header, &rows.iter().map(cells).collect::<Vec<_>>())
    })
}

fn state(qualifications: &Qualifications, report: &Report, device: &report::Device) -> String {
    let found = report.driver.as_deref().and_then(|driver| qualifications.find(&device.uuid, driver));
    match found {
        None => "no".to_owned(),
        Some(Qualification { failed: None, .. }) => "yes".to_owned(),
        Some(Qualification { failed: Some(_), .. }) => "failed".to_owned(),
    }
}

/// Names in `kipwake.toml`, in the order of the devices. None where there is no such file, or not a valid one.
fn declared(data: &Path) -> Vec<String> {
    declarations(data).into_iter().map(|device| device.name).collect()
}

/// Devices of `kipwake.toml`, in their order.
fn declarations(data: &Path) -> Vec<crate::devices::Device> {
    Config::read(data, None, &Flags::default()).map(|config| config.devices).unwrap_or_default()
}

async fn prove(data: &Path, options: &Qualify, output: Output) -> anyhow::Result<()> {
    let (looked, report) = gpu::look().await?;
    drop(looked);
    let names = declared(data);
    let device = pick(&report, &names, &options.device)?;
    let name = names.get(device.index as usize).map_or_else(|| device.label(), Clone::clone);
    let _alone = alone(data, &device.uuid)?;
    let yielded = device_use::take(start::running(data).await, &name, output).await?;
    let result = tried(&device, options, output).await;
    if let Some(client) = yielded {
        device_use::give_back(&client, &name).await?;
    }
    let result = result?;
    Qualifications::read(data).keep(data, result.clone()).map_err(|error| {
        let message = format!("the result cannot be kept in {}", data.display());
        Problem::new(code::DATA_DIRECTORY_UNUSABLE, message).cause(error.to_string())
    })?;
    if let Some(why) = &result.failed {
        let message = format!("{} does not freeze and wake with driver {}", device.label(), result.driver);
        return Err(Problem::new(code::QUALIFICATION_FAILED, message)
            .cause(why.clone())
            .hint("instances are not parked by the driver on it; docs/gpu.md says what each failure means")
            .into());
    }
    output.result(&result, |result| {
        format!(
            "{} is qualified with driver {}: {} MiB frozen and woken {} times, content as before\n",
            device.label(),
            result.driver,
            result.bytes >> 20,
            result.cycles
        )
    })
}

/// The device of a name: `gpu0`, a UUID, or what kipwake.toml calls it.
fn pick(report: &Report, names: &[String], wanted: &str) -> anyhow::Result<report::Device> {
    if let Some(why) = &report.cuda_missing {
        return Err(kip_freezer::Error::NoDriver(why.clone()).problem().into());
    }
    if let Some(why) = report.cannot_freeze() {
        return Err(kip_freezer::Error::CannotFreeze(why).problem().into());
    }
    let named = |device: &&report::Device| {
        let declared = names.get(device.index as usize);
        declared.is_some_and(|name| name == wanted) || device.uuid == wanted
    };
    let by_label = |device: &&report::Device| device.label() == wanted;
    // What the operator calls a device goes before what it is called here.
    let found = report.devices.iter().find(named).or_else(|| report.devices.iter().find(by_label));
    found.cloned().ok_or_else(|| {
        let labels: Vec<String> = report.devices.iter().map(report::Device::label).collect();
        Problem::new(code::DEVICE_UNKNOWN, format!("there is no device `{wanted}`"))
            .hint(format!(
                "there {} {}; `kip device ls` shows them",
                if labels.len() == 1 { "is" } else { "are" },
                labels.join(", ")
            ))
            .into()
    })
}

/// Two qualifications of one device would disturb each other.
fn alone(data: &Path, uuid: &str) -> anyhow::Result<std::fs::File> {
    kip_host::directory::create_private(data)?;
    let path = data.join(format!("qualify-{uuid}.lock"));
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Problem::new(code::DEVICE_IN_USE, "the device is being qualified already").into()),
    }
}

/// Freezes and wakes a process of ours on the device.
async fn tried(device: &report::Device, options: &Qualify, output: Output) -> anyhow::Result<Qualification> {
    let desk = DeviceLocks::open(gpu::options()?).await.map_err(|lost| kip_freezer::Error::from(lost).problem())?;
    unused(&desk, device, options.force).await?;
    output.remark(&format!(
        "{} is frozen and woken with a process of its own. On a driver with faults that can hang the device or the host. \
         Start nothing on it until this is done; a server started meanwhile is not kept from it.",
        device.label()
    ));
    let probe = ProbeOptions {
        program: std::env::current_exe()?,
        arguments: vec!["gpu-probe".into()],
        environment: Vec::new(),
        kill_on_drop: false,
    };
    let task = Task { probe, limits: Limits::default() };
    let result = qualify(&desk, &device.uuid, &task, |line| output.remark(line)).await;
    Ok(result.map_err(|error| error.problem())?)
}

/// What the server gave up is gone by now; other programs may be there.
async fn unused(desk: &DeviceLocks, device: &report::Device, force: bool) -> anyhow::Result<()> {
    let report = desk.report().await.map_err(|error| error.problem())?;
    let holders = report.devices.iter().filter(|other| other.uuid == device.uuid).flat_map(|device| &device.holders);
    let holders: Vec<String> = holders.map(gpu::held_by).collect();
    if !force && !holders.is_empty() {
        let message = format!("other programs use {}: {}", device.label(), holders.join(", "));
        return Err(Problem::new(code::DEVICE_IN_USE, message)
            .hint("end them, or say --force if they may be lost")
            .into());
    }
    Ok(())
}
