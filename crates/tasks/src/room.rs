//! Room for payloads: what waits and what is about to be stored stay within the limits together, however many submit at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Payload bytes that are about to be stored.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) taken: Mutex<Reserved>,
}

#[derive(Debug, Default)]
pub(crate) struct Reserved {
    pub(crate) overall: u64,
    pub(crate) by_tenant: BTreeMap<Arc<str>, u64>,
}

/// Room for one payload, given back when it is dropped.
pub(crate) struct RoomGuard {
    pub(crate) room: Arc<Room>,
    pub(crate) tenant: Arc<str>,
    pub(crate) bytes: u64,
}

impl Drop for RoomGuard {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.overall -= self.bytes;
        if let Some(bytes) = taken.by_tenant.get_mut(&self.tenant) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                taken.by_tenant.remove(&self.tenant);
            }
        }
    }
}
