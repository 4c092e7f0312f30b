//! `healthCheckConfig`: the ready probe of an instance, with its times and thresholds.

use kip_spec::Millis;
use kip_spec::function::{FunctionSpec, ReadyProbe};
use kip_spec::probe::ProbeTiming;
use serde_json::{Map, Value, json};

use crate::config::{number, object};
use crate::error::FcResult;
use crate::request::text;

/// The objects that may have one.
const OWNERS: [&str; 2] = ["customRuntimeConfig", "customContainerConfig"];
/// The vendor's defaults: seconds, and answers in a row.
const DELAY: u64 = 0;
const PERIOD: u64 = 3;
const TIMEOUT: u64 = 1;
const FAILURES: u32 = 3;
const SUCCESSES: u32 = 1;

/// Sets the probe that a configuration says. An object that is sent without one has none: objects are replaced whole.
pub(crate) fn apply(config: &Map<String, Value>, spec: &mut FunctionSpec) -> FcResult<()> {
    for name in OWNERS {
        let Some(owner) = object(config, name)? else { continue };
        let health = object(owner, "healthCheckConfig")?;
        let url = health.map(|health| text(health, "httpGetUrl")).transpose()?.flatten().unwrap_or_default();
        let Some(health) = health.filter(|_| !url.is_empty()) else {
            (spec.ready, spec.probes.ready) = (ReadyProbe::Tcp, ProbeTiming::default());
            continue;
        };
        let seconds = |name: &str, usual| -> FcResult<Option<Millis>> {
            Ok(Some(Millis::from_secs(number(health, name, 0, 120)?.unwrap_or(usual))))
        };
        let count = |name: &str, usual| -> FcResult<Option<u32>> {
            Ok(Some(number(health, name, 1, 120)?.and_then(|count| u32::try_from(count).ok()).unwrap_or(usual)))
        };
        spec.ready = ReadyProbe::Http { path: url.to_owned() };
        spec.probes.ready = ProbeTiming {
            delay: seconds("initialDelaySeconds", DELAY)?,
            period: seconds("periodSeconds", PERIOD)?,
            timeout: seconds("timeoutSeconds", TIMEOUT)?,
            failures: count("failureThreshold", FAILURES)?,
            successes: count("successThreshold", SUCCESSES)?,
        };
        let delay = spec.probes.ready.delay.unwrap_or_default();
        // The time of a start begins with its delay.
        spec.timeouts.startup = spec.timeouts.startup.max(Millis(delay.0 + STARTUP.0));
    }
    Ok(())
}

/// How long a start may take after the delay.
const STARTUP: Millis = kip_spec::function::defaults::TIMEOUTS.startup;

/// The probe of a declaration in the vendor's words.
pub(crate) fn render(spec: &FunctionSpec) -> Option<Value> {
    let ReadyProbe::Http { path } = &spec.ready else { return None };
    let mut health = json!({"httpGetUrl": path});
    let timing = spec.probes.ready;
    for (name, time) in
        [("initialDelaySeconds", timing.delay), ("periodSeconds", timing.period), ("timeoutSeconds", timing.timeout)]
    {
        if let Some(time) = time {
            health[name] = time.0.div_ceil(1_000).into();
        }
    }
    for (name, count) in [("failureThreshold", timing.failures), ("successThreshold", timing.successes)] {
        if let Some(count) = count {
            health[name] = count.into();
        }
    }
    Some(health)
}
