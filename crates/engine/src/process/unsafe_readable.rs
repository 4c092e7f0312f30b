//! Waiting for a file descriptor of our own choosing. Tokio asks for a promise that it stays open, and that is all that is
//! unsafe about it.
#![expect(
    unsafe_code,
    reason = "registering a descriptor is unsafe: it must stay open and the same until it is let go"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor on the current runtime, to be told when it can be read.
pub(super) fn readable(descriptor: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    registered(descriptor, Interest::READABLE)
}

/// The same for reading, writing or both.
pub(super) fn registered(descriptor: Arc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: the `Arc` that is handed over keeps the descriptor open until the registration is dropped, and an `OwnedFd`
    // behind an `Arc` cannot be replaced by another.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, interest) };
    registered.map_err(io::Error::from)
}
