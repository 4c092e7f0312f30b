//! What provisioned instances use of CPU and device memory, for the policies that follow it: measured a moment before each
//! period of such a policy ends. Where no policy follows it, nothing is measured and no driver is asked.

use std::collections::HashMap;

use kip_fleet::function::ProvisionedTarget;
use kip_fleet::{Class, CoreNumber, FunctionCore, Inventory, Kind, Place};
use kip_freezer::{DeviceLocks, Options, Report};
use kip_host::clock::boot_millis;
use kip_spec::function::{FunctionSpec, GpuNeed};
use kip_spec::scaling::provision::Metric;
use kip_spec::{Finite, InstanceId, VersionId};
use parking_lot::Mutex;

use crate::devices;
use crate::timers::Timers;

/// So long before the end of a period, milliseconds; a tenth of a short one.
const LEAD: u64 = 100;
/// The process that asks the driver ends when nobody wanted to know anything for so long, milliseconds.
pub(crate) const DESK_UNUSED: u64 = 60_000;
/// What a program may use that declares no CPU: one of them, in thousandths.
pub(crate) const UNDECLARED_CPU: u64 = 1_000;

/// When which function is measured, and what was read before.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) timers: Timers,
    pub(crate) before: Mutex<HashMap<CoreNumber, Readings>>,
    desk: tokio::sync::Mutex<DriverAnswers>,
}

/// The driver's answers come through this.
#[derive(Debug, Default)]
struct DriverAnswers {
    desk: Option<DeviceLocks>,
    /// When it was used last, boot time.
    pub(crate) at: u64,
    /// It was said that it does not answer.
    warned: bool,
}

pub(crate) type Readings = HashMap<InstanceId, Reading>;

/// CPU time of an instance at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Boot time.
    pub(crate) at: u64,
    pub(crate) nanos: u64,
    pub(crate) asleep: bool,
}

/// A provisioned instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProvisionedInstance {
    pub(crate) id: InstanceId,
    pub(crate) version: VersionId,
    pub(crate) asleep: bool,
    pub(crate) place: Place,
}

/// What is to be measured of a function.
#[derive(Debug, Default)]
pub(crate) struct MeasureRequest {
    pub(crate) cpu: bool,
    pub(crate) gpu_memory: bool,
    pub(crate) instances: Vec<ProvisionedInstance>,
}

impl MeasureRequest {
    pub(crate) fn of(core: &FunctionCore) -> Self {
        let follows = |metric| core.provisions().iter().any(|provisioned| provisioned.follows(metric));
        let provisioned = core.instances().filter(|instance| instance.kind == Kind::Provisioned);
        let seen = |instance: &kip_fleet::instance::Instance| {
            let asleep = match instance.state.class() {
                Class::Hot => false,
                Class::Asleep => true,
                _ => return None,
            };
            Some(ProvisionedInstance { id: instance.id, version: instance.version, asleep, place: instance.place })
        };
        let instances = provisioned.filter_map(seen).collect();
        Self { cpu: follows(Metric::Cpu), gpu_memory: follows(Metric::GpuMemory), instances }
    }
}

impl Meter {
    /// After a look at what is provisioned: the next one is to find fresh figures, if its policies follow any.
    pub(crate) fn arm(&self, core: CoreNumber, provisioned: &ProvisionedTarget) {
        if !provisioned.follows(Metric::Cpu) && !provisioned.follows(Metric::GpuMemory) {
            return;
        }
        if let Some(due) = provisioned.due() {
            let lead = LEAD.min(provisioned.settings.period.0 / 10).max(1);
            self.timers.set(core, due.saturating_sub(lead));
        }
    }

    /// Ends the process that asks the driver, if nobody used it for long.
    pub(crate) async fn let_go(&self) {
        let mut asked = self.desk.lock().await;
        if asked.desk.is_some() && boot_millis().saturating_sub(asked.at) >= DESK_UNUSED {
            asked.desk = None;
        }
    }

