//! Arguments of `kip provision`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::files::FileArguments;

#[derive(Debug, Subcommand)]
pub(crate) enum Provision {
    /// Set the provisioned instances of a function: target, policies and schedules.
    #[command(name = "set", alias = "put")]
    Put(Box<ProvisionPut>),
    /// Show the provisioned instances of a function.
    #[command(name = "show", alias = "get")]
    Get(FunctionArgument),
    /// List provisioned instances: target, current, policies and reasons.
    #[command(name = "ls", alias = "list")]
    List(ProvisionList),
    /// Remove what was set; the function's manifest applies again.
    #[command(alias = "remove")]
    Rm(FunctionArgument),
}

#[derive(Debug, Args)]
pub(crate) struct ProvisionList {
    #[command(flatten)]
    pub(crate) file: FileArguments,
}

#[derive(Debug, Args)]
pub(crate) struct FunctionArgument {
    /// The function; without it, the one of the s.yaml or template.yml.
    pub(crate) function: Option<String>,
    #[command(flatten)]
    pub(crate) file: FileArguments,
    /// For whom: LATEST is whatever serves.
    #[arg(long, default_value = "LATEST")]
    pub(crate) qualifier: String,
}

#[derive(Debug, Args)]
pub(crate) struct ProvisionPut {
    #[command(flatten)]
    pub(crate) whom: FunctionArgument,
    /// The whole input as JSON, or a file of it: an object, or a list of policies.
    #[arg(long, short = 'f', alias = "config", value_name = "JSON|FILE")]
    pub(crate) input: Option<String>,
    /// Instances that are kept where no policy is active.
    #[arg(long, visible_alias = "default-target", alias = "defaultTarget", allow_negative_numbers = true)]
    pub(crate) target: Option<i64>,
    /// Policies that follow a metric, as JSON or a file of it: a list, or an object that has one.
    #[arg(long, alias = "targetTrackingPolicies", value_name = "JSON|FILE")]
    pub(crate) target_tracking_policies: Option<String>,
    /// Targets that begin at certain times, as JSON or a file of it: a list, or an object that has one.
    #[arg(long, alias = "scheduledActions", value_name = "JSON|FILE")]
    pub(crate) scheduled_actions: Option<String>,
    /// Whether idle instances keep their CPU; if not, they sleep.
    #[arg(long, alias = "ac", alias = "alwaysAllocateCPU", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) always_allocate_cpu: Option<bool>,
    /// Whether idle instances keep their device; if not, they sleep.
    #[arg(long, alias = "ag", alias = "alwaysAllocateGPU", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) always_allocate_gpu: Option<bool>,
    /// How long a metric is averaged; 60s is Function Compute's.
    #[arg(long, value_name = "DURATION")]
    pub(crate) period: Option<kip_spec::Millis>,
    /// Periods in a row that a metric must be off its target.
    #[arg(long, value_name = "N")]
    pub(crate) hold: Option<u32>,
    /// What part of a surplus goes at once, above 0 and at most 1.
    #[arg(long, value_name = "X")]
    pub(crate) coefficient: Option<f64>,
    /// Wait until there are as many instances as wanted.
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Advise {
    /// The function.
    pub(crate) function: String,
}

/// JSON, or the text of a file with it.
pub(crate) fn json_or_file(text: &str) -> anyhow::Result<serde_json::Value> {
    use kip_spec::{Problem, code};
    let inline = text.trim_start().starts_with(['{', '[']);
    let read = if inline { text.to_owned() } else { read(&PathBuf::from(text))? };
    serde_json::from_str(&read).map_err(|error| {
        Problem::new(code::SCALING_INVALID, format!("`{}` is not JSON", text.chars().take(60).collect::<String>()))
            .cause(error.to_string())
            .into()
    })
}

fn read(path: &std::path::Path) -> anyhow::Result<String> {
    use kip_spec::{Problem, code};
    std::fs::read_to_string(path).map_err(|error| {
        Problem::new(code::SCALING_INVALID, format!("{} cannot be read", path.display()))
            .cause(error.to_string())
            .into()
    })
}
