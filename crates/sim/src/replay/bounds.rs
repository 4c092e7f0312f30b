//! What no policy can beat: the cheapest way to serve a trace without any delay, by who knows the future, and a fleet of the size of
//! the peak.
//!
//! The requests are given to instances last in, first out. A gap of an instance costs the least of: staying hot; sleeping and waking
//! in time; ending and starting in time. As this cost is concave in the length of the gap, last in, first out is optimal
//! (`docs/simulate.md` has the argument).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::request::{InstanceTimes, TraceRequest};

/// The bounds of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bounds {
    /// Requests that count.
    pub requests: u64,
    /// Requests at once at most; of several functions, the sum of what each has at most.
    pub peak: u32,
    /// Milliseconds of work.
    pub busy: u64,
    /// From the first arrival that counts to the last end, milliseconds.
    pub span: u64,
    /// The cost of the clairvoyant bound, in active milliseconds.
    pub oracle: f64,
    /// Starts of the clairvoyant bound.
    pub starts: u64,
}

/// What there is of one function.
#[derive(Debug, Clone, Default)]
struct Fleet {
    running: BinaryHeap<Reverse<u64>>,
    /// When each free instance became free; the last one on top.
    free: Vec<u64>,
    peak: u32,
}

/// Computes bounds request by request, in the order of arrival. Its memory grows with the requests at once, not with the trace.
#[derive(Debug, Clone)]
pub struct BoundsMeter {
    fleets: Vec<Fleet>,
    cold: u64,
    wake: u64,
    idle: f64,
    from: u64,
    end: u64,
    bounds: Bounds,
}

impl BoundsMeter {
    /// `idle` is the price of an instance asleep as a share of an active one. What happens before `from` is not counted. Of times with
    /// a distribution, the mean counts.
    pub fn new(times: &InstanceTimes, idle: f64, from: u64) -> Self {
        let (cold, wake) = (times.cold.mean(), times.wake.mean());
        Self { fleets: Vec::new(), cold, wake, idle, from, end: from, bounds: Bounds::default() }
    }

    /// The next request.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of any trace fit into 52 bits")]
    pub fn request(&mut self, request: TraceRequest) {
        let (from, wake) = (self.from, self.wake as f64);
        let function = request.function as usize;
        if self.fleets.len() <= function {
            self.fleets.resize_with(function + 1, Fleet::default);
        }
        let fleet = &mut self.fleets[function];
        let counted = |begin: u64, until: u64| until.max(from) - begin.max(from);
        while let Some(Reverse(done)) = fleet.running.peek().copied().filter(|Reverse(done)| *done <= request.at) {
            fleet.running.pop();
            fleet.free.push(done);
        }
        match fleet.free.pop() {
            Some(since) => {
                let gap = counted(since, request.at) as f64;
                let asleep = if gap >= wake { wake + self.idle * (gap - wake) } else { gap };
                let kept = gap.min(asleep);
                let cold = self.cold as f64;
                self.bounds.starts += u64::from(cold < kept);
                self.bounds.oracle += kept.min(cold);
            }
            None if request.at >= from => {
                self.bounds.starts += 1;
                self.bounds.oracle += self.cold as f64;
            }
            None => {}
        }
        let done = request.at + request.service;
        self.bounds.requests += u64::from(request.at >= from);
        self.bounds.busy += counted(request.at, done);
        self.end = self.end.max(done);
        fleet.running.push(Reverse(done));
        fleet.peak = fleet.peak.max(u32::try_from(fleet.running.len()).unwrap_or(u32::MAX));
    }

    /// The bounds of all requests so far.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of any trace fit into 52 bits")]
    pub fn bounds(&self) -> Bounds {
        let oracle = self.bounds.oracle + self.bounds.busy as f64;
        let peak = self.fleets.iter().fold(0u32, |sum, fleet| sum.saturating_add(fleet.peak));
        Bounds { oracle, peak, span: self.end - self.from, ..self.bounds }
    }
}

/// The bounds of a whole trace, sorted by arrival.
pub fn bounds(requests: impl IntoIterator<Item = TraceRequest>, times: &InstanceTimes, idle: f64, from: u64) -> Bounds {
    let mut meter = BoundsMeter::new(times, idle, from);
    requests.into_iter().for_each(|request| meter.request(request));
    meter.bounds()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: InstanceTimes = InstanceTimes::constant(30_000, 3_000);

    fn request(at: u64, service: u64) -> TraceRequest {
        TraceRequest { at, service, function: 0 }
    }

    #[test]
    fn a_gap_costs_the_cheapest_way_over_it() {
        let cost = |gap: u64| {
            let trace = [request(0, 1_000), request(1_000 + gap, 1_000)];
            bounds(trace, &TIMES, 0.25, 0).oracle - 32_000.0
        };
        assert!((cost(2_000) - 2_000.0).abs() < 1e-6, "hot");
        assert!((cost(7_000) - 4_000.0).abs() < 1e-6, "asleep: the wake, and a quarter of the rest");
        assert!((cost(1_000_000) - 30_000.0).abs() < 1e-6, "ended and started again");
    }

    #[test]
    fn the_instance_that_was_used_last_is_used_first() {
        // Two at once, then one after another: the second instance is not needed again.
        let trace = [request(0, 1_000), request(0, 2_000), request(2_500, 1_000), request(4_000, 1_000)];
        let bounds = bounds(trace, &TIMES, 0.25, 0);
        assert_eq!((bounds.peak, bounds.busy, bounds.span, bounds.starts), (2, 5_000, 5_000, 2));
        assert!((bounds.oracle - (60_000.0 + 5_000.0 + 500.0 + 500.0)).abs() < 1e-6);
    }

    #[test]
    fn functions_share_no_instances() {
        let trace = [request(0, 1_000), TraceRequest { function: 1, ..request(2_000, 1_000) }];
        let bounds = bounds(trace, &TIMES, 0.25, 0);
        assert_eq!((bounds.peak, bounds.starts), (2, 2));
    }
}
