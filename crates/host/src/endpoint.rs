//! Where an instance is reached, and a connection to it. A body says where; whoever connects needs not know which kind of body.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(feature = "paused-time")]
pub mod memory;

/// Where an instance is reached.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// An address and port.
    Tcp(SocketAddr),
    /// In this process: sockets wait for the kernel, and a test whose time is paused must not.
    #[cfg(feature = "paused-time")]
    Memory(memory::Dialer),
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            #[cfg(feature = "paused-time")]
            Self::Memory(_) => f.write_str("127.0.0.1:1"),
        }
    }
}

impl Endpoint {
    /// Connects.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn connect(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
            #[cfg(feature = "paused-time")]
            Self::Memory(dialer) => dialer.dial().map(Connection::Memory),
        }
    }
}

/// A connection to an instance.
#[derive(Debug)]
pub enum Connection {
    /// Over TCP.
    Tcp(TcpStream),
    /// Within this process.
    #[cfg(feature = "paused-time")]
    Memory(tokio::io::DuplexStream),
}

impl Connection {
    /// The number of its socket, where it has one.
    pub fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Tcp(stream) => Some(stream.as_raw_fd()),
            #[cfg(feature = "paused-time")]
            Self::Memory(_) => None,
        }
    }
}

macro_rules! of_each {
    ($this:expr, $stream:ident => $call:expr) => {
        match $this.get_mut() {
            Connection::Tcp($stream) => $call,
            #[cfg(feature = "paused-time")]
            Connection::Memory($stream) => $call,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        of_each!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        of_each!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of_each!(self, stream => Pin::new(stream).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(feature = "paused-time")]
            Self::Memory(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_each!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_each!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}
