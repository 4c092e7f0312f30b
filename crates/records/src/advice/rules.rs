//! The rules: which figures speak against which setting.

use kip_fleet::{DeviceKind, Inventory};
use kip_spec::function::{FunctionSpec, GpuNeed};
use kip_spec::scaling::{Kpa, Scaling};
use kip_spec::{Bytes, Millis};
use kip_wire::{Advice, Measurements};

/// A start that takes longer is slow, milliseconds: callers notice it.
const SLOW: u64 = 2_000;
/// One that takes longer is not to be waited for, milliseconds.
const VERY_SLOW: u64 = 10_000;
/// One that is shorter is no reason to keep an instance, milliseconds.
const QUICK: u64 = 1_000;
/// Fewer requests say little about the longest one.
const ENOUGH: usize = 20;
/// Fewer say nothing about one that was not seen yet.
const MANY: usize = 1_000;

fn advice(setting: &str, now: impl ToString, better: impl ToString, why: String) -> Advice {
    Advice { setting: setting.to_owned(), now: now.to_string(), better: better.to_string(), why }
}

fn whole(millis: u64) -> Millis {
    Millis::from_secs(millis.div_ceil(1_000).max(1))
}

/// A fifth more, and a bit.
fn and_a_fifth(number: u64) -> u64 {
    number.saturating_mul(12).div_ceil(10)
}

/// What the figures say about the settings.
pub fn settings(spec: &FunctionSpec, measured: &Measurements) -> Vec<Advice> {
    let mut all = Vec::new();
    let slowest = measured.start_ms.values().copied().max();
    if let Scaling::Kpa(kpa) = &spec.scaling {
        all.extend(slowest.into_iter().flat_map(|start| windows(kpa, start)));
        all.extend(initial(kpa, measured));
    }
    all.extend(timeout(spec, measured, slowest));
    let concurrency = spec.instances.concurrency.hard;
    if spec.resources.gpu.is_some() && concurrency > 1 {
        let why =
            "one device computes one thing at a time, unless the program batches: then write the size of its batch";
        all.push(advice("instances.concurrency", concurrency, "1, or the batch size", why.to_owned()));
    }
    all.extend(minimum(spec, measured, slowest));
    if let (Some(peak), Some(declared)) = (measured.peak_memory, spec.resources.memory)
        && declared.0 > peak.saturating_mul(2)
    {
        let why = format!("no instance used more than {}", Bytes(peak));
        all.push(advice("resources.memory", declared, mebibytes(peak), why));
    }
    all
}

/// The total timeout, which counts from the arrival on, so that a start is part of the first request.
fn timeout(spec: &FunctionSpec, measured: &Measurements, slowest: Option<u64>) -> Option<Advice> {
    let longest = measured.longest_ms?;
    let first = slowest.unwrap_or(0) + measured.longest_service_ms.unwrap_or(longest);
    let (now, total) = (spec.timeouts.total, whole(and_a_fifth(longest.max(first))));
    let too_short = measured.requests >= ENOUGH && now.0 < total.0;
    let far_too_long = measured.requests >= MANY && now.0 > total.0.saturating_mul(20);
    (too_short || far_too_long).then(|| {
        let why = match slowest.filter(|_| first > longest) {
            Some(start) => format!("a request that waits for a start of {} may take {}", Millis(start), Millis(first)),
            None => format!("the longest of {} requests took {}", measured.requests, Millis(longest)),
        };
        advice("timeouts.total", now, total, format!("{why}; 1.2 times that is enough"))
    })
}

/// Windows and threshold against the time that a start takes.
fn windows(kpa: &Kpa, start: u64) -> Vec<Advice> {
    let mut all = Vec::new();
    let (stable, panic) = (kpa.stable_window, kpa.panic_window);
    let better = whole(2 * start).max(Millis::from_secs(6)).max(stable);
    if stable.0 < 2 * start {
        let why = format!("a start takes {}: a window under twice that forgets what it was started for", Millis(start));
        all.push(advice("scaling.annotations.window", stable, better, why));
    }
    // Whole seconds below the start, and a percentage that is allowed.
    let below = (start.saturating_sub(1) / 1_000).max(1) * 1_000;
    let percent = (below as f64 * 100.0 / better.0 as f64).max(1.0);
    let becomes = (better.0 as f64 * percent / 100.0 / 1_000.0).round() * 1_000.0;
    if panic.0 >= start && becomes < start as f64 && becomes < panic.0 as f64 {
        let why =
            format!("a start takes {}: a panic window shorter than that sees a burst before it is over", Millis(start));
        let now = format!("a window of {panic}");
        let better = format!("{:.1} ({} s)", percent, becomes / 1_000.0);
        all.push(advice("scaling.annotations.panic-window-percentage", now, better, why));
    }
    if kpa.panic_threshold.get() >= 2.0 && start > SLOW {
        let now = format!("{:.0}", kpa.panic_threshold.get() * 100.0);
        let why =
            format!("a start takes {}: below 200 % the count grows before twice the load is there", Millis(start));
        all.push(advice("scaling.annotations.panic-threshold-percentage", now, "150", why));
    }
    all
}

