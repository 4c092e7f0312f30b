//! A phase as a chart in the terminal: the highest latency of each slice of time.

use super::figures::PhaseFigures;
use super::load::Sample;
use crate::output;

/// Slices of time, each a column.
pub(crate) const COLUMNS: usize = 60;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The highest latency of each slice, microseconds; none where nothing was sent.
pub(crate) fn slices(samples: &[Sample]) -> Vec<Option<u64>> {
    let mut slices = vec![None; COLUMNS];
    let last = samples.iter().map(|sample| sample.at).max().unwrap_or_default().max(1);
    for sample in samples.iter().filter(|sample| sample.status.is_some()) {
        let column = u64::try_from(COLUMNS - 1).unwrap_or(1).saturating_mul(sample.at) / last;
        if let Some(slice) = usize::try_from(column).ok().and_then(|column| slices.get_mut(column)) {
            *slice = Some(slice.unwrap_or(0).max(sample.latency));
        }
    }
    slices
}

/// The chart with its scale, which is logarithmic: a cold start is a hundred warm requests high.
pub(crate) fn of(figures: &PhaseFigures, samples: &[Sample]) -> String {
    let slices = slices(samples);
    let present: Vec<u64> = slices.iter().flatten().copied().collect();
    let (Some(low), Some(high)) = (present.iter().min(), present.iter().max()) else { return String::new() };
    let (low, high) = (*low, *high);
    let bar: String = slices.iter().map(|slice| slice.map_or(' ', |value| LEVELS[level(value, low, high)])).collect();
    format!(
        "\n{}: the highest latency, {} to {}\n{}\n",
        figures.name,
        output::micros(low),
        output::micros(high),
        bar.trim_end()
    )
}

/// 0 to 7.
fn level(value: u64, low: u64, high: u64) -> usize {
    let log = |value: u64| f64::from(u32::try_from(value.max(1)).unwrap_or(u32::MAX)).log10();
    let span = log(high) - log(low);
    let share = if span > 0.0 { (log(value) - log(low)) / span } else { 0.0 };
    (1..LEVELS.len()).rev().find(|level| share >= f64::from(u8::try_from(*level).unwrap_or(0)) / 7.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_logarithmic() {
        assert_eq!((level(1_000, 1_000, 1_000_000), level(1_000_000, 1_000, 1_000_000)), (0, 7));
        assert_eq!((level(31_623, 1_000, 1_000_000), level(5, 5, 5)), (3, 0));
    }
}
