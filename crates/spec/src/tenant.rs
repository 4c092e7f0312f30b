//! Tenants: what callers choose belongs to one, and a caller sees what is of its own.

use std::sync::Arc;

/// The tenants that a caller sees. What is of another tenant is as unknown as what does not exist.
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
    /// Whether what belongs to this tenant is seen.
    pub fn includes(&self, tenant: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(own) => **own == *tenant,
            Self::None => false,
        }
    }
}
