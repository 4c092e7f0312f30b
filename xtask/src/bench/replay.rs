//! The simulator against the real thing: a trace one to one through the server and its gateway, with starts and wakes that take as long as
//! is asked for, beside `kip simulate` of the same trace, policy and times.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kip_host::clock::monotonic_micros;
use kip_manifest::{Deployer, Source};
use kip_sim::replay::trace::{ReadOptions, Reader, Service};
use kip_sim::replay::{Costs, Delays, InstanceTimes, OperationTime, Outcome, Policy, Setup, TraceRequest, replay};

use super::server::{Server, exchange};

/// A trace of a language model: a prompt of 8,000 tokens takes a second, and each token of the answer 20 ms.
const FORMULA: &str = "0.05 + context_tokens/8000 + 0.02*generated_tokens";
/// From a deployment to the first request.
const SETTLE: Duration = Duration::from_secs(2);
/// What differs by less is the same: of device time, in a thousand, and of delays, milliseconds and in a thousand.
const TIME_TOLERANCE: u64 = 20;
const DELAY_TOLERANCE: (u64, u64) = (20, 50);

struct Plan {
    seconds: u64,
    cold: u64,
    wake: u64,
    formula: String,
    burst: bool,
}

pub(super) fn run(arguments: &[&str]) -> Result<()> {
    let mut plan = Plan { seconds: 600, cold: 30_000, wake: 3_000, formula: FORMULA.to_owned(), burst: false };
    let [file, rest @ ..] = arguments else {
        bail!("cargo xtask soak replay FILE [--seconds S] [--cold MS] [--wake MS] [--service FORMULA] [--burst]")
    };
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        if *word == "--burst" {
            plan.burst = true;
            continue;
        }
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match *word {
            "--seconds" => plan.seconds = value.parse()?,
            "--cold" => plan.cold = value.parse()?,
            "--wake" => plan.wake = value.parse()?,
            "--service" => plan.formula = (*value).to_owned(),
            other => bail!("`cargo xtask soak replay` has no option {other}"),
        }
    }
    let requests = requests(file, &plan)?;
    println!(
        "{} requests of {} s; a start takes {} ms, a wake {} ms{}",
        requests.len(),
        plan.seconds,
        plan.cold,
        plan.wake,
        if plan.burst { "; all of them come in the first second" } else { "" }
    );
    let simulated = simulated(&requests, &plan)?;
    let real = real(&requests, &plan)?;
    compare(&simulated, &real)
}

/// The beginning of the trace.
fn requests(file: &str, plan: &Plan) -> Result<Vec<TraceRequest>> {
    let mut unpack = Command::new("gzip");
    unpack.args(["--decompress", "--force", "--stdout", file]).stdout(Stdio::piped());
    let mut child = unpack.spawn().context("gzip cannot be started")?;
    let input = BufReader::new(child.stdout.take().context("it has a standard output")?);
    let service = Service::formula(&plan.formula).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let options = ReadOptions { service: Some(service), ..ReadOptions::default() };
    let reader = Reader::new(input, &options).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let end = plan.seconds * 1_000;
    let mut requests = Vec::new();
    for request in reader {
        let request = request.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        if request.at >= end {
            break;
        }
        // A burst from nothing.
        let at = if plan.burst { request.at * 1_000 / end } else { request.at };
        requests.push(TraceRequest { at, ..request });
    }
    let _ = child.kill();
    let _ = child.wait();
    anyhow::ensure!(!requests.is_empty(), "no request comes within {} s", plan.seconds);
    Ok(requests)
}

/// The function, as both have it.
fn declaration(plan: &Plan) -> Result<String> {
    let program = std::env::current_exe()?;
    let cold = plan.cold;
    Ok(format!(
        "  f:\n    run: [{}, upstream]\n    env: {{UPSTREAM_READY_AFTER_MS: \"{cold}\"}}\n    scaling: {{mode: auto}}\n    instances: {{max: 300, concurrency: 1}}\n    queue: {{depth: 100000}}\n    timeouts: {{startup: 5m, queue: 1h, first_byte: 1h, total: 2h}}\n    code: live\n",
        program.display()
    ))
}

fn simulated(requests: &[TraceRequest], plan: &Plan) -> Result<Outcome> {
    let text = format!("api: kip/v1\nfunctions:\n{}", declaration(plan)?);
    let (variables, env_files) = (BTreeMap::new(), BTreeMap::new());
    let deployer = Deployer { variables: &variables, env_files: &env_files };
    let source = Source { file: "kip.yaml", text: &text, directory: Path::new("/"), deployer };
    let manifest = kip_manifest::read(&source).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let policy = Policy::from(manifest.functions.first().context("a function is declared")?);
    let times = InstanceTimes { cold: OperationTime::Constant(plan.cold), wake: OperationTime::Constant(plan.wake) };
    let setup = Setup { policy: Arc::new(policy), times, from: 0, devices: None, seed: 1, explain: None };
    Ok(replay(requests.iter().copied(), setup))
}

/// What the server made of the trace.
struct ServerOutcome {
    delays: Delays,
    active: u64,
    asleep: u64,
    starts: u64,
    failed: u64,
}

