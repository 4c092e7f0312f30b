//! The threads of the data plane.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use kip_auth::{Keys, SignatureCheck};
use kip_control::Control;
use kip_host::sockets::Peers;
use kip_host::tasks::Supervisor;
use kip_host::tls::Certificate;
use kip_records::metrics::Metrics;
use kip_relay::Relay;
use kip_spec::origin::Names;
use kip_tasks::Tasks;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::admission::RequestHandler;
use crate::authorise::Authority;
use crate::connection::{self, Bounds, Stream};
use crate::workers::{Inbox, NewConnection, Workers};

/// What the gateway needs.
#[derive(Debug)]
pub struct Options {
    /// Where requests come in; the first is told to those who ask.
    pub doors: Vec<Entry>,
    /// How many threads serve them.
    pub threads: usize,
    /// What callers may do.
    pub limits: Limits,
    /// Proxies whose word about callers is taken.
    pub proxies: Vec<IpAddr>,
    /// Names that the server is called by, and pages that may call.
    pub names: Names,
    /// Who checks signatures of callers.
    pub signatures: Arc<dyn SignatureCheck>,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// What becomes of requests that nobody waits for.
    pub tasks: Tasks,
    /// Ends the server when a thread has ended.
    pub supervisor: Supervisor,
}

/// A place where requests come in.
#[derive(Debug)]
pub struct Entry {
    /// Its socket.
    pub listener: TcpListener,
    /// What TLS is spoken with; none speaks in the clear.
    pub certificate: Option<Certificate>,
    /// Whether callers need a key whatever their function says.
    pub keyed: bool,
    /// Who may connect.
    pub peers: Peers,
}

/// What callers may do. `docs/limits.md` explains each.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a request's target.
    pub target: usize,
    /// Bytes of a request's body.
    pub body: u64,
    /// Bytes of a body that are searched for the model it is for.
    pub model: usize,
    /// From the first byte of a head to its last.
    pub head_time: Duration,
    /// Between two pieces of a body that an instance waits for.
    pub body_idle: Duration,
    /// Between two requests on a connection.
    pub idle: Duration,
    /// How long a caller may take nothing of what is sent to it.
    pub write_idle: Duration,
}

impl Limits {
    fn bounds(&self) -> Bounds {
        let head = connection::Limits { head: self.head, headers: self.headers, target: self.target };
        let Self { body, model, head_time, body_idle, idle, write_idle, .. } = *self;
        Bounds { head, body, model, head_time, body_idle, idle, write_idle }
    }
}

/// The running gateway.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    closing: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// How long a caller may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Shorter than the usual limits of requests.
const PULSE: Duration = Duration::from_secs(1);

