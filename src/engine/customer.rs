//! Queries about one customer.

use super::customers::{Key, Slot};
use super::inactivity::release::Deadline;
use super::lifecycle::{Stage, Status};
use super::record::Mark;
use super::{Currency, Engine, Time};

/// Figures of one customer, by all accepted events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerFigures {
    /// Time of stage and status: the watermark of the partition, or the customer's latest event while there is none.
    pub now: Time,
    /// Stage and status; `None` for a prospect.
    pub standing: Option<(Stage, Status)>,
    /// When the customer becomes or became at risk and lapsed, if no order follows; `None` for a prospect.
    pub turns: Option<(Time, Time)>,
    /// Number of orders.
    pub orders: u32,
    /// The earliest order.
    pub first_order: Option<Time>,
    /// The latest order.
    pub last_order: Option<Time>,
    /// Number of sessions.
    pub sessions: u32,
    /// The latest session.
    pub last_session: Option<Time>,
    /// Whether a profile or the first order names a referrer.
    pub referred: bool,
    /// Whether the customer has complained.
    pub complained: bool,
    /// The value of each dimension, in the order of the configuration.
    pub segments: Vec<String>,
    /// Orders minus refunds and cancellations in minor units, by currency in the order of first use. With a reporting
    /// currency, the last entry is the total in it, at the rates of the day of `now`.
    pub net_revenue: Vec<(Currency, i64)>,
    /// Undecided silences, by due time.
    pub deadlines: Vec<Deadline>,
}

impl Engine {
    /// The figures of a customer; `None` without a record of the id.
    #[must_use]
    pub fn customer(&self, id: &str) -> Option<CustomerFigures> {
        let slot = self.customers.find(&Key::new(id))?;
        let record = self.customers.record(slot);
        let latest = record.newest(0).max(record.last_session()).max(record.seen());
        let now = self.clock.watermark().or(latest).unwrap_or(Time::MIN);
        Some(self.customer_figures(slot, now))
    }

    /// Whether an order of a customer at exactly `time` has counted; `None` if so many came later that the record does
    /// not show it.
    #[must_use]
    pub fn has_order_at(&self, customer: &str, time: Time) -> Option<bool> {
        let Some(slot) = self.customers.find(&Key::new(customer)) else { return Some(false) };
        let record = self.customers.record(slot);
        let known = self.recent.newest_orders(slot, record, usize::MAX);
        if known.contains(&time) || record.first() == Some(time) {
            return Some(true);
        }
        // The record does not show the later orders of a day.
        let day = |time: Time| self.spec.zone.day(time);
        if self.spec.merge_orders && known.iter().any(|known| day(*known) == day(time)) {
            return None;
        }
        // All orders between the oldest known one and the newest are known.
        let reaches_back = known.len() == record.orders as usize || known.first().is_some_and(|oldest| *oldest <= time);
        (reaches_back || record.first().is_some_and(|first| time < first)).then_some(false)
    }

    /// The figures of a customer, with stage and status at `now`.
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
