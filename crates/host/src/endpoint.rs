//! Where an instance is reached, and a connection to it. A body says where; whoever connects needs not know which kind of body.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::fs::{FileType, Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

#[cfg(feature = "paused-time")]
pub mod memory;

/// Where an instance is reached.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// An address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(Arc<Path>),
    /// In this process: sockets wait for the kernel, and a test whose time is paused must not.
    #[cfg(feature = "paused-time")]
    Memory(memory::Dialer),
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// How the text of a Unix socket begins.
const UNIX: &str = "unix:";

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            #[cfg(feature = "paused-time")]
            Self::Memory(_) => f.write_str("127.0.0.1:1"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = std::net::AddrParseError;

    /// Reads what it is shown as.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(UNIX) {
            Some(path) => Ok(Self::Unix(Path::new(path).into())),
            None => text.parse().map(Self::Tcp),
        }
    }
}

impl Endpoint {
    /// What a request to it says as its host.
    pub fn authority(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            other => other.to_string(),
        }
    }

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
            Self::Unix(path) => {
                // The folder is the instance's: a link in the place of its socket would lead to any socket that this server may reach.
                let socket =
                    rustix::fs::open(path.as_ref(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                if FileType::from_raw_mode(rustix::fs::fstat(&socket)?.st_mode) != FileType::Socket {
                    return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "what is there is no socket"));
                }
                UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await.map(Connection::Unix)
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
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Within this process.
    #[cfg(feature = "paused-time")]
    Memory(tokio::io::DuplexStream),
}

impl Connection {
    /// The number of its socket, where it has one.
    pub fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Tcp(stream) => Some(stream.as_raw_fd()),
            Self::Unix(stream) => Some(stream.as_raw_fd()),
            #[cfg(feature = "paused-time")]
            Self::Memory(_) => None,
        }
    }
}

macro_rules! of_each {
    ($this:expr, $stream:ident => $call:expr) => {
        match $this.get_mut() {
            Connection::Tcp($stream) => $call,
            Connection::Unix($stream) => $call,
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
            Self::Unix(stream) => stream.is_write_vectored(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["127.0.0.1:80", "[::1]:8080", "unix:/srv/kipwake/sockets/i-1-2-3/s"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("unix:/a".parse::<Endpoint>().unwrap().authority(), "localhost");
        assert!("localhost".parse::<Endpoint>().is_err());
    }

    #[tokio::test]
    async fn a_link_is_no_socket() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, link) = (folder.path().join("socket"), folder.path().join("link"));
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        let connect = |path: &Path| Endpoint::Unix(path.into());
        assert!(connect(&socket).connect().await.is_ok());
        assert_eq!(connect(&link).connect().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect(&folder.path().join("none")).connect().await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
