//! What policies cost and how long requests wait, on traces of real services: the goals of `docs/scaling-auto.md`, and that no policy of a
//! grid is both cheaper and quicker than `auto`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "tests show what they measured")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod policies;
mod traces;

use kip_sim::replay::{InstanceTimes, TraceRequest};
use kip_spec::scaling::Class;

use policies::{Point, auto, grid, play};
use traces::Workload;

const CLASSES: [Class; 3] = [Class::Economy, Class::Balanced, Class::Latency];
/// Differences below this part are none.
const TOLERANCE: f64 = 0.01;

fn within(point: &Point, cost: f64, delays: &[(u64, f64)]) {
    assert!(point.cost <= cost, "{}: {} is above {cost}", point.name, point.cost);
    for (share, most) in delays {
        let delay = point.delay(*share);
        assert!(delay <= *most, "{}: {share} in a thousand wait up to {delay} s, not {most} s", point.name);
    }
}

#[test]
fn goal_a_conversations() {
    let Some(workload) = traces::conversation() else { return };
    let (balanced, latency) = (play(&workload, auto(Class::Balanced)), play(&workload, auto(Class::Latency)));
    within(&balanced, 1.12, &[(900, 0.4), (990, 1.1)]);
    within(&latency, 1.20, &[(990, 0.4)]);
}

#[test]
fn goal_b_bursts() {
    let Some(workload) = traces::code() else { return };
    // The goal of 1.4 s for nine in ten is not reached.
    within(&play(&workload, auto(Class::Latency)), 2.0, &[(900, 1.7), (990, 3.0)]);
}

#[test]
fn goal_d_a_tide() {
    let Some(workload) = traces::tide() else { return };
    within(&play(&workload, auto(Class::Balanced)), 1.20, &[(900, 0.4), (990, 1.4)]);
}

#[test]
fn goal_e_sparse_functions() {
    let Some(workload) = traces::sparse_functions() else { return };
    let point = play(&workload, auto(Class::Balanced));
    // The mean delay of those that are kept asleep for ten minutes, and their share of cold starts.
    within(&point, 2.4, &[]);
    let (mean, cold) = (point.outcome.delays.mean() / 1_000.0, point.cold());
    assert!(mean <= 2.55 && cold <= 0.22, "{mean} s, {cold}");
}

/// A call every five minutes, give or take two seconds: an instance is hot when it comes.
#[test]
fn timers_are_expected() {
    let at = |round: u64| 300_000 * round + round * 7_919 % 4_000;
    let requests = (0..288).map(|round| TraceRequest { at: at(round), service: 2_000, function: 0 }).collect();
    let workload = Workload { name: "timer", requests, times: InstanceTimes::constant(30_000, 3_000), from: 0 };
    let point = play(&workload, auto(Class::Balanced));
    // It sleeps in between, which the bound does not: that starts anew for each round.
    within(&point, 2.7, &[(900, 0.0), (970, 0.0)]);
}

/// No policy of the grid is both cheaper and quicker than these classes.
fn not_dominated(workload: Option<Workload>, classes: &[Class]) {
    let Some(workload) = workload else { return };
    let own: Vec<Point> = classes.iter().map(|class| play(&workload, auto(*class))).collect();
    for other in grid(&workload.times).into_iter().map(|policy| play(&workload, policy)) {
        for auto in &own {
            let cheaper = other.cost < auto.cost * (1.0 - TOLERANCE);
            let quicker = other.delay(990) < auto.delay(990) * (1.0 - TOLERANCE);
            assert!(!(cheaper && quicker), "{} is cheaper and quicker than {}", other.name, auto.name);
        }
    }
}

#[test]
fn pareto_conversations() {
    not_dominated(traces::conversation(), &CLASSES);
}

#[test]
fn pareto_bursts() {
    not_dominated(traces::code(), &CLASSES);
}

#[test]
fn pareto_images() {
    // Class latency is dominated here by an hour of sleep: docs/scaling-auto.md.
    not_dominated(traces::images(), &[Class::Economy, Class::Balanced]);
}

#[test]
fn pareto_a_tide() {
    not_dominated(traces::tide().map(|tide| tide.until(43_200_000)), &CLASSES);
}

#[test]
fn pareto_models() {
    not_dominated(traces::models().map(|models| models.until(3 * 86_400_000)), &CLASSES);
}

#[test]
fn pareto_sparse_functions() {
    // Class economy is dominated here by sleep of the price of a start: docs/scaling-auto.md.
    not_dominated(traces::sparse_functions(), &[Class::Balanced, Class::Latency]);
}
