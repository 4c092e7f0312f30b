//! RabbitMQ with a quorum queue of one member.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use rustix::process::Signal;
use tokio::sync::{Mutex, mpsc};

use crate::Peer;
use crate::server::{Server, free_port, program, said};
use crate::subjects::{PAYLOAD, Round, Subject, noise};

/// Channels that publish, and as many that consume, each on a connection of its own.
const CHANNELS: usize = 4;

pub(crate) struct Rabbit {
    // Ended before the one that knows where it listens.
    _server: Server,
    _names: Server,
    port: u16,
    version: String,
    /// The latest queue and who uses it.
    latest: Mutex<Option<(String, Vec<Connection>)>>,
    made: AtomicUsize,
}

pub(crate) fn start(folder: &Path) -> Result<Rabbit> {
    let package = "rabbitmq-server";
    // The one in `PATH` changes the user.
    let server = program("rabbitmq-server", &[], package)?;
    let own = Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
    let server = if own.exists() { own.to_owned() } else { server };
    let epmd = program("epmd", &[], package)?;
    let (home, log) = (folder.join("rabbit"), folder.join("rabbit.log"));
    std::fs::create_dir(&home)?;
    std::fs::write(home.join("enabled_plugins"), "[].\n")?;
    let (port, own_port, names_port) = (free_port()?, free_port()?, free_port()?);
    let mut command = Command::new(epmd);
    command.args(["-port", &names_port.to_string(), "-address", "127.0.0.1"]);
    let names = folder.join("epmd.log");
    let mut epmd = Server::start(command, &names, Signal::TERM)?;
    epmd.listens(names_port, &names)?;
    let mut command = Command::new(&server);
    command.current_dir(&home).env("HOME", &home).env("ERL_EPMD_PORT", names_port.to_string());
    for (name, value) in [
        ("ERL_EPMD_ADDRESS", "127.0.0.1"),
        ("RABBITMQ_NODENAME", "kip-bench@localhost"),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1"),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null"),
        // Its threads do not spin while others are measured.
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
        ),
    ] {
        command.env(name, value);
    }
    command.env("RABBITMQ_NODE_PORT", port.to_string()).env("RABBITMQ_DIST_PORT", own_port.to_string());
    for (name, file) in [
        ("RABBITMQ_MNESIA_BASE", "data"),
        ("RABBITMQ_LOG_BASE", "logs"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq"),
        ("RABBITMQ_PID_FILE", "pid"),
    ] {
        command.env(name, home.join(file));
    }
    let mut server = Server::start(command, &log, Signal::TERM)?;
    server.listens(port, &log)?;
    let version = said(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package])).unwrap_or_default();
    Ok(Rabbit { _server: server, _names: epmd, port, version, latest: Mutex::new(None), made: AtomicUsize::new(0) })
}

impl Rabbit {
    async fn connect(&self) -> Result<Connection> {
        let address = format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port);
        Ok(Connection::connect(&address, ConnectionProperties::default()).await?)
    }
}

#[async_trait::async_trait]
impl Peer for Rabbit {
    fn name(&self) -> String {
        "RabbitMQ, quorum queue".to_owned()
    }

    fn kept(&self) -> String {
        format!(
            "{}; one member, publisher confirms on {CHANNELS} channels: a confirm comes after the fdatasync of its log. {CHANNELS} \
             consumers with manual ack. A cycle is publish confirmed, delivered, ack sent: a delivery is not written, an ack has no \
             answer, and no result is kept",
            self.version
        )
    }

    async fn subject(&self, round: Round, callers: usize) -> Result<Arc<dyn Subject>> {
        let mut latest = self.latest.lock().await;
        let queue = format!("tasks-{}", self.made.fetch_add(1, Ordering::Relaxed));
        let connections = vec![self.connect().await?, self.connect().await?];
        let first = connections[0].create_channel().await?;
        if let Some((queue, connections)) = latest.take() {
            for connection in connections {
                connection.close(200, "over".into()).await?;
            }
            first.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
        }
        let mut kind = FieldTable::default();
        kind.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        first
            .queue_declare(queue.as_str().into(), QueueDeclareOptions { durable: true, ..Default::default() }, kind)
            .await?;
        let mut channels = Vec::new();
        for _ in 0..CHANNELS {
            let channel = connections[0].create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            channels.push(channel);
        }
        let (deliveries, delivered) = mpsc::channel(4_096);
        if round == Round::Cycle {
            for at in 0..CHANNELS {
                consume(&connections[1], &queue, at, callers, deliveries.clone()).await?;
            }
        }
        *latest = Some((queue.clone(), connections));
        Ok(Arc::new(Queue { name: queue, channels, next: AtomicUsize::new(0), delivered: Mutex::new(delivered) }))
    }
}

async fn consume(
    connection: &Connection,
    queue: &str,
    at: usize,
    callers: usize,
    to: mpsc::Sender<Delivery>,
) -> Result<()> {
    let channel = connection.create_channel().await?;
    // Two for each caller: one that is worked on and one on its way.
    let prefetch = u16::try_from((callers * 2).div_ceil(CHANNELS).max(2)).context("too many callers")?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let tag = format!("consumer-{at}");
    let consumer =
        channel.basic_consume(queue.into(), tag.as_str().into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = consumer.await?;
    drop(kip_host::tasks::spawn("consumer", async move {
        let _channel = channel;
        while let Some(Ok(delivery)) = consumer.next().await {
            if to.send(delivery).await.is_err() {
                return;
            }
        }
    }));
    Ok(())
}

struct Queue {
    name: String,
    channels: Vec<Channel>,
    next: AtomicUsize,
    delivered: Mutex<mpsc::Receiver<Delivery>>,
}

#[async_trait::async_trait]
impl Subject for Queue {
    async fn round(&self, round: Round) -> Option<u64> {
        let channel = &self.channels[self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len()];
        let lasting = BasicProperties::default().with_delivery_mode(2);
        let payload = noise(PAYLOAD);
        let sent = channel.basic_publish(
            "".into(),
            self.name.as_str().into(),
            BasicPublishOptions::default(),
            &payload,
            lasting,
        );
        assert_eq!(sent.await.unwrap().await.unwrap(), Confirmation::Ack(None));
        if round == Round::Cycle {
            let delivery = self.delivered.lock().await.recv().await.unwrap();
            delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
        }
        None
    }
}
