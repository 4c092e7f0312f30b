//! Who listens where, read from `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

pub use crate::unsafe_inherited::inherited;

/// The addresses from which a listener takes connections.
#[derive(Debug, Clone, Default)]
pub struct Peers(Option<Arc<[IpAddr]>>);

impl Peers {
    /// All of them.
    pub fn everybody() -> Self {
        Self(None)
    }

    /// Loopback and these.
    pub fn of_this_machine_and(others: &[IpAddr]) -> Self {
        Self(Some(others.into()))
    }

    /// Whether a connection from there is taken. An IPv4 address written as an IPv6 one is the IPv4 address.
    pub fn admits(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.as_ref().is_none_or(|named| peer.is_loopback() || named.iter().any(|named| named.to_canonical() == peer))
    }
}

/// A socket in the state LISTEN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its inode, which processes hold as `socket:[inode]`.
    pub inode: u64,
}

/// All TCP sockets that listen in this network namespace.
///
/// # Errors
/// When `/proc/net/tcp` cannot be read.
pub fn listeners() -> io::Result<Vec<Listener>> {
    listeners_below("/proc/net")
}

/// All TCP sockets that listen in the network namespace of a process.
///
/// # Errors
/// When its `/proc` files cannot be read.
pub fn listeners_of(process: u32) -> io::Result<Vec<Listener>> {
    listeners_below(&format!("/proc/{process}/net"))
}

fn listeners_below(folder: &str) -> io::Result<Vec<Listener>> {
    let mut found = parse_table(&listening_part(&format!("{folder}/tcp"))?);
    if let Ok(table) = listening_part(&format!("{folder}/tcp6")) {
        found.extend(parse_table(&table));
    }
    Ok(found)
}

/// The beginning of a table, where the kernel lists those that listen. Each read of the rest walks through all that could
/// be connections, which takes milliseconds on a large machine even if there are none.
fn listening_part(path: &str) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let read = file.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let listens = |line: &str| line.split_whitespace().nth(3).is_none_or(|state| state == LISTEN);
        // The last line may be cut off.
        if read == 0 || !text.lines().skip(1).filter(|line| line.len() > 40).all(listens) {
            return Ok(text.into_owned());
        }
    }
}

/// The state LISTEN, as the tables write it.
const LISTEN: &str = "0A";

/// A connection that this end has not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

/// All TCP connections of this network namespace whose local end is open and whose other end has been closed, because its
/// process closed it or is dead. Connections that somebody still holds at the other end are not among them.
///
/// # Errors
/// When `/proc/net/tcp` cannot be read.
pub fn connections() -> io::Result<Vec<Connection>> {
    connections_below("/proc/net")
}

/// The same of the network namespace of a process. Only this end is in it: a connection whose other end was closed without a word is
/// found once the kernel has noticed.
///
/// # Errors
/// When its `/proc` files cannot be read.
pub fn connections_of(process: u32) -> io::Result<Vec<Connection>> {
    connections_below(&format!("/proc/{process}/net"))
}

fn connections_below(folder: &str) -> io::Result<Vec<Connection>> {
    const ESTABLISHED: &str = "01";
    const CLOSE_WAIT: &str = "08";
    /// The end has been sent, or is to be.
    const CLOSING: [&str; 3] = ["04", "05", "0B"];
    let mut tables = fs::read_to_string(format!("{folder}/tcp"))?;
    tables.push_str(&fs::read_to_string(format!("{folder}/tcp6")).unwrap_or_default());
    fn read(line: &str) -> Option<(Connection, &str)> {
        let mut fields = line.split_whitespace().skip(1);
        let (local, peer, state) = (fields.next()?, fields.next()?, fields.next()?);
        Some((Connection { local: parse_address(local)?, peer: parse_address(peer)? }, state))
    }
    let all: BTreeMap<Connection, &str> = tables.lines().filter_map(read).collect();
    // Closed by the other end, which has told so, or has not come to it because much was still to be sent.
    let left = |(connection, state): (&Connection, &&str)| {
        let other = Connection { local: connection.peer, peer: connection.local };
        let closing = || all.get(&other).is_some_and(|state| CLOSING.contains(state));
        (*state == CLOSE_WAIT || *state == ESTABLISHED && closing()).then_some(*connection)
    };
    Ok(all.iter().filter_map(left).collect())
}

/// The sockets that are bound to a path, by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnixSockets {
    /// Those that listen.
    pub listening: BTreeSet<u64>,
    /// The accepted ends of connections.
    pub connected: BTreeSet<u64>,
}

/// The Unix sockets of this network namespace that were bound to a path by just this text.
pub fn unix_sockets(path: &Path) -> UnixSockets {
    parse_unix(&fs::read_to_string("/proc/net/unix").unwrap_or_default(), path)
}

fn parse_unix(table: &str, path: &Path) -> UnixSockets {
    /// `SO_ACCEPTCON`, as the table writes it.
    const LISTENS: &str = "00010000";
    const CONNECTED: &str = "03";
    let mut found = UnixSockets::default();
    for line in table.lines().skip(1) {
        // The path is last, and may have spaces.
        let fields: Vec<&str> = line.split_whitespace().take(7).collect();
        let [_, _, _, flags, _, state, inode] = fields.as_slice() else { continue };
        let named = line.split_once(&format!(" {inode} ")).map(|(_, named)| Path::new(named));
        let Some(inode) = inode.parse().ok().filter(|_| named == Some(path)) else { continue };
        match (*flags, *state) {
            (LISTENS, _) => drop(found.listening.insert(inode)),
            (_, CONNECTED) => drop(found.connected.insert(inode)),
            _ => {}
        }
    }
    found
}

