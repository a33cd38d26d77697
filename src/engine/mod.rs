//! PURE: no I/O, no clock, no async, no logging. One engine per partition turns accepted events into exact figures.
//!
//! - [`Engine::apply`] is the way of an event: too late? a duplicate? then the customer's record and the arrays.
//! - [`axis`] and [`window`] define a window; [`zone`] civil days; [`prefix`] the arrays; [`figures`] what is read off.
//! - [`customers`], `record` and `recent` hold what is known of each customer; [`dedup`] what was seen; [`clock`] time.

pub mod axis;
pub mod clock;
pub mod customers;
pub mod dedup;
pub mod figures;
pub mod prefix;
mod recent;
mod record;
pub mod snapshot;
pub mod spec;
pub mod window;
pub mod zone;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use axis::{Moment, Pane};
use clock::{Class, Clock};
use customers::{Customers, Key, Slot};
use dedup::Dedup;
use figures::{MoneyParts, Parts};
use recent::{OrderPlace, Recent, SessionPlace};
use spec::{Spec, WindowId};
use window::{Flow, OrderTerm, Sign, Window};

use crate::event::{Currency, Event, HOUR, Kind, Money, Time};

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It counts.
    Applied,
    /// A copy of it counted before.
    Duplicate,
    /// It lies further back than `allowed_lateness`; it enters no figure and belongs into the dead-letter topic.
    TooLate,
}

/// The figures of one window of one engine: additive over partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowParts {
    /// Everything but money.
    pub parts: Parts,
    /// Money by currency.
    pub money: BTreeMap<Currency, MoneyParts>,
}

impl std::ops::AddAssign<&WindowParts> for WindowParts {
    fn add_assign(&mut self, other: &WindowParts) {
        self.parts += &other.parts;
        for (&currency, money) in &other.money {
            *self.money.entry(currency).or_default() += money;
        }
    }
}

/// The state of one partition.
#[derive(Debug)]
pub struct Engine {
    spec: Arc<Spec>,
    clock: Clock,
    customers: Customers,
    recent: Recent,
    dedup: [Dedup; 2],
    /// Rolling windows, then calendar windows.
    windows: Vec<Window>,
    currencies: Vec<Currency>,
    first_event: Option<Time>,
    first_order: Option<Time>,
    folded_at: Time,
}

impl Engine {
    /// An engine that has seen nothing.
    #[must_use]
    pub fn new(spec: Arc<Spec>) -> Engine {
        let ids = window_ids(&spec);
        Engine {
            clock: Clock::new(&spec.topics, spec.allowed_lateness),
            customers: Customers::default(),
            recent: Recent::default(),
            dedup: [Dedup::new(spec.dedup_for), Dedup::new(spec.dedup_for)],
            windows: ids.map(|id| Window::new(spec.axis(id), spec.active_for(id))).collect(),
            currencies: Vec::new(),
            first_event: None,
            first_order: None,
            folded_at: Time::MIN,
            spec,
        }
    }

    /// Applies one event of a source topic, in log order.
    pub fn apply(&mut self, topic: usize, event: &Event<'_>) -> Outcome {
        if self.clock.is_too_late(topic, event.time) {
            return Outcome::TooLate;
        }
        let class = match event.kind {
            Kind::Session { .. } => Class::Sessions,
            _ => Class::Orders,
        };
        let key = Key::new(&event.customer);
        let at = Moment::new(event.time, &self.spec.zone);
        let place = match self.find_place(&key, class, &event.kind, at) {
            Ok(place) => place,
            Err(NeighboursForgotten) => return Outcome::TooLate,
        };
        if let Some(id) = event.kind.id() {
            let fingerprint = dedup::fingerprint(key.hash(), event.kind.event_type(), id);
            let time = self.clock.of_class(class, event.time);
            if self.dedup[class as usize].is_duplicate(fingerprint, time) {
                return Outcome::Duplicate;
            }
        }
        self.clock.accept(topic, class, event.time);
        if self.spec.topics[topic] && self.first_event.is_none_or(|first| event.time < first) {
            self.first_event = Some(event.time);
        }
        self.fold_history();
        let slot = self.customers.find_or_insert(&key);
        match &event.kind {
            Kind::Order { amount, .. } => self.book_order(slot, place.order, at, *amount),
            Kind::Refund { amount, .. } => self.book_money(Flow::Refund, *amount, at),
            Kind::Cancel { amount, .. } => self.book_money(Flow::Cancellation, *amount, at),
            Kind::Session { .. } => self.book_session(slot, place.session, at),
            Kind::Customer { .. } | Kind::Feedback { .. } | Kind::Cost { .. } => {}
        }
        Outcome::Applied
    }

