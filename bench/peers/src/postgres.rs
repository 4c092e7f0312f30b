//! PostgreSQL as a queue, in two ways: a statement for each step of each task on a pool of connections, as most libraries do it, and
//! with a client that gathers what waits into statements of many rows.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::future::join5;
use rustix::process::Signal;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio_postgres::{Client, NoTls, Statement};

use crate::Peer;
use crate::server::{Server, free_port, program, said};
use crate::subjects::{PAYLOAD, RESULT, Round, Subject, noise};

/// Connections of the pool, at most.
const POOL: usize = 16;
/// Connections of the client that gathers.
const GATHERING: usize = 2;
/// Steps of one transaction.
const BATCH: usize = 4_096;

const TABLE: &str = "
    DROP TABLE IF EXISTS task;
    CREATE TABLE task (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        state smallint NOT NULL DEFAULT 0,
        epoch integer NOT NULL DEFAULT 0,
        lease_until timestamptz,
        payload bytea NOT NULL,
        result bytea
    );
    CREATE INDEX ready ON task (id) WHERE state = 0;
    CHECKPOINT;";
const INSERT: &str = "INSERT INTO task (payload) SELECT unnest($1::bytea[]) RETURNING id";
const CLAIM: &str = "
    WITH next AS MATERIALIZED (SELECT id FROM task WHERE state = 0 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
    UPDATE task SET state = 1, epoch = epoch + 1, lease_until = now() + interval '15 s'
    FROM next WHERE task.id = next.id RETURNING task.id";
const COMPLETE: &str = "
    UPDATE task SET state = 2, lease_until = NULL, result = done.result
    FROM unnest($1::bigint[], $2::bytea[]) AS done (id, result) WHERE task.id = done.id AND state = 1";

/// The server, for both ways.
struct Postgres {
    _server: Server,
    port: u16,
    about: String,
}

impl Postgres {
    async fn connect(&self) -> Result<Client> {
        let settings = format!("host=127.0.0.1 port={} user=bench dbname=postgres", self.port);
        let (client, connection) = tokio_postgres::connect(&settings, NoTls).await?;
        drop(kip_host::tasks::spawn("connection", connection));
        Ok(client)
    }

    async fn table(&self) -> Result<()> {
        Ok(self.connect().await?.batch_execute(TABLE).await?)
    }
}

pub(crate) async fn start(folder: &Path) -> Result<Vec<Box<dyn Peer>>> {
    let package = "postgresql";
    let newest = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = newest.max().unwrap_or_default().join("bin");
    let newest = newest.to_string_lossy();
    let (initdb, postgres) = (program("initdb", &[&newest], package)?, program("postgres", &[&newest], package)?);
    let (data, log) = (folder.join("postgres"), folder.join("postgres.log"));
    std::fs::create_dir(&data)?;
    let who = servant()?;
    let run = |program: &Path| {
        let mut command = Command::new(program);
        command.current_dir("/").env("LC_ALL", "C");
        if let Some((user, group)) = who {
            command.uid(user).gid(group);
        }
        command
    };
    if let Some((user, group)) = who {
        std::os::unix::fs::chown(&data, Some(user), Some(group))?;
    }
    said(run(&initdb).arg("-D").arg(&data).args(["-U", "bench", "--auth=trust", "-E", "UTF8"]))?;
    let port = free_port()?;
    let mut command = run(&postgres);
    command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-k", "", "-p", &port.to_string()]);
    for setting in [
        "fsync=on",
        "synchronous_commit=on",
        "full_page_writes=on",
        "shared_buffers=512MB",
        "max_wal_size=4GB",
        // A table that was empty a second ago has no statistics yet.
        "enable_seqscan=off",
        "enable_hashjoin=off",
        "enable_mergejoin=off",
        "plan_cache_mode=force_generic_plan",
    ] {
        command.args(["-c", setting]);
    }
    let mut server = Server::start(command, &log, Signal::INT)?;
    server.listens(port, &log)?;
    let mut started = Postgres { _server: server, port, about: String::new() };
    let until = kip_host::clock::boot_millis() + 30_000;
    let client = loop {
        match started.connect().await {
            // It listens before it is ready.
            Err(error) if kip_host::clock::boot_millis() < until && format!("{error:#}").contains("starting up") => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            other => break other?,
        }
    };
    let mut about = Vec::new();
    for name in
        ["server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers"]
    {
        let row = client.query_one(&format!("SHOW {name}"), &[]).await?;
        about.push(format!("{name}={}", row.get::<_, String>(0)));
    }
    started.about = about.join(", ");
    let started = Arc::new(started);
    Ok(vec![Box::new(Single(started.clone())), Box::new(Gathered(started))])
}

/// Whom the server runs as: it refuses to be root.
fn servant() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let user = users.lines().find_map(|line| line.strip_prefix("postgres:")).context("there is no user postgres")?;
    let fields: Vec<&str> = user.split(':').collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse().ok()).context("/etc/passwd is odd");
    Ok(Some((number(1)?, number(2)?)))
}

