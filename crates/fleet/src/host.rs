//! The one way to host a core, for the server and the simulator alike.
//!
//! A core exists only while something of its function does. The host makes it on first use, tells it what it must know
//! before it decides, drops it when nothing of it is left, and replaces it when a step of it panics.
//!
//! What a core made anew is told, in this order: [`Event::Adopt`] and [`Event::Occupy`] for what an earlier server left,
//! [`Event::Reached`], [`Event::Learnt`], [`Event::Provision`], [`Event::Alias`], [`Event::Name`], then [`Event::Serve`]. Between the first `Adopt` and
//! [`CoreHost::serve`] every other event is kept and delivered afterwards, so that nothing is decided too early.
//!
//! A panic costs the requests that wait (they are refused, 503 with `Retry-After`) and the instances that were between two
//! states (they are killed). Requests in flight keep their places, and room is held as before. A second panic within a
//! minute quarantines the function: it ends its instances and refuses everything until it is deployed again.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kip_spec::scaling::{Fc, Scaling};
use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use crate::function::settle_half;
use crate::room::Gpu;
use crate::sparse::SparseMap;
use crate::{
    AliasNumber, CoreNumber, Draw, Effect, Event, FromPlacer, FunctionCore, History, Now, Operate, OperationNumber,
    Policy, Qualifier, Recording, Refusal, Target, Ticket,
};

/// Two panics within this long quarantine a function, milliseconds.
const QUARANTINE: u64 = 60_000;

/// One function: its core while there is one, and what the next core must be told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CoreHost {
    boot: u32,
    number: CoreNumber,
    /// The sequence of the last instance, while there is no core.
    sequence: u32,
    core: Option<Box<FunctionCore>>,
    serving: Option<(VersionId, Arc<Policy>)>,
    declared: Option<Box<Declarations>>,
    /// Instances of an earlier server are handed in.
    adoption: Option<Box<Adoption>>,
    /// What was learnt, while there is no core.
    #[serde(default)]
    history: Option<Box<History>>,
    closed: Option<ClosedReason>,
    /// When a step last panicked, boot time.
    failed_at: Option<u64>,
    quarantined: bool,
    /// What is handed in and decided, while that is recorded.
    #[serde(skip)]
    recording: Option<Box<Recording>>,
}

/// Why a function takes nothing any more; a refusal itself would be large for something that each function has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClosedReason {
    Removed,
    ShuttingDown,
}

/// What was declared besides versions; most functions have nothing of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Declarations {
    aliases: SparseMap<AliasNumber, DeclaredAlias>,
    /// Versions that requests may ask for by themselves.
    named: SparseMap<VersionId, Arc<Policy>>,
    /// Versions that give their room up.
    #[serde(default)]
    aside: BTreeSet<VersionId>,
    #[serde(with = "crate::sparse::pairs")]
    provisions: BTreeMap<Qualifier, Arc<Fc>>,
    #[serde(with = "crate::sparse::pairs")]
    reached: BTreeMap<Qualifier, u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct DeclaredAlias {
    targets: Vec<Target>,
    latest: u32,
    provisioned: u32,
    /// While there is no core, where the draw stands.
    draw: Draw,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Adoption {
    /// What happened meanwhile.
    later: Vec<Event>,
}

/// A step panicked, and this became of the function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The panic's message.
    pub cause: String,
    /// It was the second within a minute.
    pub quarantined: bool,
}

/// What an event was about, in case its step fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A request came.
    Arrival(Ticket),
    /// A request, or a task's place, is over.
    Departure(Ticket),
    /// An instance ended or is not well.
    Instance(InstanceId),
    /// Something was declared or handed in; the fresh core is told once more.
    Declaration(Box<Event>),
    /// What is between two states is ended anyway, and everything else comes again.
    Nothing,
}

impl Subject {
    /// Of an event.
    pub fn of(event: &Event) -> Self {
        match event {
            Event::Arrive { ticket, .. } | Event::Attach { ticket, .. } => Self::Arrival(*ticket),
            Event::Leave { ticket } => Self::Departure(*ticket),
            Event::Exited { instance, .. } | Event::Unhealthy { instance, .. } => Self::Instance(*instance),
            Event::Adopt { .. }
            | Event::Occupy { .. }
            | Event::Settled { .. }
            | Event::Deploy { .. }
            | Event::Remove
            | Event::Shutdown
            | Event::Alias { .. }
            | Event::Name { .. }
            | Event::Unname { .. }
            | Event::SetAside { .. }
            | Event::Provision { .. }
            | Event::Backlog { .. } => Self::Declaration(Box::new(event.clone())),
            _ => Self::Nothing,
        }
    }
}

