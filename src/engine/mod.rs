//! PURE: no I/O, no clock, no async, no logging. One engine per partition turns accepted events into exact figures.
//!
//! - [`Engine::apply`] rejects late events and duplicates, then updates the customer's record and the arrays.
//! - [`axis`] and [`window`] implement windows, [`zone`] civil days, [`prefix`] difference arrays, [`figures`] results.
//! - `booking` adds an event to all figures. [`segments`], [`cohorts`], [`lifecycle`], [`distribution`] and [`totals`]
//!   hold the figures that are not windows over all customers. [`rates`] converts amounts to the reporting currency.
//! - [`inactivity`] detects silent customers and win-backs.
//! - [`state`] represents an engine as plain data for files: it finds what changed and restores an engine.
//! - [`customers`], [`record`], `recent`, `extras` and `net_revenue` hold the data per customer, [`dedup`] the ids of
//!   earlier events, [`clock`] the watermarks. [`customer`] and [`listing`] answer queries about one customer and about
//!   the customers of a status.
//! - [`days`] merges the orders of a customer on one day where they count as one.
//! - [`erasures`] records who was erased and when; `ahead` keeps what a late erasure has to undo.

mod ahead;
pub mod axis;
mod booking;
pub mod clock;
pub mod cohorts;
pub mod customer;
pub mod customers;
pub mod days;
pub mod dedup;
pub mod distribution;
pub mod erasures;
mod extras;
pub mod figures;
pub mod inactivity;
pub mod known;
pub mod lifecycle;
pub mod listing;
mod net_revenue;
pub mod prefix;
pub mod rates;
pub mod rebooking;
mod recent;
pub mod record;
pub mod segments;
pub mod snapshot;
pub mod spec;
pub mod state;
pub mod totals;
pub mod window;
pub mod zone;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use ahead::Ahead;
use axis::{Moment, Pane};
use booking::Round;
use clock::{Class, Clock};
use cohorts::{CohortMoney, CohortParts, Cohorts};
use customers::{Customers, Key, Slot};
use days::Days;
use dedup::Dedup;
use distribution::{DistributionParts, Distributions};
use erasures::Erasures;
use extras::{COMPLAINT, Extras};
use figures::{MoneyParts, Parts};
use inactivity::Inactivity;
use known::{Change, Knowledge, Missing, WindowKnown};
use lifecycle::{Lifecycle, LifecycleParts};
use net_revenue::NetRevenue;
use rebooking::RebookingLog;
use recent::{OrderPlace, Recent, SessionPlace};
use segments::Segments;
use spec::{Spec, WindowId};
use state::Written;
use totals::{Totals, TotalsParts};
use window::{Flow, Window};

use crate::event::{Currency, Event, EventType, HOUR, Kind, Time};

/// Result of applying an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The event counts.
    Applied,
    /// A copy of the event was applied before.
    Duplicate,
    /// The event is too far behind the watermark. It changes no figure and becomes a dead letter.
    TooLate,
}

/// Figures of one window of one engine. They add up over partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowParts {
    /// Everything but money.
    pub parts: Parts,
    /// Money by currency.
    pub money: BTreeMap<Currency, MoneyParts>,
    /// Parts that are not known, and when they will be.
    pub missing: Missing,
    /// The change of the configuration that made them unknown.
    pub change: Option<Change>,
}

impl std::ops::AddAssign<&WindowParts> for WindowParts {
    fn add_assign(&mut self, other: &WindowParts) {
        self.missing += &other.missing;
        self.change = self.change.max(other.change);
        self.parts += &other.parts;
        for (&currency, money) in &other.money {
            *self.money.entry(currency).or_default() += money;
        }
    }
}

/// The state of one partition.
#[derive(Debug, Clone)]
pub struct Engine {
    spec: Arc<Spec>,
    clock: Clock,
    customers: Customers,
    recent: Recent,
    extras: Extras,
    dedup: [Dedup; 2],
    rebooking: RebookingLog,
    days: Days,
    erasures: Erasures,
    ahead: Ahead,
    /// Rolling windows, then calendar windows.
    windows: Vec<Window>,
    knowledge: Knowledge,
    segments: Segments,
    lifecycle: Lifecycle,
    cohorts: Cohorts,
    totals: Totals,
    distributions: Distributions,
    net_revenue: NetRevenue,
    inactivity: Inactivity,
    currencies: Vec<Currency>,
    /// Amounts without an exchange rate since the last [`Engine::take_unconverted`].
    unconverted: BTreeMap<Currency, u64>,
    first_event: Option<Time>,
    first_order: Option<Time>,
    folded_at: Time,
    /// Whether the data hold every order since the first one of the business.
    history_whole: bool,
    written: Written,
}

