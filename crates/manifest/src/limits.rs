//! Counts, resources and limits in time.

use kip_spec::function::{
    Concurrency, FunctionPriority, GpuIsolation, GpuNeed, GpuResources, Idle, Instances, Resources, Rotation, Timeouts,
    Watchdog, defaults,
};
use kip_spec::{Bytes, MilliCpu, Millis, Problem, code};

use crate::report::{Report, shown};
use crate::section::{Field, Section};
use crate::tree::{Kind, Position};
use crate::value::{count, duration, duration_or_never, flag, quantity, refuse, word, wrong_type};
use crate::{keys, sleep};

pub(crate) const MOST_INSTANCES: u32 = 10_000;
const MOST_AT_ONCE: u32 = 100_000;
const MOST_WAITING: u32 = 1_000_000;
const MOST_CARDS: u32 = 64;
const LONGEST_TYPE: usize = 64;
const MOST_CORES: MilliCpu = MilliCpu(10_000_000);

pub(crate) fn resources(function: &Section<'_>, report: &mut Report<'_>) -> Resources {
    let port = function.field("port").and_then(|field| count(&field, 1..=65_535, report));
    let port = port.and_then(|port| u16::try_from(port).ok());
    let Some(section) = function.section("resources", &keys::RESOURCES, report) else {
        return Resources { port, ..Resources::default() };
    };
    let cpu = section.field("cpu").and_then(|field| {
        let value: MilliCpu = quantity(&field, "a number of cores such as 2, 0.5 or 500m", report)?;
        let fits = value > MilliCpu(0) && value <= MOST_CORES;
        if !fits {
            let message = format!("`{value}` is not from 1m (a thousandth of a core) to 10000 cores");
            report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message));
        }
        fits.then_some(value)
    });
    let memory = section.field("memory").and_then(|field| size(&field, report));
    Resources { cpu, memory, gpu: gpu(&section, report), port }
}

/// An amount of memory that is no slip.
fn size(field: &Field<'_>, report: &mut Report<'_>) -> Option<Bytes> {
    let value: Bytes = quantity(field, "a size such as 512MiB or 4GiB", report)?;
    // The least that a process needs to start at all; smaller ones are slips such as 4B for 4GiB.
    let fits = value >= Bytes(1 << 20);
    if !fits {
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, format!("{value} is less than 1MiB")));
    }
    fits.then_some(value)
}

/// A share of one device, or whole devices.
fn gpu(resources: &Section<'_>, report: &mut Report<'_>) -> Option<GpuResources> {
    let section = resources.section("gpu", &keys::GPU, report)?;
    let kind = section.field("type").and_then(|field| device_type(&field, report));
    let memory = section.field("memory");
    let cards = section.field("cards");
    let need = match (&memory, &cards) {
        (Some(_), Some(field)) => {
            let message = format!(
                "`{}` is written too: an instance has a share of one device, or whole ones",
                section.name_of("memory")
            );
            let problem = refuse(field, code::MANIFEST_CONTRADICTION, message);
            report.add(field.node.at, problem.hint("keep `memory` or `cards`; keys below `defaults` count too"));
            return None;
        }
        (Some(field), None) if field.node.scalar() == Some("auto") => GpuNeed::Measured,
        (Some(field), None) => GpuNeed::Memory(size(field, report)?),
        (None, Some(field)) => GpuNeed::Cards(u8::try_from(count(field, 1..=MOST_CARDS, report)?).unwrap_or_default()),
        // Functions say how much of the type that `defaults` names; those that do not have no device.
        (None, None) if section.is_partial || section.owner() == "defaults" => return None,
        (None, None) => {
            let message = format!("`{}` does not say how much", resources.name_of("gpu"));
            let problem = Problem::new(code::MANIFEST_MISSING_KEY, message);
            report.add(
                section.at,
                problem.hint(
                    "write `memory: 6GiB` or `memory: auto` for a share of one device, or `cards: 1` for whole ones",
                ),
            );
            return None;
        }
    };
    let isolation = section.field("isolation").and_then(|field| {
        let words = [
            ("account", GpuIsolation::Account),
            ("framework", GpuIsolation::Framework),
            ("preload", GpuIsolation::Preload),
        ];
        let isolation = word(&field, &words, &[], report)?;
        if matches!(need, GpuNeed::Cards(_)) && !isolation.is_account() {
            let message = "whole devices have no share that could be kept to";
            let problem = refuse(&field, code::MANIFEST_CONTRADICTION, message);
            report.add(field.node.at, problem.hint("leave `isolation` out, or write `memory` in place of `cards`"));
        }
        Some(isolation)
    });
    Some(GpuResources { need, kind: kind.flatten(), isolation: isolation.unwrap_or_default() })
}

