//! Function Compute's provisioned instances: how many, by a default, by policies that follow metrics, and by the calendar.

#[cfg(test)]
mod tests;

use kip_spec::round;
use kip_spec::scaling::Fc as Settings;
use kip_spec::scaling::provision::{InactiveReason, Metric, Provision};
use serde::{Deserialize, Serialize};

/// The metrics of one period, by [`Metric::index`]; `None` where nothing was measured.
pub type Metrics = [Option<f64>; 3];

/// What is remembered of the tracking policies, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tracker {
    policies: Vec<TrackedMetric>,
    /// The last period of which a policy was told.
    target: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct TrackedMetric {
    /// What it wants, while it is active.
    target: Option<u32>,
    /// Periods in a row that its metric was above its target, and below.
    above: u32,
    below: u32,
    /// Since when, milliseconds since 1970.
    since: Option<i64>,
    step: Step,
}

/// What a tracking policy did in its last period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Its metric was not measured.
    #[default]
    NoData,
    /// Its metric was at its target.
    Level,
    /// It wants more.
    Out,
    /// It wants fewer.
    In,
    /// The metric is off its target, and not for long enough yet.
    Held,
}

/// A target, with its reason inside.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// So many provisioned instances.
    pub target: u32,
    /// What decided.
    pub why: FcReason,
}

/// What decided about a target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FcReason {
    /// No policy is active.
    Default {
        /// Policies that are not.
        inactive: u32,
        /// Why the first of them is not.
        first: Option<InactiveReason>,
    },
    /// A scheduled action, by its place in the list.
    Scheduled {
        /// Which.
        index: u32,
        /// When it fired, milliseconds since 1970.
        since: i64,
    },
    /// A tracking policy, by its place in the list.
    Tracking {
        /// Which.
        index: u32,
        /// The metric, where it was measured.
        metric: Option<f64>,
        /// How many there were.
        current: u32,
        /// What it did.
        step: Step,
        /// Periods in a row.
        periods: u32,
        /// Since when, milliseconds since 1970.
        since: Option<i64>,
        /// Its own bound that held it, if one did.
        bound: Option<TrackingBound>,
    },
}

/// A tracking policy's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackingBound {
    /// `minCapacity`.
    Min,
    /// `maxCapacity`.
    Max,
}

impl Tracker {
    /// Of these policies.
    pub fn new(provision: &Provision) -> Self {
        Self { policies: vec![TrackedMetric::default(); provision.tracking.len()], target: None }
    }

    /// Policies that are active begin with this, instead of with what there is.
    pub fn begin(&mut self, target: Option<u32>) {
        self.policies.iter_mut().for_each(|followed| followed.target = target);
    }

    /// What was decided last.
    pub fn target(&self) -> Option<u32> {
        self.target
    }

    /// A period is over: what it measured, and how many provisioned instances there are. Says what should be.
    pub fn period(&mut self, settings: &Settings, wall: i64, metrics: Metrics, current: u32) -> Target {
        self.step(settings, wall, metrics, current, true)
    }

    /// No period is over, but the calendar may have something new. Says what should be.
    pub fn look(&mut self, settings: &Settings, wall: i64, metrics: Metrics, current: u32) -> Target {
        self.step(settings, wall, metrics, current, false)
    }

    fn step(&mut self, settings: &Settings, wall: i64, metrics: Metrics, current: u32, over: bool) -> Target {
        let provision = &settings.provision;
        self.policies.resize(provision.tracking.len(), TrackedMetric::default());
        for (policy, followed) in provision.tracking.iter().zip(&mut self.policies) {
            if policy.window.outside(wall).is_some() {
                *followed = TrackedMetric::default();
                continue;
            }
            if over {
                followed.follow(settings, policy.target.get(), metrics[policy.metric.index()], current, wall);
            }
            let wanted = followed.target.unwrap_or(current);
            followed.target = Some(wanted.clamp(policy.min, policy.max));
        }
        self.effective(settings, wall, metrics, current)
    }

    /// Whether a policy is active, and none of those waits for more periods to act.
    pub fn is_settled(&self) -> bool {
        self.policies.iter().all(|followed| followed.target.is_none() || followed.step != Step::Held)
    }

