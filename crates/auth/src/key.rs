//! One key: what it may do, and whether it is taken now.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use kip_spec::limiter::Limiter;
use kip_spec::{Problem, Rate, code};
use kip_store::StoredKey;
use kip_wire::{KeyInfo, Role};

/// The tenant of keys that name none.
pub const DEFAULT_TENANT: &str = "default";

/// The last use is noted to this many milliseconds, so that a busy key is not written by every thread at every request.
const USE_STEP: i64 = 1_000;

/// What goes on with a key while it changes: its last use, and the state of its limits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    used: Arc<AtomicI64>,
    pub(crate) limiter: Arc<Limiter>,
}

/// A key as the server holds it. What changes makes a new one of these; only what is live is shared between them.
#[derive(Debug, Clone)]
pub struct Key {
    pub(crate) stored: StoredKey,
    name: Arc<str>,
    tenant: Arc<str>,
    role: Role,
    pub(crate) live: Live,
}

impl Key {
    pub(crate) fn new(stored: StoredKey, live: Live) -> Self {
        live.used.fetch_max(stored.last_use.unwrap_or_default(), Ordering::Relaxed);
        // A role that only a newer version knows gives the least.
        let role = stored.role.parse().unwrap_or(Role::Invoke);
        Self { name: stored.name.as_str().into(), tenant: stored.tenant.as_str().into(), role, live, stored }
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.stored.id
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whose it is.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// What it may do.
    pub fn role(&self) -> Role {
        self.role
    }

    /// How many requests it may send, and how many of them at once.
    pub fn rate(&self) -> Option<(Rate, u32)> {
        self.stored.rate.map(|rate| (rate, self.stored.burst.unwrap_or_else(|| rate.per_second())))
    }

    /// How many requests it may have in flight.
    pub fn concurrency(&self) -> Option<u32> {
        self.stored.concurrency
    }

    /// Whether it is taken now.
    ///
    /// # Errors
    /// A problem with code KW-7010 or KW-7011.
    pub fn usable(&self, now: i64) -> Result<(), Problem> {
        let name = &self.name;
        if self.stored.disabled {
            return Err(Problem::new(code::KEY_DISABLED, format!("the key `{name}` is disabled"))
                .hint(format!("an administrator can enable it: kip key enable {name}")));
        }
        if self.stored.expires.is_some_and(|expires| now >= expires) {
            return Err(Problem::new(code::KEY_EXPIRED, format!("the key `{name}` has expired")).hint(format!(
                "an administrator can prolong it: kip key set {name} --expires 30d; or make another one: kip key create"
            )));
        }
        Ok(())
    }

    pub(crate) fn touch(&self, now: i64) {
        if now.saturating_sub(self.live.used.load(Ordering::Relaxed)) >= USE_STEP {
            self.live.used.store(now, Ordering::Relaxed);
        }
    }

    /// The key as people see it.
    pub fn info(&self, now: i64) -> KeyInfo {
        let stored = &self.stored;
        let state = match self.usable(now) {
            Ok(()) => "active",
            Err(problem) if problem.code == code::KEY_DISABLED => "disabled",
            Err(_) => "expired",
        };
        KeyInfo {
            name: stored.name.clone(),
            id: stored.id,
            rev: stored.rev.0,
            role: self.role,
            state: state.to_owned(),
            functions: self.only(),
            rate: stored.rate,
            burst: self.rate().map(|(_, burst)| burst),
            concurrency: stored.concurrency,
            tenant: stored.tenant.clone(),
            created: stored.created,
            expires: stored.expires,
            last_use: Some(self.live.used.load(Ordering::Relaxed)).filter(|at| *at > 0),
            rotated: stored.rotated,
            previous_until: stored.previous.map(|(_, until)| until).filter(|until| *until > now),
            access_key_id: stored.pair.as_ref().map(|pair| pair.id.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_and_spelled_as_in_the_docs() {
        assert!(Role::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        for role in Role::ALL {
            assert_eq!(role.name().parse::<Role>().unwrap(), role);
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
        }
        assert_eq!("Admin".parse::<Role>().unwrap_err().code, code::KEY_INVALID);
    }
}
