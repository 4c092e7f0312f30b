//! A million seeds, in pieces: what is done is written down after each piece, and the next call goes on from there.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::command::{self, root};
use crate::sim;

/// Seeds of a soak unless said otherwise.
const SEEDS: u64 = 1_000_000;
/// Seeds between two notes.
const PIECE: u64 = 2_000;
/// What a run of a seed is made of: other code makes another soak.
const CODE: [&str; 4] = ["crates/fleet/src", "crates/queue/src", "crates/sim/src", "crates/spec/src"];

/// `cargo xtask soak seeds [--seeds N] [--from S] [--cores N] [--anew]`.
pub(crate) fn seeds(arguments: &[&str]) -> Result<()> {
    let (mut seeds, mut from, mut cores, mut anew) = (SEEDS, None, None, false);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value =
            || -> Result<u64> { Ok(words.next().with_context(|| format!("{word} needs a value"))?.parse()?) };
        match *word {
            "--seeds" => seeds = value()?,
            "--from" => from = Some(value()?),
            "--cores" => cores = Some(usize::try_from(value()?)?),
            "--anew" => anew = true,
            other => bail!("`cargo xtask soak seeds` has no option {other}"),
        }
    }
    let (code, commit) = (code()?, commit()?);
    let before = read().filter(|state| !anew && state["code"] == code.as_str() && state["next"] != state["end"]);
    let before = before.filter(|state| from.is_none_or(|from| state["from"] == from));
    let mut state = before.unwrap_or_else(|| {
        let from = from.unwrap_or_else(sim::dice);
        json!({ "code": code, "commit": commit, "from": from, "next": from, "end": from + seeds, "seconds": 0, "failed": [] })
    });
    let number = |state: &Value, key: &str| state[key].as_u64().unwrap_or(0);
    let (from, end) = (number(&state, "from"), number(&state, "end"));
    println!("seeds {from} to {}: going on at {}", end - 1, number(&state, "next"));
    while number(&state, "next") < end {
        let next = number(&state, "next");
        let piece = next..(next + PIECE).min(end);
        let after = piece.end;
        let (failed, millis) = sim::piece(piece, cores);
        for (seed, how) in failed {
            println!("seed {seed}: {how}");
            if let Some(all) = state["failed"].as_array_mut() {
                all.push(json!({ "seed": seed, "how": how }));
            }
        }
        state["next"] = json!(after);
        state["seconds"] = json!(number(&state, "seconds") + millis / 1_000);
        write(&state)?;
    }
    let failed = state["failed"].as_array().map_or(0, Vec::len);
    let date = command::read(command::command("date", &["-u", "+%Y-%m-%d"]))?.trim().to_owned();
    let commit = state["commit"].as_str().unwrap_or_default().to_owned();
    let seconds = number(&state, "seconds");
    println!("{date}, commit {commit}: seeds {from} to {}: {failed} failed, in {seconds} s", end - 1);
    state["date"] = json!(date);
    write(&state)?;
    if failed > 0 {
        bail!("{failed} seeds failed; `cargo xtask sim --from SEED --seeds 1` shows the smallest run of one");
    }
    Ok(())
}

/// `cargo xtask soak days [DAYS]`.
pub(crate) fn days(arguments: &[&str]) -> Result<()> {
    let days = match arguments {
        [] => 100,
        [days] => days.parse().with_context(|| format!("{days} is no number of days"))?,
        _ => bail!("cargo xtask soak days [DAYS]"),
    };
    let begun = kip_host::clock::monotonic_micros();
    let played = kip_sim::shared_card(days, sim::dice());
    if let Some(failure) = played.failure {
        bail!("{failure:?}");
    }
    let [middle, high] = [500, 990].map(|per_mille| played.quantile(per_mille));
    let most = played.waits.last().copied().unwrap_or(0);
    println!(
        "{days} days of ten models on a device for two: {} requests, {} answered; a request waits {middle} ms (p50), {high} ms (p99), {most} ms at most; {} steps in {} ms",
        played.requests,
        played.answered,
        played.steps,
        (kip_host::clock::monotonic_micros() - begun) / 1_000
    );
    anyhow::ensure!(played.answered == played.requests, "requests were lost");
    Ok(())
}

fn file() -> PathBuf {
    root().join("target/soak-seeds.json")
}

fn read() -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(file()).ok()?).ok()
}

/// A whole file or the one before: a soak may be interrupted at any moment.
fn write(state: &Value) -> Result<()> {
    let (file, new) = (file(), file().with_extension("new"));
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&new, format!("{state:#}\n"))?;
    Ok(std::fs::rename(new, file)?)
}

fn git(arguments: &[&str]) -> Result<String> {
    Ok(command::read(command::command("git", arguments))?.trim().to_owned())
}

/// The commit, and whether the rooms that a run is made of differ from it.
fn commit() -> Result<String> {
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(CODE);
    let changes = if git(&status)?.is_empty() { "" } else { " with changes" };
    Ok(git(&["rev-parse", "--short", "HEAD"])? + changes)
}

/// The trees of the rooms that a run is made of, as they are committed.
fn code() -> Result<String> {
    let trees: Vec<String> = CODE.iter().map(|room| format!("HEAD:{room}")).collect();
    let mut words = vec!["rev-parse"];
    words.extend(trees.iter().map(String::as_str));
    Ok(git(&words)?.split_whitespace().map(|tree| tree.chars().take(12).collect::<String>()).collect())
}
