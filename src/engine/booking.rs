//! Adds an accepted event to windows, segments, cohorts, stages and the customer's record.
//!
//! A customer's events are booked under the segments and cohort of the earliest order. If an even earlier order
//! arrives, all of them are taken back and booked again; [`super::rebooking`] and [`super::recent`] keep the data for
//! that.

mod extras;
mod merged;
mod split;

use super::Engine;
use super::axis::Moment;
use super::clock::Class;
use super::customers::Slot;
use super::inactivity::table::WinbackCandidate;
use super::lifecycle::LifeTerm;
use super::rebooking::{Booked, Entry};
use super::recent::{OrderPlace, SessionPlace};
use super::record::{Mark, Record};
use super::segments::{NO_PROFILE, Profile};
use super::window::{Flow, OrderTerm, Sign, Span, Window};
use crate::event::{Attributes, Currency, MINUTE, Money, Time};

/// Whether an event is booked for the first time, or again for another customer. In the second case sums that do not
/// distinguish customers stay unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// The first time.
    First,
    /// Again.
    Again,
}

/// Where a customer's events belong: to no segment or cohort before the first order, to those of the profile after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Belonging {
    pub(super) first: Option<Moment>,
    profile: Profile,
}

impl Belonging {
    const NOBODY: Belonging = Belonging { first: None, profile: NO_PROFILE };

    pub(super) fn at(&self, time: Time) -> Profile {
        if self.first_by(time).is_some() { self.profile } else { NO_PROFILE }
    }

    /// The first order, unless it is after `time`.
    pub(super) fn first_by(&self, time: Time) -> Option<Moment> {
        self.first.filter(|first| time >= first.time)
    }
}

/// What an order states about its customer: attributes, and whether the customer was referred.
type Said<'a> = (&'a Attributes<'a>, bool);

impl Engine {
    fn moment(&self, time: Time) -> Moment {
        Moment::new(time, &self.spec.zone)
    }

    pub(super) fn belonging(&self, slot: Slot) -> Belonging {
        let record = self.customers.record(slot);
        Belonging { first: record.first().map(|first| self.moment(first)), profile: record.profile }
    }

    /// Notes when a customer was first seen. From then until the first order, the customer is a prospect.
    pub(super) fn book_sight(&mut self, slot: Slot, at: Moment) {
        let record = self.customers.record_mut(slot);
        let seen = record.seen();
        if seen.is_none_or(|seen| at.time < seen) {
            record.set_seen(at.time);
            self.lifecycle.prospect(at.time, seen, Sign::Add);
        }
    }

    pub(super) fn book_order(
        &mut self,
        slot: Slot,
        place: OrderPlace,
        at: Moment,
        amount: Money,
        said: Said<'_>,
        round: Round,
    ) {
        if self.spec.merge_orders {
            self.book_order_of_day(slot, place, at, amount, said, round);
        } else {
            self.insert_order(slot, place, at, amount, said, Flow::Order, round);
        }
        self.sweep();
    }

