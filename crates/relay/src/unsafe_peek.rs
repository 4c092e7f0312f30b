//! A look at a socket that hyper has: whether its other side has closed it, though the runtime has not seen that yet.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use kip_host::endpoint::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket that can be looked at for as long as it is open.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Connection,
    /// Dropped with the stream, and before it: fields go in the order of their declaration, but see [`Drop`].
    open: Option<Arc<()>>,
}

/// Looks at a [`Socket`] from elsewhere on its thread.
#[derive(Debug)]
pub(crate) struct SocketPeek {
    /// None for a connection that is not a socket.
    number: Option<RawFd>,
    open: Weak<()>,
}

impl Socket {
    pub(crate) fn new(stream: Connection) -> (Self, SocketPeek) {
        let open = Arc::new(());
        let peek = SocketPeek { number: stream.descriptor(), open: Arc::downgrade(&open) };
        (Self { stream, open: Some(open) }, peek)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Nobody may look any more once the descriptor can be somebody else's.
        self.open = None;
    }
}

impl SocketPeek {
    /// Whether the other side has closed the connection, or sent what nobody asked for.
    pub(crate) fn is_over(&self) -> bool {
        let Some(_open) = self.open.upgrade() else { return true };
        let Some(number) = self.number else { return false };
        // SAFETY: the descriptor is open while `open` can be upgraded: the socket gives its part up before it closes the
        // stream. Nothing can come in between, because both belong to one thread: connections are tasks of a local set, and
        // pools are not `Send`.
        let socket = unsafe { BorrowedFd::borrow_raw(number) };
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        !matches!(rustix::net::recv(socket, &mut [0u8; 1][..], flags), Err(rustix::io::Errno::AGAIN))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_connection_is_seen_at_once_and_an_open_one_is_not_called_over() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = kip_host::endpoint::Endpoint::Tcp(listener.local_addr().unwrap()).connect().await.unwrap();
        let (other, _) = listener.accept().await.unwrap();
        let (socket, peek) = Socket::new(stream);
        assert!(!peek.is_over());
        drop(other);
        assert!(peek.is_over());
        drop(socket);
        assert!(peek.is_over());
    }
}
