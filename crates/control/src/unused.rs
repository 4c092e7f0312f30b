//! Provisioned instances that nobody uses.

use kip_spec::Millis;

/// Provisioned instances that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnusedInstances {
    /// Since when, milliseconds since 1970: since the last request, or since they are there.
    pub(crate) since: i64,
    /// How long that is.
    pub(crate) for_ms: u64,
    /// How many.
    pub(crate) instances: u32,
    /// For whom they are kept.
    pub(crate) qualifier: String,
    /// The command that releases them.
    pub(crate) release: String,
}

impl UnusedInstances {
    /// The reminder.
    pub(crate) fn tell(&self, wall: i64) -> String {
        let hours = Millis(u64::try_from(wall - self.since).unwrap_or(0) / 60_000 * 60_000);
        let release = &self.release;
        match self.instances {
            1 => format!("nothing was asked of 1 provisioned instance for {hours}: `{release}` releases it"),
            many => format!("nothing was asked of {many} provisioned instances for {hours}: `{release}` releases them"),
        }
    }
}
