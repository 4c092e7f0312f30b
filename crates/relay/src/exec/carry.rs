//! The bytes of a session, both ways, until something ends it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use kip_control::{ExecEnd, ExecExit, ExecProcess, ExecStream, TerminalSize};
use kip_host::clock::monotonic_micros;
use kip_spec::{Millis, Problem, code};
use kip_wire::{EXEC_ERROR, EXEC_OUTPUT, ExecClientMessage, ExecServerMessage};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::open::Session;
use super::request::{Dialect, LONGEST_MESSAGE};

/// How often a client is asked whether it is there: one that was killed takes no byte any more.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long a client may take to begin.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long the last messages may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the end of an instance may take to be known after one of its programs was killed.
const NOTICE: Duration = Duration::from_secs(3);
/// What engines say of a program that was killed.
const KILLED: i32 = 137;
/// After the end of the program and of all that it has started, output that was written before is read for as long as none is missing.
const REST: Duration = Duration::from_secs(1);
/// Messages without a byte for the program that a client may send in a second: pings, sizes, empty ones.
const EMPTY_A_SECOND: u32 = 200;

type Socket<IO> = WebSocketStream<IO>;

/// How a session ended.
#[derive(Debug)]
enum Outcome {
    /// Its program ended.
    Exited(ExecExit),
    /// Its client left.
    Left,
    /// The client sent what it may not.
    Misused(String),
    /// Nothing went either way for so long.
    Idle(Duration),
    /// It had to end.
    Ended(ExecEnd),
    /// The program's output cannot be read.
    Broken(std::io::Error),
}

/// A WebSocket over a connection that the handshake is done on. `role` is the side that we are.
pub async fn socket<IO: AsyncRead + AsyncWrite + Unpin>(io: IO, role: Role) -> Socket<IO> {
    let config = WebSocketConfig::default()
        .read_buffer_size(32 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(1 << 20)
        .max_message_size(Some(LONGEST_MESSAGE))
        .max_frame_size(Some(LONGEST_MESSAGE));
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

/// The first message of a client of the native protocol.
///
/// # Errors
/// It is another one, or none comes in time.
pub async fn start_of<IO>(socket: &mut Socket<IO>) -> Result<kip_wire::ExecStart, Problem>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let wrong = |cause: String| {
        Problem::new(code::EXEC_REQUEST, "an exec session begins with a message that says what to run").cause(cause)
    };
    let first = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return match serde_json::from_str(&text) {
                        Ok(ExecClientMessage::Start(start)) => Ok(start),
                        Ok(_) => Err(wrong("it is a message of another type".to_owned())),
                        Err(error) => Err(wrong(error.to_string())),
                    };
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_)) => return Err(wrong("it is no text".to_owned())),
                Some(Err(error)) => return Err(wrong(error.to_string())),
                None => return Err(wrong("the client left".to_owned())),
            }
        }
    };
    match tokio::time::timeout(START_LIMIT, first).await {
        Ok(start) => start,
        Err(_) => Err(wrong(format!("none came within {START_LIMIT:?}"))),
    }
}

/// Sends a message of the native protocol; a client that is gone is found out elsewhere.
pub async fn say<IO: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<IO>, message: &ExecServerMessage) {
    let text = serde_json::to_string(message).unwrap_or_default();
    let _ = tokio::time::timeout(FAREWELL, socket.send(Message::text(text))).await;
}

/// Tells a client that there will be no session, and ends the connection.
pub async fn refuse<IO: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<IO>, error: Problem) {
    say(&mut socket, &ExecServerMessage::Failed { error }).await;
    close(&mut socket, CloseCode::Normal, "").await;
}

