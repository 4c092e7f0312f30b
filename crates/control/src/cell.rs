//! One function in the server: a short mutex around its core, made on first use and dropped when nothing of it is left.

mod looks;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Weak};

use kip_engine::{InstanceEnd, StartError};
use kip_fleet::router::Message;
use kip_fleet::{
    Backlog, Call, Change, Class, CoreHost, CoreNumber, Effect, Event, FoundState, FunctionCore, Inventory, Now, Place,
    ProbeFailure, Qualifier, Reason, Recovery, Refusal, RoomNeed, Shortage, StartFailure, StartKind, State, Ticket,
};
use kip_spec::scaling::Fc;
use kip_spec::sticky::Sticky;
use kip_spec::{FunctionName, InstanceId, QualifierName, VersionId};
use kip_wire::VersionStatus;
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::{Notify, oneshot};

use crate::Version;
use crate::bodies::Bodies;
use crate::http_triggers::HttpTriggers;
use crate::link::{Link, Presence};
use crate::outcomes::Outcomes;
use crate::permit::{Permit, QueuedRequest, RequestRefusal, Verdict};
use crate::qualifiers::{Qualifiers, Resolution};
use crate::tally::Tally;
use crate::unused::UnusedInstances;

/// What a function reaches of the server around it.
pub(crate) trait Surroundings: std::fmt::Debug + Send + Sync {
    /// How often the server was started, this time included.
    fn boot(&self) -> u32;
    fn bodies(&self) -> Bodies;
    fn inventory(&self) -> Inventory;
    fn post(&self, message: Message);
    /// Called under the cell's lock.
    fn instance_changed(
        &self,
        cell: &Arc<Cell>,
        change: Change,
        place: Option<Place>,
        detail: Option<&Arc<str>>,
        link: Option<&Arc<Link>>,
    );
    /// What keeps an instance from the room that it waits for.
    fn in_the_way(&self, instance: InstanceId) -> Option<String>;
    /// What of the devices, of memory or of a quota an instance lacks.
    fn missing(&self, need: RoomNeed, lack: Shortage) -> String;
    /// The instance is gone: nobody asks for its owner any more.
    fn disown(&self, instance: InstanceId);
    /// Called under the cell's lock, right after the step.
    fn note_scaling(
        &self,
        cell: &Cell,
        core: &FunctionCore,
        told: &mut LastLogged,
        looked: (PolicyObservation, Option<String>),
    );
    /// Offers a place to tasks. False if it comes back at once.
    fn offer(&self, permit: Permit) -> bool;
    fn carry_out(self: Arc<Self>, cell: &Arc<Cell>, effect: Effect);
}

/// Which policy looked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PolicyObservation {
    Version(VersionId),
    Qualifier(Qualifier),
}

/// By policy, what was last written into the decision log, where only changes are.
pub(crate) type LastLogged = BTreeMap<String, LastLook>;

/// The last look of a policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastLook {
    /// What it wanted.
    pub(crate) wanted: u32,
    /// Looks since the last first line.
    pub(crate) looks: u32,
    /// Since when its metric is above its target, milliseconds since 1970.
    pub(crate) above: Option<i64>,
}

/// One function.
#[derive(Debug)]
pub struct Cell {
    pub(crate) number: CoreNumber,
    name: FunctionName,
    around: Weak<dyn Surroundings>,
    pub(crate) tally: Tally,
    /// Places offered to tasks and not yet taken, by version.
    offered: Mutex<BTreeMap<VersionId, u32>>,
    /// Places whose work goes on when the server ends.
    pub(crate) outliving: AtomicU32,
    /// What HTTP triggers of a facade say in the place of the declaration.
    pub(crate) http: RwLock<Option<Arc<HttpTriggers>>>,
    /// It takes no invocations.
    pub(crate) disabled: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    host: CoreHost,
    next_ticket: u64,
    /// The version that serves, as far as routes and triggers are concerned.
    serving: Arc<Version>,
    /// Every version that the core may speak of.
    pub(crate) versions: BTreeMap<VersionId, Arc<Version>>,
    /// What callers can name besides LATEST.
    pub(crate) qualifiers: Option<Box<Qualifiers>>,
    /// What is provisioned from outside, by qualifier.
    pub(crate) provisions: BTreeMap<String, Arc<Fc>>,
    pub(crate) told: LastLogged,
    /// The versions for which tasks waited when that was last told.
    reported: Vec<VersionId>,
    /// What is provisioned and nobody uses, as it was last found.
    pub(crate) unused: Option<Box<UnusedInstances>>,
    waiters: HashMap<Ticket, oneshot::Sender<Verdict>>,
    /// Told when a request has to wait; none where nobody ever listened.
    pub(crate) arrivals: Option<Arc<Notify>>,
    pub(crate) links: HashMap<InstanceId, Arc<Link>>,
    /// Instances whose start is under way: their end is reported by the start itself.
    pub(crate) starting: Vec<InstanceId>,
    /// Those of them whose program has ended, perhaps after its start was seen to succeed.
    pub(crate) ended_early: Vec<InstanceEnd>,
    pub(crate) outcomes: Outcomes,
    last_failure: Option<Arc<str>>,
    /// What was kept of instances before they were ended by force, until that is written down.
    pub(crate) autopsies: HashMap<InstanceId, Arc<str>>,
    effects: Vec<Effect>,
    closing: bool,
    /// The server ends and its instances stay.
    leaving: bool,
}

