//! Which version a task runs on, and how many tasks wait for which version. A task names a qualifier; what that means is asked each time,
//! so that a task that waits follows its alias.

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_control::{Cell, OpenTasks, TaskTargets};
use kip_host::clock::{boot_millis, wall_millis};
use kip_queue::book::{Book, Entry};
use kip_spec::VersionId;
use kip_store::tasks::TaskNumber;

use crate::config::LATEST;
use crate::shared::Shared;

/// Tasks of a weighted alias whose versions are counted one by one; the rest is counted by the shares.
const EXACT: u64 = 1_024;
/// Tasks that are looked at until one of each version was seen.
const FARTHEST: usize = 65_536;
/// All shares together.
const WHOLE: u64 = 1_000_000;
/// The golden section of that, without a common divisor: tasks one after another fall far apart, so that each share is met in any few.
const STRIDE: u64 = 618_033;

/// The version that a task of a qualifier with these targets runs on.
pub(crate) fn version_of(number: TaskNumber, targets: &[(VersionId, u32)]) -> Option<VersionId> {
    let total: u64 = targets.iter().map(|(_, share)| u64::from(*share)).sum();
    let mut at = number.0.wrapping_mul(STRIDE) % WHOLE * total / WHOLE;
    for (version, share) in targets {
        match at.checked_sub(u64::from(*share)) {
            Some(rest) => at = rest,
            None => return Some(*version),
        }
    }
    targets.last().map(|(version, _)| *version)
}

/// Tasks that wait for a version: how many, and since when the oldest does, milliseconds since 1970.
type Waiting = BTreeMap<VersionId, (u64, i64)>;

fn add(waiting: &mut Waiting, version: VersionId, count: u64, since: i64) {
    let of = waiting.entry(version).or_insert((0, since));
    *of = (of.0.saturating_add(count), of.1.min(since));
}

impl Shared {
    /// Tells the brain how many tasks of a function are ready, by the versions that they run on.
    pub(crate) fn report(&self, function: &str) {
        let Some(cell) = self.control.cell(function) else { return };
        let lanes = if self.is_closing() { Vec::new() } else { self.book().lanes(function) };
        let mut waiting = Waiting::new();
        for (qualifier, ready, since) in lanes {
            match cell.task_targets(&qualifier) {
                TaskTargets::Versions(targets) => match targets.as_slice() {
                    [(version, _)] => add(&mut waiting, *version, ready, since),
                    targets => self.count_weighted((function, &qualifier, ready), targets, &mut waiting),
                },
                // They wait until it is loaded, or is there again.
                TaskTargets::Unloaded | TaskTargets::Unknown => {}
            }
        }
        let now = wall_millis();
        let boot = boot_millis();
        let told = waiting.into_iter().map(|(version, (count, since))| {
            let age = now.saturating_sub(since).max(0).unsigned_abs();
            (version, (u32::try_from(count).unwrap_or(u32::MAX), boot.saturating_sub(age)))
        });
        cell.backlog(&told.collect());
    }

    fn count_weighted(
        &self,
        (function, qualifier, ready): (&str, &str, u64),
        targets: &[(VersionId, u32)],
        waiting: &mut Waiting,
    ) {
        let mut own = Waiting::new();
        let mut counted = 0;
        let mut last = 0;
        for (since, number) in self.book().first_ready(function, qualifier).take(FARTHEST) {
            // A version that does not start must not hide the tasks of another one behind its own.
            if counted >= EXACT && own.len() == targets.len() {
                break;
            }
            if let Some(version) = version_of(number, targets) {
                add(&mut own, version, 1, since);
            }
            (counted, last) = (counted + 1, since);
        }
        let rest = ready.saturating_sub(counted);
        for (version, (count, since)) in own {
            add(waiting, version, count, since);
            // Only for versions of which one was seen: a place for a task that is not there would be offered again and again.
            let share = targets.iter().find(|(target, _)| *target == version).map_or(0, |(_, share)| *share);
            if rest > 0 {
                add(waiting, version, rest.saturating_mul(share.into()) / WHOLE, last);
            }
        }
    }

    /// Loads the versions that tasks of a function name and that are not known here: after a restart.
    pub(crate) async fn load_named_versions(&self, function: &str) {
        let Some(cell) = self.control.cell(function) else { return };
        let lanes = self.book().lanes(function);
        for (qualifier, ..) in lanes {
            if cell.task_targets(&qualifier) == TaskTargets::Unloaded
                && let Err(error) = self.control.task_qualifier(&cell, &qualifier).await
            {
                tracing::warn!(function, %qualifier, %error, "tasks wait for a version that is not there");
            }
        }
    }

    /// What tasks of a qualifier wait for, if nothing is called so.
    pub(crate) fn missing_qualifier(&self, function: &str, qualifier: &str) -> Option<String> {
        let cell = self.control.cell(function)?;
        (cell.task_targets(qualifier) == TaskTargets::Unknown)
            .then(|| format!("the function has no version or alias `{qualifier}`"))
    }
}

impl OpenTasks for Shared {
    fn qualifiers(&self, function: &str) -> BTreeMap<Arc<str>, u64> {
        self.book().qualifiers(function)
    }
}

/// Takes the next task for a place on an instance of a version.
pub(crate) fn take_for(shared: &Shared, cell: &Arc<Cell>, version: VersionId) -> Option<(TaskNumber, Entry)> {
    let function = cell.name().as_str();
    let lanes = shared.book().lanes(function);
    let of = |(qualifier, ..): (Arc<str>, u64, i64)| {
        let targets = cell.task_targets(&qualifier);
        (qualifier, targets)
    };
    // Not under the lock of the book.
    let lanes: Vec<(Arc<str>, TaskTargets)> = lanes.into_iter().map(of).collect();
    let mut book = shared.book();
    let number = take(&mut book, (function, &lanes), version)?;
    Some((number, book.entry(number)?.clone()))
}

fn take(
    book: &mut Book,
    (function, lanes): (&str, &[(Arc<str>, TaskTargets)]),
    version: VersionId,
) -> Option<TaskNumber> {
    let named = |lane: &&(Arc<str>, TaskTargets)| lane.1.names(version);
    for (qualifier, targets) in lanes.iter().filter(named) {
        let TaskTargets::Versions(targets) = targets else { continue };
        let taken = book.take(function, qualifier, |number| version_of(number, targets) == Some(version));
        if taken.is_some() {
            return taken;
        }
    }
    // A place of a version that serves no more, offered a moment ago: it is as good for the tasks that named none.
    if lanes.iter().any(|lane| lane.1.names(version)) { None } else { book.take(function, LATEST, |_| true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_met_in_any_few_tasks_and_a_task_keeps_its_version() {
        let targets = [(VersionId(3), 900_000), (VersionId(4), 100_000)];
        for step in [1, 2, 3, 7, 10] {
            for start in [1u64, 1_000, 123_456] {
                let numbers = (0..100).map(|count| TaskNumber(start + count * step));
                let fourth = numbers.filter(|number| version_of(*number, &targets) == Some(VersionId(4))).count();
                assert!((5..=16).contains(&fourth), "{fourth} of 100 from {start} by {step}");
            }
        }
        let whole = (1..=100_000).filter(|number| version_of(TaskNumber(*number), &targets) == Some(VersionId(4)));
        assert!((9_900..=10_100).contains(&whole.count()));
        assert_eq!(version_of(TaskNumber(9), &[(VersionId(1), 1)]), Some(VersionId(1)));
        assert_eq!(version_of(TaskNumber(9), &[]), None);
    }
}
