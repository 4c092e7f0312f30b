//! What there was over time, as CSV.

use kip_sim::replay::Interval;

use super::Played;
use super::policies::Contestant;

/// A line for each policy and interval: means over the interval.
pub(super) fn csv(played: &[Played]) -> String {
    let mut text = "policy,t_s,arrivals,hot,starting,asleep,in_flight,waiting\n".to_owned();
    for (contestant, outcome) in played {
        let (Contestant::Policy(name, _), Some(outcome)) = (contestant, outcome) else { continue };
        let quoted =
            if name.contains([',', '"']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.clone() };
        for (number, interval) in (0u64..).zip(&outcome.series.intervals) {
            let at = number * outcome.series.length / 1_000;
            let means = means(interval, outcome.series.length).map(|mean| format!("{mean:.3}")).join(",");
            text.push_str(&format!("{quoted},{at},{},{means}\n", interval.arrivals));
        }
    }
    text
}

/// Hot, starting, asleep, in flight and waiting: the means over an interval.
#[expect(clippy::cast_precision_loss, reason = "means for people")]
pub(super) fn means(interval: &Interval, length: u64) -> [f64; 5] {
    let all = [interval.hot, interval.starting, interval.asleep, interval.in_flight, interval.waiting];
    all.map(|integral| integral as f64 / length.max(1) as f64)
}