    /// Books an order between its neighbours, with its amount as `flow`.
    #[expect(clippy::too_many_arguments, reason = "an order and how it is booked")]
    fn insert_order(
        &mut self,
        slot: Slot,
        place: OrderPlace,
        at: Moment,
        amount: Money,
        (attributes, referred): Said<'_>,
        flow: Flow,
        round: Round,
    ) {
        let currency = self.currency_number(amount.currency);
        let count = self.customers.record(slot).orders as usize;
        let is_first = place.place == count;
        let before = self.belonging(slot);
        if is_first {
            let now = Belonging { first: Some(at), profile: self.segments.profile(attributes) };
            self.move_everything(slot, before, now, at);
            if referred || self.customers.record(slot).is_marked() {
                self.move_extras(slot, before, now, referred);
            }
        }
        // The customer's first order: this one or an earlier one.
        let first = before.first.filter(|_| !is_first).unwrap_or(at);
        let profile = self.customers.record(slot).profile;
        let terms = order_terms(&place, at, |time| Moment::new(time, &self.spec.zone));
        self.book_windows(profile, &terms, at, (flow, currency, amount.minor), round);
        self.book_cohort(first, &terms, at, (flow, currency, amount.minor));
        self.distributions.order(&place, at.time);
        if round == Round::First && flow == Flow::Order {
            self.distributions.money(currency, amount.currency, amount.minor, Sign::Add);
        }
        self.book_net_revenue(slot, currency, amount.minor);
        self.book_stages(slot, &place, at);
        if self.customers.record(slot).has(Mark::Complained) {
            self.interrupt_complainers_silence(slot, profile, &place, at, Sign::Add);
        }
        let deadline = if place.place > 0 { self.order_deadline_before(slot) } else { None };
        let floor = self.inactivity.retention(Class::Orders, self.clock.floor(Class::Orders));
        self.recent.insert_order(slot, self.customers.record_mut(slot), place.place, at.time, floor);
        let order = WinbackCandidate { at: at.time.millis(), currency: currency_tag(currency), minor: amount.minor };
        self.watch_order(slot, &place, order, deadline);
        self.note(slot, at.time, Booked::Money(flow, currency_tag(currency), amount.minor));
        self.book_reporting(slot, flow, amount, at, round);
        if self.first_order.is_none_or(|first| at.time < first) {
            self.first_order = Some(at.time);
        }
    }

    /// Books an order in all windows. Only two predecessors of an order matter, so a late order also changes the terms
    /// of its two successors. All customers and segments share the panes of a window, which are computed once.
    fn book_windows(
        &mut self,
        profile: Profile,
        terms: &OrderTerms,
        at: Moment,
        (flow, currency, minor): (Flow, usize, i64),
        round: Round,
    ) {
        let mut scopes = self.segments.of(profile);
        for (index, window) in self.windows.iter_mut().enumerate() {
            for (term, sign) in terms.iter().flatten() {
                let panes = window.panes(term);
                window.order_at(&panes, *sign);
                scopes.iter_mut().flatten().for_each(|scope| scope[index].order_at(&panes, *sign));
            }
            let pane = window.pane(at);
            let book = |window: &mut Window| window.money_at(flow, currency, minor, pane, Sign::Add);
            if round == Round::First {
                book(window);
            }
            scopes.iter_mut().flatten().for_each(|scope| book(&mut scope[index]));
        }
    }

    fn book_cohort(
        &mut self,
        first: Moment,
        terms: &OrderTerms,
        at: Moment,
        (flow, currency, minor): (Flow, usize, i64),
    ) {
        let cohort = self.cohorts.of(first);
        for (term, sign) in terms.iter().flatten() {
            cohort.order(term.y, term.s, *sign);
        }
        cohort.money(flow, currency, minor, at, Sign::Add);
    }

    /// Stage and status depend on rank and first order, so the order before and everything after it are booked again.
    fn book_stages(&mut self, slot: Slot, place: &OrderPlace, at: Moment) {
        let record = self.customers.record(slot);
        let first_before = record.first();
        let rank = record.orders - u32::try_from(place.place).unwrap_or(u32::MAX) + 1;
        if let (0, Some(first), Some(_)) = (place.place, first_before, place.y) {
            let term = LifeTerm { first, before: place.y, order: at.time, rank, after: None };
            return self.lifecycle.newest_order(&term);
        }
        let newer = match place.place {
            0 => Vec::new(),
            newer => self.recent.newest_orders(slot, record, newer),
        };
        let first = first_before.map_or(at.time, |first| first.min(at.time));
        if let Some(first_before) = first_before {
            self.book_stage_run(first_before, place, rank - 1, &newer, Sign::Remove);
            if place.y.is_none() {
                self.lifecycle.prospect(first_before, None, Sign::Add);
            }
        }
        if place.y.is_none() {
            self.lifecycle.prospect(at.time, None, Sign::Remove);
        }
        if newer.is_empty() {
            return self.book_stage_run(first, place, rank - 1, &[at.time], Sign::Add);
        }
        let later: Vec<_> = std::iter::once(at.time).chain(newer).collect();
        self.book_stage_run(first, place, rank - 1, &later, Sign::Add);
    }

