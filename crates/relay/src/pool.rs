//! Connections to instances, one pool for each thread. A connection lives within one epoch of its instance: before the
//! instance is paused or ended, the epoch ends and the connection closes.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use kip_control::Link;
use kip_host::clock::boot_millis;
use kip_spec::InstanceId;
use kip_spec::function::Protocol;

use crate::prefix::Upload;
use crate::unsafe_peek::{Socket, SocketPeek};

/// Headers of an answer. Other proxies take 100 (Envoy) or count bytes only (nginx, HAProxy). hyper fills room for all of them for each
/// answer, so it is not more.
const MOST_HEADERS: usize = 160;
/// Idle connections kept for each instance and thread. Answers come in bunches: with fewer than are in use at once, some would be
/// closed at each bunch and opened anew for the next requests.
const IDLE: usize = 256;
/// A request that cannot be sent twice takes no connection that was idle for longer, in milliseconds: many servers close
/// theirs after 2 to 5 seconds, and a request that crosses that close on its way is lost.
const FRESH: u64 = 1_000;
/// How long a connection stays idle to an instance that takes one request at a time. While it does, a program that serves one
/// connection after the other answers nobody else: no probe, and nobody who talks to it past the gateway.
const BRIEF: u64 = 300;
/// What an instance may send before it is taken, on HTTP/2: of one stream, and of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A connection to an instance.
#[derive(Debug)]
pub(crate) enum Sender {
    /// For one exchange at a time.
    Http1 {
        sender: http1::SendRequest<Upload>,
        /// To see whether the instance has closed it.
        peek: SocketPeek,
    },
    /// Shared by all exchanges of a thread with the instance.
    Http2(http2::SendRequest<Upload>),
}

impl Sender {
    pub(crate) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        match self {
            Self::Http1 { sender, .. } => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

/// Connections by instance.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Tells pools apart.
    number: u64,
    known: RefCell<HashMap<InstanceId, Connections>>,
    /// Connections that stay idle briefly, in the order in which they fell idle: of which instance, and until when.
    brief: RefCell<VecDeque<(InstanceId, u64)>>,
}

impl Default for Pool {
    fn default() -> Self {
        static POOLS: AtomicU64 = AtomicU64::new(1);
        Self { number: POOLS.fetch_add(1, Ordering::Relaxed), known: RefCell::default(), brief: RefCell::default() }
    }
}

#[derive(Debug, Default)]
struct Connections {
    /// Idle ones, each with the time it fell idle.
    idle: Vec<(Sender, u64)>,
    shared: Option<http2::SendRequest<Upload>>,
}

impl Pool {
    /// A connection that is alive and free, if there is one. `once` is for a request that cannot be sent twice.
    pub(crate) fn take(&self, instance: InstanceId, protocol: Protocol, once: bool) -> Option<Sender> {
        let mut known = self.known.borrow_mut();
        let connections = known.get_mut(&instance)?;
        if protocol == Protocol::Http2 {
            connections.shared = connections.shared.take().filter(|sender| !sender.is_closed());
            return connections.shared.clone().map(Sender::Http2);
        }
        // The latest first: the others age, and are closed by whichever side tires first.
        while let Some((sender, since)) = connections.idle.pop() {
            let Sender::Http1 { sender: exchange, peek } = &sender else { continue };
            let fresh = !once || boot_millis().saturating_sub(since) <= FRESH;
            // A look that costs a system call; whatever can be sent twice does without.
            if fresh && exchange.is_ready() && !(once && peek.is_over()) {
                return Some(sender);
            }
            if !fresh {
                // Those below it are older still.
                connections.idle.push((sender, since));
                return None;
            }
        }
        None
    }

