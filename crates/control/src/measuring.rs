//! Measures what a [`Meter`] has armed, and tells the brain.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kip_engine::Measure;
use kip_fleet::router::Message;
use kip_fleet::{CoreNumber, Event, ToPlacer};
use kip_host::clock::boot_millis;
use kip_spec::{InstanceId, VersionId};

use crate::meter::{
    DESK_UNUSED, MeasureRequest, Meter, ProvisionedInstance, Reading, Readings, Share, UNDECLARED_CPU, held, reserved,
};
use crate::shared::Shared;

impl Meter {
    /// Measures what is due, for ever.
    pub(crate) async fn run(&self, shared: Arc<Shared>) {
        loop {
            match tokio::time::timeout(Duration::from_millis(DESK_UNUSED), self.timers.next()).await {
                Ok(core) => {
                    let shared = shared.clone();
                    // Each by itself: a driver may take its time.
                    kip_host::tasks::spawn("measure", async move { shared.meter.measure(&shared, core).await });
                }
                Err(_) => self.let_go().await,
            }
        }
    }

    async fn measure(&self, shared: &Shared, core: CoreNumber) {
        let Some(cell) = shared.cell_of(core) else { return };
        let (wanted, specs) = {
            let inner = cell.lock();
            let wanted = cell.look(&inner, MeasureRequest::of).unwrap_or_default();
            let specs: BTreeMap<VersionId, Arc<crate::Version>> =
                inner.versions.iter().map(|(id, version)| (*id, version.clone())).collect();
            (wanted, specs)
        };
        let mut figures: BTreeMap<VersionId, [Share; 2]> = BTreeMap::new();
        let mut of = |version: VersionId, which: usize, share: Share| {
            figures.entry(version).or_default()[which].add(share);
        };
        let spec = |version: &VersionId| specs.get(version).map(|version| &version.spec);
        if wanted.cpu {
            for (seen, passed, nanos) in self.cpu(shared, core, &wanted.instances).await {
                let declared = spec(&seen.version).and_then(|spec| spec.resources.cpu);
                let thousandths = declared.map_or(UNDECLARED_CPU, |cpu| cpu.0).max(1);
                let could = passed.saturating_mul(1_000).saturating_mul(thousandths);
                of(seen.version, 0, Share { used: nanos, could });
            }
        } else {
            self.before.lock().remove(&core);
        }
        if wanted.gpu_memory {
            let ids: Vec<InstanceId> = wanted.instances.iter().map(|seen| seen.id).collect();
            let held = self.device_memory(shared, &ids).await;
            for seen in &wanted.instances {
                let declared =
                    spec(&seen.version).and_then(|spec| reserved(spec, &shared.options.inventory, seen.place));
                if let Some(used) = held.get(&seen.id) {
                    let observed = ToPlacer::Observed { instance: seen.id, memory: None, gpu: Some(*used) };
                    shared.post(Message::ToPlacer(observed));
                }
                if let (Some(could), Some(used)) = (declared, held.get(&seen.id)) {
                    of(seen.version, 1, Share { used: *used, could });
                }
            }
        }
        for (version, [cpu, gpu_memory]) in figures {
            cell.step(Event::Measured { version, cpu: cpu.ratio(), gpu_memory: gpu_memory.ratio() });
        }
    }

    /// Milliseconds that passed since the look before, and nanoseconds of CPU time used in them. An instance that was not
    /// seen before has nothing yet.
    async fn cpu(
        &self,
        shared: &Shared,
        core: CoreNumber,
        instances: &[ProvisionedInstance],
    ) -> Vec<(ProvisionedInstance, u64, u64)> {
        let before = self.before.lock().remove(&core).unwrap_or_default();
        // Who slept before and sleeps now used nothing.
        let slept =
            |seen: &ProvisionedInstance| seen.asleep && before.get(&seen.id).is_some_and(|reading| reading.asleep);
        let asked: Vec<InstanceId> = instances.iter().filter(|seen| !slept(seen)).map(|seen| seen.id).collect();
        let read = match asked.is_empty() {
            true => HashMap::new(),
            false => shared.bodies.measure(&asked, Measure::CpuTime).await,
        };
        let at = boot_millis();
        let mut after = Readings::new();
        let mut used = Vec::new();
        for seen in instances {
            let last = before.get(&seen.id);
            let Some(nanos) = read.get(&seen.id).copied().or_else(|| last.map(|last| last.nanos)) else { continue };
            after.insert(seen.id, Reading { at, nanos, asleep: seen.asleep });
            if let Some(last) = last.filter(|last| last.at < at) {
                used.push((*seen, at - last.at, nanos.saturating_sub(last.nanos)));
            }
        }
        self.before.lock().insert(core, after);
        used
    }

    /// Bytes of device memory that instances hold, as the driver says; none where it cannot tell.
    pub(crate) async fn device_memory(&self, shared: &Shared, instances: &[InstanceId]) -> HashMap<InstanceId, u64> {
        let Some(report) = self.report(shared.options.kip.clone()).await else { return HashMap::new() };
        let (bodies, ids) = (shared.bodies.clone(), instances.to_vec());
        let members = kip_host::tasks::blocking("look at processes", move || bodies.members(&ids)).await;
        held(&report, &members.unwrap_or_default(), |process| Path::new(&format!("/proc/{process}")).exists())
    }
}
