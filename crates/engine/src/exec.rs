//! Programs that people run in an instance beside its own: what is ordered, and what a body gives back.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes as Buffer;
use kip_spec::InstanceId;

/// The variable that marks the processes of an exec session.
pub(crate) const SESSION: &str = "KIPWAKE_EXEC";

/// Bytes of output that are read at once.
pub(crate) const PIECE: usize = 32 << 10;

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What to run in an instance.
#[derive(Debug, Clone)]
pub struct ExecOrder {
    /// The number of the session, unique for this server: its processes carry it.
    pub session: String,
    /// Program and arguments, as they are.
    pub argv: Vec<String>,
    /// Variables on top of the instance's.
    pub env: BTreeMap<String, String>,
    /// Working directory; none for the instance's own.
    pub directory: Option<String>,
    /// A terminal of this size; none for pipes, with standard error apart.
    pub terminal: Option<TerminalSize>,
    /// Whether it has standard input; else that is empty.
    pub input: bool,
}

/// Which of a program's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecStream {
    /// Standard output, or all of a terminal's.
    Output,
    /// Standard error.
    Error,
}

/// How a program of an exec session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecExit {
    /// Exit code, if it ended by itself.
    pub code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
}

/// Why a program was not started in an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// There is no such instance here.
    #[error("there is no instance {0}")]
    Unknown(InstanceId),
    /// The instance has no such program.
    #[error("there is no program `{0}` in the instance")]
    NoProgram(String),
    /// Not allowed, or not a program.
    #[error("`{program}` cannot be run: {detail}")]
    NotExecutable {
        /// The program.
        program: String,
        /// What the system said.
        detail: String,
    },
    /// The instance has no such folder.
    #[error("the working directory cannot be entered: {0}")]
    Directory(String),
    /// The system or the container engine refused otherwise.
    #[error("{0}")]
    Failed(String),
}

/// A program that runs in an instance. All calls may be made side by side, but for two of the same; each may be dropped at any time
/// and made again. Dropping the value ends the program and everything that it started.
#[async_trait]
pub trait ExecProcess: Send + Sync + std::fmt::Debug {
    /// The next piece of output; none when there will be no more.
    async fn read(&self) -> std::io::Result<Option<(ExecStream, Buffer)>>;
    /// Gives the program a part of this, at least one byte, as soon as it takes any; returns how many bytes it took.
    async fn write(&self, data: &[u8]) -> std::io::Result<usize>;
    /// There is no more standard input.
    async fn end_input(&self);
    /// The terminal has another size.
    async fn resize(&self, size: TerminalSize);
    /// Waits until the program has ended.
    async fn exit(&self) -> ExecExit;
    /// Ends everything that the session has started; returns when nothing of it is left, or after some seconds.
    async fn end(&self);
}
