//! Decides silences and win-backs as time passes, and schedules the next checks.
//!
//! The event that advances time is applied first. Decisions depend on records alone, so batches and restarts do not
//! change them.

use std::collections::BTreeMap;

use super::table::{Open, PendingAlert, PendingAlertKind, Silences, WinbackCandidate};
use super::{Group, RuleSpec, stage_number, status_number};
use crate::engine::Engine;
use crate::engine::clock::Class;
use crate::engine::customers::Slot;
use crate::engine::recent::OrderPlace;
use crate::engine::record::{KeyTag, Mark, Record};
use crate::event::{MINUTE, Time};

/// A silence that lasts at least until it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Silent {
    /// Index of the rule in the spec.
    pub rule: usize,
    /// The last qualifying event, in epoch milliseconds.
    pub since: i64,
    /// The due time.
    pub due: i64,
    /// Whether a qualifying event came after the due time.
    pub is_over: bool,
}

/// A new notice with its sort key.
struct Told {
    key: (i64, String, usize),
    slot: Slot,
    notice: PendingAlert,
}

impl Engine {
    /// Decides everything that is due.
    #[inline]
    pub(in crate::engine) fn decide(&mut self) {
        if self.inactivity.bounds.is_off() {
            return;
        }
        let Some(watermark) = self.clock.watermark() else { return };
        let settle = self.spec.inactivity.settle;
        let begin = watermark.millis() - settle;
        for class in [Class::Orders, Class::Sessions] {
            // Orders are processed even without a rule: their progress also tells which orders the rules about sessions
            // need.
            if class == Class::Sessions && !self.inactivity.bounds.has[class as usize] {
                continue;
            }
            // A topic that does not drive time may lag behind; its events are waited for.
            let Some(carried) = self.clock.carried(class) else { continue };
            self.decide_class(class, begin, watermark.min(carried).millis() - settle);
        }
    }

    /// Decides what is due before `limit`; `begin` is the limit without regard to the class.
    #[inline]
    fn decide_class(&mut self, class: Class, begin: i64, limit: i64) {
        let [orders, _] = self.inactivity.state.due_to;
        let due_to = &mut self.inactivity.state.due_to[class as usize];
        match *due_to {
            // What was due before the first event of a class is never decided; its orders are no longer known either.
            None => *due_to = Some(orders.map_or(begin, |orders| orders.max(begin))),
            Some(from) if limit > from => {
                if self.inactivity.wheels[class as usize].is_due(limit) {
                    self.fire(class, from, limit);
                }
                self.inactivity.state.due_to[class as usize] = Some(limit);
            }
            Some(_) => {}
        }
    }

    /// Decides what is due from `from` to before `limit`.
    #[cold]
    fn fire(&mut self, class: Class, from: i64, limit: i64) {
        let mut wheel = std::mem::take(&mut self.inactivity.wheels[class as usize]);
        let mut due = std::mem::take(&mut self.inactivity.due);
        wheel.take(limit, &mut due, |slot| self.deadline(slot, class, from));
        let mut news = Vec::new();
        for &slot in &due {
            self.look_at(slot, class, (from, limit), &mut news);
            if let Some(at) = self.deadline(slot, class, limit) {
                wheel.push(at, slot);
            }
        }
        self.inactivity.wheels[class as usize] = wheel;
        self.inactivity.due = due;
        news.sort_by(|a: &Told, b| a.key.cmp(&b.key));
        for Told { slot, mut notice, .. } in news {
            let number = self.inactivity.state.number;
            self.inactivity.state.number += 1;
            notice.number = number;
            self.inactivity.table.entry(slot).notices.push(notice);
            self.inactivity.queue.push_back((number, slot));
            self.inactivity.waiting += 1;
        }
    }

    /// The next deadline of a customer: of the silences due at `from` or later, and of the open ones.
    pub(in crate::engine) fn deadline(&self, slot: Slot, class: Class, from: i64) -> Option<i64> {
        let mut next = i64::MAX;
        self.each_silence(slot, class, from, |silent| next = next.min(silent.due));
        let of_class = self.inactivity.table.open(slot).filter(|open| self.inactivity.class_of(open.rule) == class);
        next = of_class.map(|open| open.settled_at()).fold(next, i64::min);
        (next < i64::MAX).then_some(next)
    }

