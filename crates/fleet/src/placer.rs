//! The host's ledger. It grants room for instances, in order of asking, and asks for the longest sleepers' room back
//! when somebody waits.
//!
//! Room is granted before an instance starts and given back when nothing of it is left, so the sum of what is granted
//! never exceeds the capacity. An instance that declares nothing needs no room.

use std::collections::{BTreeMap, VecDeque};

use kip_spec::InstanceId;
use serde::{Deserialize, Serialize};

use crate::CoreNumber;
use crate::policy::Need;
use crate::router::Message;

/// What functions tell the placer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToPlacer {
    /// An instance needs room.
    Ask {
        /// Whose it is.
        function: CoreNumber,
        /// Which.
        instance: InstanceId,
        /// How much.
        need: Need,
    },
    /// An instance of an earlier server has this room, whatever the ledger says.
    Hold {
        /// Whose it is.
        function: CoreNumber,
        /// Which.
        instance: InstanceId,
        /// How much.
        need: Need,
    },
    /// An instance needs none any more.
    Release {
        /// Which.
        instance: InstanceId,
    },
    /// An instance fell asleep: its room may be asked back.
    Asleep {
        /// Which.
        instance: InstanceId,
    },
    /// An instance is no longer asleep.
    Awake {
        /// Which.
        instance: InstanceId,
    },
    /// An instance cannot be given up now.
    Declined {
        /// Which.
        instance: InstanceId,
    },
}

/// What the placer tells functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromPlacer {
    /// There is room.
    Grant {
        /// For which instance.
        instance: InstanceId,
    },
    /// There never will be: it needs more than the host has.
    Refuse {
        /// Which instance.
        instance: InstanceId,
    },
    /// Somebody waits: please give this one up.
    Evict {
        /// Which instance.
        instance: InstanceId,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Holding {
    function: CoreNumber,
    need: Need,
    /// When it fell asleep, boot time; `None` while it is awake.
    asleep: Option<u64>,
    /// Asked to give up and not yet answered.
    asked: bool,
}

/// The ledger of one host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Placer {
    capacity: u64,
    reserved: u64,
    holdings: BTreeMap<InstanceId, Holding>,
    waiting: VecDeque<(CoreNumber, InstanceId, Need)>,
}

impl Placer {
    /// A host with this much memory for instances, in bytes.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, reserved: 0, holdings: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Bytes granted, bytes there are, and how many instances wait for room.
    pub fn ledger(&self) -> (u64, u64, usize) {
        (self.reserved, self.capacity, self.waiting.len())
    }

    /// Takes one message and appends the answers.
    pub fn step(&mut self, now: crate::Now, message: ToPlacer, answers: &mut Vec<Message>) {
        match message {
            ToPlacer::Ask { function, instance, need } if need.memory > self.capacity => {
                answers.push(Message::ToFunction { function, message: FromPlacer::Refuse { instance } });
            }
            ToPlacer::Ask { function, instance, need } => self.waiting.push_back((function, instance, need)),
            ToPlacer::Hold { function, instance, need } => {
                self.reserved += need.memory;
                self.holdings.insert(instance, Holding { function, need, asleep: None, asked: false });
            }
            ToPlacer::Release { instance } => {
                self.waiting.retain(|(_, waiting, _)| *waiting != instance);
                if let Some(holding) = self.holdings.remove(&instance) {
                    self.reserved -= holding.need.memory;
                }
            }
            ToPlacer::Asleep { instance } => self.mark(instance, Some(now.boot)),
            ToPlacer::Awake { instance } => self.mark(instance, None),
            ToPlacer::Declined { instance } => {
                if let Some(holding) = self.holdings.get_mut(&instance) {
                    holding.asked = false;
                    holding.asleep = None;
                }
            }
        }
        self.grant(answers);
    }

    fn mark(&mut self, instance: InstanceId, asleep: Option<u64>) {
        if let Some(holding) = self.holdings.get_mut(&instance) {
            holding.asleep = asleep;
        }
    }

    /// Grants in order of asking. Nobody overtakes: a small ask behind a large one would starve it.
    fn grant(&mut self, answers: &mut Vec<Message>) {
        while let Some((function, instance, need)) = self.waiting.front().copied() {
            if self.reserved + need.memory > self.capacity {
                self.ask_back(need, answers);
                return;
            }
            self.waiting.pop_front();
            self.reserved += need.memory;
            self.holdings.insert(instance, Holding { function, need, asleep: None, asked: false });
            answers.push(Message::ToFunction { function, message: FromPlacer::Grant { instance } });
        }
    }

    /// Asks the longest sleepers for as much as is missing.
    fn ask_back(&mut self, need: Need, answers: &mut Vec<Message>) {
        let promised: u64 = self.holdings.values().filter(|h| h.asked).map(|h| h.need.memory).sum();
        let mut missing = (self.reserved + need.memory).saturating_sub(self.capacity + promised);
        while missing > 0 {
            let sleeper = self
                .holdings
                .iter_mut()
                .filter(|(_, holding)| !holding.asked && holding.need.memory > 0)
                .filter_map(|(id, holding)| Some((holding.asleep?, *id, holding)))
                .min_by_key(|(since, id, _)| (*since, *id));
            let Some((_, instance, holding)) = sleeper else { return };
            holding.asked = true;
            missing = missing.saturating_sub(holding.need.memory);
            answers.push(Message::ToFunction { function: holding.function, message: FromPlacer::Evict { instance } });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Now;

    const NEED: Need = Need { memory: 6 };

    fn id(sequence: u32) -> InstanceId {
        InstanceId { boot: 1, core: sequence, sequence: 1 }
    }

    fn step(placer: &mut Placer, boot: u64, message: ToPlacer) -> Vec<FromPlacer> {
        let mut answers = Vec::new();
        placer.step(Now { boot, wall: 0 }, message, &mut answers);
        answers
            .into_iter()
            .map(|answer| match answer {
                Message::ToFunction { message, .. } => message,
                Message::ToPlacer(_) => unreachable!("the placer does not speak to itself"),
            })
            .collect()
    }

    fn ask(number: u32) -> ToPlacer {
        ToPlacer::Ask { function: CoreNumber(number), instance: id(number), need: NEED }
    }

    #[test]
    fn the_second_waits_for_the_first_to_sleep_and_leave() {
        let mut placer = Placer::new(10);
        assert_eq!(step(&mut placer, 0, ask(1)), [FromPlacer::Grant { instance: id(1) }]);
        assert_eq!(step(&mut placer, 1, ask(2)), []);
        assert_eq!(step(&mut placer, 2, ToPlacer::Asleep { instance: id(1) }), [FromPlacer::Evict { instance: id(1) }]);
        assert_eq!(step(&mut placer, 3, ask(3)), [], "the eviction under way is not asked for twice");
        assert_eq!(
            step(&mut placer, 4, ToPlacer::Release { instance: id(1) }),
            [FromPlacer::Grant { instance: id(2) }]
        );
        assert_eq!(placer.ledger(), (6, 10, 1));
    }

    #[test]
    fn what_can_never_fit_is_refused_and_what_declares_nothing_passes() {
        let mut placer = Placer::new(5);
        assert_eq!(step(&mut placer, 0, ask(1)), [FromPlacer::Refuse { instance: id(1) }]);
        let free = ToPlacer::Ask { function: CoreNumber(2), instance: id(2), need: Need::default() };
        assert_eq!(step(&mut placer, 0, free), [FromPlacer::Grant { instance: id(2) }]);
    }
}
