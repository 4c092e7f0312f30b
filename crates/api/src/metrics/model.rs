//! Metrics of models.

use std::fmt::Error;

use kip_wire::{LoadFigures, ModelLoads};
use prometheus_client::encoding::MetricEncoder;

/// What is shown of the model cache.
#[derive(Debug, Default)]
pub(super) struct ModelFigures {
    /// By the id of the model.
    pub(super) loads: Vec<(String, ModelLoads)>,
    pub(super) evictions: u64,
    /// Bytes.
    pub(super) taken: u64,
    /// Bytes; 0 without a limit.
    pub(super) quota: u64,
}

impl ModelFigures {
    pub(super) fn each_tier(
        &self,
        out: &mut MetricEncoder<'_>,
        write: fn(&LoadFigures, &mut MetricEncoder<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (model, loads) in &self.loads {
            for (tier, figures) in [("memory", &loads.memory), ("disk", &loads.disk), ("remote", &loads.remote)] {
                if figures.starts > 0 {
                    write(figures, &mut out.encode_family(&[("model", model.as_str()), ("tier", tier)])?)?;
                }
            }
        }
        Ok(())
    }
}
