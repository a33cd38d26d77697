//! Books the rare events: referrals, complaints, costs.
//!
//! Each figure depends on the customer's first order and on the earliest event of its kind. If an earlier one arrives,
//! the old booking is taken back and replaced.

use super::{Belonging, Engine, Round};
use crate::engine::axis::Moment;
use crate::engine::clock::Class;
use crate::engine::customers::Slot;
use crate::engine::extras::{COMPLAINT, Rare};
use crate::engine::recent::OrderPlace;
use crate::engine::record::Mark;
use crate::engine::segments::Profile;
use crate::engine::window::{LostInterval, Sign};
use crate::event::{CostKind, Money};

impl Engine {
    /// Books a profile that names a referrer.
    pub(in crate::engine) fn book_mention(&mut self, slot: Slot, at: Moment) {
        let belonging = self.belonging(slot);
        self.at_earliest(slot, Rare::Mention, at, |engine, sign| engine.book_referral(slot, belonging, sign));
    }

    /// Books feedback; a complaint also affects the customer's silences.
    pub(in crate::engine) fn book_feedback(&mut self, slot: Slot, kind: &str, at: Moment, round: Round) {
        if round == Round::First {
            self.totals.feedback(kind, at.time);
        }
        if kind == COMPLAINT {
            let belonging = self.belonging(slot);
            self.at_earliest(slot, Rare::Complaint, at, |engine, sign| engine.book_complaint(slot, belonging, sign));
        }
    }

    pub(in crate::engine) fn book_complaint(&mut self, slot: Slot, belonging: Belonging, sign: Sign) {
        for silence in self.silences(slot) {
            self.windows.iter_mut().for_each(|window| window.lost_complainer(&silence, sign));
            self.segments.each(belonging.profile, |window| window.lost_complainer(&silence, sign));
        }
    }

    /// Books a cost.
    pub(in crate::engine) fn book_cost(&mut self, slot: Slot, kind: CostKind, amount: Money, at: Moment, round: Round) {
        if round == Round::First {
            let currency = self.currency_number(amount.currency);
            let reporting = self.in_reporting_currency(amount, at, round);
            for (currency, minor) in [(currency, amount.minor)].into_iter().chain(reporting) {
                self.windows.iter_mut().for_each(|window| window.cost(kind, currency, minor, at, Sign::Add));
            }
        }
        let belonging = self.belonging(slot);
        self.at_earliest(slot, Rare::Cost, at, |engine, sign| engine.book_coverage(slot, belonging, sign));
    }

    /// If `at` is earlier than all events of the kind so far, replaces the booking of the earliest one by one for `at`.
    fn at_earliest(&mut self, slot: Slot, what: Rare, at: Moment, mut book: impl FnMut(&mut Engine, Sign)) {
        if self.earliest(slot, what).is_some_and(|earliest| earliest.time <= at.time) {
            return;
        }
        book(self, Sign::Remove);
        self.extras.note(slot, self.customers.record_mut(slot), what, at.time);
        book(self, Sign::Add);
        let customers = &self.customers;
        if customers.is_copying() {
            return;
        }
        self.extras.sweep(|slot| customers.record(slot).first(), self.clock.floor(Class::Orders));
    }

    pub(super) fn earliest(&self, slot: Slot, what: Rare) -> Option<Moment> {
        self.extras.earliest(slot, self.customers.record(slot), what).map(|time| self.moment(time))
    }

    /// Removes the mark and its bookings, as if the customer never had an event of the kind.
    pub(super) fn retract_rare(&mut self, slot: Slot, what: Rare) {
        let belonging = self.belonging(slot);
        let book = |engine: &mut Engine, sign| match what {
            Rare::Mention => engine.book_referral(slot, belonging, sign),
            Rare::Complaint => engine.book_complaint(slot, belonging, sign),
            Rare::Cost => engine.book_coverage(slot, belonging, sign),
        };
        book(self, Sign::Remove);
        self.extras.forget(slot, self.customers.record_mut(slot), what);
        book(self, Sign::Add);
    }

    /// Moves the bookings to a new first order; `old` was the belonging before. Called before the order is booked.
    /// `referred`: whether it names a referrer.
    pub(super) fn move_extras(&mut self, slot: Slot, old: Belonging, new: Belonging, referred: bool) {
        self.book_referral(slot, old, Sign::Remove);
        self.book_coverage(slot, old, Sign::Remove);
        self.customers.record_mut(slot).set(Mark::Referred, referred);
        self.book_referral(slot, new, Sign::Add);
        self.book_coverage(slot, new, Sign::Add);
        if old.profile != new.profile {
            for silence in self.silences(slot) {
                self.segments.each(old.profile, |window| window.lost_complainer(&silence, Sign::Remove));
                self.segments.each(new.profile, |window| window.lost_complainer(&silence, Sign::Add));
            }
        }
    }

    /// Books the referral of a customer: from the first order on, or from the earliest mention if that is later.
    pub(in crate::engine) fn book_referral(&mut self, slot: Slot, belonging: Belonging, sign: Sign) {
        let Some(first) = belonging.first else { return };
        let by_first_order = self.customers.record(slot).has(Mark::Referred);
        let mention = if by_first_order { Some(first) } else { self.earliest(slot, Rare::Mention) };
        let Some(since) = mention.map(|mention| mention.max(first)) else { return };
        self.windows.iter_mut().for_each(|window| window.referred(first, since, sign));
        self.segments.each(belonging.profile, |window| window.referred(first, since, sign));
        self.totals.referral(since.time, sign);
    }

    /// Books that a customer has a cost: from the first order on, or from the earliest cost if that is later.
    pub(in crate::engine) fn book_coverage(&mut self, slot: Slot, belonging: Belonging, sign: Sign) {
        let (Some(first), Some(cost)) = (belonging.first, self.earliest(slot, Rare::Cost)) else { return };
        self.windows.iter_mut().for_each(|window| window.costed(cost.max(first), sign));
    }

    /// The silences after the known orders of a customer who complained. Older silences ended before the complaint, so
    /// they do not count.
    fn silences(&self, slot: Slot) -> Vec<LostInterval> {
        let Some(since) = self.earliest(slot, Rare::Complaint) else { return Vec::new() };
        let record = self.customers.record(slot);
        let orders = self.recent.newest_orders(slot, record, record.orders as usize);
        let mut next = None;
        let silence = |order| {
            let y = self.moment(order);
            let silence = LostInterval { y, since, next };
            next = Some(y);
            silence
        };
        orders.into_iter().rev().map(silence).collect()
    }

    /// Books an order of a customer who complained: it ends the silence after the order before and begins another.
    /// Called before the order is booked, or to undo that while it is booked.
    pub(super) fn interrupt_complainers_silence(
        &mut self,
        slot: Slot,
        profile: Profile,
        place: &OrderPlace,
        at: Moment,
        sign: Sign,
    ) {
        let Some(since) = self.earliest(slot, Rare::Complaint) else { return };
        let next = place.s.map(|s| self.moment(s));
        let own = LostInterval { y: at, since, next };
        let shortened = place.y.map(|y| LostInterval { y: self.moment(y), since: since.max(at), next });
        for (silence, sign) in [(Some(own), sign), (shortened, sign.opposite())] {
            let Some(silence) = silence else { continue };
            self.windows.iter_mut().for_each(|window| window.lost_complainer(&silence, sign));
            self.segments.each(profile, |window| window.lost_complainer(&silence, sign));
        }
    }
}
