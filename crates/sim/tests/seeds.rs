//! Many seeds, the ones that once found something, and bugs that are planted to see whether they are found.

use kip_sim::{Detail, PLANTS, Reduction, run, shrink};

/// Seeds that are drawn anew in every test run.
const FRESH: u64 = 2_000;
/// Seeds among which rare edges are looked for.
const SOME: std::ops::RangeInclusive<u64> = 1..=2_000;
/// A planted bug must be found within this many seeds.
const PATIENCE: u64 = 2_000;

fn keeps_the_rules(seed: u64) {
    let outcome = run(seed, &Reduction::default(), None, Detail::Hash);
    if let Some(failure) = outcome.failure {
        let shrunk = shrink(seed, None).map(|(cut, outcome)| (cut, outcome.failure));
        panic!("seed {seed}: {failure:?}\nsmallest: {shrunk:#?}\nreplay: cargo xtask sim --seed {seed} --trace");
    }
}

#[test]
fn fresh_seeds_keep_the_rules() {
    let from = u64::try_from(kip_host::random::bits() >> 88).expect("40 bits");
    println!("new dice: `cargo xtask sim --from {from} --seeds {FRESH}` repeats them");
    (from..from + FRESH).for_each(keeps_the_rules);
}

#[test]
fn kept_seeds_keep_the_rules() {
    let kept: Vec<u64> = include_str!("../seeds.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .map(|word| word.parse().expect("a seed"))
        .collect();
    assert!(!kept.is_empty());
    kept.into_iter().for_each(keeps_the_rules);
}

#[test]
fn a_seed_repeats_with_and_without_a_trace() {
    for seed in (1..=2_000).step_by(40) {
        let first = run(seed, &Reduction::default(), None, Detail::Hash);
        let second = run(seed, &Reduction::default(), None, Detail::All);
        assert_eq!((first.hash, first.steps), (second.hash, second.steps), "seed {seed} does not repeat");
        assert!(first.lines.is_empty() && !second.lines.is_empty());
    }
    assert_ne!(
        run(1, &Reduction::default(), None, Detail::Hash).hash,
        run(2, &Reduction::default(), None, Detail::Hash).hash
    );
}

#[test]
fn planted_bugs_are_found_and_shrunk() {
    let mut missed = Vec::new();
    for plant in PLANTS {
        let found = (1..=PATIENCE).find_map(|seed| {
            run(seed, &Reduction::default(), Some(plant), Detail::Hash).failure.map(|failure| (seed, failure))
        });
        let Some((seed, failure)) = found else {
            missed.push(plant);
            continue;
        };
        let (cut, smallest) = shrink(seed, Some(plant)).expect("it fails");
        assert!(smallest.failure.is_some_and(|smallest| smallest.invariant == failure.invariant));
        println!("{plant:?}: seed {seed}, {} (smallest: {cut:?})", failure.invariant);
        assert!(!cut.without.is_empty());
    }
    assert!(missed.is_empty(), "not found within {PATIENCE} seeds: {missed:?}");
}

/// Rules that hold because nothing happens prove nothing: the drawn worlds must reach the rare edges.
#[test]
fn the_worlds_are_rich() {
    let mut missing = vec![
        "starting -> stopping: the program did not become ready in time",
        "starting -> stopping: a newer version serves",
        "initializing -> stopping: the initialize hook answered 500",
        "pausing -> ready: pausing failed",
        "pausing -> stopping: the operation took too long",
        "waking -> stopping: the operation took too long",
        "waking -> stopping: waking failed",
        "waking -> stopping: the program ended by itself",
        "busy -> stopping: the program ended by itself",
        "paused -> stopping: the program ended by itself",
        "paused -> stopping: evicted: another instance waits for memory",
        "requested -> gone: nothing waits for it any more",
        "requested -> gone: the host has no room",
        "ready -> stopping: unused",
        "(woken)",
        "tells Declined",
        "no instance became free",
        "the host has no room for an instance (KW",
        "requests wait already",
        "the next start is tried",
        "the function was removed (KW",
        " failed: ",
        ": Shift { share: 1000000 }",
        ": Complete",
        ": Abort(Starts",
        ": Abort(NoRoom",
        ": ParkOld",
    ];
    for seed in SOME {
        let lines = run(seed, &Reduction::default(), None, Detail::All).lines;
        missing.retain(|edge| !lines.iter().any(|line| line.contains(edge)));
        if missing.is_empty() {
            println!("all edges reached within {seed} seeds");
            return;
        }
    }
    panic!("no world reaches {missing:?}");
}
