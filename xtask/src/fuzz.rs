//! The fuzz targets of `fuzz/`, built with LLVM's counters of coverage: a stable compiler can do that, but for sanitizers, which
//! these targets without unsafe code do not need.

use anyhow::{Context, Result, bail};

use crate::command::{command, root, show};

/// What `cargo fuzz` would say for a build without a sanitizer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1";

/// Where a run starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// From the seeds alone and by the same dice: what one machine finds, another finds too.
    Seeds,
    /// From what earlier runs found as well, by dice of its own.
    Corpus,
}

/// Runs for so many seconds.
pub(crate) fn run(seconds: u64, from: From) -> Result<()> {
    let fuzz = root().join("fuzz");
    let target = root().join("target/fuzz");
    // The host's own code, such as build scripts and macros, must not count: naming the target keeps the flags from it.
    let host = host()?;
    let mut build = command("cargo", &["build", "--release", "--quiet", "--locked", "--target", &host]);
    build.current_dir(&fuzz).env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &target);
    show(build)?;
    let (corpus, dice) = match from {
        From::Seeds => (target.join("from-seeds"), "-seed=1"),
        From::Corpus => (target.join("corpus"), "-seed=0"),
    };
    if from == From::Seeds && corpus.exists() {
        std::fs::remove_dir_all(&corpus)?;
    }
    std::fs::create_dir_all(&corpus)?;
    let program = target.join(host).join("release/kip-fuzz").display().to_string();
    let (corpus, seeds) = (corpus.display().to_string(), fuzz.join("seeds").display().to_string());
    let time = format!("-max_total_time={seconds}");
    let artifacts = format!("-artifact_prefix={}/", target.display());
    let words = [&time, dice, "-max_len=4096", "-timeout=10", "-print_final_stats=1", &artifacts, &corpus, &seeds];
    let output =
        command(&program, &words.map(|word| word as &str)).output().context("the fuzz program cannot be started")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("?", |rest| rest.trim_start_matches(':').trim()).to_owned()
    };
    if !output.status.success() {
        let end: Vec<&str> = text.lines().rev().take(40).collect();
        eprintln!("{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        bail!("fuzzing found something; the input is in {}: {program} FILE repeats it", target.display());
    }
    println!(
        "fuzz: {} inputs in {seconds} s, {} of them new",
        figure("stat::number_of_executed_units"),
        figure("stat::new_units_added")
    );
    Ok(())
}

fn host() -> Result<String> {
    let text = crate::command::read(command("rustc", &["-vV"]))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not say its host")?;
    Ok(host.to_owned())
}