/// The core's answer to a request.
#[derive(Debug)]
pub enum Admission {
    /// Go ahead.
    Granted(Permit),
    /// Await this.
    Waiting(QueuedRequest),
    /// No.
    Refused(RequestRefusal),
    /// The version is not known here yet: ask again after [`crate::Control::load_version`].
    Unloaded,
}

pub(crate) fn now() -> Now {
    Now { boot: kip_host::clock::boot_millis(), wall: kip_host::clock::wall_millis() }
}

/// Hands the core an event.
fn step(event: Event) -> impl FnOnce(&mut CoreHost, &mut Vec<Effect>) -> Option<Recovery> {
    move |host, effects| host.step(now(), event, effects)
}

impl Inner {
    pub(crate) fn serving(&self) -> &Arc<Version> {
        &self.serving
    }
}

impl Cell {
    pub(crate) fn new(number: CoreNumber, version: Arc<Version>, around: Weak<dyn Surroundings>) -> Self {
        let boot = around.upgrade().map_or(0, |around| around.boot());
        let inner = Inner {
            host: CoreHost::new(boot, number, Some((version.id, version.policy()))),
            next_ticket: 0,
            versions: BTreeMap::from([(version.id, version.clone())]),
            serving: version.clone(),
            qualifiers: None,
            provisions: BTreeMap::new(),
            told: LastLogged::new(),
            reported: Vec::new(),
            unused: None,
            arrivals: None,
            waiters: HashMap::new(),
            links: HashMap::new(),
            starting: Vec::new(),
            ended_early: Vec::new(),
            outcomes: Outcomes::default(),
            last_failure: None,
            autopsies: HashMap::new(),
            effects: Vec::new(),
            closing: false,
            leaving: false,
        };
        Self {
            number,
            name: version.spec.name.clone(),
            around,
            tally: Tally::default(),
            offered: Mutex::default(),
            outliving: AtomicU32::new(0),
            http: RwLock::default(),
            disabled: AtomicBool::new(false),
            inner: Mutex::new(inner),
        }
    }

    /// The function's name.
    pub fn name(&self) -> &FunctionName {
        &self.name
    }

    /// The version that serves.
    pub fn serving(&self) -> Arc<Version> {
        self.lock().serving.clone()
    }

    /// Asks for an instance of the version that a qualifier means, or that the function's traffic goes to. `caller` says who calls, where
    /// an alias keeps callers on their version. Dropping what this gives, at any time, frees the place.
    pub fn admit(
        self: &Arc<Self>,
        asked: Option<&QualifierName>,
        caller: impl FnOnce(&Sticky) -> Option<u64>,
    ) -> Admission {
        let inner = self.lock();
        if inner.leaving {
            return Admission::Refused(RequestRefusal { refusal: Refusal::ShuttingDown, detail: None });
        }
        let (to, qualifier, caller) = match inner.resolve(asked) {
            Resolution::Known(to, qualifier, sticky) => (to, qualifier, sticky.and_then(caller)),
            Resolution::Unloaded => return Admission::Unloaded,
            Resolution::Unknown => {
                return Admission::Refused(RequestRefusal { refusal: Refusal::NoVersion, detail: None });
            }
        };
        let call = Call { to, caller, ..Call::default() };
        self.ask(inner, |ticket| Event::Arrive { ticket, call }, qualifier)
    }

