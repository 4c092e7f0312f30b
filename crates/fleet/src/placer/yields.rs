//! Devices that an operator wants back for a time: nothing is granted on them, and who holds their memory is asked for it.

use kip_spec::InstanceId;

use super::{FromPlacer, Placer};
use crate::room::{Gpu, Place, Shortage};
use crate::router::Message;

impl Placer {
    /// Nothing is granted on these devices any more, and each instance with memory on them is asked for it.
    pub(super) fn yield_devices(&mut self, place: Place, until: u64, answers: &mut Vec<Message>) {
        for device in place.devices() {
            self.yielded.insert((place.pool, place.host, device), until);
        }
        self.choose_again(place);
        let lack = Shortage { gpu: true, yielded: Some(until), ..Shortage::default() };
        let on = |holding: &super::Holding| {
            super::ledger::same_host(holding.place, place)
                && holding.place.devices & place.devices != 0
                && holding.room().gpu != Gpu::None
                && holding.asked.is_none_or(|asked| asked.yielded.is_none())
        };
        let held: Vec<InstanceId> =
            self.holdings.iter().filter(|(_, holding)| on(holding)).map(|(instance, _)| *instance).collect();
        for instance in held {
            self.ask_back(instance, lack, answers);
        }
    }

    /// These devices may be used again.
    pub(super) fn regain(&mut self, place: Place) {
        for device in place.devices() {
            self.yielded.remove(&(place.pool, place.host, device));
        }
    }

    /// Sleepers that would wake on a yielded device, and could start on another: they end, so that a new instance can.
    pub(super) fn move_from_yielded(&mut self, answers: &mut Vec<Message>) {
        if self.yielded.is_empty() {
            return;
        }
        let stuck = |waiter: &&super::Waiter| {
            let holding = self.holdings.get(waiter.instance).filter(|holding| holding.asked.is_none());
            let here = holding.is_some_and(|holding| self.yielded_on(holding.place) & holding.place.devices != 0);
            let missing = self.missing(waiter).gpu;
            here && missing != Gpu::None && self.yielded_until(&waiter.need).is_none()
        };
        let stuck: Vec<InstanceId> = self.waiting.iter().filter(stuck).map(|waiter| waiter.instance).collect();
        let first = self.yielded.values().min().copied();
        for instance in stuck {
            let lack = Shortage { gpu: true, quota: true, yielded: first, ..Shortage::default() };
            self.ask_back(instance, lack, answers);
        }
    }

    fn ask_back(&mut self, instance: InstanceId, lack: Shortage, answers: &mut Vec<Message>) {
        let Some(function) = self.holdings.get(instance).map(|holding| holding.function) else { return };
        self.holdings.change(instance, |holding| holding.asked = Some(lack));
        answers.push(Message::ToFunction { function, message: FromPlacer::Evict { instance, lack, by: None } });
    }

    /// Whoever was to be on these devices must look elsewhere.
    fn choose_again(&mut self, place: Place) {
        let there = |chosen: Place| super::ledger::same_host(chosen, place) && chosen.devices & place.devices != 0;
        self.waiting
            .iter_mut()
            .filter(|waiter| waiter.chosen.is_some_and(there))
            .for_each(|waiter| waiter.chosen = None);
    }
}
