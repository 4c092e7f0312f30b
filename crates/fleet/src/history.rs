//! What a version has learnt of its traffic and of its instances: kept while the function has no core, and by the shell over restarts.

use serde::{Deserialize, Serialize};

use crate::Now;
use crate::function::OperationCosts;
use crate::scaler::AutoHistory;

/// What the version that serves has learnt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When this was so. Times of the rest are boot times of the same host and the same boot.
    pub at: Now,
    /// What starts and wakes take.
    pub costs: OperationCosts,
    /// What `auto` knows of the traffic.
    pub auto: AutoHistory,
}

impl History {
    /// The same for a server of another boot: its boot times are moved by the wall time that has passed.
    #[must_use]
    pub fn moved(mut self, now: Now) -> Self {
        let age = u64::try_from(now.wall.saturating_sub(self.at.wall)).unwrap_or(0);
        let shift = i128::from(now.boot) - i128::from(age) - i128::from(self.at.boot);
        self.auto.shift(|time| u64::try_from(i128::from(time) + shift).unwrap_or(0));
        self.at = now;
        self
    }
}
