//! What the task store costs, beside a log that holds the same bytes and is synced in the same way: one thread takes all
//! that waits, appends it, syncs, answers. The log keeps nothing that could be looked up, so it is the ceiling.
//!
//! `tasks_bench FOLDER SECONDS [ROWS]`, run by `cargo xtask bench tasks`. The folder decides which disk is measured. `tasks_bench
//! fill FILE ROWS` puts copies of the newest task behind it, for the measurement of a restart.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement that is read by a person")]

mod measure;
mod subjects;

use std::path::Path;
use std::sync::Arc;

use kip_store::tasks::{NewTask, SqliteTasks, TaskFilter, TaskNumber, TaskReader as _, TaskStore};
use measure::{measure, millis};
use subjects::{CallerLoop, Log, Store, Subject, open, task};

/// Counts the claims of cycles alone.
struct Claims(Store);

#[async_trait::async_trait]
impl Subject for Claims {
    async fn round(&self, _: CallerLoop) -> Option<u64> {
        let number = self.0.accept().await;
        let before = kip_host::clock::monotonic_micros();
        self.0.claim(number).await;
        let took = kip_host::clock::monotonic_micros() - before;
        self.0.complete(number).await;
        Some(took)
    }
}

/// Rows that wait.
async fn fill(store: &SqliteTasks, rows: usize, task: impl Fn() -> NewTask) {
    for _ in 0..rows / 1_000 {
        let batch = (0..1_000).map(|_| store.accept(task()));
        for accepted in futures_util::future::join_all(batch).await {
            accepted.unwrap();
        }
    }
}

/// Milliseconds of a day.
const DAY: i64 = 24 * 3_600_000;

/// Copies of the newest task, which may run after this time, milliseconds.
async fn copies(store: &SqliteTasks, rows: usize, delay: i64) {
    let newest = store.list(TaskFilter { limit: 1, ..TaskFilter::default() }).await.unwrap();
    let newest = newest.first().expect("there is no task to copy");
    let payload = store.payload(newest.number).await.unwrap().unwrap();
    let run_at = kip_host::clock::wall_millis() + delay;
    let expires_at = run_at + DAY;
    fill(store, rows, || NewTask {
        function: newest.function.clone(),
        qualifier: newest.qualifier.clone(),
        tenant: newest.tenant.clone(),
        kind: newest.kind,
        priority: newest.priority,
        created: kip_host::clock::wall_millis(),
        run_at,
        expires_at,
        envelope: newest.envelope.clone(),
        payload: payload.clone(),
        ..NewTask::default()
    })
    .await;
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &str| text.parse().expect("a number");
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", file, rows] => copies(&open(Path::new(file)), number(rows), 0).await,
        ["fill-later", file, rows] => copies(&open(Path::new(file)), number(rows), 30 * DAY).await,
        [folder, seconds] => table(folder, seconds.parse().expect("SECONDS"), 0).await,
        [folder, seconds, rows] => table(folder, seconds.parse().expect("SECONDS"), number(rows)).await,
        _ => panic!("FOLDER SECONDS [ROWS] | fill FILE ROWS | fill-later FILE ROWS"),
    }
}

async fn table(folder: &str, seconds: u64, rows: usize) {
    let folder = tempfile::tempdir_in(folder).unwrap();
    let file = |name: &str| folder.path().join(name);
    println!("sync of a 4 KiB write: {} ms (median)\n", millis(open(&file("probe.db")).sync_times().probe_us));
    println!("| store | what | callers | rounds/s | p50 ms | p99 ms | of the best log |");
    println!("|---|---|---|---|---|---|---|");
    for (round, what) in [(CallerLoop::Accept, "accept"), (CallerLoop::Cycle, "accept, claim, complete")] {
        for callers in [1, 64, 1_024] {
            let mut best = 0;
            for (name, index) in [("log, growing", 0), ("log, recycled", 1), ("store", 2)] {
                let id = format!("{what}-{callers}-{index}").replace([' ', ','], "");
                let subject: Arc<dyn Subject> = match index {
                    0 | 1 => Arc::new(Log::start(&file(&id), index == 1)),
                    _ => Arc::new(Store(open(&file(&id)))),
                };
                let figure = measure(subject, round, callers, seconds).await;
                let share = || format!("{} %", figure.rate * 100 / u64::max(best, 1));
                let share = if index < 2 { "-".to_owned() } else { share() };
                best = best.max(figure.rate);
                let (p50, p99) = (millis(figure.p50), millis(figure.p99));
                println!("| {name} | {what} | {callers} | {} | {p50} | {p99} | {share} |", figure.rate);
            }
        }
    }
    if rows > 0 {
        waiting(file("empty.db").as_path(), file("full.db").as_path(), seconds, rows).await;
    }
}

/// The same with rows that wait and without, in turns, and what it takes to read them.
async fn waiting(empty: &Path, full: &Path, seconds: u64, rows: usize) {
    let stores = [(0, open(empty)), (rows, open(full))];
    fill(&stores[1].1, rows, task).await;
    for (what, claims, round) in [
        ("accept", false, CallerLoop::Accept),
        ("claim (of cycles)", true, CallerLoop::Cycle),
        ("accept, claim, complete", false, CallerLoop::Cycle),
    ] {
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..3 {
            for ((_, store), figures) in stores.iter().zip(&mut figures) {
                let store = Store(store.clone());
                let subject: Arc<dyn Subject> = if claims { Arc::new(Claims(store)) } else { Arc::new(store) };
                figures.push(measure(subject, round, 64, seconds).await);
            }
        }
        for ((rows, _), figures) in stores.iter().zip(figures) {
            let middle = |part: fn(&measure::Figure) -> u64| {
                let mut parts: Vec<u64> = figures.iter().map(part).collect();
                parts.sort_unstable();
                parts[parts.len() / 2]
            };
            let (rate, p50, p99) = (middle(|f| f.rate), middle(|f| f.p50), middle(|f| f.p99));
            println!("| store, {rows} rows wait | {what} | 64 | {rate} | {} | {} | - |", millis(p50), millis(p99));
        }
    }
    drop(stores);
    let before = kip_host::clock::monotonic_micros();
    let again = open(full);
    let mut after = TaskNumber(0);
    let mut found = 0;
    loop {
        let page = again.open(after, 10_000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.number;
        found += page.len();
    }
    println!("\nopened again with {found} open rows read: {} ms", millis(kip_host::clock::monotonic_micros() - before));
}
