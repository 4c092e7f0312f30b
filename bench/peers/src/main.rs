//! Durable queues beside each other on one disk, in turns: our store, a bare log, and what of PostgreSQL, RabbitMQ and NATS is
//! installed. What they keep, and when they answer, is said with the figures.
//!
//! `kip-bench-peers FOLDER [SECONDS [ROUNDS]]`, run by `cargo xtask bench tasks peers`. Everything that is started here listens on
//! loopback, keeps its files in the folder, and is ended here.

#[path = "../../../crates/store/examples/tasks_bench/measure.rs"]
mod measure;
mod nats;
mod own;
mod postgres;
mod rabbit;
mod server;
#[path = "../../../crates/store/examples/tasks_bench/subjects.rs"]
mod subjects;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use measure::{Figure, measure, millis};
use subjects::{Round, Subject};

const ROUNDS: [(Round, &str); 2] = [(Round::Accept, "accept"), (Round::Cycle, "accept, claim, complete")];
const CALLERS: [usize; 3] = [1, 64, 1_024];

/// Something that keeps work.
#[async_trait::async_trait]
trait Peer: Send + Sync {
    fn name(&self) -> String;
    /// What is on disk when it answers, and what a round of it is.
    fn kept(&self) -> String;
    /// An empty queue for so many callers. Whatever it made before is gone then.
    async fn subject(&self, round: Round, callers: usize) -> Result<Arc<dyn Subject>>;
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut told = signal(SignalKind::terminate())?;
    tokio::select! {
        result = compare() => result,
        // Whoever is interrupted still ends what it started.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = told.recv() => bail!("told to end"),
    }
}

async fn compare() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().context("FOLDER [SECONDS [ROUNDS]]")?;
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |text| text.parse::<u64>());
    let (seconds, rounds) = (number(1, 1)?, number(2, 3)?);
    let folder = tempfile::Builder::new().prefix("peers-").tempdir_in(folder)?;
    // A server that must not be root has to find its own folder in it.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let peers = start(folder.path()).await;
    println!("sync of a 4 KiB write before: {} ms (median)", millis(sync_micros(folder.path())));
    let mut figures = vec![Vec::new(); ROUNDS.len() * CALLERS.len() * peers.len()];
    for turn in 0..usize::try_from(rounds)? {
        let mut place = 0;
        for (round, _) in ROUNDS {
            for callers in CALLERS {
                for at in 0..peers.len() {
                    // Each follows another in each turn.
                    let index = (at * if turn % 2 == 0 { 1 } else { peers.len() - 1 } + turn) % peers.len();
                    let subject = peers[index].subject(round, callers).await;
                    let subject = subject.with_context(|| peers[index].name())?;
                    let figure = measure(subject, round, callers, seconds).await;
                    eprintln!("turn {turn}: {} {round:?} {callers}: {figure:?}", peers[index].name());
                    figures[place + index].push(figure);
                }
                place += peers.len();
            }
        }
        eprintln!("turn {} of {rounds} is over, load {}", turn + 1, load());
    }
    println!("sync of a 4 KiB write after: {} ms (median)", millis(sync_micros(folder.path())));
    println!("load after: {}; {rounds} turns of {seconds} s\n", load());
    table(&peers, &figures);
    println!();
    for peer in &peers {
        println!("- {}: {}", peer.name(), peer.kept());
    }
    Ok(())
}

/// Those that are there; what is missing is said.
async fn start(folder: &Path) -> Vec<Box<dyn Peer>> {
    let mut peers: Vec<Box<dyn Peer>> = vec![Box::new(own::Logs::new(folder)), Box::new(own::Stores::new(folder))];
    match postgres::start(folder).await {
        Ok(both) => peers.extend(both),
        Err(error) => skipped("PostgreSQL", &error),
    }
    match rabbit::start(folder) {
        Ok(one) => peers.push(Box::new(one)),
        Err(error) => skipped("RabbitMQ", &error),
    }
    match nats::start(folder) {
        Ok(all) => peers.extend(all),
        Err(error) => skipped("NATS", &error),
    }
    peers
}

fn skipped(name: &str, error: &anyhow::Error) {
    println!("SKIPPED: {name} is not measured: {error:#}");
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

/// What our store finds a sync to take, when it is opened.
fn sync_micros(folder: &Path) -> u64 {
    use kip_store::tasks::TaskStore as _;
    let file = folder.join("probe.db");
    let mut times: Vec<u64> = (0..5).map(|_| subjects::open(&file).sync_times().probe_us).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Medians over the turns, with the lowest and the highest rate.
fn table(peers: &[Box<dyn Peer>], figures: &[Vec<Figure>]) {
    println!("| what | callers | queue | rounds/s | lowest to highest | p50 ms | p99 ms | of our store |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut all = figures.iter();
    for (_, what) in ROUNDS {
        for callers in CALLERS {
            let some: Vec<&Vec<Figure>> = all.by_ref().take(peers.len()).collect();
            let sorted = |figures: &[Figure], part: fn(&Figure) -> u64| {
                let mut parts: Vec<u64> = figures.iter().map(part).collect();
                parts.sort_unstable();
                parts
            };
            let middle = |figures: &[Figure], part| {
                let parts = sorted(figures, part);
                parts.get(parts.len() / 2).copied().unwrap_or_default()
            };
            let ours = middle(some[own::STORE], |figure| figure.rate).max(1);
            for (peer, figures) in peers.iter().zip(some) {
                let rates = sorted(figures, |figure| figure.rate);
                let (low, high) = (rates.first().unwrap_or(&0), rates.last().unwrap_or(&0));
                let rate = middle(figures, |figure| figure.rate);
                let (p50, p99) = (middle(figures, |figure| figure.p50), middle(figures, |figure| figure.p99));
                let (name, share) = (peer.name(), rate * 100 / ours);
                println!(
                    "| {what} | {callers} | {name} | {rate} | {low}-{high} | {} | {} | {share} % |",
                    millis(p50),
                    millis(p99)
                );
            }
        }
    }
}
