//! A request's hold on an instance, given back when dropped, whatever became of the request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use kip_fleet::{Event, ProbeFailure, Refusal, StartKind, Ticket};
use kip_spec::QualifierName;
use tokio::sync::oneshot;

use crate::cell::Cell;
use crate::link::Link;

/// A request was refused.
#[derive(Debug, Clone)]
pub struct RequestRefusal {
    /// Why.
    pub refusal: Refusal,
    /// What is known of the failed start behind it: the detail and the program's last lines.
    pub detail: Option<Arc<str>>,
}

/// What the core said of a request that had to wait.
#[derive(Debug)]
pub(crate) enum Verdict {
    Go { link: Arc<Link>, start: StartKind },
    Refused(RequestRefusal),
}

/// The right to send one request to one instance. Dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    hold: PermitSlot,
    link: Arc<Link>,
    start: StartKind,
    qualifier: Option<QualifierName>,
}

impl Permit {
    /// For a request that takes no place.
    pub(crate) fn beside(cell: Arc<Cell>, link: Arc<Link>) -> Self {
        // No ticket has this number; and nothing is given back.
        let hold = PermitSlot { cell, ticket: Ticket(u64::MAX), released: true, outlives: false };
        Self { hold, link, start: StartKind::Warm, qualifier: None }
    }
}

/// A place in the queue or on an instance.
#[derive(Debug)]
struct PermitSlot {
    cell: Arc<Cell>,
    ticket: Ticket,
    released: bool,
    /// The work goes on when the server ends.
    outlives: bool,
}

impl Drop for PermitSlot {
    fn drop(&mut self) {
        if self.outlives {
            self.cell.outliving.fetch_sub(1, Ordering::Relaxed);
        }
        if !self.released {
            self.cell.step(Event::Leave { ticket: self.ticket });
        }
    }
}

impl Permit {
    pub(crate) fn new(cell: Arc<Cell>, ticket: Ticket, link: Arc<Link>, start: StartKind) -> Self {
        let hold = PermitSlot { cell, ticket, released: false, outlives: false };
        Self { hold, link, start, qualifier: None }
    }

    /// The same for a request that came with a qualifier.
    pub fn of(self, qualifier: Option<QualifierName>) -> Self {
        Self { qualifier, ..self }
    }

    /// The qualifier that the request came with, in the spelling of its function.
    pub fn qualifier(&self) -> Option<&QualifierName> {
        self.qualifier.as_ref()
    }

    /// The instance it is for.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// What the request had to wait for.
    pub fn start(&self) -> StartKind {
        self.start
    }

    /// Waits until the end of the instance has been seen, if it is ending. Another request would else be given the same instance.
    pub async fn instance_ended(&self) {
        self.link.ended().await;
    }

    /// The instance refused a connection. If it is not ending, its program does not listen any more, and the instance is replaced
    /// at once.
    pub async fn connection_refused(&self) {
        if !self.link.ended().await {
            let instance = self.link.instance;
            self.hold.cell.step(Event::Unhealthy { instance, how: ProbeFailure::Refused });
        }
    }

    /// What can stop the work that this is given to.
    pub fn brake(&self) -> Brake {
        Brake { cell: self.hold.cell.clone(), ticket: self.hold.ticket }
    }

    /// The work goes on when the server ends: nobody need wait for it then.
    pub fn outlives(&mut self) {
        if !self.hold.outlives {
            self.hold.outlives = true;
            self.hold.cell.outliving.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The server ends and the work goes on: its place is not given back, so that its instance is left alone until the next server
    /// has taken hold of it.
    pub fn leave_to_next(mut self) {
        self.hold.released = true;
    }

    /// The function it is for.
    pub fn cell(&self) -> &Arc<Cell> {
        &self.hold.cell
    }
}

/// Stops work on an instance.
#[derive(Debug)]
pub struct Brake {
    cell: Arc<Cell>,
    ticket: Ticket,
}

impl Brake {
    /// The instance gets nothing new and ends when the place is given back, unless others work on it too. To be called before
    /// the permit is dropped.
    pub fn pull(&self) {
        self.cell.step(Event::Halt { ticket: self.ticket });
    }
}

/// A request in the queue. Dropping it leaves the queue, or the instance if one was found in the same moment.
#[derive(Debug)]
pub struct QueuedRequest {
    hold: Option<PermitSlot>,
    qualifier: Option<QualifierName>,
    verdict: oneshot::Receiver<Verdict>,
}

impl QueuedRequest {
    pub(crate) fn new(
        cell: Arc<Cell>,
        ticket: Ticket,
        qualifier: Option<QualifierName>,
        verdict: oneshot::Receiver<Verdict>,
    ) -> Self {
        Self { hold: Some(PermitSlot { cell, ticket, released: false, outlives: false }), qualifier, verdict }
    }
}

impl Future for QueuedRequest {
    type Output = Result<Permit, RequestRefusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let verdict = std::task::ready!(Pin::new(&mut self.verdict).poll(context));
        let Some(mut hold) = self.hold.take() else {
            return Poll::Ready(Err(RequestRefusal { refusal: Refusal::ShuttingDown, detail: None }));
        };
        match verdict {
            Ok(Verdict::Go { link, start }) => {
                Poll::Ready(Ok(Permit { hold, link, start, qualifier: self.qualifier.take() }))
            }
            Ok(Verdict::Refused(refused)) => {
                hold.released = true;
                Poll::Ready(Err(refused))
            }
            Err(_) => Poll::Ready(Err(RequestRefusal { refusal: Refusal::ShuttingDown, detail: None })),
        }
    }
}
