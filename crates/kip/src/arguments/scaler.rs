//! Arguments of `kip scaler`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Scaler {
    /// Show what a scaling policy would do, line by line, without running anything.
    Decide(Lines),
    /// Check scaling settings, and show them with every default filled in.
    Validate(Lines),
    /// Print what a function's policies saw, as lines for `kip scaler decide`, oldest first, policy by policy.
    History(History),
    /// Record what is handed to what decides for a function, and what it decides: the latest 8,000 steps at most, in memory.
    Record(RecordArguments),
    /// Print what was recorded, for `kip simulate --replay`.
    Recording {
        /// The function.
        function: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RecordArguments {
    /// The function.
    pub(crate) function: String,
    /// End the recording.
    #[arg(long)]
    pub(crate) stop: bool,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// The function.
    pub(crate) function: String,
    /// The latest looks that are printed.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Lines {
    /// A file of JSON lines, the first of which is the policy; - is standard input.
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
}