impl Engine {
    /// An engine without any event.
    #[must_use]
    pub fn new(spec: Arc<Spec>) -> Engine {
        let ids = window_ids(&spec);
        Engine {
            knowledge: Knowledge::whole(window_ids(&spec).count(), spec.dimensions.len()),
            written: Written::default(),
            clock: Clock::new(&spec.topics, spec.allowed_lateness),
            customers: Customers::default(),
            recent: Recent::default(),
            extras: Extras::default(),
            dedup: [(); 2].map(|()| Dedup::new(spec.dedup_for, spec.allowed_lateness)),
            windows: ids.map(|id| Window::new(spec.axis(id), spec.active_for(id))).collect(),
            rebooking: RebookingLog::default(),
            days: Days::default(),
            erasures: Erasures::default(),
            ahead: Ahead::default(),
            segments: Segments::new(&spec),
            lifecycle: Lifecycle::new(spec.lifecycle.clone()),
            cohorts: Cohorts::default(),
            totals: Totals::default(),
            distributions: Distributions::default(),
            net_revenue: NetRevenue::default(),
            inactivity: Inactivity::new(&spec.inactivity),
            currencies: Vec::new(),
            unconverted: BTreeMap::new(),
            first_event: None,
            first_order: None,
            folded_at: Time::MIN,
            history_whole: false,
            spec,
        }
    }

    /// Applies one event of a source topic. Events of a topic come in log order.
    pub fn apply(&mut self, topic: usize, event: &Event<'_>) -> Outcome {
        let class = class_of(&event.kind);
        let id = Key::new(&event.customer);
        if self.clock.is_too_late(topic, event.time) {
            return self.too_late(&id, class, event);
        }
        let key = self.key_at(&id, event.time);
        let at = Moment::new(event.time, &self.spec.zone);
        let known = self.customers.find(&key);
        let place = match self.find_place(known, &event.kind, at) {
            Ok(found) => found,
            Err(NeighboursForgotten) => return self.too_late(&id, class, event),
        };
        if let Some(event_id) = event.kind.id() {
            // A copy stays a duplicate even if its customer was erased in between.
            let fingerprint = dedup::fingerprint(id.hash(), event.kind.event_type(), event_id);
            let time = self.clock.of_class(class, event.time);
            if self.dedup[class as usize].is_duplicate(fingerprint, time, event.time) {
                return Outcome::Duplicate;
            }
        }
        self.written.note_change();
        self.clock.accept(topic, class, event.time);
        if self.spec.topics[topic] && self.first_event.is_none_or(|first| event.time < first) {
            self.first_event = Some(event.time);
        }
        self.fold_history();
        let slot = known.unwrap_or_else(|| self.customers.insert(&key));
        self.before_change(slot);
        self.book(slot, place, at, &event.kind, Round::First);
        if self.spec.topics.len() > 1 {
            self.keep_ahead(slot, event);
        }
        self.decide();
        self.forget_erased();
        Outcome::Applied
    }

    /// Adds an event to its customer and to all figures.
    fn book(&mut self, slot: Slot, place: Place, at: Moment, kind: &Kind<'_>, round: Round) {
        let session_deadline = self.session_deadline(slot);
        self.book_sight(slot, at);
        match kind {
            Kind::Order { amount, attributes, referred_by, .. } => {
                let referred = names_somebody(referred_by.as_deref());
                self.book_order(slot, place.order, at, *amount, (attributes, referred), round);
            }
            Kind::Refund { amount, .. } => self.book_payment(slot, Flow::Refund, *amount, at, round),
            Kind::Cancel { amount, .. } => self.book_payment(slot, Flow::Cancellation, *amount, at, round),
            Kind::Session { .. } => self.book_session(slot, place.session, at, round),
            Kind::Customer { referred_by, .. } => {
                if names_somebody(referred_by.as_deref()) {
                    self.book_mention(slot, at);
                }
            }
            Kind::Feedback { kind, .. } => self.book_feedback(slot, kind, at, round),
            Kind::Cost { kind, amount } => self.book_cost(slot, *kind, *amount, at, round),
        }
        self.watch_session(slot, session_deadline);
    }

    /// Outcome of an event that can no longer count: a copy of an applied event is still a duplicate.
    #[cold]
    fn too_late(&self, key: &Key<'_>, class: Class, event: &Event<'_>) -> Outcome {
        let is_copy = event.kind.id().is_some_and(|id| {
            let fingerprint = dedup::fingerprint(key.hash(), event.kind.event_type(), id);
            self.dedup[class as usize].knows(fingerprint, event.time)
        });
        if is_copy { Outcome::Duplicate } else { Outcome::TooLate }
    }

