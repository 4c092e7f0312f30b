//! How far the driver says a process is.

use serde::{Deserialize, Serialize};

/// What `cuCheckpointProcessGetState` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It runs.
    Running,
    /// Its calls of the driver wait.
    Locked,
    /// Nothing of it is on a device.
    Checkpointed,
    /// It is lost.
    Failed,
    /// Something is being done to it. Numbers that this version does not know are read so, because a newer driver has
    /// numbers for what is under way.
    Busy,
}

impl From<i32> for State {
    fn from(number: i32) -> Self {
        match number {
            0 => Self::Running,
            1 => Self::Locked,
            2 => Self::Checkpointed,
            3 => Self::Failed,
            _ => Self::Busy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_busy() {
        let read: Vec<State> = (0..7).map(State::from).collect();
        use State::{Busy, Checkpointed, Failed, Locked, Running};
        assert_eq!(read, [Running, Locked, Checkpointed, Failed, Busy, Busy, Busy]);
    }
}
