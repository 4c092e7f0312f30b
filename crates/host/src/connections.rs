//! Connections of a listener, counted in all and by the address of the peer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Connections that are open.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    of_one_peer: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    of: Arc<Connections>,
    peer: IpAddr,
}

impl Connections {
    /// At most so many at once, and half of them from one address.
    pub fn new(most: usize) -> Arc<Self> {
        let most = most.max(2);
        Self::with_share(most, most / 2)
    }

    /// At most so many at once, and so many from one address.
    pub fn with_share(most: usize, of_one_peer: usize) -> Arc<Self> {
        Arc::new(Self { most, of_one_peer, open: Mutex::default() })
    }

    /// Counts a connection; none if there are too many, in all or of this address.
    pub fn open(self: &Arc<Self>, peer: IpAddr) -> Option<OpenConnection> {
        let mut open = self.open.lock();
        if open.values().sum::<usize>() >= self.most {
            return None;
        }
        let own = open.entry(peer).or_default();
        if *own >= self.of_one_peer {
            return None;
        }
        *own += 1;
        Some(OpenConnection { of: self.clone(), peer })
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        if let Some(own) = open.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_in_all_and_by_address() {
        let peer = |last: u8| IpAddr::from([10, 0, 0, last]);
        let connections = Connections::new(4);
        let first: Vec<_> = (0..3).map(|_| connections.open(peer(1))).collect();
        assert_eq!(first.iter().flatten().count(), 2, "one address may have half of them");
        let others: Vec<_> = [2, 3, 4].into_iter().map(|last| connections.open(peer(last))).collect();
        assert_eq!(others.iter().flatten().count(), 2, "four in all");
        drop(first);
        assert!(connections.open(peer(4)).is_some());
        drop(others);
        assert!(connections.open.lock().is_empty(), "nobody is remembered");
    }
}
