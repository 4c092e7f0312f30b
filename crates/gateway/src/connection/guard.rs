//! Between the socket and hyper: every request's bytes are looked at first, and none may take for ever to come.
//!
//! What is wrong with a request is answered by us, with a code: the parser gets a request of ours in its place
//! ([`REFUSED`]) and then the end of the stream, so that earlier requests on the connection are answered first.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use kip_host::clock::boot_millis;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::chunks::{ChunkPart, Chunks};
use super::fault::Fault;
use super::frames::{Flood, Frames};
use super::head::{Framing, Limits, check, end_of_head};
use super::state::{Decision, State};

/// The method of the request that stands for a bad one. A caller that sends it itself is refused as well.
pub(crate) const REFUSED: &str = "KIP-REFUSED";
const REFUSED_HEAD: &[u8] = b"KIP-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// What is read of a caller that was to wait for the answer to its upgrade.
const EARLY: usize = 16 << 10;
/// What is read at once while a head is not complete.
const PIECE: usize = 8 << 10;

/// The smallest limit for the length of a frame (RFC 9113, section 6.5.2), which the parser has.
const FRAME: usize = 16 << 10;
/// HEADERS on the last stream that there can be, and CONTINUATION; both without an end.
const CALM_HEAD: [u8; 9] = [0, 0, 0, 1, 0, 0x7f, 0xff, 0xff, 0xff];
const CALM_PART: [u8; 9] = [0, 0, 0, 9, 0, 0x7f, 0xff, 0xff, 0xff];
/// Parts that are more than the parser takes of the smallest head.
const CALM_PARTS: usize = 16;

/// How long a refused caller may go on sending before its connection is closed for good.
const LINGER_MILLIS: u64 = 1_000;
const LINGER: Duration = Duration::from_millis(LINGER_MILLIS);

/// How often to look whether a caller is still there of whose body nobody reads on.
const LOOK: Duration = Duration::from_secs(1);

/// How long things may take, and how large they may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) head: Limits,
    /// Bytes of a body.
    pub(crate) body: u64,
    /// Bytes of a body that are searched for the model it is for.
    pub(crate) model: usize,
    /// From a head's first byte to its last.
    pub(crate) head_time: Duration,
    /// Between two pieces of a body that somebody waits for.
    pub(crate) body_idle: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// How long a caller may take nothing of what is sent to it.
    pub(crate) write_idle: Duration,
}

#[derive(Debug)]
enum Phase {
    Head,
    Length(u64),
    Chunks(Chunks),
    /// Until the function has answered a request for another protocol.
    Upgrade,
    /// Another protocol; nothing is looked at.
    Raw,
    /// HTTP/2: only how many frames of which kind come.
    Frames(Frames),
    /// The parser of HTTP/2 gets a sequence of ours that makes it tell the caller to be calm, and then the end.
    Calmed,
    /// A request of ours is the last one: its answer closes the connection. An end before that would take the answer away.
    Refused,
    /// A body is not what it should be: it breaks off, and the answer about that is the last one.
    Broken,
    /// Nothing more is let through.
    Closed,
}

/// What the next byte is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Nothing: an answer is under way.
    Nothing,
    Request,
    Head,
    Body,
}

/// What a guard does with a caller's socket besides reading and writing.
pub(crate) trait Socket {
    /// Its close will be a reset, which nobody takes for a clean end.
    fn reset(&self);

    /// Whether the other side sends nothing more after what waits here. Looks only; takes nothing.
    fn is_left(&self) -> bool;
}

impl<S: Socket> Drop for Guard<S> {
    fn drop(&mut self) {
        if self.state.is_reset() {
            self.stream.reset();
        }
    }
}

/// A connection whose bytes are looked at.
#[derive(Debug)]
pub(crate) struct Guard<S: Socket> {
    stream: S,
    state: Arc<State>,
    bounds: Bounds,
    phase: Phase,
    /// Looked at, and on its way to the parser.
    cleared: BytesMut,
    /// Not looked at yet.
    held: BytesMut,
    /// What the parser of HTTP/2 gets in place of a flood.
    calm: BytesMut,
    /// How far the end of a head was looked for in `held`.
    searched: usize,
    wait: Wait,
    /// Since when, boot time.
    since: u64,
    /// The last look at the socket found nothing.
    pending: bool,
    timer: Timer,
    /// When it was last looked whether a caller whose body nobody reads is still there, boot time.
    looked: u64,
    look: Timer,
    /// Since when the caller takes nothing.
    blocked_since: Option<u64>,
    blocked: Timer,
    /// Since when the rest of what a refused caller sends is thrown away.
    lingers_since: Option<u64>,
}

