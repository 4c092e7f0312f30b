//! Work that no request shows: background tasks after an answer, a generation whose caller has left. It is seen by CPU, in a look of
//! a moment before an idle instance is paused.

use std::sync::Arc;
use std::time::Duration;

use kip_engine::Measure;
use kip_fleet::Work;
use kip_host::clock::boot_millis;
use kip_spec::InstanceId;
use kip_spec::function::FunctionSpec;

use crate::cell::Cell;
use crate::shared::Shared;

/// How long is looked. A request that comes meanwhile ends the look.
const LOOK: Duration = Duration::from_millis(200);
/// A program that uses less than this part of one CPU, in a thousand, does not work: timers and heartbeats. In a look this is two
/// hundredths of a second, the least that the kernel counts without a cgroup.
const LEAST: u64 = 100;

impl Shared {
    /// What an idle instance does, if that is work; none where it may be paused.
    pub(crate) async fn works(&self, cell: &Arc<Cell>, instance: InstanceId, spec: &FunctionSpec) -> Option<Work> {
        let evicted = |core: &kip_fleet::FunctionCore| {
            let goal = core.instance(instance).and_then(|instance| instance.goal);
            goal.is_some_and(|(_, why)| why.is_eviction())
        };
        let link = cell.lock().links.get(&instance).cloned();
        let asked = link.map_or(0, |link| link.awake_until()).saturating_sub(boot_millis());
        let evicted_now = cell.look(&cell.lock(), evicted).unwrap_or(false);
        if asked > 0 && !evicted_now {
            return Some(Work::Asked(asked));
        }
        if !spec.idle_cpu || spec.job.is_some() || evicted_now {
            return None;
        }
        let (began, before) = (boot_millis(), self.cpu_of(instance).await?);
        let arrivals = cell.lock().arrivals.get_or_insert_default().clone();
        let waits = || cell.look(&cell.lock(), |core| core.waiting().next().is_some()).unwrap_or(false);
        let asked = async {
            loop {
                let arrival = arrivals.notified();
                if waits() {
                    return;
                }
                arrival.await;
            }
        };
        if tokio::time::timeout(LOOK, asked).await.is_ok() {
            // Somebody waits for it: it is not to be paused at all.
            return Some(Work::Request);
        }
        let after = self.cpu_of(instance).await?;
        let passed = boot_millis().saturating_sub(began).max(1).saturating_mul(1_000_000);
        let used = after.saturating_sub(before);
        let per_mille = used.saturating_mul(1_000) / passed;
        (per_mille >= LEAST).then(|| Work::Cpu(u32::try_from(per_mille).unwrap_or(u32::MAX)))
    }

    async fn cpu_of(&self, instance: InstanceId) -> Option<u64> {
        self.bodies.measure(&[instance], Measure::CpuTime).await.remove(&instance)
    }
}
