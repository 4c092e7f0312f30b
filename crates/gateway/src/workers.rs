//! Which thread serves a connection: the one that has the fewest, whoever took it. A thread that is awake takes all connections that
//! wait, so that without this a caller's pool, opened at once, would be served by one thread alone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kip_host::connections::{Connections, OpenConnection};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// The gateway's threads, as far as connections are concerned.
#[derive(Debug)]
pub(crate) struct Workers {
    threads: Vec<Member>,
    /// Connections of all threads.
    open: AtomicUsize,
    most: usize,
    /// By the address of the peer, where that says anything.
    peers: Arc<Connections>,
}

#[derive(Debug)]
struct Member {
    open: AtomicUsize,
    inbox: mpsc::Sender<ConnectionTransfer>,
}

/// Connections on their way to a thread; of more, whoever took them serves them.
const ON_THE_WAY: usize = 1_024;

/// What other threads give to one.
pub(crate) type Inbox = mpsc::Receiver<ConnectionTransfer>;

/// A connection on its way to another thread.
#[derive(Debug)]
pub(crate) struct ConnectionTransfer {
    stream: std::net::TcpStream,
    arrival: NewConnection,
}

/// What is known of a connection before it is served.
#[derive(Debug)]
pub(crate) struct NewConnection {
    /// Who it is from.
    pub(crate) peer: SocketAddr,
    /// By which of the listeners it came.
    pub(crate) entry: usize,
    /// Its place among those that are counted.
    pub(crate) opened: CountedConnection,
}

impl Workers {
    /// So many threads with an inbox each, and at most so many connections at once.
    pub(crate) fn new(threads: usize, most: usize) -> (Arc<Self>, Vec<Inbox>) {
        let (inboxes, ours) = (0..threads).map(|_| mpsc::channel(ON_THE_WAY)).unzip::<_, _, Vec<_>, Vec<_>>();
        let threads = inboxes.into_iter().map(|inbox| Member { open: AtomicUsize::new(0), inbox }).collect();
        (Arc::new(Self { threads, open: AtomicUsize::new(0), most, peers: Connections::new(most) }), ours)
    }

    /// Counts one more connection, for the thread with the fewest; `mine`, if that has no more than others. None when there are too
    /// many, in all or of this peer.
    pub(crate) fn open(self: &Arc<Self>, mine: usize, peer: Option<IpAddr>) -> Option<CountedConnection> {
        let of_peer = match peer {
            Some(peer) => Some(self.peers.open(peer)?),
            None => None,
        };
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let of = |thread: usize| self.threads.get(thread).map_or(usize::MAX, |it| it.open.load(Ordering::Relaxed));
        let fewest = (0..self.threads.len()).min_by_key(|thread| (of(*thread), *thread != mine)).unwrap_or(mine);
        if let Some(member) = self.threads.get(fewest) {
            member.open.fetch_add(1, Ordering::Relaxed);
        }
        Some(CountedConnection { crew: self.clone(), thread: fewest, _of_peer: of_peer })
    }
}

/// One of the connections that are counted.
#[derive(Debug)]
pub(crate) struct CountedConnection {
    crew: Arc<Workers>,
    thread: usize,
    _of_peer: Option<OpenConnection>,
}

impl CountedConnection {
    /// Gives the connection to the thread it was counted for, unless that is `mine`. Back comes one that this thread is to serve.
    ///
    /// # Errors
    /// When the socket cannot change its thread.
    pub(crate) fn give(
        self,
        mine: usize,
        stream: TcpStream,
        peer: SocketAddr,
        entry: usize,
    ) -> std::io::Result<Option<(TcpStream, NewConnection)>> {
        let crew = self.crew.clone();
        let (thread, arrival) = (self.thread, NewConnection { peer, entry, opened: self });
        match crew.threads.get(thread) {
            Some(member) if thread != mine => {
                let handed = ConnectionTransfer { stream: stream.into_std()?, arrival };
                // One that closes takes none, nor does one that lags.
                match member.inbox.try_send(handed) {
                    Ok(()) => Ok(None),
                    Err(TrySendError::Full(back) | TrySendError::Closed(back)) => back.take().map(Some),
                }
            }
            _ => Ok(Some((stream, arrival))),
        }
    }
}

impl ConnectionTransfer {
    /// The connection, on the current thread.
    ///
    /// # Errors
    /// When the thread's event queue does not take the socket.
    pub(crate) fn take(self) -> std::io::Result<(TcpStream, NewConnection)> {
        Ok((TcpStream::from_std(self.stream)?, self.arrival))
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.crew.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(member) = self.crew.threads.get(self.thread) {
            member.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_the_fewest_are() {
        let (crew, _inboxes) = Workers::new(3, 7);
        let mut opened: Vec<CountedConnection> = (0..6).filter_map(|_| crew.open(1, None)).collect();
        assert_eq!(opened.iter().map(|it| it.thread).collect::<Vec<_>>(), [1, 0, 2, 1, 0, 2], "its own first");
        opened.retain(|it| it.thread != 2);
        assert_eq!(crew.open(0, None).map(|it| it.thread), Some(2), "ended ones are not counted");
        let more: Vec<CountedConnection> = (0..9).filter_map(|_| crew.open(0, None)).collect();
        assert_eq!(more.len(), 3, "four are open and seven may be");
    }

    #[tokio::test]
    async fn a_connection_changes_its_thread_unless_that_closes() -> std::io::Result<()> {
        let (crew, mut inboxes) = Workers::new(2, 9);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let mut kept = Vec::new();
        for close in [false, false, true, true] {
            if close {
                inboxes[1].close();
            }
            let opened = crew.open(0, None).ok_or(std::io::ErrorKind::Other)?;
            kept.push(opened.give(0, TcpStream::connect(at).await?, at, 0)?);
        }
        assert_eq!(kept.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true]);
        let handed = inboxes[1].try_recv().map_err(std::io::Error::other)?;
        assert_eq!(handed.take()?.0.peer_addr()?, at, "what was given before the close is served");
        Ok(())
    }
}
