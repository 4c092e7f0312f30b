//! Decisions as values. The log keeps them beside their sentences; whoever needs a fact of one reads the value.

use kip_fleet::{Reason, State};
use kip_spec::InstanceId;
use kip_store::DecisionRecord;
use serde::{Deserialize, Serialize};

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "snake_case")]
pub enum Decision {
    /// An instance changed its state.
    Instance {
        /// Before; none for a new one.
        from: Option<State>,
        /// After.
        to: State,
        /// Why.
        why: Reason,
    },
    /// An instance of an earlier server does not go on.
    NotAdopted,
    /// The engine of an instance does not answer, or answers again.
    Touch {
        /// Whether it does not.
        lost: bool,
    },
    /// What became of a version.
    Version {
        /// Its outcome.
        outcome: Outcome,
    },
    /// A version was published or removed, or an alias points elsewhere.
    Named {
        /// What is so now.
        what: String,
    },
    /// What an instance was measured to use of its device.
    Device {
        /// The instance; none where it concerns its version.
        instance: Option<InstanceId>,
        /// Bytes.
        held: u64,
        /// Bytes that are declared; none where they are measured.
        declared: Option<u64>,
    },
    /// A scaling policy wants another number of instances.
    Scaled {
        /// How many.
        to: u32,
    },
    /// As much as a function's budget is spent, or more.
    OverBudget {
        /// What was spent.
        spent: String,
        /// The budget.
        amount: String,
    },
    /// Provisioned instances are unused.
    Unused {
        /// Since when, milliseconds since 1970.
        since: i64,
        /// How many.
        instances: u32,
    },
}

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It serves.
    Serving,
    /// It does not start, and another one serves on.
    Failed,
    /// Its instances end again and again.
    CrashLoop,
    /// Giving memory back failed too often: its instances only pause.
    RungsDisabled,
}

impl Outcome {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Failed => "failed",
            Self::CrashLoop => "crash loop",
            Self::RungsDisabled => "rungs disabled",
        }
    }
}

impl Decision {
    /// As it is stored.
    pub fn value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// That of a record; none in those of earlier versions, and of newer ones that this version does not know.
    pub fn of(record: &DecisionRecord) -> Option<Self> {
        Self::deserialize(&record.decision).ok()
    }
}
