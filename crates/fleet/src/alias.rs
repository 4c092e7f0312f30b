//! Which version a request goes to: the one that serves, a certain one, or one of an alias by weight.

use std::sync::Arc;

use kip_spec::VersionId;
use kip_spec::sticky::mixed;
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

/// Where the draw of an alias begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draw {
    /// As if so many requests had come already. Many aliases that begin together then do not all draw the same.
    Begin(u32),
    /// With what each share is owed, as [`Alias::state`] said.
    Continue(Vec<i64>),
}

/// What a share of an alias points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pointer {
    /// The version that serves.
    Latest,
    /// This version.
    Version(VersionId),
}

/// An alias's versions and whose turn it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Alias {
    shares: Vec<Share>,
    provisioned: u32,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Share {
    to: Pointer,
    weight: u32,
    /// What it is owed, in units of the sum of the weights.
    owed: i64,
}

impl Alias {
    /// An alias with these targets; those of weight 0 are named and get nothing. `latest` is the weight of the version that serves.
    pub fn new(targets: &[Target], latest: u32, provisioned: u32, draw: &Draw) -> Self {
        let named = targets.iter().map(|target| (Pointer::Version(target.version), target.weight));
        let serving = (latest > 0).then_some((Pointer::Latest, latest));
        let shares = named.chain(serving).map(|(to, weight)| Share { to, weight, owed: 0 }).collect();
        let mut alias = Self { shares, provisioned };
        match draw {
            Draw::Begin(phase) => {
                for _ in 0..*phase {
                    alias.draw();
                }
            }
            Draw::Continue(state) if state.len() == alias.shares.len() => {
                alias.shares.iter_mut().zip(state).for_each(|(share, owed)| share.owed = *owed);
            }
            Draw::Continue(_) => {}
        }
        alias
    }

    /// What each share is owed, to go on from there.
    pub fn state(&self) -> Vec<i64> {
        self.shares.iter().map(|share| share.owed).collect()
    }

    /// The versions it names.
    pub fn versions(&self) -> impl Iterator<Item = VersionId> {
        self.shares.iter().filter_map(|share| match share.to {
            Pointer::Version(version) => Some(version),
            Pointer::Latest => None,
        })
    }

    /// The version of the next request. Of any number of requests since the beginning each share has had its part, rounded up or down,
    /// and after as many as the weights sum up to exactly its weight.
    ///
    /// This is Tijdeman's rule ("The chairman assignment problem", 1980): of those that are owed enough, the one that can wait least.
    pub fn draw(&mut self) -> Option<Pointer> {
        let sum: i64 = self.shares.iter().map(|share| i64::from(share.weight)).sum();
        let count = i64::try_from(self.shares.iter().filter(|share| share.weight > 0).count()).unwrap_or(i64::MAX);
        let scale = 2 * count.max(2) - 2;
        self.shares.iter_mut().for_each(|share| share.owed += i64::from(share.weight));
        // How long it can wait, as a fraction: the room left, over the weight.
        let slack = |share: &Share| i128::from(sum * (scale - 1) - share.owed * scale);
        let sooner =
            |one: &Share, other: &Share| slack(one) * i128::from(other.weight) < slack(other) * i128::from(one.weight);
        // Of equals the first: the order is the declaration's.
        let next = self
            .shares
            .iter_mut()
            .filter(|share| share.weight > 0 && share.owed * scale >= sum)
            .reduce(|best, share| if sooner(share, best) { share } else { best })?;
        next.owed -= sum;
        Some(next.to)
    }

    /// The version of the next request: of its caller, where one is told, else by [`Alias::draw`].
    pub fn next(&mut self, caller: Option<u64>) -> Option<Pointer> {
        match caller {
            Some(caller) => self.of_caller(caller),
            None => self.draw(),
        }
    }

    /// The version of a caller. Of many callers each share has its part; when a share grows, only callers move that go to it, and as few
    /// as that takes.
    ///
    /// Weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005): each share draws a number
    /// for the caller, and the least -ln(number)/weight has it. Weights of other shares change nothing between two.
    pub fn of_caller(&self, caller: u64) -> Option<Pointer> {
        /// Numbers that a double holds exactly.
        const STEPS: f64 = (1u64 << 53) as f64;
        let drawn = |share: &Share| {
            let own = match share.to {
                Pointer::Latest => u64::MAX,
                Pointer::Version(version) => version.0,
            };
            // Above 0 and at most 1.
            let number = ((mixed(caller ^ mixed(own.wrapping_add(1))) >> 11) + 1) as f64 / STEPS;
            -number.ln() / f64::from(share.weight)
        };
        let shares = self.shares.iter().filter(|share| share.weight > 0);
        let least = shares
            .map(|share| (drawn(share), share.to))
            .reduce(|best, other| if other.0 < best.0 { other } else { best });
        least.map(|(_, to)| to)
    }

    /// How many of the alias's provisioned instances are of a version, while another or the same one serves.
    pub fn provisioned(&self, version: VersionId, serving: Option<VersionId>) -> u32 {
        self.share(self.provisioned, version, serving)
    }

