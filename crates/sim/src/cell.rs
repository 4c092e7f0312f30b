//! One function of the world: its core, made on first use and dropped when vacant as the server does it, and what the
//! world itself knows of its requests and bodies.

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_fleet::{
    AliasNumber, CoreNumber, Effect, Event, FunctionCore, Now, Policy, Qualifier, Refusal, Target, Ticket,
};
use kip_spec::scaling::Fc;
use kip_spec::{InstanceId, VersionId};

use crate::body::Body;

/// A function.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) number: CoreNumber,
    pub(crate) core: Option<Box<FunctionCore>>,
    /// How often the server was started.
    pub(crate) boot: u32,
    /// Where aliases point.
    pub(crate) aliases: BTreeMap<AliasNumber, (Vec<Target>, u32)>,
    /// What is provisioned from outside.
    pub(crate) provision: Option<Arc<Fc>>,
    /// The last instance's sequence while there is no core.
    sequence: u32,
    pub(crate) serving: VersionId,
    pub(crate) versions: BTreeMap<VersionId, Arc<Policy>>,
    /// Removed, or never deployed.
    pub(crate) closed: bool,
    pub(crate) alarm: Option<u64>,
    pub(crate) requests: BTreeMap<Ticket, Request>,
    pub(crate) next_ticket: u64,
    pub(crate) waiting: u32,
    pub(crate) bodies: BTreeMap<InstanceId, Body>,
    pub(crate) ends: Ends,
}

/// An accepted request that has not ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// The instance it was given to.
    pub(crate) at: Option<InstanceId>,
    /// How long its work takes.
    pub(crate) work: u64,
    /// It gets no byte of an answer.
    pub(crate) stuck: bool,
}

/// How requests ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ends {
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
            core: None,
            boot: 1,
            aliases: BTreeMap::new(),
            provision: None,
            sequence: 0,
            serving: VersionId(0),
            versions: BTreeMap::new(),
            closed: true,
            alarm: None,
            requests: BTreeMap::new(),
            next_ticket: 0,
            waiting: 0,
            bodies: BTreeMap::new(),
            ends: Ends::default(),
        }
    }

    /// Hands the core an event, as the server's cell does.
    pub(crate) fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        match &event {
            Event::Deploy { version, policy } => {
                self.closed = false;
                self.versions.insert(*version, policy.clone());
                if self.core.is_none() && self.serving == VersionId(0) {
                    self.core = Some(Box::new(FunctionCore::new(self.boot, self.number, self.sequence)));
                }
            }
            Event::Alias { alias, targets, provisioned } => {
                self.versions.extend(targets.iter().map(|target| (target.version, target.policy.clone())));
                self.aliases.insert(*alias, (targets.clone(), *provisioned));
                self.aliases.retain(|_, (targets, _)| !targets.is_empty());
            }
            Event::Provision { settings, .. } => self.provision = settings.clone(),
            Event::Remove | Event::Shutdown => {
                self.provision = None;
                self.closed = true;
                self.serving = VersionId(0);
                self.aliases.clear();
            }
            _ => {}
        }
        if self.core.is_none() && !self.make_core(now, &event, effects) {
            if let Event::Arrive { ticket, .. } = event {
                effects.push(Effect::Refuse { ticket, refusal: Refusal::Removed });
            }
            return;
        }
        if let Some(core) = self.core.as_deref_mut() {
            core.step(now, event, effects);
        }
    }

    fn make_core(&mut self, now: Now, event: &Event, effects: &mut Vec<Effect>) -> bool {
        let needed = matches!(
            event,
            Event::Arrive { .. }
                | Event::Deploy { .. }
                | Event::Adopt { .. }
                | Event::Alias { .. }
                | Event::Tick
                | Event::Provision { .. }
        );
        let serving = self.serving;
        let Some(policy) = self.versions.get(&serving).filter(|_| needed && !self.closed).cloned() else {
            return false;
        };
        let mut core = Box::new(FunctionCore::new(self.boot, self.number, self.sequence));
        if !matches!(event, Event::Adopt { .. }) {
            core.step(now, Event::Serve { version: serving, policy }, effects);
            if let Some(settings) = self.provision.clone().filter(|_| !matches!(event, Event::Provision { .. })) {
                let settings = Some(settings);
                core.step(now, Event::Provision { qualifier: Qualifier::Latest, settings }, effects);
            }
        }
        self.core = Some(core);
        true
    }

    /// The server was killed and is started again: what it kept in memory is gone.
    pub(crate) fn restart(&mut self) {
        self.ends.broken += self.requests.len() as u64;
        self.requests.clear();
        (self.waiting, self.alarm, self.core) = (0, None, None);
        // Instances are counted from the beginning: their ids differ by the boot.
        (self.sequence, self.boot) = (0, self.boot + 1);
    }

    /// Drops a core of which nothing is left.
    pub(crate) fn tidy(&mut self) {
        if let Some(core) = self.core.as_ref().filter(|core| core.is_vacant()) {
            self.sequence = core.sequence();
            self.core = None;
        }
    }

    /// Versions that nothing speaks of any more are forgotten.
    pub(crate) fn forget_versions(&mut self) {
        let Self { core, versions, serving, aliases, .. } = self;
        versions.retain(|version, _| {
            version == serving
                || aliases.values().any(|(targets, _)| targets.iter().any(|target| target.version == *version))
                || core.as_ref().is_some_and(|core| core.revisions().any(|(id, _)| id == *version))
        });
    }
}
