//! Which version a request goes to: the one that serves, a certain one, or one of an alias by weight.

use std::sync::Arc;

use kip_spec::VersionId;
use serde::{Deserialize, Serialize};

use crate::Policy;

/// An alias as its function's core knows it; the shell knows its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AliasNumber(pub u32);

/// Which version is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Qualifier {
    /// The one that serves.
    #[default]
    Latest,
    /// This one.
    Version(VersionId),
    /// One of the alias's.
    Alias(AliasNumber),
}

/// A version that an alias points at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Which.
    pub version: VersionId,
    /// How it wants to be treated.
    pub policy: Arc<Policy>,
    /// Its share of the sum of all weights.
    pub weight: u32,
}

/// An alias's versions and whose turn it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Alias {
    shares: Vec<Share>,
    provisioned: u32,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Share {
    version: VersionId,
    weight: u32,
    /// What it is owed, in units of the sum of the weights.
    owed: i64,
}

impl Alias {
    /// An alias with these targets; those of weight 0 are named and get nothing.
    pub fn new(targets: &[Target], provisioned: u32) -> Self {
        let share = |target: &Target| Share { version: target.version, weight: target.weight, owed: 0 };
        Self { shares: targets.iter().map(share).collect(), provisioned }
    }

    /// The versions it names.
    pub fn versions(&self) -> impl Iterator<Item = VersionId> {
        self.shares.iter().map(|share| share.version)
    }

    /// The version of the next request. After as many requests as the weights sum up to, each version has had exactly
    /// its weight of them.
    pub fn draw(&mut self) -> Option<VersionId> {
        let sum: i64 = self.shares.iter().map(|share| i64::from(share.weight)).sum();
        self.shares.iter_mut().for_each(|share| share.owed += i64::from(share.weight));
        // Of equals the first: the order is the declaration's.
        let next = self
            .shares
            .iter_mut()
            .filter(|share| share.weight > 0)
            .reduce(|best, share| if share.owed > best.owed { share } else { best })?;
        next.owed -= sum;
        Some(next.version)
    }

    /// How many of the alias's provisioned instances are of a version.
    pub fn provisioned(&self, version: VersionId) -> u32 {
        self.share(self.provisioned, version)
    }

    /// How many of so many instances are of a version.
    pub fn share(&self, total: u32, version: VersionId) -> u32 {
        let weights: Vec<u32> = self.shares.iter().map(|share| share.weight).collect();
        let parts = split(total, &weights);
        self.shares.iter().zip(parts).filter(|(share, _)| share.version == version).map(|(_, part)| part).sum()
    }
}

/// Splits a number by weights: each part is its exact share rounded down or up, by the largest remainder, and of equal
/// remainders the first rounds up. The parts add up to the number.
pub fn split(total: u32, weights: &[u32]) -> Vec<u32> {
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let exact = |weight: &u32| u64::from(total) * u64::from(*weight);
    let mut parts: Vec<u32> =
        weights.iter().map(|weight| u32::try_from(exact(weight) / sum).unwrap_or(u32::MAX)).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|index| (std::cmp::Reverse(exact(&weights[*index]) % sum), *index));
    let left = total - parts.iter().sum::<u32>();
    by_remainder.into_iter().take(left as usize).for_each(|index| parts[index] += 1);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(weights: &[u32]) -> Alias {
        let shares =
            (1..).zip(weights).map(|(version, weight)| Share { version: VersionId(version), weight: *weight, owed: 0 });
        Alias { shares: shares.collect(), provisioned: 0 }
    }

    #[test]
    fn long_run_shares_are_exact_and_short_runs_are_even() {
        for weights in [vec![1], vec![9, 1], vec![1, 0, 2], vec![5, 3, 2], vec![97, 2, 1], vec![7, 7, 7]] {
            let mut alias = alias(&weights);
            let sum: u32 = weights.iter().sum();
            let mut counts = vec![0u32; weights.len()];
            for number in 1..=sum * 3 {
                let version = alias.draw().expect("there is weight");
                counts[usize::try_from(version.0 - 1).expect("small")] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    let exact = f64::from(number) * f64::from(*weight) / f64::from(sum);
                    assert!((f64::from(*count) - exact).abs() < weights.len() as f64, "{weights:?} {counts:?}");
                }
                if number % sum == 0 {
                    let rounds = number / sum;
                    assert_eq!(counts, weights.iter().map(|weight| weight * rounds).collect::<Vec<_>>());
                }
            }
        }
        assert_eq!(alias(&[0, 0]).draw(), None);
    }

    #[test]
    fn splits_by_largest_remainder() {
        let rows: [(u32, &[u32], &[u32]); 6] = [
            (10, &[90, 10], &[9, 1]),
            (3, &[1, 1], &[2, 1]),
            (5, &[50, 30, 20], &[3, 1, 1]),
            (1, &[49, 51], &[0, 1]),
            (7, &[0, 1], &[0, 7]),
            (4, &[0, 0], &[0, 0]),
        ];
        for (total, weights, parts) in rows {
            assert_eq!(split(total, weights), parts, "{total} by {weights:?}");
        }
    }
}
