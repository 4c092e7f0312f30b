//! Which versions there are and what each is for: deployments, promotions, aliases, the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_spec::{InstanceId, VersionId};

use super::{FunctionCore, Revision, Role};
use crate::alias::{Alias, Pointer};
use crate::instance::Goal;
use crate::why::{Reason, Refusal, StartFailure};
use crate::{AliasNumber, Class, Effect, Now, Policy, State, Target};

impl FunctionCore {
    pub(super) fn deploy(&mut self, now: u64, version: VersionId, policy: Arc<Policy>, effects: &mut Vec<Effect>) {
        self.closing = None;
        let something_runs = !self.instances.is_empty() || self.revisions.values().any(|r| !r.queue.is_empty());
        for candidate in self.in_role(Role::Candidate) {
            self.step_down(candidate);
        }
        let serving = self.revisions.values().any(|revision| revision.role == Role::Serving);
        // One that served before may still have instances.
        let proven =
            policy.unproven || self.instances.values().any(|i| i.version == version && i.state.class() == Class::Hot);
        let role = if serving && something_runs && !proven { Role::Candidate } else { Role::Serving };
        // The traffic is that of the version before.
        let time = Now { boot: now, wall: self.wall };
        let learnt = self.learnt.take().map(|history| *history).or_else(|| self.history(time));
        match self.revisions.get_mut(&version) {
            Some(known) => known.role = role,
            None => {
                let mut fresh = Revision::new(role, policy, true);
                learnt.iter().for_each(|history| fresh.learn(history));
                self.revisions.insert(version, fresh);
            }
        }
        if role == Role::Serving {
            self.promote(now, version, effects);
        }
    }

    /// A version serves that served before this core was made.
    pub(super) fn serve(&mut self, now: u64, version: VersionId, policy: Arc<Policy>, effects: &mut Vec<Effect>) {
        let revision = self.revisions.get_or_insert_with(version, || Revision::new(Role::Serving, policy, false));
        revision.role = Role::Serving;
        if let Some(history) = self.learnt.take() {
            revision.learn(&history);
        }
        let found = self.instances.values().filter(|instance| instance.version == version).count();
        revision.scaler.found(now, found);
        self.count_named();
        let Some(revision) = self.revisions.get(&version) else { return };
        let maximum = usize::try_from(revision.maximum()).unwrap_or(usize::MAX);
        // More than there may be: the earlier server was replacing one, which was to finish what it had and then to go.
        let own = || self.instances.values().filter(|instance| instance.version == version);
        let surplus = own().count().saturating_sub(maximum);
        let busy = own().filter(|instance| instance.inherited.is_some());
        let leaving: Vec<InstanceId> = busy.map(|instance| instance.id).take(surplus).collect();
        leaving.into_iter().for_each(|id| self.set_goal(now, id, Goal::Stop, Reason::NoLongerNeeded, effects));
    }

    /// Makes a version the serving one; the one before drains its own queue, as long as it has an instance to do so.
    pub(super) fn promote(&mut self, now: u64, version: VersionId, effects: &mut Vec<Effect>) {
        for before in self.in_role(Role::Serving).into_iter().filter(|before| *before != version) {
            self.step_down(before);
            let lives = self.instances.values().any(|instance| {
                let works = matches!(instance.state.class(), Class::Hot | Class::Starting);
                instance.version == before && works && instance.state != State::Requested
            });
            if !lives {
                self.hand_over(before, version);
            }
        }
        // Tasks wait outside for whatever serves; how many there are is said again for the new version alone.
        let waiting = self.revisions.iter_mut().filter(|(other, _)| **other != version);
        let backlog =
            waiting.map(|(_, revision)| std::mem::take(&mut revision.backlog)).find(|backlog| backlog.count > 0);
        if let Some(revision) = self.revisions.get_mut(&version) {
            revision.role = Role::Serving;
            if revision.backlog.count == 0 {
                revision.backlog = backlog.unwrap_or_default();
            }
        }
        // What aliases keep of the version that serves is kept of this one now.
        self.count_named();
        effects.push(Effect::Promoted { version });
        self.reconcile(now, effects);
    }

    /// Requests that any version may serve go from one that has nobody to serve them to another, as far as it has places.
    fn hand_over(&mut self, from: VersionId, to: VersionId) {
        let Some(waiting) = self.revisions.get_mut(&from).map(|revision| revision.queue.take_unpinned()) else {
            return;
        };
        for (ticket, waiting) in waiting {
            let free = self.revisions.get(&to).is_some_and(|to| to.queue.depth() < to.policy.queue_depth);
            if let Some(revision) = self.revisions.get_mut(if free { &to } else { &from }) {
                revision.queue.push(ticket, waiting);
            }
        }
    }

    /// A candidate did not prove itself.
    pub(super) fn candidate_failed(
        &mut self,
        now: u64,
        version: VersionId,
        failure: StartFailure,
        effects: &mut Vec<Effect>,
    ) {
        let recreates = self.revisions.get(&version).is_some_and(|revision| revision.policy.recreate);
        self.step_down(version);
        if recreates {
            let serving = self.revisions.iter().find(|(_, revision)| revision.role == Role::Serving);
            if let Some(serving) = serving.map(|(version, _)| *version) {
                self.come_back(now, serving, Reason::CandidateFailed);
            }
        }
        effects.push(Effect::VersionFailed { version, failure });
    }

