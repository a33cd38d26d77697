//! Payments of customers on the civil days that can still change; only used if the orders of a day count as one.

use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

use super::customers::Slot;
use super::zone::Day;
use crate::event::Time;

/// Payments of a customer on a day in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaySum {
    /// The civil day.
    pub day: Day,
    /// The engine's number of the currency.
    pub currency: u8,
    /// Time of the first order in the currency.
    pub first: Time,
    /// Number of orders in the currency.
    pub orders: u32,
    /// Sum of their amounts in minor units.
    pub minor: i64,
}

/// A sum before and after a change.
pub type Change = (Option<DaySum>, Option<DaySum>);

type Sums = SmallVec<[DaySum; 1]>;

/// The sums of all customers.
#[derive(Debug, Clone, Default)]
pub struct Days {
    sums: HashMap<Slot, Sums, foldhash::fast::FixedState>,
    sweep_at: usize,
}

// Small in unit tests, so that they notice wrongly forgotten entries.
const SMALLEST_SWEEP: usize = if cfg!(test) { 2 } else { 1024 };

impl Days {
    /// Adds an order.
    pub fn add(&mut self, slot: Slot, day: Day, currency: u8, time: Time, minor: i64) -> Change {
        let sums = self.sums.entry(slot).or_insert_with(|| smallvec![]);
        let Some(sum) = sums.iter_mut().find(|sum| (sum.day, sum.currency) == (day, currency)) else {
            let sum = DaySum { day, currency, first: time, orders: 1, minor };
            sums.push(sum);
            return (None, Some(sum));
        };
        let before = *sum;
        *sum = DaySum { first: sum.first.min(time), orders: sum.orders + 1, minor: sum.minor + minor, ..before };
        (Some(before), Some(*sum))
    }

    /// Takes back the last order of a day in a currency.
    pub fn take(&mut self, slot: Slot, day: Day, currency: u8, minor: i64) -> Change {
        let Some(sums) = self.sums.get_mut(&slot) else { return (None, None) };
        let Some(place) = sums.iter().position(|sum| (sum.day, sum.currency) == (day, currency)) else {
            return (None, None);
        };
        let before = sums[place];
        if before.orders <= 1 {
            sums.swap_remove(place);
            return (Some(before), None);
        }
        sums[place] = DaySum { orders: before.orders - 1, minor: before.minor - minor, ..before };
        (Some(before), Some(sums[place]))
    }

    /// Whether a customer has an order on a day.
    #[must_use]
    pub fn has(&self, slot: Slot, day: Day) -> bool {
        self.of(slot).iter().any(|sum| sum.day == day)
    }

    /// The sums of a customer.
    #[must_use]
    pub fn of(&self, slot: Slot) -> &[DaySum] {
        self.sums.get(&slot).map_or(&[], |sums| sums)
    }

    /// The customers with sums.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.sums.keys().copied()
    }

    /// Restores the sums that [`Days::of`] returned.
    pub fn restore(&mut self, slot: Slot, sums: Vec<DaySum>) {
        if !sums.is_empty() {
            self.sums.insert(slot, sums.into());
        }
    }

    /// Removes a customer.
    pub fn remove(&mut self, slot: Slot) {
        self.sums.remove(&slot);
    }

    /// Removes the days before `oldest`, once the map has doubled.
    pub fn sweep(&mut self, oldest: Day) {
        if self.sums.len() < self.sweep_at.max(SMALLEST_SWEEP) {
            return;
        }
        self.sums.retain(|_, sums| {
            sums.retain(|sum| sum.day >= oldest);
            !sums.is_empty()
        });
        self.sweep_at = 2 * self.sums.len();
        self.sums.shrink_to(self.sweep_at);
    }

    /// Approximate memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let spilled = |sums: &Sums| if sums.spilled() { sums.capacity() * size_of::<DaySum>() } else { 0 };
        self.sums.allocation_size() + self.sums.values().map(spilled).sum::<usize>()
    }
}