    /// How many of so many instances are of a version, while another or the same one serves.
    pub fn share(&self, total: u32, version: VersionId, serving: Option<VersionId>) -> u32 {
        let weights: Vec<u32> = self.shares.iter().map(|share| share.weight).collect();
        let parts = split(total, &weights);
        let is = |share: &Share| match share.to {
            Pointer::Version(named) => named == version,
            Pointer::Latest => serving == Some(version),
        };
        self.shares.iter().zip(parts).filter(|(share, _)| is(share)).map(|(_, part)| part).sum()
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

    fn targets(weights: &[u32]) -> Vec<Target> {
        let policy = Arc::new(crate::function::tests::policy());
        let target = |(version, weight): (u64, &u32)| Target {
            version: VersionId(version),
            policy: policy.clone(),
            weight: *weight,
        };
        (1..).zip(weights).map(target).collect()
    }

    fn alias(weights: &[u32]) -> Alias {
        Alias::new(&targets(weights), 0, 0, &Draw::Begin(0))
    }

    fn index(pointer: Option<Pointer>) -> usize {
        match pointer {
            Some(Pointer::Version(version)) => usize::try_from(version.0 - 1).expect("small"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn long_run_shares_are_exact_and_short_runs_are_even() {
        for weights in
            [vec![1], vec![9, 1], vec![1, 0, 2], vec![5, 3, 2], vec![97, 2, 1], vec![7, 7, 7], vec![60, 1, 1, 1, 37]]
        {
            let mut alias = alias(&weights);
            let sum: u32 = weights.iter().sum();
            let mut counts = vec![0u32; weights.len()];
            for number in 1..=sum * 3 {
                counts[index(alias.draw())] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    let exact = f64::from(number) * f64::from(*weight) / f64::from(sum);
                    assert!((f64::from(*count) - exact).abs() < 1.0, "{weights:?} {counts:?}");
                }
                if number % sum == 0 {
                    let rounds = number / sum;
                    assert_eq!(counts, weights.iter().map(|weight| weight * rounds).collect::<Vec<_>>());
                }
            }
        }
        assert_eq!(alias(&[0, 0]).draw(), None);
    }

    proptest::proptest! {
        /// Shares in millionths, any number of them, begun anywhere, and put away between requests as a core that sleeps does.
        #[test]
        fn any_hundred_requests_have_their_shares(
            percents in proptest::collection::vec(1u32..60, 1..6),
            phase in 0u32..100,
            start in 0usize..300,
            sleeps in proptest::bool::ANY,
        ) {
            let total: u32 = percents.iter().sum();
            let weights: Vec<u32> = split(1_000_000, &percents);
            let targets = targets(&weights);
            let mut alias = Alias::new(&targets, 0, 0, &Draw::Begin(phase));
            let mut drawn = Vec::new();
            for _ in 0..start + 100 {
                drawn.push(index(alias.draw()));
                if sleeps {
                    alias = Alias::new(&targets, 0, 0, &Draw::Continue(alias.state()));
                }
            }
            for (place, weight) in weights.iter().enumerate() {
                let count = drawn[start..].iter().filter(|one| **one == place).count();
                let exact = f64::from(*weight) / 10_000.0;
                let off = (count as f64 - exact).abs();
                // Whole percentages come out to the request; others are off by less than two parts of one each way.
                let most = if total == 100 { 1.0 } else { 2.0 };
                proptest::prop_assert!(off < most || (weights.len() <= 2 && off <= 1.0), "{weights:?}: {count} of {exact}");
            }
        }
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

    #[test]
    fn callers_stay_on_their_version_and_a_growing_share_moves_few() {
        const CALLERS: u64 = 20_000;
        let of = |weights: &[u32]| {
            let alias = alias(weights);
            (0..CALLERS).map(|caller| index(alias.of_caller(mixed(caller)))).collect::<Vec<_>>()
        };
        let steps: [&[u32]; 5] = [&[100, 0], &[90, 10], &[70, 30], &[40, 60], &[0, 100]];
        let drawn: Vec<Vec<usize>> = steps.iter().map(|weights| of(weights)).collect();
        for (weights, drawn) in steps.iter().zip(&drawn) {
            let new = drawn.iter().filter(|version| **version == 1).count() as f64 / CALLERS as f64;
            assert!((new - f64::from(weights[1]) / 100.0).abs() < 0.01, "{weights:?}: {new}");
            assert_eq!(&of(weights), drawn, "the same callers, each time");
        }
        for (before, after) in drawn.iter().zip(&drawn[1..]) {
            assert!(before.iter().zip(after).all(|(before, after)| before <= after), "nobody goes back");
        }
        // A third version takes its part of each of the others, and nothing else moves.
        let (two, three) = (of(&[60, 40]), of(&[54, 36, 10]));
        assert!(two.iter().zip(&three).all(|(two, three)| two == three || *three == 2));
        let mut alias = alias(&[50, 50]);
        let first = alias.next(Some(7));
        assert!((0..100).all(|_| alias.next(Some(7)) == first));
        assert_ne!(alias.next(None), alias.next(None), "who says nothing is drawn");
    }
}
