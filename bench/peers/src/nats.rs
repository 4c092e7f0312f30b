//! NATS JetStream with a stream in files. Every `nats-server` of `PATH` is measured, for Debian's cannot sync before it answers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, Subject as Address};
use bytes::Bytes;
use futures_util::StreamExt as _;
use rustix::process::Signal;
use tokio::sync::{Mutex, mpsc};

use crate::Peer;
use crate::server::{Server, free_port, programs, said};
use crate::subjects::{PAYLOAD, Round, Subject, noise};

struct Nats {
    _server: Server,
    port: u16,
    version: String,
    synced: bool,
    made: AtomicUsize,
}

pub(crate) fn start(folder: &Path) -> Result<Vec<Box<dyn Peer>>> {
    let found = programs("nats-server", &["/usr/sbin"]);
    if found.is_empty() {
        bail!(
            "there is no nats-server: `apt-get install nats-server` brings 2.9, which cannot sync before it answers; 2.10 and later can"
        );
    }
    let mut all: Vec<Box<dyn Peer>> = Vec::new();
    for (at, program) in found.iter().enumerate() {
        all.push(Box::new(one(program, folder.join(format!("nats-{at}")))?));
    }
    Ok(all)
}

fn one(program: &Path, home: PathBuf) -> Result<Nats> {
    std::fs::create_dir(&home)?;
    let version = said(Command::new(program).arg("--version"))?;
    let port = free_port()?;
    let file = home.join("nats.conf");
    let settings = |sync: &str| {
        let store = home.join("data");
        format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{}\"{sync} }}\n", store.display())
    };
    std::fs::write(&file, settings(", sync_interval: always"))?;
    let synced = said(Command::new(program).arg("-t").arg("-c").arg(&file)).is_ok();
    if !synced {
        std::fs::write(&file, settings(""))?;
    }
    let mut command = Command::new(program);
    command.arg("-c").arg(&file);
    let log = home.join("log");
    let mut server = Server::start(command, &log, Signal::TERM)?;
    server.listens(port, &log)?;
    let version = version.trim_start_matches("nats-server: v").to_owned();
    Ok(Nats { _server: server, port, version, synced, made: AtomicUsize::new(0) })
}

#[async_trait::async_trait]
impl Peer for Nats {
    fn name(&self) -> String {
        if self.synced {
            format!("NATS {}, sync always", self.version)
        } else {
            format!("NATS {}, NOT SYNCED", self.version)
        }
    }

    fn kept(&self) -> String {
        let sync = if self.synced {
            "sync_interval: always: each message is synced before its acknowledgement"
        } else {
            "this version knows no sync_interval: it syncs every two minutes, so an acknowledged message may be lost. NOT the same \
             durability, shown for what it is"
        };
        format!(
            "{sync}. Work-queue stream in files, pull consumer, explicit ack. A cycle is publish acknowledged, delivered, ack \
                 answered: a delivery is not synced, and no result is kept"
        )
    }

    async fn subject(&self, round: Round, callers: usize) -> Result<Arc<dyn Subject>> {
        let options = async_nats::ConnectOptions::new().request_timeout(Some(Duration::from_secs(60)));
        let client = options.connect(format!("127.0.0.1:{}", self.port)).await?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(Duration::from_secs(60))
            .ack_timeout(Duration::from_secs(60))
            .build(client.clone());
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        // Another name, so that nobody who used the one before has a part in it.
        let name = format!("tasks-{made}");
        if made > 0 {
            context.delete_stream(format!("tasks-{}", made - 1)).await?;
        }
        let stream = context
            .create_stream(Config {
                name: name.clone(),
                retention: RetentionPolicy::WorkQueue,
                storage: StorageType::File,
                ..Config::default()
            })
            .await?;
        let (messages, delivered) = mpsc::channel(4_096);
        if round == Round::Cycle {
            let config = pull::Config {
                durable_name: Some("worker".to_owned()),
                ack_policy: AckPolicy::Explicit,
                ack_wait: Duration::from_secs(60),
                max_ack_pending: 4_096,
                ..pull::Config::default()
            };
            let consumer = stream.create_consumer(config).await?;
            let mut work = consumer.stream().max_messages_per_batch((callers * 2).max(16)).messages().await?;
            drop(kip_host::tasks::spawn("consumer", async move {
                while let Some(Ok(message)) = work.next().await {
                    let reply = message.reply.clone().unwrap();
                    if messages.send(reply).await.is_err() {
                        return;
                    }
                }
            }));
        }
        Ok(Arc::new(Queue { name, client, context, delivered: Mutex::new(delivered) }))
    }
}

struct Queue {
    name: String,
    client: Client,
    context: Context,
    delivered: Mutex<mpsc::Receiver<Address>>,
}

#[async_trait::async_trait]
impl Subject for Queue {
    async fn round(&self, round: Round) -> Option<u64> {
        self.context.publish(self.name.clone(), noise(PAYLOAD)).await.unwrap().await.unwrap();
        if round == Round::Cycle {
            let reply = self.delivered.lock().await.recv().await.unwrap();
            // As a request, so that the acknowledgement is acknowledged.
            self.client.request(reply, Bytes::from_static(b"+ACK")).await.unwrap();
        }
        None
    }
}
