//! What the task store costs, beside a log that holds the same bytes and is synced in the same way: one thread takes all
//! that waits, appends it, syncs, answers. The log keeps nothing that could be looked up, so it is the ceiling.
//!
//! `tasks_bench FOLDER SECONDS`, run by `cargo xtask bench tasks`. The folder decides which disk is measured.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement that is read by a person")]

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use kip_store::Care;
use kip_store::tasks::{NewTask, Output, Progressed, SqliteTasks, Step, TaskNumber, TaskState, TaskStore, Tuning};
use tokio::sync::oneshot;

/// Bytes of a payload.
const PAYLOAD: usize = 1024;
/// Bytes of a result.
const RESULT: usize = 64;
/// The recycled log starts over at this size.
const SEGMENT: u64 = 256 << 20;

/// What a caller does over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Accept,
    Cycle,
}

#[async_trait::async_trait]
trait Subject: Send + Sync {
    async fn round(&self, round: Round);
}

struct Store(SqliteTasks);

fn task() -> NewTask {
    let word: Arc<str> = Arc::from("f");
    NewTask {
        function: word.clone(),
        qualifier: word.clone(),
        tenant: word,
        created: kip_host::clock::wall_millis(),
        envelope: r#"{"method":"POST","path":"/invoke","retries":3}"#.to_owned(),
        payload: noise(PAYLOAD),
        ..NewTask::default()
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Bytes {
    let mut state = u64::try_from(kip_host::random::unique() & u128::from(u64::MAX)).unwrap() | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn progressed(state: TaskState, epoch: u32) -> Progressed {
    Progressed {
        state,
        epoch,
        boot: 1,
        lease_until: 15_000,
        run_at: 0,
        expires_at: i64::MAX,
        started: 1,
        ended: 0,
        errors: 0,
        crashes: 0,
        refusals: 0,
        instance: Some(Arc::from("i-1-4-2")),
        status: 200,
        error_kind: None,
        error: None,
    }
}

fn step(number: TaskNumber, from: (TaskState, u32), to: Progressed) -> Step {
    let events = "1764000000000 Running i-1-4-2\n".to_owned();
    Step { number, from: from.0, epoch: from.1, to, events, output: None, deliveries: Vec::new() }
}

#[async_trait::async_trait]
impl Subject for Store {
    async fn round(&self, round: Round) {
        let number = self.0.accept(task()).await.unwrap().number();
        if round == Round::Accept {
            return;
        }
        let claim = step(number, (TaskState::Enqueued, 0), progressed(TaskState::Running, 1));
        assert!(self.0.advance(claim).await.unwrap().applied);
        let mut end = step(number, (TaskState::Running, 1), progressed(TaskState::Succeeded, 1));
        end.output = Some(Output { head: "200".to_owned(), body: noise(RESULT) });
        assert!(self.0.advance(end).await.unwrap().applied);
    }
}

struct Log(SyncSender<(Bytes, oneshot::Sender<()>)>);

impl Log {
    fn start(path: &Path, recycled: bool) -> Self {
        let (jobs, queue) = sync_channel::<(Bytes, oneshot::Sender<()>)>(16_384);
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path).unwrap();
        if recycled {
            let zeros = vec![0u8; 1 << 20];
            (0..SEGMENT >> 20).for_each(|_| file.write_all(&zeros).unwrap());
            file.sync_all().unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
        }
        kip_host::tasks::thread("log", move || append(&mut file, &queue, recycled)).unwrap();
        Self(jobs)
    }

    async fn add(&self, bytes: Bytes) {
        let (answer, answered) = oneshot::channel();
        assert!(self.0.try_send((bytes, answer)).is_ok());
        answered.await.unwrap();
    }
}

fn append(file: &mut File, queue: &Receiver<(Bytes, oneshot::Sender<()>)>, recycled: bool) {
    let mut at = 0;
    while let Ok((bytes, answer)) = queue.recv() {
        let mut buffer = bytes.to_vec();
        let mut answers = vec![answer];
        while answers.len() < 4_096 && buffer.len() < 8 << 20 {
            let Ok((bytes, answer)) = queue.try_recv() else { break };
            buffer.extend_from_slice(&bytes);
            answers.push(answer);
        }
        if recycled && at + buffer.len() as u64 > SEGMENT {
            file.seek(SeekFrom::Start(0)).unwrap();
            at = 0;
        }
        at += buffer.len() as u64;
        file.write_all(&buffer).unwrap();
        file.sync_data().unwrap();
        answers.into_iter().for_each(|answer| answer.send(()).unwrap_or_default());
    }
}

#[async_trait::async_trait]
impl Subject for Log {
    async fn round(&self, round: Round) {
        // Headers of 64 bytes in place of a row's columns.
        self.add(noise(PAYLOAD + 64)).await;
        if round == Round::Cycle {
            self.add(noise(64)).await;
            self.add(noise(RESULT + 64)).await;
        }
    }
}

/// Rounds a second and the times that they took.
async fn measure(subject: Arc<dyn Subject>, round: Round, callers: usize, seconds: u64) -> (u64, u64, u64) {
    let over = Arc::new(AtomicBool::new(false));
    let counts = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (subject, over, counts) = (subject.clone(), over.clone(), counts.clone());
            kip_host::tasks::spawn("caller", async move {
                let mut times = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let before = kip_host::clock::monotonic_micros();
                    subject.round(round).await;
                    if counts.load(Ordering::Relaxed) {
                        times.push(kip_host::clock::monotonic_micros() - before);
                    }
                }
                times
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    counts.store(true, Ordering::Relaxed);
    let begun = kip_host::clock::monotonic_micros();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    counts.store(false, Ordering::Relaxed);
    let took = kip_host::clock::monotonic_micros() - begun;
    over.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times.sort_unstable();
    let part = |percent: usize| times.get((times.len().max(1) - 1) * percent / 100).copied().unwrap_or_default();
    (times.len() as u64 * 1_000_000 / took, part(50), part(99))
}

/// Rows that wait while others are measured.
async fn fill(store: &SqliteTasks, rows: usize) {
    for _ in 0..rows / 1_000 {
        let batch = (0..1_000).map(|_| store.accept(task()));
        for accepted in futures_util::future::join_all(batch).await {
            accepted.unwrap();
        }
    }
}

fn millis(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("FOLDER");
    let seconds: u64 = arguments.next().map_or(2, |text| text.parse().expect("SECONDS"));
    let rows: usize = arguments.next().map_or(0, |text| text.parse().expect("ROWS"));
    let folder = tempfile::tempdir_in(folder).unwrap();
    let file = |name: &str| folder.path().join(name);
    let open = |name: &str| SqliteTasks::open_with(&file(name), Care::default(), Tuning::default()).unwrap();
    println!("sync of a 4 KiB write: {} ms (median)\n", millis(open("probe.db").sync_times().probe_us));
    println!("| store | what | callers | rounds/s | p50 ms | p99 ms | of the best log |");
    println!("|---|---|---|---|---|---|---|");
    for (round, what) in [(Round::Accept, "accept"), (Round::Cycle, "accept, claim, complete")] {
        for callers in [1, 64, 1_024] {
            let mut best = 0;
            for (name, index) in [("log, growing", 0), ("log, recycled", 1), ("store", 2)] {
                let id = format!("{what}-{callers}-{index}").replace([' ', ','], "");
                let subject: Arc<dyn Subject> = match index {
                    0 | 1 => Arc::new(Log::start(&file(&id), index == 1)),
                    _ => Arc::new(Store(open(&id))),
                };
                let (rate, p50, p99) = measure(subject, round, callers, seconds).await;
                let share = if index < 2 { "-".to_owned() } else { format!("{} %", rate * 100 / u64::max(best, 1)) };
                best = best.max(rate);
                println!("| {name} | {what} | {callers} | {rate} | {} | {} | {share} |", millis(p50), millis(p99));
            }
        }
    }
    if rows == 0 {
        return;
    }
    let full = open("full.db");
    fill(&full, rows).await;
    for (name, store) in [("empty", open("empty.db")), ("full", full.clone())] {
        for (round, what) in [(Round::Accept, "accept"), (Round::Cycle, "accept, claim, complete")] {
            let (rate, p50, p99) = measure(Arc::new(Store(store.clone())), round, 64, seconds).await;
            let rows = if name == "full" { rows } else { 0 };
            println!("| store, {rows} rows wait | {what} | 64 | {rate} | {} | {} | - |", millis(p50), millis(p99));
        }
    }
    drop(full);
    let before = kip_host::clock::monotonic_micros();
    let again = open("full.db");
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
