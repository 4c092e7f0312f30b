//! Tenants: task ids, idempotency keys and ordering keys belong to one, and a caller sees the tasks of its own.

use kip_store::tasks::TaskFilter;

pub use kip_spec::tenant::TenantScope;

/// The tenant of callers without a key. No key can have it: the tenants of keys begin with a letter or a digit.
pub const ANONYMOUS: &str = "@anonymous";
/// The tenant of what the server itself submits: the runs of schedules.
pub const SYSTEM: &str = "@system";

/// A filter that finds only what a caller sees. None if it can find nothing.
pub(crate) fn bound(scope: &TenantScope, filter: TaskFilter) -> Option<TaskFilter> {
    match scope {
        TenantScope::All => Some(filter),
        TenantScope::One(own) if filter.tenant.as_deref().is_none_or(|tenant| *tenant == **own) => {
            Some(TaskFilter { tenant: Some(own.to_string()), ..filter })
        }
        TenantScope::One(_) | TenantScope::None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_filter_cannot_reach_beyond_the_own_tenant() {
        let of = |tenant: Option<&str>| TaskFilter { tenant: tenant.map(str::to_owned), ..TaskFilter::default() };
        let own = TenantScope::One(Arc::from("a"));
        assert_eq!(bound(&own, of(None)), Some(of(Some("a"))));
        assert_eq!(bound(&own, of(Some("a"))), Some(of(Some("a"))));
        assert_eq!(bound(&own, of(Some("b"))), None);
        assert_eq!(bound(&TenantScope::All, of(Some("b"))), Some(of(Some("b"))));
        assert_eq!(bound(&TenantScope::None, of(None)), None);
        assert!(own.includes("a") && !own.includes("b") && TenantScope::All.includes("b"));
    }
}
