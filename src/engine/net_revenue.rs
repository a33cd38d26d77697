//! Net revenue of each customer to date: orders minus refunds and cancellations, by currency.
//!
//! Nearly all customers use one currency, so the record holds the first one; further currencies are here.

use hashbrown::HashMap;

use super::customers::Slot;
use super::record::Record;

type Hasher = foldhash::fast::FixedState;

/// Net revenue in further currencies, in minor units by the engine's number of the currency.
#[derive(Debug, Clone, Default)]
pub struct NetRevenue {
    further: HashMap<Slot, Vec<(u8, i64)>, Hasher>,
}

impl NetRevenue {
    /// Adds an amount in minor units; returned money is negative.
    #[inline]
    pub fn add(&mut self, slot: Slot, record: &mut Record, currency: u8, minor: i64) {
        if record.add_net_revenue(currency, minor) {
            return;
        }
        let further = self.further.entry(slot).or_default();
        match further.iter_mut().find(|(known, _)| *known == currency) {
            Some((_, sum)) => *sum += minor,
            None => further.push((currency, minor)),
        }
    }

    /// Net revenue in minor units by the number of the currency, in the order of each currency's first use.
    pub fn of(&self, slot: Slot, record: &Record) -> impl Iterator<Item = (u8, i64)> {
        record.net_revenue().into_iter().chain(self.further(slot).iter().copied())
    }

    /// The customers with more than one currency.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.further.keys().copied()
    }

    /// As [`NetRevenue::of`], without the customer's first currency.
    #[must_use]
    pub fn further(&self, slot: Slot) -> &[(u8, i64)] {
        self.further.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// Restores the sums that [`NetRevenue::further`] returned.
    pub fn restore(&mut self, slot: Slot, further: Vec<(u8, i64)>) {
        if !further.is_empty() {
            self.further.insert(slot, further);
        }
    }

    /// Removes a customer.
    pub fn remove(&mut self, slot: Slot) {
        self.further.remove(&slot);
    }

    /// Approximate memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let sums: usize = self.further.values().map(Vec::capacity).sum();
        self.further.allocation_size() + sums * size_of::<(u8, i64)>()
    }
}
