//! The server's side of one helper process.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};

use crate::error::HelperLoss;
use crate::wire::{Answer, Ask, HelperReady, Reply, Request};

/// How a helper is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program: the server's own binary.
    pub program: PathBuf,
    /// Its arguments: `gpu-helper`.
    pub arguments: Vec<String>,
    /// Variables beside those of the server.
    pub environment: Vec<(String, String)>,
    /// How long it may take to initialise CUDA: seconds on a host with many devices.
    pub start_limit: Duration,
}

impl Options {
    /// A helper that is this program itself.
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            arguments: vec!["gpu-helper".to_owned()],
            environment: Vec::new(),
            start_limit: Duration::from_secs(30),
        }
    }
}

/// A helper that has initialised CUDA and waits. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    lines: Lines<BufReader<OwnedReadHalf>>,
    requests: OwnedWriteHalf,
    next: u64,
    /// What its initialisation took.
    pub(crate) started_in: Duration,
}

impl Helper {
    /// Starts one and waits until it is ready.
    pub(crate) async fn start(options: &Options) -> Result<Self, HelperLoss> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(HelperLoss::Start)?;
        ours.set_nonblocking(true).map_err(HelperLoss::Start)?;
        let mut command = Command::new(&options.program);
        command.args(&options.arguments).envs(options.environment.iter().map(|(name, value)| (name, value)));
        // Devices are numbered as NVML does it, and all of them are seen whatever the server itself was told.
        command.env("CUDA_DEVICE_ORDER", "PCI_BUS_ID").env_remove("CUDA_VISIBLE_DEVICES");
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.kill_on_drop(true).spawn().map_err(HelperLoss::Start)?;
        // The command holds the other end; while it lives a dead helper would not be noticed.
        drop(command);
        let (answers, requests) = UnixStream::from_std(ours).map_err(HelperLoss::Start)?.into_split();
        let lines = BufReader::new(answers).lines();
        let mut helper = Self { child, lines, requests, next: 0, started_in: Duration::ZERO };
        let asked = || "its start".to_owned();
        let line = tokio::time::timeout(options.start_limit, helper.lines.next_line()).await;
        let line = line.map_err(|_| HelperLoss::Hung { asked: asked(), limit: options.start_limit })?;
        let hello = line.ok().flatten().and_then(|line| serde_json::from_str::<HelperReady>(&line).ok());
        let hello = hello.ok_or_else(|| HelperLoss::Ended(asked()))?;
        helper.started_in = Duration::from_micros(hello.took_us);
        Ok(helper)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it has ended without having been asked to.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks, and waits for the answer as long as `limit`. After an error the helper must not be used any more: what it
    /// was asked for is in an unknown state, and a late answer could be taken for another.
    pub(crate) async fn ask(&mut self, ask: Ask, limit: Duration) -> Result<(Answer, Duration), HelperLoss> {
        self.next += 1;
        let deadline_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let request = Request { id: self.next, deadline_ms, ask };
        match tokio::time::timeout(limit, self.exchange(&request)).await {
            Ok(Ok(Some(reply))) => Ok((reply.answer, Duration::from_micros(reply.took_us))),
            Ok(Ok(None)) => Err(HelperLoss::Ended(describe(ask))),
            Ok(Err(_)) => Err(HelperLoss::NotAsked(describe(ask))),
            Err(_) => {
                // Not waited for: a process that hangs in the kernel does not die at once.
                let _ = self.child.start_kill();
                Err(HelperLoss::Hung { asked: describe(ask), limit })
            }
        }
    }

    /// An error is a request that did not reach it, `None` an answer that did not come.
    async fn exchange(&mut self, request: &Request) -> std::io::Result<Option<Reply>> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.requests.write_all(&line).await?;
        while let Ok(Some(line)) = self.lines.next_line().await {
            match serde_json::from_str::<Reply>(&line) {
                Ok(reply) if reply.id == request.id => return Ok(Some(reply)),
                // Answers to others are of no use to anybody.
                Ok(_) => {}
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn describe(ask: Ask) -> String {
    match ask {
        Ask::Report => "a look at the devices".to_owned(),
        Ask::State { pid } => format!("the state of process {pid}"),
        Ask::RestoreThread { pid } => format!("whether process {pid} uses CUDA"),
        Ask::Act { call, pid, .. } => format!("{} of process {pid}", call.symbol()),
    }
}