/// The sockets that any of these processes holds open, by inode.
pub fn inodes_of(processes: &[u32]) -> BTreeSet<u64> {
    let mut inodes = BTreeSet::new();
    for process in processes {
        let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else { continue };
        for entry in entries.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let text = target.to_string_lossy();
            let inode = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inodes.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
        }
    }
    inodes
}

/// The process that listens on a port, as `name (process id)`, where it may be seen.
pub fn owner_of_port(port: u16) -> Option<String> {
    let wanted: BTreeSet<u64> =
        listeners().ok()?.into_iter().filter(|listener| listener.address.port() == port).map(|l| l.inode).collect();
    if wanted.is_empty() {
        return None;
    }
    for process in all_processes() {
        if !inodes_of(&[process]).is_disjoint(&wanted) {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            return Some(format!("{} (process {process})", name.trim()));
        }
    }
    None
}

/// Every process id that `/proc` lists.
pub fn all_processes() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a process has ended or is about to: its sockets may be closed already while nobody was told of its end yet.
pub fn is_ending(process: u32) -> bool {
    /// `PF_EXITING` of the kernel's process flags.
    const EXITING: u64 = 0x4;
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { return true };
    let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    let state = fields.next().unwrap_or_default();
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok()).unwrap_or_default();
    matches!(state, "Z" | "X") || flags & EXITING != 0
}

/// Processes by process group, from `/proc/*/stat`.
pub fn processes_by_group() -> BTreeMap<u32, Vec<u32>> {
    let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in all_processes() {
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        if let Some(group) = rest.split(' ').nth(2).and_then(|field| field.parse().ok()) {
            groups.entry(group).or_default().push(process);
        }
    }
    groups
}

fn parse_table(table: &str) -> Vec<Listener> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            if *state != LISTEN {
                return None;
            }
            Some(Listener { address: parse_address(local)?, inode: inode.parse().ok()? })
        })
        .collect()
}

/// `0100007F:1F90`: the address in groups of four bytes, each in host order, then the port.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<u8>> = (0..address.len() / 8)
        .map(|index| u32::from_str_radix(address.get(index * 8..index * 8 + 8)?, 16).ok())
        .collect::<Option<Vec<u32>>>()
        .map(|words| words.into_iter().flat_map(u32::to_ne_bytes).collect());
    let bytes = words?;
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_peers_and_this_machine_are_admitted() {
        let peers = Peers::of_this_machine_and(&["10.0.0.7".parse().unwrap()]);
        for (peer, admitted) in [
            ("10.0.0.7", true),
            ("::ffff:10.0.0.7", true),
            ("127.0.0.9", true),
            ("::1", true),
            ("10.0.0.8", false),
            ("::ffff:10.0.0.8", false),
            ("fe80::1", false),
        ] {
            assert_eq!(peers.admits(peer.parse().unwrap()), admitted, "{peer}");
        }
        assert!(Peers::everybody().admits("203.0.113.1".parse().unwrap()));
    }
    use std::net::TcpListener;

    #[test]
    fn our_own_listener_is_found_and_named() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let found = listeners().unwrap().into_iter().find(|listener| listener.address == address).unwrap();
        assert!(inodes_of(&[std::process::id()]).contains(&found.inode));
        assert!(owner_of_port(address.port()).unwrap().contains(&std::process::id().to_string()));
    }

    #[test]
    fn sockets_with_a_path_are_found_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let listening = unix_sockets(&path).listening;
        assert_eq!(listening.len(), 1);
        assert!(inodes_of(&[std::process::id()]).is_superset(&listening));
        let caller = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let accepted = listener.accept().unwrap();
        assert_eq!(unix_sockets(&path).connected.len(), 1);
        drop(caller);
        assert_eq!(unix_sockets(&path).connected.len(), 1, "the instance has not closed its end");
        drop(accepted);
        assert_eq!(unix_sockets(&path).connected.len(), 0);
        assert_eq!(unix_sockets(&folder.path().join("a")), UnixSockets::default());
    }

    #[test]
    fn a_killed_process_is_ending() {
        assert!(!is_ending(std::process::id()));
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(!is_ending(child.id()));
        child.kill().unwrap();
        // Not waited for: a zombie counts as ended.
        while !is_ending(child.id()) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(is_ending(child.id()));
    }

    #[test]
    fn a_connection_is_left_from_the_end_of_one_side_to_the_end_of_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let caller = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (taken, peer) = listener.accept().unwrap();
        let ours = Connection { local: listener.local_addr().unwrap(), peer };
        assert!(!connections().unwrap().contains(&ours), "somebody holds it");
        drop(caller);
        assert!(connections().unwrap().contains(&ours), "the taker has not closed");
        drop(taken);
        assert!(!connections().unwrap().contains(&ours));
    }

    #[test]
    fn addresses_of_both_families() {
        assert_eq!(parse_address("0100007F:1F90").unwrap(), "127.0.0.1:8080".parse().unwrap());
        assert_eq!(parse_address("00000000000000000000000001000000:0050").unwrap(), "[::1]:80".parse().unwrap());
        assert_eq!(parse_address("garbage"), None);
    }
}
