//! The smallest run of a seed that still fails: fewer functions, fewer requests, fewer kinds of faults.

use crate::fault::FAULTS;
use crate::plant::PlantedBug;
use crate::run::{Outcome, run};
use crate::setup::{Reduction, Setup};
use crate::trace::Detail;

/// Tries to leave things out as long as the same rule stays broken. Answers with what was left out and the run's outcome.
pub fn shrink(seed: u64, plant: Option<PlantedBug>) -> Option<(Reduction, Outcome)> {
    let full = Reduction::default();
    let mut best = run(seed, &full, plant, Detail::Hash);
    let invariant = best.failure.as_ref()?.invariant;
    let mut cut = full.clone();
    let mut attempt = |cut: &mut Reduction, smaller: Reduction| {
        let outcome = run(seed, &smaller, plant, Detail::Hash);
        let same = outcome.failure.as_ref().is_some_and(|failure| failure.invariant == invariant);
        if same {
            (*cut, best) = (smaller, outcome);
        }
        same
    };
    let functions = Setup::draw(seed, &full).functions.len();
    if functions > 1 {
        cut.only = (0..functions).collect();
    }
    for function in 0..functions {
        let only: Vec<usize> = cut.only.iter().copied().filter(|other| *other != function).collect();
        if !only.is_empty() {
            let smaller = Reduction { only, ..cut.clone() };
            attempt(&mut cut, smaller);
        }
    }
    for (fault, _) in FAULTS {
        let mut smaller = cut.clone();
        smaller.without.push(fault);
        attempt(&mut cut, smaller);
    }
    let (mut low, mut high) = (0, Setup::draw(seed, &cut).requests);
    while low < high {
        let middle = low.midpoint(high);
        let smaller = Reduction { requests: Some(middle), ..cut.clone() };
        if attempt(&mut cut, smaller) { high = middle } else { low = middle + 1 }
    }
    Some((cut, best))
}