    /// Calls `found` with the silences of a customer that are due at `from` or later, newest first.
    pub(in crate::engine) fn each_silence(&self, slot: Slot, class: Class, from: i64, mut found: impl FnMut(Silent)) {
        let record = self.customers.record(slot);
        if record.tag == KeyTag::FREE || !self.inactivity.bounds.has[class as usize] {
            return;
        }
        let rules = self.spec.inactivity.rules.iter().enumerate();
        let rules = rules.filter(|(_, rule)| rule.silence.class() == class);
        let first = record.first().map_or(0, Time::millis);
        let before = self.undecided_from(slot);
        let mut visit = |y: i64, rank: u32, next: Option<i64>| {
            for (rule, RuleSpec { silence, .. }) in rules.clone() {
                let Some(after) = silence.after(rank, first, y) else { continue };
                let due = y + after;
                if due >= from && due < before && next.is_none_or(|next| next > due) {
                    found(Silent { rule, since: y, due, is_over: next.is_some() });
                }
            }
        };
        let longest = self.inactivity.bounds.longest[class as usize];
        let mut next = None;
        let too_old = |y: i64| y.saturating_add(longest) < from;
        match class {
            Class::Orders => {
                for (index, y) in (0..).zip(self.known_orders(slot, record)) {
                    if too_old(y) {
                        break;
                    }
                    visit(y, record.orders - index, next);
                    next = Some(y);
                }
            }
            Class::Sessions => {
                for y in self.visits(slot, record) {
                    if too_old(y) {
                        break;
                    }
                    visit(y, 0, next);
                    next = Some(y);
                }
            }
        }
    }

    /// The known orders in epoch milliseconds, newest first.
    fn known_orders(&self, slot: Slot, record: &Record) -> impl Iterator<Item = i64> {
        let in_record = (0..Record::NEWEST).map_while(|index| record.newest(index));
        let is_more = record.orders as usize > Record::NEWEST;
        // Lazy: most calls do not need the side table.
        let older =
            is_more.then(|| std::iter::once_with(move || self.recent.of(slot).0.iter().rev().copied()).flatten());
        in_record.chain(older.into_iter().flatten()).map(Time::millis)
    }

    /// The minutes of the known sessions and the minute in which a prospect was first seen, newest first.
    fn visits(&self, slot: Slot, record: &Record) -> Vec<i64> {
        let minutes = self.recent.known_sessions(slot, record);
        let mut visits: Vec<_> = minutes.into_iter().rev().map(|minute| i64::from(minute) * MINUTE).collect();
        let was_prospect = |seen: &Time| record.first().is_none_or(|first| *seen < first);
        if let Some(seen) = record.seen().filter(was_prospect).filter(|_| !record.sessions_forgotten()) {
            let minute = seen.millis().div_euclid(MINUTE) * MINUTE;
            if visits.last().is_none_or(|&oldest| minute < oldest) {
                visits.push(minute);
            }
        }
        visits
    }

    /// Decides the silences of a customer that are due in [from, limit), and the win-backs that can no longer change.
    fn look_at(&mut self, slot: Slot, class: Class, span: (i64, i64), news: &mut Vec<Told>) {
        let (from, limit) = span;
        let mut found = Vec::new();
        self.each_silence(slot, class, from, |silent| found.extend(Some(silent).filter(|silent| silent.due < limit)));
        found.sort_unstable_by_key(|silent| (silent.due, silent.rule));
        self.before_change(slot);
        let mut silences = self.inactivity.table.take(slot);
        let before = (silences.open.len(), news.len());
        for silent in found {
            self.decide_silence(slot, &silent, &mut silences, news);
        }
        let is_settled = |open: &mut Open| self.inactivity.class_of(open.rule) == class && open.settled_at() < limit;
        let settled: Vec<_> = silences.open.extract_if(.., is_settled).collect();
        let is_changed = !settled.is_empty() || before != (silences.open.len(), news.len());
        settled.iter().for_each(|open| self.settle(slot, open, news));
        let mut due_to = self.inactivity.state.due_to;
        due_to[class as usize] = Some(limit);
        let known_from = due_to.into_iter().flatten().min().unwrap_or(limit);
        silences.winback_candidates.retain(|order| order.at >= known_from);
        self.inactivity.table.put(slot, silences);
        if is_changed {
            self.customers.record_mut(slot);
        }
    }

