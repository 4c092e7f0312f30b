//! Asks instances what a [`CheckSchedule`] says is due, and tells the brain what follows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kip_engine::{Health, Measure};
use kip_fleet::router::Message;
use kip_fleet::{Event, Reason, ToPlacer};
use kip_spec::InstanceId;

use crate::rounds::{AT_ONCE, CheckKind, CheckResult, CheckSchedule, CheckVerdict, DueCheck};
use crate::shared::Shared;

/// The file of the driver of devices that programs load (NVIDIA's, the only one that this server knows).
const DRIVER: &str = "libcuda.so";

impl CheckSchedule {
    /// Asks what is due, for ever.
    pub(crate) async fn run(&self, shared: Arc<Shared>) {
        let mut asking = FuturesUnordered::new();
        loop {
            tokio::select! {
                due = self.next(), if asking.len() < AT_ONCE => {
                    let (sweeps, probes): (Vec<DueCheck>, Vec<DueCheck>) =
                        due.into_iter().partition(|due| matches!(due.look, CheckKind::Memory | CheckKind::Device));
                    asking.extend(probes.into_iter().map(|due| ask(shared.clone(), vec![due])));
                    let (memory, devices): (Vec<DueCheck>, Vec<DueCheck>) =
                        sweeps.into_iter().partition(|due| due.look == CheckKind::Memory);
                    // Each by itself: a driver may take its time.
                    let sweeps = [memory, devices].into_iter().filter(|due| !due.is_empty());
                    asking.extend(sweeps.map(|due| ask(shared.clone(), due)));
                }
                Some(answers) = asking.next() => {
                    for (due, found) in answers {
                        self.found(&shared, &due, found);
                    }
                }
            }
        }
    }

    fn found(&self, shared: &Shared, due: &DueCheck, found: CheckResult) {
        let Some(cell) = self.list().entries.get(&due.instance).and_then(|entry| entry.cell.upgrade()) else { return };
        let in_flight = |core: &kip_fleet::FunctionCore| core.instance(due.instance).map_or(0, |i| i.in_flight);
        let busy = cell.look(&cell.lock(), in_flight).unwrap_or(0) > 0;
        let mut list = self.list();
        let event = list.found(due, found, busy, kip_host::clock::boot_millis());
        drop(list);
        match event {
            Some(CheckVerdict::Event(event)) => cell.step(event),
            Some(CheckVerdict::Uses { memory, outgrown }) => {
                let instance = due.instance;
                shared.post(Message::ToPlacer(ToPlacer::Observed { instance, memory: Some(memory), gpu: None }));
                if outgrown {
                    cell.step(Event::Replace { instance, why: Reason::Outgrown });
                }
            }
            Some(CheckVerdict::LoadsDriver) => shared.note_driver(&cell, &due.link),
            Some(CheckVerdict::Holds(held)) => shared.note_held(&cell, &due.link, held),
            None => {}
        }
    }
}

async fn ask(shared: Arc<Shared>, all: Vec<DueCheck>) -> Vec<(DueCheck, CheckResult)> {
    let mut answers = Vec::with_capacity(all.len());
    let which = |kind: CheckKind| -> Vec<InstanceId> {
        all.iter().filter(|due| due.look == kind).map(|due| due.instance).collect()
    };
    let uses = match which(CheckKind::Memory) {
        none if none.is_empty() => HashMap::new(),
        instances => shared.bodies.measure(&instances, Measure::Memory).await,
    };
    let holds = match which(CheckKind::Device) {
        none if none.is_empty() => HashMap::new(),
        instances => shared.meter.device_memory(&shared, &instances).await,
    };
    for due in all {
        let (path, limit) = match due.look {
            CheckKind::Ready => (due.link.version.ready_path(), due.link.version.spec.probes.ready.as_ready().timeout),
            CheckKind::Live => {
                let spec = &due.link.version.spec;
                (spec.live.as_ref().map(|live| live.path.as_str()), spec.probes.live.as_live().timeout)
            }
            CheckKind::Memory | CheckKind::Device | CheckKind::Code | CheckKind::Driver => (None, 0),
        };
        let limit = Duration::from_millis(limit);
        let found = match path {
            _ if matches!(due.look, CheckKind::Code | CheckKind::Driver) => look_into(&shared, &due).await,
            Some(path) => probe(&shared, &due, path, limit).await,
            None if due.look == CheckKind::Device => {
                holds.get(&due.instance).map_or(CheckResult::Well, |held| CheckResult::Holds(*held))
            }
            None => uses.get(&due.instance).map_or(CheckResult::Well, |memory| CheckResult::Uses(*memory)),
        };
        answers.push((due, found));
    }
    answers
}

/// What is before its processes.
async fn look_into(shared: &Arc<Shared>, due: &DueCheck) -> CheckResult {
    let (shared, due) = (shared.clone(), due.clone());
    let look = move || {
        let cell = shared.owner(due.instance)?;
        let body = shared.bodies.at(cell.place_of(due.instance)).local()?;
        if due.look == CheckKind::Driver {
            return body.loads(due.instance, DRIVER).then_some(CheckResult::LoadsDriver);
        }
        let (_, code) = due.link.version.code(&shared.options.code.snapshots);
        // Links in the path lead through the server's files, and a folder that is gone has none.
        let directory = due.link.version.spec.program.working_directory();
        let at = std::fs::canonicalize(&directory).unwrap_or(directory);
        body.sees(due.instance, &code?.tree, &at).map(CheckResult::Sees)
    };
    kip_host::tasks::blocking("look into an instance", look).await.flatten().unwrap_or(CheckResult::Well)
}

async fn probe(shared: &Shared, due: &DueCheck, path: &str, limit: Duration) -> CheckResult {
    let Some(cell) = shared.owner(due.instance) else { return CheckResult::Refused };
    match shared.bodies.at(cell.place_of(due.instance)).probe(due.instance, path, limit).await {
        Health::Well => CheckResult::Well,
        Health::Slow => CheckResult::Slow,
        Health::Refused => CheckResult::Refused,
    }
}
