//! Settings of tasks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kip_spec::{Bytes, Millis, Problem};
use kip_tasks::config::Options;

use super::value::{Value, invalid, parse};

/// The longest that a payload may be: it is held in memory.
const LARGEST: u64 = 256 << 20;

/// The largest weight of a tenant.
const HEAVIEST: u32 = 1_000;

/// What bounds tasks.
pub(super) fn options(values: &BTreeMap<&'static str, Value>) -> Result<Options, Problem> {
    let size = |key: &'static str| -> Result<usize, Problem> {
        let bytes = parse::<Bytes>(values, key, "a size such as 128KiB")?.0;
        if bytes == 0 || bytes > LARGEST {
            return Err(invalid(format!("{key} is at least 1B and at most {}", Bytes(LARGEST))));
        }
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    };
    let total = |key: &'static str| -> Result<u64, Problem> {
        let bytes = parse::<Bytes>(values, key, "a size such as 16GiB")?.0;
        if bytes == 0 {
            return Err(invalid(format!("{key} is at least 1B")));
        }
        Ok(bytes)
    };
    let count = |key: &'static str| parse::<u64>(values, key, "a number such as 1000000");
    let time = |key: &'static str| parse::<Millis>(values, key, "a duration such as 7d").map(|time| time.to_std());
    let threads = parse::<usize>(values, "tasks.threads", "a number such as 2")?;
    if threads == 0 || threads > super::MOST_THREADS {
        return Err(invalid(format!("tasks.threads must be at least 1 and at most {}", super::MOST_THREADS)));
    }
    Ok(Options {
        per_function: count("tasks.per_function")?,
        overall: count("tasks.waiting")?,
        payload: size("tasks.payload")?,
        overall_bytes: total("tasks.waiting_bytes")?,
        tenant_bytes: total("tasks.tenant_bytes")?,
        anonymous_bytes: total("tasks.anonymous_bytes")?,
        result: size("tasks.result")?,
        results: total("tasks.results")?,
        function_results: total("tasks.function_results")?,
        tenant_results: total("tasks.tenant_results")?,
        retention: time("tasks.retention")?,
        threads,
        holders: None,
        destinations: kip_tasks::DestinationRules::parse(&values["tasks.destinations"].value)
            .map_err(|part| invalid(format!("tasks.destinations: `{part}` is no host, host with a port, or folder")))?,
        weights: weights(&values["tasks.weights"].value)?,
        secret: Vec::new(),
        server: String::new(),
    })
}

/// What bounds deliveries.
pub(super) fn deliveries(values: &BTreeMap<&'static str, Value>) -> Result<kip_events::Options, Problem> {
    let delivery = parse::<Millis>(values, "tasks.delivery", "a duration such as 7d")?.to_std();
    Ok(kip_events::Options { delivery, ca: ca(&values["tasks.ca"].value)? })
}

/// A file of certificates, read once to see that it can be.
fn ca(text: &str) -> Result<Option<PathBuf>, Problem> {
    if text == "system" {
        return Ok(None);
    }
    let path = PathBuf::from(text);
    kip_host::tls::Trust::of(Some(&path)).map_err(|error| invalid(format!("tasks.ca: {error}")))?;
    Ok(Some(path))
}

/// `a=3, b=2`: tenants and how many tasks in a row they may have.
fn weights(text: &str) -> Result<BTreeMap<String, u32>, Problem> {
    let pair = |pair: &str| {
        let (tenant, weight) = pair.split_once('=')?;
        let weight = weight.trim().parse().ok().filter(|weight| (1..=HEAVIEST).contains(weight))?;
        Some((tenant.trim().to_owned(), weight))
    };
    let pairs = text.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "none");
    let wrong = |part: &str| invalid(format!("tasks.weights: `{part}` is not TENANT=WEIGHT, 1 to {HEAVIEST}"));
    pairs.map(|part| pair(part).ok_or_else(|| wrong(part))).collect()
}
