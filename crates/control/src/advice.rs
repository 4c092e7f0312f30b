//! Advice about a function's scaling settings: its records, and what is known of living instances.

use kip_records::RequestFilter;
use kip_records::advice::{measure, rules};
use kip_spec::function::FunctionSpec;
use kip_spec::{InstanceId, Millis};
use kip_wire::{Advice, Recommendation};

use crate::control::Control;
use crate::error::Error;

/// Records that are looked at.
const MOST: u32 = 10_000;

impl Control {
    /// What measured figures say about a function's settings.
    ///
    /// # Errors
    /// [`Error::NoFunction`] or [`Error::Store`].
    pub async fn advise(&self, name: &str) -> Result<Recommendation, Error> {
        let cell = self.require(name)?;
        let spec = cell.serving().spec.clone();
        let Recommendation { mut measured, mut advice } = self.advise_for(name, &spec).await?;
        if spec.resources.gpu.is_some() {
            let living: Vec<InstanceId> = cell.instance_infos().into_iter().map(|info| info.id).collect();
            let held = self.shared.meter.device_memory(&self.shared, &living).await;
            measured.device_memory = held.into_values().max().filter(|bytes| *bytes > 0);
        }
        advice.extend(rules::device(&spec, &measured, &self.shared.options.inventory));
        if let Some(unused) = self.shared.unused(&cell).await? {
            advice.push(Advice {
                setting: "provision".to_owned(),
                now: format!("{} instances are kept", unused.instances),
                better: unused.release,
                why: format!("nothing was asked of them for {}", Millis(unused.for_ms / 60_000 * 60_000)),
            });
        }
        Ok(Recommendation { measured, advice })
    }

    /// What figures that were measured of a function say about settings that are to be its own.
    ///
    /// # Errors
    /// As [`Control::advise`].
    pub async fn advise_for(&self, name: &str, spec: &FunctionSpec) -> Result<Recommendation, Error> {
        self.require(name)?;
        self.recorder().flush().await;
        let mut decisions = self.records().decisions(name.to_owned(), MOST).await?;
        decisions.reverse();
        let filter = RequestFilter { function: Some(name.to_owned()), limit: MOST, ..RequestFilter::default() };
        let mut requests = self.records().requests(filter).await?;
        requests.reverse();
        let measured = measure(&decisions, &requests);
        let advice = rules::settings(spec, &measured);
        Ok(Recommendation { measured, advice })
    }
}
