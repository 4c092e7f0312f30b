//! What the time of instances was spent on: written down when one is gone, added up when somebody asks.

use std::collections::{BTreeMap, BTreeSet};

use kip_fleet::state::NAMES;
use kip_fleet::{Kind, Now, Usage};
use kip_spec::{FunctionName, VersionId};
use kip_store::UsageRecord;
use kip_wire::{FunctionUsage, VersionUsage};

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

fn none(version: VersionId) -> VersionUsage {
    VersionUsage {
        version,
        label: version.to_string(),
        instances: 0,
        living: 0,
        served: 0,
        total_ms: 0,
        times: BTreeMap::new(),
    }
}

fn add(usage: &mut VersionUsage, record: &UsageRecord) {
    usage.served += record.served;
    for (kind, states) in &record.times {
        for (state, time) in states {
            *usage.times.entry(kind.clone()).or_default().entry(state.clone()).or_default() += time;
            usage.total_ms += time;
        }
    }
}

/// Adds up a function's records of instances that are gone and those of living ones.
pub fn usage_of(function: FunctionName, gone: &[UsageRecord], mut living: Vec<UsageRecord>) -> FunctionUsage {
    living.retain(|one| !gone.iter().any(|other| other.instance == one.instance && other.until >= one.until));
    let mut versions: BTreeMap<u64, VersionUsage> = BTreeMap::new();
    // One that outlived a server has a record for the time under each.
    let mut known = BTreeSet::new();
    for record in gone.iter().chain(&living) {
        let none = || none(VersionId(record.version));
        let version = versions.entry(record.version).or_insert_with(none);
        add(version, record);
        version.instances += u64::from(known.insert(record.instance.as_str()));
    }
    for one in &living {
        versions.entry(one.version).and_modify(|version| version.living += 1);
    }
    let since = gone.iter().chain(&living).map(|record| record.since).min();
    FunctionUsage { function, since, versions: versions.into_values().collect() }
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
        let mut version = none(VersionId(4));
        add(&mut version, &record);
        add(&mut version, &record);
        assert_eq!((version.served, version.total_ms), (18, 284));
        assert_eq!(version.times["provisioned"]["paused"], 200);
        assert_eq!(version.times["on-demand"].len(), 2);
    }
}
