//! Free ports of this host, each for one instance: programs may take seconds until they listen, and many start at once.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use kip_spec::InstanceId;
use parking_lot::Mutex;

/// The ports that instances were given.
#[derive(Debug, Default)]
pub struct Ports(Mutex<HashMap<InstanceId, Vec<u16>>>);

impl Ports {
    /// Ports for an instance, which no other instance is given until they are released. The first one may be settled.
    ///
    /// # Errors
    /// When none is free, or somebody has the one that is settled.
    pub(crate) fn reserve(&self, instance: InstanceId, number: usize, first: Option<u16>) -> io::Result<Vec<u16>> {
        const TRIES: usize = 100;
        let mut ports: Vec<u16> = Vec::with_capacity(number);
        if let Some(first) = first {
            TcpListener::bind((Ipv4Addr::LOCALHOST, first))?;
            let mut given = self.0.lock();
            if given.iter().any(|(other, given)| *other != instance && given.contains(&first)) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            ports.push(first);
            given.insert(instance, ports.clone());
            if ports.len() == number {
                return Ok(ports);
            }
        }
        for _ in 0..TRIES + number {
            let port = free_port()?;
            let mut given = self.0.lock();
            let taken = given.iter().any(|(other, given)| *other != instance && given.contains(&port));
            if !ports.contains(&port) && !taken {
                ports.push(port);
                given.insert(instance, ports.clone());
            }
            if ports.len() == number {
                return Ok(ports);
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    /// One port more for an instance.
    ///
    /// # Errors
    /// When none is free.
    #[cfg(feature = "docker")]
    pub(crate) fn reserve_more(&self, instance: InstanceId) -> io::Result<u16> {
        const TRIES: usize = 100;
        for _ in 0..TRIES {
            let port = free_port()?;
            let mut given = self.0.lock();
            if !given.values().any(|ports| ports.contains(&port)) {
                given.entry(instance).or_default().push(port);
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    /// Those of an instance that an earlier server started.
    pub(crate) fn keep(&self, instance: InstanceId, ports: Vec<u16>) {
        self.0.lock().insert(instance, ports);
    }

    /// Nothing of the instance is left.
    pub(crate) fn release(&self, instance: InstanceId) {
        self.0.lock().remove(&instance);
    }
}

/// A port that nobody has now. Somebody else may take it before the instance does; readiness checks whose it is.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_port_is_one_instances() {
        let ports = Ports::default();
        let id = |sequence| InstanceId { boot: 1, core: 1, sequence };
        let (one, other) = (id(1), id(2));
        let settled = free_port().unwrap();
        assert_eq!(ports.reserve(one, 2, Some(settled)).unwrap()[0], settled);
        assert!(ports.reserve(other, 1, Some(settled)).is_err(), "an instance has it");
        ports.release(one);
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, settled)).unwrap();
        assert!(ports.reserve(other, 1, Some(settled)).is_err(), "another program has it");
        drop(holder);
        assert_eq!(ports.reserve(other, 1, Some(settled)).unwrap(), [settled]);
    }
}