/// One timer for all waits of a kind; it is moved when it fires or is too late, not with each wait.
#[derive(Debug, Default)]
struct Timer {
    sleep: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Timer {
    /// Whether a wait since then has reached its limit. If not, the task is woken when it has.
    fn is_over(&mut self, since: u64, limit: Duration, context: &mut Context<'_>) -> bool {
        let due = since.saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        loop {
            let now = boot_millis();
            if now >= due {
                return true;
            }
            let (_, sleep) = match &mut self.sleep {
                Some(armed) if armed.0 <= due => armed,
                empty => empty.insert((due, Box::pin(tokio::time::sleep(Duration::from_millis(due - now))))),
            };
            if sleep.as_mut().poll(context).is_pending() {
                return false;
            }
            self.sleep = None;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Socket> Guard<S> {
    /// Guards a connection of which some bytes were read already.
    pub(crate) fn new(stream: S, read: BytesMut, bounds: Bounds, state: Arc<State>) -> Self {
        Self {
            stream,
            state,
            bounds,
            phase: Phase::Head,
            cleared: BytesMut::new(),
            held: read,
            calm: BytesMut::new(),
            searched: 0,
            wait: Wait::Request,
            since: boot_millis(),
            pending: false,
            timer: Timer::default(),
            looked: 0,
            look: Timer::default(),
            blocked_since: None,
            blocked: Timer::default(),
            lingers_since: None,
        }
    }

    /// A connection of HTTP/2, with the bytes that were read already.
    pub(crate) fn http2(stream: S, read: BytesMut, bounds: Bounds) -> Self {
        let mut guard = Self::new(stream, read, bounds, Arc::default());
        guard.phase = Phase::Frames(Frames::new(boot_millis()));
        guard
    }

    /// How much of a piece of frames may pass. Behind it, the parser gets what makes it end the connection with GOAWAY and ENHANCE_YOUR_CALM: a head that
    /// goes on in more parts than it takes.
    fn follow_frames(&mut self, piece: &[u8]) -> usize {
        let Phase::Frames(frames) = &mut self.phase else { return piece.len() };
        let Some(Flood { passes, content }) = frames.follow(piece, boot_millis) else { return piece.len() };
        let parts = self.bounds.head.head / FRAME * 2 + CALM_PARTS;
        self.calm.reserve(content.min(FRAME) + CALM_HEAD.len() * (parts + 1));
        // A header that is through already gets content that means little; of a larger frame the parser takes the header alone for an error.
        self.calm.extend((0..content.min(FRAME)).map(|at| u8::from(at == 3)));
        self.calm.extend_from_slice(&CALM_HEAD);
        (0..parts).for_each(|_| self.calm.extend_from_slice(&CALM_PART));
        self.phase = Phase::Calmed;
        tracing::debug!("a connection of HTTP/2 is ended: far more frames of control came than requests and data");
        passes
    }

    fn refuse(&mut self, fault: Fault) {
        self.state.set_fault(fault);
        self.phase = Phase::Refused;
        self.cleared.extend_from_slice(REFUSED_HEAD);
    }

    /// Looks at the start of `held` and clears what may pass.
    fn clear(&mut self) {
        match &mut self.phase {
            Phase::Head => {
                // Empty lines before a request mean nothing (RFC 9112, section 2.2).
                while self.held.starts_with(b"\r\n") {
                    self.held.advance(2);
                    self.searched = 0;
                }
                match end_of_head(&self.held, self.searched) {
                    // Not a method's first letter: TLS, most likely, whose caller would wait for an answer for long.
                    _ if self.held.first().is_some_and(|byte| !byte.is_ascii_graphic() && *byte != b'\r') => {
                        self.refuse(Fault::RequestLine);
                    }
                    Some(end) => {
                        let head = self.held.split_to(end);
                        self.searched = 0;
                        match self.begin(&head) {
                            Ok(()) => self.cleared.unsplit(head),
                            Err(fault) => {
                                self.state.set_line(&head);
                                self.refuse(fault);
                            }
                        }
                    }
                    None if self.held.len() > self.bounds.head.head => self.refuse(Fault::HeadTooLarge),
                    None => self.searched = self.held.len(),
                }
            }
            Phase::Length(left) => {
                let here = self.held.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= here as u64;
                if *left == 0 {
                    self.phase = Phase::Head;
                }
                self.cleared.unsplit(self.held.split_to(here));
            }
            Phase::Chunks(_) => {
                let held = std::mem::take(&mut self.held);
                let (passes, rest) = held.split_at(self.follow_chunks(&held));
                self.cleared.extend_from_slice(passes);
                self.held.extend_from_slice(rest);
            }
            Phase::Raw => self.cleared.unsplit(self.held.split()),
            Phase::Frames(_) => {
                let held = std::mem::take(&mut self.held);
                let passes = self.follow_frames(&held);
                self.cleared.extend_from_slice(&held[..passes]);
                let calm = std::mem::take(&mut self.calm);
                self.cleared.extend_from_slice(&calm);
            }
            Phase::Upgrade | Phase::Calmed | Phase::Refused | Phase::Broken | Phase::Closed => {}
        }
    }

    /// A whole head: what comes after it.
    fn begin(&mut self, head: &[u8]) -> Result<(), Fault> {
        self.phase = match check(head, &self.bounds.head)? {
            Framing::Length(0) => Phase::Head,
            Framing::Length(length) if length > self.bounds.body => return Err(Fault::BodyTooLarge),
            Framing::Length(length) => Phase::Length(length),
            Framing::Chunked => Phase::Chunks(Chunks::new(self.bounds.body)),
            // Which request the function's answer is about would not be clear.
            Framing::Upgrade if self.state.is_busy() => return Err(Fault::EarlyUpgrade),
            Framing::Upgrade => Phase::Upgrade,
        };
        self.looked = boot_millis();
        self.state.begin();
        Ok(())
    }

    /// How much of a piece of chunks may pass. If something is wrong nothing comes after it, and the parser gives the body
    /// up as one that broke off.
    fn follow_chunks(&mut self, piece: &[u8]) -> usize {
        let Phase::Chunks(chunks) = &mut self.phase else { return 0 };
        let (passes, fault) = match chunks.follow(piece) {
            ChunkPart::More => (piece.len(), None),
            ChunkPart::End(end) => (end, None),
            ChunkPart::Wrong(place, fault) => (place, Some(fault)),
        };
        if let Some(fault) = fault {
            self.state.set_body_fault(fault);
            self.phase = Phase::Broken;
        } else if chunks.is_over() {
            self.phase = Phase::Head;
        }
        passes
    }

    /// Looks at what was just read into the parser's own buffer, from `start` on: in most cases nothing has to be moved.
    fn in_place(&mut self, buffer: &mut ReadBuf<'_>, start: usize) {
        let piece = &buffer.filled()[start..];
        match &mut self.phase {
            // A whole head and nothing behind it.
            Phase::Head if end_of_head(piece, 0) == Some(piece.len()) && !piece.starts_with(b"\r\n") => {
                if let Err(fault) = self.begin(piece) {
                    self.state.set_line(piece);
                    buffer.set_filled(start);
                    self.refuse(fault);
                }
            }
            Phase::Length(left) if piece.len() as u64 <= *left => {
                *left -= piece.len() as u64;
                if *left == 0 {
                    self.phase = Phase::Head;
                }
            }
            Phase::Chunks(_) => {
                let passes = self.follow_chunks(piece);
                self.held.extend_from_slice(&piece[passes..]);
                buffer.set_filled(start + passes);
            }
            Phase::Raw => {}
            Phase::Frames(_) => {
                let passes = self.follow_frames(piece);
                buffer.set_filled(start + passes);
                self.cleared = std::mem::take(&mut self.calm);
            }
            // Anything else goes the long way.
            _ => {
                self.held.extend_from_slice(piece);
                buffer.set_filled(start);
            }
        }
    }

    /// Whether the wait for a byte has lasted too long.
    fn overdue(&mut self, context: &mut Context<'_>) -> bool {
        let wait = match self.phase {
            Phase::Head if !self.held.is_empty() => Wait::Head,
            Phase::Head if self.state.is_busy() => Wait::Nothing,
            Phase::Head => Wait::Request,
            Phase::Length(_) | Phase::Chunks(_) => Wait::Body,
            Phase::Upgrade | Phase::Raw | Phase::Frames(_) => Wait::Nothing,
            Phase::Calmed | Phase::Refused | Phase::Broken | Phase::Closed => Wait::Nothing,
        };
        if wait != self.wait {
            self.wait = wait;
            self.since = boot_millis();
        }
        let (since, limit) = match wait {
            // Nobody wakes us when the answer is over, so that is looked for now and then.
            Wait::Nothing => return self.timer.is_over(boot_millis(), self.bounds.idle, context),
            // By the clock of the last answer: this may be the first look since.
            Wait::Request => (self.state.ended().unwrap_or(self.since), self.bounds.idle),
            Wait::Head => (self.since, self.bounds.head_time),
            Wait::Body => (self.since, self.bounds.body_idle),
        };
        self.timer.is_over(since, limit, context)
    }

    fn late(&mut self) {
        match self.wait {
            Wait::Head => self.refuse(Fault::HeadLate),
            Wait::Body => {
                self.state.set_body_fault(Fault::BodyLate);
                self.phase = Phase::Broken;
            }
            Wait::Request | Wait::Nothing => self.phase = Phase::Closed,
        }
    }

    /// Reads what may not pass yet.
    fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.held.reserve(PIECE);
        tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), context, &mut self.held)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Socket> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.cleared.is_empty() {
                let length = this.cleared.len().min(buffer.remaining());
                buffer.put_slice(&this.cleared[..length]);
                this.cleared.advance(length);
                // Connections wait for most of their life, and need no memory for it.
                if this.cleared.is_empty() {
                    this.cleared = BytesMut::new();
                }
                if this.held.is_empty() {
                    this.held = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match (&this.phase, this.state.decision()) {
                (Phase::Refused, _) => return Poll::Pending,
                (Phase::Broken, _) => {
                    // One end breaks the body off; a second would be taken for the caller's leaving, and end the answer too.
                    this.phase = Phase::Refused;
                    return Poll::Ready(Ok(()));
                }
                (Phase::Closed | Phase::Calmed, _) => return Poll::Ready(Ok(())),
                (Phase::Upgrade, Decision::Granted) => this.phase = Phase::Raw,
                (Phase::Upgrade, Decision::Refused) => this.phase = Phase::Head,
                (Phase::Upgrade, Decision::Open) => {
                    this.state.wait(context.waker());
                    if this.held.len() > EARLY {
                        return Poll::Pending;
                    }
                    if ready!(this.poll_ahead(context))? == 0 {
                        this.phase = Phase::Closed;
                    }
                }
                _ if !this.held.is_empty() => {
                    this.clear();
                    // A head that is not complete.
                    if this.cleared.is_empty() && matches!(this.phase, Phase::Head) {
                        match this.poll_ahead(context) {
                            Poll::Ready(read) => {
                                if read? == 0 {
                                    this.phase = Phase::Closed;
                                }
                            }
                            Poll::Pending if this.overdue(context) => this.late(),
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                }
                _ => {
                    let start = buffer.filled().len();
                    match Pin::new(&mut this.stream).poll_read(context, buffer) {
                        Poll::Ready(read) => {
                            read?;
                            if buffer.filled().len() == start {
                                return Poll::Ready(Ok(()));
                            }
                            this.pending = false;
                            this.in_place(buffer, start);
                            if buffer.filled().len() > start {
                                return Poll::Ready(Ok(()));
                            }
                        }
                        Poll::Pending => {
                            // The wait for a body begins when somebody asks for its next piece, not when the last one came.
                            if !std::mem::replace(&mut this.pending, true) && this.wait == Wait::Body {
                                this.since = boot_millis();
                            }
                            if !this.overdue(context) {
                                return Poll::Pending;
                            }
                            this.late();
                        }
                    }
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Socket> Guard<S> {
    /// Whether the caller left in the midst of a body that nobody reads on: of one that waits for an instance only so much is taken,
    /// and the parser notices an end only where it reads.
    fn has_left(&mut self, context: &mut Context<'_>) -> bool {
        // Whether the socket was empty at the last look does not matter: who is told of an end may not read then.
        if !matches!(self.phase, Phase::Length(_) | Phase::Chunks(_)) || !self.look.is_over(self.looked, LOOK, context)
        {
            return false;
        }
        self.looked = boot_millis();
        self.stream.is_left() || self.look.is_over(self.looked, LOOK, context)
    }

    /// What is sent to a caller earns it frames of control.
    fn note_sent(&mut self, written: &Poll<io::Result<usize>>) {
        if let (Phase::Frames(frames), Poll::Ready(Ok(bytes))) = (&mut self.phase, written) {
            frames.sent(*bytes);
        }
    }

    /// What came of a write; one that nobody takes for long ends the connection.
    fn written<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.blocked_since = None;
            return written;
        }
        let since = *self.blocked_since.get_or_insert_with(boot_millis);
        if self.blocked.is_over(since, self.bounds.write_idle, context) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller takes nothing of its answer")));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Socket> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.note_sent(&written);
        this.written(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        this.note_sent(&written);
        this.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.has_left(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.written(context, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        // A socket closed with bytes unread takes the answer back that says what was wrong with them.
        if !matches!(this.phase, Phase::Refused | Phase::Closed | Phase::Calmed) {
            return Poll::Ready(Ok(()));
        }
        let since = *this.lingers_since.get_or_insert_with(boot_millis);
        loop {
            this.held.clear();
            match this.poll_ahead(context) {
                Poll::Ready(Ok(1..)) if boot_millis().saturating_sub(since) < LINGER_MILLIS => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending if this.timer.is_over(since, LINGER, context) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
