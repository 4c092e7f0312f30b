//! Jobs of `kip.yaml` as types, as [`crate::wire`] has functions.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::wire::{Paths, Resources, Run};
use crate::wire_image::{ContainerInput, PullKeyword};
use crate::wire_text::{Duration, Variable};

/// One job: a program that runs to its end. It needs `run` or `image`.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// Directory the command starts in; counts from the folder of the manifest, which is the default. Of an image, inside its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dir: Option<String>,
    /// Command that does the work and ends; run without a shell. Beside `image`, it takes the place of the image's command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<Run>,
    /// Name of an image: each run is a container of its own, and its exit code is that of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// Takes the place of the image's entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entrypoint: Option<Run>,
    /// When the image is pulled; `missing` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull: Option<PullKeyword>,
    /// What the container is made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container: Option<ContainerInput>,
    /// Extra environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) env: BTreeMap<String, Variable>,
    /// Files of variables, NAME=VALUE a line; what is under `env` wins. Paths count from the folder of the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) env_file: Option<Paths>,
    /// What each run reserves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<Resources>,
    /// Runs at once; 1 if left out, and 10 for `overlap: allow` without a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) parallel: Option<u32>,
    /// How often a run that failed is followed by another; 0 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retries: Option<Retries>,
    /// How long one run may take; a day if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<Duration>,
    /// From SIGTERM to SIGKILL when a run is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grace: Option<Duration>,
    /// When it runs by itself; never if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schedule: Option<Schedule>,
}

/// How often a run that failed is followed by another: a number, or a map that says for which exit codes.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the map is written; the short form is for the schema")]
pub(crate) enum Retries {
    /// For all exit codes.
    Max(#[schemars(range(min = 0, max = 8))] u32),
    /// By exit code.
    ByCode(RetriesByCode),
}

/// Retries by exit code.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetriesByCode {
    /// How often.
    #[schemars(range(min = 0, max = 8))]
    pub(crate) max: u32,
    /// Only after these codes; all if left out. A signal is 128 and its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) only: Option<Vec<u8>>,
    /// Never after these.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) never: Vec<u8>,
}

/// When a job runs by itself: a line of a crontab, or a map.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the map is written; the short form is for the schema")]
pub(crate) enum Schedule {
    /// In UTC.
    Line(String),
    /// With all there is to say.
    Full(Timer),
}

/// When a job runs by itself.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Timer {
    /// Minute, hour, day of the month, month, day of the week; a sixth field before them is the second. Or `@daily`.
    pub(crate) cron: String,
    /// The time zone in which that is meant, such as Europe/Berlin; UTC if left out.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub(crate) zone: String,
    /// What becomes of a run that meets another: `forbid` (left out, the default), `queue`, `replace`, `allow`.
    pub(crate) overlap: Option<OverlapKeyword>,
    /// What becomes of runs that came while no server ran: `skip`, `once` (the last, the default), `each`.
    pub(crate) missed: Option<MissedKeyword>,
    /// A run that could not begin so long after its time does not begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline: Option<Duration>,
    /// It does not run by itself for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) paused: Option<bool>,
}

/// What becomes of a run that meets another.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OverlapKeyword {
    /// It is left out.
    Forbid,
    /// It waits.
    Queue,
    /// The other is stopped.
    Replace,
    /// Both run.
    Allow,
}

/// What becomes of runs that came while no server ran.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MissedKeyword {
    /// They are left out.
    Skip,
    /// The last is run.
    Once,
    /// Each is run.
    Each,
}
