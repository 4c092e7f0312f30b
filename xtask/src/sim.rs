//! The simulator from the command line: many seeds, one seed with its trace, or a script.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use kip_sim::{Detail, Outcome, Reduction, play, run, shrink};

use crate::check::timed;
use crate::command::root;

/// What was asked for.
#[derive(Debug, Default)]
struct Options {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    trace: bool,
    script: Option<PathBuf>,
    bless: bool,
    cut: Reduction,
}

pub(crate) fn task(arguments: &[&str]) -> Result<()> {
    let options = read(arguments)?;
    if let Some(script) = &options.script {
        let text = std::fs::read_to_string(script).with_context(|| format!("{} cannot be read", script.display()))?;
        print!("{}", play(&text)?);
        return Ok(());
    }
    match options.seed {
        _ if options.bless => bless(),
        Some(seed) => one(seed, &options),
        None => many(&options),
    }
}

fn read(arguments: &[&str]) -> Result<Options> {
    let mut options = Options { seeds: 2_000, from: 1, ..Options::default() };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().copied().with_context(|| format!("{word} needs a value"));
        match *word {
            "--seeds" => options.seeds = value()?.parse()?,
            "--from" => options.from = value()?.parse()?,
            "--dice" => {
                options.from = dice();
                println!("new dice: `--from {}` repeats them", options.from);
            }
            "--seed" => options.seed = Some(value()?.parse()?),
            "--script" => options.script = Some(value()?.into()),
            "--requests" => options.cut.requests = Some(value()?.parse()?),
            "--only" => options.cut.only = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--without" => {
                let faults: Result<_, String> = value()?.split(',').map(str::parse).collect();
                options.cut.without = faults.map_err(anyhow::Error::msg)?;
            }
            "--trace" => options.trace = true,
            "--bless" => options.bless = true,
            other => bail!("`cargo xtask sim` has no option {other}"),
        }
    }
    Ok(options)
}

fn one(seed: u64, options: &Options) -> Result<()> {
    let detail = if options.trace { Detail::All } else { Detail::Hash };
    let outcome = run(seed, &options.cut, None, detail);
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!(
        "seed {seed}: {} requests, {} steps, {} virtual s, hash {:016x}",
        outcome.requests,
        outcome.steps,
        outcome.virtual_millis / 1_000,
        outcome.hash
    );
    match outcome.failure {
        Some(failure) => bail!("seed {seed} breaks `{}`: {}", failure.invariant, failure.detail),
        None => Ok(()),
    }
}

fn many(options: &Options) -> Result<()> {
    let last = options.from + options.seeds;
    let (outcomes, took) = timed(|| on_cores(options.from..last, &options.cut, None));
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    println!("seeds {} to {}: {:.1} s", options.from, last.saturating_sub(1), took.as_secs_f64());
    println!("  {} virtual hours a second", sum(|outcome| outcome.virtual_millis) / 3_600 / millis);
    println!("  {} requests a second", sum(|outcome| outcome.requests) * 1_000 / millis);
    println!("  {} steps a second", sum(|outcome| outcome.steps) * 1_000 / millis);
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    for outcome in failed.iter().take(10) {
        let Some((cut, smallest)) = shrink(outcome.seed, None) else { continue };
        let failure = smallest.failure.as_ref().map_or("", |failure| failure.detail.as_str());
        println!("seed {}: {failure}\n  {}", outcome.seed, replay(outcome.seed, &cut));
    }
    if !failed.is_empty() {
        bail!("{} seeds failed", failed.len());
    }
    Ok(())
}

/// A seed that nobody chose, with room for a million after it.
pub(crate) fn dice() -> u64 {
    u64::try_from(kip_host::random::bits() >> 88).unwrap_or(0)
}

/// Runs some seeds: which failed, and how, in how many milliseconds.
pub(crate) fn piece(seeds: Range<u64>, cores: Option<usize>) -> (Vec<(u64, String)>, u64) {
    let (outcomes, took) = timed(|| on_cores(seeds, &Reduction::default(), cores));
    let failed = outcomes.into_iter().filter_map(|outcome| {
        let failure = outcome.failure?;
        Some((outcome.seed, format!("{}: {}", failure.invariant, failure.detail.chars().take(300).collect::<String>())))
    });
    (failed.collect(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}

/// Runs every seed, on all cores unless a number is given. Of a million outcomes only sums and failures are kept.
fn on_cores(seeds: Range<u64>, cut: &Reduction, cores: Option<usize>) -> Vec<Outcome> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut kept: Vec<Outcome> = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return kept;
            }
            let outcome = run(seed, cut, None, Detail::Hash);
            match kept.iter_mut().find(|kept| kept.failure.is_none()) {
                Some(sum) if outcome.failure.is_none() => add(sum, &outcome),
                _ => kept.push(outcome),
            }
        }
    };
    let cores = cores.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let mut outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join());
        done.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

fn add(sum: &mut Outcome, outcome: &Outcome) {
    sum.virtual_millis += outcome.virtual_millis;
    sum.requests += outcome.requests;
    sum.steps += outcome.steps;
}

/// The command that shows the smallest failing run.
fn replay(seed: u64, cut: &Reduction) -> String {
    let mut line = format!("cargo xtask sim --seed {seed} --trace");
    let joined = |words: Vec<String>| words.join(",");
    if !cut.only.is_empty() {
        line += &format!(" --only {}", joined(cut.only.iter().map(ToString::to_string).collect()));
    }
    if let Some(requests) = cut.requests {
        line += &format!(" --requests {requests}");
    }
    if !cut.without.is_empty() {
        line += &format!(" --without {}", joined(cut.without.iter().map(ToString::to_string).collect()));
    }
    line
}

/// Writes the transcript of every script beside it.
fn bless() -> Result<()> {
    let folder = root().join("crates/sim/scripts");
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            write_transcript(&path)?;
        }
    }
    Ok(())
}

fn write_transcript(path: &Path) -> Result<()> {
    let transcript = play(&std::fs::read_to_string(path)?).with_context(|| path.display().to_string())?;
    std::fs::write(path.with_extension("expected"), transcript)?;
    Ok(())
}
