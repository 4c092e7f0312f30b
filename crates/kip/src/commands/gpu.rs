//! What the GPU helper says of this host, for `kip doctor` and `kip device`. The driver is never loaded here.

use kip_freezer::report::{Device, Holder};
use kip_freezer::{DeviceLocks, Options, Qualifications, Report};
use kip_spec::{Problem, code, people};

use super::doctor::{Finding, State};
use crate::arguments::Connection;
use crate::client::data_directory;

/// A helper for one look.
pub(super) async fn look() -> anyhow::Result<(DeviceLocks, Report)> {
    let desk = DeviceLocks::single(options()?).await.map_err(|lost| kip_freezer::Error::from(lost).problem())?;
    let report = desk.report().await.map_err(|error| error.problem())?;
    Ok((desk, report))
}

/// This program as a helper.
pub(super) fn options() -> anyhow::Result<Options> {
    let program = std::env::current_exe().map_err(|error| {
        Problem::new(code::GPU_HELPER_LOST, "the GPU helper cannot be started").cause(error.to_string())
    })?;
    Ok(Options::new(program))
}

/// Driver, devices, who holds their memory, and the rungs of the ladder.
pub(super) async fn findings(connection: &Connection) -> Vec<Finding> {
    let report = match look().await {
        Ok((_, report)) => report,
        Err(error) => {
            let hint = Some("the driver hangs or breaks down: look at dmesg for lines of NVRM".to_owned());
            return vec![Finding { what: "gpu helper", state: State::Bad, detail: format!("{error:#}"), hint }];
        }
    };
    let qualifications = data_directory(connection).map(|data| Qualifications::read(&data)).unwrap_or_default();
    let mut findings = vec![driver(&report)];
    for device in &report.devices {
        findings.push(memory(device));
        let qualified = qualifications.is_qualified(&report, device);
        for rung in report.rungs(device, qualified) {
            let (state, detail) = match &rung.missing {
                None => (State::Ok, format!("{}: {}: possible", device.label(), rung.name)),
                Some(why) => (State::Note, format!("{}: {}: not possible: {why}", device.label(), rung.name)),
            };
            findings.push(Finding { what: "rung", state, detail, hint: None });
        }
        let failed = report.driver.as_deref().and_then(|driver| qualifications.find(&device.uuid, driver));
        if let Some(why) = failed.and_then(|one| one.failed.as_ref()) {
            let detail = format!("{}: did not pass: {why}", device.label());
            findings.push(Finding { what: "qualification", state: State::Bad, detail, hint: None });
        }
    }
    findings
}

fn driver(report: &Report) -> Finding {
    let what = "gpu driver";
    if let Some(why) = &report.cuda_missing {
        let detail = format!("none; functions run on the CPU ({why})");
        return Finding { what, state: State::Note, detail, hint: None };
    }
    let cuda = report.cuda.map(|version| format!(", CUDA {}.{}", version / 1_000, version % 1_000 / 10));
    let symbols = if report.symbols_missing.is_empty() {
        "all symbols for freezing found".to_owned()
    } else {
        format!("lacks {}", report.symbols_missing.join(", "))
    };
    let detail = format!(
        "{}{}, {} device{}, {symbols}",
        report.driver.as_deref().unwrap_or("version unknown"),
        cuda.unwrap_or_default(),
        report.devices.len(),
        if report.devices.len() == 1 { "" } else { "s" },
    );
    match report.cannot_freeze() {
        Some(why) => Finding { what, state: State::Note, detail: format!("{detail}; no freezing: {why}"), hint: None },
        None => Finding { what, state: State::Ok, detail, hint: None },
    }
}

fn memory(device: &Device) -> Finding {
    let held: Vec<String> = device.holders.iter().map(held_by).collect();
    let held = if held.is_empty() { "held by nobody".to_owned() } else { format!("held by {}", held.join(", ")) };
    let partitioned = if device.partitioned { ", partitioned (MIG)" } else { "" };
    let detail = format!(
        "{} {} ({}): {} of {} free{partitioned}, {held}",
        device.label(),
        device.name,
        device.uuid,
        size(device.memory.free),
        size(device.memory.total),
    );
    Finding { what: "device", state: State::Ok, detail, hint: None }
}

/// A process and what it holds.
pub(super) fn held_by(holder: &Holder) -> String {
    let bytes = holder.bytes.map_or_else(|| "unknown".to_owned(), size);
    format!("{}: {bytes}", process(holder.pid))
}

/// A process by its name and number.
pub(super) fn process(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        "" => format!("process {pid}"),
        name => format!("{name} (process {pid})"),
    }
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    people::size(bytes)
}