/// The name of a type of device; `Some(None)` is any.
fn device_type(field: &Field<'_>, report: &mut Report<'_>) -> Option<Option<String>> {
    let (Kind::Text(text) | Kind::Number(text)) = &field.node.kind else {
        wrong_type(field, "the name of a type such as L4, or `any`", report);
        return None;
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b" ._-".contains(&byte);
    if text.trim().is_empty() || text.len() > LONGEST_TYPE || !text.bytes().all(fits) {
        let message = format!(
            "`{}` is not a name of at most {LONGEST_TYPE} letters, digits, spaces, `.`, `_` and `-`",
            shown(text)
        );
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, message));
        return None;
    }
    Some((!text.eq_ignore_ascii_case("any")).then(|| text.clone()))
}

/// Counts of instances. One that has a device to itself is one of few, so the default is one.
pub(crate) fn instances(function: &Section<'_>, resources: &Resources, report: &mut Report<'_>) -> Instances {
    let mut instances = defaults::INSTANCES;
    if resources.gpu.is_some() {
        instances.max = defaults::INSTANCES_ON_A_DEVICE;
    }
    if resources.port.is_some() {
        instances.max = 1;
    }
    let Some(section) = function.section("instances", &keys::INSTANCES, report) else { return instances };
    let min = section.field("min");
    let max = section.field("max");
    if let Some(value) = min.as_ref().and_then(|field| count(field, 0..=MOST_INSTANCES, report)) {
        instances.min = value;
    }
    let before = report.count();
    if let Some(field) = &max {
        if field.node.scalar() == Some("0") {
            let problem = refuse(field, code::MANIFEST_CONTRADICTION, "with 0 instances nothing could ever answer");
            report.add(field.node.at, problem.hint("write at least 1, or remove the function"));
        } else if let Some(value) = count(field, 1..=MOST_INSTANCES, report) {
            instances.max = value;
            if value > 1 && resources.port.is_some() {
                let message = format!("{value} instances cannot listen on one port");
                let problem = refuse(field, code::MANIFEST_CONTRADICTION, message);
                report.add(field.node.at, problem.hint("leave `port` out, and let the program listen on ${PORT}"));
            }
        }
    }
    if let Some(field) = min
        && instances.min > instances.max
        && (max.is_some() || !section.is_partial)
        && report.count() == before
    {
        let whose = match (&max, &resources.gpu) {
            (Some(_), _) => "",
            (None, None) => " (the default)",
            (None, Some(_)) => " (the default with a device)",
        };
        let message = format!("{} is more than `max`, which is {}{whose}", instances.min, instances.max);
        let problem = refuse(&field, code::MANIFEST_CONTRADICTION, message);
        report.add(field.node.at, problem.hint(format!("write `max: {}` or more", instances.min)));
    }
    if let Some(value) = concurrency(&section, report) {
        instances.concurrency = value;
    }
    instances
}

/// Whether instances keep their room until they end by themselves.
pub(crate) fn pinned(function: &Section<'_>, report: &mut Report<'_>) -> bool {
    let section = function.section("instances", &keys::INSTANCES, report);
    section.and_then(|section| section.field("pin")).is_some_and(|field| flag(&field, report))
}

/// How important the function is where room is short.
pub(crate) fn priority(function: &Section<'_>, report: &mut Report<'_>) -> FunctionPriority {
    const WORDS: [(&str, FunctionPriority); 3] =
        [("low", FunctionPriority::Low), ("normal", FunctionPriority::Normal), ("high", FunctionPriority::High)];
    let section = function.section("instances", &keys::INSTANCES, report);
    let field = section.as_ref().and_then(|section| section.field("priority"));
    field.and_then(|field| word(&field, &WORDS, &[], report)).unwrap_or_default()
}

/// When an instance that works counts as stuck.
pub(crate) fn watchdog(function: &Section<'_>, report: &mut Report<'_>) -> Watchdog {
    let section = function.section("watchdog", &keys::WATCHDOG, report);
    Watchdog { stall: section.and_then(|section| after(&section.field("stall")?, report)) }
}

/// When instances are replaced though nothing is wrong.
pub(crate) fn rotation(function: &Section<'_>, report: &mut Report<'_>) -> Rotation {
    let Some(section) = function.section("rotation", &keys::ROTATION, report) else { return Rotation::default() };
    Rotation {
        max_age: section.field("max_age").and_then(|field| after(&field, report)),
        max_memory: section.field("max_memory").and_then(|field| size(&field, report)),
    }
}