    /// Finds the position of the event among its customer's events, before anything is changed.
    fn find_place(&self, slot: Option<Slot>, kind: &Kind<'_>, at: Moment) -> Result<Place, NeighboursForgotten> {
        let Some(slot) = slot else { return Ok(Place::FIRST) };
        let class = class_of(kind);
        let record = self.customers.record(slot);
        let floor = self.clock.floor(class);
        let mut place = Place::FIRST;
        match (class, kind) {
            (Class::Sessions, _) => {
                place.session = self.recent.place_session(slot, record, at.minute, floor).ok_or(NeighboursForgotten)?;
            }
            (Class::Orders, Kind::Order { .. }) => {
                place.order = self.recent.place_order(slot, record, at.time, floor).ok_or(NeighboursForgotten)?;
                if self.has_forgotten_day(&place.order, at, floor) {
                    return Err(NeighboursForgotten);
                }
            }
            // The orders around a complaint must be known, because it changes the silences between them.
            (Class::Orders, Kind::Feedback { kind, .. }) if kind == COMPLAINT => {
                if !self.recent.knows_orders_since(slot, record, at.time, floor) {
                    return Err(NeighboursForgotten);
                }
            }
            (Class::Orders, _) => {}
        }
        Ok(place)
    }

    /// Folds the panes older than `time.history`, once per eighth of it.
    fn fold_history(&mut self) {
        let (Some(history), Some(horizon)) = (self.spec.history, self.clock.horizon()) else { return };
        self.distributions.fold(horizon, self.spec.allowed_lateness);
        let limit = horizon.plus(-history);
        if limit < self.folded_at.plus(history / 8 + HOUR) {
            return;
        }
        self.folded_at = limit;
        for (i, window) in self.windows.iter_mut().enumerate().take(self.spec.rolling.len()) {
            window.fold_before(self.spec.pane(WindowId::Rolling(i), limit));
        }
        self.lifecycle.fold_before(limit);
        self.totals.fold_before(limit);
        let spec = &self.spec;
        // Segments keep what their figures need, and half a window more for a replica that lags behind.
        let needed = |id: WindowId| {
            let p = spec.pane(id, horizon);
            let window = p - spec.axis(id).opens(p) + 1;
            p - window - window / 2 - 2
        };
        self.segments.fold_before(needed, spec);
    }

    /// The additive figures of the window that ends with the pane of `at`. `None` if the history does not reach back
    /// that far.
    pub fn figures(&mut self, window: WindowId, at: Time) -> Option<WindowParts> {
        let p = self.spec.pane(window, at);
        self.figures_of_pane(window, p)
    }

    /// As [`Engine::figures`], for a pane.
    pub fn figures_of_pane(&mut self, window: WindowId, p: Pane) -> Option<WindowParts> {
        let settled = self.clock.horizon().map_or(Pane::MIN, |horizon| self.spec.pane(window, horizon) - 1);
        let index = self.index(window);
        let parts = self.windows[index].parts(p, settled)?;
        Some(self.known(window, p, &self.knowledge.windows[index], parts))
    }

    /// The additive figures of a window for every pane from `from` to `to`, both included. Future panes show what
    /// happens if nobody orders again. Each pane after the first takes constant time.
    pub fn series(&mut self, window: WindowId, from: Pane, to: Pane) -> Vec<Option<WindowParts>> {
        let index = self.index(window);
        let figures = |p| {
            let parts = self.windows[index].parts(p, Pane::MAX)?;
            Some(self.known(window, p, &self.knowledge.windows[index], parts))
        };
        (from..=to).map(figures).collect()
    }

    /// Adds currency names and the unknown parts to the figures of a window.
    fn known(&self, window: WindowId, p: Pane, known: &WindowKnown, parts: Parts) -> WindowParts {
        named(&self.spec, &self.currencies, window, p, known, parts)
    }

    fn index(&self, window: WindowId) -> usize {
        match window {
            WindowId::Rolling(i) => i,
            WindowId::Calendar(i) => self.spec.rolling.len() + i,
        }
    }

    /// The additive figures of a window for every segment, by dimension and value.
    pub fn segment_figures(&mut self, window: WindowId, p: Pane) -> Vec<(usize, String, Option<WindowParts>)> {
        let settled = self.clock.horizon().map_or(Pane::MIN, |horizon| self.spec.pane(window, horizon) - 1);
        let index = self.index(window);
        let (spec, currencies, knowledge) = (&self.spec, &self.currencies, &self.knowledge);
        let figures = |(dimension, name, arrays): (usize, &str, &mut Window)| {
            let known = &knowledge.dimensions[dimension][index];
            let parts = arrays.parts(p, settled);
            let figures = parts.map(|parts| named(spec, currencies, window, p, known, parts));
            (dimension, name.to_owned(), figures)
        };
        self.segments.windows(index).map(figures).collect()
    }

