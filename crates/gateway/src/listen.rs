//! A listening socket, or whose it is.

use std::io;
use std::net::{SocketAddr, TcpListener};

use kip_spec::{Problem, code};

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else does.
    #[error("{address} is taken{}", owner.as_deref().map(|owner| format!(" by {owner}")).unwrap_or_default())]
    Taken {
        /// The address.
        address: SocketAddr,
        /// Who, where it may be seen.
        owner: Option<String>,
    },
    /// It can be reached from other machines, and that needs more than this version has.
    #[error("{address} can be reached from other machines")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The system refused otherwise.
    #[error("cannot listen on {address}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// What it said.
        source: io::Error,
    },
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Taken { .. } => Self::new(code::ADDRESS_TAKEN, text)
                .hint("end the other program, or choose another port: `kip serve --gateway 127.0.0.1:0 --api 127.0.0.1:0` picks free ones"),
            Error::NotLoopback { .. } => Self::new(code::ADDRESS_NOT_LOOPBACK, text)
                .cause("what callers send, their keys among it, could be read on the way")
                .hint("name the proxy with TLS in front in server.proxies, or go through `ssh -L`; the gateway can speak TLS itself (tls.listen, tls.certificate, tls.key)"),
            Error::Io { source, .. } => Self::new(code::ADDRESS_TAKEN, text).cause(source.to_string()),
        }
    }
}

/// Who may reach a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerAccess {
    /// Programs of this machine only: what is said can be read on the way.
    Loopback,
    /// Anybody: TLS is spoken, here or by a named proxy in front.
    Everywhere,
}

/// Binds an address; port 0 picks a free one. A port just left by an earlier server is taken at once.
///
/// # Errors
/// [`Error`], with the owner of a taken port.
pub fn bind(address: SocketAddr, reach: ListenerAccess) -> Result<TcpListener, Error> {
    if reach == ListenerAccess::Loopback && !address.ip().is_loopback() {
        return Err(Error::NotLoopback { address });
    }
    // The standard library sets SO_REUSEADDR, so connections of an earlier server do not stand in the way.
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Taken { address, owner: kip_host::sockets::owner_of_port(address.port()) },
        _ => Error::Io { address, source },
    })
}

/// Takes over a listener that whoever started this process holds open for it.
///
/// # Errors
/// [`Error::NotLoopback`] where others could reach it that may not.
pub fn adopt(listener: TcpListener, reach: ListenerAccess) -> Result<TcpListener, Error> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    let address = listener.local_addr().map_err(|source| Error::Io { address: unknown, source })?;
    if reach == ListenerAccess::Loopback && !address.ip().is_loopback() {
        return Err(Error::NotLoopback { address });
    }
    listener.set_nonblocking(true).map_err(|source| Error::Io { address, source })?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_owner_and_the_world_is_refused() {
        let first = bind("127.0.0.1:0".parse().unwrap(), ListenerAccess::Loopback).unwrap();
        let error = bind(first.local_addr().unwrap(), ListenerAccess::Loopback).unwrap_err();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        assert!(matches!(bind("0.0.0.0:0".parse().unwrap(), ListenerAccess::Loopback), Err(Error::NotLoopback { .. })));
    }
}
