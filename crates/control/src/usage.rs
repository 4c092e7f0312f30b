//! What the time of instances was spent on: written down when one is gone, read together with the living ones.

use std::collections::BTreeMap;

use kip_engine::Measure;
use kip_fleet::Usage;
use kip_records::usage::record;
use kip_records::{Record, UsageRecord};
use kip_spec::{FunctionName, VersionId};
use kip_wire::FunctionUsage;

use crate::cell::{Cell, now};
use crate::control::Control;
use crate::error::Error;
use crate::link::Link;
use crate::shared::Shared;

/// When instances lived.
#[derive(Debug)]
pub struct InstanceLives {
    /// Those that live; their end is now.
    pub living: Vec<UsageRecord>,
    /// Those that are gone.
    pub gone: Vec<UsageRecord>,
}

impl Shared {
    /// An instance is gone.
    pub(crate) fn used(&self, function: &FunctionName, usage: &Usage) {
        self.spend(function, usage, true);
        self.recorder.record(Record::Usage(record(function, usage, now())));
    }

    /// The server leaves its instances to the next one, which counts from its own beginning on.
    pub(crate) fn used_until_now(&self, cell: &Cell) {
        let mut living = Vec::new();
        cell.living(|usage| living.push(*usage));
        living.iter().for_each(|usage| self.used(cell.name(), usage));
    }
}

impl Cell {
    /// What the living instances spent their time on so far.
    pub(crate) fn living(&self, mut each: impl FnMut(&Usage)) {
        let now = now();
        self.look(&self.lock(), |core| core.usage(now).for_each(|usage| each(&usage)));
    }
}

impl Control {
    /// The memory that an instance uses now, bytes. It is looked at once: from then on its peak is known, and looks of the server raise it.
    pub async fn measure_memory(&self, link: &Link) -> Option<u64> {
        let measured = self.shared.bodies.measure(&[link.instance], Measure::Memory).await;
        let bytes = measured.get(&link.instance).copied();
        // One that cannot be measured is not tried again with each call.
        link.uses(bytes.unwrap_or(1));
        bytes
    }

    /// When the instances of a function lived: those that live until now, and those that are gone as long as records are kept.
    ///
    /// # Errors
    /// [`Error::NoFunction`] or [`Error::Store`].
    pub async fn lives(&self, name: &str) -> Result<InstanceLives, Error> {
        let cell = self.require(name)?;
        let mut living = Vec::new();
        cell.living(|usage| living.push(record(cell.name(), usage, now())));
        self.recorder().flush().await;
        let mut gone = self.records().usage(cell.name().to_string()).await?;
        // A server that left its instances to the next one wrote down what they had spent so far.
        gone.retain(|past| living.iter().all(|one: &UsageRecord| one.instance != past.instance));
        Ok(InstanceLives { living, gone })
    }

    /// What the instances of a function spent their time on, those that live included.
    ///
    /// # Errors
    /// [`Error::NoFunction`] or [`Error::Store`].
    pub async fn usage(&self, name: &str) -> Result<FunctionUsage, Error> {
        let cell = self.require(name)?;
        // Before the records are read: one that ends in between would be counted twice the other way round.
        let mut living = Vec::new();
        cell.living(|usage| living.push(record(cell.name(), usage, now())));
        self.recorder().flush().await;
        let gone = self.records().usage(cell.name().to_string()).await?;
        let mut usage = kip_records::usage::usage_of(cell.name().clone(), &gone, living);
        let labels: BTreeMap<VersionId, String> =
            self.revisions(name).await?.into_iter().map(|info| (info.id, info.label)).collect();
        for version in &mut usage.versions {
            // A revision that was collected has no other name than its number in the store.
            version.label = labels.get(&version.version).cloned().unwrap_or_else(|| version.version.to_string());
        }
        Ok(usage)
    }
}