    /// The windows that are partly unknown now: name, reason, and when they will be known.
    #[must_use]
    pub fn missing_now(&self) -> Vec<(String, &'static str, Time)> {
        let Some(now) = self.clock.newest() else { return Vec::new() };
        let spec = &self.spec;
        let missing = |(id, known): (WindowId, &WindowKnown)| {
            let until = known.known.missing(spec.axis(id), &spec.zone, spec.pane(id, now)).last()?;
            let why = known.change.map_or("the configuration was changed", |change| change.why.text());
            Some((spec.name(id).to_owned(), why, until))
        };
        window_ids(spec).zip(&self.knowledge.windows).filter_map(missing).collect()
    }

    /// The unknown parts of the windows that contain `at`, with the reason, by dimension and window.
    #[must_use]
    pub fn segments_missing(&self, at: Time) -> Vec<Vec<(Missing, Option<Change>)>> {
        let spec = &self.spec;
        let of_window = |(id, known): (WindowId, &WindowKnown)| {
            let missing = known.known.missing(spec.axis(id), &spec.zone, spec.pane(id, at));
            (missing, known.change.filter(|_| missing.last().is_some()))
        };
        let of_dimension = |windows: &Vec<WindowKnown>| window_ids(spec).zip(windows).map(of_window).collect();
        self.knowledge.dimensions.iter().map(of_dimension).collect()
    }

    /// Customers by stage and status at an instant, and the transitions up to the allowed lateness before it. At the
    /// time of the slowest partition, no engine can change those transitions any more, and all engines count up to the
    /// same hour.
    #[must_use]
    pub fn lifecycle(&self, at: Time) -> LifecycleParts {
        self.lifecycle.parts(at, at.plus(-self.spec.allowed_lateness))
    }

    /// Referrals and feedback as of an instant. Referrals count up to the same hour as the transitions of
    /// [`Engine::lifecycle`].
    #[must_use]
    pub fn totals(&self, at: Time) -> TotalsParts {
        self.totals.parts(at, at.plus(-self.spec.allowed_lateness))
    }

    /// Distributions of gaps and order values at an instant. Gaps count up to the same hour as transitions.
    #[must_use]
    pub fn distributions(&self, at: Time) -> DistributionParts {
        self.distributions.parts(at.plus(-self.spec.allowed_lateness), &self.currencies)
    }

    /// The cohort triangle as of an instant, by cohort month and month, both counted from January of year 0.
    #[must_use]
    pub fn cohorts(&self, at: Time) -> BTreeMap<(i32, i32), CohortFigures> {
        let named = |(months, parts): ((i32, i32), CohortParts)| {
            let money = self.currencies.iter().copied().zip(parts.money);
            let money = money.filter(|(currency, money)| !money.is_nothing() && self.spec.tells(*currency));
            (months, CohortFigures { ordering: parts.ordering, orders: parts.orders, money: money.collect() })
        };
        self.cohorts.parts(self.spec.zone.day(at)).into_iter().map(named).collect()
    }

    /// For each dimension, whether it has more values than are kept.
    pub fn segments_overflowed(&self) -> impl Iterator<Item = bool> {
        self.segments.overflowed()
    }

    /// Takes the number of amounts without an exchange rate since the last call, by currency.
    pub fn take_unconverted(&mut self) -> BTreeMap<Currency, u64> {
        std::mem::take(&mut self.unconverted)
    }

    /// The specification of the figures.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Raises the watermark of a topic that is caught up and idle.
    pub fn raise_watermark(&mut self, topic: usize, to: Time) {
        if self.clock.raise(topic, to) {
            self.written.note_change();
            self.decide();
            self.forget_erased();
        }
    }

    /// Notes that a topic was read to its end. If it has brought no event by then, the clock does not wait for it.
    pub fn note_end(&mut self, topic: usize) {
        self.clock.note_end(topic);
    }

    /// Caps the watermarks at `ceiling` until the next call; see [`Clock::hold_at`].
    pub fn hold_clock_at(&mut self, ceiling: Time) {
        self.clock.hold_at(ceiling);
    }

