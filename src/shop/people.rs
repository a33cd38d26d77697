//! The customers who may still do something.

use super::chance::{Chance, Tempers};
use super::fact::{Acquisition, CustomerId};
use super::market::{Channel, Market};
use crate::event::Time;

/// One customer; everything except the steps is drawn on arrival.
#[derive(Debug, Clone, Copy)]
pub(super) struct Customer {
    pub id: CustomerId,
    pub place: Acquisition,
    /// Orders per millisecond.
    pub rate: f64,
    /// The probability of leaving after an order.
    pub dropout: f64,
    /// The median order in euros.
    pub basket: f64,
    /// The referrer that the first order must name.
    pub referrer: Option<CustomerId>,
    /// Orders so far.
    pub orders: u32,
    /// When the next order is due.
    pub order_at: Time,
    /// When the first of the sessions before it is due.
    pub lead_at: Time,
    /// Number of these sessions.
    pub leads: u8,
    /// The next step.
    pub step: Step,
    /// The ticket of that step on the agenda; all others are void.
    pub ticket: u64,
}

/// What a customer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A session without ever ordering, with this many more to follow.
    Stroll(u8),
    /// A session that leads to no order.
    Browse,
    /// A session before an order, with this many more to follow.
    Lead(u8),
    /// The order.
    Order,
    /// Come back after having left.
    Return,
}

impl Customer {
    pub fn draw(chance: &mut Chance, tempers: &Tempers, id: CustomerId, now: Time) -> Customer {
        Customer {
            id,
            place: Acquisition { market: Market::draw(chance), channel: Channel::draw(chance) },
            rate: tempers.rate(chance),
            dropout: tempers.dropout(chance),
            basket: chance.around(42.0, 0.55),
            referrer: None,
            orders: 0,
            order_at: now,
            lead_at: now,
            leads: 1,
            step: Step::Browse,
            ticket: 0,
        }
    }

    /// Whether the customer has ordered and not left.
    pub fn is_active(&self) -> bool {
        self.orders > 0 && self.step != Step::Return
    }
}

/// Customers in numbered slots, which are reused once their customer is gone.
#[derive(Debug, Clone, Default)]
pub(super) struct People {
    slots: Vec<Option<Customer>>,
    free: Vec<usize>,
}

impl People {
    /// Reserves a slot for a newcomer.
    pub fn reserve(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        })
    }

    /// Puts a customer into a reserved slot.
    pub fn put(&mut self, slot: usize, customer: Customer) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(customer);
        }
    }

    /// Takes out the customer with this ticket; the slot stays reserved.
    pub fn take(&mut self, slot: usize, ticket: u64) -> Option<Customer> {
        self.slots.get_mut(slot)?.take_if(|customer| customer.ticket == ticket)
    }

    /// Takes out an active customer; the slot stays reserved.
    pub fn take_active(&mut self, slot: usize, channel: Option<Channel>) -> Option<Customer> {
        let wanted = |customer: &mut Customer| {
            customer.is_active() && channel.is_none_or(|channel| channel == customer.place.channel)
        };
        self.slots.get_mut(slot)?.take_if(wanted)
    }

    /// Frees a reserved slot.
    pub fn release(&mut self, slot: usize) {
        self.free.push(slot);
    }

    /// Number of slots, including free ones.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// A random active customer, if a few tries find one.
    pub fn anyone_active(&self, chance: &mut Chance) -> Option<CustomerId> {
        let end = i64::try_from(self.slots.len()).ok().filter(|&end| end > 0)?;
        (0..8).find_map(|_| {
            let slot = usize::try_from(chance.within(0..end)).ok()?;
            self.slots[slot].filter(Customer::is_active).map(|customer| customer.id)
        })
    }
}