impl Gateway {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has no room for them.
    pub fn start(options: Options, control: &Control, keys: &Keys) -> std::io::Result<Self> {
        let first = options.doors.first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let address = first.listener.local_addr()?;
        let closing = watch::Sender::new(false);
        let mut threads = Vec::with_capacity(options.threads);
        let authority = Authority::new(keys.clone(), options.signatures.clone(), options.metrics.clone());
        let shared = Arc::new(options);
        let searching = Arc::new(AtomicUsize::new(0));
        let (crew, inboxes) = Workers::new(shared.threads.max(1), shared.limits.connections);
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let (options, crew, searching) = (shared.clone(), crew.clone(), searching.clone());
            let (control, authority, closed) = (control.clone(), authority.clone(), closing.subscribe());
            let body = move || {
                if let Err(error) = run(&options, (number, crew, inbox), searching, control, authority, closed) {
                    tracing::error!(%error, "a gateway thread ended");
                }
            };
            threads.push(shared.supervisor.vital_thread(format!("gateway-{number}"), body)?);
        }
        Ok(Self { address, closing, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connections; requests under way go on.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits for the threads, which end when their last connection has.
    pub fn join(self) {
        self.close();
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn run(
    options: &Options,
    (number, crew, inbox): (usize, Arc<Workers>, Inbox),
    searching: Arc<AtomicUsize>,
    control: Control,
    authority: Authority,
    closing: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let runtime = kip_host::tasks::local_runtime()?;
    let relay = Relay::new(control.clone(), &options.metrics);
    let (bounds, proxies) = (options.limits.bounds(), options.proxies.clone().into());
    let (tasks, names) = (options.tasks.clone(), Rc::new(options.names.clone()));
    let door = Rc::new(RequestHandler {
        control,
        authority,
        relay: relay.clone(),
        bounds,
        proxies,
        names,
        tasks,
        searching,
        model_names: Rc::default(),
    });
    let ways =
        options.doors.iter().map(|entry| (entry.certificate.clone(), entry.keyed, entry.peers.clone())).collect();
    let porter = Rc::new(Acceptor { number, crew, door, ways, closing });
    runtime.block_on(async move {
        drop(kip_host::tasks::spawn_local("pulse", pulse()));
        let mut entries = tokio::task::JoinSet::new();
        for (number, entry) in options.doors.iter().enumerate() {
            let listener = tokio::net::TcpListener::from_std(entry.listener.try_clone()?)?;
            entries.spawn_local(porter.clone().take(listener, number));
        }
        entries.spawn_local(porter.receive(inbox));
        while let Some(ended) = entries.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                // Without it this thread would take no connections, or none of others. The panic is in the log.
                return Err(std::io::Error::other("the task of a listener panicked"));
            }
        }
        relay.tunnels_over().await;
        Ok(())
    })
}

/// Keeps a timer due soon. One that is due before all others wakes the thread that sets it, by a system call, and each request sets one
/// that is due after this.
async fn pulse() {
    loop {
        tokio::time::sleep(PULSE).await;
    }
}

/// Takes connections on one thread.
struct Acceptor {
    number: usize,
    crew: Arc<Workers>,
    door: Rc<RequestHandler>,
    /// Of each listener: what TLS is spoken with, whether callers need a key, and who may connect.
    ways: Vec<(Option<Certificate>, bool, Peers)>,
    closing: watch::Receiver<bool>,
}

impl Acceptor {
    /// Takes the connections of one listener until the gateway closes, then waits for them to end.
    async fn take(self: Rc<Self>, listener: tokio::net::TcpListener, entry: usize) {
        let mut connections = tokio::task::JoinSet::new();
        let mut closing = self.closing.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closing.wait_for(|closing| *closing) => break,
                // Ended connections are collected as they end.
                Some(_) = connections.join_next() => continue,
            };
            let given = match accepted {
                Ok((stream, peer)) if !self.ways.get(entry).is_some_and(|(_, _, peers)| peers.admits(peer.ip())) => {
                    refuse(stream, kip_relay::foreign_peer());
                    continue;
                }
                Ok((stream, peer)) => match self.crew.open(self.number, self.counted(peer.ip())) {
                    Some(opened) => opened.give(self.number, stream, peer, entry),
                    None => {
                        // TLS cannot be told in the clear.
                        if self.ways.get(entry).is_some_and(|(certificate, ..)| certificate.is_none()) {
                            refuse(stream, kip_relay::refused_connection());
                        }
                        continue;
                    }
                },
                Err(error) => Err(error),
            };
            match given {
                Ok(Some((stream, arrival))) => drop(connections.spawn_local(self.clone().serve(stream, arrival))),
                Ok(None) => {}
                Err(error) => {
                    // Out of file descriptors, most likely: those under way end and make room.
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// The address of a peer, if it stands for one caller: programs of this machine and proxies speak for many.
    fn counted(&self, peer: IpAddr) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        (!peer.is_loopback() && !self.door.proxies.contains(&peer)).then_some(peer)
    }

    /// Serves what other threads give until the gateway closes, then waits for it to end.
    async fn receive(self: Rc<Self>, mut inbox: Inbox) {
        let mut connections = tokio::task::JoinSet::new();
        let mut closing = self.closing.clone();
        loop {
            let handed = tokio::select! {
                handed = inbox.recv() => handed,
                _ = closing.wait_for(|closing| *closing), if !inbox.is_closed() => {
                    inbox.close();
                    continue;
                }
                Some(_) = connections.join_next() => continue,
            };
            let Some(handed) = handed else { break };
            match handed.take() {
                Ok((stream, arrival)) => drop(connections.spawn_local(self.clone().serve(stream, arrival))),
                Err(error) => tracing::warn!(%error, "a connection could not be taken"),
            }
        }
        while connections.join_next().await.is_some() {}
    }

    async fn serve(self: Rc<Self>, stream: TcpStream, arrival: NewConnection) {
        let NewConnection { peer, entry, opened: _opened } = arrival;
        let (certificate, keyed) = match self.ways.get(entry) {
            Some((certificate, keyed, _)) => (certificate.clone(), *keyed),
            None => (None, true),
        };
        connection(self.door.clone(), certificate, keyed, stream, peer, self.closing.clone()).await;
    }
}

async fn connection(
    door: Rc<RequestHandler>,
    certificate: Option<Certificate>,
    keyed: bool,
    stream: TcpStream,
    peer: SocketAddr,
    closing: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let stream = match certificate {
        None => Stream::Plain(stream),
        Some(certificate) => match tokio::time::timeout(HANDSHAKE, handshake(&certificate, stream)).await {
            Ok(Ok(Some(stream))) => Stream::Tls(Box::new(stream)),
            Ok(Ok(None)) => return,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "a caller did not agree on TLS"),
            Err(_) => return tracing::debug!(%peer, "a caller took too long to agree on TLS"),
        },
    };
    connection::serve(door, stream, peer, keyed, closing).await;
}

/// Agrees on TLS, or tells a caller that does not speak it so, in the clear.
async fn handshake(
    certificate: &Certificate,
    mut stream: TcpStream,
) -> std::io::Result<Option<kip_host::tls::TlsStream<TcpStream>>> {
    /// What TLS begins with.
    const HANDSHAKE_RECORD: u8 = 22;
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
        stream.write_all(kip_relay::in_the_clear().as_bytes()).await?;
        stream.shutdown().await?;
        let mut sink = [0u8; 1_024];
        while tokio::io::AsyncReadExt::read(&mut stream, &mut sink).await? > 0 {}
        return Ok(None);
    }
    certificate.acceptor().accept(stream).await.map(Some)
}

/// Sends a caller an answer in one piece, without waiting for what it wants, and closes.
fn refuse(mut stream: TcpStream, answer: String) {
    const LIMIT: Duration = Duration::from_secs(1);
    drop(kip_host::tasks::spawn_local("refuse", async move {
        let said = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            // What the caller sent is taken, or the answer would be lost with it.
            let mut sink = [0u8; 1_024];
            while tokio::io::AsyncReadExt::read(&mut stream, &mut sink).await? > 0 {}
            std::io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LIMIT, said).await;
    }));
}
