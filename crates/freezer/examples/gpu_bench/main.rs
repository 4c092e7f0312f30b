//! The GPU benchmark, and everything that it runs: helper, probe processes, and one process for each row of the plan, so
//! that a row that hangs or breaks takes nothing with it.
//!
//! `gpu_bench run --out DIR --budget SECONDS [--dry-run] [--torch FILE]` does all of it. With `--dry-run` sizes are tiny
//! and figures mean nothing: that is for the stand-in driver. `cargo xtask bench gpu` builds and starts it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool of development talks to the terminal")]

mod ceilings;
mod cpu;
mod group;
mod pinning;
mod plan;
mod prefault;
mod risky;
mod rows;
mod table;
mod unsafe_mapping;
mod unsafe_pageout;
mod world;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["helper"] => Ok(kip_freezer::helper::serve()?),
        ["probe", bytes] => Ok(kip_freezer::probe::serve(bytes.parse().context("bytes")?)?),
        ["target", port, file, bytes] => cpu::serve(port.parse()?, file, bytes.parse().context("bytes")?),
        ["row", name, rest @ ..] => rows::run(name, &world::Settings::parse(rest)?),
        ["run", rest @ ..] => plan::run(&world::Settings::parse(rest)?),
        _ => bail!("gpu_bench run --out DIR [--budget SECONDS] [--dry-run] [--torch FILE]"),
    }
}
