//! A connection that became another protocol's: bytes go both ways until one side ends, and count as load until then.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use kip_control::{DirectionGuard, Permit};
use kip_host::clock::boot_millis;
use kip_spec::{Code, code};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::Notify;

use crate::trace::{Outcome, Trace, Tracer};

/// Bytes taken at once from one side.
const PIECE: usize = 16 << 10;
/// How long the other side may take to end after one has.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a tunnel is made of.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) caller: OnUpgrade,
    pub(crate) instance: OnUpgrade,
    pub(crate) permit: Permit,
    pub(crate) tracer: Rc<Tracer>,
    pub(crate) trace: Trace,
}

/// The tunnels of one thread.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    open: Cell<usize>,
    closed: Notify,
}

impl Tunnels {
    pub(crate) fn open(self: &Rc<Self>, tunnel: Tunnel) {
        self.open.set(self.open.get() + 1);
        let one = OpenTunnel(self.clone());
        drop(kip_host::tasks::spawn_local("tunnel", async move {
            tunnel.run().await;
            drop(one);
        }));
    }

    /// Waits until none is left.
    pub(crate) async fn over(&self) {
        while self.open.get() > 0 {
            self.closed.notified().await;
        }
    }
}

struct OpenTunnel(Rc<Tunnels>);

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.closed.notify_waiters();
    }
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DirectionEnd {
    /// Its source had no more.
    Over,
    /// Its source broke off.
    Source,
    /// Its destination took no more.
    Destination,
}

impl Tunnel {
    async fn run(self) {
        let Self { caller, instance, permit, tracer, mut trace } = self;
        // While nobody says anything, that is the caller's affair: silence does not make the instance suspect.
        let mut turn = DirectionGuard::new(permit.link().clone());
        turn.of_caller();
        let (outcome, code) = match tokio::join!(caller, instance) {
            (Ok(caller), Ok(instance)) => carry(caller, instance, &permit, &mut trace).await,
            (Err(_), _) => (Outcome::Left, None),
            (_, Err(_)) => (Outcome::Broken, Some(code::INSTANCE_BROKE_OFF)),
        };
        drop(turn);
        trace.code = code;
        tracer.end(&trace, outcome);
    }
}

async fn carry(caller: Upgraded, instance: Upgraded, permit: &Permit, trace: &mut Trace) -> (Outcome, Option<Code>) {
    let (from_caller, to_caller) = tokio::io::split(TokioIo::new(caller));
    let (from_instance, to_instance) = tokio::io::split(TokioIo::new(instance));
    let moved = Cell::new(boot_millis());
    let (up, down) = (Cell::new(0u64), Cell::new(0u64));
    let sign = |count: &Cell<u64>, bytes: usize| {
        count.set(count.get() + bytes as u64);
        moved.set(boot_millis());
        permit.link().sign();
    };
    let ended = {
        let upward = pump(from_caller, to_instance, |bytes| sign(&up, bytes));
        let downward = pump(from_instance, to_caller, |bytes| sign(&down, bytes));
        let idle = idle(&moved, permit.link().version.spec.timeouts.idle.to_std());
        tokio::pin!(upward, downward);
        tokio::select! {
            end = &mut upward => {
                // A side that broke off is waited for by nobody.
                if end == DirectionEnd::Over {
                    let _ = tokio::time::timeout(FAREWELL, downward).await;
                }
                match end {
                    DirectionEnd::Over => (Outcome::Done, None),
                    DirectionEnd::Source => (Outcome::Left, None),
                    DirectionEnd::Destination => (Outcome::Broken, Some(code::INSTANCE_BROKE_OFF)),
                }
            }
            end = &mut downward => {
                if end == DirectionEnd::Over {
                    let _ = tokio::time::timeout(FAREWELL, upward).await;
                }
                match end {
                    DirectionEnd::Over => (Outcome::Done, None),
                    DirectionEnd::Source => (Outcome::Broken, Some(code::INSTANCE_BROKE_OFF)),
                    DirectionEnd::Destination => (Outcome::Left, None),
                }
            }
            () = idle => (Outcome::Broken, Some(code::BODY_IDLE_TIMEOUT)),
        }
    };
    trace.bytes = down.get();
    trace.bytes_in.fetch_add(up.get(), std::sync::atomic::Ordering::Relaxed);
    ended
}

/// Carries one direction to its end, which it passes on.
async fn pump(
    mut from: ReadHalf<TokioIo<Upgraded>>,
    mut to: WriteHalf<TokioIo<Upgraded>>,
    sign: impl Fn(usize),
) -> DirectionEnd {
    let mut piece = vec![0; PIECE];
    loop {
        let bytes = match from.read(&mut piece).await {
            Ok(0) => {
                let _ = to.shutdown().await;
                return DirectionEnd::Over;
            }
            Ok(bytes) => bytes,
            Err(_) => {
                let _ = to.shutdown().await;
                return DirectionEnd::Source;
            }
        };
        sign(bytes);
        if to.write_all(&piece[..bytes]).await.is_err() || to.flush().await.is_err() {
            return DirectionEnd::Destination;
        }
    }
}

/// Ends once nothing went either way for so long.
async fn idle(moved: &Cell<u64>, limit: Duration) {
    loop {
        let quiet = Duration::from_millis(boot_millis().saturating_sub(moved.get()));
        if quiet >= limit {
            return;
        }
        tokio::time::sleep(limit - quiet).await;
    }
}