    /// Remembers the id of an event that was applied without it, so that a later copy with the id is a duplicate.
    pub fn remember(&mut self, kind: EventType, fingerprint: u64, time: Time) {
        let class = if kind == EventType::Session { Class::Sessions } else { Class::Orders };
        let clock = self.clock.of_class(class, time);
        _ = self.dedup[class as usize].is_duplicate(fingerprint, clock, time);
    }

    /// Notes that the data hold every order since the first one of the business.
    pub fn note_whole_history(&mut self) {
        self.written.note_change();
        self.history_whole = true;
    }

    /// Whether [`Engine::note_whole_history`] was called, in this engine or the one it was restored from.
    #[must_use]
    pub fn history_whole(&self) -> bool {
        self.history_whole
    }

    /// Which figures are known, and from when on.
    #[must_use]
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// The watermarks.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The earliest accepted event of a clock-driving topic.
    #[must_use]
    pub fn first_event(&self) -> Option<Time> {
        self.first_event
    }

    /// The earliest order.
    #[must_use]
    pub fn first_order(&self) -> Option<Time> {
        self.first_order
    }

    /// Prefetches the records of customers, by [`customer_hash`], into the processor's caches.
    pub fn look_ahead(&self, hashes: &[u64]) {
        self.customers.look_ahead(hashes);
    }

    /// Customers with a record, without erased ones.
    #[must_use]
    pub fn tracked_customers(&self) -> usize {
        self.customers.identified()
    }

    /// Approximate memory in bytes.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        let windows: usize = self.windows.iter().map(Window::bytes).sum();
        let dedup: usize = self.dedup.iter().map(Dedup::bytes).sum();
        let of_customers = self.recent.bytes()
            + self.rebooking.bytes()
            + self.days.bytes()
            + self.extras.bytes()
            + self.net_revenue.bytes()
            + self.inactivity.bytes()
            + self.erasures.bytes()
            + self.ahead.bytes();
        let further = self.lifecycle.bytes() + self.cohorts.bytes() + self.totals.bytes() + self.distributions.bytes();
        self.customers.bytes() + windows + self.segments.bytes() + dedup + of_customers + further
    }
}

fn class_of(kind: &Kind<'_>) -> Class {
    match kind {
        Kind::Session { .. } => Class::Sessions,
        _ => Class::Orders,
    }
}

/// The hash that finds a customer.
#[must_use]
pub fn customer_hash(id: &str) -> u64 {
    Key::new(id).hash()
}

/// Whether a referrer is named; empty text does not count.
fn names_somebody(referred_by: Option<&str>) -> bool {
    referred_by.is_some_and(|name| !name.is_empty())
}

/// Replaces the numbers of currencies by their names and adds the unknown parts of a window.
fn named(
    spec: &Spec,
    currencies: &[Currency],
    window: WindowId,
    p: Pane,
    known: &WindowKnown,
    mut parts: Parts,
) -> WindowParts {
    let money = currencies.iter().copied().zip(std::mem::take(&mut parts.money));
    let money = money.filter(|&(currency, _)| spec.tells(currency)).collect();
    let missing = known.known.missing(spec.axis(window), &spec.zone, p);
    let change = known.change.filter(|_| missing.last().is_some());
    WindowParts { money, parts, missing, change }
}

/// One cell of the cohort triangle. Adds up over partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CohortFigures {
    /// Customers of the cohort with an order in the month.
    pub ordering: i64,
    /// Their orders in the month.
    pub orders: i64,
    /// Money by currency.
    pub money: BTreeMap<Currency, CohortMoney>,
}

impl std::ops::AddAssign<&CohortFigures> for CohortFigures {
    fn add_assign(&mut self, other: &CohortFigures) {
        self.ordering += other.ordering;
        self.orders += other.orders;
        for (&currency, money) in &other.money {
            *self.money.entry(currency).or_default() += money;
        }
    }
}

/// The windows of a spec in the order of [`Engine`]'s arrays: rolling, then calendar.
pub fn window_ids(spec: &Spec) -> impl Iterator<Item = WindowId> + use<> {
    let (rolling, calendar) = (spec.rolling.len(), spec.calendar.len());
    (0..rolling).map(WindowId::Rolling).chain((0..calendar).map(WindowId::Calendar))
}

/// Position of an event among its customer's events; only the field of the event's class is valid.
struct Place {
    order: OrderPlace,
    session: SessionPlace,
}

impl Place {
    /// Position of a customer's first event.
    const FIRST: Place = Place {
        order: OrderPlace { place: 0, z: None, s: None, y: None, x: None },
        session: SessionPlace::Between { before: None, after: None },
    };
}

/// The event needs predecessors from before the floor, which are no longer kept.
struct NeighboursForgotten;
