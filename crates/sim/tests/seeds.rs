//! Many seeds, and the ones that once found something.

use kip_sim::{Cut, Detail, PLANTS, run, shrink};

#[test]
fn fresh() {
    let (mut bad, mut steps, mut req, mut vm) = (0, 0, 0, 0);
    for seed in 1..=2000 {
        let outcome = run(seed, &Cut::default(), None, Detail::Hash);
        steps += outcome.steps; req += outcome.requests; vm += outcome.virtual_millis;
        if let Some(failure) = outcome.failure {
            bad += 1;
            if bad < 6 { println!("{seed}: {failure:?}\n   {:?}", shrink(seed, None).map(|(cut, o)| (cut, o.failure)));}
        }
    }
    println!("bad {bad} steps {steps} requests {req} hours {}", vm / 3_600_000);
    for plant in PLANTS {
        let found = (1..300).find(|seed| run(*seed, &Cut::default(), Some(plant), Detail::Hash).failure.is_some());
        println!("{plant:?} {found:?}");
    }
}
