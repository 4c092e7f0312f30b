//! Sockets that whoever started this process opened for it: systemd's protocol (`sd_listen_fds`).

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use rustix::io::FdFlags;

/// The first of them, by the protocol.
const FIRST: RawFd = 3;
/// More than anybody passes.
const MOST: RawFd = 64;

/// Takes over listening sockets passed to this process, by their names (`FileDescriptorName`). Call it once, before
/// anything else opens files: a second call gives none.
pub fn inherited() -> BTreeMap<String, TcpListener> {
    static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    if TAKEN.swap(true, std::sync::atomic::Ordering::SeqCst) {
        return BTreeMap::new();
    }
    let read = crate::environment::read;
    // Variables that were meant for a parent of ours say nothing about our descriptors.
    let ours = read("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let count: RawFd = read("LISTEN_FDS").and_then(|count| count.parse().ok()).filter(|_| ours).unwrap_or(0);
    let names = read("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut found = BTreeMap::new();
    for number in FIRST..FIRST.saturating_add(count.clamp(0, MOST)) {
        let name = names.next().unwrap_or("unknown").to_owned();
        // SAFETY: by the protocol these descriptors are open and belong to this process alone; the variables name our own
        // process, the flag above makes sure that they are taken once, and one that is not open is found out right below.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        if rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC).is_err() {
            // Not open: closing it would close whatever gets its number.
            std::mem::forget(socket);
            continue;
        }
        let listens = rustix::net::sockopt::socket_acceptconn(&socket).unwrap_or(false);
        if listens {
            found.insert(name, TcpListener::from(socket));
        }
    }
    found
}
