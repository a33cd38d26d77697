//! Merges the orders of a customer on one civil day into one order at the time of the first: `merge_orders`.
//!
//! The record contains only the first order of each day, and all figures of orders derive from it. A later order of the
//! day adds its amount. An order that arrives late but is earlier replaces the first one. Orders per currency are
//! counted separately from amounts, because any order of the day may be the first in its currency.

use super::{Engine, Round, Said, currency_tag};
use crate::engine::axis::Moment;
use crate::engine::clock::Class;
use crate::engine::customers::Slot;
use crate::engine::days::Change;
use crate::engine::rebooking::{Booked, Entry};
use crate::engine::recent::OrderPlace;
use crate::engine::record::Mark;
use crate::engine::window::{Flow, Sign};
use crate::event::{Currency, Money, Time};

impl Engine {
    /// Books an order that may merge with others of its day.
    pub(super) fn book_order_of_day(
        &mut self,
        slot: Slot,
        place: OrderPlace,
        at: Moment,
        amount: Money,
        said: Said<'_>,
        round: Round,
    ) {
        if self.is_on_day(place.y, at) {
            self.book_payment(slot, Flow::Amount, amount, at, round);
        } else {
            let replaced = place.s.filter(|_| self.is_on_day(place.s, at));
            self.insert_order(slot, place, at, amount, said, Flow::Amount, round);
            if let Some(replaced) = replaced {
                self.take_out_order(slot, replaced);
            }
        }
        self.each_booking(amount, at, |engine, currency, minor, value| {
            let change = engine.days.add(slot, at.day, currency_tag(currency), at.time, minor);
            engine.recount(slot, currency, change, value);
        });
        if !self.customers.is_copying() {
            self.days.sweep(self.spec.zone.day(self.clock.floor(Class::Orders)));
        }
    }

    /// Takes the last order of a customer's last day out of the sums of the day. Returns whether it was the only one.
    pub(super) fn retract_from_day(&mut self, slot: Slot, at: Moment, amount: Money) -> bool {
        self.each_booking(amount, at, |engine, currency, minor, value| {
            let change = engine.days.take(slot, at.day, currency_tag(currency), minor);
            engine.recount(slot, currency, change, value);
        });
        !self.days.has(slot, at.day)
    }

    /// Whether an order from before the floor belongs to a day whose sums may have been forgotten.
    pub(in crate::engine) fn has_forgotten_day(&self, place: &OrderPlace, at: Moment, floor: Time) -> bool {
        let is_before = self.spec.merge_orders && at.time < floor;
        is_before && (self.is_on_day(place.y, at) || self.is_on_day(place.s, at))
    }

    fn is_on_day(&self, time: Option<Time>, at: Moment) -> bool {
        time.is_some_and(|time| self.spec.zone.day(time) == at.day)
    }

    /// Calls `book` with the amount in its own currency, for which order values are reported, and in the reporting
    /// currency.
    fn each_booking(
        &mut self,
        amount: Money,
        at: Moment,
        mut book: impl FnMut(&mut Engine, usize, i64, Option<Currency>),
    ) {
        let currency = self.currency_number(amount.currency);
        book(self, currency, amount.minor, Some(amount.currency));
        if let Some((reporting, minor)) = self.in_reporting_currency(amount, at, Round::Again) {
            book(self, reporting, minor, None);
        }
    }

    /// Updates the time at which the day's order in a currency counts, and its value.
    fn recount(&mut self, slot: Slot, currency: usize, (before, after): Change, value: Option<Currency>) {
        for (sum, sign) in [(before, Sign::Remove), (after, Sign::Add)] {
            let Some(sum) = sum else { continue };
            if let Some(value) = value {
                self.distributions.money(currency, value, sum.minor, sign);
            }
            if before.map(|sum| sum.first) != after.map(|sum| sum.first) {
                self.count_order(slot, currency, sum.first, sign);
            }
        }
    }

    fn count_order(&mut self, slot: Slot, currency: usize, time: Time, sign: Sign) {
        let at = self.moment(time);
        self.windows.iter_mut().for_each(|window| window.money(Flow::Count, currency, 0, at, sign));
        let belonging = self.belonging(slot);
        self.segments.money(belonging.at(time), Flow::Count, currency, 0, at, sign);
        let what = Booked::Money(Flow::Count, currency_tag(currency), 0);
        match sign {
            Sign::Add => self.note(slot, time, what),
            Sign::Remove => self.rebooking.take(slot, Entry { time, what }),
        }
    }

    /// Removes an order that was replaced by an earlier one of the same day, which is booked already.
    fn take_out_order(&mut self, slot: Slot, order: Time) {
        let at = self.moment(order);
        let belonging = self.belonging(slot);
        let record = *self.customers.record(slot);
        let orders = self.recent.newest_orders(slot, &record, record.orders as usize);
        let (Some(first), Some(index)) = (belonging.first, orders.iter().rposition(|known| *known == order)) else {
            return;
        };
        let before = |back: usize| index.checked_sub(back).map(|index| orders[index]);
        let place = OrderPlace {
            place: orders.len() - 1 - index,
            z: orders.get(index + 2).copied(),
            s: orders.get(index + 1).copied(),
            y: before(1),
            x: before(2),
        };
        if record.has(Mark::Complained) {
            self.interrupt_complainers_silence(slot, belonging.profile, &place, at, Sign::Remove);
        }
        self.retract_terms(belonging, first, &place, at);
        self.distributions.retract_order(&place, at.time);
        let (rank, newer) = (record.orders - place.place as u32, &orders[index + 1..]);
        let first_order = record.first().unwrap_or(order);
        self.book_stage_run(first_order, &place, rank - 1, &orders[index..], Sign::Remove);
        self.book_stage_run(first_order, &place, rank - 1, newer, Sign::Add);
        self.recent.take_order(slot, self.customers.record_mut(slot), place.place);
        self.inactivity.retract_at(slot, order.millis());
        self.watch_anew(slot);
    }
}
