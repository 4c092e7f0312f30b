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
    /// Requests at once at most.
    pub peak: u32,
    /// Milliseconds of work.
    pub busy: u64,
    /// From the first arrival that counts to the last end, milliseconds.
    pub span: u64,
    /// The cost of the clairvoyant bound, in active milliseconds.
    pub oracle: f64,
}

/// Computes the bounds of a trace that is sorted by arrival. `idle` is the price of an instance asleep as a share of an active one.
/// What happens before `from` is not counted.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of any trace fit into 52 bits")]
pub fn bounds(requests: &[TraceRequest], times: InstanceTimes, idle: f64, from: u64) -> Bounds {
    let mut running: BinaryHeap<Reverse<u64>> = BinaryHeap::new();
    // When each free instance became free; the last one on top.
    let mut free: Vec<u64> = Vec::new();
    let mut bounds = Bounds::default();
    let (mut cost, mut end) = (0.0, from);
    let counted = |begin: u64, until: u64| until.max(from) - begin.max(from);
    let gap_cost = |begin: u64, until: u64| {
        let gap = counted(begin, until) as f64;
        let wake = times.wake as f64;
        let asleep = if gap >= wake { wake + idle * (gap - wake) } else { gap };
        gap.min(asleep).min(times.cold as f64)
    };
    for request in requests {
        while let Some(Reverse(done)) = running.peek().copied().filter(|Reverse(done)| *done <= request.at) {
            running.pop();
            free.push(done);
        }
        match free.pop() {
            Some(since) => cost += gap_cost(since, request.at),
            None if request.at >= from => cost += times.cold as f64,
            None => {}
        }
        let done = request.at + request.service;
        bounds.busy += counted(request.at, done);
        end = end.max(done);
        running.push(Reverse(done));
        bounds.peak = bounds.peak.max(u32::try_from(running.len()).unwrap_or(u32::MAX));
    }
    bounds.span = end - from;
    bounds.oracle = cost + bounds.busy as f64;
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: InstanceTimes = InstanceTimes { cold: 30_000, wake: 3_000 };

    fn request(at: u64, service: u64) -> TraceRequest {
        TraceRequest { at, service }
    }

    #[test]
    fn a_gap_costs_the_cheapest_way_over_it() {
        let cost = |gap: u64| {
            let trace = [request(0, 1_000), request(1_000 + gap, 1_000)];
            bounds(&trace, TIMES, 0.25, 0).oracle - 32_000.0
        };
        assert!((cost(2_000) - 2_000.0).abs() < 1e-6, "hot");
        assert!((cost(7_000) - 4_000.0).abs() < 1e-6, "asleep: the wake, and a quarter of the rest");
        assert!((cost(1_000_000) - 30_000.0).abs() < 1e-6, "ended and started again");
    }

    #[test]
    fn the_instance_that_was_used_last_is_used_first() {
        // Two at once, then one after another: the second instance is not needed again.
        let trace = [request(0, 1_000), request(0, 2_000), request(2_500, 1_000), request(4_000, 1_000)];
        let bounds = bounds(&trace, TIMES, 0.25, 0);
        assert_eq!((bounds.peak, bounds.busy, bounds.span), (2, 5_000, 5_000));
        assert!((bounds.oracle - (60_000.0 + 5_000.0 + 500.0 + 500.0)).abs() < 1e-6);
    }
}