    /// The largest of what is active now, else the default.
    fn effective(&mut self, settings: &Settings, wall: i64, metrics: Metrics, current: u32) -> Target {
        let provision = &settings.provision;
        let scheduled = provision.schedule(wall).and_then(|index| {
            let action = &provision.scheduled[index];
            let why = FcReason::Scheduled { index: number(index), since: action.fired(wall).ok()? };
            Some(Target { target: action.target, why })
        });
        let tracked =
            self.policies.iter().zip(&provision.tracking).enumerate().filter_map(|(index, (followed, policy))| {
                let target = followed.target?;
                let periods = followed.above.max(followed.below);
                let bound = match target {
                    target if target == policy.max && followed.above > 0 => Some(TrackingBound::Max),
                    target if target == policy.min && (followed.below > 0 || current == 0 && target > 0) => {
                        Some(TrackingBound::Min)
                    }
                    _ => None,
                };
                let metric = metrics[policy.metric.index()];
                let (index, since, step) = (number(index), followed.since, followed.step);
                Some(Target { target, why: FcReason::Tracking { index, metric, current, step, periods, since, bound } })
            });
        // Of equals the first: what is scheduled, then the order of the list.
        let best = scheduled.into_iter().chain(tracked).reduce(
            |best, other| {
                if other.target > best.target { other } else { best }
            },
        );
        let decided = best.unwrap_or_else(|| {
            let windows = provision.tracking.iter().map(|policy| policy.window.outside(wall));
            let actions = provision.scheduled.iter().map(|action| action.fired(wall).err());
            let inactive = number(provision.tracking.len() + provision.scheduled.len());
            let first = windows.chain(actions).flatten().next();
            Target { target: provision.default_target, why: FcReason::Default { inactive, first } }
        });
        self.target = Some(decided.target);
        decided
    }
}

impl TrackedMetric {
    fn follow(&mut self, settings: &Settings, target: f64, metric: Option<f64>, current: u32, wall: i64) {
        let Some(metric) = metric else {
            (self.above, self.below, self.since, self.step) = (0, 0, None, Step::NoData);
            return;
        };
        let before = (self.above > 0, self.below > 0);
        (self.above, self.below) = match () {
            () if metric > target => (self.above.saturating_add(1), 0),
            () if metric < target => (0, self.below.saturating_add(1)),
            () => (0, 0),
        };
        if (self.above > 0, self.below > 0) != before {
            self.since = (metric != target).then_some(wall);
        }
        let now = f64::from(current);
        let hold = settings.hold.max(1);
        self.step = match (self.above, self.below) {
            (0, 0) => Step::Level,
            (above, below) if above.max(below) < hold => Step::Held,
            (0, _) => {
                let surplus = now * settings.coefficient.get() * (1.0 - metric / target);
                self.target = Some(round::up_decimal(now - surplus));
                Step::In
            }
            _ => {
                self.target = Some(round::up_decimal(now * metric / target));
                Step::Out
            }
        };
    }
}

impl FcReason {
    /// The reason as people read it; the policies' names are not part of it, so they are handed in.
    pub fn tell(&self, settings: &Settings) -> String {
        let provision = &settings.provision;
        match *self {
            Self::Default { inactive: 0, .. } => "the default target".to_owned(),
            Self::Default { inactive, first } => {
                let first = first.map(|first| format!("; of the first, {first}")).unwrap_or_default();
                format!("the default target: none of {inactive} policies is active{first}")
            }
            Self::Scheduled { index, since } => {
                let name = provision.scheduled.get(index as usize).map_or("", |action| &action.name);
                format!("scheduled action `{name}`, fired at {}", kip_spec::scaling::provision::shown(since))
            }
            Self::Tracking { index, metric, current, step, periods, since, bound } => {
                let Some(policy) = provision.tracking.get(index as usize) else { return String::new() };
                let metric = metric.map_or_else(|| "not measured".to_owned(), |metric| format!("{metric:.4}"));
                let metric = metric.trim_end_matches('0').trim_end_matches('.');
                let since = since.map(|at| format!(" since {}", kip_spec::scaling::provision::shown(at)));
                let since = since.unwrap_or_default();
                let hold = settings.hold;
                let step = match step {
                    Step::NoData if current == 0 => "with no provisioned instance to measure".to_owned(),
                    Step::NoData => "nothing to follow".to_owned(),
                    Step::Level => "at its target".to_owned(),
                    Step::Out => format!("above{since}: {current} × metric ÷ target"),
                    Step::In => {
                        let coefficient = settings.coefficient;
                        format!("below{since}: {current} less {coefficient} × (1 − metric ÷ target) of it")
                    }
                    Step::Held => format!("off its target{since}, for {periods} of {hold} periods"),
                };
                let bound = match bound {
                    Some(TrackingBound::Min) => "; held by minCapacity",
                    Some(TrackingBound::Max) => "; held by maxCapacity",
                    None => "",
                };
                let (name, kind, target) = (&policy.name, policy.metric.name(), policy.target);
                format!("policy `{name}`: {kind} {metric} against {target}, {step}{bound}")
            }
        }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Mean requests in flight on provisioned instances, of what these can take.
pub fn utilization(in_flight: f64, provisioned: u32, concurrency: u32) -> Option<f64> {
    let places = f64::from(provisioned) * f64::from(concurrency.max(1));
    (places > 0.0).then(|| in_flight / places)
}

/// What a period measured, of the concurrency alone.
pub fn only(metric: Metric, value: f64) -> Metrics {
    let mut metrics = Metrics::default();
    metrics[metric.index()] = Some(value);
    metrics
}
