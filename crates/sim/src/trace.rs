//! What happened, as a hash always and as lines on demand. Two runs of one seed must give the same hash.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::mem::discriminant;

use kip_fleet::{Effect, Event, FromPlacer, State, Ticket, ToPlacer};
use kip_spec::{InstanceId, Millis};

use crate::cell::Cell;
use crate::fate::operation_name;

/// How much is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The hash only.
    Hash,
    /// What a reader of a story wants to know.
    Story,
    /// Every event and effect.
    All,
}

/// The record of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    detail: Detail,
    hash: Fnv,
    pub(crate) lines: Vec<String>,
    /// Names that a script gave to requests.
    pub(crate) names: BTreeMap<(usize, Ticket), String>,
}

/// FNV-1a over 64 bits: the same on every machine and in every run, which the standard library's hasher does not promise.
#[derive(Debug)]
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }
}

impl Trace {
    pub(crate) fn new(detail: Detail) -> Self {
        Self { detail, hash: Fnv(0xcbf2_9ce4_8422_2325), lines: Vec::new(), names: BTreeMap::new() }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    fn all(&self) -> bool {
        self.detail == Detail::All
    }

    /// A line of the story.
    pub(crate) fn tell(&mut self, now: u64, text: impl FnOnce() -> String) {
        if self.detail != Detail::Hash {
            self.lines.push(format!("{:>9}  {}", Millis(now).to_string(), text()));
        }
    }

    pub(crate) fn request(&self, function: usize, cell: &Cell, ticket: Ticket) -> String {
        let name = self.names.get(&(function, ticket)).cloned();
        name.unwrap_or_else(|| format!("{}#{}", cell.name, ticket.0))
    }

    /// Something happens to a core.
    pub(crate) fn event(&mut self, now: u64, function: usize, cell: &Cell, event: &Event) {
        self.hash.write_u64(now);
        self.hash.write_u64(function as u64);
        discriminant(event).hash(&mut self.hash);
        match event {
            Event::Arrive { ticket, .. }
            | Event::Attach { ticket, .. }
            | Event::Leave { ticket }
            | Event::Halt { ticket }
            | Event::Occupy { ticket, .. } => ticket.hash(&mut self.hash),
            Event::Observed { instance, operation, seen } => {
                (instance, operation, discriminant(seen)).hash(&mut self.hash);
            }
            Event::Exited { instance, .. }
            | Event::Adopt { instance, .. }
            | Event::Settled { instance }
            | Event::Readiness { instance, .. }
            | Event::Touch { instance, .. }
            | Event::Unhealthy { instance, .. }
            | Event::Progress { instance, .. }
            | Event::Replace { instance, .. }
            | Event::Overused { instance } => {
                instance.hash(&mut self.hash);
            }
            Event::Placer(message) => discriminant(message).hash(&mut self.hash),
            Event::Deploy { version, .. }
            | Event::Start { version }
            | Event::Name { version, .. }
            | Event::Unname { version }
            | Event::SetAside { version, .. }
            | Event::Serve { version, .. }
            | Event::Backlog { version, .. } => version.0.hash(&mut self.hash),
            Event::Alias { alias, .. } => alias.hash(&mut self.hash),
            Event::Provision { settings, .. } => settings.is_some().hash(&mut self.hash),
            Event::Measured { version, .. } | Event::Sized { version, .. } => version.0.hash(&mut self.hash),
            Event::Reached { target, .. } => target.hash(&mut self.hash),
            Event::Learnt { history } => history.at.boot.hash(&mut self.hash),
            Event::Remove | Event::Shutdown | Event::Tick | Event::Rotate | Event::Abort => {}
        }
        if self.all() {
            let text = match event {
                Event::Deploy { version, policy } => format!("{} deploy {version}: {policy:?}", cell.name),
                other => format!("{} {other:?}", cell.name),
            };
            self.tell(now, || text);
            return;
        }
        let text = match event {
            _ if self.detail == Detail::Hash => return,
            Event::Arrive { ticket, .. } => format!("{} arrives", self.request(function, cell, *ticket)),
            Event::Leave { ticket } => format!("{} leaves", self.request(function, cell, *ticket)),
            Event::Exited { instance, exit } => format!("{} ended by itself: {exit}", name_of(cell, *instance)),
            Event::Placer(FromPlacer::Evict { instance, lack, .. }) => {
                format!("the host asks {} for its {lack}", name_of(cell, *instance))
            }
            _ => return,
        };
        self.tell(now, || text);
    }

    /// A core wants something.
    pub(crate) fn effect(&mut self, now: u64, function: usize, cell: &Cell, effect: &Effect) {
        discriminant(effect).hash(&mut self.hash);
        match effect {
            Effect::Dispatch { ticket, instance, start } => {
                (ticket, instance, discriminant(start)).hash(&mut self.hash);
                let request = self.request(function, cell, *ticket);
                self.tell(now, || format!("{request} goes to {} ({})", name_of(cell, *instance), start.name()));
            }
            Effect::Offer { ticket, instance, .. } => (ticket, instance).hash(&mut self.hash),
            Effect::Refuse { ticket, refusal } => {
                (ticket, discriminant(refusal)).hash(&mut self.hash);
                let request = self.request(function, cell, *ticket);
                self.tell(now, || format!("{request} is refused: {refusal} ({})", refusal.code()));
            }
            Effect::Changed(change) => {
                (change.instance, change.to.index(), discriminant(&change.why)).hash(&mut self.hash);
                let from = change.from.map(State::name);
                self.tell(now, || match from {
                    None => format!("{} is wanted: {}", name_of(cell, change.instance), change.why),
                    Some(from) => {
                        format!("{} {from} -> {}: {}", name_of(cell, change.instance), change.to, change.why)
                    }
                });
            }
            Effect::Operate { instance, operation, what, .. } => {
                (instance, operation, discriminant(what)).hash(&mut self.hash);
                if self.all() {
                    let name = name_of(cell, *instance);
                    self.tell(now, || format!("  {} {name} (operation {})", operation_name(*what), operation.0));
                }
            }
            Effect::Promoted { version } => {
                version.0.hash(&mut self.hash);
                self.tell(now, || format!("{} {version} serves", cell.name));
            }
            Effect::VersionFailed { version, failure } => {
                version.0.hash(&mut self.hash);
                self.tell(now, || format!("{} {version} failed: {failure}", cell.name));
            }
            Effect::Tell(message) => {
                discriminant(message).hash(&mut self.hash);
                if self.all() {
                    self.tell(now, || format!("  {} tells {message:?}", cell.name));
                }
            }
            Effect::WakeAt(at) => at.hash(&mut self.hash),
            Effect::AskProgress { instance } => instance.hash(&mut self.hash),
            Effect::CrashLoop { version, failures, failure } => {
                version.0.hash(&mut self.hash);
                self.tell(now, || {
                    format!("{} {version} is in a crash loop, {failures} in a row: {failure}", cell.name)
                });
            }
            Effect::RungsDisabled { version } => {
                version.0.hash(&mut self.hash);
                self.tell(now, || format!("{} {version} only pauses from now on", cell.name));
            }
            Effect::Scaled { version } => version.0.hash(&mut self.hash),
            Effect::Provisioned { .. } => {}
            Effect::Ended(usage) => usage.times.hash(&mut self.hash),
        }
    }

    /// The placer takes a message.
    pub(crate) fn placer(&mut self, now: u64, message: &ToPlacer) {
        discriminant(message).hash(&mut self.hash);
        if self.all() {
            self.tell(now, || format!("host {message:?}"));
        }
    }
}

/// An instance as stories call it: its function and its number there.
pub(crate) fn name_of(cell: &Cell, instance: InstanceId) -> String {
    match instance.boot {
        1 => format!("{}/{}", cell.name, instance.sequence),
        boot => format!("{}/{boot}.{}", cell.name, instance.sequence),
    }
}