    /// Books the order before `later`, whose rank is `rank_before`, and the orders `later`.
    fn book_stage_run(&mut self, first: Time, place: &OrderPlace, rank_before: u32, later: &[Time], sign: Sign) {
        if let Some(y) = place.y {
            let term = LifeTerm { first, before: place.x, order: y, rank: rank_before, after: later.first().copied() };
            self.lifecycle.order(&term, sign);
        }
        let mut before = place.y;
        for (i, &order) in later.iter().enumerate() {
            let rank = rank_before + 1 + u32::try_from(i).unwrap_or(u32::MAX);
            let term = LifeTerm { first, before, order, rank, after: later.get(i + 1).copied() };
            self.lifecycle.order(&term, sign);
            before = Some(order);
        }
    }

    pub(super) fn book_session(&mut self, slot: Slot, place: SessionPlace, at: Moment, round: Round) {
        let belonging = self.belonging(slot);
        if round == Round::First {
            self.windows.iter_mut().for_each(|window| window.session(at, Sign::Add));
        }
        self.segments.each(belonging.at(at.time), |window| window.session(at, Sign::Add));
        if let SessionPlace::Between { before, after } = place {
            let moment = |minute: i32| Moment::new(minute_start(minute), &self.spec.zone);
            let (before, after) = (before.map(moment), after.map(moment));
            self.book_visit(belonging, before, at, Sign::Add);
            if let Some(after) = after {
                self.book_visit(belonging, before, after, Sign::Remove);
                self.book_visit(belonging, Some(at), after, Sign::Add);
            }
            let floor = self.session_floor();
            self.recent.insert_session(slot, self.customers.record_mut(slot), at.time, floor);
        }
        let record = self.customers.record_mut(slot);
        if record.last_session().is_none_or(|last| at.time > last) {
            record.set_last_session(at.time);
        }
        record.sessions += 1;
        if !self.segments.is_empty() {
            self.note(slot, at.time, Booked::Session);
        }
        self.sweep();
    }

    pub(super) fn book_visit(&mut self, belonging: Belonging, before: Option<Moment>, at: Moment, sign: Sign) {
        for window in &mut self.windows {
            window.visit(before, at, Span::ALWAYS, sign);
        }
        if self.segments.is_empty() {
            return;
        }
        let nobodys = Span { since: None, until: belonging.first };
        self.segments.each(NO_PROFILE, |window| window.visit(before, at, nobodys, sign));
        if belonging.first.is_some() {
            let own = Span { since: belonging.first, until: None };
            self.segments.each(belonging.profile, |window| window.visit(before, at, own, sign));
        }
    }

    /// Books money that is returned, or received without an order of its own.
    pub(super) fn book_payment(&mut self, slot: Slot, flow: Flow, amount: Money, at: Moment, round: Round) {
        let currency = self.currency_number(amount.currency);
        if round == Round::First {
            self.windows.iter_mut().for_each(|window| window.money(flow, currency, amount.minor, at, Sign::Add));
        }
        self.book_net_revenue(slot, currency, if flow.is_revenue() { amount.minor } else { -amount.minor });
        let belonging = self.belonging(slot);
        self.segments.money(belonging.at(at.time), flow, currency, amount.minor, at, Sign::Add);
        if let Some(first) = belonging.first_by(at.time) {
            self.cohorts.of(first).money(flow, currency, amount.minor, at, Sign::Add);
        }
        self.book_reporting(slot, flow, amount, at, round);
        self.note(slot, at.time, Booked::Money(flow, currency_tag(currency), amount.minor));
        self.sweep();
    }