    /// An alias points elsewhere. Versions that only it named retire, and its requests that were not sent yet are drawn again.
    pub(super) fn point(&mut self, number: AliasNumber, alias: Option<Alias>, targets: &[Target]) {
        for target in targets {
            self.name(target.version, &target.policy);
        }
        match alias {
            Some(mut alias) => {
                self.draw_again(number, &mut alias);
                self.aliases.insert(number, alias);
            }
            None => drop(self.aliases.remove(&number)),
        }
        self.count_named();
        self.retire_unnamed();
    }

    /// What aliases keep of each version.
    fn count_named(&mut self) {
        let (aliases, serving) = (&self.aliases, self.serving());
        for (version, revision) in self.revisions.iter_mut() {
            revision.named_minimum = aliases.values().map(|alias| alias.provisioned(*version, serving)).sum();
        }
    }

    /// Requests may ask for a version by itself.
    pub(super) fn call_by_itself(&mut self, version: VersionId, policy: &Arc<Policy>) {
        self.name(version, policy);
        if let Some(revision) = self.revisions.get_mut(&version) {
            revision.called = true;
        }
    }

    /// They may not any more.
    pub(super) fn unname(&mut self, version: VersionId) {
        if let Some(revision) = self.revisions.get_mut(&version) {
            revision.called = false;
        }
        self.retire_unnamed();
    }

    fn name(&mut self, version: VersionId, policy: &Arc<Policy>) {
        let revision = self.revisions.get_or_insert_with(version, || Revision::new(Role::Named, policy.clone(), false));
        if revision.role == Role::Retiring {
            revision.role = Role::Named;
        }
    }

    fn is_named(&self, version: VersionId) -> bool {
        self.aliases.values().any(|alias| alias.versions().any(|target| target == version))
            || self.revisions.get(&version).is_some_and(|revision| revision.called)
    }

    fn retire_unnamed(&mut self) {
        let unnamed: Vec<VersionId> =
            self.in_role(Role::Named).into_iter().filter(|version| !self.is_named(*version)).collect();
        for version in unnamed {
            if let Some(revision) = self.revisions.get_mut(&version) {
                revision.role = Role::Retiring;
            }
        }
    }

    /// Requests of an alias that wait go where it points now, as far as there are places for them.
    fn draw_again(&mut self, number: AliasNumber, alias: &mut Alias) {
        let serving = self.serving();
        // All of them before the first is put back, in their order.
        let mut all = Vec::new();
        for (from, revision) in self.revisions.iter_mut() {
            all.extend(revision.queue.take_of(number).into_iter().map(|(ticket, waiting)| (ticket, *from, waiting)));
        }
        all.sort_by_key(|(ticket, ..)| *ticket);
        // Each keeps the place that it had until it has another one: nobody else may take it meanwhile.
        let mut reserved: BTreeMap<VersionId, u32> = BTreeMap::new();
        all.iter().for_each(|(_, from, _)| *reserved.entry(*from).or_default() += 1);
        for (ticket, from, mut waiting) in all {
            let drawn = match alias.next(waiting.caller) {
                Some(Pointer::Version(version)) => Some((version, true)),
                Some(Pointer::Latest) => serving.map(|version| (version, false)),
                None => None,
            };
            let free = drawn.filter(|(version, _)| {
                let taken = reserved.get(version).copied().unwrap_or(0);
                let to = self.revisions.get(version);
                *version == from || to.is_some_and(|to| to.queue.depth() + taken < to.policy.queue_depth)
            });
            if let Some(left) = reserved.get_mut(&from) {
                *left -= 1;
            }
            let (to, pinned) = free.unwrap_or((from, waiting.pinned));
            waiting.pinned = pinned;
            if let Some(revision) = self.revisions.get_mut(&to) {
                revision.queue.push(ticket, waiting);
            }
        }
    }

    pub(super) fn close(&mut self, now: u64, refusal: Refusal, why: Reason, effects: &mut Vec<Effect>) {
        self.closing = Some((refusal, why));
        self.aliases.clear();
        self.provisions.clear();
        for revision in self.revisions.values_mut() {
            (revision.role, revision.named_minimum, revision.provisioned) = (Role::Retiring, 0, 0);
            revision.called = false;
            while let Some((ticket, _)) = revision.queue.pop() {
                effects.push(Effect::Refuse { ticket, refusal });
            }
        }
        self.refuse_attachments(None, refusal, effects);
        self.reconcile(now, effects);
    }

    fn in_role(&self, role: Role) -> Vec<VersionId> {
        self.revisions.iter().filter(|(_, revision)| revision.role == role).map(|(version, _)| *version).collect()
    }

    /// A version is no longer what `LATEST` means; it may still be named.
    fn step_down(&mut self, version: VersionId) {
        let named = self.is_named(version);
        if let Some(revision) = self.revisions.get_mut(&version) {
            revision.role = if named { Role::Named } else { Role::Retiring };
        }
    }
}
