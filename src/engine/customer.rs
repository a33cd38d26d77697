//! What the engine tells of one customer.

use super::customers::{Key, Slot};
use super::inactivity::release::Deadline;
use super::lifecycle::{Stage, Status};
use super::record::Mark;
use super::{Currency, Engine, Time};

/// One customer, by all accepted events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerFigures {
    /// The instant at which stage and status are read: the watermark of the partition, the customer's latest event
    /// while it has none.
    pub now: Time,
    /// Stage and status; `None` of a prospect.
    pub standing: Option<(Stage, Status)>,
    /// Since or from when on the customer is at risk, and when lapsed, if no order comes; `None` of a prospect.
    pub turns: Option<(Time, Time)>,
    /// Orders.
    pub orders: u32,
    /// The earliest order.
    pub first_order: Option<Time>,
    /// The latest order.
    pub last_order: Option<Time>,
    /// Sessions.
    pub sessions: u32,
    /// The latest session.
    pub last_session: Option<Time>,
    /// Whether a profile or the first order names who referred the customer.
    pub referred: bool,
    /// Whether there is a complaint.
    pub complained: bool,
    /// The value of each dimension, by its place in the configuration.
    pub segments: Vec<String>,
    /// Orders less refunds and cancellations in minor units, by currency, in the order in which these were first seen; last
    /// what all are worth in the reporting currency at the rates of the day of `now`, if there is one.
    pub net_revenue: Vec<(Currency, i64)>,
    /// Silences that go on and are not decided yet, the first due first.
    pub deadlines: Vec<Deadline>,
}

impl Engine {
    /// What is known of a customer; `None` when there is no record of that id.
    #[must_use]
    pub fn customer(&self, id: &str) -> Option<CustomerFigures> {
        let slot = self.customers.find(&Key::new(id))?;
        let record = self.customers.record(slot);
        let latest = record.newest(0).max(record.last_session()).max(record.seen());
        let now = self.clock.watermark().or(latest).unwrap_or(Time::MIN);
        Some(self.customer_figures(slot, now))
    }

    /// Whether an order of a customer at that very time has counted; `None` where so many came later that the record does
    /// not tell.
    #[must_use]
    pub fn has_order_at(&self, customer: &str, time: Time) -> Option<bool> {
        let Some(slot) = self.customers.find(&Key::new(customer)) else { return Some(false) };
        let record = self.customers.record(slot);
        let known = self.recent.newest_orders(slot, record, usize::MAX);
        if known.contains(&time) || record.first() == Some(time) {
            return Some(true);
        }
        // Of the later orders of a day the record tells nothing.
        let day = |time: Time| self.spec.zone.day(time);
        if self.spec.merge_orders && known.iter().any(|known| day(*known) == day(time)) {
            return None;
        }
        // Between the oldest known order and the newest none is missing.
        let reaches_back = known.len() == record.orders as usize || known.first().is_some_and(|oldest| *oldest <= time);
        (reaches_back || record.first().is_some_and(|first| time < first)).then_some(false)
    }

    /// What is known of a customer, with stage and status at an instant.
    pub(super) fn customer_figures(&self, slot: Slot, now: Time) -> CustomerFigures {
        let record = self.customers.record(slot);
        let (first_order, last_order) = (record.first(), record.newest(0));
        let span = first_order.zip(last_order);
        let standing = span.map(|(first, last)| self.spec.lifecycle.standing(record.orders, first, last, now));
        let worth = self.net_worth(slot, self.spec.zone.day(now));
        let worth = worth.and_then(|(reporting, worth)| Some((reporting, i64::try_from(worth).ok()?)));
        CustomerFigures {
            now,
            standing,
            turns: span.map(|(first, last)| self.spec.lifecycle.turns(record.orders, first, last)),
            orders: record.orders,
            first_order,
            last_order,
            sessions: record.sessions,
            last_session: record.last_session(),
            referred: record.has(Mark::Referred) || record.has(Mark::Mentioned),
            complained: record.has(Mark::Complained),
            segments: self.segments.names(record.profile).map(str::to_owned).collect(),
            net_revenue: self.net_revenue_of(slot).chain(worth).collect(),
            deadlines: self.deadlines(slot),
        }
    }
}