impl CoreHost {
    /// A function without a core. `boot` counts the server's starts, `number` is unique within one. `serving` is what served
    /// before, if anything did.
    pub fn new(boot: u32, number: CoreNumber, serving: Option<(VersionId, Arc<Policy>)>) -> Self {
        Self {
            boot,
            number,
            sequence: 0,
            core: None,
            serving,
            declared: None,
            adoption: None,
            history: None,
            closed: None,
            failed_at: None,
            quarantined: false,
            recording: None,
        }
    }

    /// The core, if there is one.
    pub fn core(&self) -> Option<&FunctionCore> {
        self.core.as_deref()
    }

    /// The version that serves, if one does.
    pub fn serving(&self) -> Option<VersionId> {
        self.serving.as_ref().map(|(version, _)| *version)
    }

    /// Whether the function was removed, or the server ends.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Whether two panics within a minute put the function out of service.
    pub fn is_quarantined(&self) -> bool {
        self.quarantined
    }

    /// What the version that serves has learnt of its traffic and its instances, if anything.
    pub fn history(&self, now: Now) -> Option<History> {
        match &self.core {
            Some(core) => core.history(now),
            None => self.history.as_deref().cloned(),
        }
    }

    /// Takes one event and appends what is to be done. A panic of the core ends here.
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) -> Option<Recovery> {
        let (subject, from) = (Subject::of(&event), effects.len());
        let recorded = self.recording.is_some().then(|| event.clone());
        let panic = catch_unwind(AssertUnwindSafe(|| self.advance(now, event, effects))).err();
        let recovery = panic.map(|panic| self.recover(now, subject, from, &*panic, effects));
        if let Some(event) = recorded {
            self.note(now, event, effects.get(from..).unwrap_or_default());
        }
        recovery
    }

    /// From here on, everything that is handed in and decided is recorded; what was recorded before goes.
    pub fn record(&mut self) {
        self.recording = None;
        self.recording = Some(Box::new(Recording::begin(self.clone())));
    }

    /// What was recorded, if anything is.
    pub fn recording(&self) -> Option<&Recording> {
        self.recording.as_deref()
    }

    /// Ends the recording. False if there was none.
    pub fn end_recording(&mut self) -> bool {
        self.recording.take().is_some()
    }

    fn note(&mut self, now: Now, event: Event, effects: &[Effect]) {
        let Some(mut recording) = self.recording.take() else { return };
        if recording.note(now, event, effects) {
            recording.turn(self.clone());
        }
        self.recording = Some(recording);
    }

    /// The server has begun and every instance of an earlier one was handed in: decisions begin. Without such an instance a
    /// core is made only if the function wants something by itself.
    pub fn serve(&mut self, now: Now, effects: &mut Vec<Effect>) -> Option<Recovery> {
        let adoption = self.adoption.take();
        let begins = self.core.is_none() && self.closed.is_none() && !self.quarantined && self.wants_by_itself();
        if adoption.is_none() && !begins {
            return None;
        }
        let from = effects.len();
        let panic = catch_unwind(AssertUnwindSafe(|| {
            if self.core.is_none() {
                self.core = Some(Box::new(FunctionCore::new(self.boot, self.number, self.sequence)));
            }
            self.replay(now, true, effects);
            let later = adoption.map(|adoption| adoption.later).unwrap_or_default();
            later.into_iter().for_each(|event| self.advance(now, event, effects));
            self.tidy(now);
        }));
        let panic = panic.err()?;
        Some(self.recover(now, Subject::Nothing, from, &*panic, effects))
    }

    /// Whether the function wants instances without being asked.
    pub fn wants_by_itself(&self) -> bool {
        let declared = self.declared.as_deref();
        let provisioned = declared.is_some_and(|declared| !declared.provisions.is_empty());
        let named = declared.is_some_and(|declared| declared.aliases.values().any(|alias| alias.provisioned > 0));
        let by_policy = |policy: &Policy| match &policy.scaling {
            _ if policy.min > 0 => true,
            Scaling::Fixed | Scaling::Auto(_) => false,
            Scaling::Fc(fc) => !fc.provision.is_empty(),
            Scaling::Kpa(kpa) => !kpa.scale_to_zero,
        };
        provisioned || named || self.serving.as_ref().is_some_and(|(_, policy)| by_policy(policy))
    }

    fn advance(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        let handed_in = matches!(event, Event::Adopt { .. } | Event::Occupy { .. });
        if let Some(adoption) = self.adoption.as_deref_mut()
            && !handed_in
        {
            adoption.later.push(event);
            return;
        }
        let lifts = self.quarantined && matches!(event, Event::Deploy { .. });
        self.learn(&event);
        let declares = matches!(
            event,
            Event::Alias { .. } | Event::Name { .. } | Event::SetAside { .. } | Event::Provision { .. }
        );
        if self.quarantined && declares {
            // The core ends; the next one is told.
            return;
        }
        if self.core.is_none() {
            if !self.is_needed(&event) {
                match event {
                    Event::Arrive { ticket, .. } | Event::Attach { ticket, instance: None, .. } => {
                        effects.push(Effect::Refuse { ticket, refusal: self.refusal() });
                    }
                    Event::Attach { ticket, .. } => {
                        effects.push(Effect::Refuse { ticket, refusal: Refusal::InstanceGone });
                    }
                    _ => {}
                }
                return;
            }
            let core = FunctionCore::new(self.boot, self.number, self.sequence);
            self.core = Some(Box::new(core));
            if let Event::Adopt { .. } = event {
                self.adoption = Some(Box::default());
            } else {
                // A first version comes with the event itself; handed in twice, it would be its own candidate.
                let first = matches!(&event, Event::Deploy { version, .. } if self.serving() == Some(*version));
                self.replay(now, !first, effects);
                if declares {
                    // It was among the declarations.
                    return self.tidy(now);
                }
            }
        } else if lifts {
            self.hand(now, event, effects);
            self.provide(now, effects);
            return self.point(now, effects);
        }
        self.hand(now, event, effects);
        self.tidy(now);
    }

    /// Something that was declared before: the next core is told, and none is made for it.
    pub fn remember(&mut self, event: &Event) {
        self.learn(event);
    }

    /// What the next core must be told.
    fn learn(&mut self, event: &Event) {
        match event {
            Event::Deploy { .. } => (self.closed, self.quarantined) = (None, false),
            Event::Remove => self.close(ClosedReason::Removed),
            Event::Shutdown => self.close(ClosedReason::ShuttingDown),
            _ if self.closed.is_some() => {}
            Event::Alias { alias, targets, latest: 0, .. } if targets.is_empty() => {
                if let Some(declared) = self.declared.as_deref_mut() {
                    declared.aliases.remove(alias);
                }
            }
            Event::Alias { alias, targets, latest, provisioned, draw } => {
                let (targets, draw) = (targets.clone(), draw.clone());
                let declared = DeclaredAlias { targets, latest: *latest, provisioned: *provisioned, draw };
                self.declared.get_or_insert_default().aliases.insert(*alias, declared);
            }
            Event::Name { version, policy } => {
                self.declared.get_or_insert_default().named.insert(*version, policy.clone());
            }
            Event::Unname { version } => {
                if let Some(declared) = self.declared.as_deref_mut() {
                    declared.named.remove(version);
                }
            }
            Event::SetAside { version, aside: true } => {
                self.declared.get_or_insert_default().aside.insert(*version);
            }
            Event::SetAside { version, aside: false } => {
                if let Some(declared) = self.declared.as_deref_mut() {
                    declared.aside.remove(version);
                }
            }
            Event::Provision { qualifier, settings: Some(settings) } => {
                self.declared.get_or_insert_default().provisions.insert(*qualifier, settings.clone());
            }
            Event::Provision { qualifier, settings: None } => {
                if let Some(declared) = self.declared.as_deref_mut() {
                    declared.provisions.remove(qualifier);
                }
            }
            Event::Sized { version, gpu } => self.resize(*version, *gpu),
            Event::Learnt { history } if self.core.is_none() => self.history = Some(history.clone()),
            Event::Reached { qualifier, target } if self.core.is_none() => {
                self.declared.get_or_insert_default().reached.insert(*qualifier, *target);
            }
            _ => return,
        }
        let nothing = |d: &mut Box<Declarations>| {
            let pointers = d.aliases.is_empty() && d.named.is_empty() && d.aside.is_empty();
            pointers && d.provisions.is_empty() && d.reached.is_empty()
        };
        self.declared.take_if(nothing);
    }

    fn resize(&mut self, version: VersionId, gpu: Gpu) {
        let serving = self.serving.iter_mut().filter(|(id, _)| *id == version).map(|(_, policy)| policy);
        let declared = self.declared.as_deref_mut().into_iter();
        let declared = declared.flat_map(|declared| {
            let aliases = declared.aliases.values_mut().flat_map(|alias| &mut alias.targets);
            let aliases = aliases.filter(|target| target.version == version).map(|target| &mut target.policy);
            aliases.chain(declared.named.get_mut(&version))
        });
        serving.chain(declared).for_each(|policy| Arc::make_mut(policy).need.gpu = gpu);
    }

    fn close(&mut self, closed: ClosedReason) {
        (self.closed, self.declared, self.serving) = (Some(closed), None, None);
        self.history = None;
    }

    /// Whether an event is worth a core.
    fn is_needed(&self, event: &Event) -> bool {
        if self.closed.is_some() || self.quarantined {
            return false;
        }
        match event {
            Event::Deploy { .. } => true,
            _ if self.serving.is_none() => false,
            Event::Attach { instance, .. } => instance.is_none(),
            Event::Arrive { .. } | Event::Adopt { .. } | Event::Provision { .. } | Event::Start { .. } => true,
            Event::Placer(FromPlacer::Restore { .. }) => true,
            Event::Backlog { backlog, .. } => backlog.count > 0,
            // The next core is told; until then nothing of it is wanted.
            Event::Alias { provisioned, .. } => *provisioned > 0,
            _ => false,
        }
    }

    fn refusal(&self) -> Refusal {
        match self.closed {
            _ if self.quarantined => Refusal::Quarantined,
            Some(ClosedReason::ShuttingDown) => Refusal::ShuttingDown,
            Some(ClosedReason::Removed) | None => Refusal::Removed,
        }
    }

    /// Tells a core made anew everything that was declared.
    fn replay(&mut self, now: Now, serve: bool, effects: &mut Vec<Effect>) {
        let declared = self.declared.as_deref_mut();
        let reached = declared.map(|declared| std::mem::take(&mut declared.reached)).unwrap_or_default();
        for (qualifier, target) in reached {
            self.hand(now, Event::Reached { qualifier, target }, effects);
        }
        if let Some(history) = self.history.take() {
            self.hand(now, Event::Learnt { history }, effects);
        }
        self.provide(now, effects);
        // Before what serves: an instance of a version that only an alias names would else be ended.
        self.point(now, effects);
        if let Some((version, policy)) = self.serving.clone().filter(|_| serve) {
            self.hand(now, Event::Serve { version, policy }, effects);
        }
    }

    /// Whether the fresh core has taken over what an event brings.
    fn knows(&self, event: &Event) -> bool {
        let Some(core) = self.core.as_deref() else { return false };
        match event {
            Event::Deploy { version, .. } => core.revisions().any(|(id, _)| id == *version),
            Event::Adopt { instance, .. } => core.instance(*instance).is_some(),
            Event::Occupy { ticket, .. } => core.is_placed(*ticket),
            _ => false,
        }
    }

    /// Tells the core what is provisioned.
    fn provide(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let provisions = self.declared.as_deref().map(|declared| declared.provisions.clone()).unwrap_or_default();
        for (qualifier, settings) in provisions {
            self.hand(now, Event::Provision { qualifier, settings: Some(settings) }, effects);
        }
    }

    /// Tells the core where aliases point, and which versions may be asked for by themselves.
    fn point(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let aliases = self.declared.as_deref().map(|declared| declared.aliases.clone()).unwrap_or_default();
        for (alias, declared) in aliases.iter() {
            let DeclaredAlias { targets, latest, provisioned, draw } = declared.clone();
            self.hand(now, Event::Alias { alias: *alias, targets, latest, provisioned, draw }, effects);
        }
        let named = self.declared.as_deref().map(|declared| declared.named.clone()).unwrap_or_default();
        for (version, policy) in named.iter() {
            self.hand(now, Event::Name { version: *version, policy: policy.clone() }, effects);
        }
        let aside = self.declared.as_deref().map(|declared| declared.aside.clone()).unwrap_or_default();
        for version in aside {
            self.hand(now, Event::SetAside { version, aside: true }, effects);
        }
    }

    fn hand(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        let Some(core) = self.core.as_deref_mut() else { return };
        let from = effects.len();
        core.step(now, event, effects);
        for effect in effects.iter().skip(from) {
            if let Effect::Promoted { version } = effect
                && let Some((_, revision)) = core.revisions().find(|(id, _)| id == version)
            {
                self.serving = Some((*version, revision.policy.clone()));
            }
        }
    }

    /// Drops a core of which nothing is left.
    fn tidy(&mut self, now: Now) {
        if let Some(core) = self.core.take_if(|core| self.adoption.is_none() && core.is_vacant()) {
            self.sequence = core.sequence();
            if self.closed.is_none() {
                self.history = core.history(now).map(Box::new);
            }
            if let Some(declared) = self.declared.as_deref_mut() {
                for (alias, draw) in core.draws() {
                    declared.aliases.get_mut(&alias).into_iter().for_each(|declared| declared.draw = draw.clone());
                }
            }
        }
    }

    /// A step panicked: replaces the half-stepped core. `from` is where the step's effects begin, `subject` what its event was
    /// about. [`CoreHost::step`] calls it; a shell that catches panics itself may.
    pub fn recover(
        &mut self,
        now: Now,
        subject: Subject,
        from: usize,
        panic: &(dyn Any + Send),
        effects: &mut Vec<Effect>,
    ) -> Recovery {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let cause = text.unwrap_or("a panic without a message").to_owned();
        let again = self.failed_at.is_some_and(|at| now.boot.saturating_sub(at) <= QUARANTINE);
        (self.failed_at, self.quarantined) = (Some(now.boot), self.quarantined || again);
        let half = effects.split_off(from.min(effects.len()));
        let Some(broken) = self.core.take() else {
            // Nothing was made yet, or nothing is left: only the request itself can be lost.
            settle_half(BTreeSet::new(), &subject, half, Refusal::CoreFailed, effects);
            return Recovery { cause, quarantined: self.quarantined };
        };
        let safe = effects.len();
        let quarantined = self.quarantined;
        let fresh = catch_unwind(AssertUnwindSafe(|| broken.rebuilt(now, &subject, half, quarantined, effects)));
        self.core = fresh.ok().map(Box::new);
        let settled = catch_unwind(AssertUnwindSafe(|| {
            // Before anything is decided: what is provisioned bounds how many instances there may be.
            if !self.quarantined {
                self.provide(now, effects);
            }
            if let Subject::Declaration(event) = subject
                && !self.knows(&event)
            {
                self.advance(now, *event, effects);
            }
            if self.adoption.is_none() {
                self.hand(now, Event::Tick, effects);
            }
            self.tidy(now);
        }));
        if (self.core.is_none() && effects.len() == safe) || settled.is_err() {
            self.abandon(&broken, safe, effects);
        }
        Recovery { cause, quarantined: self.quarantined }
    }

    /// Not even a fresh core can be had: whoever waits is refused, and every instance is ended as it is.
    fn abandon(&mut self, broken: &FunctionCore, safe: usize, effects: &mut Vec<Effect>) {
        effects.truncate(safe);
        (self.core, self.quarantined, self.sequence) = (None, true, broken.sequence());
        for ticket in broken.waiting() {
            effects.push(Effect::Refuse { ticket, refusal: Refusal::Quarantined });
        }
        for instance in broken.instances() {
            let (instance, version, operation) = (instance.id, instance.version, OperationNumber(u64::MAX));
            effects.push(Effect::Operate { instance, version, operation, what: Operate::Kill { autopsy: false } });
        }
    }
}

#[cfg(test)]
mod tests;
