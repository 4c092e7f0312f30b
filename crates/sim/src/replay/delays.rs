//! How long requests waited, exactly, however many there are.

use std::collections::BTreeMap;

/// Delays in milliseconds with how often each occurred. Most are zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delays {
    none: u64,
    counts: BTreeMap<u64, u64>,
    total: u64,
    sum: u128,
}

impl Delays {
    /// Adds a request that waited so long.
    pub fn add(&mut self, delay: u64) {
        self.total += 1;
        if delay == 0 {
            self.none += 1;
            return;
        }
        self.sum += u128::from(delay);
        *self.counts.entry(delay).or_default() += 1;
    }

    /// How many requests there were.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The smallest delay that this share of the requests did not exceed, in thousandths: 990 is the 99th percentile. 0 without
    /// requests.
    pub fn quantile(&self, per_mille: u64) -> u64 {
        let wanted = (u128::from(self.total) * u128::from(per_mille)).div_ceil(1_000);
        let mut below = u128::from(self.none);
        if below >= wanted {
            return 0;
        }
        for (delay, count) in &self.counts {
            below += u128::from(*count);
            if below >= wanted {
                return *delay;
            }
        }
        self.max()
    }

    /// Delays and the share of requests that did not exceed each, ascending, in this many points at most.
    #[expect(clippy::cast_precision_loss, reason = "shares for people")]
    pub fn distribution(&self, points: usize) -> Vec<(u64, f64)> {
        let total = self.total.max(1) as f64;
        let (mut below, mut shown) = (self.none, vec![(0, self.none as f64 / total)]);
        let step = 1.0 / points.max(1) as f64;
        for (delay, count) in &self.counts {
            below += count;
            let share = below as f64 / total;
            if shown.last().is_none_or(|(_, last)| share - last >= step - 1e-9) || below == self.total {
                shown.push((*delay, share));
            }
        }
        shown
    }

    /// The longest.
    pub fn max(&self) -> u64 {
        self.counts.last_key_value().map_or(0, |(delay, _)| *delay)
    }

    /// The mean, milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    pub fn mean(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.sum as f64 / self.total as f64 }
    }

    /// The share that waited longer than this.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn share_over(&self, limit: u64) -> f64 {
        let over: u64 = self.counts.range(limit + 1..).map(|(_, count)| count).sum();
        if self.total == 0 { 0.0 } else { over as f64 / self.total as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact() {
        let mut delays = Delays::default();
        assert_eq!((delays.quantile(500), delays.max(), delays.count()), (0, 0, 0));
        (0..90).for_each(|_| delays.add(0));
        (1..=10).for_each(|delay| delays.add(delay * 100));
        assert_eq!([500, 900, 910, 990, 1_000].map(|share| delays.quantile(share)), [0, 0, 100, 900, 1_000]);
        assert!((delays.mean() - 55.0).abs() < 1e-9);
        assert!((delays.share_over(500) - 0.05).abs() < 1e-9);
        assert_eq!(delays.distribution(20), [(0, 0.9), (500, 0.95), (1_000, 1.0)]);
    }
}
