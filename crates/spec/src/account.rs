//! The region and the account of this server, for clients of Function Compute: in names of resources, in headers and in variables.

/// The region.
pub const REGION: &str = "local";
/// The account.
pub const ACCOUNT: &str = "kipwake";
