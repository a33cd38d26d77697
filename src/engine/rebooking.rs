//! Recent events of young customers. If an earlier first order arrives, everything after it belongs to another segment
//! and cohort, and is booked again from here.
//!
//! A customer is young while the first order is at or after the floor, or has not arrived yet.

use hashbrown::HashMap;

use super::customers::Slot;
use super::window::Flow;
use crate::event::Time;

/// Something that was booked for a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Event time.
    pub time: Time,
    /// What was booked.
    pub what: Booked,
}

/// Kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Booked {
    /// A session.
    Session,
    /// Money: flow, the engine's number of the currency, amount in minor units.
    Money(Flow, u8, i64),
}

/// The entries of all young customers.
#[derive(Debug, Clone, Default)]
pub struct RebookingLog {
    entries: HashMap<Slot, Vec<Entry>, foldhash::fast::FixedState>,
    sweep_at: usize,
}

const SMALLEST_SWEEP: usize = 1024;

impl RebookingLog {
    /// Adds an entry.
    pub fn add(&mut self, slot: Slot, entry: Entry) {
        self.entries.entry(slot).or_default().push(entry);
    }

    /// The entries of a customer.
    #[must_use]
    pub fn of(&self, slot: Slot) -> &[Entry] {
        self.entries.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// Removes an entry.
    pub fn take(&mut self, slot: Slot, entry: Entry) {
        let Some(entries) = self.entries.get_mut(&slot) else { return };
        if let Some(place) = entries.iter().rposition(|known| *known == entry) {
            entries.remove(place);
        }
    }

    /// The customers with entries.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.entries.keys().copied()
    }

    /// Restores the entries that [`RebookingLog::of`] returned.
    pub fn restore(&mut self, slot: Slot, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.entries.insert(slot, entries);
        }
    }

    /// Removes a customer.
    pub fn remove(&mut self, slot: Slot) {
        self.entries.remove(&slot);
    }

    /// Removes entries from before the floor and customers who are no longer young, once the log has doubled.
    pub fn sweep(&mut self, first_order: impl Fn(Slot) -> Option<Time>, floor: Time) {
        if self.entries.len() < self.sweep_at.max(SMALLEST_SWEEP) {
            return;
        }
        self.entries.retain(|&slot, entries| {
            entries.retain(|entry| entry.time >= floor);
            !entries.is_empty() && first_order(slot).is_none_or(|first| first >= floor)
        });
        self.sweep_at = 2 * self.entries.len();
        self.entries.shrink_to(self.sweep_at);
    }

    /// Approximate memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let entries: usize = self.entries.values().map(Vec::capacity).sum();
        self.entries.allocation_size() + entries * size_of::<Entry>()
    }
}