    pub(crate) async fn report(&self, program: std::path::PathBuf) -> Option<Report> {
        let mut asked = self.desk.lock().await;
        asked.at = boot_millis();
        let desk = match &asked.desk {
            Some(desk) => desk.clone(),
            None => match DeviceLocks::single(Options::new(program)).await {
                Ok(desk) => asked.desk.insert(desk).clone(),
                Err(error) => {
                    asked.warn(&error.to_string());
                    return None;
                }
            },
        };
        match desk.report().await {
            Ok(Report { nvml_missing: Some(why), .. }) => {
                asked.warn(&why);
                None
            }
            Ok(report) => {
                asked.warned = false;
                Some(report)
            }
            Err(error) => {
                asked.desk = None;
                asked.warn(&error.to_string());
                None
            }
        }
    }
}

impl DriverAnswers {
    /// Once, until it answers again.
    fn warn(&mut self, why: &str) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(why, "device memory is not measured: policies that follow it keep what they have");
        }
    }
}

/// How much of what could be used was.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Share {
    pub(crate) used: u64,
    pub(crate) could: u64,
}

impl Share {
    pub(crate) fn add(&mut self, other: Self) {
        self.used = self.used.saturating_add(other.used);
        self.could = self.could.saturating_add(other.could);
    }

    pub(crate) fn ratio(self) -> Option<Finite> {
        if self.could == 0 { None } else { Finite::new(self.used as f64 / self.could as f64) }
    }
}

/// Bytes of device memory that an instance reserves: what it declares, or all of its cards.
pub(crate) fn reserved(spec: &FunctionSpec, inventory: &Inventory, place: Place) -> Option<u64> {
    match spec.resources.gpu.as_ref()?.need {
        GpuNeed::Memory(bytes) => Some(bytes.0),
        GpuNeed::Cards(_) | GpuNeed::Measured => devices::memory(inventory, place),
    }
}

/// What each instance's processes hold together. An instance is left out if the driver does not know what one of them
/// holds; all are if it counts processes in another way than we do, as it does for containers.
pub(crate) fn held(
    report: &Report,
    members: &HashMap<InstanceId, Vec<u32>>,
    exists: impl Fn(u32) -> bool,
) -> HashMap<InstanceId, u64> {
    let holders = || report.devices.iter().flat_map(|device| &device.holders);
    let known = holders().any(|holder| members.values().flatten().any(|process| *process == holder.pid));
    if !known && holders().any(|holder| !exists(holder.pid)) {
        return HashMap::new();
    }
    let of = |processes: &Vec<u32>| {
        let own = holders().filter(|holder| processes.contains(&holder.pid));
        own.map(|holder| holder.bytes).try_fold(0u64, |sum, bytes| Some(sum.saturating_add(bytes?)))
    };
    members.iter().filter_map(|(id, processes)| Some((*id, of(processes)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_freezer::report::{Device, Holder, Memory};

    fn instance(sequence: u32) -> InstanceId {
        InstanceId { boot: 1, core: 1, sequence }
    }

    fn report(holders: &[(u32, Option<u64>)]) -> Report {
        let holders = holders.iter().map(|(pid, bytes)| Holder { pid: *pid, bytes: *bytes }).collect();
        let device = Device {
            index: 0,
            uuid: "GPU-1".to_owned(),
            name: "card".to_owned(),
            memory: Memory::default(),
            holders,
            persistence: None,
            partitioned: false,
            load: Default::default(),
        };
        Report { devices: vec![device], ..Report::default() }
    }

    #[test]
    fn what_instances_hold_of_devices() {
        let members = HashMap::from([(instance(1), vec![10, 11]), (instance(2), vec![20])]);
        let held = |holders: &[(u32, Option<u64>)], exists: bool| held(&report(holders), &members, |_| exists);
        let both = held(&[(10, Some(5)), (11, Some(2)), (99, Some(100))], true);
        assert_eq!(both, HashMap::from([(instance(1), 7), (instance(2), 0)]), "other programs do not count");
        assert_eq!(
            held(&[(10, None), (20, Some(3))], true),
            HashMap::from([(instance(2), 3)]),
            "not known is not zero"
        );
        assert_eq!(held(&[(7, Some(5))], true), HashMap::from([(instance(1), 0), (instance(2), 0)]));
        assert_eq!(
            held(&[(7, Some(5))], false),
            HashMap::new(),
            "counted as the host counts, outside of our container"
        );
    }

    #[test]
    fn shares_add_up() {
        let mut share = Share::default();
        assert_eq!(share.ratio(), None);
        share.add(Share { used: 1, could: 4 });
        share.add(Share { used: 5, could: 4 });
        assert_eq!(share.ratio(), Finite::new(0.75));
    }
}
