//! Arguments of `kip scaler`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Scaler {
    /// Show what a scaling policy would do, line by line, without running anything.
    Decide(Lines),
    /// Check scaling settings, and show them with every default filled in.
    Validate(Lines),
}

#[derive(Debug, Args)]
pub(crate) struct Lines {
    /// A file of JSON lines, the first of which is the policy; - is standard input.
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
}
