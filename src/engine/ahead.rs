//! Complete events of customers after the time that the slowest topic has reached. A late erasure may still be dated
//! before them; they are then taken from the old customer and booked for the new one.
//!
//! With one topic this is empty, because an erasure is never earlier than the events of its own topic. With several it
//! holds what some topics are ahead of others, at most the last `allowed_lateness`.

use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

use super::customers::Slot;
use super::extras::COMPLAINT;
use crate::event::{Attributes, CostKind, Event, Kind, MAX_DIMENSIONS, Money, Time};

/// An event of a customer, without its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// Event time.
    pub time: Time,
    /// Type and content.
    pub what: DeedKind,
}

/// Type and content of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeedKind {
    /// An order, with what it states about the customer.
    Order(Money, Option<Box<Named>>),
    /// Money returned for an order.
    Refund(Money),
    /// A cancelled order.
    Cancel(Money),
    /// A session.
    Session,
    /// A profile; whether it names a referrer.
    Profile(bool),
    /// Feedback; whether it is a complaint.
    Feedback(bool),
    /// A cost.
    Cost(CostKind, Money),
}

/// What an order states about its customer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// The value of each dimension.
    pub attributes: [Option<Box<str>>; MAX_DIMENSIONS],
    /// Whether it names a referrer.
    pub referred: bool,
}

impl Deed {
    /// Copies an event without its id.
    #[must_use]
    pub fn of(event: &Event<'_>) -> Deed {
        let referred = |by: &Option<std::borrow::Cow<'_, str>>| super::names_somebody(by.as_deref());
        let what = match &event.kind {
            Kind::Order { id: _, amount, attributes, referred_by } => {
                let named = Named {
                    attributes: std::array::from_fn(|place| attributes.get(place).map(Box::from)),
                    referred: referred(referred_by),
                };
                DeedKind::Order(*amount, (named != Named::default()).then(|| Box::new(named)))
            }
            Kind::Refund { id: _, amount } => DeedKind::Refund(*amount),
            Kind::Cancel { order: _, amount } => DeedKind::Cancel(*amount),
            Kind::Session { id: _ } => DeedKind::Session,
            Kind::Customer { attributes: _, referred_by } => DeedKind::Profile(referred(referred_by)),
            Kind::Feedback { kind, score: _ } => DeedKind::Feedback(kind == COMPLAINT),
            Kind::Cost { kind, amount } => DeedKind::Cost(*kind, *amount),
        };
        Deed { time: event.time, what }
    }

    /// An equivalent event, without an id.
    #[must_use]
    pub fn kind(&self) -> Kind<'_> {
        let somebody = |is_named: bool| is_named.then_some("somebody".into());
        match &self.what {
            DeedKind::Order(amount, named) => {
                let mut attributes = Attributes::default();
                for (place, value) in named.iter().flat_map(|named| named.attributes.iter().enumerate()) {
                    if let Some(value) = value {
                        attributes.set(place, value.as_ref().into());
                    }
                }
                let referred_by = somebody(named.as_ref().is_some_and(|named| named.referred));
                Kind::Order { id: None, amount: *amount, attributes, referred_by }
            }
            DeedKind::Refund(amount) => Kind::Refund { id: None, amount: *amount },
            DeedKind::Cancel(amount) => Kind::Cancel { order: None, amount: *amount },
            DeedKind::Session => Kind::Session { id: None },
            DeedKind::Profile(is_referred) => {
                Kind::Customer { attributes: Attributes::default(), referred_by: somebody(*is_referred) }
            }
            DeedKind::Feedback(is_complaint) => {
                Kind::Feedback { kind: if *is_complaint { COMPLAINT } else { "" }.into(), score: None }
            }
            DeedKind::Cost(kind, amount) => Kind::Cost { kind: *kind, amount: *amount },
        }
    }
}

type Deeds = SmallVec<[Deed; 1]>;

/// Events by customer, in order of arrival.
#[derive(Debug, Clone, Default)]
pub struct Ahead {
    deeds: HashMap<Slot, Deeds, foldhash::fast::FixedState>,
    sweep_at: usize,
}

// Small in unit tests, so that they notice wrongly forgotten entries.
const SMALLEST_SWEEP: usize = if cfg!(test) { 2 } else { 1024 };

impl Ahead {
    /// Adds an event.
    pub fn add(&mut self, slot: Slot, deed: Deed) {
        self.deeds.entry(slot).or_insert_with(|| smallvec![]).push(deed);
    }

    /// The events of a customer.
    #[must_use]
    pub fn of(&self, slot: Slot) -> &[Deed] {
        self.deeds.get(&slot).map_or(&[], |deeds| deeds)
    }

    /// Removes and returns the events of a customer after `at`.
    pub fn take_after(&mut self, slot: Slot, at: Time) -> Vec<Deed> {
        let Some(deeds) = self.deeds.get_mut(&slot) else { return Vec::new() };
        let (later, rest): (Vec<_>, Vec<_>) = std::mem::take(deeds).into_iter().partition(|deed| deed.time > at);
        *deeds = rest.into();
        later
    }

    /// The customers with events.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.deeds.keys().copied()
    }

    /// Restores the events that [`Ahead::of`] returned.
    pub fn restore(&mut self, slot: Slot, deeds: Vec<Deed>) {
        if !deeds.is_empty() {
            self.deeds.insert(slot, deeds.into());
        }
    }

    /// Removes a customer.
    pub fn remove(&mut self, slot: Slot) {
        self.deeds.remove(&slot);
    }

    /// Removes the events before `limit`, once the map has doubled.
    pub fn sweep(&mut self, limit: Time) {
        if self.deeds.len() < self.sweep_at.max(SMALLEST_SWEEP) {
            return;
        }
        self.deeds.retain(|_, deeds| {
            deeds.retain(|deed| deed.time >= limit);
            !deeds.is_empty()
        });
        self.sweep_at = 2 * self.deeds.len();
        self.deeds.shrink_to(self.sweep_at);
    }

    /// Approximate memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let spilled = |deeds: &Deeds| if deeds.spilled() { deeds.capacity() * size_of::<Deed>() } else { 0 };
        self.deeds.allocation_size() + self.deeds.values().map(spilled).sum::<usize>()
    }
}