    /// Gives a connection back after its exchange has ended well.
    pub(crate) fn put(self: &Rc<Self>, link: &Link, connection: Sender) {
        let Sender::Http1 { sender, .. } = &connection else { return };
        if sender.is_closed() || link.takes_one() && !link.is_kept_by(self.number) {
            return;
        }
        let mut known = self.known.borrow_mut();
        let idle = &mut known.entry(link.instance).or_default().idle;
        if idle.len() >= IDLE {
            idle.remove(0);
        }
        let now = boot_millis();
        idle.push((connection, now));
        drop(known);
        if link.takes_one() {
            let mut brief = self.brief.borrow_mut();
            brief.push_back((link.instance, now + BRIEF));
            if brief.len() == 1 {
                drop(kip_host::tasks::spawn_local("idle connections", self.clone().close_brief()));
            }
        }
    }

    /// The instance closed a connection: what is kept of it goes, and the entry with the last one.
    fn drop_closed(&self, instance: InstanceId) {
        let mut known = self.known.borrow_mut();
        let Some(connections) = known.get_mut(&instance) else { return };
        let is_open = |sender: &Sender| match sender {
            Sender::Http1 { sender, .. } => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        };
        connections.idle.retain(|(sender, _)| is_open(sender));
        connections.shared = connections.shared.take().filter(|sender| !sender.is_closed());
        if connections.idle.is_empty() && connections.shared.is_none() {
            known.remove(&instance);
        }
    }

    /// The instances it keeps connections to.
    #[cfg(test)]
    pub(crate) fn instances(&self) -> Vec<InstanceId> {
        self.known.borrow().keys().copied().collect()
    }

    /// Closes connections that were idle briefly and were not used since, until there are none.
    async fn close_brief(self: Rc<Self>) {
        loop {
            let Some((instance, until)) = self.brief.borrow().front().copied() else { return };
            tokio::time::sleep(Duration::from_millis(until.saturating_sub(boot_millis()))).await;
            self.brief.borrow_mut().pop_front();
            if let Some(connections) = self.known.borrow_mut().get_mut(&instance) {
                connections.idle.retain(|(_, since)| since + BRIEF > until);
            }
        }
    }

    /// A new connection. Its task ends it when the instance's epoch ends and forgets what the pool holds of it.
    pub(crate) async fn connect(self: &Rc<Self>, link: &Arc<Link>, protocol: Protocol) -> io::Result<Sender> {
        let mut epoch = link.epoch();
        let mut keeper = link.takes_one().then(|| {
            link.keep(self.number);
            link.keeper()
        });
        let stream = link.endpoint.connect().await?;
        let (pool, instance) = (self.clone(), link.instance);
        let until_epoch_ends = async move {
            loop {
                let another_keeps = async {
                    match &mut keeper {
                        Some(keeper) => keeper.wait_for(|keeper| *keeper != pool.number).await.is_ok(),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = epoch.changed() => return drop(pool.known.borrow_mut().remove(&instance)),
                    _ = another_keeps => {
                        // One that is in use comes back, and is not kept then.
                        if let Some(known) = pool.known.borrow_mut().get_mut(&instance) {
                            known.idle.clear();
                        }
                        keeper = None;
                    }
                }
            }
        };
        if protocol == Protocol::Http2 {
            let (sender, connection) = http2::Builder::new(Local)
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)?;
            spawn(self.clone(), instance, connection, until_epoch_ends);
            self.known.borrow_mut().entry(instance).or_default().shared = Some(sender.clone());
            return Ok(Sender::Http2(sender));
        }
        let (socket, peek) = Socket::new(stream);
        let (sender, connection) = http1::Builder::new()
            .max_headers(MOST_HEADERS)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(io::Error::other)?;
        spawn(self.clone(), instance, connection.with_upgrades(), until_epoch_ends);
        Ok(Sender::Http1 { sender, peek })
    }
}

fn spawn(
    pool: Rc<Pool>,
    instance: InstanceId,
    connection: impl Future + 'static,
    until_epoch_ends: impl Future + 'static,
) {
    drop(kip_host::tasks::spawn_local("instance connection", async move {
        tokio::select! {
            _ = connection => pool.drop_closed(instance),
            _ = until_epoch_ends => {}
        }
    }));
}

/// Streams are tasks of the thread that their connection is on.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        drop(kip_host::tasks::spawn_local("http2 stream", future));
    }
}
