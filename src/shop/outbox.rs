//! Turns facts into messages, with latency, late arrivals and duplicates.

use super::Published;
use super::chance::Chance;
use super::fact::{Fact, FactKind};
use super::queue::Queue;
use super::settings::ShopSettings;
use crate::event::{HOUR, MINUTE, Time};

/// Pending facts, by the time at which they reach the bus.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    queue: Queue<Fact>,
    duplicates: f64,
    late: f64,
    too_late: f64,
}

impl Outbox {
    pub fn new(settings: &ShopSettings) -> Outbox {
        Outbox {
            queue: Queue::new(),
            duplicates: settings.duplicates,
            late: settings.late.max(0.0),
            too_late: settings.too_late.max(0.0),
        }
    }

    /// Sends a fact, at the time it happens or some time after.
    pub fn send(&mut self, chance: &mut Chance, fact: Fact) {
        // An erasure covers everything before it in its topic, so a delay would erase more.
        let erase = matches!(fact.what, FactKind::Erase { .. });
        let delay = if erase { 0 } else { self.delay(chance) };
        let at = fact.time.plus(chance.within(20..1_500) + delay);
        self.queue.push(at, fact);
        if fact.what.has_id() && chance.happens(self.duplicates) {
            self.queue.push(at.plus(chance.within(MINUTE..30 * MINUTE)), fact);
        }
    }

    fn delay(&self, chance: &mut Chance) -> i64 {
        let draw = chance.unit();
        if draw < self.too_late {
            chance.within(25 * HOUR..72 * HOUR)
        } else if draw >= self.too_late + self.late {
            0
        } else if chance.happens(1.0 / 30.0) {
            chance.within(6 * HOUR..20 * HOUR)
        } else {
            // Squared, so that most are minutes late and few are hours late.
            let draw = chance.within(0..600);
            2 * MINUTE + (draw * draw / 1_000) * MINUTE
        }
    }

    /// When the next message reaches the bus.
    pub fn next_at(&self) -> Option<Time> {
        self.queue.next_at()
    }

    /// The next message.
    pub fn receive(&mut self) -> Option<Published> {
        self.queue.pop().map(|(at, _, fact)| fact.publish(at))
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}
