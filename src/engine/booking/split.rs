//! Takes back what a customer did after an erasure, as if it had never arrived: event by event, newest first, each the
//! inverse of its booking. It is then booked again for the new customer.
//!
//! Sums that do not distinguish customers stay unchanged.

use super::{Belonging, Engine, Flow, currency_tag, minute_start, order_terms};
use crate::engine::ahead::{Deed, DeedKind};
use crate::engine::axis::Moment;
use crate::engine::customers::Slot;
use crate::engine::extras::Rare;
use crate::engine::inactivity::table::WinbackCandidate;
use crate::engine::rebooking::{Booked, Entry};
use crate::engine::recent::OrderPlace;
use crate::engine::record::{Mark, Record};
use crate::engine::window::Sign;
use crate::event::{MINUTE, Money, Time};

impl Engine {
    /// The time to which an erasure dated `at` has to extend. Events after it are fully known, unless the topics are
    /// further apart than allowed.
    pub(in crate::engine) fn separable_at(&self, slot: Slot, at: Time) -> Time {
        let limit = self.clock.ahead_of();
        if at >= limit {
            return at;
        }
        let record = self.customers.record(slot);
        let orders = self.recent.newest_orders(slot, record, record.orders as usize);
        let sessions = self.recent.known_sessions(slot, record).into_iter();
        let minute_end = |minute| minute_start(minute).plus(MINUTE - 1).min(limit);
        let sessions = sessions.filter(|&minute| minute_start(minute) <= limit).map(minute_end);
        let known = orders.into_iter().chain(sessions).filter(|time| *time <= limit);
        known.max().map_or(at, |newest| newest.max(at))
    }

    /// Takes back everything that the customer did after `at`; `later` contains it in order of arrival.
    pub(in crate::engine) fn retract_later(&mut self, slot: Slot, at: Time, later: &[Deed]) {
        for what in [Rare::Mention, Rare::Complaint, Rare::Cost] {
            if self.earliest(slot, what).is_some_and(|earliest| earliest.time > at) {
                self.retract_rare(slot, what);
            }
        }
        let mut left: Vec<&Deed> = later.iter().collect();
        left.sort_by_key(|deed| deed.time);
        while let Some(deed) = left.pop() {
            let moment = self.moment(deed.time);
            match &deed.what {
                DeedKind::Order(amount, _) => self.retract_order(slot, moment, *amount),
                DeedKind::Refund(amount) => self.retract_payment(slot, Flow::Refund, *amount, moment),
                DeedKind::Cancel(amount) => self.retract_payment(slot, Flow::Cancellation, *amount, moment),
                DeedKind::Session => {
                    let same_minute = |other: &Deed| {
                        other.what == DeedKind::Session && self.moment(other.time).minute == moment.minute
                    };
                    let earlier = self.ahead.of(slot).iter();
                    let next = earlier.chain(left.iter().copied()).filter(|other| same_minute(other));
                    let next = next.map(|other| other.time).max();
                    self.retract_session(slot, moment, next);
                }
                DeedKind::Profile(_) | DeedKind::Feedback(_) | DeedKind::Cost(..) => {}
            }
        }
        self.watch_anew(slot);
    }

