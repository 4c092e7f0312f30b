//! What the helper found on this host.

use serde::{Deserialize, Serialize};

/// Driver, devices, and who holds their memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The driver's version, such as 580.159.04, if NVML tells it.
    pub driver: Option<String>,
    /// The CUDA version that the driver offers: 13000 is 13.0.
    pub cuda: Option<i32>,
    /// Why there is no CUDA, if there is none.
    pub cuda_missing: Option<String>,
    /// Why CUDA could not be initialised, if that failed.
    pub cuda_failed: Option<String>,
    /// Symbols that freezing needs and this driver lacks.
    pub symbols_missing: Vec<String>,
    /// Why there is no NVML, if there is none, or what it could not tell.
    pub nvml_missing: Option<String>,
    /// The devices, in the order of the bus.
    pub devices: Vec<Device>,
}

/// A device as NVML shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its number, in the order of the bus.
    pub index: u32,
    /// What names it for ever.
    pub uuid: String,
    /// The product.
    pub name: String,
    /// Its memory.
    pub memory: Memory,
    /// Processes that compute on it.
    pub holders: Vec<Holder>,
    /// Whether the driver stays loaded when nobody uses it.
    pub persistence: Option<bool>,
    /// Whether it is cut into partitions (MIG), of which none can be frozen.
    pub partitioned: bool,
    /// How busy it is.
    #[serde(default)]
    pub load: Load,
}

/// How busy a device is; what NVML does not tell is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Percent of the last second or less in which a kernel ran.
    pub utilization: Option<u32>,
    /// What it draws.
    pub milliwatts: Option<u32>,
    /// Temperature of the chip, degrees Celsius.
    pub celsius: Option<u32>,
}

impl Device {
    /// Its name on the command line: `gpu0`.
    pub fn label(&self) -> String {
        format!("gpu{}", self.index)
    }

    /// What a process holds of it: `None` if it is not there, or NVML cannot tell.
    pub fn held_by(&self, process: u32) -> Option<u64> {
        self.holders.iter().find(|holder| holder.pid == process).and_then(|holder| holder.bytes)
    }
}

/// Bytes of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All there is.
    pub total: u64,
    /// What nobody uses.
    pub free: u64,
    /// What is used, the driver's own share included.
    pub used: u64,
}

/// A process that computes on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id, as the host counts.
    pub pid: u32,
    /// What it holds, if NVML can tell.
    pub bytes: Option<u64>,
}

/// A rung of the ladder, and whether this host has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// Its name.
    pub name: &'static str,
    /// Why not, if it is not possible.
    pub missing: Option<String>,
}

impl Report {
    /// Why this host cannot freeze processes that use a GPU; `None` if it can, once a device is qualified.
    pub fn cannot_freeze(&self) -> Option<String> {
        if let Some(why) = &self.cuda_missing {
            return Some(format!("no driver: {why}"));
        }
        if !self.symbols_missing.is_empty() {
            return Some(format!(
                "the driver{} is too old: it lacks {}; 570 or newer is needed",
                self.driver.as_deref().map(|driver| format!(" {driver}")).unwrap_or_default(),
                self.symbols_missing.join(", ")
            ));
        }
        if let Some(why) = &self.cuda_failed {
            return Some(format!("the driver does not start: {why}"));
        }
        if let Some(why) = &self.nvml_missing {
            return Some(format!("what is given back cannot be verified: {why}"));
        }
        if self.devices.is_empty() {
            return Some("there is no device".to_owned());
        }
        None
    }

    /// Rungs of the ladder that concern a device; `qualified` says whether it may use the driver's rung.
    pub fn rungs(&self, device: &Device, qualified: bool) -> Vec<Rung> {
        let driver = self.cannot_freeze().or_else(|| {
            if device.partitioned {
                Some("the device is partitioned (MIG), and partitions cannot be frozen".to_owned())
            } else if qualified {
                None
            } else {
                Some(format!("not qualified on this driver: `kip device qualify {}`", device.label()))
            }
        });
        vec![
            Rung { name: "paused", missing: None },
            Rung { name: "parked by the engine's own requests", missing: None },
            Rung { name: "parked by the driver", missing: driver },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device {
            index: 0,
            uuid: "GPU-1".to_owned(),
            name: "card".to_owned(),
            memory: Memory::default(),
            holders: vec![Holder { pid: 7, bytes: Some(5) }, Holder { pid: 8, bytes: None }],
            persistence: None,
            partitioned: false,
            load: Default::default(),
        }
    }

    #[test]
    fn each_reason_not_to_freeze_is_told() {
        let good = Report { devices: vec![device()], ..Report::default() };
        assert_eq!(good.cannot_freeze(), None);
        let text = |text: &str| Some(text.to_owned());
        for (report, said) in [
            (Report { cuda_missing: text("not found"), ..good.clone() }, "no driver: not found"),
            (Report { symbols_missing: vec!["cuA".to_owned()], ..good.clone() }, "lacks cuA; 570"),
            (Report { cuda_failed: text("cuInit"), ..good.clone() }, "does not start"),
            (Report { nvml_missing: text("gone"), ..good.clone() }, "cannot be verified"),
            (Report { devices: Vec::new(), ..good }, "no device"),
        ] {
            assert!(report.cannot_freeze().is_some_and(|why| why.contains(said)), "{report:?}");
        }
    }

    #[test]
    fn the_drivers_rung_is_off_until_qualified() {
        let report = Report { devices: vec![device()], ..Report::default() };
        let missing = |device: &Device, qualified| report.rungs(device, qualified).pop().and_then(|rung| rung.missing);
        assert!(missing(&device(), false).is_some_and(|why| why.contains("kip device qualify gpu0")));
        assert_eq!(missing(&device(), true), None);
        let cut = Device { partitioned: true, ..device() };
        assert!(missing(&cut, true).is_some_and(|why| why.contains("MIG")));
    }

    #[test]
    fn what_is_not_told_is_not_known() {
        assert_eq!([7, 8, 9].map(|process| device().held_by(process)), [Some(5), None, None]);
    }
}
