//! Measurements of what the design promises, on a server of their own. Each prints the machine and its load with the
//! figures; nothing here fails because of a figure.

mod alias;
mod containers;
mod density;
mod fc;
mod gateway;
mod gpu;
mod isolation;
mod replay;
mod restart;
mod server;
mod sleep;
mod stores;
mod tasks;
pub(crate) mod upstream;

use anyhow::{Result, bail};

use crate::command::{command, read, show};

/// `cargo xtask soak replay FILE …`.
pub(crate) fn replay(arguments: &[&str]) -> Result<()> {
    // The fail points of the test build let a wake take as long as is asked for.
    show(command(
        "cargo",
        &["build", "--release", "--quiet", "-p", "kip", "--bins", "--features", "kip-host/failpoints"],
    ))?;
    machine()?;
    replay::run(arguments)
}

pub(crate) fn task(arguments: &[&str]) -> Result<()> {
    if let ["gpu", rest @ ..] = arguments {
        return gpu::run(rest);
    }
    if let ["stores", rest @ ..] = arguments {
        machine()?;
        return stores::run(rest);
    }
    if let ["tasks", rest @ ..] = arguments {
        machine()?;
        return tasks::run(rest);
    }
    if let ["gateway", rest @ ..] = arguments {
        let rest = match rest {
            ["--program", program, rest @ ..] => server::use_program(program).map(|()| rest)?,
            // As it is handed out: the others are.
            rest => server::build_by("dist").map(|()| rest)?,
        };
        machine()?;
        return gateway::run(rest);
    }
    if let ["containers", rest @ ..] = arguments {
        show(command("cargo", &["build", "--release", "--quiet", "-p", "kip", "--bins", "--example", "subject"]))?;
        machine()?;
        return containers::run(rest);
    }
    let arguments = match arguments {
        ["--program", program, rest @ ..] => server::use_program(program).map(|()| rest)?,
        all => {
            show(command("cargo", &["build", "--release", "--quiet", "-p", "kip", "--bins", "--example", "subject"]))?;
            all
        }
    };
    let number = |text: Option<&&str>, default: usize| text.map_or(Ok(default), |text| text.parse());
    machine()?;
    match arguments {
        ["restart", rest @ ..] => restart::run(number(rest.first(), 100)?),
        ["sleep", rest @ ..] => sleep::run(number(rest.first(), 200)?),
        ["isolation", rest @ ..] => isolation::run(number(rest.first(), 100)?),
        ["alias", rest @ ..] => alias::run(number(rest.first(), 10_000)?),
        ["fc", rest @ ..] => fc::run(number(rest.first(), 10_000)?, number(rest.get(1), 10)?),
        ["density", rest @ ..] => density::run(number(rest.first(), 10_000)?, number(rest.get(1), 1_000)?),
        _ => bail!(
            "bench restart [INSTANCES] | bench sleep [ROUNDS] | bench isolation [ROUNDS] | bench density [FUNCTIONS] [PAUSED] | bench alias [FUNCTIONS] | bench fc [FUNCTIONS] [ROUNDS] | bench gateway … | bench gpu … | bench containers [ROUNDS] | bench tasks … | bench stores …"
        ),
    }
}

fn machine() -> Result<()> {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = file("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
    let model = file("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let kernel = read(command("uname", &["-r"]))?;
    println!("machine: {processors} cores{}, Linux {}", model.replace('\t', " "), kernel.trim());
    println!("load before: {}", file("/proc/loadavg").trim());
    Ok(())
}

/// A part of the sorted figures: 50 for the median.
fn percentile(figures: &mut [u64], percent: usize) -> u64 {
    figures.sort_unstable();
    figures.get((figures.len().saturating_sub(1)) * percent / 100).copied().unwrap_or(0)
}

/// Microseconds as milliseconds.
fn millis(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}