    /// Takes back the newest order.
    fn retract_order(&mut self, slot: Slot, at: Moment, amount: Money) {
        let mut flow = Flow::Order;
        if self.spec.merge_orders {
            flow = Flow::Amount;
            if !self.retract_from_day(slot, at, amount) {
                return self.retract_payment(slot, flow, amount, at);
            }
        }
        let currency = self.currency_number(amount.currency);
        let belonging = self.belonging(slot);
        let Some(first) = belonging.first else { return };
        let record = *self.customers.record(slot);
        let place = OrderPlace { place: 0, z: None, s: None, y: record.newest(1), x: record.newest(2) };
        if record.has(Mark::Complained) {
            self.interrupt_complainers_silence(slot, belonging.profile, &place, at, Sign::Remove);
        }
        self.retract_terms(belonging, first, &place, at);
        self.distributions.retract_order(&place, at.time);
        self.retract_stage(&record, &place, at.time);
        let reporting = self.reporting_minor(amount, at);
        for (currency, minor) in [(currency, amount.minor)].into_iter().chain(reporting) {
            self.segments.money(belonging.profile, flow, currency, minor, at, Sign::Remove);
            self.cohorts.of(first).money(flow, currency, minor, at, Sign::Remove);
            let what = Booked::Money(flow, currency_tag(currency), minor);
            self.rebooking.take(slot, Entry { time: at.time, what });
        }
        self.book_net_revenue(slot, currency, -amount.minor);
        self.recent.take_order(slot, self.customers.record_mut(slot), place.place);
        let order = WinbackCandidate { at: at.time.millis(), currency: currency_tag(currency), minor: amount.minor };
        self.inactivity.retract(slot, order);
        if record.orders == 1 {
            self.book_referral(slot, belonging, Sign::Remove);
            self.book_coverage(slot, belonging, Sign::Remove);
            self.customers.record_mut(slot).set(Mark::Referred, false);
            self.move_everything(slot, belonging, Belonging::NOBODY, at);
        }
    }

    /// Takes back the counts of an order between these neighbours.
    pub(super) fn retract_terms(&mut self, belonging: Belonging, first: Moment, place: &OrderPlace, at: Moment) {
        let terms = order_terms(place, at, |time| self.moment(time));
        for (term, sign) in terms.iter().flatten() {
            let back = sign.opposite();
            self.windows.iter_mut().for_each(|window| window.order(term, back));
            self.segments.order(belonging.profile, term, back);
            self.cohorts.of(first).order(term.y, term.s, back);
        }
    }

    fn retract_stage(&mut self, record: &Record, place: &OrderPlace, at: Time) {
        let first = record.first().unwrap_or(at);
        self.book_stage_run(first, place, record.orders - 1, &[at], Sign::Remove);
        if place.y.is_some() {
            self.book_stage_run(first, place, record.orders - 1, &[], Sign::Add);
        } else {
            self.lifecycle.prospect(at, None, Sign::Add);
        }
    }

    /// Takes back the newest session; `next` is the newest other one in the same minute.
    fn retract_session(&mut self, slot: Slot, at: Moment, next: Option<Time>) {
        let belonging = self.belonging(slot);
        self.segments.each(belonging.at(at.time), |window| window.session(at, Sign::Remove));
        self.rebooking.take(slot, Entry { time: at.time, what: Booked::Session });
        match next {
            Some(next) => self.customers.record_mut(slot).set_last_session(next),
            None => {
                let before = self.customers.record(slot).session_before();
                let before = before.map(|minute| self.moment(minute_start(minute)));
                self.book_visit(belonging, before, at, Sign::Remove);
                self.recent.take_session_minute(slot, self.customers.record_mut(slot));
            }
        }
        let record = self.customers.record_mut(slot);
        record.sessions = record.sessions.saturating_sub(1);
    }

    fn retract_payment(&mut self, slot: Slot, flow: Flow, amount: Money, at: Moment) {
        let currency = self.currency_number(amount.currency);
        self.book_net_revenue(slot, currency, if flow.is_revenue() { -amount.minor } else { amount.minor });
        let belonging = self.belonging(slot);
        let reporting = self.reporting_minor(amount, at);
        for (currency, minor) in [(currency, amount.minor)].into_iter().chain(reporting) {
            self.segments.money(belonging.at(at.time), flow, currency, minor, at, Sign::Remove);
            if let Some(first) = belonging.first_by(at.time) {
                self.cohorts.of(first).money(flow, currency, minor, at, Sign::Remove);
            }
            let what = Booked::Money(flow, currency_tag(currency), minor);
            self.rebooking.take(slot, Entry { time: at.time, what });
        }
    }

    fn reporting_minor(&mut self, amount: Money, at: Moment) -> Option<(usize, i64)> {
        self.in_reporting_currency(amount, at, super::Round::Again)
    }
}