/// A connection with what is run on it.
struct Desk {
    client: Client,
    insert: Statement,
    claim: Statement,
    complete: Statement,
}

impl Desk {
    async fn open(postgres: &Postgres) -> Result<Self> {
        let client = postgres.connect().await?;
        let insert = client.prepare(INSERT).await?;
        let claim = client.prepare(CLAIM).await?;
        let complete = client.prepare(COMPLETE).await?;
        Ok(Self { client, insert, claim, complete })
    }

    async fn insert(&self, payloads: &[&[u8]]) -> Result<u64, tokio_postgres::Error> {
        if payloads.is_empty() {
            return Ok(0);
        }
        Ok(self.client.query(&self.insert, &[&payloads]).await?.len() as u64)
    }

    async fn claim(&self, most: usize) -> Result<Vec<i64>, tokio_postgres::Error> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let rows = self.client.query(&self.claim, &[&(most as i64)]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn complete(&self, numbers: &[i64], results: &[&[u8]]) -> Result<u64, tokio_postgres::Error> {
        if numbers.is_empty() {
            return Ok(0);
        }
        self.client.execute(&self.complete, &[&numbers, &results]).await
    }

    async fn word(&self, word: &str, said: bool) -> Result<(), tokio_postgres::Error> {
        if said { self.client.batch_execute(word).await } else { Ok(()) }
    }
}

struct Single(Arc<Postgres>);

#[async_trait::async_trait]
impl Peer for Single {
    fn name(&self) -> String {
        "PostgreSQL, a statement a step".to_owned()
    }

    fn kept(&self) -> String {
        format!(
            "{}; prepared statements on up to {POOL} connections, each its own commit: INSERT, UPDATE of the row that SELECT … FOR \
             UPDATE SKIP LOCKED LIMIT 1 finds, UPDATE with the result",
            self.0.about
        )
    }

    async fn subject(&self, _: Round, callers: usize) -> Result<Arc<dyn Subject>> {
        self.0.table().await?;
        let mut desks = Vec::new();
        for _ in 0..callers.min(POOL) {
            desks.push(Desk::open(&self.0).await?);
        }
        Ok(Arc::new(Pool { free: Semaphore::new(desks.len()), desks: std::sync::Mutex::new(desks) }))
    }
}

struct Pool {
    free: Semaphore,
    desks: std::sync::Mutex<Vec<Desk>>,
}

impl Pool {
    async fn with<T>(&self, work: impl AsyncFnOnce(&Desk) -> Result<T, tokio_postgres::Error>) -> T {
        let _permit = self.free.acquire().await.unwrap();
        let desk = self.desks.lock().unwrap().pop().unwrap();
        let done = work(&desk).await.unwrap();
        self.desks.lock().unwrap().push(desk);
        done
    }
}

#[async_trait::async_trait]
impl Subject for Pool {
    async fn round(&self, round: Round) -> Option<u64> {
        let payload = noise(PAYLOAD);
        assert_eq!(self.with(async |desk: &Desk| desk.insert(&[&payload]).await).await, 1);
        if round == Round::Cycle {
            // Everybody has put in one before, so there is one for everybody.
            let number = loop {
                let found = self.with(async |desk: &Desk| desk.claim(1).await).await;
                if let Some(number) = found.first() {
                    break *number;
                }
            };
            let result = noise(RESULT);
            assert_eq!(self.with(async |desk: &Desk| desk.complete(&[number], &[&result]).await).await, 1);
        }
        None
    }
}

struct Gathered(Arc<Postgres>);

enum Step {
    Insert(Bytes, oneshot::Sender<()>),
    Claim(oneshot::Sender<i64>),
    Complete(i64, Bytes, oneshot::Sender<()>),
}

#[async_trait::async_trait]
impl Peer for Gathered {
    fn name(&self) -> String {
        "PostgreSQL, gathered".to_owned()
    }