/// A duration of some length; `never` undoes what `defaults` says.
fn after(field: &Field<'_>, report: &mut Report<'_>) -> Option<Millis> {
    if field.node.scalar() == Some("never") {
        return None;
    }
    if !matches!(field.node.kind, Kind::Number(_) | Kind::Text(_)) {
        wrong_type(field, "a duration such as 60s or 24h, or `never`", report);
        return None;
    }
    duration(field, false, report)
}

/// A number for both limits, or a map of the two.
fn concurrency(section: &Section<'_>, report: &mut Report<'_>) -> Option<Concurrency> {
    let field = section.field("concurrency")?;
    if matches!(field.node.kind, Kind::Number(_)) {
        let both = count(&field, 1..=MOST_AT_ONCE, report)?;
        return Some(Concurrency { hard: both, soft: both });
    }
    let both = section.section("concurrency", &keys::CONCURRENCY, report)?;
    let Some(hard) = both.field("hard") else {
        if section.is_partial {
            both.field("soft").and_then(|field| count(&field, 1..=MOST_AT_ONCE, report));
            return None;
        }
        let message = format!("`{}` is missing", both.name_of("hard"));
        let hint = "write how many requests one instance takes at once";
        report.add(both.at, Problem::new(code::MANIFEST_MISSING_KEY, message).hint(hint));
        return None;
    };
    let hard = count(&hard, 1..=MOST_AT_ONCE, report)?;
    let Some(field) = both.field("soft") else { return Some(Concurrency { hard, soft: hard }) };
    let soft = count(&field, 1..=MOST_AT_ONCE, report)?;
    if soft > hard {
        let message = format!("{soft} is more than `hard`, which is {hard}");
        let problem = refuse(&field, code::MANIFEST_CONTRADICTION, message);
        report.add(field.node.at, problem.hint("`soft` is what scaling aims at, `hard` is never exceeded"));
        return None;
    }
    Some(Concurrency { hard, soft })
}

pub(crate) fn timeouts(function: &Section<'_>, report: &mut Report<'_>) -> Timeouts {
    let mut timeouts = defaults::TIMEOUTS;
    let Some(section) = function.section("timeouts", &keys::TIMEOUTS, report) else { return timeouts };
    let slots = [
        ("startup", &mut timeouts.startup),
        ("queue", &mut timeouts.queue),
        ("first_byte", &mut timeouts.first_byte),
        ("idle", &mut timeouts.idle),
        ("total", &mut timeouts.total),
    ];
    for (key, slot) in slots {
        if let Some(value) = section.field(key).and_then(|field| duration(&field, false, report)) {
            *slot = value;
        }
    }
    timeouts.grace = section.field("grace").and_then(|field| duration(&field, true, report));
    for (key, value) in [("first_byte", timeouts.first_byte), ("queue", timeouts.queue), ("idle", timeouts.idle)] {
        // Only what the user wrote: a short `total` over our own defaults is no slip.
        if let Some(field) = section.field(key)
            && value > timeouts.total
        {
            let message = format!("{value} is more than `total`, which is {}: it never takes effect", timeouts.total);
            report.warn(field.node.at, refuse(&field, code::MANIFEST_CONTRADICTION, message));
        }
    }
    timeouts
}

pub(crate) fn queue_depth(function: &Section<'_>, report: &mut Report<'_>) -> u32 {
    let field = function.section("queue", &keys::QUEUE, report).and_then(|section| section.field("depth"));
    field.and_then(|field| count(&field, 1..=MOST_WAITING, report)).unwrap_or(defaults::QUEUE_DEPTH)
}

pub(crate) fn idle_cpu(function: &Section<'_>, report: &mut Report<'_>) -> bool {
    let field = function.section("idle", &keys::IDLE, report).and_then(|section| section.field("cpu"));
    field.map_or(defaults::IDLE_CPU, |field| flag(&field, report))
}

pub(crate) fn idle(function: &Section<'_>, report: &mut Report<'_>) -> Idle {
    let mut idle = defaults::IDLE;
    let Some(section) = function.section("idle", &keys::IDLE, report) else { return idle };
    let mut pause_at: Option<Position> = None;
    if let Some(field) = section.field("pause")
        && let Some(value) = duration_or_never(&field, report)
    {
        idle.pause = value;
        pause_at = Some(field.node.at);
    }
    if let Some(value) = section.field("stop").and_then(|field| duration_or_never(&field, report)) {
        idle.stop = value;
    }
    sleep::rungs(&section, &mut idle, report);
    if let (Some(at), Some(pause), Some(stop)) = (pause_at, idle.pause, idle.stop)
        && stop <= pause
    {
        let message = format!(
            "`{}`: {pause} is not before `stop`, which is {stop}: nothing is ever paused",
            section.name_of("pause")
        );
        report.warn(at, Problem::new(code::MANIFEST_CONTRADICTION, message));
    }
    idle
}
