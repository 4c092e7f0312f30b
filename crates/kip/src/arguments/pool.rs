//! `kip pool`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// The pools in the order in which they are filled, with what is reserved in each.
    Ls,
}