    fn decide_silence(&mut self, slot: Slot, silent: &Silent, silences: &mut Silences, news: &mut Vec<Told>) {
        if !self.is_told(silent) {
            return;
        }
        let Some(figures) = self.figures_when_due(slot, silent) else { return };
        let customer = self.customers.id(slot);
        let erased = self.customers.identity(slot);
        let held_out = erased.map_or_else(|| self.spec.inactivity.is_held_out(&customer), |erased| erased.held_out);
        let number = self.inactivity.numbers[silent.rule];
        self.inactivity.state.rules[usize::from(number)].groups[Group::of(held_out) as usize].due += 1;
        let &Silent { rule, since, due, is_over } = silent;
        let alerted = !is_over && !held_out && erased.is_none();
        let until = due.saturating_add(self.spec.inactivity.winback_within).min(self.undecided_from(slot) - 1);
        let mut open = Open { rule: number, since, due, until, held_out, alerted, back: None };
        silences.winback_candidates.iter().for_each(|&order| _ = open.see(order));
        // Most customers have one silence; room for four would cost most of a silent customer's memory.
        silences.open.reserve_exact(1);
        silences.open.push(open);
        if alerted {
            let notice = PendingAlert { number: 0, rule: number, since, due, news: figures };
            news.push(Told { key: (due, customer, rule), slot, notice });
        }
    }

    /// Whether a silence will count when it is due, as far as known now.
    pub(in crate::engine) fn would_tell(&self, slot: Slot, silent: &Silent) -> bool {
        self.is_told(silent) && self.figures_when_due(slot, silent).is_some()
    }

    /// Whether a silence counts: it is due after alerts and its rule began, and cannot have been decided under an older
    /// definition of the rule.
    fn is_told(&self, silent: &Silent) -> bool {
        let rule = &self.inactivity.state.rules[usize::from(self.inactivity.numbers[silent.rule])];
        silent.due >= self.inactivity.since.max(rule.since) && silent.since >= rule.from
    }

    /// The content of an alert: orders, stage and status as of the due time, the rest as of now; `None` if the rule's
    /// filter excludes the customer.
    fn figures_when_due(&self, slot: Slot, silent: &Silent) -> Option<PendingAlertKind> {
        let record = self.customers.record(slot);
        let filter = &self.spec.inactivity.rules[silent.rule].filter;
        let later = self.known_orders(slot, record).take_while(|&order| order > silent.due).count();
        let last = self.known_orders(slot, record).nth(later);
        let orders = record.orders.saturating_sub(u32::try_from(later).unwrap_or(u32::MAX));
        let standing = record.first().zip(last).map(|(first, last)| {
            self.spec.lifecycle.standing(orders, first, Time::clamped(last), Time::clamped(silent.due))
        });
        let stage = stage_number(standing.map(|(stage, _)| stage));
        if orders < filter.min_orders || !(filter.stages.is_empty() || filter.stages.contains(&stage)) {
            return None;
        }
        let revenue: Vec<_> = self.net_revenue.of(slot, record).collect();
        if let Some(least) = filter.min_revenue {
            let of = |&&(number, _): &&(u8, i64)| self.currencies.get(usize::from(number)) == Some(&least.currency);
            if revenue.iter().find(of).map_or(0, |(_, minor)| *minor) < least.minor {
                return None;
            }
        }
        if !filter.segment.is_empty() {
            let names: Vec<_> = self.segments.names(record.profile).collect();
            let has = |(dimension, value): &(usize, String)| names.get(*dimension) == Some(&value.as_str());
            if !filter.segment.iter().all(has) {
                return None;
            }
        }
        let status = status_number(standing.map(|(_, status)| status));
        Some(PendingAlertKind::Silent { orders, stage, status, complained: record.has(Mark::Complained), revenue })
    }

