//! What `deploy` declares: the words of kip.yaml in short, and how long operations take in this world.

use kip_fleet::policy::Limits;
use kip_fleet::room::{Device, DeviceKind, Gpu, Host, Pool};
use kip_fleet::{AliasNumber, Call, Inventory, Policy, Priority, Qualifier, Target};
use kip_spec::function::{Dispatch, Idle, defaults};
use kip_spec::{Bytes, Millis, VersionId};

use crate::cell::Cell;

/// Durations of operations, by the operations' names.
type OperationDurations = Vec<(&'static str, u64)>;

pub(super) fn read(settings: &[&str]) -> Result<(Policy, OperationDurations), String> {
    let mut policy = Policy {
        max: 10,
        concurrency: defaults::CONCURRENCY,
        queue_depth: defaults::QUEUE_DEPTH,
        queue_timeout: defaults::TIMEOUTS.queue.0,
        idle: Idle { pause: Some(Millis::from_secs(30)), stop: None, ..defaults::IDLE },
        ..Policy::plain(Limits {
            start: 60_000,
            initialize: 10_000,
            sleep: 10_000,
            park: 60_000,
            stop: 15_000,
            request: 600_000,
        })
    };
    let mut takes = OperationDurations::new();
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
            "memory" => policy.need.memory = bytes(value)?,
            "cpu" => policy.need.cpu = u64::from(number(value)?) * 1_000,
            "gpu" => policy.need.gpu = Gpu::Slice(bytes(value)?),
            "cards" => policy.need.gpu = Gpu::Cards(u8::try_from(number(value)?).unwrap_or(u8::MAX)),
            "park" => policy.rungs.park = value == "yes",
            "spill" => policy.rungs.spill = value == "yes",
            "stall" => policy.stall = Some(time(value)?),
            "max_age" => policy.max_age = Some(time(value)?),
            "recreate" => policy.recreate = value == "yes",
            "grace" => policy.grace = Some(time(value)?),
            "total" => policy.limits.request = time(value)?,
            "park_takes" => takes.push(("park", time(value)?)),
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

fn bytes(text: &str) -> Result<u64, String> {
    let bytes: Bytes = text.parse().map_err(|error| format!("{error}"))?;
    Ok(bytes.0)
}

/// `host memory=4GiB cpu=2 devices=24GiB,24GiB`, or `burst` for a second pool, with `max=2`.
pub(super) fn pool(name: &str, settings: &[&str], inventory: &mut Inventory) -> Result<(), String> {
    let mut host = Host { cpu: u64::MAX, memory: u64::MAX, devices: Vec::new() };
    let mut max = None;
    for setting in settings {
        let (key, value) = setting.split_once('=').ok_or_else(|| format!("`{setting}` is not key=value"))?;
        match key {
            "memory" => host.memory = bytes(value)?,
            "cpu" => host.cpu = u64::from(number(value)?) * 1_000,
            "max" => max = Some(number(value)?),
            "devices" => {
                for memory in value.split(',') {
                    let (name, kind) = ("d".to_owned(), DeviceKind::ANY);
                    host.devices.push(Device { name, kind, memory: bytes(memory)? });
                }
            }
            other => return Err(format!("`{other}` is not a setting of a host")),
        }
    }
    let pool = Pool { name: name.to_owned(), max, hosts: vec![host] };
    match name {
        "host" => inventory.pools = vec![pool],
        _ => inventory.pools.push(pool),
    }
    Ok(())
}

/// `quota cards=2` or `quota instances=3`.
pub(super) fn quota(setting: &str, inventory: &mut Inventory) -> Result<(), String> {
    match setting.split_once('=') {
        Some(("cards", value)) => inventory.quota.cards = Some(number(value)?),
        Some(("instances", value)) => inventory.quota.instances = Some(number(value)?),
        _ => return Err("write quota cards=2 or quota instances=3".to_owned()),
    }
    Ok(())
}

/// `alias f v1=9 v2=1 provisioned=10`.
pub(super) fn alias(cell: &Cell, words: &[&str]) -> Result<(Vec<Target>, u32), String> {
    let (mut targets, mut provisioned) = (Vec::new(), 0);
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not v1=9"))?;
        if key == "provisioned" {
            provisioned = number(value)?;
            continue;
        }
        let version = VersionId(u64::from(number(key.trim_start_matches('v'))?));
        let policy = cell.versions.get(&version).ok_or_else(|| format!("{} has no {version}", cell.name))?;
        targets.push(Target { version, policy: policy.clone(), weight: number(value)? });
    }
    Ok((targets, provisioned))
}

/// `async`, `alias`, `v2`, `patience=1s` and `stuck`, in any order.
pub(super) fn call(words: &[&str]) -> Result<(Call, bool), String> {
    let (mut call, mut stuck) = (Call::default(), false);
    for word in words {
        match *word {
            "async" => call.priority = Priority::ASYNC,
            "alias" => call.to = Qualifier::Alias(AliasNumber(0)),
            "stuck" => stuck = true,
            word => match (word.strip_prefix("patience="), word.strip_prefix('v')) {
                (Some(patience), _) => call.patience = Some(time(patience)?),
                (_, Some(version)) => call.to = Qualifier::Version(VersionId(u64::from(number(version)?))),
                _ => return Err(format!("`{word}` says nothing of a request")),
            },
        }
    }
    Ok((call, stuck))
}
