//! What a session is asked for with, and who keeps a record of it.

use async_trait::async_trait;
use kip_wire::ExecStart;

/// The longest message of a client, bytes.
pub(super) const LONGEST_MESSAGE: usize = 256 << 10;

/// What goes over the WebSocket beside the program's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Messages of `kip_wire`: start, sizes, ends.
    Native,
    /// Nothing, as Function Compute's clients expect.
    FunctionCompute,
}

/// Who keeps the record of sessions: who opened one, in which instance, with which command.
#[async_trait]
pub trait SessionRecord: Send + Sync + std::fmt::Debug {
    /// A program is about to run.
    async fn begin(&self, object: String);
    /// It came to nothing, or has ended.
    async fn end(&self, object: String, result: String);
}

/// What speaks against a start, in words; none if it can be tried.
pub(super) fn unfit(start: &ExecStart) -> Option<String> {
    const WORDS: usize = 64 << 10;
    let reserved = |name: &&String| name.starts_with("KIPWAKE_");
    let name = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    let size = |terminal: &kip_wire::ExecTerminal| terminal.columns == 0 || terminal.rows == 0;
    let words = start.command.iter().chain(start.env.values()).chain(&start.directory);
    match () {
        () if start.command.first().is_none_or(String::is_empty) => Some("the command is empty".to_owned()),
        () if words.clone().any(|word| word.contains('\0')) => Some("a word of the command has a zero byte".to_owned()),
        () if words.map(String::len).sum::<usize>() > WORDS => Some(format!("the command has more than {WORDS} bytes")),
        () if start.terminal.as_ref().is_some_and(size) => {
            Some("a terminal has at least one column and one row".to_owned())
        }
        () => start.env.keys().find(name).map(|name| format!("`{name}` is no name of a variable")).or_else(|| {
            let name = start.env.keys().find(reserved)?;
            Some(format!("{name} cannot be set: variables that begin with KIPWAKE_ are the server's"))
        }),
    }
}
