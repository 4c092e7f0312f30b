//! The plan: rows in their order, each a process of its own with its share of the time; raw lines and a table of them.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use kip_host::{clock, environment};
use serde_json::{Value, json};

use crate::table;
use crate::world::{Settings, helper};

/// Rows and their most seconds. Those that could harm the driver come last.
const ROWS: [(&str, u64); 15] = [
    ("start", 60),
    ("ceilings", 60),
    ("pinning", 60),
    ("freeze", 240),
    ("helpers", 60),
    ("prefault", 60),
    ("hook", 90),
    ("weight", 120),
    ("platform", 5),
    ("cpu", 60),
    ("order", 60),
    ("managed", 60),
    ("killed", 60),
    ("retire", 60),
    ("full", 90),
];

pub(crate) fn run(settings: &Settings) -> Result<()> {
    fs::create_dir_all(&settings.out).with_context(|| format!("{} cannot be made", settings.out.display()))?;
    let mut raw = File::create(settings.out.join("raw.jsonl"))?;
    let head = head(settings)?;
    writeln!(raw, "{head}")?;
    let begun = clock::boot_millis();
    let mut lines: Vec<Value> = Vec::new();
    for (row, most) in ROWS {
        let left = settings.budget.saturating_sub((clock::boot_millis() - begun) / 1_000);
        let output = if left < 5 {
            json!({"row": row, "case": "-", "skipped": "no time left"}).to_string()
        } else {
            eprintln!("{row}: at most {} s", most.min(left));
            one(row, most.min(left), settings)?
        };
        for line in output.lines().filter(|line| line.starts_with('{')) {
            writeln!(raw, "{line}")?;
            lines.extend(serde_json::from_str::<Value>(line));
        }
    }
    let table = table::render(&head, &lines);
    fs::write(settings.out.join("table.md"), &table)?;
    print!("{table}");
    Ok(())
}

/// Runs a row and answers what it printed. One that is not done long after its time is ended; what it had printed counts.
fn one(row: &str, budget: u64, settings: &Settings) -> Result<String> {
    let path = settings.out.join(format!("row-{row}.jsonl"));
    let mut child = Command::new(std::env::current_exe()?)
        .args(["row", row])
        .args(settings.arguments(budget))
        .stdin(Stdio::null())
        .stdout(File::create(&path)?)
        .spawn()?;
    let end = clock::boot_millis() + (budget + 30) * 1_000;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if clock::boot_millis() > end {
            // Its probes end by themselves when their standard input ends, and so does its helper.
            child.kill()?;
            break None;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let mut output = fs::read_to_string(&path)?;
    if !status.is_some_and(|status| status.success()) {
        let how = status.map_or_else(|| "it was not done in time".to_owned(), |status| status.to_string());
        output.push_str(&format!("\n{}\n", json!({"row": row, "case": "-", "broke_off": how})));
    }
    Ok(output)
}

/// What every figure must be read with.
fn head(settings: &Settings) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let desk = kip_freezer::DeviceLocks::single(helper()?).await?;
        anyhow::Ok(desk.report().await?)
    })?;
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let devices: Vec<&str> = report.devices.iter().map(|device| device.name.as_str()).collect();
    Ok(json!({
        "row": "head",
        "is_gpu": !settings.dry && environment::read(environment::CUDA_LIBRARY).is_none(),
        "driver": report.driver,
        "cuda": report.cuda,
        "devices": devices,
        "kernel": file("/proc/sys/kernel/osrelease"),
        "load": file("/proc/loadavg"),
        "cannot_freeze": report.cannot_freeze(),
    }))
}
