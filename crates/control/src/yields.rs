//! Devices that an operator wants back for a time, and the quota over all functions.

use std::sync::Arc;
use std::time::Duration;

use kip_fleet::room::{Gpu, Quota};
use kip_fleet::{Place, ToPlacer};
use kip_spec::{Problem, code};

use crate::cell::now;
use crate::control::Control;
use crate::device_book::{QuotaChange, Yielded};
use crate::shared::Shared;

/// While instances are still on a yielded device, they are asked for it again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl Shared {
    /// Where a device is, by its name.
    pub(crate) fn device_place(&self, name: &str) -> Option<Place> {
        let pools = (0u16..).zip(&self.options.inventory.pools);
        let hosts =
            pools.flat_map(|(pool, declared)| (0u32..).zip(&declared.hosts).map(move |(host, one)| (pool, host, one)));
        let mut found = hosts.filter_map(|(pool, host, one)| {
            let number = one.devices.iter().position(|device| device.name == name)?;
            Some(Place { pool, host, devices: 1 << number })
        });
        found.next()
    }

    /// Before anything is granted: what was decided under an earlier server.
    pub(crate) fn remember_devices(&self) {
        let quota = self.quota(self.devices.quota());
        self.tell_placer(ToPlacer::Limit(quota));
        self.ask_for_yielded();
    }

    fn quota(&self, change: QuotaChange) -> Quota {
        let declared = self.options.inventory.quota;
        let of = |change: Option<u32>, declared: Option<u32>| {
            change.map_or(declared, |most| Some(most).filter(|most| *most > 0))
        };
        Quota { cards: of(change.cards, declared.cards), instances: of(change.instances, declared.instances) }
    }

    /// Takes devices back whose time is over, and asks for the others again. When to look again; none if nothing is yielded.
    fn ask_for_yielded(&self) -> Option<Duration> {
        let now = now();
        let mut next: Option<Duration> = None;
        for (name, yielded) in self.devices.yielded() {
            let left = yielded.until.map(|until| u64::try_from(until.saturating_sub(now.wall)).unwrap_or(0));
            if left == Some(0) {
                if let Err(error) = self.take_back(&name) {
                    tracing::warn!(device = name, %error, "the end of its yield is not written down");
                }
                continue;
            }
            // It may have left kipwake.toml.
            let Some(place) = self.device_place(&name) else { continue };
            self.tell_placer(ToPlacer::Yield {
                place,
                until: left.map_or(u64::MAX, |left| now.boot.saturating_add(left)),
            });
            let held = self.with_placer(|placer| placer.on_device(place).any(|(_, gpu)| gpu != Gpu::None));
            let wait = if held { Some(ASK_AGAIN) } else { left.map(Duration::from_millis) };
            next = next.into_iter().chain(wait).min();
        }
        next
    }

    fn take_back(&self, name: &str) -> std::io::Result<bool> {
        let was = self.devices.set_yielded(name, None)?;
        if let Some(place) = self.device_place(name) {
            self.tell_placer(ToPlacer::Regain { place });
        }
        if was {
            tracing::info!(device = name, "the device is in use again");
        }
        Ok(was)
    }

    /// Asks for yielded devices for as long as anything is on them, and takes them back when their time is over.
    pub(crate) async fn watch_yielded(self: Arc<Self>) {
        loop {
            let changed = self.devices.changed.notified();
            match self.ask_for_yielded() {
                Some(wait) => drop(tokio::time::timeout(wait, changed).await),
                None => changed.await,
            }
        }
    }
}

impl Control {
    /// Takes a device out of use until a time (milliseconds since 1970), or until it is taken back. Idle instances on it give its memory
    /// back or end, busy ones first finish their requests.
    ///
    /// # Errors
    /// There is no such device, the time is past, or it cannot be written down.
    pub fn yield_device(&self, name: &str, until: Option<i64>) -> Result<(), Problem> {
        self.known_device(name)?;
        if until.is_some_and(|until| until <= now().wall) {
            return Err(Problem::new(
                code::API_BAD_REQUEST,
                format!("the end of the time for which `{name}` is yielded is past"),
            ));
        }
        tracing::info!(device = name, ?until, "the device is yielded");
        self.shared.devices.set_yielded(name, Some(Yielded { until })).map(drop).map_err(|error| not_kept(&error))
    }

    /// Puts a yielded device into use again. False if it was in use.
    ///
    /// # Errors
    /// There is no such device, or it cannot be written down.
    pub fn regain_device(&self, name: &str) -> Result<bool, Problem> {
        self.known_device(name)?;
        let was = self.shared.take_back(name).map_err(|error| not_kept(&error))?;
        self.shared.devices.changed.notify_one();
        Ok(was)
    }

    /// Changes what all functions together may take. Instances beyond it stay until they end by themselves.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn set_quota(&self, change: QuotaChange) -> Result<(), Problem> {
        self.shared.devices.set_quota(change).map_err(|error| not_kept(&error))?;
        let quota = self.shared.quota(change);
        tracing::info!(?quota, "the quota was changed");
        self.shared.tell_placer(ToPlacer::Limit(quota));
        Ok(())
    }

    /// Whether the server uses any device.
    pub fn has_devices(&self) -> bool {
        self.shared.options.inventory.pools.iter().flat_map(|pool| &pool.hosts).any(|host| !host.devices.is_empty())
    }

    /// What replaces the quota of kipwake.toml.
    pub fn quota_change(&self) -> QuotaChange {
        self.shared.devices.quota()
    }

    fn known_device(&self, name: &str) -> Result<(), Problem> {
        if self.shared.device_place(name).is_some() {
            return Ok(());
        }
        let all =
            self.shared.options.inventory.pools.iter().flat_map(|pool| &pool.hosts).flat_map(|host| &host.devices);
        let names: Vec<&str> = all.map(|device| device.name.as_str()).collect();
        let hint = match names.is_empty() {
            true => "the server uses no device: declare it as [[device]] in kipwake.toml".to_owned(),
            false => format!("the server uses {}", names.join(", ")),
        };
        Err(Problem::new(code::DEVICE_UNKNOWN, format!("there is no device `{name}`")).hint(hint))
    }
}

fn not_kept(error: &std::io::Error) -> Problem {
    Problem::new(code::DATA_DIRECTORY_UNUSABLE, "devices.json cannot be written").cause(error.to_string())
}
