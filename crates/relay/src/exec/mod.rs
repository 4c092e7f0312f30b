//! Sessions of people in an instance over a WebSocket, for every interface that has them: `kip exec` of the native API and the instance exec
//! of Function Compute. A session is opened ([`Session::open`]), which may start or wake an instance, and carried ([`Session::carry`])
//! until its program, its client, its instance, the server or silence ends it.
//!
//! Nothing is kept of what goes through: a piece of output is read only after the one before has been sent, and a piece of input is taken from
//! the client only after the program has taken the one before.

mod carry;
mod handshake;
mod line;
mod open;
mod request;

pub use carry::{refuse, say, socket, start_of};
pub use handshake::{accept, is_asked};
pub use line::command_line;
pub use open::{Session, SessionTarget};
pub use request::{Dialect, SessionRecord};

#[cfg(test)]
mod tests;
