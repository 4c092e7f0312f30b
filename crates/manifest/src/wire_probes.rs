//! The keys of `probes.rs` as types, for the schema and for writing.

use kip_spec::function::{FunctionSpec, ReadyProbe};
use kip_spec::probe::ProbeTiming;
use schemars::JsonSchema;
use serde::Serialize;

use crate::wire_text::{Duration, PathOnInstance, Run};

/// How readiness and life are found out.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Probes {
    /// When an instance gets requests.
    pub(crate) ready: Option<ReadyInput>,
    /// An instance that does not answer 200 to 399 is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) live: Option<LiveInput>,
}

/// A path that answers 200 to 399 to a GET, `tcp` for a port that takes connections, or a map with one of these or a program, and times.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ReadyInput {
    /// A path, or `tcp`.
    Word(#[schemars(extend("pattern" = "^(tcp|/.*)$"))] String),
    /// With times.
    Full(ReadyMap),
}

/// One of `path`, `tcp` and `exec`, and when it is probed.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadyMap {
    /// A path that answers 200 to 399 to a GET.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathOnInstance>,
    /// The port takes connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<bool>,
    /// The program runs in the instance until it ends with exit code 0; run without a shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    exec: Option<Run>,
    /// From the start of an instance to the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<Duration>,
    /// Between two probes of an instance that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<Duration>,
    /// How long one may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Duration>,
    /// Failures in a row that count.
    #[schemars(range(min = 1, max = 1_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<u32>,
    /// Successes in a row that count.
    #[schemars(range(min = 1, max = 1_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    successes: Option<u32>,
}

/// A path that answers 200 to 399 to a GET, or a map with it and times.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum LiveInput {
    /// A path.
    Path(PathOnInstance),
    /// With times.
    Full(LiveMap),
}

/// What is asked, and when.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiveMap {
    /// A path that answers 200 to 399 to a GET.
    path: PathOnInstance,
    /// From the start of an instance to the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<Duration>,
    /// Between two probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<Duration>,
    /// How long one may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Duration>,
    /// Failures in a row that count.
    #[schemars(range(min = 1, max = 1_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<u32>,
}

/// The probes of a declaration as they are written.
pub(crate) fn written(spec: &FunctionSpec, words: impl Fn(&[String]) -> Run) -> Probes {
    let set = |timing: ProbeTiming| timing != ProbeTiming::default();
    let ProbeTiming { delay, period, timeout, failures, successes } = spec.probes.ready;
    let full = |path: Option<&String>, tcp: bool, exec: Option<Run>| {
        ReadyInput::Full(ReadyMap {
            path: path.cloned().map(PathOnInstance),
            tcp: tcp.then_some(true),
            exec,
            delay: delay.map(Duration),
            period: period.map(Duration),
            timeout: timeout.map(Duration),
            failures,
            successes,
        })
    };
    let ready = match &spec.ready {
        ReadyProbe::Exec { argv } => full(None, false, Some(words(argv))),
        ReadyProbe::Tcp if set(spec.probes.ready) => full(None, true, None),
        ReadyProbe::Http { path } if set(spec.probes.ready) => full(Some(path), false, None),
        ReadyProbe::Tcp => ReadyInput::Word("tcp".to_owned()),
        ReadyProbe::Http { path } => ReadyInput::Word(path.clone()),
    };
    let live = spec.live.as_ref().map(|live| {
        let path = PathOnInstance(live.path.clone());
        let ProbeTiming { delay, period, timeout, failures, successes: _ } = spec.probes.live;
        match set(spec.probes.live) {
            false => LiveInput::Path(path),
            true => LiveInput::Full(LiveMap {
                path,
                delay: delay.map(Duration),
                period: period.map(Duration),
                timeout: timeout.map(Duration),
                failures,
            }),
        }
    });
    Probes { ready: Some(ready), live }
}
