//! Room for payloads: what waits and what is about to be stored stay within the limits together, however many submit at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_store::tasks::NewTask;
use parking_lot::Mutex;

use crate::error::Error;
use crate::service::Shared;

/// Payload bytes that are about to be stored.
#[derive(Debug, Default)]
pub(crate) struct Room {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    overall: u64,
    by_tenant: BTreeMap<Arc<str>, u64>,
}

/// Room for one payload, given back when it is dropped.
pub(crate) struct RoomGuard {
    shared: Arc<Shared>,
    tenant: Arc<str>,
    bytes: u64,
}

impl Drop for RoomGuard {
    fn drop(&mut self) {
        let mut taken = self.shared.room.taken.lock();
        taken.overall -= self.bytes;
        if let Some(bytes) = taken.by_tenant.get_mut(&self.tenant) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                taken.by_tenant.remove(&self.tenant);
            }
        }
    }
}

impl Shared {
    /// Takes room for a payload, if its tenant and all together stay within their limits.
    pub(crate) fn reserve(self: &Arc<Self>, new: &NewTask) -> Result<RoomGuard, Error> {
        let bytes = new.payload.len() as u64;
        // The order of these two locks is this one wherever both are held.
        let book = self.book();
        let mut taken = self.room.taken.lock();
        let overall = book.queued_bytes() + taken.overall;
        let own = book.queued_bytes_of(&new.tenant) + taken.by_tenant.get(&new.tenant).copied().unwrap_or_default();
        let of_tenant = format!("for tenant `{}`", new.tenant);
        for (waiting, limit, of_what, setting) in [
            (own, self.options.tenant_bytes, of_tenant, "tasks.tenant_bytes"),
            (overall, self.options.overall_bytes, "in all".to_owned(), "tasks.waiting_bytes"),
        ] {
            if waiting.saturating_add(bytes) > limit {
                return Err(Error::FullOfBytes { waiting, bytes, limit, of_what, setting });
            }
        }
        if bytes > 0 {
            taken.overall += bytes;
            *taken.by_tenant.entry(new.tenant.clone()).or_default() += bytes;
        }
        Ok(RoomGuard { shared: self.clone(), tenant: new.tenant.clone(), bytes })
    }
}
