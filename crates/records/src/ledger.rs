//! What was worked on for each key, by version. Each thread of the data plane adds up for itself, and somebody takes all of it now and
//! then. No request is left out: records of requests are sampled, and this is not.

use std::collections::HashMap;
use std::sync::Arc;

use kip_spec::FunctionName;
use parking_lot::Mutex;

/// Sums of one thread; of more pairs of version and key, the rest is added up under no key.
const SUMS: usize = 10_000;

/// A version, by the number of its revision in the store, and the name of a key.
type VersionKey = (u64, Option<Arc<str>>);

/// All threads' sums. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct KeyLedger {
    shards: Arc<Mutex<Vec<Arc<KeyShard>>>>,
}

/// The sums of one thread.
#[derive(Debug, Default)]
pub struct KeyShard {
    sums: Mutex<HashMap<VersionKey, KeySum>>,
}

/// What was worked on for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySum {
    /// The function.
    pub function: FunctionName,
    /// Requests.
    pub requests: u64,
    /// How long instances worked on them, microseconds.
    pub micros: u64,
}

impl KeyLedger {
    /// For one more thread.
    pub fn shard(&self) -> Arc<KeyShard> {
        let shard = Arc::<KeyShard>::default();
        let mut shards = self.shards.lock();
        // Those of threads that are gone and have nothing left.
        shards.retain(|other| Arc::strong_count(other) > 1 || !other.sums.lock().is_empty());
        shards.push(shard.clone());
        shard
    }

    /// Takes all sums, by version and key.
    pub fn take(&self) -> Vec<(u64, Option<Arc<str>>, KeySum)> {
        let shards = self.shards.lock().clone();
        let sums = shards.iter().flat_map(|shard| std::mem::take(&mut *shard.sums.lock()));
        sums.map(|((version, key), sum)| (version, key, sum)).collect()
    }
}

impl KeyShard {
    /// An instance of a version worked on a request for so long, microseconds.
    pub fn add(&self, version: u64, function: &FunctionName, key: Option<&Arc<str>>, micros: u64) {
        let mut sums = self.sums.lock();
        let mut at = (version, key.cloned());
        if sums.len() >= SUMS && !sums.contains_key(&at) {
            at.1 = None;
        }
        let sum = sums.entry(at).or_insert_with(|| KeySum { function: function.clone(), requests: 0, micros: 0 });
        sum.requests += 1;
        sum.micros = sum.micros.saturating_add(micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_all_threads_are_taken_once() {
        let ledger = KeyLedger::default();
        let (one, other) = (ledger.shard(), ledger.shard());
        let (function, key) = ("f".parse::<FunctionName>().unwrap(), Arc::from("anna"));
        one.add(3, &function, Some(&key), 5);
        one.add(3, &function, Some(&key), 6);
        other.add(3, &function, Some(&key), 7);
        other.add(3, &function, None, 8);
        drop(other);
        let _more = ledger.shard();
        let mut taken: Vec<(Option<Arc<str>>, u64, u64)> =
            ledger.take().into_iter().map(|(_, key, sum)| (key, sum.requests, sum.micros)).collect();
        taken.sort();
        assert_eq!(taken, [(None, 1, 8), (Some(key.clone()), 1, 7), (Some(key), 2, 11)]);
        assert_eq!(ledger.take().len(), 0);
    }

    #[test]
    fn more_keys_than_there_is_room_for_are_added_up_together() {
        let ledger = KeyLedger::default();
        let shard = ledger.shard();
        let function = "f".parse::<FunctionName>().unwrap();
        for number in 0..SUMS + 50 {
            shard.add(1, &function, Some(&Arc::from(number.to_string())), 1);
        }
        let taken = ledger.take();
        assert!(taken.len() <= SUMS + 1, "{}", taken.len());
        assert_eq!(taken.iter().map(|(.., sum)| sum.micros).sum::<u64>(), u64::try_from(SUMS + 50).unwrap());
    }
}