    fn kept(&self) -> String {
        format!(
            "the same server; {GATHERING} connections, each of which takes all steps that wait and commits them as one transaction of up \
             to three statements, pipelined: unnest for INSERT and results, LIMIT n for claims"
        )
    }

    async fn subject(&self, _: Round, _: usize) -> Result<Arc<dyn Subject>> {
        self.0.table().await?;
        let (steps, queue) = mpsc::channel(16_384);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..GATHERING {
            let desk = Desk::open(&self.0).await?;
            drop(kip_host::tasks::spawn("gather", gather(desk, queue.clone(), steps.downgrade())));
        }
        Ok(Arc::new(Batcher(steps)))
    }
}

async fn gather(desk: Desk, queue: Arc<Mutex<mpsc::Receiver<Step>>>, again: mpsc::WeakSender<Step>) {
    loop {
        let mut steps = Vec::new();
        if queue.lock().await.recv_many(&mut steps, BATCH).await == 0 {
            return;
        }
        let (mut inserts, mut claims, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Insert(payload, answer) => inserts.push((payload, answer)),
                Step::Claim(answer) => claims.push(answer),
                Step::Complete(number, result, answer) => ends.push((number, result, answer)),
            }
        }
        let payloads: Vec<&[u8]> = inserts.iter().map(|(payload, _)| payload.as_ref()).collect();
        let numbers: Vec<i64> = ends.iter().map(|(number, ..)| *number).collect();
        let results: Vec<&[u8]> = ends.iter().map(|(_, result, _)| result.as_ref()).collect();
        let kinds = [inserts.len(), claims.len(), ends.len()].into_iter().filter(|count| *count > 0).count();
        // Polled in this order, so sent in this order, without waiting for one another.
        let (begun, ended, claimed, inserted, committed) = join5(
            desk.word("BEGIN", kinds > 1),
            desk.complete(&numbers, &results),
            desk.claim(claims.len()),
            desk.insert(&payloads),
            desk.word("COMMIT", kinds > 1),
        )
        .await;
        begun.unwrap();
        committed.unwrap();
        assert_eq!((ended.unwrap(), inserted.unwrap()), (ends.len() as u64, inserts.len() as u64));
        inserts.into_iter().for_each(|(_, answer)| answer.send(()).unwrap_or_default());
        ends.into_iter().for_each(|(.., answer)| answer.send(()).unwrap_or_default());
        let mut claims = claims.into_iter();
        for number in claimed.unwrap() {
            if let Some(answer) = claims.next() {
                answer.send(number).unwrap_or_default();
            }
        }
        for answer in claims {
            // Somebody else's transaction held the rest.
            let Some(again) = again.upgrade() else { return };
            again.try_send(Step::Claim(answer)).ok().unwrap();
        }
    }
}

struct Batcher(mpsc::Sender<Step>);

impl Batcher {
    async fn ask<T>(&self, step: impl FnOnce(oneshot::Sender<T>) -> Step) -> T {
        let (answer, answered) = oneshot::channel();
        assert!(self.0.send(step(answer)).await.is_ok());
        answered.await.unwrap()
    }
}

#[async_trait::async_trait]
impl Subject for Batcher {
    async fn round(&self, round: Round) -> Option<u64> {
        self.ask(|answer| Step::Insert(noise(PAYLOAD), answer)).await;
        if round == Round::Cycle {
            let number = self.ask(Step::Claim).await;
            self.ask(|answer| Step::Complete(number, noise(RESULT), answer)).await;
        }
        None
    }
}
