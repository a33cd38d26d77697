//! What few customers have: a profile that names who referred them, a complaint, a cost. Of each the earliest counts.
//!
//! The record has a flag of each, so whoever has none of them costs nothing; the times are here. Once an earlier one
//! and an earlier first order can no longer come in, the flag alone says enough, and the times are forgotten.

use hashbrown::HashMap;

use super::customers::Slot;
use super::record::{Mark, Record};
use crate::event::Time;

/// Something that few customers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rare {
    /// News of the profile that name who referred the customer.
    Mention = 0,
    /// Feedback of the kind [`COMPLAINT`].
    Complaint = 1,
    /// Money spent on the customer, of any kind and currency.
    Cost = 2,
}

/// The kind of feedback that makes a complainer.
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

/// The earliest of each [`Rare`] of one customer, in milliseconds; [`NEVER`] without one.
type Earliest = [i64; 3];

const NEVER: i64 = i64::MAX;

// Small in the engine's own tests, so that they see what is forgotten.
const SMALLEST_SWEEP: usize = if cfg!(test) { 1 } else { 1024 };

/// The earliest of everything rare, by customer.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    entries: HashMap<Slot, Earliest, foldhash::fast::FixedState>,
    sweep_at: usize,
}

impl Extras {
    /// When the customer first had it: [`Time::MIN`] for one so old that nothing depends on when.
    #[must_use]
    pub fn earliest(&self, slot: Slot, record: &Record, what: Rare) -> Option<Time> {
        if !record.has(what.mark()) {
            return None;
        }
        let known = self.entries.get(&slot).map_or(NEVER, |times| times[what as usize]);
        Some(if known == NEVER { Time::MIN } else { Time::clamped(known) })
    }

    /// Notes the earliest so far.
    pub fn note(&mut self, slot: Slot, record: &mut Record, what: Rare, time: Time) {
        record.set(what.mark(), true);
        self.entries.entry(slot).or_insert([NEVER; 3])[what as usize] = time.millis();
    }

    /// Forgets that there was any.
    pub fn forget(&mut self, slot: Slot, record: &mut Record, what: Rare) {
        record.set(what.mark(), false);
        if let Some(times) = self.entries.get_mut(&slot) {
            times[what as usize] = NEVER;
        }
    }

    /// The customers of whom something is here.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.entries.keys().copied()
    }

    /// The times of a customer, by [`Rare`].
    #[must_use]
    pub fn of(&self, slot: Slot) -> [Option<Time>; 3] {
        let times = self.entries.get(&slot).copied().unwrap_or([NEVER; 3]);
        times.map(|time| (time != NEVER).then(|| Time::clamped(time)))
    }

    /// Puts back what [`Extras::of`] told.
    pub fn restore(&mut self, slot: Slot, times: [Option<Time>; 3]) {
        if times != [None; 3] {
            self.entries.insert(slot, times.map(|time| time.map_or(NEVER, Time::millis)));
        }
    }

    /// Forgets a customer.
    pub fn remove(&mut self, slot: Slot) {
        self.entries.remove(&slot);
    }

    /// Forgets the times that lie before the floor, of customers whose first order does too, once enough has gathered
    /// to be worth a walk.
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

    /// Bytes of memory held, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.allocation_size()
    }
}