async fn close<IO: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<IO>, code: CloseCode, reason: &str) {
    let frame = CloseFrame { code, reason: reason.to_owned().into() };
    let farewell = async {
        // The answer to a client that has said good-bye first.
        let _ = socket.flush().await;
        let _ = socket.close(Some(frame)).await;
        // Until the client has answered: what was sent last would else be lost with the connection.
        while let Some(Ok(_)) = socket.next().await {}
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

impl Session {
    /// Carries the session to its end, which the record has then.
    pub async fn carry<IO>(self, mut socket: Socket<IO>, dialect: Dialect)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { process, permit, place, record, object, control } = self;
        if dialect == Dialect::Native {
            let link = permit.link();
            let started = ExecServerMessage::Started {
                instance: link.instance.to_string(),
                version: link.version.label(),
                start: permit.start().name().to_owned(),
            };
            say(&mut socket, &started).await;
        }
        let (mut sink, mut stream) = socket.split();
        let last = Activity::default();
        let idle = control.exec_options().idle;
        let process = process.as_ref();
        let outcome = tokio::select! {
            outcome = outputs(process, &mut sink, &last) => outcome,
            outcome = inputs(process, &mut stream, dialect, &last) => outcome,
            () = last.silent_for(idle) => Outcome::Idle(idle),
            why = place.must_end() => Outcome::Ended(why),
        };
        process.end().await;
        let outcome = match outcome {
            // Killed: perhaps with its instance, whose end is known in a moment.
            Outcome::Exited(ExecExit { code, signal }) if signal == Some(9) || code == Some(KILLED) => {
                let ends = tokio::time::timeout(NOTICE, place.must_end()).await;
                ends.map_or(Outcome::Exited(ExecExit { code, signal }), Outcome::Ended)
            }
            outcome => outcome,
        };
        // Before the client is told: it may look at once.
        let why = permit.link().end().map(ToString::to_string);
        drop((permit, place));
        record.end(object, outcome.result()).await;
        if let Ok(mut socket) = sink.reunite(stream) {
            let (code, message) = outcome.farewell(why);
            if let (Dialect::Native, Some(message)) = (dialect, &message) {
                say(&mut socket, message).await;
            }
            close(&mut socket, code, &outcome.result()).await;
        }
    }
}

/// When the last byte went through.
#[derive(Debug)]
struct Activity(AtomicU64);

impl Default for Activity {
    fn default() -> Self {
        Self(AtomicU64::new(monotonic_micros()))
    }
}

impl Activity {
    fn note(&self) {
        self.0.store(monotonic_micros(), Ordering::Relaxed);
    }

    async fn silent_for(&self, limit: Duration) {
        loop {
            let passed = Duration::from_micros(monotonic_micros().saturating_sub(self.0.load(Ordering::Relaxed)));
            match limit.checked_sub(passed).filter(|left| !left.is_zero()) {
                Some(left) => tokio::time::sleep(left).await,
                None => return,
            }
        }
    }
}

/// What the program writes, until it has ended and nothing of it is left.
async fn outputs<IO>(process: &dyn ExecProcess, sink: &mut SplitSink<Socket<IO>, Message>, last: &Activity) -> Outcome
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let ended = async {
        let exit = process.exit().await;
        // What it has started does not go on without it, and would keep its output open.
        process.end().await;
        exit
    };
    tokio::pin!(ended);
    let mut exit = None;
    let mut ping = tokio::time::interval(PING_EVERY);
    loop {
        let rest = async {
            match exit {
                Some(_) => tokio::time::sleep(REST).await,
                None => std::future::pending().await,
            }
        };
        let message = tokio::select! {
            biased;
            piece = process.read() => match piece {
                Ok(Some((stream, piece))) => {
                    last.note();
                    Message::binary(framed(stream, &piece))
                }
                Ok(None) => {
                    let exit = match exit {
                        Some(exit) => exit,
                        // It has closed its output and goes on.
                        None => tokio::select! {
                            exit = &mut ended => exit,
                            () = pings(sink, &mut ping) => return Outcome::Left,
                        },
                    };
                    return Outcome::Exited(exit);
                }
                Err(error) => return Outcome::Broken(error),
            },
            seen = &mut ended, if exit.is_none() => {
                exit = Some(seen);
                continue;
            }
            () = rest => return Outcome::Exited(exit.unwrap_or_default()),
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        // The next piece is read when this one is on its way: a slow client makes the program wait.
        if sink.send(message).await.is_err() {
            return Outcome::Left;
        }
    }
}

/// Asks the client again and again; returns when it is gone.
async fn pings<IO>(sink: &mut SplitSink<Socket<IO>, Message>, ping: &mut tokio::time::Interval)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        ping.tick().await;
        if sink.send(Message::Ping(Bytes::new())).await.is_err() {
            return;
        }
    }
}

fn framed(stream: ExecStream, piece: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(piece.len() + 1);
    framed.put_u8(match stream {
        ExecStream::Output => EXEC_OUTPUT,
        ExecStream::Error => EXEC_ERROR,
    });
    framed.extend_from_slice(piece);
    framed.freeze()
}