fn real(requests: &[TraceRequest], plan: &Plan) -> Result<ServerOutcome> {
    let server = Server::start_at(&format!("delay {}: resume", plan.wake))?;
    server.deploy(&declaration(plan)?)?;
    std::thread::sleep(SETTLE);
    // The delay of each request; nothing for one that failed.
    let (ended, ends) = mpsc::sync_channel::<Option<u64>>(requests.len());
    let (gateway, begin) = (server.gateway, monotonic_micros());
    std::thread::scope(|scope| {
        for request in requests {
            let due = begin + request.at * 1_000;
            std::thread::sleep(Duration::from_micros(due.saturating_sub(monotonic_micros())));
            let ended = ended.clone();
            // Small stacks: hundreds wait at once.
            let work = std::thread::Builder::new().stack_size(256 << 10);
            let spawned = work.spawn_scoped(scope, move || {
                let target = format!("/f/f/delay/{}", request.service * 1_000);
                let answer = exchange(gateway, "GET", &target, "", b"");
                let took = (monotonic_micros() - due) / 1_000;
                let delay = matches!(answer, Ok((200, _))).then(|| took.saturating_sub(request.service));
                let _ = ended.send(delay);
            });
            if let Err(error) = spawned {
                eprintln!("a request cannot be sent: {error}");
            }
        }
    });
    let usage = server.ask("/api/v1/functions/f/usage")?;
    let mut times: BTreeMap<String, u64> = BTreeMap::new();
    for version in usage["versions"].as_array().into_iter().flatten() {
        for states in version["times"].as_object().into_iter().flat_map(|kinds| kinds.values()) {
            for (state, millis) in states.as_object().into_iter().flatten() {
                *times.entry(state.clone()).or_default() += millis.as_u64().unwrap_or(0);
            }
        }
    }
    reasons(&server)?;
    let sum = |states: &[&str]| states.iter().filter_map(|state| times.get(*state)).sum();
    let starts = usage["versions"].as_array().into_iter().flatten().filter_map(|version| version["instances"].as_u64());
    drop(ended);
    let (mut delays, mut failed) = (Delays::default(), 0);
    for end in ends {
        match end {
            Some(delay) => delays.add(delay),
            None => failed += 1,
        }
    }
    Ok(ServerOutcome {
        delays,
        active: sum(&["starting", "initializing", "ready", "busy", "waking", "draining", "stopping"]),
        asleep: sum(&["pausing", "paused", "parking", "parked", "spilling", "spilled"]),
        starts: starts.sum(),
        failed,
    })
}

/// How often each step of an instance was made for which reason, numbers left out: where a difference comes from.
fn reasons(server: &Server) -> Result<()> {
    let decisions = server.ask("/api/v1/functions/f/decisions?limit=100000")?;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for decision in decisions.as_array().into_iter().flatten() {
        let text = |key: &str| decision[key].as_str().unwrap_or_default();
        let why: String = text("why").chars().filter(|letter| !letter.is_ascii_digit()).collect();
        *counts.entry(format!("{} > {}: {why}", text("from"), text("to"))).or_default() += 1;
    }
    let mut counts: Vec<(u32, String)> = counts.into_iter().map(|(what, count)| (count, what)).collect();
    counts.sort_by(|one, other| other.cmp(one));
    println!();
    counts.iter().take(15).for_each(|(count, what)| println!("{count:>6}  {what}"));
    Ok(())
}

fn compare(simulated: &Outcome, real: &ServerOutcome) -> Result<()> {
    let costs = Costs::of(simulated);
    let within = |one: u64, other: u64, least: u64, per_mille: u64| {
        one.abs_diff(other) <= least.max(one.max(other) * per_mille / 1_000)
    };
    println!("\n| figure | simulated | server | within the tolerance |\n|---|---|---|---|");
    let mut good = real.failed == 0;
    let mut row = |what: &str, simulated: u64, real: u64, same: Option<bool>| {
        good &= same != Some(false);
        let said = same.map_or("-", |same| if same { "yes" } else { "**no**" });
        println!("| {what} | {simulated} | {real} | {said} |");
    };
    let time = |one: u64, other: u64| Some(within(one, other, 1_000, TIME_TOLERANCE));
    row("instances started", simulated.starts, real.starts, None);
    row("device time active, ms", costs.active, real.active, time(costs.active, real.active));
    row("device time asleep, ms", costs.asleep, real.asleep, time(costs.asleep, real.asleep));
    for (what, per_mille) in [("p50", 500), ("p90", 900), ("p99", 990)] {
        let (one, other) = (simulated.delays.quantile(per_mille), real.delays.quantile(per_mille));
        let same = within(one, other, DELAY_TOLERANCE.0, DELAY_TOLERANCE.1);
        row(&format!("added delay {what}, ms"), one, other, Some(same));
    }
    row("added delay max, ms", simulated.delays.max(), real.delays.max(), None);
    row("requests answered", simulated.delays.count(), real.delays.count(), None);
    println!("\nfailed requests: {}", real.failed);
    println!("load after: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    anyhow::ensure!(good, "the server and the simulator differ");
    Ok(())
}
