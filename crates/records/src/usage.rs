//! What the time of instances was spent on: written down when one is gone, added up when somebody asks.

use std::collections::{BTreeMap, BTreeSet};

use kip_fleet::state::NAMES;
use kip_fleet::{Kind, Now, Usage};
use kip_spec::{FunctionName, VersionId};
use kip_store::UsageRecord;
use serde::{Deserialize, Serialize};

/// What the instances of a function spent their time on, as far back as records are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FunctionUsage {
    /// The function.
    pub function: FunctionName,
    /// When the oldest instance that is counted was made, milliseconds since 1970.
    pub since: Option<i64>,
    /// By version, oldest first.
    pub versions: Vec<VersionUsage>,
}

/// What the instances of a version spent their time on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VersionUsage {
    /// Which.
    pub version: VersionId,
    /// Instances there were, those that live included.
    pub instances: u64,
    /// Those that live.
    pub living: u64,
    /// Requests they were given.
    pub served: u64,
    /// Milliseconds of all their lives; `times` adds up to it.
    pub total_ms: u64,
    /// Milliseconds by kind and state.
    pub times: BTreeMap<String, BTreeMap<String, u64>>,
}

/// One instance's time as it is written down.
pub fn record(function: &FunctionName, usage: &Usage, now: Now) -> UsageRecord {
    let wall = |boot: u64| now.wall - i64::try_from(now.boot.saturating_sub(boot)).unwrap_or(0);
    let states = |kind: Kind| -> BTreeMap<String, u64> {
        let times = NAMES.iter().zip(usage.times[kind.index()]).filter(|(_, time)| *time > 0);
        times.map(|(name, time)| ((*name).to_owned(), time)).collect()
    };
    let kinds = [Kind::Provisioned, Kind::OnDemand].map(|kind| (kind.name().to_owned(), states(kind)));
    UsageRecord {
        function: function.to_string(),
        version: usage.version.0,
        instance: usage.instance.to_string(),
        since: wall(usage.since),
        until: wall(usage.until),
        served: usage.served,
        times: kinds.into_iter().filter(|(_, states)| !states.is_empty()).collect(),
    }
}

impl VersionUsage {
    fn none(version: VersionId) -> Self {
        Self { version, instances: 0, living: 0, served: 0, total_ms: 0, times: BTreeMap::new() }
    }

    fn add(&mut self, record: &UsageRecord) {
        self.served += record.served;
        for (kind, states) in &record.times {
            for (state, time) in states {
                *self.times.entry(kind.clone()).or_default().entry(state.clone()).or_default() += time;
                self.total_ms += time;
            }
        }
    }
}

impl FunctionUsage {
    /// Adds up the records of instances that are gone and those of living ones.
    pub fn of(function: FunctionName, gone: &[UsageRecord], mut living: Vec<UsageRecord>) -> Self {
        living.retain(|one| !gone.iter().any(|other| other.instance == one.instance && other.until >= one.until));
        let mut versions: BTreeMap<u64, VersionUsage> = BTreeMap::new();
        // One that outlived a server has a record for the time under each.
        let mut known = BTreeSet::new();
        for record in gone.iter().chain(&living) {
            let none = || VersionUsage::none(VersionId(record.version));
            let version = versions.entry(record.version).or_insert_with(none);
            version.add(record);
            version.instances += u64::from(known.insert(record.instance.as_str()));
        }
        for one in &living {
            versions.entry(one.version).and_modify(|version| version.living += 1);
        }
        let since = gone.iter().chain(&living).map(|record| record.since).min();
        Self { function, since, versions: versions.into_values().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_fleet::State;
    use kip_fleet::state::STATES;
    use kip_spec::InstanceId;

    #[test]
    fn kinds_and_states_add_up_to_the_life() {
        let mut times = [[0; STATES]; 2];
        times[Kind::OnDemand.index()][State::Ready.index()] = 30;
        times[Kind::OnDemand.index()][State::Busy.index()] = 12;
        times[Kind::Provisioned.index()][State::Paused.index()] = 100;
        let instance = InstanceId { boot: 1, core: 1, sequence: 1 };
        let usage = Usage { instance, version: VersionId(4), since: 58, until: 200, served: 9, times };
        let record = record(&"f".parse().unwrap(), &usage, Now { boot: 200, wall: 1_000 });
        assert_eq!(record.until - record.since, 142);
        let mut version = VersionUsage::none(VersionId(4));
        version.add(&record);
        version.add(&record);
        assert_eq!((version.served, version.total_ms), (18, 284));
        assert_eq!(version.times["provisioned"]["paused"], 200);
        assert_eq!(version.times["on-demand"].len(), 2);
    }
}
