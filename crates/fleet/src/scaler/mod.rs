//! Scalers choose how many instances are hot and how many asleep. Which rung of sleep is not theirs to say.

mod auto;
pub mod fc;
mod fixed;
mod knative;
pub mod kpa;
pub mod session;

use kip_spec::scaling::{Kpa, Scaling};
use serde::{Deserialize, Serialize};

pub use auto::{Auto, AutoFigures, AutoHistory};
pub use fixed::Fixed;
pub use knative::{DecisionInput, Knative, ScalerStart};

use crate::why::Reason;
use crate::{Kind, Now, Policy};

/// What a version has to do, from now until something else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Requests that wait or are in flight.
    pub requests: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that ever came; it goes round at the end.
    pub arrivals: u32,
    /// Instances that can serve.
    pub ready: u32,
}

/// What a scaler sees of a version. Times are boot-time milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that wait.
    pub queued: u32,
    /// Since when the first of them waits.
    pub waiting_since: Option<u64>,
    /// Instances with requests in flight.
    pub busy: u32,
    /// Hot instances without: since when each rests, longest first.
    pub idle_since: &'a [u64],
    /// Instances asleep: since when each is unused, longest first.
    pub asleep_since: &'a [u64],
    /// Instances that are kept, by the version's own declaration, by what is provisioned, and by aliases.
    pub minimum: u32,
    /// Never more than this many.
    pub maximum: u32,
    /// Of those that are kept, so many do not sleep when they are idle.
    pub kept_hot: u32,
    /// Whether requests may start instances beyond those that are kept.
    pub on_demand: bool,
    /// Of those that are kept, policies of provisioned instances want so many.
    pub provisioned: u32,
    /// Instances that have room and are on the way to being hot.
    pub starting: u32,
    /// What a start took lately, milliseconds.
    pub start: u64,
    /// What a wake took lately, milliseconds.
    pub wake: u64,
}

impl Observation<'_> {
    /// Why so many hot ones are wanted by backlog and bounds, and what for.
    fn reason(&self, hot: u32) -> (Kind, Reason) {
        match () {
            () if self.queued > 0 => (Kind::OnDemand, Reason::RequestsWait { queued: self.queued }),
            () if hot > self.minimum => (Kind::OnDemand, Reason::RequestsWait { queued: 0 }),
            () if self.provisioned > 0 => (Kind::Provisioned, Reason::Provisioned { target: self.minimum }),
            () => (Kind::Provisioned, Reason::KeepMinimum),
        }
    }
}

/// What a scaler wants of a version. In which pool is the placer's to say: it fills them in the order of their priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Instances that should be hot or on the way there.
    pub hot: u32,
    /// Instances that should be asleep.
    pub asleep: u32,
    /// It was worth writing down: a tick of a policy that has ticks.
    pub decided: bool,
    /// What the next instance that is missing is there for.
    pub kind: Kind,
    /// Why it is wanted.
    pub why: Reason,
}

impl Desired {
    /// Nothing is wanted any more.
    pub const NOTHING: Self =
        Self { hot: 0, asleep: 0, decided: false, kind: Kind::OnDemand, why: Reason::RequestsWait { queued: 0 } };
}

/// A scaling policy. It is told what is, and says what should be; it does nothing itself.
pub trait Scaler {
    /// What there is to do changed, or time passed.
    fn observe(&mut self, now: u64, load: Load);
    /// What should be, given what is.
    fn decide(&mut self, now: Now, observation: &Observation<'_>) -> Desired;
    /// When it wants to decide again even if nothing happens, boot time.
    fn next_tick(&self) -> Option<u64>;
    /// Whether it may be forgotten: one made anew would decide the same.
    fn is_at_rest(&self) -> bool;
}

/// The scalers there are. An enum, so that a core can be cloned and written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scalers {
    /// By backlog, between two bounds, which what is provisioned moves.
    Fixed(Fixed),
    /// As Knative does.
    Knative(Box<Knative>),
    /// Our own, which follows what it measures.
    Auto(Box<Auto>),
}

impl Scalers {
    /// By a version's declaration; a fresh one was never up before.
    pub fn new(policy: &Policy, fresh: bool) -> Self {
        match &policy.scaling {
            Scaling::Fixed | Scaling::Fc(_) => Self::Fixed(Fixed::new(policy)),
            Scaling::Auto(settings) => Self::Auto(Box::new(Auto::new(policy, **settings))),
            Scaling::Kpa(settings) => Self::Knative(Box::new(Knative::new(Kpa::clone(settings), fresh))),
        }
    }

    /// Whether it must be told of every request.
    pub fn counts(&self) -> bool {
        matches!(self, Self::Knative(_) | Self::Auto(_))
    }

    /// How many it wants, if it says so from tick to tick.
    pub fn applied(&self) -> Option<u32> {
        self.knative().map(Knative::applied)
    }

    /// A request was worked on for so long, milliseconds.
    pub fn served(&mut self, time: u64) {
        if let Self::Auto(scaler) = self {
            scaler.served(time);
        }
    }

    /// What it has learnt of its traffic, for a scaler that goes on from there; nothing where it learns nothing.
    pub fn history(&self, now: u64) -> Option<AutoHistory> {
        match self {
            Self::Auto(scaler) => Some(scaler.history(now)),
            Self::Fixed(_) | Self::Knative(_) => None,
        }
    }

    /// Goes on from what an earlier scaler has learnt. False where it learns nothing.
    pub fn learn(&mut self, history: &AutoHistory) -> bool {
        let Self::Auto(scaler) = self else { return false };
        scaler.learn(history);
        true
    }

    /// So many instances of an earlier server were found.
    pub fn found(&mut self, now: u64, instances: usize) {
        if let Self::Auto(scaler) = self {
            scaler.found(now, instances);
        }
    }

    /// Knative's, if it is.
    pub fn knative(&self) -> Option<&Knative> {
        match self {
            Self::Fixed(_) | Self::Auto(_) => None,
            Self::Knative(scaler) => Some(scaler),
        }
    }
}

impl Scaler for Scalers {
    fn observe(&mut self, now: u64, load: Load) {
        match self {
            Self::Fixed(scaler) => scaler.observe(now, load),
            Self::Knative(scaler) => scaler.observe(now, load),
            Self::Auto(scaler) => scaler.observe(now, load),
        }
    }

    fn decide(&mut self, now: Now, observation: &Observation<'_>) -> Desired {
        match self {
            Self::Fixed(scaler) => scaler.decide(now, observation),
            Self::Knative(scaler) => scaler.decide(now, observation),
            Self::Auto(scaler) => scaler.decide(now, observation),
        }
    }

    fn next_tick(&self) -> Option<u64> {
        match self {
            Self::Fixed(scaler) => scaler.next_tick(),
            Self::Knative(scaler) => scaler.next_tick(),
            Self::Auto(scaler) => scaler.next_tick(),
        }
    }

    fn is_at_rest(&self) -> bool {
        match self {
            Self::Fixed(scaler) => scaler.is_at_rest(),
            Self::Knative(scaler) => scaler.is_at_rest(),
            Self::Auto(scaler) => scaler.is_at_rest(),
        }
    }
}
