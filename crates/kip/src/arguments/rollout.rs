//! Arguments of `kip rollout`.

use clap::{Args, Subcommand};
use kip_spec::Millis;

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Move an alias to another version in steps.
    Start(RolloutStart),
    /// Show how far the rollout of an alias has come.
    #[command(name = "status", alias = "show")]
    Status {
        #[command(flatten)]
        which: RolloutOf,
        /// Follow the rollout until it ends; exit with 1 if it is aborted.
        #[arg(long)]
        wait: bool,
    },
    /// Stop at the present share.
    Pause(RolloutOf),
    /// Go on after a pause.
    Resume(RolloutOf),
    /// Give the new version all requests now.
    Promote(RolloutOf),
    /// Point the alias back to where it pointed before.
    Abort(RolloutOf),
}

#[derive(Debug, Args)]
pub(crate) struct RolloutOf {
    /// The function.
    pub(crate) function: String,
    /// The alias.
    pub(crate) alias: String,
}

#[derive(Debug, Args)]
pub(crate) struct RolloutStart {
    #[command(flatten)]
    pub(crate) which: RolloutOf,
    /// The new version: 4, or a revision such as r12.
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: String,
    /// Ascending shares of the new version in percent that end with 100.
    #[arg(long, value_name = "PERCENT,…", default_value = "10,30,60,100")]
    pub(crate) steps: String,
    /// How long each step is observed.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    pub(crate) every: Millis,
    /// How long instances of the old version sleep after the last step.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub(crate) keep: Millis,
    /// Judge a version by this many requests at least.
    #[arg(long, value_name = "REQUESTS", default_value_t = 20)]
    pub(crate) least: u64,
    /// Abort when this many more of a thousand requests fail than with the old version; 1000 never aborts.
    #[arg(long, value_name = "PER-MILLE", default_value_t = 20)]
    pub(crate) max_errors: u32,
    /// Abort when the 99th percentile exceeds that of the old version by this percentage; 0 never aborts.
    #[arg(long, value_name = "PERCENT", default_value_t = 100)]
    pub(crate) max_slower: u32,
    /// Abort when this many starts in a row fail.
    #[arg(long, value_name = "STARTS", default_value_t = 3)]
    pub(crate) max_failed_starts: u32,
    /// If the new version finds no room beside the old one, let the old one sleep or end before the new one is ready; requests wait.
    #[arg(long)]
    pub(crate) park_old: bool,
    /// Follow the rollout until it ends; exit with 1 if it is aborted.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Only if the alias has this revision, as `kip alias show` prints it.
    #[arg(long, value_name = "REV")]
    pub(crate) if_match: Option<u64>,
}
