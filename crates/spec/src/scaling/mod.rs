//! How the number of a version's instances follows its load: validated, with every default filled in.

pub mod cron;
pub mod kpa;
pub mod provision;
pub mod zone;

use serde::{Deserialize, Serialize};

use crate::{Finite, Millis};

pub use cron::Cron;
pub use kpa::Kpa;
pub use provision::Provision;

/// A scaling policy. Boxed, since each version of each function has room for one and most have none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Scaling {
    /// By backlog, between `instances.min` and `instances.max`.
    #[default]
    Fixed,
    /// Function Compute's provisioned instances: a default target, tracking policies, scheduled actions.
    Fc(Box<Fc>),
    /// Knative's autoscaler.
    Kpa(Box<Kpa>),
    /// Kipwake's own policy, which chooses by what it measures.
    Auto(Box<Auto>),
}

impl Scaling {
    /// Its name as users read and write it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Fc(_) => "fc",
            Self::Kpa(_) => "kpa",
            Self::Auto(_) => "auto",
        }
    }
}

/// What the policy `auto` is told; it measures everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Auto {
    /// What callers' waits are worth.
    pub class: Class,
    /// When an idle instance is paused.
    pub pause: IdleLimit,
    /// When an unused instance ends.
    pub stop: IdleLimit,
    /// Where the policy chooses that: the first instance, and those of whose use too little is known, stay for so long at least.
    #[serde(default)]
    pub keep: Millis,
}

/// How much is paid for short waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Few instances; callers wait for wakes and starts.
    Economy,
    /// Spare instances where there is steady load.
    #[default]
    Balanced,
    /// More of them, and sleepers are kept for longer.
    Latency,
}

/// A time limit that the declaration sets, or leaves to the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdleLimit {
    /// The policy chooses.
    #[default]
    Chosen,
    /// After this time.
    After(Millis),
    /// Never.
    Never,
}

/// How Function Compute's policies are evaluated here, and which there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fc {
    /// What is provisioned, and by which policies.
    pub provision: Provision,
    /// A metric is the mean over this long, and is looked at as often.
    pub period: Millis,
    /// Periods in a row that a metric must be above, or below, its target before the count follows.
    pub hold: u32,
    /// What part of the surplus goes at once when the count shrinks, above 0 and at most 1.
    pub coefficient: Finite,
    /// Requests that find no provisioned instance free start none: they wait for one.
    pub disable_ondemand: bool,
}

impl Fc {
    /// Ours; 60 s is Function Compute's.
    pub const PERIOD: Millis = Millis::from_secs(1);
    /// One period is enough.
    pub const HOLD: u32 = 1;
    /// The whole surplus at once.
    pub const COEFFICIENT: Finite = Finite::constant(1.0);

    /// The defaults with this provisioned.
    pub fn new(provision: Provision) -> Self {
        let (period, hold, coefficient) = (Self::PERIOD, Self::HOLD, Self::COEFFICIENT);
        Self { provision, period, hold, coefficient, disable_ondemand: false }
    }

    /// What is out of range, each with its key.
    pub fn check(&self) -> Vec<String> {
        let (period, hold, coefficient) = (self.period, self.hold, self.coefficient);
        let rows = [
            (!(100..=3_600_000).contains(&period.0), format!("period: {period} is not from 100ms to 1h")),
            (!(1..=1_000).contains(&hold), format!("hold: {hold} is not from 1 to 1000 periods")),
            (
                coefficient.get() <= 0.0 || coefficient.get() > 1.0,
                format!("coefficient: {coefficient} is not above 0 and at most 1"),
            ),
        ];
        rows.into_iter().filter_map(|(wrong, text)| wrong.then_some(text)).collect()
    }
}
