//! What is measured: our store, and a log that holds the same bytes and is synced in the same way. `bench/peers` measures both
//! beside other systems.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use kip_store::DiskHealth;
use kip_store::tasks::{
    NewEvent, NewTask, Output, SqliteTasks, Step, TaskNumber, TaskProgress, TaskState, TaskStore, Tuning,
};
use tokio::sync::oneshot;

/// Bytes of a payload.
pub(crate) const PAYLOAD: usize = 1024;
/// Bytes of a result.
pub(crate) const RESULT: usize = 64;
/// The recycled log starts over at this size.
const SEGMENT: u64 = 256 << 20;

/// What a caller does over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallerLoop {
    Accept,
    Cycle,
}

#[async_trait::async_trait]
pub(crate) trait Subject: Send + Sync {
    /// Says how many microseconds of it count, where that is not all.
    async fn round(&self, round: CallerLoop) -> Option<u64>;
}

pub(crate) struct Store(pub(crate) SqliteTasks);

pub(crate) fn task() -> NewTask {
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
pub(crate) fn noise(length: usize) -> Bytes {
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

fn progressed(state: TaskState, epoch: u32) -> TaskProgress {
    TaskProgress {
        state,
        epoch,
        server: Arc::from("0123456789abcdef"),
        boot: 1,
        revision: 7,
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

fn step(number: TaskNumber, from: (TaskState, u32), to: TaskProgress) -> Step {
    let value = r#"{"Running":{"instance":"i-1-4-2","epoch":1}}"#.to_owned();
    let events = vec![NewEvent { at: 1_764_000_000_000, value }];
    Step { number, function: None, from: from.0, epoch: from.1, to, events, output: None, deliveries: Vec::new() }
}

/// Opens the store as a server does.
pub(crate) fn open(path: &Path) -> SqliteTasks {
    SqliteTasks::open_with(path, DiskHealth::default(), Tuning::default()).unwrap()
}

impl Store {
    pub(crate) async fn accept(&self) -> TaskNumber {
        self.0.accept(task()).await.unwrap().number()
    }

    pub(crate) async fn claim(&self, number: TaskNumber) {
        let claim = step(number, (TaskState::Enqueued, 0), progressed(TaskState::Running, 1));
        assert!(self.0.advance(claim).await.unwrap().applied);
    }

    pub(crate) async fn complete(&self, number: TaskNumber) {
        let mut end = step(number, (TaskState::Running, 1), progressed(TaskState::Succeeded, 1));
        end.output = Some(Output { head: "200".to_owned(), body: noise(RESULT) });
        assert!(self.0.advance(end).await.unwrap().applied);
    }
}

#[async_trait::async_trait]
impl Subject for Store {
    async fn round(&self, round: CallerLoop) -> Option<u64> {
        let number = self.accept().await;
        if round == CallerLoop::Cycle {
            self.claim(number).await;
            self.complete(number).await;
        }
        None
    }
}

pub(crate) struct Log(SyncSender<(Bytes, oneshot::Sender<()>)>);

impl Log {
    pub(crate) fn start(path: &Path, recycled: bool) -> Self {
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
    async fn round(&self, round: CallerLoop) -> Option<u64> {
        // Headers of 64 bytes in place of a row's columns.
        self.add(noise(PAYLOAD + 64)).await;
        if round == CallerLoop::Cycle {
            self.add(noise(64)).await;
            self.add(noise(RESULT + 64)).await;
        }
        None
    }
}
