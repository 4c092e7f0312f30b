//! `kip exec`: a program in an instance, with the terminal or the streams of this command. It exits as the program does.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kip_relay::exec::socket;
use kip_spec::{Problem, code};
use kip_wire::{EXEC_ERROR, EXEC_PROTOCOL, ExecClientMessage, ExecServerMessage, ExecStart, ExecTerminal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::variables;
use crate::arguments::Exec;
use crate::client::{Client, segment};
use crate::output::Output;
use crate::problem::Exit;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Bytes of standard input in a message.
const PIECE: usize = 16 << 10;
/// Pieces of standard input that wait to be sent.
const PIECES: usize = 4;
/// How long the server may take to answer that the session has ended, after it said so.
const FAREWELL: Duration = Duration::from_secs(1);
/// A terminal that does not say how large it is.
const USUAL: ExecTerminal = ExecTerminal { columns: 80, rows: 24 };
/// What is added to the number of a signal.
const SIGNALLED: i32 = 128;

pub(crate) async fn run(client: &Client, options: &Exec, output: Output) -> anyhow::Result<()> {
    let both = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let tty = options.tty || both && !options.no_tty;
    let input = options.interactive || both && tty;
    if options.tty && options.interactive && !std::io::stdin().is_terminal() {
        return Err(Problem::new(code::COMMAND_INPUT, "the program is to have a terminal, and standard input is none")
            .hint("leave -t out: -i alone passes standard input on")
            .into());
    }
    let mut env = variables::valued(&options.env, "kip exec")?;
    if tty && let Some(term) = kip_host::environment::read("TERM").filter(|term| !term.is_empty()) {
        env.entry("TERM".to_owned()).or_insert(term);
    }
    let start = ExecStart {
        command: options.command.clone(),
        env,
        directory: options.workdir.clone(),
        terminal: tty.then(size),
        input,
    };
    let (function, qualifier) = match options.function.split_once('@') {
        Some((function, qualifier)) => (function, Some(qualifier)),
        None => (options.function.as_str(), None),
    };
    let fields = [("instance", options.instance.as_deref()), ("qualifier", qualifier)];
    let query: Vec<String> =
        fields.iter().filter_map(|(name, value)| Some(format!("{name}={}", segment((*value)?)))).collect();
    let path = format!("/api/v1/functions/{}/exec?{}", segment(function), query.join("&"));
    let upgraded = client.upgrade(&path, EXEC_PROTOCOL).await?;
    let mut connection: Socket = socket(TokioIo::new(upgraded), Role::Client).await;
    say(&mut connection, &ExecClientMessage::Start(start)).await?;
    let raw = if input && tty { RawTerminal::enter() } else { None };
    let ended = session(connection, (tty, input), &raw, output).await;
    drop(raw);
    match ended? {
        0 => Ok(()),
        code => Err(Exit(u8::try_from(code).unwrap_or(u8::MAX)).into()),
    }
}

/// The size of this command's terminal.
fn size() -> ExecTerminal {
    let known = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    known.map_or(USUAL, |size| ExecTerminal { columns: size.ws_col, rows: size.ws_row })
}

async fn say(connection: &mut (impl SinkExt<Message> + Unpin), message: &ExecClientMessage) -> anyhow::Result<()> {
    let text = serde_json::to_string(message)?;
    connection.send(Message::text(text)).await.map_err(|_| lost())
}

fn lost() -> anyhow::Error {
    Problem::new(code::SERVER_UNREACHABLE, "the connection to the server broke off during the exec session")
        .hint("`kip doctor` looks at the server; open the session again")
        .into()
}

/// Carries the session to its end; gives the exit code.
async fn session(
    connection: Socket,
    (tty, input): (bool, bool),
    raw: &Option<RawTerminal>,
    output: Output,
) -> anyhow::Result<i32> {
    let (mut sink, mut stream) = connection.split();
    let mut pieces = input.then(read_input).transpose()?;
    let mut resized = signal(SignalKind::window_change())?;
    // Without a handler the terminal would stay as it is now.
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let exit = loop {
        tokio::select! {
            message = next(&mut stream) => match message? {
                FromServer::Bytes(stream, bytes) if stream == EXEC_ERROR => output.raw_remark(&bytes)?,
                // As a program whose reader has left ends by SIGPIPE.
                FromServer::Bytes(_, bytes) => {
                    if !output.stream(&bytes)? {
                        return Ok(SIGNALLED + 13);
                    }
                }
                FromServer::Message(ExecServerMessage::Exited { code, signal }) => {
                    break code.unwrap_or_else(|| SIGNALLED + signal.unwrap_or(0));
                }
                FromServer::Message(ExecServerMessage::Failed { error }) => return Err(error.into()),
                FromServer::Message(other) => remark(&other, raw.is_some(), output),
                FromServer::Nothing => {}
            },
            piece = next_piece(&mut pieces) => send_input(&mut sink, piece, &mut pieces).await?,
            _ = resized.recv(), if tty => say(&mut sink, &ExecClientMessage::Resize(size())).await?,
            () = any(&mut signals) => return Ok(SIGNALLED + 15),
        }
    };
    let _ = tokio::time::timeout(FAREWELL, async { while let Some(Ok(_)) = stream.next().await {} }).await;
    Ok(exit)
}

async fn any(signals: &mut [Signal; 2]) {
    let [terminate, hangup] = signals;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// What a session had to wait for is said beside its output.
fn remark(message: &ExecServerMessage, raw: bool, output: Output) {
    let text = match message {
        ExecServerMessage::Waiting { instance: Some(instance) } => format!("waiting for instance {instance}"),
        ExecServerMessage::Waiting { instance: None } => "waiting for an instance".to_owned(),
        ExecServerMessage::Started { instance, start, .. } if start == "woken" => {
            format!("instance {instance} was asleep; it is woken for this session")
        }
        ExecServerMessage::Started { instance, start, .. } if start == "cold" => {
            format!("instance {instance} was started for this session")
        }
        _ => return,
    };
    // In the raw mode a line begins where the one before has ended.
    output.remark(&if raw { format!("{text}\r") } else { text });
}

enum FromServer {
    Bytes(u8, Bytes),
    Message(ExecServerMessage),
    Nothing,
}

async fn next(stream: &mut SplitStream<Socket>) -> anyhow::Result<FromServer> {
    match stream.next().await {
        Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => Ok(FromServer::Bytes(bytes[0], bytes.slice(1..))),
        Some(Ok(Message::Text(text))) => Ok(FromServer::Message(serde_json::from_str(&text)?)),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(lost()),
        Some(Ok(_)) => Ok(FromServer::Nothing),
    }
}

type Pieces = Option<mpsc::Receiver<Bytes>>;

/// The next piece of standard input; none at its end, and never where there is none.
async fn next_piece(pieces: &mut Pieces) -> Option<Bytes> {
    match pieces {
        Some(pieces) => pieces.recv().await,
        None => std::future::pending().await,
    }
}

async fn send_input(
    sink: &mut SplitSink<Socket, Message>,
    piece: Option<Bytes>,
    pieces: &mut Pieces,
) -> anyhow::Result<()> {
    match piece {
        // One that has ended meanwhile says so.
        Some(piece) => drop(sink.send(Message::Binary(piece)).await),
        None => {
            *pieces = None;
            let text = serde_json::to_string(&ExecClientMessage::InputEnd)?;
            drop(sink.send(Message::text(text)).await);
        }
    }
    Ok(())
}

/// Reads standard input on a thread of its own, which may wait for a key for ever: it does not keep this command.
fn read_input() -> anyhow::Result<mpsc::Receiver<Bytes>> {
    let (send, pieces) = mpsc::channel(PIECES);
    kip_host::tasks::thread("standard input", move || {
        let mut piece = vec![0; PIECE];
        loop {
            match std::io::stdin().lock().read(&mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    if send.blocking_send(Bytes::copy_from_slice(&piece[..length])).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(pieces)
}

/// A terminal that passes every key on as it is. Its former mode comes back when this is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