    fn book_net_revenue(&mut self, slot: Slot, currency: usize, minor: i64) {
        self.net_revenue.add(slot, self.customers.record_mut(slot), currency_tag(currency), minor);
    }

    /// Books an amount also in the reporting currency, if there is one. Called after the event itself is booked, so
    /// that the customer's segments and cohort include it.
    fn book_reporting(&mut self, slot: Slot, flow: Flow, amount: Money, at: Moment, round: Round) {
        let Some((currency, minor)) = self.in_reporting_currency(amount, at, round) else { return };
        if round == Round::First {
            self.windows.iter_mut().for_each(|window| window.money(flow, currency, minor, at, Sign::Add));
        }
        let belonging = self.belonging(slot);
        self.segments.money(belonging.at(at.time), flow, currency, minor, at, Sign::Add);
        if let Some(first) = belonging.first_by(at.time) {
            self.cohorts.of(first).money(flow, currency, minor, at, Sign::Add);
        }
        self.note(slot, at.time, Booked::Money(flow, currency_tag(currency), minor));
    }

    /// The number of the reporting currency and the converted amount. `None` without a reporting currency, or without a
    /// rate, which is counted.
    fn in_reporting_currency(&mut self, amount: Money, at: Moment, round: Round) -> Option<(usize, i64)> {
        let rates = self.spec.rates.as_ref()?;
        let Some(minor) = rates.convert(amount, at.day) else {
            *self.unconverted.entry(amount.currency).or_default() += u64::from(round == Round::First);
            return None;
        };
        let reporting = rates.reporting();
        Some((self.currency_number(reporting), minor))
    }

    /// An earlier first order `at` changes the customer's segments and cohort: takes back what is booked under the old
    /// ones and books it under the new ones.
    fn move_everything(&mut self, slot: Slot, old: Belonging, new: Belonging, at: Moment) {
        self.customers.record_mut(slot).profile = new.profile;
        if old == Belonging::NOBODY && self.segments.is_empty() && self.rebooking.of(slot).is_empty() {
            return;
        }
        let record = self.customers.record(slot);
        let orders = self.recent.newest_orders(slot, record, record.orders as usize);
        let sessions = self.recent.known_sessions(slot, record);
        let entries = self.rebooking.of(slot).to_vec();
        for (belonging, sign) in [(old, Sign::Remove), (new, Sign::Add)] {
            self.book_orders_of(belonging, &orders, sign);
            self.book_visits_of(belonging, &sessions, sign);
            for entry in &entries {
                self.book_entry(belonging, entry, at, sign);
            }
        }
    }

    fn book_orders_of(&mut self, belonging: Belonging, orders: &[Time], sign: Sign) {
        let Some(first) = belonging.first else { return };
        let moments: Vec<_> = orders.iter().map(|&order| self.moment(order)).collect();
        for (i, &s) in moments.iter().enumerate() {
            let before = |back: usize| i.checked_sub(back).map(|i| moments[i]);
            let term = OrderTerm { x: before(2), y: before(1), s };
            self.segments.order(belonging.profile, &term, sign);
            self.cohorts.of(first).order(term.y, s, sign);
        }
    }

    /// Moves visits after the first order from customers without an order to the segments of the profile.
    fn book_visits_of(&mut self, belonging: Belonging, sessions: &[i32], sign: Sign) {
        let Some(first) = belonging.first else { return };
        let own = Span { since: Some(first), until: None };
        let back = sign.opposite();
        let split = sessions.partition_point(|&minute| minute <= first.minute);
        let moments: Vec<_> = sessions.iter().map(|&minute| self.moment(minute_start(minute))).collect();
        let (earlier, later) = moments.split_at(split);
        for (profile, sign) in [(belonging.profile, sign), (NO_PROFILE, back)] {
            self.segments.each(profile, |window| {
                if let Some(&last) = earlier.last() {
                    window.visits_until(last, own, sign);
                }
                let mut before = earlier.last().copied();
                for &at in later {
                    window.visit(before, at, own, sign);
                    before = Some(at);
                }
            });
        }
    }

