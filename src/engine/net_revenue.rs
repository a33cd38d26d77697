//! What each customer brought to date: orders less refunds and cancellations, by currency.
//!
//! Nearly everybody pays in one currency, so the first one stands in the record; the others of a few are here.

use hashbrown::HashMap;

use super::customers::Slot;
use super::record::Record;

type Hasher = foldhash::fast::FixedState;

/// Minor units by the number of the currency, of customers with more than one currency.
#[derive(Debug, Clone, Default)]
pub struct NetRevenue {
    further: HashMap<Slot, Vec<(u8, i64)>, Hasher>,
}

impl NetRevenue {
    /// Adds minor units of a currency; what goes back is negative.
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

    /// Minor units by the number of the currency, in the order in which the currencies were first seen.
    pub fn of(&self, slot: Slot, record: &Record) -> impl Iterator<Item = (u8, i64)> {
        record.net_revenue().into_iter().chain(self.further(slot).iter().copied())
    }

    /// The customers with more than one currency.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.further.keys().copied()
    }

    /// Minor units by the number of each currency but the customer's first.
    #[must_use]
    pub fn further(&self, slot: Slot) -> &[(u8, i64)] {
        self.further.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// Puts back what [`NetRevenue::further`] told.
    pub fn restore(&mut self, slot: Slot, further: Vec<(u8, i64)>) {
        if !further.is_empty() {
            self.further.insert(slot, further);
        }
    }

    /// Forgets a customer.
    pub fn remove(&mut self, slot: Slot) {
        self.further.remove(&slot);
    }

    /// Bytes of memory held, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let sums: usize = self.further.values().map(Vec::capacity).sum();
        self.further.allocation_size() + sums * size_of::<(u8, i64)>()
    }
}
