//! Which functions stay on their devices if all are used, and how long the others take to be back. An estimate for people: the placer
//! decides by what happens.

use kip_fleet::Rung;
use kip_fleet::room::Gpu;
use kip_records::RequestFilter;
use kip_records::advice::measure;
use kip_spec::FunctionName;
use kip_spec::function::GpuNeed;
use kip_wire::{FitReport, FunctionFit, Measurements};

use crate::cell::Cell;
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
        let inventory = self.shared.with_placer(|placer| placer.inventory().clone());
        let hosts = || inventory.pools.iter().flat_map(|pool| &pool.hosts);
        let yielded = self.shared.devices.yielded();
        let devices = hosts().flat_map(|host| &host.devices).filter(|device| !yielded.contains_key(&device.name));
        let devices: Vec<u64> = devices.map(|device| device.memory).collect();
        let memory = hosts().fold(0u64, |sum, host| sum.saturating_add(host.memory));
        let mut candidates = Vec::new();
        for name in names {
            let Some(cell) = self.cell(name.as_str()).filter(|cell| cell.serving().spec.resources.gpu.is_some()) else {
                continue;
            };
            let mut decisions = self.records().decisions(name.to_string(), MOST).await?;
            decisions.reverse();
            let filter = RequestFilter { function: Some(name.to_string()), limit: MOST, ..RequestFilter::default() };
            let mut requests = self.records().requests(filter).await?;
            requests.reverse();
            candidates.push(candidate(&cell, &measure(&decisions, &requests)));
        }
        Ok(fit(candidates, devices, memory))
    }
}

fn candidate(cell: &Cell, measured: &Measurements) -> Candidate {
    let version = cell.serving();
    let (spec, policy) = (&version.spec, version.policy());
    let auto = spec.resources.gpu.as_ref().is_some_and(|gpu| gpu.need == GpuNeed::Measured);
    let woken = |rung: Rung| measured.wake_ms.get(rung.state().name()).copied();
    Candidate {
        name: cell.name().clone(),
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
}
