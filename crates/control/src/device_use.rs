//! What awake instances hold of their devices: sizes that nobody declared are learned from it, and what is used beyond a declaration
//! is charged and answered by policy.

use std::sync::Arc;

use kip_fleet::room::Gpu;
use kip_fleet::router::Message;
use kip_fleet::{Event, ToPlacer};
use kip_records::decision::Decision;
use kip_spec::function::GpuNeed;
use kip_spec::{Bytes, InstanceId};
use kip_store::{DecisionRecord, Record};

use crate::cell::Cell;
use crate::link::Link;
use crate::options::OverUse;
use crate::shared::Shared;

/// One that has served nothing yet may still have to load what it needs: it is measured only after this time, milliseconds.
const SETTLED: u64 = 60_000;
/// What is said of a program that uses the driver without an ask.
pub(crate) const UNASKED: &str =
    "it has loaded the GPU driver and asks for no device, so it finds none and runs on the CPU";
/// Beyond its declaration by this part of it, an instance uses too much: contexts of the driver differ by some MiB.
const TOLERANCE: u64 = 20;

impl Shared {
    /// An awake instance was seen to hold so many bytes of its device.
    pub(crate) fn note_held(&self, cell: &Arc<Cell>, link: &Link, held: u64) {
        let (instance, version) = (link.instance, &link.version);
        let before = link.holds_of_device(held);
        self.post(Message::ToPlacer(ToPlacer::Observed { instance, memory: None, gpu: Some(held) }));
        match version.spec.resources.gpu.as_ref().map(|gpu| gpu.need) {
            Some(GpuNeed::Measured) => {
                let settled = |core: &kip_fleet::FunctionCore| {
                    let instance = core.instance(instance)?;
                    let hot_for = kip_host::clock::boot_millis().saturating_sub(instance.hot_since);
                    Some(instance.served > 0 || hot_for >= SETTLED)
                };
                if cell.look(&cell.lock(), settled).flatten() != Some(true) {
                    return;
                }
                if let Some(size) = self.devices.measured(version.id, held) {
                    let text = format!(
                        "an instance holds {} of its device; {} are reserved from now on",
                        Bytes(held),
                        Bytes(size)
                    );
                    self.note_device(cell, link, None, text, Decision::Device { instance: None, held, declared: None });
                    version.needs(Gpu::Slice(size));
                    cell.step(Event::Sized { version: version.id, gpu: Gpu::Slice(size) });
                }
            }
            Some(GpuNeed::Memory(declared)) => {
                let too_much = |held: u64| held > declared.0.saturating_add(declared.0 / TOLERANCE);
                if !too_much(held) || too_much(before) {
                    return;
                }
                let text = format!("it holds {} of its device and declares {declared}", Bytes(held));
                let decision = Decision::Device { instance: Some(instance), held, declared: Some(declared.0) };
                self.note_device(cell, link, Some(instance), text, decision);
                if self.options.over_use == OverUse::Replace {
                    cell.step(Event::Overused { instance });
                }
            }
            _ => {}
        }
    }

    /// An instance has loaded the driver, though its version asks for no device and is given none.
    pub(crate) fn note_driver(&self, cell: &Cell, link: &Link) {
        let decision = Decision::Device { instance: Some(link.instance), held: 0, declared: None };
        self.note_device(cell, link, Some(link.instance), UNASKED.to_owned(), decision);
    }

    fn note_device(&self, cell: &Cell, link: &Link, instance: Option<InstanceId>, why: String, decision: Decision) {
        tracing::info!(function = %cell.name(), instance = %link.instance, why, "device memory");
        self.recorder.record(Record::Decision(DecisionRecord {
            at: kip_host::clock::wall_millis(),
            function: cell.name().to_string(),
            version: link.version.id.0,
            label: Some(link.version.label()),
            instance: instance.map(|instance| instance.to_string()),
            from: None,
            to: "device memory measured".to_owned(),
            why,
            detail: None,
            decision: decision.value(),
        }));
    }
}
