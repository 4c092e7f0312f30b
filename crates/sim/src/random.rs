//! Dice. Each consumer has a stream of its own, named after it, so that a new consumer does not shift the others.

/// A generator of the splitmix64 family (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014):
/// one addition and one mixing function a number, which is plenty for drawing faults.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

impl Random {
    /// The stream of a name and number within a seed.
    pub(crate) fn stream(seed: u64, name: &str, number: usize) -> Self {
        let named = name.bytes().fold(mix(seed), |state, byte| mix(state ^ u64::from(byte)).wrapping_add(GOLDEN));
        Self { state: mix(named ^ u64::try_from(number).unwrap_or(u64::MAX)) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// A number below the bound; 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The remainder's bias is below 2^-40 for the bounds used here.
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// A number from the range, both ends included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// As [`Random::between`], small.
    pub(crate) fn small(&mut self, low: u32, high: u32) -> u32 {
        u32::try_from(self.between(u64::from(low), u64::from(high))).unwrap_or(high)
    }

    /// True this often in a thousand.
    pub(crate) fn per_mille(&mut self, rate: u64) -> bool {
        rate > 0 && self.below(1_000) < rate
    }

    /// A share of at least 0 and below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From the standard normal distribution (Box and Muller, 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.share()).ln()).sqrt() * (std::f64::consts::TAU * self.share()).cos()
    }

    /// True once in this many.
    pub(crate) fn one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }

    /// One of the values.
    pub(crate) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        let index = usize::try_from(self.below(among.len() as u64)).unwrap_or(0);
        among[index]
    }

    /// Small values often, large ones sometimes: each power of two between the bounds is equally likely.
    pub(crate) fn scale(&mut self, low: u64, high: u64) -> u64 {
        let span = (high / low.max(1)).max(1).ilog2();
        let doubled = low << self.below(u64::from(span) + 1);
        self.between(doubled, (doubled * 2).min(high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_apart_and_repeat() {
        let draw = |seed, name, number| -> Vec<u64> {
            let mut random = Random::stream(seed, name, number);
            (0..4).map(|_| random.below(1_000_000)).collect()
        };
        assert_eq!(draw(1, "faults", 0), draw(1, "faults", 0));
        let all = [draw(1, "faults", 0), draw(2, "faults", 0), draw(1, "traffic", 0), draw(1, "faults", 1)];
        for (index, one) in all.iter().enumerate() {
            assert!(all.iter().skip(index + 1).all(|other| other != one));
        }
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut random = Random::stream(7, "bounds", 0);
        for _ in 0..10_000 {
            assert!((5..=9).contains(&random.between(5, 9)));
            assert!((10..=5_000).contains(&random.scale(10, 5_000)));
            assert!(random.below(0) == 0 && !random.per_mille(0) && random.per_mille(1_000));
        }
    }
}
