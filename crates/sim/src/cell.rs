//! One function of the world: its core, hosted as the server hosts it, and what the world itself knows of its requests and
//! bodies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kip_fleet::{
    AliasNumber, CoreHost, CoreNumber, Draw, Effect, Event, FunctionCore, Now, Policy, Qualifier, Recovery, Subject,
    Target, Ticket,
};
use kip_spec::scaling::Fc;
use kip_spec::{InstanceId, VersionId};

use crate::body::Body;
use crate::moving::Rollout;

/// A function.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) number: CoreNumber,
    pub(crate) host: CoreHost,
    /// How often the server was started.
    boot: u32,
    /// Where aliases point.
    pub(crate) aliases: BTreeMap<AliasNumber, (Vec<Target>, u32)>,
    /// Versions that are called by themselves.
    named: BTreeSet<VersionId>,
    /// The rollout of its second alias.
    pub(crate) rollout: Option<Rollout>,
    /// Requests that versions answered, and those that broke off.
    pub(crate) counts: BTreeMap<VersionId, (u64, u64)>,
    /// What is provisioned from outside.
    provision: Option<Arc<Fc>>,
    pub(crate) serving: VersionId,
    pub(crate) versions: BTreeMap<VersionId, Arc<Policy>>,
    /// Removed, or never deployed.
    pub(crate) closed: bool,
    pub(crate) alarm: Option<u64>,
    pub(crate) requests: BTreeMap<Ticket, Request>,
    pub(crate) next_ticket: u64,
    pub(crate) waiting: u32,
    pub(crate) bodies: BTreeMap<InstanceId, Body>,
    pub(crate) ends: RequestOutcomes,
}

/// An accepted request that has not ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// When it came.
    pub(crate) since: u64,
    /// The instance it was given to.
    pub(crate) at: Option<InstanceId>,
    /// How long its work takes.
    pub(crate) work: u64,
    /// It gets no byte of an answer.
    pub(crate) stuck: bool,
}

/// How requests ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RequestOutcomes {
    pub(crate) accepted: u64,
    pub(crate) left: u64,
    pub(crate) refused: u64,
    pub(crate) cancelled: u64,
    /// The server was killed under it.
    pub(crate) broken: u64,
}

impl Cell {
    pub(crate) fn new(name: String, number: CoreNumber) -> Self {
        Self {
            name,
            number,
            host: CoreHost::new(1, number, None),
            boot: 1,
            aliases: BTreeMap::new(),
            named: BTreeSet::new(),
            rollout: None,
            counts: BTreeMap::new(),
            provision: None,
            serving: VersionId(0),
            versions: BTreeMap::new(),
            closed: true,
            alarm: None,
            requests: BTreeMap::new(),
            next_ticket: 0,
            waiting: 0,
            bodies: BTreeMap::new(),
            ends: RequestOutcomes::default(),
        }
    }

    pub(crate) fn core(&self) -> Option<&FunctionCore> {
        self.host.core()
    }

    /// Hands the core an event. Where `fails` is set, its step is taken for one that panicked.
    pub(crate) fn step(&mut self, now: Now, event: Event, fails: bool, effects: &mut Vec<Effect>) -> Option<Recovery> {
        match &event {
            Event::Deploy { version, policy } => {
                self.closed = false;
                self.versions.insert(*version, policy.clone());
            }
            Event::Alias { alias, targets, provisioned, .. } => {
                self.versions.extend(targets.iter().map(|target| (target.version, target.policy.clone())));
                self.aliases.insert(*alias, (targets.clone(), *provisioned));
                self.aliases.retain(|_, (targets, _)| !targets.is_empty());
            }
            Event::Provision { qualifier: Qualifier::Latest, settings } => self.provision = settings.clone(),
            Event::Name { version, policy } => {
                self.versions.insert(*version, policy.clone());
                self.named.insert(*version);
            }
            Event::Unname { version } => drop(self.named.remove(version)),
            Event::Remove | Event::Shutdown => {
                self.provision = None;
                self.closed = true;
                self.serving = VersionId(0);
                self.aliases.clear();
                self.named.clear();
                self.rollout = None;
            }
            _ => {}
        }
        let subject = Subject::of(&event);
        let recovery = self.host.step(now, event, effects);
        match recovery {
            None if fails => Some(self.host.recover(now, subject, 0, &"a fault that was drawn", effects)),
            recovery => recovery,
        }
    }

    /// The server was killed and is started again: what it kept in memory is gone, what was declared is read again.
    pub(crate) fn restart(&mut self) {
        self.ends.broken += self.requests.len() as u64;
        self.requests.clear();
        (self.waiting, self.alarm, self.boot) = (0, None, self.boot + 1);
        let serving = self.versions.get(&self.serving).filter(|_| !self.closed);
        self.host = CoreHost::new(self.boot, self.number, serving.map(|policy| (self.serving, policy.clone())));
        if self.closed {
            return;
        }
        if let Some(settings) = self.provision.clone() {
            self.host.remember(&Event::Provision { qualifier: Qualifier::Latest, settings: Some(settings) });
        }
        // Counters begin anew with each server.
        self.counts.clear();
        for version in self.named.clone() {
            if let Some(policy) = self.versions.get(&version).cloned() {
                self.host.remember(&Event::Name { version, policy });
            }
        }
        for (alias, (targets, provisioned)) in self.aliases.clone() {
            self.host.remember(&Event::Alias { alias, targets, latest: 0, provisioned, draw: Draw::Begin(0) });
        }
    }

    /// Versions that nothing speaks of any more are forgotten.
    pub(crate) fn forget_versions(&mut self) {
        let Self { host, versions, serving, aliases, named, rollout, .. } = self;
        versions.retain(|version, _| {
            version == serving
                || named.contains(version)
                || rollout.as_ref().is_some_and(|rollout| rollout.names(*version))
                || aliases.values().any(|(targets, _)| targets.iter().any(|target| target.version == *version))
                || host.core().is_some_and(|core| core.revisions().any(|(id, _)| id == *version))
        });
    }
}