    /// Counts the outcome of a silence, which can no longer change.
    fn settle(&mut self, slot: Slot, open: &Open, news: &mut Vec<Told>) {
        let Some(back) = open.back else { return };
        let group = &mut self.inactivity.state.rules[usize::from(open.rule)].groups[Group::of(open.held_out) as usize];
        group.won_back += 1;
        match group.revenue.iter_mut().find(|(currency, _)| *currency == back.currency) {
            Some((_, sum)) => *sum = sum.saturating_add(back.minor),
            None => group.revenue.push((back.currency, back.minor)),
        }
        if open.alerted {
            let &Open { rule, since, due, .. } = open;
            let notice = PendingAlert { number: 0, rule, since, due, news: PendingAlertKind::Back(back) };
            news.push(Told { key: (back.at, self.customers.id(slot), usize::from(rule)), slot, notice });
        }
    }

    /// Handles an order after it was booked: it may end a silence and begins another. `before` is the customer's
    /// deadline before the booking, if the order is not the newest.
    #[inline]
    pub(in crate::engine) fn watch_order(
        &mut self,
        slot: Slot,
        place: &OrderPlace,
        order: WinbackCandidate,
        before: Option<i64>,
    ) {
        let bounds = self.inactivity.bounds;
        if bounds.is_off() {
            return;
        }
        let y = place.y.map(Time::millis);
        // A late order may still arrive before the first one.
        let begin = y.unwrap_or_else(|| self.clock.floor(Class::Orders).millis());
        if bounds.has[Class::Sessions as usize] || order.at > begin.saturating_add(bounds.shortest) {
            self.watch_comeback(slot, order);
        }
        if !bounds.has[Class::Orders as usize] {
            return;
        }
        let from = self.inactivity.state.due_to[Class::Orders as usize].unwrap_or(i64::MIN);
        // While even the shortest silence after `y` is undecided, the wheel checks the customer no later than that, and
        // the new order makes nothing due earlier. Once it is decided, the next entry may be as late as the longest
        // silence, long after the shortest silence that the new order begins.
        let is_first_pending = |y: i64| y.saturating_add(bounds.shortest) >= from;
        let before = match y {
            _ if place.place > 0 => before,
            Some(y) if is_first_pending(y) && !bounds.has_cadence => return,
            Some(y) => self.order_deadline(slot, y, 1, from),
            None => None,
        };
        let after = match place.place {
            0 => self.order_deadline(slot, order.at, 0, from),
            _ => self.deadline(slot, Class::Orders, from),
        };
        if let Some(after) = after.filter(|&after| before.is_none_or(|before| after < before)) {
            self.inactivity.wheels[Class::Orders as usize].push(after, slot);
        }
    }

    /// The deadline of a customer's orders, before an order is booked that is not the newest.
    #[cold]
    pub(in crate::engine) fn order_deadline_before(&self, slot: Slot) -> Option<i64> {
        let from = self.inactivity.state.due_to[Class::Orders as usize].unwrap_or(i64::MIN);
        self.deadline(slot, Class::Orders, from)
    }

    /// The earliest due time over all rules of the silence that begins at `y`, which has `newer` newer orders.
    fn order_deadline(&self, slot: Slot, y: i64, newer: u32, from: i64) -> Option<i64> {
        let record = self.customers.record(slot);
        let first = record.first().map_or(0, Time::millis);
        let rules = self.spec.inactivity.rules.iter().filter(|rule| rule.silence.class() == Class::Orders);
        let due = rules.filter_map(|rule| Some(y + rule.silence.after(record.orders - newer, first, y)?));
        due.filter(|&due| due >= from).min()
    }

    /// Keeps an order that may turn out to be the first one after a due silence.
    fn watch_comeback(&mut self, slot: Slot, order: WinbackCandidate) {
        let known_from = self.inactivity.known_from(Class::Orders).unwrap_or(i64::MIN);
        let super::Inactivity { table, wheels, state, .. } = &mut self.inactivity;
        let silences = table.entry(slot);
        silences.winback_candidates.reserve_exact(1);
        silences.winback_candidates.push(order);
        for open in &mut silences.open {
            if open.see(order) {
                let class = state.rules[usize::from(open.rule)].class;
                wheels[usize::from(class.min(1))].push(open.settled_at(), slot);
            }
        }
        if !self.customers.is_copying() {
            table.sweep(known_from);
        }
    }