/// The first scale against what was in flight.
fn initial(kpa: &Kpa, measured: &Measurements) -> Option<Advice> {
    let needed = f64::from(measured.peak_in_flight) / kpa.total.get().max(Kpa::LEAST_TARGET);
    let better = kip_spec::round::up_decimal(needed * 1.2).min(kpa.max_scale.max(1));
    (better > kpa.initial_scale.max(1)).then(|| {
        let why = format!("{} requests were in flight at once; 1.2 times what they need", measured.peak_in_flight);
        advice("scaling.annotations.initial-scale", kpa.initial_scale, better, why)
    })
}

/// How many instances are worth keeping: none, one or more.
fn minimum(spec: &FunctionSpec, measured: &Measurements, slowest: Option<u64>) -> Option<Advice> {
    let (min, start) = (spec.instances.min, slowest?);
    if measured.requests == 0 {
        return None;
    }
    let busy = measured.peak_in_flight.div_ceil(spec.instances.concurrency.hard.max(1)).min(spec.instances.max);
    if start > VERY_SLOW && min < busy.max(1) {
        let why = match busy {
            0 | 1 => format!("the first request waits for a start, which takes {}", Millis(start)),
            busy => format!("{busy} instances were busy at once, and a start takes {}", Millis(start)),
        };
        return Some(advice("instances.min", min, format!("{}, asleep when idle", busy.max(1)), why));
    }
    // It is asked for now and then, and soon there.
    let rare = measured.requests < ENOUGH;
    (min > 0 && start < QUICK && rare).then(|| {
        let why = format!("a start takes {} and there were {} requests in all", Millis(start), measured.requests);
        advice("instances.min", min, "0", why)
    })
}

/// What the figures say about the device: how much of one, and which.
pub fn device(spec: &FunctionSpec, measured: &Measurements, inventory: &Inventory) -> Vec<Advice> {
    let Some(gpu) = &spec.resources.gpu else { return Vec::new() };
    let kind = gpu.kind.as_deref().map_or(DeviceKind::ANY, DeviceKind::named);
    let devices = || inventory.pools.iter().flat_map(|pool| &pool.hosts).flat_map(|host| &host.devices);
    let largest = devices().filter(|device| kind.accepts(device.kind)).map(|device| device.memory).max();
    let held = measured.device_memory;
    let mut all = Vec::new();
    let needed = match (gpu.need, held) {
        (GpuNeed::Memory(declared), Some(held)) if held > declared.0 => {
            let why = format!("an instance holds {}: others on its card may find too little", Bytes(held));
            all.push(advice("resources.gpu.memory", declared, mebibytes(held), why));
            mebibytes(held).0
        }
        (GpuNeed::Memory(declared), Some(held)) if declared.0 > held.saturating_mul(2) => {
            let fits = |bytes: u64| largest.map_or(0, |card| card / bytes.max(1));
            let better = mebibytes(held);
            let why = format!("an instance holds {}", Bytes(held));
            let room = format!("{why}: {} fit on a card instead of {}", fits(better.0), fits(declared.0));
            all.push(advice("resources.gpu.memory", declared, better, room));
            better.0
        }
        (GpuNeed::Memory(declared), _) => declared.0,
        (GpuNeed::Cards(1), Some(held)) if largest.is_some_and(|card| mebibytes(held).0 <= card / 2) => {
            let better = mebibytes(held);
            let why = format!("an instance holds {} of its card: a share leaves the rest to others", Bytes(held));
            all.push(advice("resources.gpu", "cards: 1", format!("memory: {better}"), why));
            better.0
        }
        (GpuNeed::Cards(_) | GpuNeed::Measured, _) => return all,
    };
    // The smallest card that holds it, if it may get a larger one.
    let smallest = devices().filter(|device| device.memory >= needed).min_by_key(|device| device.memory);
    if let (Some(smallest), Some(largest)) = (smallest, largest)
        && smallest.memory < largest
    {
        let now = gpu.kind.clone().unwrap_or_else(|| "any".to_owned());
        let better = format!("the type of {}, {}", smallest.name, Bytes(smallest.memory));
        let why = format!("it needs {}; it may take a card of {}", Bytes(needed), Bytes(largest));
        all.push(advice("resources.gpu.type", now, better, why));
    }
    all
}