    /// Forgets a customer: record and id leave memory now, the sums stay, and the identity falls silent and is lost in
    /// due time. Its fingerprints age out, so a redelivered old order brings nobody back. Returns whether it was known.
    pub fn erase(&mut self, customer: &str) -> bool {
        match self.customers.remove(&Key::new(customer)) {
            Some(slot) => {
                self.recent.remove(slot);
                true
            }
            None => false,
        }
    }

    /// Where the event belongs among those of its customer; looked up before anything is changed.
    fn find_place(
        &self,
        key: &Key<'_>,
        class: Class,
        kind: &Kind<'_>,
        at: Moment,
    ) -> Result<Place, NeighboursForgotten> {
        let Some(slot) = self.customers.find(key) else { return Ok(Place::FIRST) };
        let record = self.customers.record(slot);
        let floor = self.clock.floor(class);
        let mut place = Place::FIRST;
        match (class, kind) {
            (Class::Sessions, _) => {
                place.session = self.recent.place_session(slot, record, at.minute, floor).ok_or(NeighboursForgotten)?;
            }
            (Class::Orders, Kind::Order { .. }) => {
                place.order = self.recent.place_order(slot, record, at.time, floor).ok_or(NeighboursForgotten)?;
            }
            (Class::Orders, _) => {}
        }
        Ok(place)
    }

    fn book_order(&mut self, slot: Slot, place: OrderPlace, at: Moment, amount: Money) {
        let zone = &self.spec.zone;
        let moment = |time: Option<Time>| time.map(|time| Moment::new(time, zone));
        let OrderPlace { place: index, z, s, y, x } = place;
        let (z, s, y, x) = (moment(z), moment(s), moment(y), moment(x));
        let currency = self.currency_number(amount.currency);
        for window in &mut self.windows {
            window.order(&OrderTerm { x, y, s: at }, Sign::Add);
            if let Some(s) = s {
                window.order(&OrderTerm { x, y, s }, Sign::Remove);
                window.order(&OrderTerm { x: y, y: Some(at), s }, Sign::Add);
                if let Some(z) = z {
                    window.order(&OrderTerm { x: y, y: Some(s), s: z }, Sign::Remove);
                    window.order(&OrderTerm { x: Some(at), y: Some(s), s: z }, Sign::Add);
                }
            }
            window.money(Flow::Order, currency, amount.minor, at);
        }
        let floor = self.clock.floor(Class::Orders);
        self.recent.insert_order(slot, self.customers.record_mut(slot), index, at.time, floor);
        if self.first_order.is_none_or(|first| at.time < first) {
            self.first_order = Some(at.time);
        }
        self.sweep_recent();
    }

    fn book_session(&mut self, slot: Slot, place: SessionPlace, at: Moment) {
        let zone = &self.spec.zone;
        let moment = |minute: Option<i32>| {
            minute.map(|minute| Moment::new(Time::clamped(i64::from(minute) * crate::event::MINUTE), zone))
        };
        for window in &mut self.windows {
            window.session(at);
        }
        if let SessionPlace::Between { before, after } = place {
            let (before, after) = (moment(before), moment(after));
            for window in &mut self.windows {
                window.visit(before, at, Sign::Add);
                if let Some(after) = after {
                    window.visit(before, after, Sign::Remove);
                    window.visit(Some(at), after, Sign::Add);
                }
            }
            let floor = self.clock.floor(Class::Sessions);
            self.recent.insert_session(slot, self.customers.record_mut(slot), at.time, floor);
            self.sweep_recent();
        }
        let record = self.customers.record_mut(slot);
        if record.last_session().is_none_or(|last| at.time > last) {
            record.set_last_session(at.time);
        }
        record.sessions += 1;
    }

