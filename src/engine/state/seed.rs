//! What is new in an engine that goes on under another spec begins with what is known of each customer: the first order,
//! the newest ones and the newest sessions. What the figures rest on is complete once the window has passed over.

use super::Kept;
use crate::engine::axis::Moment;
use crate::engine::customers::Slot;
use crate::engine::journal::Booked;
use crate::engine::lifecycle::{LifeTerm, Lifecycle};
use crate::engine::spec::WindowId;
use crate::engine::window::{Flow, OrderTerm, Sign, ToDate, Window};
use crate::engine::{Engine, window_ids};
use crate::event::{MINUTE, Time};

impl Engine {
    /// Books what is known into everything that `kept` does not name; `all` is what every window counted so far.
    pub(super) fn seed(&mut self, kept: &Kept, all: Option<&ToDate>) {
        // Everything is booked, then what is not new gives way to what was restored.
        let Kept {
            windows: kept_windows,
            dimensions: kept_dimensions,
            lifecycle: keep_lifecycle,
            cohorts: keep_cohorts,
        } = kept;
        let blank: Vec<_> = {
            let spec = &self.spec;
            window_ids(spec).map(|id| Window::new(spec.axis(id), spec.active_for(id))).collect()
        };
        let windows = std::mem::replace(&mut self.windows, blank);
        let emptied = self.segments.emptied();
        let segments = std::mem::replace(&mut self.segments, emptied);
        let fresh = Lifecycle::new(self.spec.lifecycle.clone());
        let lifecycle = std::mem::replace(&mut self.lifecycle, fresh);
        let cohorts = std::mem::take(&mut self.cohorts);
        let totals = self.totals.clone();
        let slots: Vec<_> = self.customers.occupied().collect();
        slots.into_iter().for_each(|slot| self.seed_customer(slot));
        self.fold_seeded();
        all.into_iter().for_each(|all| self.windows.iter_mut().for_each(|window| window.complete(all)));
        // No definition changes what is counted over all time.
        self.totals = totals;
        for ((window, restored), (_, kept)) in self.windows.iter_mut().zip(windows).zip(kept_windows) {
            if *kept {
                *window = restored;
            }
        }
        let is_kept = |dimension: usize, window: usize| kept_dimensions[dimension] && kept_windows[window].1;
        let seeded = std::mem::replace(&mut self.segments, segments);
        self.segments.adopt(seeded, |dimension, window| !is_kept(dimension, window));
        if *keep_lifecycle {
            self.lifecycle = lifecycle;
        }
        if *keep_cohorts {
            self.cohorts = cohorts;
        }
    }

    fn seed_customer(&mut self, slot: Slot) {
        let record = *self.customers.record(slot);
        let mut orders = self.recent.newest_orders(slot, &record, record.orders as usize);
        let unknown = record.orders as usize - orders.len();
        // The first order is known in any case: it counts, and so does the gap from it to the next that is known.
        if let Some(first) = record.first().filter(|_| unknown > 0) {
            orders.insert(0, first);
        }
        let moments: Vec<_> = orders.iter().map(|&order| Moment::new(order, &self.spec.zone)).collect();
        for (i, &s) in moments.iter().enumerate() {
            let before = |back: usize| i.checked_sub(back).map(|i| moments[i]);
            let term = OrderTerm { x: before(2), y: before(1), s };
            self.windows.iter_mut().for_each(|window| window.order(&term, Sign::Add));
            self.segments.order(record.profile, &term, Sign::Add);
            self.cohorts.of(moments[0]).order(term.y, s, Sign::Add);
        }
        if let Some(seen) = record.seen() {
            self.lifecycle.prospect(seen, record.first(), Sign::Add);
        }
        self.seed_stages(&orders, unknown);
        self.seed_visits(slot);
        self.seed_journal(slot);
        self.seed_extras(slot);
    }

    /// The passages of long ago are not known: they are counted from the known orders.
    fn seed_stages(&mut self, orders: &[Time], unknown: usize) {
        for (i, &order) in orders.iter().enumerate() {
            // Before the second known order lie those that are not known.
            let skipped = if i == 0 { 0 } else { unknown.saturating_sub(1) };
            let term = LifeTerm {
                first: orders[0],
                before: i.checked_sub(1).map(|i| orders[i]),
                order,
                rank: u32::try_from(i + 1 + skipped).unwrap_or(u32::MAX),
                after: orders.get(i + 1).copied(),
            };
            self.lifecycle.order(&term, Sign::Add);
        }
    }

    fn seed_visits(&mut self, slot: Slot) {
        let belonging = self.belonging(slot);
        let minutes = self.recent.known_sessions(slot, self.customers.record(slot));
        let mut before = None;
        for minute in minutes {
            let at = Moment::new(Time::clamped(i64::from(minute) * MINUTE), &self.spec.zone);
            self.book_visit(belonging, before, at, Sign::Add);
            before = Some(at);
        }
    }

    /// Sessions and money of young customers, which are taken back should they turn out to belong elsewhere.
    fn seed_journal(&mut self, slot: Slot) {
        let belonging = self.belonging(slot);
        for entry in self.journal.of(slot).to_vec() {
            let at = Moment::new(entry.time, &self.spec.zone);
            let profile = belonging.at(entry.time);
            match entry.what {
                Booked::Session => self.segments.each(profile, |window| window.session(at, Sign::Add)),
                Booked::Money(flow, currency, minor) => {
                    let currency = usize::from(currency);
                    self.segments.money(profile, flow, currency, minor, at, Sign::Add);
                    if let (Flow::Order, Some(first)) = (flow, belonging.first) {
                        self.cohorts.of(first).money(currency, minor, at, Sign::Add);
                    }
                }
            }
        }
    }

    /// What is rare: of long ago it is only known that it was.
    fn seed_extras(&mut self, slot: Slot) {
        let belonging = self.belonging(slot);
        self.book_referral(slot, belonging, Sign::Add);
        self.book_coverage(slot, belonging, Sign::Add);
        self.book_complaint(slot, belonging, Sign::Add);
    }

    /// Folds what the restored arrays have folded, too.
    fn fold_seeded(&mut self) {
        if self.folded_at == Time::MIN {
            return;
        }
        for (i, window) in self.windows.iter_mut().enumerate().take(self.spec.rolling.len()) {
            window.fold_before(self.spec.pane(WindowId::Rolling(i), self.folded_at));
        }
        self.lifecycle.fold_before(self.folded_at);
    }
}
