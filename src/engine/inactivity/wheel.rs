//! Deadlines of customers: a timer wheel in event time whose buckets are lists of slots.
//!
//! An entry takes four bytes and only means "check this customer by then". The customer's record decides whether
//! anything is due, so an order moves no entry: an entry that fires too early is moved to a later bucket. Only the
//! entries of opened buckets are sorted by their exact times.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::engine::customers::Slot;
use crate::event::HOUR;

/// Length of a bucket in milliseconds.
const WIDTH: i64 = HOUR;

/// A timer wheel; deadlines are epoch milliseconds.
#[derive(Debug, Clone)]
pub struct Wheel {
    buckets: BTreeMap<i64, Vec<u32>>,
    /// The entries of the buckets up to `opened`, by exact time.
    near: BinaryHeap<Reverse<(i64, u32)>>,
    /// The last bucket that was opened.
    opened: i64,
    /// No entry is due before this time.
    wake: i64,
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel { buckets: BTreeMap::new(), near: BinaryHeap::new(), opened: i64::MIN, wake: i64::MAX }
    }
}

impl Wheel {
    /// Schedules a check of a customer once time has passed `at`.
    #[inline]
    pub fn push(&mut self, at: i64, slot: Slot) {
        let bucket = at.div_euclid(WIDTH);
        if bucket <= self.opened {
            self.near.push(Reverse((at, slot.0)));
            self.wake = self.wake.min(at);
        } else {
            self.buckets.entry(bucket).or_default().push(slot.0);
            self.wake = self.wake.min(bucket * WIDTH);
        }
    }

    /// Whether an entry may be due before `limit`.
    #[inline]
    #[must_use]
    pub fn is_due(&self, limit: i64) -> bool {
        self.wake < limit
    }

    /// Removes the entries before `limit` and returns their customers, without duplicates, in `due`, which is cleared
    /// first. `deadline` returns a customer's next deadline, if any; later ones are scheduled again.
    pub fn take(&mut self, limit: i64, due: &mut Vec<Slot>, deadline: impl Fn(Slot) -> Option<i64>) {
        due.clear();
        while let Some((&bucket, _)) = self.buckets.first_key_value().filter(|(bucket, _)| **bucket * WIDTH < limit) {
            let mut slots = self.buckets.remove(&bucket).unwrap_or_default();
            self.opened = bucket;
            // Several entries of one customer in a bucket become one.
            slots.sort_unstable();
            slots.dedup();
            for slot in slots {
                match deadline(Slot(slot)) {
                    Some(at) if at < limit => due.push(Slot(slot)),
                    Some(at) => self.push(at, Slot(slot)),
                    None => {}
                }
            }
        }
        while let Some(Reverse((_, slot))) = self.near.peek().filter(|Reverse((at, _))| *at < limit) {
            due.push(Slot(*slot));
            self.near.pop();
        }
        let near = self.near.peek().map(|Reverse((at, _))| *at);
        let bucket = self.buckets.first_key_value().map(|(bucket, _)| bucket * WIDTH);
        self.wake = near.into_iter().chain(bucket).min().unwrap_or(i64::MAX);
        due.sort_unstable();
        due.dedup();
    }

    /// Number of entries.
    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.near.len() + self.buckets.values().map(Vec::len).sum::<usize>()
    }

    /// Memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let entries: usize = self.buckets.values().map(Vec::capacity).sum();
        let buckets = self.buckets.len() * size_of::<(i64, Vec<u32>)>();
        entries * size_of::<u32>() + buckets + self.near.capacity() * size_of::<(i64, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compares the wheel with a map of all deadlines: every due customer is returned, and none is lost.
        #[test]
        fn takes_out_whoever_is_due(
            steps in prop::collection::vec((0..40_u32, 1..12 * HOUR, prop::option::of(1..9 * HOUR)), 1..200),
        ) {
            let (mut wheel, mut deadlines, mut now) = (Wheel::default(), BTreeMap::<u32, i64>::new(), 0);
            for (slot, after, step) in steps {
                // A later deadline leaves the entry where it is.
                let before = deadlines.insert(slot, now + after);
                if before.is_none_or(|before| now + after < before) {
                    wheel.push(now + after, Slot(slot));
                }
                let Some(step) = step else { continue };
                now += step;
                let due: Vec<_> = deadlines.iter().filter(|(_, at)| **at < now).map(|(&slot, _)| slot).collect();
                let is_due = wheel.is_due(now);
                let mut taken = Vec::new();
                wheel.take(now, &mut taken, |slot| deadlines.get(&slot.0).copied());
                prop_assert!(is_due || due.is_empty());
                prop_assert!(due.iter().all(|&slot| taken.contains(&Slot(slot))), "{due:?} of {taken:?}");
                // Customers who were checked too early are scheduled again.
                for slot in taken {
                    match deadlines.get(&slot.0) {
                        Some(&at) if at >= now => wheel.push(at, slot),
                        _ => _ = deadlines.remove(&slot.0),
                    }
                }
            }
        }
    }
}
