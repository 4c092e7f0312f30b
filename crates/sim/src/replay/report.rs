//! What a replay cost, in active instance-milliseconds.

use kip_fleet::State;

use super::driver::Outcome;

/// Prices of an instance's time, as shares of the price of an active one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// Asleep. Function Compute's idle GPU costs 0.5 / 2.1 of an active one.
    pub asleep: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self { asleep: 0.5 / 2.1 }
    }
}

/// The time of all instances by what it costs, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Costs {
    /// Starting, waking, hot or busy.
    pub active: u64,
    /// Asleep.
    pub asleep: u64,
    /// Of the active time: with requests in flight.
    pub busy: u64,
}

impl Costs {
    /// Of a replay.
    pub fn of(outcome: &Outcome) -> Self {
        let time = |state: State| outcome.times[state.index()];
        let asleep = [State::Pausing, State::Paused, State::Parking, State::Parked, State::Spilling, State::Spilled];
        let active = [
            State::Starting,
            State::Initializing,
            State::Ready,
            State::Busy,
            State::Waking,
            State::Draining,
            State::Stopping,
        ];
        Self {
            active: active.map(time).iter().sum(),
            asleep: asleep.map(time).iter().sum(),
            busy: time(State::Busy) + time(State::Draining),
        }
    }

    /// In active instance-milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of any trace fit into 52 bits")]
    pub fn total(&self, prices: Prices) -> f64 {
        self.active as f64 + prices.asleep * self.asleep as f64
    }
}
