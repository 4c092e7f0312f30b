//! Tenants: task ids, idempotency keys and ordering keys belong to one, and a caller sees the tasks of its own.

use std::sync::Arc;

use kip_store::tasks::TaskFilter;

/// The tenant of callers without a key. No key can have it: the tenants of keys begin with a letter or a digit.
pub const ANONYMOUS: &str = "@anonymous";
/// The tenant of what the server itself submits: the runs of schedules.
pub const SYSTEM: &str = "@system";

/// The tenants whose tasks a caller sees. A task of another tenant is as unknown as one that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantScope {
    /// All of them: for operators of the server.
    All,
    /// One.
    One(Arc<str>),
    /// None: the caller named a tenant that is not its own.
    None,
}

impl TenantScope {
    /// Whether tasks of this tenant are seen.
    pub fn includes(&self, tenant: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(own) => **own == *tenant,
            Self::None => false,
        }
    }

    /// A filter that finds only what is seen. None if it can find nothing.
    pub fn bound(&self, filter: TaskFilter) -> Option<TaskFilter> {
        match self {
            Self::All => Some(filter),
            Self::One(own) if filter.tenant.as_deref().is_none_or(|tenant| *tenant == **own) => {
                Some(TaskFilter { tenant: Some(own.to_string()), ..filter })
            }
            Self::One(_) | Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_cannot_reach_beyond_the_own_tenant() {
        let of = |tenant: Option<&str>| TaskFilter { tenant: tenant.map(str::to_owned), ..TaskFilter::default() };
        let own = TenantScope::One(Arc::from("a"));
        assert_eq!(own.bound(of(None)), Some(of(Some("a"))));
        assert_eq!(own.bound(of(Some("a"))), Some(of(Some("a"))));
        assert_eq!(own.bound(of(Some("b"))), None);
        assert_eq!(TenantScope::All.bound(of(Some("b"))), Some(of(Some("b"))));
        assert_eq!(TenantScope::None.bound(of(None)), None);
        assert!(own.includes("a") && !own.includes("b") && TenantScope::All.includes("b"));
    }
}
