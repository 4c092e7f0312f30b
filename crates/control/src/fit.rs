//! Which functions stay on their devices if all are used, and how long the others take to be back. An estimate for people: the placer
//! decides by what happens.

use kip_fleet::room::Gpu;
use kip_fleet::{Policy, Rung};
use kip_records::RequestFilter;
use kip_records::advice::measure;
use kip_spec::function::{FunctionSpec, GpuNeed};
use kip_spec::{Bytes, FunctionName, Millis, Problem, code};
use kip_wire::{FitReport, FunctionFit, Measurements};

use crate::control::Control;
use crate::error::Error;

/// Records that are looked at.
const MOST: u32 = 5_000;
/// A wake or a start that was never measured counts as this long where functions are compared, milliseconds.
const UNKNOWN: u64 = 1_000;

/// A function with a device.
#[derive(Debug, Clone)]
struct Candidate {
    name: FunctionName,
    /// Bytes of one device, or whole devices.
    gpu: Gpu,
    measured: bool,
    memory: u64,
    pinned: bool,
    limit: Option<u64>,
    /// Whether it can be parked, and spilled.
    parks: bool,
    spills: bool,
    requests: usize,
    paused_ms: Option<u64>,
    parked_ms: Option<u64>,
    spilled_ms: Option<u64>,
    start_ms: Option<u64>,
}

impl Control {
    /// What fits on this host, of the functions with these names.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn fit(&self, names: &[FunctionName]) -> Result<FitReport, Error> {
        let memory = self.shared.with_placer(|placer| {
            let hosts = placer.inventory().pools.iter().flat_map(|pool| &pool.hosts);
            hosts.fold(0u64, |sum, host| sum.saturating_add(host.memory))
        });
        let mut candidates = Vec::new();
        for name in names {
            if let Some(cell) = self.cell(name.as_str()).filter(|cell| cell.serving().spec.resources.gpu.is_some()) {
                let version = cell.serving();
                candidates.push(candidate(&version.spec, &version.policy(), &self.measured(name).await?));
            }
        }
        Ok(fit(candidates, self.devices_in_use(), memory))
    }

    /// A promise (`latency.wake`, `instances.pin`) that a declaration cannot keep, by what was measured of its function before: it needs a
    /// device of its own at all times, and other promises leave none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn broken_promise(&self, spec: &FunctionSpec) -> Result<Option<Problem>, Error> {
        if spec.resources.gpu.is_none() || !spec.pinned && spec.wake.is_none() {
            return Ok(None);
        }
        let offer = self.shared.options.offer();
        // A size that was measured is that of the version before, until the new one is measured.
        let measured = self.cell(spec.name.as_str()).map(|cell| cell.serving().policy().need.gpu);
        let mut policy = Policy::from(spec).offering(offer);
        if let (Some(GpuNeed::Measured), Some(gpu)) = (spec.resources.gpu.as_ref().map(|gpu| gpu.need), measured) {
            policy.need.gpu = gpu;
        }
        let own = candidate(spec, &policy, &self.measured(&spec.name).await?);
        if own.keeps().is_none() {
            return Ok(None);
        }
        let mut others = Vec::new();
        for info in self.functions() {
            let Some(cell) = self.cell(info.name.as_str()).filter(|_| info.name != spec.name) else { continue };
            let version = cell.serving();
            let promises = version.spec.pinned || version.spec.wake.is_some();
            if promises && version.spec.resources.gpu.is_some() {
                others.push(candidate(&version.spec, &version.policy(), &self.measured(&info.name).await?));
            }
        }
        Ok(broken(&own, others, &self.devices_in_use()))
    }

    /// The memory of each device that is not yielded.
    fn devices_in_use(&self) -> Vec<u64> {
        let yielded = self.shared.devices.yielded();
        self.shared.with_placer(|placer| {
            let hosts = placer.inventory().pools.iter().flat_map(|pool| &pool.hosts);
            let devices = hosts.flat_map(|host| &host.devices).filter(|device| !yielded.contains_key(&device.name));
            devices.map(|device| device.memory).collect()
        })
    }

    async fn measured(&self, name: &FunctionName) -> Result<Measurements, Error> {
        let mut decisions = self.records().decisions(name.to_string(), MOST).await?;
        decisions.reverse();
        let filter = RequestFilter { function: Some(name.to_string()), limit: MOST, ..RequestFilter::default() };
        let mut requests = self.records().requests(filter).await?;
        requests.reverse();
        Ok(measure(&decisions, &requests))
    }
}

