//! What goes over a session in an instance beside the bytes of its program: text messages of a WebSocket, each one JSON object.

use std::collections::BTreeMap;

use kip_spec::Problem;
use serde::{Deserialize, Serialize};

/// The protocol that both sides name in `Sec-WebSocket-Protocol`.
pub const EXEC_PROTOCOL: &str = "kip.exec.v1";
/// The first byte of a binary message with standard output, or with what a terminal shows.
pub const EXEC_OUTPUT: u8 = 1;
/// The first byte of a binary message with standard error.
pub const EXEC_ERROR: u8 = 2;

/// What a client says. Its binary messages are standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ExecClientMessage {
    /// The first message: what to run.
    Start(ExecStart),
    /// The terminal has another size.
    Resize(ExecTerminal),
    /// There is no more standard input.
    InputEnd,
}

/// What to run in an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecStart {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables on top of the instance's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; none for the instance's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// A terminal of this size; none for plain streams, with standard error apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<ExecTerminal>,
    /// Whether it has standard input; else that is empty.
    #[serde(default)]
    pub input: bool,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecTerminal {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecServerMessage {
    /// The session waits for an instance.
    Waiting {
        /// The instance that wakes; none where one is started.
        instance: Option<String>,
    },
    /// The program runs.
    Started {
        /// In which instance.
        instance: String,
        /// Of which version.
        version: String,
        /// What the session had to wait for: `warm`, `woken` or `cold`.
        start: String,
    },
    /// The program has ended. The last message.
    Exited {
        /// Its exit code, if it ended by itself.
        code: Option<i32>,
        /// The signal that ended it, if one did.
        signal: Option<i32>,
    },
    /// The session was refused, or was ended by the server. The last message.
    Failed {
        /// Why.
        error: Problem,
    },
}
