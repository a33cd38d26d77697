//! What customers paid on the civil days that can still change, where the orders of one day count as one.

use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

use super::customers::Slot;
use super::zone::Day;
use crate::event::Time;

/// What a customer paid on a day in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaySum {
    /// The civil day.
    pub day: Day,
    /// The number of the currency.
    pub currency: u8,
    /// When the first order in the currency came.
    pub first: Time,
    /// How many orders in the currency there were.
    pub orders: u32,
    /// Their sum in minor units.
    pub minor: i64,
}

/// A sum before a change and after it.
pub type Change = (Option<DaySum>, Option<DaySum>);

type Sums = SmallVec<[DaySum; 1]>;

/// The sums of the customers.
#[derive(Debug, Clone, Default)]
pub struct Days {
    sums: HashMap<Slot, Sums, foldhash::fast::FixedState>,
    sweep_at: usize,
}

// Small in the engine's own tests, so that they see what is forgotten.
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

    /// Takes the last order of a day in a currency back.
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

    /// The customers of whom something is here.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.sums.keys().copied()
    }

    /// Puts back what [`Days::of`] returned.
    pub fn restore(&mut self, slot: Slot, sums: Vec<DaySum>) {
        if !sums.is_empty() {
            self.sums.insert(slot, sums.into());
        }
    }

    /// Forgets a customer.
    pub fn remove(&mut self, slot: Slot) {
        self.sums.remove(&slot);
    }

    /// Forgets the days before `oldest`, once enough has gathered to be worth a walk.
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

    /// Bytes of memory held, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let spilled = |sums: &Sums| if sums.spilled() { sums.capacity() * size_of::<DaySum>() } else { 0 };
        self.sums.allocation_size() + self.sums.values().map(spilled).sum::<usize>()
    }
}