    /// Hands the core an event that it answers with an instance, now or later.
    fn ask(
        self: &Arc<Self>,
        mut inner: MutexGuard<'_, Inner>,
        event: impl FnOnce(Ticket) -> Event,
        qualifier: Option<QualifierName>,
    ) -> Admission {
        let ticket = Ticket(inner.next_ticket);
        inner.next_ticket += 1;
        inner.unused = None;
        let mut after = self.run(&mut inner, step(event(ticket)), Some(ticket));
        let admission = match after.own.take() {
            Some(Verdict::Go { link, start }) => {
                Admission::Granted(Permit::new(self.clone(), ticket, link, start).of(qualifier))
            }
            Some(Verdict::Refused(refused)) => Admission::Refused(refused),
            None => {
                let (sender, receiver) = oneshot::channel();
                inner.waiters.insert(ticket, sender);
                inner.arrivals.iter().for_each(|arrivals| arrivals.notify_waiters());
                Admission::Waiting(QueuedRequest::new(self.clone(), ticket, qualifier, receiver))
            }
        };
        drop(inner);
        self.carry_out(after);
        admission
    }

    /// Asks for an instance that a session can be in: this one, or one of the version that a qualifier means. It takes no place of a
    /// request. Dropping what this gives, at any time, lets go of it.
    pub(crate) fn attach(self: &Arc<Self>, asked: Option<&QualifierName>, instance: Option<InstanceId>) -> Admission {
        let inner = self.lock();
        if inner.leaving {
            return Admission::Refused(RequestRefusal { refusal: Refusal::ShuttingDown, detail: None });
        }
        let to = match inner.resolve(asked) {
            Resolution::Known(to, ..) => to,
            Resolution::Unloaded => return Admission::Unloaded,
            Resolution::Unknown => {
                return Admission::Refused(RequestRefusal { refusal: Refusal::NoVersion, detail: None });
            }
        };
        self.ask(inner, |ticket| Event::Attach { ticket, to, instance }, None)
    }

    /// An instance of what a qualifier means that can answer now, for a request that takes no place, wakes nobody and holds nobody; or the state of the instance
    /// that is nearest to that, if there is one.
    ///
    /// # Errors
    /// When no instance can answer now.
    pub fn beside(self: &Arc<Self>, asked: Option<&QualifierName>) -> Result<Permit, Option<State>> {
        let inner = self.lock();
        let meant = inner.meant(asked);
        let of_it = |version| meant.as_ref().is_none_or(|meant| meant.contains(&version));
        let instances = || {
            let all = inner.host.core().into_iter().flat_map(FunctionCore::instances);
            all.filter(|instance| of_it(instance.version))
        };
        let hot = instances().filter(|instance| instance.state.class() == Class::Hot && !instance.unready);
        match hot.filter_map(|instance| inner.links.get(&instance.id)).next() {
            Some(link) => Ok(Permit::beside(self.clone(), link.clone())),
            None => Err(instances().map(|instance| instance.state).min_by_key(|state| state.class())),
        }
    }

    /// So many tasks are ready for each version, the oldest since then (boot-time milliseconds). Places come through
    /// [`crate::Control::offers`].
    pub fn backlog(self: &Arc<Self>, ready: &BTreeMap<VersionId, (u32, u64)>) {
        let mut inner = self.lock();
        if inner.leaving {
            return;
        }
        let now_none = inner.reported.iter().filter(|version| !ready.contains_key(version)).copied();
        let versions: Vec<VersionId> = now_none.chain(ready.keys().copied()).collect();
        let mut after = PendingWork::default();
        for version in versions {
            let (ready, oldest) = ready.get(&version).copied().unwrap_or_default();
            // Those that are on their way to a task already are not to be offered again.
            let offered = self.offered.lock().get(&version).copied().unwrap_or(0);
            let count = ready.saturating_sub(offered);
            if inner.host.core().is_none() && count == 0 {
                continue;
            }
            let event = Event::Backlog { version, backlog: Backlog { count, oldest } };
            after.extend(self.run(&mut inner, step(event), None));
        }
        inner.reported = ready.keys().copied().collect();
        inner.arrivals.iter().filter(|_| !ready.is_empty()).for_each(|arrivals| arrivals.notify_waiters());
        drop(inner);
        self.carry_out(after);
    }