    /// Moves a session or an amount from `since`, the earlier first order, or later. This includes the revenue of every
    /// order.
    fn book_entry(&mut self, belonging: Belonging, entry: &Entry, since: Moment, sign: Sign) {
        if entry.time < since.time {
            return;
        }
        let at = self.moment(entry.time);
        let profile = belonging.at(entry.time);
        match entry.what {
            Booked::Session => self.segments.each(profile, |window| window.session(at, sign)),
            Booked::Money(flow, currency, minor) => {
                let currency = usize::from(currency);
                self.segments.money(profile, flow, currency, minor, at, sign);
                if let Some(first) = belonging.first_by(entry.time) {
                    self.cohorts.of(first).money(flow, currency, minor, at, sign);
                }
            }
        }
    }

    /// Keeps an entry if an earlier first order of its customer may still arrive.
    fn note(&mut self, slot: Slot, time: Time, what: Booked) {
        let floor = self.clock.floor(Class::Orders);
        let young = self.customers.record(slot).first().is_none_or(|first| first >= floor);
        if young && time >= floor {
            self.rebooking.add(slot, Entry { time, what });
        }
    }

    fn currency_number(&mut self, currency: Currency) -> usize {
        match self.currencies.iter().position(|&known| known == currency) {
            Some(number) => number,
            None => {
                self.currencies.push(currency);
                self.currencies.len() - 1
            }
        }
    }

    /// Sessions are kept as long as an earlier first order may arrive and move them to its segments. So all are kept
    /// while the partition has no order.
    fn session_floor(&self) -> Time {
        let sessions = self.inactivity.retention(Class::Sessions, self.clock.floor(Class::Sessions));
        if self.segments.is_empty() { sessions } else { sessions.min(self.clock.floor(Class::Orders)) }
    }

    fn sweep(&mut self) {
        // A checkpoint that is being taken still needs the old data.
        if self.customers.is_copying() {
            return;
        }
        let floor = self.clock.floor(Class::Orders);
        let floors = (self.inactivity.retention(Class::Orders, floor), self.session_floor());
        let customers = &self.customers;
        self.rebooking.sweep(|slot| customers.record(slot).first(), floor);
        for slot in self.recent.sweep(|slot| customers.record(slot), floors.0, floors.1) {
            self.customers.record_mut(slot).forget_sessions();
        }
    }
}

/// What booking an order between its neighbours adds and takes back.
type OrderTerms = [Option<(OrderTerm, Sign)>; 5];

fn order_terms(place: &OrderPlace, at: Moment, moment: impl Fn(Time) -> Moment) -> OrderTerms {
    let [z, s, y, x] = [place.z, place.s, place.y, place.x].map(|time| time.map(&moment));
    let mut terms = [Some((OrderTerm { x, y, s: at }, Sign::Add)), None, None, None, None];
    if let Some(s) = s {
        terms[1] = Some((OrderTerm { x, y, s }, Sign::Remove));
        terms[2] = Some((OrderTerm { x: y, y: Some(at), s }, Sign::Add));
        if let Some(z) = z {
            terms[3] = Some((OrderTerm { x: y, y: Some(s), s: z }, Sign::Remove));
            terms[4] = Some((OrderTerm { x: Some(at), y: Some(s), s: z }, Sign::Add));
        }
    }
    terms
}

/// The number of a currency in one byte; there are only about 180 currencies.
fn currency_tag(currency: usize) -> u8 {
    u8::try_from(currency).unwrap_or(u8::MAX)
}

fn minute_start(minute: i32) -> Time {
    Time::clamped(i64::from(minute) * MINUTE)
}

const _: () = assert!(Record::NEWEST == 3, "windows need two predecessors and one successor in the record");