    fn book_money(&mut self, flow: Flow, amount: Money, at: Moment) {
        let currency = self.currency_number(amount.currency);
        for window in &mut self.windows {
            window.money(flow, currency, amount.minor, at);
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

    fn sweep_recent(&mut self) {
        let floors = (self.clock.floor(Class::Orders), self.clock.floor(Class::Sessions));
        let customers = &self.customers;
        for slot in self.recent.sweep(|slot| customers.record(slot), floors.0, floors.1) {
            self.customers.record_mut(slot).forget_sessions();
        }
    }

    /// Folds what lies further back than the kept history, every so often.
    fn fold_history(&mut self) {
        let (Some(history), Some(horizon)) = (self.spec.history, self.clock.horizon()) else { return };
        let limit = horizon.plus(-history);
        if limit < self.folded_at.plus(history / 8 + HOUR) {
            return;
        }
        self.folded_at = limit;
        for (i, window) in self.windows.iter_mut().enumerate().take(self.spec.rolling.len()) {
            window.fold_before(self.spec.pane(WindowId::Rolling(i), limit));
        }
    }

    /// The additive figures of a window that ends with the pane that holds `at`. `None` when the kept history does not
    /// reach back that far.
    pub fn figures(&mut self, window: WindowId, at: Time) -> Option<WindowParts> {
        let p = self.spec.pane(window, at);
        self.figures_of_pane(window, p)
    }

    /// As [`Engine::figures`], for a pane.
    pub fn figures_of_pane(&mut self, window: WindowId, p: Pane) -> Option<WindowParts> {
        let settled = self.clock.horizon().map_or(Pane::MIN, |horizon| self.spec.pane(window, horizon) - 1);
        let index = self.index(window);
        let mut parts = self.windows[index].parts(p, settled)?;
        let money = std::mem::take(&mut parts.money);
        Some(WindowParts { parts, money: self.currencies.iter().copied().zip(money).collect() })
    }

    fn index(&self, window: WindowId) -> usize {
        match window {
            WindowId::Rolling(i) => i,
            WindowId::Calendar(i) => self.spec.rolling.len() + i,
        }
    }

    /// What is computed.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Raises the watermark of a topic that is caught up and silent.
    pub fn raise_watermark(&mut self, topic: usize, to: Time) {
        self.clock.raise(topic, to);
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

    /// How many customers have a record.
    #[must_use]
    pub fn tracked_customers(&self) -> usize {
        self.customers.len()
    }

    /// Bytes of memory held, about.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        let windows: usize = self.windows.iter().map(Window::bytes).sum();
        let dedup: usize = self.dedup.iter().map(Dedup::bytes).sum();
        self.customers.bytes() + self.recent.bytes() + windows + dedup
    }
}

/// The windows of a spec, in the order in which an engine holds them.
pub fn window_ids(spec: &Spec) -> impl Iterator<Item = WindowId> + use<> {
    let (rolling, calendar) = (spec.rolling.len(), spec.calendar.len());
    (0..rolling).map(WindowId::Rolling).chain((0..calendar).map(WindowId::Calendar))
}

/// The place of an event among those of its customer; only the half of its class means something.
struct Place {
    order: OrderPlace,
    session: SessionPlace,
}

impl Place {
    /// The place of the first event of a customer.
    const FIRST: Place = Place {
        order: OrderPlace { place: 0, z: None, s: None, y: None, x: None },
        session: SessionPlace::Between { before: None, after: None },
    };
}

/// The predecessors that the event needs lie before the floor and are gone.
struct NeighboursForgotten;
