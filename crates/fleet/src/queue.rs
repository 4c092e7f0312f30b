//! The one queue of a version: by priority with ageing, first in first out within one, bounded, with a deadline for each
//! request.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{AliasNumber, Priority, Ticket};

/// A request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedRequest {
    /// When it arrived, boot time.
    pub since: u64,
    /// When it is refused, boot time.
    pub deadline: u64,
    /// Who goes first.
    pub priority: Priority,
    /// It asked for this very version, so no other may serve it.
    pub pinned: bool,
    /// The alias that drew the version, if one did: when it points elsewhere, it draws again.
    #[serde(default)]
    pub by: Option<AliasNumber>,
    /// Who called, as [`crate::Call::caller`].
    #[serde(default)]
    pub caller: Option<u64>,
}

impl QueuedRequest {
    /// Ageing without ever sorting again: a lower priority counts as having come later.
    fn rank(&self) -> u64 {
        self.since.saturating_add(u64::from(self.priority.0) * Priority::STEP)
    }
}

/// Requests that wait. Tickets ascend in the order of arrival.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Queue {
    waiting: BTreeMap<Ticket, QueuedRequest>,
    order: BTreeSet<(u64, Ticket)>,
    deadlines: BTreeSet<(u64, Ticket)>,
}

impl Queue {
    /// How many wait.
    pub fn depth(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the oldest arrived, boot time.
    pub fn oldest(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.since)
    }

    /// All that wait, in the order of arrival.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.waiting.keys().copied()
    }

    /// The rank of the one whose turn it is.
    pub(crate) fn next_rank(&self) -> Option<u64> {
        self.order.first().map(|(rank, _)| *rank)
    }

    /// The earliest deadline, boot time.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Adds one at its place.
    pub fn push(&mut self, ticket: Ticket, waiting: QueuedRequest) {
        self.order.insert((waiting.rank(), ticket));
        self.deadlines.insert((waiting.deadline, ticket));
        self.waiting.insert(ticket, waiting);
    }

    /// Takes the one whose turn it is.
    pub fn pop(&mut self) -> Option<(Ticket, QueuedRequest)> {
        let (_, ticket) = *self.order.first()?;
        self.remove(ticket).map(|waiting| (ticket, waiting))
    }

    /// Takes a certain one out, wherever it stands.
    pub fn remove(&mut self, ticket: Ticket) -> Option<QueuedRequest> {
        let waiting = self.waiting.remove(&ticket)?;
        self.order.remove(&(waiting.rank(), ticket));
        self.deadlines.remove(&(waiting.deadline, ticket));
        Some(waiting)
    }

    /// Takes one whose deadline has come.
    pub fn pop_expired(&mut self, now: u64) -> Option<(Ticket, QueuedRequest)> {
        let (deadline, ticket) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.remove(ticket).map(|waiting| (ticket, waiting))
    }

    /// Takes those that any version may serve, in the order of arrival.
    pub fn take_unpinned(&mut self) -> Vec<(Ticket, QueuedRequest)> {
        self.take(|waiting| !waiting.pinned)
    }

    /// Takes those whose version an alias drew, in the order of arrival.
    pub fn take_of(&mut self, alias: AliasNumber) -> Vec<(Ticket, QueuedRequest)> {
        self.take(|waiting| waiting.by == Some(alias))
    }

    fn take(&mut self, wanted: impl Fn(&QueuedRequest) -> bool) -> Vec<(Ticket, QueuedRequest)> {
        let all: Vec<Ticket> =
            self.waiting.iter().filter(|(_, waiting)| wanted(waiting)).map(|(ticket, _)| *ticket).collect();
        all.into_iter().filter_map(|ticket| Some((ticket, self.remove(ticket)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(since: u64, deadline: u64, priority: Priority) -> QueuedRequest {
        QueuedRequest { since, deadline, priority, pinned: false, by: None, caller: None }
    }

    #[test]
    fn first_in_first_out_and_gone_at_once() {
        let mut queue = Queue::default();
        for number in 0..4 {
            queue.push(Ticket(number), waiting(number, 100 - number, Priority::SYNC));
        }
        assert_eq!(queue.remove(Ticket(1)).map(|waiting| waiting.since), Some(1));
        assert_eq!((queue.depth(), queue.oldest(), queue.next_deadline()), (3, Some(0), Some(97)));
        assert_eq!(queue.pop_expired(96), None);
        assert_eq!(queue.pop_expired(97).map(|(ticket, _)| ticket), Some(Ticket(3)));
        assert_eq!(queue.pop().map(|(ticket, _)| ticket), Some(Ticket(0)));
        assert_eq!(queue.pop().map(|(ticket, _)| ticket), Some(Ticket(2)));
        assert!(queue.is_empty() && queue.next_deadline().is_none());
    }

    #[test]
    fn sync_goes_before_async_until_async_has_waited_long_enough() {
        let mut queue = Queue::default();
        queue.push(Ticket(0), waiting(0, 99_999, Priority::ASYNC));
        queue.push(Ticket(1), waiting(Priority::STEP - 1, 99_999, Priority::SYNC));
        queue.push(Ticket(2), waiting(Priority::STEP + 1, 99_999, Priority::SYNC));
        let order: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|(ticket, _)| ticket.0).collect();
        assert_eq!(order, [1, 0, 2]);
    }
}