    /// A place on an instance of a version that was offered has been given to a task, or is given back.
    pub fn offer_taken(&self, version: VersionId) {
        let mut offered = self.offered.lock();
        if let Some(count) = offered.get_mut(&version) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                offered.remove(&version);
            }
        }
    }

    /// Hands the core an event and carries out what it wants.
    pub(crate) fn step(self: &Arc<Self>, event: Event) {
        let mut inner = self.lock();
        let after = self.run(&mut inner, step(event), None);
        drop(inner);
        self.carry_out(after);
    }

    /// What there is for instances; nothing once the server is gone.
    pub(crate) fn bodies(&self) -> Option<Bodies> {
        self.around.upgrade().map(|around| around.bodies())
    }

    /// Why no host has what an instance of a version needs.
    fn unmet_need(&self, version: &Version) -> String {
        let kind = version.spec.resources.gpu.as_ref().and_then(|gpu| gpu.kind.as_deref());
        let inventory = self.inventory().unwrap_or_default();
        crate::devices::unmet(&inventory, version.policy().need, kind)
    }

    /// What keeps one of its instances from the room that it waits for. Not under its own lock.
    pub(crate) fn in_the_way(&self, instance: InstanceId) -> Option<String> {
        self.around.upgrade()?.in_the_way(instance)
    }

    /// What of the devices, of memory or of a quota an instance lacks. Not under its own lock.
    pub(crate) fn missing(&self, need: RoomNeed, lack: Shortage) -> Option<String> {
        Some(self.around.upgrade()?.missing(need, lack))
    }

    pub(crate) fn inventory(&self) -> Option<Inventory> {
        self.around.upgrade().map(|around| around.inventory())
    }

    /// Adds a version and hands it to the core.
    pub(crate) fn deploy(self: &Arc<Self>, version: Arc<Version>) {
        let mut inner = self.lock();
        inner.closing = false;
        inner.outcomes.overtaken(version.id);
        inner.outcomes.set(version.id, version.ordinal, VersionStatus::Candidate);
        let event = Event::Deploy { version: version.id, policy: version.policy() };
        inner.versions.insert(version.id, version);
        let after = self.run(&mut inner, step(event), None);
        drop(inner);
        self.carry_out(after);
    }

    /// Takes over an instance of an earlier server.
    pub(crate) fn adopt(self: &Arc<Self>, link: Link, found: FoundState) {
        let mut inner = self.lock();
        let (instance, version) = (link.instance, link.version.clone());
        inner.versions.insert(version.id, version.clone());
        inner.links.insert(instance, Arc::new(link));
        let event = Event::Adopt { instance, version: version.id, policy: version.policy(), found };
        let after = self.run(&mut inner, step(event), None);
        drop(inner);
        self.carry_out(after);
    }

    /// A place for work of an earlier server that goes on on an adopted instance. None if that is not awake.
    pub(crate) fn occupy(self: &Arc<Self>, instance: InstanceId) -> Option<Permit> {
        let mut inner = self.lock();
        let link = inner.links.get(&instance)?.clone();
        let ticket = Ticket::inherited(inner.next_ticket);
        inner.next_ticket += 1;
        let after = self.run(&mut inner, step(Event::Occupy { ticket, instance }), None);
        drop(inner);
        self.carry_out(after);
        self.is_placed(ticket).then(|| Permit::new(self.clone(), ticket, link, StartKind::Warm))
    }

    /// Decisions begin: every instance of an earlier server is known. Makes the core of a function that wants something by
    /// itself.
    pub(crate) fn begin(self: &Arc<Self>) {
        let mut inner = self.lock();
        let after = self.run(&mut inner, |host, effects| host.serve(now(), effects), None);
        drop(inner);
        self.carry_out(after);
    }

    /// What was declared before this server began.
    pub(crate) fn remember(&self, event: &Event) {
        self.lock().host.remember(event);
    }

    /// Whether it wants instances without being asked.
    pub(crate) fn wants_by_itself(&self) -> bool {
        self.lock().host.wants_by_itself()
    }

    fn scaled(&self, inner: &mut Inner, looked: PolicyObservation) {
        let whom = match looked {
            PolicyObservation::Version(_) => None,
            PolicyObservation::Qualifier(qualifier) => Some(inner.name_of(qualifier)),
        };
        let Inner { host, told, .. } = inner;
        if let (Some(core), Some(shared)) = (host.core(), self.around.upgrade()) {
            shared.note_scaling(self, core, told, (looked, whom));
        }
    }

    /// Refuses every request that waits, because the server ends. Those that come now are refused as well.
    pub(crate) fn refuse_waiting(&self) {
        let mut inner = self.lock();
        inner.leaving = true;
        let waiters = std::mem::take(&mut inner.waiters);
        drop(inner);
        // Each one that is dropped tells its request so, and that gives its place back.
        drop(waiters);
    }

    /// Closes the function for good, with the given event.
    pub(crate) fn close(self: &Arc<Self>, event: Event) {
        self.lock().closing = true;
        self.step(event);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    fn run(
        self: &Arc<Self>,
        inner: &mut Inner,
        act: impl FnOnce(&mut CoreHost, &mut Vec<Effect>) -> Option<Recovery>,
        own: Option<Ticket>,
    ) -> PendingWork {
        let mut effects = std::mem::take(&mut inner.effects);
        if let Some(Recovery { cause, quarantined }) = act(&mut inner.host, &mut effects) {
            tracing::error!(function = %self.name, cause, quarantined, "a fault in what decides for a function");
        }
        let mut after = PendingWork::default();
        let mut lost = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Dispatch { ticket, instance, start } => {
                    let Some(link) = inner.links.get(&instance).cloned() else {
                        after.deliver(
                            inner,
                            own,
                            ticket,
                            Verdict::Refused(RequestRefusal { refusal: Refusal::CoreFailed, detail: None }),
                        );
                        lost.push((ticket, instance));
                        continue;
                    };
                    link.sign();
                    after.deliver(inner, own, ticket, Verdict::Go { link, start });
                }
                Effect::Offer { ticket, instance, start } => {
                    let Some(link) = inner.links.get(&instance).cloned() else {
                        lost.push((ticket, instance));
                        continue;
                    };
                    link.sign();
                    *self.offered.lock().entry(link.version.id).or_default() += 1;
                    after.offers.push(Permit::new(self.clone(), ticket, link, start));
                }
                Effect::Refuse { ticket, refusal } => {
                    let detail = match refusal {
                        // No program was started, so nothing is known of it.
                        Refusal::Backoff { failure: StartFailure::NoRoom, .. } => None,
                        Refusal::NeverFits { .. } => Some(self.unmet_need(inner.serving()).into()),
                        Refusal::StartFailed(_) | Refusal::Backoff { .. } => inner.last_failure.clone(),
                        _ => None,
                    };
                    after.deliver(inner, own, ticket, Verdict::Refused(RequestRefusal { refusal, detail }));
                }
                // In the order of steps, so still under the lock: the placer would keep the room of an instance whose
                // release overtook its ask. The router's own lock guards a queue and nothing is stepped under it.
                Effect::Tell(message) => {
                    if let Some(shared) = self.around.upgrade() {
                        shared.post(Message::ToPlacer(message));
                    }
                }
                Effect::Changed(change) => {
                    self.tally.note(&change);
                    let autopsy = inner.autopsies.remove(&change.instance);
                    let presence = match change.to {
                        State::Stopping => Some(Presence::Leaving),
                        State::Gone(_) => Some(Presence::Gone),
                        _ => None,
                    };
                    if let (Some(presence), Some(link)) = (presence, inner.links.get(&change.instance)) {
                        link.ends_as(presence);
                    }
                    // One that ends by itself has its own story to tell.
                    if change.to == State::Stopping
                        && !matches!(change.why, Reason::Exited(_))
                        && let Some(link) = inner.links.get(&change.instance)
                    {
                        link.ends(change.why);
                    }
                    if let Some(shared) = self.around.upgrade() {
                        let detail = autopsy.as_ref().or_else(|| {
                            let by_program = matches!(change.why, Reason::StartFailed(_) | Reason::Exited(_));
                            inner.last_failure.as_ref().filter(|_| by_program)
                        });
                        let known = inner.host.core().and_then(|core| core.instance(change.instance));
                        let place = known.map(|instance| instance.place);
                        shared.instance_changed(self, change, place, detail, inner.links.get(&change.instance));
                    }
                    self.note(inner, &effect);
                }
                Effect::Scaled { version } => self.scaled(inner, PolicyObservation::Version(version)),
                Effect::Provisioned { qualifier } => self.scaled(inner, PolicyObservation::Qualifier(qualifier)),
                other => {
                    self.note(inner, &other);
                    after.effects.push(other);
                }
            }
        }
        // A function at rest keeps no room for effects: most functions are.
        inner.effects = if inner.host.core().is_some() { effects } else { Vec::new() };
        for (ticket, instance) in lost {
            let more = self.replace_unknown(inner, ticket, instance);
            after.extend(more);
        }
        after
    }

    /// The core gave a place on an instance that the shell does not know, which must not be: the instance goes, and its place with it.
    fn replace_unknown(self: &Arc<Self>, inner: &mut Inner, ticket: Ticket, instance: InstanceId) -> PendingWork {
        tracing::error!(function = %self.name, %instance, "a place on an instance that is not known; it is replaced");
        let act = |host: &mut CoreHost, effects: &mut Vec<Effect>| {
            let unhealthy = Event::Unhealthy { instance, how: ProbeFailure::Refused };
            let first = host.step(now(), unhealthy, effects);
            host.step(now(), Event::Leave { ticket }, effects).or(first)
        };
        self.run(inner, act, None)
    }

    /// What the shell itself must remember of an effect.
    fn note(&self, inner: &mut Inner, effect: &Effect) {
        match effect {
            Effect::Promoted { version } => {
                if let Some(version) = inner.versions.get(version) {
                    inner.serving = version.clone();
                }
                let ordinal = inner.versions.get(version).map_or(0, |version| version.ordinal);
                inner.outcomes.set(*version, ordinal, VersionStatus::Serving);
            }
            Effect::VersionFailed { version, failure } => {
                let detail = match (failure, inner.versions.get(version)) {
                    (StartFailure::NoRoom, Some(version)) => self.unmet_need(version),
                    _ => Self::last_failure(inner).as_deref().unwrap_or_default().to_owned(),
                };
                let status = VersionStatus::Failed { code: failure.code(), why: failure.to_string(), detail };
                let ordinal = inner.versions.get(version).map_or(0, |version| version.ordinal);
                inner.outcomes.set(*version, ordinal, status);
            }
            Effect::Changed(change) if matches!(change.to, State::Gone(_)) => {
                inner.links.remove(&change.instance);
                if let Some(shared) = self.around.upgrade() {
                    shared.disown(change.instance);
                }
                let (core, serving) = (inner.host.core(), inner.serving.id);
                let known: Vec<VersionId> =
                    core.map(|core| core.revisions().map(|(id, _)| id).collect()).unwrap_or_default();
                let Inner { versions, qualifiers, .. } = inner;
                versions.retain(|id, _| {
                    *id == serving || known.contains(id) || qualifiers.as_deref().is_some_and(|named| named.names(*id))
                });
            }
            _ => {}
        }
    }

    /// Remembers why a start failed, for refusals and the decision log.
    pub(crate) fn note_failure(&self, error: &StartError) -> Arc<str> {
        let ours = error.detail.replace('\n', " ");
        let lines = error.last_lines.iter().map(String::as_str);
        let text = std::iter::once(ours.as_str())
            .filter(|ours| !ours.is_empty())
            .chain(lines.clone())
            .collect::<Vec<_>>()
            .join("\n");
        // What the program wrote is for those who may read logs: it begins behind the first line.
        let kept = std::iter::once(ours.as_str()).chain(lines).collect::<Vec<_>>().join("\n");
        self.lock().last_failure = Some(kept.into());
        text.into()
    }

    /// Looks at the core, if there is one.
    pub(crate) fn look<T>(&self, inner: &Inner, with: impl FnOnce(&FunctionCore) -> T) -> Option<T> {
        inner.host.core().map(with)
    }

    pub(crate) fn last_failure(inner: &Inner) -> Option<Arc<str>> {
        inner.last_failure.as_deref().map(|text| text.trim_start_matches('\n').into())
    }

    fn carry_out(self: &Arc<Self>, PendingWork { effects, offers, .. }: PendingWork) {
        for permit in offers {
            let version = permit.link().version.id;
            // Not under the lock: one that nobody takes is given back at once.
            let offered = self.around.upgrade().is_some_and(|shared| shared.offer(permit));
            if !offered {
                self.offer_taken(version);
            }
        }
        if effects.is_empty() {
            return;
        }
        if let Some(shared) = self.around.upgrade() {
            for effect in effects {
                shared.clone().carry_out(self, effect);
            }
        }
    }
}

/// What is left to do after the lock is released.
#[derive(Default)]
struct PendingWork {
    own: Option<Verdict>,
    effects: Vec<Effect>,
    offers: Vec<Permit>,
}

impl PendingWork {
    fn extend(&mut self, more: Self) {
        self.effects.extend(more.effects);
        self.offers.extend(more.offers);
    }

    fn deliver(&mut self, inner: &mut Inner, own: Option<Ticket>, ticket: Ticket, verdict: Verdict) {
        if own == Some(ticket) {
            self.own = Some(verdict);
        } else if let Some(waiter) = inner.waiters.remove(&ticket) {
            // A caller that left in this moment drops its hold, which gives the place back.
            let _ = waiter.send(verdict);
        }
    }
}