fn candidate(spec: &FunctionSpec, policy: &Policy, measured: &Measurements) -> Candidate {
    let auto = spec.resources.gpu.as_ref().is_some_and(|gpu| gpu.need == GpuNeed::Measured);
    let woken = |rung: Rung| measured.wake_ms.get(rung.state().name()).copied();
    Candidate {
        name: spec.name.clone(),
        gpu: policy.need.gpu,
        measured: auto && matches!(policy.need.gpu, Gpu::Slice(_)),
        memory: policy.need.memory.max(measured.peak_memory.unwrap_or(0)),
        pinned: policy.pinned,
        limit: policy.wake,
        parks: policy.rungs.park,
        spills: policy.rungs.spill,
        requests: measured.requests,
        paused_ms: woken(Rung::Paused),
        parked_ms: woken(Rung::Parked),
        spilled_ms: woken(Rung::Spilled),
        start_ms: measured.start_ms.values().next().copied(),
    }
}

impl Candidate {
    /// What its absence from the device costs: pinned ones always stay, the others by what their requests wait, for each byte.
    fn worth(&self) -> (bool, u128) {
        let wait = if self.parks { self.parked_ms } else { self.start_ms }.unwrap_or(UNKNOWN);
        let late = self.limit.is_some_and(|limit| wait > limit);
        let requests = self.requests.max(1) as u128;
        (self.pinned || late, requests * u128::from(wait) * (1 << 40) / u128::from(self.bytes().max(1)))
    }

    /// Why it keeps its device at all times: it is pinned, or what is known of its wakes and starts is too slow. `None` if it does not, or if
    /// nothing is known.
    fn keeps(&self) -> Option<String> {
        if self.pinned {
            return Some("it is pinned (instances.pin)".to_owned());
        }
        let limit = self.limit?;
        let parked = self.parked_ms.filter(|_| self.parks).map(|millis| ("a wake from parked", millis));
        let known: Vec<(&str, u64)> =
            parked.into_iter().chain(self.start_ms.map(|millis| ("a start", millis))).collect();
        if known.is_empty() || known.iter().any(|(_, millis)| *millis <= limit) || self.parks && parked.is_none() {
            return None;
        }
        let figures: Vec<String> =
            known.iter().map(|(what, millis)| format!("{what} takes {}", Millis(*millis))).collect();
        Some(format!("it is to serve within {} (latency.wake), and {} here", Millis(limit), figures.join(", ")))
    }

    /// Bytes of one device; 0 of whole ones, which are counted by themselves.
    fn bytes(&self) -> u64 {
        match self.gpu {
            Gpu::Slice(bytes) => bytes,
            Gpu::None | Gpu::Cards(_) => 0,
        }
    }

    /// What it needs of these devices.
    fn device_memory(&self, devices: &[u64]) -> u64 {
        match self.gpu {
            Gpu::None => 0,
            Gpu::Slice(bytes) => bytes,
            Gpu::Cards(cards) => {
                let mut largest = devices.to_vec();
                largest.sort_unstable_by(|a, b| b.cmp(a));
                largest.iter().take(usize::from(cards)).fold(0, |sum, bytes| sum.saturating_add(*bytes))
            }
        }
    }
}

/// Devices with what is free of each.
struct Free {
    total: Vec<u64>,
    free: Vec<u64>,
}

impl Free {
    fn of(devices: &[u64]) -> Self {
        Self { total: devices.to_vec(), free: devices.to_vec() }
    }

    /// Takes what one needs, from the fullest device that has it. False if none has.
    fn take(&mut self, gpu: Gpu) -> bool {
        match gpu {
            Gpu::None => true,
            Gpu::Slice(bytes) => {
                let fitting = self.free.iter_mut().filter(|free| **free >= bytes).min_by_key(|free| **free);
                fitting.map(|free| *free -= bytes).is_some()
            }
            Gpu::Cards(cards) => {
                let whole: Vec<usize> = (0..self.free.len())
                    .filter(|at| self.free[*at] == self.total[*at] && self.total[*at] > 0)
                    .collect();
                if whole.len() < usize::from(cards) {
                    return false;
                }
                whole.into_iter().take(usize::from(cards)).for_each(|at| self.free[at] = 0);
                true
            }
        }
    }
}

