//! Connections within one process, for tests whose time is paused.

use std::io;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Bytes that wait in each direction.
const WINDOW: usize = 64 << 10;
/// Connections that wait to be accepted.
const BACKLOG: usize = 128;

/// Accepts connections.
#[derive(Debug)]
pub struct Listener(mpsc::Receiver<DuplexStream>);

/// Opens connections to a [`Listener`]; they are refused once that is dropped.
#[derive(Debug, Clone)]
pub struct Dialer(mpsc::Sender<DuplexStream>);

/// A listener and what reaches it.
pub fn listen() -> (Dialer, Listener) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (Dialer(sender), Listener(receiver))
}

impl Listener {
    /// The next connection; none once no dialer is left.
    pub async fn accept(&mut self) -> Option<DuplexStream> {
        self.0.recv().await
    }
}

impl Dialer {
    /// A connection, which waits to be accepted.
    ///
    /// # Errors
    /// `ConnectionRefused` if nothing listens or too many connections wait.
    pub fn dial(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(WINDOW);
        self.0.try_send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(ours)
    }
}