/// What the client sends, until it leaves or sends what it may not.
async fn inputs<IO>(
    process: &dyn ExecProcess,
    stream: &mut SplitStream<Socket<IO>>,
    dialect: Dialect,
    last: &Activity,
) -> Outcome
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut empty = Flood::default();
    loop {
        let message = match stream.next().await {
            Some(Ok(message)) => message,
            Some(Err(SocketError::Capacity(error))) => {
                return Outcome::Misused(format!("a message is too long: {error}"));
            }
            Some(Err(SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => return Outcome::Left,
            Some(Err(SocketError::Protocol(error))) => return Outcome::Misused(error.to_string()),
            Some(Err(_)) | None => return Outcome::Left,
        };
        let input = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) if dialect == Dialect::FunctionCompute => Bytes::from(text),
            Message::Text(text) => {
                match serde_json::from_str(&text) {
                    Ok(ExecClientMessage::Resize(size)) if size.columns > 0 && size.rows > 0 => {
                        process.resize(TerminalSize { columns: size.columns, rows: size.rows }).await;
                    }
                    Ok(ExecClientMessage::InputEnd) => process.end_input().await,
                    Ok(_) => return Outcome::Misused("a message that cannot come here".to_owned()),
                    Err(error) => return Outcome::Misused(format!("a message cannot be read: {error}")),
                }
                Bytes::new()
            }
            Message::Close(_) => return Outcome::Left,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Bytes::new(),
        };
        if input.is_empty() {
            if empty.is_too_much() {
                return Outcome::Misused(format!("more than {EMPTY_A_SECOND} messages without content in a second"));
            }
            continue;
        }
        last.note();
        give(process, &input, last).await;
    }
}

/// Gives the program all of this. What it does not want, because it has closed its input, is left out.
async fn give(process: &dyn ExecProcess, mut input: &[u8], last: &Activity) {
    while !input.is_empty() {
        match process.write(input).await {
            Ok(taken) if taken > 0 => input = input.get(taken..).unwrap_or_default(),
            Ok(_) | Err(_) => return,
        }
        last.note();
    }
}

/// Counts messages without content by the second.
#[derive(Debug, Default)]
struct Flood {
    second: u64,
    count: u32,
}

impl Flood {
    fn is_too_much(&mut self) -> bool {
        let now = monotonic_micros() / 1_000_000;
        if self.second != now {
            (self.second, self.count) = (now, 0);
        }
        self.count += 1;
        self.count > EMPTY_A_SECOND
    }
}

impl Outcome {
    /// For the record.
    fn result(&self) -> String {
        match self {
            Self::Exited(ExecExit { code: Some(code), .. }) => format!("exit {code}"),
            Self::Exited(ExecExit { signal: Some(signal), .. }) => format!("signal {signal}"),
            Self::Exited(_) => "ended".to_owned(),
            Self::Left => "the client left".to_owned(),
            Self::Misused(_) => code::EXEC_REQUEST.to_string(),
            Self::Idle(_) | Self::Ended(_) => code::EXEC_ENDED.to_string(),
            Self::Broken(_) => code::EXEC_FAILED.to_string(),
        }
    }

    /// The last message, and the code that the connection is closed with. `why` says what became of the instance.
    fn farewell(&self, why: Option<String>) -> (CloseCode, Option<ExecServerMessage>) {
        let failed = |error: Problem| Some(ExecServerMessage::Failed { error });
        let ended = |message: String| Problem::new(code::EXEC_ENDED, message);
        match self {
            Self::Exited(ExecExit { code: None, signal: None }) => {
                let error = ended("the exec session was ended with its instance".to_owned());
                (CloseCode::Away, failed(why.map_or_else(|| error.clone(), |why| error.clone().cause(why))))
            }
            Self::Exited(ExecExit { code, signal }) => {
                (CloseCode::Normal, Some(ExecServerMessage::Exited { code: *code, signal: *signal }))
            }
            Self::Left => (CloseCode::Normal, None),
            Self::Misused(why) => {
                let error = Problem::new(code::EXEC_REQUEST, "the exec session was ended for what its client sent");
                (CloseCode::Policy, failed(error.cause(why.clone())))
            }
            Self::Idle(limit) => {
                let limit = Millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
                let error = ended(format!("the exec session was ended: no byte went either way for {limit}"));
                (CloseCode::Away, failed(error.hint("exec.idle in kipwake.toml sets the limit")))
            }
            Self::Ended(end) => {
                let (message, hint) = match end {
                    ExecEnd::Instance => {
                        ("the exec session was ended with its instance", "`kip why FUNCTION` says why it ended")
                    }
                    ExecEnd::Sleep => (
                        "the exec session was ended: its instance gives its device back and sleeps",
                        "open it again when the device is in use again",
                    ),
                    ExecEnd::Server => {
                        ("the exec session was ended with the server", "open it again when the server is back")
                    }
                };
                let error = ended(message.to_owned()).hint(hint);
                (CloseCode::Away, failed(why.map_or_else(|| error.clone(), |why| error.clone().cause(why))))
            }
            Self::Broken(error) => {
                let problem = Problem::new(code::EXEC_FAILED, "the output of the command cannot be read");
                (CloseCode::Error, failed(problem.cause(error.to_string())))
            }
        }
    }
}
