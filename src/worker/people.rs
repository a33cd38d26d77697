//! Queries about single customers.

use super::{SLICE, Worker};
use crate::bus::Partition;
use crate::engine::Engine;
use crate::engine::customer::CustomerFigures;
use crate::engine::listing::{ListQuestion, Listing};
use crate::event::{Currency, Time};

impl Worker {
    /// The figures of a customer; `None` if no partition has it.
    #[must_use]
    pub fn customer(&self, id: &str) -> Option<CustomerFigures> {
        self.engines.values().find_map(|engine| engine.customer(id))
    }

    /// For each id and time, whether any partition has a record of the customer that begins no later.
    #[must_use]
    pub fn know(&self, silences: &[(String, Time)]) -> Vec<bool> {
        let knows = |(id, since): &(String, Time)| self.engines.values().any(|engine| engine.knows_since(id, *since));
        silences.iter().map(knows).collect()
    }

    /// The currencies known to any partition.
    #[must_use]
    pub fn currencies(&self) -> Vec<Currency> {
        self.engines.values().flat_map(Engine::currencies).collect()
    }

    /// The listing of one slice of customers, and where the next slice begins; skips partitions that were released in
    /// the meantime.
    #[must_use]
    pub fn listing(&self, question: &ListQuestion, from: (Partition, usize)) -> (Listing, Option<(Partition, usize)>) {
        let mut left = self.engines.range(from.0..);
        let Some((&partition, engine)) = left.next() else { return (Listing::default(), None) };
        let first = if partition == from.0 { from.1 } else { 0 };
        let (found, next) = engine.listing(question, first, SLICE);
        let next = next.map(|slot| (partition, slot));
        (found, next.or_else(|| left.next().map(|(&partition, _)| (partition, 0))))
    }
}