/// A fifth more, in whole mebibytes.
fn mebibytes(bytes: u64) -> Bytes {
    const MIB: u64 = 1 << 20;
    Bytes(and_a_fifth(bytes).div_ceil(MIB).max(1) * MIB)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_fleet::Device;
    use kip_fleet::room::{Host, Pool};
    use kip_spec::function::{GpuResources, Program, Resources};
    use kip_spec::scaling::Fc;
    use std::collections::BTreeMap;

    const GIB: u64 = 1 << 30;

    fn device_advice(spec: &FunctionSpec, held: Option<u64>, inventory: &Inventory) -> Vec<Advice> {
        device(spec, &Measurements { device_memory: held, ..Measurements::default() }, inventory)
    }

    fn spec() -> FunctionSpec {
        let program = Program::Command { argv: vec!["x".to_owned()], dir: "/".into() };
        FunctionSpec {
            resources: Resources { memory: Some(Bytes(1 << 30)), ..Resources::default() },
            ..FunctionSpec::new("f".parse().unwrap(), program)
        }
    }

    fn knative(annotations: &[(&str, f64)]) -> FunctionSpec {
        let value =
            |key: &str, other: f64| annotations.iter().find(|(name, _)| *name == key).map_or(other, |(_, v)| *v);
        let settings = serde_json::json!({
            "metric": "concurrency", "target": 7.0, "total": value("total", 10.0), "algorithm": "linear",
            "stable_window": format!("{}s", value("window", 60.0)), "panic_window": format!("{}s", value("panic", 6.0)),
            "panic_threshold": value("threshold", 2.0), "min_scale": 0, "max_scale": kip_spec::round::up(value("max", 100.0)),
            "initial_scale": kip_spec::round::up(value("initial", 1.0)), "activation_scale": 0, "scale_down_delay": "0s",
            "retention": "0s", "grace": "30s", "scale_to_zero": true, "target_burst_capacity": 211.0,
            "activator_capacity": 100.0, "max_scale_up_rate": 1000.0, "max_scale_down_rate": 2.0,
            "progress_deadline": "600s",
        });
        FunctionSpec { scaling: Scaling::Kpa(serde_json::from_value(settings).expect("settings")), ..spec() }
    }

    fn started(millis: u64) -> Measurements {
        Measurements { start_ms: BTreeMap::from([(1, millis)]), starts: 3, requests: 3, ..Measurements::default() }
    }

    fn said(all: &[Advice]) -> Vec<String> {
        all.iter().map(|one| format!("{}: {} → {}", one.setting, one.now, one.better)).collect()
    }

    #[test]
    fn each_rule_speaks_when_its_figures_do() {
        let kpa = |settings: &[(&str, f64)]| knative(settings);
        let many = |millis, requests| Measurements { longest_ms: Some(millis), requests, ..Measurements::default() };
        let first = Measurements { longest_service_ms: Some(3_000), ..many(4_000, 20) };
        let first = Measurements { start_ms: BTreeMap::from([(1, 9_000)]), ..first };
        let mut tight = spec();
        tight.timeouts.total = Millis::from_secs(10);
        let mut kept = spec();
        kept.instances.min = 2;
        let mut memory = spec();
        memory.resources.memory = Some(Bytes(4 * GIB));
        let rows: Vec<(&str, FunctionSpec, Measurements, Vec<&str>)> = vec![
            ("nothing is known", kpa(&[]), Measurements::default(), vec![]),
            (
                "a start of 40 s",
                kpa(&[]),
                started(40_000),
                vec![
                    "scaling.annotations.window: 1m → 1m20s",
                    "scaling.annotations.panic-threshold-percentage: 200 → 150",
                    "instances.min: 0 → 1, asleep when idle",
                ],
            ),
            (
                "a start of 4 s: a panic window of 3 s",
                kpa(&[("window", 30.0), ("panic", 6.0), ("threshold", 1.5)]),
                started(4_000),
                vec!["scaling.annotations.panic-window-percentage: a window of 6s → 10.0 (3 s)"],
            ),
            ("no panic window is below half a second", kpa(&[]), started(500), vec![]),
            (
                "a burst of 100 at 10 each",
                kpa(&[]),
                Measurements { peak_in_flight: 100, ..Measurements::default() },
                vec!["scaling.annotations.initial-scale: 1 → 12"],
            ),
            (
                "and no more than there may be",
                kpa(&[("max", 4.0)]),
                Measurements { peak_in_flight: 100, ..Measurements::default() },
                vec!["scaling.annotations.initial-scale: 1 → 4"],
            ),
            ("a request of 12 s", tight.clone(), many(12_000, 20), vec!["timeouts.total: 10s → 15s"]),
            ("few requests say nothing of the longest", tight.clone(), many(12_000, 19), vec![]),
            ("a start is part of the first request", tight, first, vec!["timeouts.total: 10s → 15s"]),
            ("what was not seen yet", spec(), many(1_000, 100), vec![]),
            ("is to be expected only after many", spec(), many(1_000, 1_000), vec!["timeouts.total: 10m → 2s"]),
            (
                "three were busy, and starts are very slow",
                spec(),
                Measurements { peak_in_flight: 3, ..started(20_000) },
                vec!["instances.min: 0 → 3, asleep when idle"],
            ),
            ("rare, and soon there", kept.clone(), started(300), vec!["instances.min: 2 → 0"]),
            ("often, and soon there", kept, Measurements { requests: 500, ..started(300) }, vec![]),
            (
                "memory that is not used",
                memory,
                Measurements { peak_memory: Some(GIB), ..Measurements::default() },
                vec!["resources.memory: 4GiB → 1229MiB"],
            ),
        ];
        for (name, spec, measured, expected) in rows {
            let spec = FunctionSpec { instances: kip_spec::function::Instances { max: 8, ..spec.instances }, ..spec };
            assert_eq!(said(&settings(&spec, &measured)), expected, "{name}");
        }
        let fc =
            FunctionSpec { scaling: Scaling::Fc(Box::new(Fc::new(kip_spec::scaling::Provision::default()))), ..spec() };
        assert_eq!(said(&settings(&fc, &started(1_500))), Vec::<String>::new());
    }

    #[test]
    fn cards() {
        let device = |name: &str, gib: u64| Device { name: name.to_owned(), memory: gib * GIB, ..Device::default() };
        let host = Host { cpu: 1, memory: 1, devices: vec![device("gpu0", 80), device("gpu1", 16)] };
        let pool = Pool { name: "local".to_owned(), max: None, hosts: vec![host] };
        let inventory = Inventory { pools: vec![pool], ..Inventory::default() };
        let of = |need: GpuNeed, held: Option<u64>| {
            let mut spec = spec();
            spec.resources.gpu = Some(GpuResources { need, kind: None, isolation: Default::default() });
            said(&device_advice(&spec, held, &inventory))
        };
        let memory = |gib: u64| GpuNeed::Memory(Bytes(gib * GIB));
        assert_eq!(of(memory(10), Some(9 * GIB)), ["resources.gpu.type: any → the type of gpu1, 16GiB"]);
        assert_eq!(of(memory(40), None), Vec::<String>::new(), "only one card holds it");
        assert_eq!(
            of(memory(40), Some(5 * GIB)),
            ["resources.gpu.memory: 40GiB → 6GiB", "resources.gpu.type: any → the type of gpu1, 16GiB"]
        );
        assert_eq!(of(memory(20), Some(50 * GIB)), ["resources.gpu.memory: 20GiB → 60GiB"]);
        assert_eq!(of(GpuNeed::Cards(1), Some(20 * GIB)), ["resources.gpu: cards: 1 → memory: 24GiB"]);
        assert_eq!(of(GpuNeed::Cards(1), None), Vec::<String>::new());
        assert_eq!(device_advice(&spec(), Some(1), &inventory), []);
    }
}
