//! Attachments: sessions of people in an instance, beside its requests. An attachment keeps its instance hot and takes no place of a
//! request. It does not hold back the end of an instance that a deployment, a removal or the end of the server asks for.

use std::collections::BTreeMap;

use kip_spec::{InstanceId, VersionId};
use serde::{Deserialize, Serialize};

use super::FunctionCore;
use crate::instance::{Goal, Instance};
use crate::placer::Urgency;
use crate::why::Refusal;
use crate::{Call, Class, Effect, Qualifier, StartKind, State, Ticket};

/// The attachments of a function.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Attachments {
    /// On which instance each is.
    pub(super) placed: BTreeMap<Ticket, InstanceId>,
    /// Those that wait for an instance.
    pub(super) waiting: BTreeMap<Ticket, WaitingAttachment>,
}

/// An attachment that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WaitingAttachment {
    version: VersionId,
    /// It wants this instance and no other.
    instance: Option<InstanceId>,
    since: u64,
    /// When it is refused, boot time.
    pub(super) deadline: u64,
}

impl Attachments {
    pub(super) fn is_empty(&self) -> bool {
        self.placed.is_empty() && self.waiting.is_empty()
    }
}

impl FunctionCore {
    /// See [`crate::Event::Attach`].
    pub(super) fn attach(
        &mut self,
        now: u64,
        ticket: Ticket,
        (to, instance): (Qualifier, Option<InstanceId>),
        effects: &mut Vec<Effect>,
    ) {
        let found = match (self.closing, instance) {
            (Some((refusal, _)), _) => Err(refusal),
            (None, Some(id)) => self.instances.get(&id).map(|found| found.version).ok_or(Refusal::InstanceGone),
            (None, None) => self.resolve(Call { to, ..Call::default() }).map(|(version, _)| version),
        };
        let limit = |version| self.revisions.get(&version).map(|revision| revision.policy.queue_timeout);
        match found.and_then(|version| Ok((version, limit(version).ok_or(Refusal::NoVersion)?))) {
            Ok((version, limit)) => {
                let waiting = WaitingAttachment { version, instance, since: now, deadline: now.saturating_add(limit) };
                self.attachments.waiting.insert(ticket, waiting);
            }
            Err(refusal) => effects.push(Effect::Refuse { ticket, refusal }),
        }
    }

    /// Gives waiting attachments their instances, and wakes the instances that they wait for.
    pub(super) fn place_attachments(&mut self, now: u64, effects: &mut Vec<Effect>) {
        if self.attachments.waiting.is_empty() {
            return;
        }
        for (ticket, waiting) in self.attachments.waiting.clone() {
            let target = waiting.instance.or_else(|| self.attachable(waiting.version));
            let Some(instance) = target.and_then(|id| self.instances.get(&id)) else {
                if waiting.instance.is_some() {
                    self.refuse_attachment(ticket, Refusal::InstanceGone, effects);
                }
                continue;
            };
            let (id, state) = (instance.id, instance.state);
            match state.class() {
                Class::Hot => self.put_attachment(ticket, (id, waiting.since), now, effects),
                Class::Asleep if instance.goal.is_none() && !instance.wants_room && state.rung().is_some() => {
                    self.wake(now, id, Urgency::Demand, effects);
                }
                // It falls asleep, and is woken when it has.
                Class::Asleep | Class::Starting if !matches!(instance.goal, Some((Goal::Stop, _))) => {}
                Class::Leaving if matches!(instance.goal, Some((Goal::Sleep(_), _))) => {}
                _ if waiting.instance.is_some() => self.refuse_attachment(ticket, Refusal::InstanceGone, effects),
                _ => {}
            }
        }
    }

    /// An attachment is over, or its person left while it waited. True if it was one.
    pub(super) fn detach(&mut self, now: u64, ticket: Ticket) -> bool {
        if self.attachments.waiting.remove(&ticket).is_some() {
            return true;
        }
        let Some(id) = self.attachments.placed.remove(&ticket) else { return false };
        if let Some(instance) = self.instances.get_mut(&id) {
            debug_assert!(instance.attached > 0, "{ticket:?} leaves {id}, which has no attachment");
            instance.attached = instance.attached.saturating_sub(1);
            if instance.state.class() == Class::Hot {
                instance.settle(now);
            }
        }
        true
    }

    /// Whether attachments without an instance of their choice wait for a version.
    pub(super) fn attachments_wait(&self, version: VersionId) -> bool {
        let waits = |waiting: &WaitingAttachment| waiting.version == version && waiting.instance.is_none();
        self.attachments.waiting.values().any(waits)
    }

    /// Whether an attachment waits for this very instance.
    pub(super) fn is_awaited(&self, instance: &Instance) -> bool {
        self.attachments.waiting.values().any(|waiting| waiting.instance == Some(instance.id))
    }

    /// Refuses the attachments that wait for a version, or all of them.
    pub(super) fn refuse_attachments(&mut self, of: Option<VersionId>, refusal: Refusal, effects: &mut Vec<Effect>) {
        let meant = |waiting: &WaitingAttachment| of.is_none_or(|version| waiting.version == version);
        let refused: Vec<Ticket> =
            self.attachments.waiting.iter().filter(|(_, waiting)| meant(waiting)).map(|(ticket, _)| *ticket).collect();
        refused.into_iter().for_each(|ticket| self.refuse_attachment(ticket, refusal, effects));
    }

    /// Refuses those that have waited as long as they may.
    pub(super) fn expire_attachments(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let late = |waiting: &WaitingAttachment| waiting.deadline <= now;
        let late: Vec<(Ticket, u64)> = self
            .attachments
            .waiting
            .iter()
            .filter(|(_, waiting)| late(waiting))
            .map(|(ticket, waiting)| (*ticket, now.saturating_sub(waiting.since)))
            .collect();
        for (ticket, waited) in late {
            self.refuse_attachment(ticket, Refusal::QueueTimeout { waited }, effects);
        }
    }

    fn refuse_attachment(&mut self, ticket: Ticket, refusal: Refusal, effects: &mut Vec<Effect>) {
        self.attachments.waiting.remove(&ticket);
        effects.push(Effect::Refuse { ticket, refusal });
    }

    fn put_attachment(
        &mut self,
        ticket: Ticket,
        (id, waits_since): (InstanceId, u64),
        now: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        // What it waited for: an instance that became hot meanwhile was started or woken for it.
        let start = if instance.hot_since >= waits_since && instance.hot_since > instance.born {
            instance.hot_from
        } else {
            StartKind::Warm
        };
        instance.attached += 1;
        instance.settle(now);
        self.attachments.waiting.remove(&ticket);
        self.attachments.placed.insert(ticket, id);
        effects.push(Effect::Dispatch { ticket, instance: id, start });
    }

    /// The instance that an attachment without a choice goes to: a hot one, else one that will be hot, else the best sleeper.
    fn attachable(&self, version: VersionId) -> Option<InstanceId> {
        let own = || self.instances.values().filter(move |instance| instance.version == version);
        let hot = own().filter(|instance| instance.state.class() == Class::Hot && instance.goal.is_none());
        let hot = hot.min_by_key(|i| (i.unready || i.lost, i.replace.is_some(), i.attached, i.in_flight, i.id));
        let coming = || own().find(|i| matches!(i.state, State::Starting | State::Initializing | State::Waking));
        hot.or_else(coming).map(|instance| instance.id).or_else(|| self.best_sleeper(version))
    }
}
