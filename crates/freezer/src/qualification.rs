//! What devices have proved, kept in the data directory by device and driver version: with another driver everything is
//! open again.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::report::{Device, Report};
use crate::tree::Times;

/// The file.
const FILE: &str = "gpu-qualifications.json";

/// What came of one qualification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qualification {
    /// The device.
    pub uuid: String,
    /// Its product.
    pub name: String,
    /// The driver's version.
    pub driver: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Why it did not pass; `None` if it did.
    pub failed: Option<String>,
    /// What was frozen and woken, in bytes.
    pub bytes: u64,
    /// How often.
    pub cycles: u32,
    /// How long calls took at the last time.
    pub times: Times,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qualifications(Vec<Qualification>);

impl Qualifications {
    /// Reads those of a data directory. None is qualified where there is no file, or none that can be read.
    pub fn read(data: &Path) -> Self {
        let read = std::fs::read(file(data)).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// The latest of a device with a driver.
    pub fn find(&self, uuid: &str, driver: &str) -> Option<&Qualification> {
        self.0.iter().find(|one| one.uuid == uuid && one.driver == driver)
    }

    /// Whether a device may use the driver's rung, with the driver that runs now.
    pub fn is_qualified(&self, report: &Report, device: &Device) -> bool {
        let driver = report.driver.as_deref();
        driver.and_then(|driver| self.find(&device.uuid, driver)).is_some_and(|one| one.failed.is_none())
    }

    /// Adds one, in place of an earlier one of the same device and driver, and writes all of them.
    ///
    /// # Errors
    /// When the data directory cannot be written to.
    pub fn keep(&mut self, data: &Path, one: Qualification) -> io::Result<()> {
        self.0.retain(|other| (&other.uuid, &other.driver) != (&one.uuid, &one.driver));
        self.0.push(one);
        std::fs::create_dir_all(data)?;
        let new = file(data).with_extension("new");
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(new, file(data))
    }
}

fn file(data: &Path) -> PathBuf {
    data.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(driver: &str, failed: Option<&str>) -> Qualification {
        Qualification {
            uuid: "GPU-1".to_owned(),
            name: "card".to_owned(),
            driver: driver.to_owned(),
            at: 0,
            failed: failed.map(str::to_owned),
            bytes: 1,
            cycles: 3,
            times: Times::default(),
        }
    }

    #[test]
    fn the_latest_of_each_driver_counts() {
        let data = tempfile::tempdir().unwrap();
        let device = Device {
            index: 0,
            uuid: "GPU-1".to_owned(),
            name: String::new(),
            memory: crate::report::Memory::default(),
            holders: Vec::new(),
            persistence: None,
            partitioned: false,
            load: Default::default(),
        };
        let report = |driver: &str| Report { driver: Some(driver.to_owned()), ..Report::default() };
        let qualified = |driver: &str| Qualifications::read(data.path()).is_qualified(&report(driver), &device);
        assert!(!qualified("580"));
        Qualifications::read(data.path()).keep(data.path(), one("580", None)).unwrap();
        assert!(qualified("580") && !qualified("590"));
        assert!(!Qualifications::read(data.path()).is_qualified(&Report::default(), &device));
        Qualifications::read(data.path()).keep(data.path(), one("580", Some("it hung"))).unwrap();
        assert!(!qualified("580"));
        assert_eq!(Qualifications::read(data.path()).0.len(), 1);
    }

    #[test]
    fn a_damaged_file_qualifies_nobody() {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(file(data.path()), "[{").unwrap();
        assert_eq!(Qualifications::read(data.path()), Qualifications::default());
    }
}
