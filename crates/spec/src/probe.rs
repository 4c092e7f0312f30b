//! When instances are probed, and how many answers count.

use serde::{Deserialize, Serialize};

use crate::Millis;

/// When a probe asks, and what its answers mean. What is not set has the default of its kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeTiming {
    /// From the start of an instance to the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Millis>,
    /// Between two probes of an instance that serves. During a start they come more often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<Millis>,
    /// How long one may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
    /// Failures in a row that count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// Successes in a row that count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successes: Option<u32>,
}

/// The probes of a function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeTimings {
    /// Whether an instance gets requests.
    pub ready: ProbeTiming,
    /// Whether it is beyond help.
    pub live: ProbeTiming,
}

impl ProbeTiming {
    /// The longest delay, period and timeout.
    pub const LONGEST: Millis = Millis::from_secs(3_600);
    /// The most failures or successes in a row.
    pub const MOST: u32 = 1_000;

    /// The defaults of a ready probe, with what is set here.
    pub fn as_ready(self) -> Probing {
        self.over(Probing { delay: 0, period: 5_000, timeout: 2_000, failures: 3, successes: 1 })
    }

    /// The defaults of a live probe, with what is set here.
    pub fn as_live(self) -> Probing {
        self.over(Probing { delay: 0, period: 10_000, timeout: 5_000, failures: 3, successes: 1 })
    }

    fn over(self, usual: Probing) -> Probing {
        let millis = |set: Option<Millis>, usual: u64| set.map_or(usual, |set| set.0);
        Probing {
            delay: millis(self.delay, usual.delay),
            period: millis(self.period, usual.period).max(1),
            timeout: millis(self.timeout, usual.timeout).max(1),
            failures: self.failures.unwrap_or(usual.failures).max(1),
            successes: self.successes.unwrap_or(usual.successes).max(1),
        }
    }
}

/// A probe with everything settled; times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probing {
    /// From the start to the first probe.
    pub delay: u64,
    /// Between two probes.
    pub period: u64,
    /// How long one may take.
    pub timeout: u64,
    /// Failures in a row that count.
    pub failures: u32,
    /// Successes in a row that count.
    pub successes: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_has_the_default_of_its_kind() {
        let set = ProbeTiming { period: Some(Millis(3_000)), failures: Some(1), ..ProbeTiming::default() };
        assert_eq!(set.as_ready(), Probing { delay: 0, period: 3_000, timeout: 2_000, failures: 1, successes: 1 });
        assert_eq!((set.as_live().timeout, ProbeTiming::default().as_live().period), (5_000, 10_000));
        let stored: ProbeTimings = serde_json::from_str("{}").unwrap();
        assert_eq!(stored, ProbeTimings::default());
    }
}