    /// The deadline of a customer's sessions, if there is a rule about sessions.
    #[inline]
    pub(in crate::engine) fn session_deadline(&self, slot: Slot) -> Option<i64> {
        if !self.inactivity.bounds.has[Class::Sessions as usize] {
            return None;
        }
        let from = self.inactivity.state.due_to[Class::Sessions as usize].unwrap_or(i64::MIN);
        self.deadline(slot, Class::Sessions, from)
    }

    /// Handles an event that may have begun a silence of sessions; `before` is the result of
    /// [`Engine::session_deadline`] before it was booked.
    #[inline]
    pub(in crate::engine) fn watch_session(&mut self, slot: Slot, before: Option<i64>) {
        let after = self.session_deadline(slot);
        if let Some(after) = after.filter(|&after| before.is_none_or(|before| after < before)) {
            self.inactivity.wheels[Class::Sessions as usize].push(after, slot);
        }
    }

    /// Silences of an erased customer that are due from this time on, and win-backs from then on, are never decided,
    /// because the erasure comes before `settle` has passed.
    fn undecided_from(&self, slot: Slot) -> i64 {
        let erased = self.customers.identity(slot);
        erased.map_or(i64::MAX, |erased| erased.at.millis().saturating_sub(self.spec.inactivity.settle))
    }

    /// Ends the silences of a customer who is being erased: notices are dropped, and what the erasure leaves undecided
    /// is never decided. The rest still counts, but causes no notices.
    pub(in crate::engine) fn end_silences(&mut self, slot: Slot) {
        let last = self.undecided_from(slot) - 1;
        let mut silences = self.inactivity.table.take(slot);
        self.inactivity.waiting -= silences.notices.len();
        silences.notices.clear();
        silences.open.retain_mut(|open| {
            open.alerted = false;
            open.until = open.until.min(last);
            open.back = open.back.filter(|back| back.at <= last);
            open.until > open.due
        });
        self.inactivity.table.put(slot, silences);
    }

    /// Schedules a check of a customer whose orders or sessions were taken back.
    pub(in crate::engine) fn watch_anew(&mut self, slot: Slot) {
        for class in [Class::Orders, Class::Sessions] {
            let from = self.inactivity.state.due_to[class as usize].unwrap_or(i64::MIN);
            if let Some(at) = self.deadline(slot, class, from) {
                self.inactivity.wheels[class as usize].push(at, slot);
            }
        }
    }

    /// Builds the wheels and the queue after the records were restored.
    pub(in crate::engine) fn wind_up(&mut self) {
        let mut queue: Vec<_> = self.inactivity.table.waiting().collect();
        queue.sort_unstable();
        self.inactivity.waiting = queue.len();
        self.inactivity.queue = queue.into();
        self.inactivity.heed_open();
        for class in [Class::Orders, Class::Sessions] {
            let from = self.inactivity.state.due_to[class as usize].unwrap_or(i64::MIN);
            let mut wheel = std::mem::take(&mut self.inactivity.wheels[class as usize]);
            for slot in self.customers.occupied() {
                if let Some(at) = self.deadline(slot, class, from) {
                    wheel.push(at, slot);
                }
            }
            self.inactivity.wheels[class as usize] = wheel;
        }
    }
}

impl super::Inactivity {
    /// Adjusts the bounds to open silences of removed rules and of earlier, shorter definitions, which orders still
    /// end.
    fn heed_open(&mut self) {
        let mut shortest = BTreeMap::<u16, i64>::new();
        for open in self.table.all_open() {
            let length = open.due - open.since;
            shortest.entry(open.rule).and_modify(|least| *least = length.min(*least)).or_insert(length);
        }
        for (rule, shortest) in shortest {
            let class = self.class_of(rule);
            self.bounds.has[class as usize] = true;
            if class == Class::Orders {
                self.bounds.shortest = self.bounds.shortest.min(shortest);
            }
        }
    }

    fn class_of(&self, rule: u16) -> Class {
        let class = self.state.rules.get(usize::from(rule)).map_or(0, |rule| rule.class);
        if class == Class::Sessions as u8 { Class::Sessions } else { Class::Orders }
    }
}
