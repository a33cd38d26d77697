//! Rare properties of customers: a profile that names a referrer, a complaint, a cost. The earliest of each counts.
//!
//! The record has a flag for each, so customers without them need no memory here; the times are in a side table. Once
//! neither an earlier one nor an earlier first order can arrive, the flag is sufficient and the times are forgotten.

use hashbrown::HashMap;

use super::customers::Slot;
use super::record::{Mark, Record};
use crate::event::Time;

/// A rare property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rare {
    /// A profile that names a referrer.
    Mention = 0,
    /// Feedback of the kind [`COMPLAINT`].
    Complaint = 1,
    /// A cost, of any kind and currency.
    Cost = 2,
}

/// The kind of feedback that is a complaint.
pub const COMPLAINT: &str = "complaint";

impl Rare {
    /// The flag in the record.
    #[must_use]
    pub const fn mark(self) -> Mark {
        match self {
            Rare::Mention => Mark::Mentioned,
            Rare::Complaint => Mark::Complained,
            Rare::Cost => Mark::Costed,
        }
    }
}

/// Time of the earliest event of each [`Rare`] of one customer, in milliseconds; [`NEVER`] without one.
type Earliest = [i64; 3];

const NEVER: i64 = i64::MAX;

// Small in unit tests, so that they notice wrongly forgotten entries.
const SMALLEST_SWEEP: usize = if cfg!(test) { 1 } else { 1024 };

/// The times of the earliest rare events, by customer.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    entries: HashMap<Slot, Earliest, foldhash::fast::FixedState>,
    sweep_at: usize,
}

impl Extras {
    /// Time of the earliest event; [`Time::MIN`] if it is so old that nothing depends on it.
    #[must_use]
    pub fn earliest(&self, slot: Slot, record: &Record, what: Rare) -> Option<Time> {
        if !record.has(what.mark()) {
            return None;
        }
        let known = self.entries.get(&slot).map_or(NEVER, |times| times[what as usize]);
        Some(if known == NEVER { Time::MIN } else { Time::clamped(known) })
    }

    /// Sets the earliest time so far.
    pub fn note(&mut self, slot: Slot, record: &mut Record, what: Rare, time: Time) {
        record.set(what.mark(), true);
        self.entries.entry(slot).or_insert([NEVER; 3])[what as usize] = time.millis();
    }

    /// Clears the flag and the time.
    pub fn forget(&mut self, slot: Slot, record: &mut Record, what: Rare) {
        record.set(what.mark(), false);
        if let Some(times) = self.entries.get_mut(&slot) {
            times[what as usize] = NEVER;
        }
    }

    /// The customers with times.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.entries.keys().copied()
    }

    /// The times of a customer, by [`Rare`].
    #[must_use]
    pub fn of(&self, slot: Slot) -> [Option<Time>; 3] {
        let times = self.entries.get(&slot).copied().unwrap_or([NEVER; 3]);
        times.map(|time| (time != NEVER).then(|| Time::clamped(time)))
    }

    /// Restores the times that [`Extras::of`] returned.
    pub fn restore(&mut self, slot: Slot, times: [Option<Time>; 3]) {
        if times != [None; 3] {
            self.entries.insert(slot, times.map(|time| time.map_or(NEVER, Time::millis)));
        }
    }

    /// Removes a customer.
    pub fn remove(&mut self, slot: Slot) {
        self.entries.remove(&slot);
    }

    /// Removes the times of customers that are before the floor, like their first order, once the map has doubled.
    pub fn sweep(&mut self, first_order: impl Fn(Slot) -> Option<Time>, floor: Time) {
        if self.entries.len() < self.sweep_at.max(SMALLEST_SWEEP) {
            return;
        }
        let settled = |time: i64| time == NEVER || time < floor.millis();
        self.entries.retain(|&slot, times| {
            let first_settled = first_order(slot).is_some_and(|first| first < floor);
            !(first_settled && times.iter().all(|&time| settled(time)))
        });
        self.sweep_at = 2 * self.entries.len();
        self.entries.shrink_to(self.sweep_at);
    }

    /// Approximate memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.allocation_size()
    }
}