/// The names of those that stay on their devices.
fn residents(candidates: &[Candidate], devices: &[u64]) -> Vec<FunctionName> {
    let mut free = Free::of(devices);
    candidates.iter().filter(|one| free.take(one.gpu)).map(|one| one.name.clone()).collect()
}

/// What speaks against a function that keeps its device, beside others that do.
fn broken(own: &Candidate, mut others: Vec<Candidate>, devices: &[u64]) -> Option<Problem> {
    let why = own.keeps()?;
    others.retain(|other| other.keeps().is_some());
    let mut free = Free::of(devices);
    others.sort_by_cached_key(|other| std::cmp::Reverse(other.device_memory(devices)));
    others.retain(|other| free.take(other.gpu));
    // One that fits on no device is told so elsewhere.
    if free.take(own.gpu) || !Free::of(devices).take(own.gpu) {
        return None;
    }
    let names: Vec<String> =
        others.iter().map(|other| format!("`{}` ({})", other.name, Bytes(other.device_memory(devices)))).collect();
    let message = format!(
        "`{}` would keep {} of a device at all times, and no device has that beside {}",
        own.name,
        Bytes(own.device_memory(devices)),
        names.join(", ")
    );
    let hint = "raise `latency.wake`, leave out `instances.pin`, or free a device; `kip fit` shows what each function can promise";
    Some(Problem::new(code::PROMISE_NOT_KEPT, message).cause(why).hint(hint))
}

