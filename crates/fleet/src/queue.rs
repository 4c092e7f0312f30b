//! The one queue of a version: first in, first out, bounded, with a deadline for each request.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Ticket;

/// A request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// When it arrived, boot time.
    pub since: u64,
    /// When it is refused, boot time.
    pub deadline: u64,
}

/// Requests in order of arrival. Tickets ascend, so the map's order is the queue's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Queue {
    waiting: BTreeMap<Ticket, Waiting>,
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

    /// The earliest deadline, boot time.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Adds one at its place.
    pub fn push(&mut self, ticket: Ticket, waiting: Waiting) {
        self.waiting.insert(ticket, waiting);
        self.deadlines.insert((waiting.deadline, ticket));
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<(Ticket, Waiting)> {
        let (ticket, waiting) = self.waiting.pop_first()?;
        self.deadlines.remove(&(waiting.deadline, ticket));
        Some((ticket, waiting))
    }

    /// Takes a certain one out, wherever it stands.
    pub fn remove(&mut self, ticket: Ticket) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ticket)?;
        self.deadlines.remove(&(waiting.deadline, ticket));
        Some(waiting)
    }

    /// Takes one whose deadline has come.
    pub fn pop_expired(&mut self, now: u64) -> Option<(Ticket, Waiting)> {
        let (deadline, ticket) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.remove(ticket).map(|waiting| (ticket, waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_and_gone_at_once() {
        let mut queue = Queue::default();
        for number in 0..4 {
            queue.push(Ticket(number), Waiting { since: number, deadline: 100 - number });
        }
        assert_eq!(queue.remove(Ticket(1)).map(|waiting| waiting.since), Some(1));
        assert_eq!((queue.depth(), queue.oldest(), queue.next_deadline()), (3, Some(0), Some(97)));
        assert_eq!(queue.pop_expired(96), None);
        assert_eq!(queue.pop_expired(97).map(|(ticket, _)| ticket), Some(Ticket(3)));
        assert_eq!(queue.pop().map(|(ticket, _)| ticket), Some(Ticket(0)));
        assert_eq!(queue.pop().map(|(ticket, _)| ticket), Some(Ticket(2)));
        assert!(queue.is_empty() && queue.next_deadline().is_none());
    }
}
