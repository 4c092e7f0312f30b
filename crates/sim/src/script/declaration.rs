//! What `deploy` declares: the words of kip.yaml in short, and how long operations take in this world.

use kip_fleet::Need;
use kip_fleet::Policy;
use kip_fleet::policy::{Limits, Rungs};
use kip_spec::function::{Dispatch, Idle, defaults};
use kip_spec::{Bytes, Millis};

/// Durations of operations, by the operations' names.
type Takes = Vec<(&'static str, u64)>;

pub(super) fn read(settings: &[&str]) -> Result<(Policy, Takes), String> {
    let mut policy = Policy {
        min: 0,
        max: 10,
        concurrency: defaults::CONCURRENCY,
        queue_depth: defaults::QUEUE_DEPTH,
        queue_timeout: defaults::TIMEOUTS.queue.0,
        idle: Idle { pause: Some(Millis::from_secs(30)), stop: None },
        dispatch: Dispatch::Packed,
        need: Need::default(),
        initialize: false,
        rungs: Rungs::default(),
        grace: None,
        stall: None,
        max_age: None,
        limits: Limits {
            start: 60_000,
            initialize: 10_000,
            sleep: 10_000,
            park: 60_000,
            stop: 15_000,
            request: 600_000,
        },
    };
    let mut takes = Takes::new();
    for setting in settings {
        let (key, value) = setting.split_once('=').ok_or_else(|| format!("`{setting}` is not key=value"))?;
        match key {
            "min" => policy.min = number(value)?,
            "max" => policy.max = number(value)?,
            "concurrency" => policy.concurrency.hard = number(value)?,
            "soft" => policy.concurrency.soft = number(value)?,
            "queue" => policy.queue_depth = number(value)?,
            "queue_timeout" => policy.queue_timeout = time(value)?,
            "pause" => policy.idle.pause = if value == "never" { None } else { Some(Millis(time(value)?)) },
            "stop" => policy.idle.stop = if value == "never" { None } else { Some(Millis(time(value)?)) },
            "startup" => policy.limits.start = time(value)?,
            "balanced" => policy.dispatch = if value == "yes" { Dispatch::Balanced } else { Dispatch::Packed },
            "initialize" => policy.initialize = value == "yes",
            "memory" => {
                let bytes: Bytes = value.parse().map_err(|error| format!("{error}"))?;
                policy.need.memory = bytes.0;
            }
            "start_takes" => takes.push(("start", time(value)?)),
            "pause_takes" => takes.push(("pause", time(value)?)),
            "resume_takes" => takes.push(("resume", time(value)?)),
            "stop_takes" => takes.push(("stop", time(value)?)),
            other => return Err(format!("`{other}` is not a setting")),
        }
    }
    let named = |key: &str| settings.iter().any(|setting| setting.starts_with(key));
    if !named("soft=") {
        policy.concurrency.soft = policy.concurrency.hard;
    }
    Ok((policy, takes))
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn time(text: &str) -> Result<u64, String> {
    text.parse::<Millis>().map(|time| time.0).map_err(|error| error.to_string())
}