fn fit(mut candidates: Vec<Candidate>, devices: Vec<u64>, memory: u64) -> FitReport {
    candidates.sort_by_cached_key(|one| (std::cmp::Reverse(one.worth()), one.name.clone()));
    let stay = residents(&candidates, &devices);
    let mut left = memory;
    for one in candidates.iter().filter(|one| stay.contains(&one.name)) {
        left = left.saturating_sub(one.memory);
    }
    let mut missing_memory = 0u64;
    let mut functions = Vec::new();
    for one in &candidates {
        let fits = Free::of(&devices).take(one.gpu);
        // The memory of its device moves to the host.
        let device_memory = one.device_memory(&devices);
        let parked = one.memory.saturating_add(device_memory);
        let (rung, wait_ms) = match () {
            () if !fits => ("never", None),
            () if stay.contains(&one.name) => ("paused", one.paused_ms),
            () if one.parks && left >= parked => {
                left -= parked;
                ("parked", one.parked_ms)
            }
            () if one.parks && one.spills => ("spilled", one.spilled_ms),
            () => {
                if one.parks {
                    missing_memory = missing_memory.saturating_add(parked);
                }
                ("gone", one.start_ms)
            }
        };
        functions.push(FunctionFit {
            function: one.name.clone(),
            device_memory,
            known_by: if one.measured { "measured" } else { "declared" }.to_owned(),
            memory: one.memory,
            rung: rung.to_owned(),
            wait_ms,
            limit_ms: one.limit,
        });
    }
    functions.sort_by_key(|one| !stay.contains(&one.function));
    let more: Vec<u64> = devices.iter().copied().chain(devices.iter().copied().max()).collect();
    let mut one_more_device = residents(&candidates, &more);
    one_more_device.retain(|name| !stay.contains(name));
    // What is missing is what goes beyond the memory that is left.
    let missing_memory = if missing_memory > 0 { missing_memory.saturating_sub(left).max(1) } else { 0 };
    FitReport { devices, memory, functions, one_more_device, missing_memory }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn function(name: &str, gib: u64) -> Candidate {
        Candidate {
            name: name.parse().unwrap(),
            gpu: Gpu::Slice(gib * GIB),
            measured: false,
            memory: GIB,
            pinned: false,
            limit: None,
            parks: true,
            spills: false,
            requests: 10,
            paused_ms: Some(1),
            parked_ms: Some(700),
            spilled_ms: None,
            start_ms: Some(30_000),
        }
    }

    fn rungs(report: &FitReport) -> Vec<(String, String, Option<u64>)> {
        let row = |one: &FunctionFit| (one.function.to_string(), one.rung.clone(), one.wait_ms);
        report.functions.iter().map(row).collect()
    }

    fn row(name: &str, rung: &str, wait: Option<u64>) -> (String, String, Option<u64>) {
        (name.to_owned(), rung.to_owned(), wait)
    }

    #[test]
    fn those_whose_absence_costs_most_stay_and_the_others_are_parked() {
        let busy = Candidate { requests: 1_000, ..function("busy", 10) };
        let report = fit(vec![function("a", 10), function("b", 10), busy], vec![24 * GIB], 64 * GIB);
        let expected = [row("busy", "paused", Some(1)), row("a", "paused", Some(1)), row("b", "parked", Some(700))];
        assert_eq!(rungs(&report), expected);
        assert_eq!((report.one_more_device, report.missing_memory), (vec!["b".parse().unwrap()], 0));
    }

    #[test]
    fn what_is_pinned_or_would_be_late_stays() {
        let pinned = Candidate { pinned: true, ..function("pinned", 16) };
        let late = Candidate { limit: Some(100), requests: 1, ..function("late", 8) };
        let busy = Candidate { requests: 9_999, ..function("busy", 8) };
        let report = fit(vec![busy, late, pinned], vec![24 * GIB], 64 * GIB);
        let stays = |name: &str| rungs(&report).contains(&row(name, "paused", Some(1)));
        assert_eq!(["busy", "late", "pinned"].map(stays), [false, true, true]);
    }

    #[test]
    fn without_host_memory_they_end_and_what_is_missing_is_told() {
        let cannot = Candidate { parks: false, ..function("z", 10) };
        let report = fit(vec![function("a", 20), function("b", 10), cannot], vec![24 * GIB], 6 * GIB);
        assert!(rungs(&report).contains(&row("a", "gone", Some(30_000))), "{report:?}");
        // 20 GiB of the device and 1 GiB of its own, and 4 GiB are left beside the two that stay.
        assert_eq!(report.missing_memory, 17 * GIB);
    }

    #[test]
    fn whole_devices_are_taken_whole_and_too_large_ones_never_fit() {
        let two = Candidate { gpu: Gpu::Cards(2), ..function("two", 0) };
        let report = fit(vec![two.clone(), function("a", 30)], vec![24 * GIB, 24 * GIB], 64 * GIB);
        let never = row("a", "never", None);
        assert!(rungs(&report).contains(&never), "{report:?}");
        assert_eq!(report.functions[0].device_memory, 48 * GIB);
        let one = fit(vec![two], vec![24 * GIB], 64 * GIB);
        assert_eq!(rungs(&one), [row("two", "never", None)]);
        assert_eq!(one.one_more_device.len(), 1);
    }

    #[test]
    fn a_promise_that_needs_a_device_for_itself_is_refused_where_others_keep_them() {
        let late = |name: &str, gib| Candidate { limit: Some(500), ..function(name, gib) };
        let pinned = |name: &str, gib| Candidate { pinned: true, ..function(name, gib) };
        let devices = [24 * GIB];
        let refused = broken(&late("f", 16), vec![pinned("p", 16), function("g", 16)], &devices).unwrap();
        assert!(
            refused.message.contains("`f` would keep 16GiB") && refused.message.contains("`p` (16GiB)"),
            "{refused:?}"
        );
        let cause = refused.cause.unwrap_or_default();
        assert!(cause.contains("within 500ms") && cause.contains("a wake from parked takes 700ms"), "{cause}");
        assert!(broken(&late("f", 16), vec![function("g", 16), pinned("p", 8)], &devices).is_none(), "there is room");
        assert!(broken(&late("f", 16), vec![pinned("p", 16)], &[24 * GIB, 24 * GIB]).is_none());
        let quick = Candidate { limit: Some(1_000), ..function("f", 16) };
        assert!(broken(&quick, vec![pinned("p", 16)], &devices).is_none(), "it is back in time");
        let unknown = Candidate { limit: Some(500), parked_ms: None, start_ms: None, ..function("f", 16) };
        assert!(broken(&unknown, vec![pinned("p", 16)], &devices).is_none(), "nothing was measured yet");
    }
}
