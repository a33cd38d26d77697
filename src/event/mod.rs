//! The domain model: events, independent of any wire format.
//!
//! A decoder turns the bytes of a message into an [`Event`], the only input of the engine. Text borrows from the
//! message where possible, so that decoding an event does not allocate.

mod currency;
mod money;
mod time;

use std::borrow::Cow;

pub use currency::{Currency, REPORTING};
pub use money::{MAX_MINOR_UNITS, Money, MoneyError, Rounding, decimal_text};
pub(crate) use time::has_offset_of_days;
pub use time::{DAY, HOUR, MINUTE, SECOND, Time, TimeError, wall_clock};

/// Maximum number of dimensions (customer attributes).
pub const MAX_DIMENSIONS: usize = 4;

/// Maximum length of a customer id in bytes; every decoder rejects longer ones.
pub const MAX_CUSTOMER_ID_BYTES: usize = 255;

/// Something that happened to a customer at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// The customer id, never empty and at most [`MAX_CUSTOMER_ID_BYTES`] long.
    pub customer: Cow<'a, str>,
    /// When it happened, according to the producer (event time).
    pub time: Time,
    /// What happened.
    pub kind: Kind<'a>,
}

impl Event<'_> {
    /// A copy without borrows.
    #[must_use]
    pub fn into_owned(self) -> Event<'static> {
        Event { customer: owned(self.customer), time: self.time, kind: self.kind.into_owned() }
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

/// What happened, with the id that identifies duplicates.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind<'a> {
    /// A completed purchase.
    Order {
        /// Order id; without one, duplicates are not detected.
        id: Option<Cow<'a, str>>,
        /// The amount paid; zero is valid.
        amount: Money,
        /// Customer attributes, by dimension index.
        attributes: Attributes<'a>,
        /// The customer who referred this one.
        referred_by: Option<Cow<'a, str>>,
    },
    /// Money returned; an order may have several partial refunds.
    Refund {
        /// Refund id; without one, duplicates are not detected.
        id: Option<Cow<'a, str>>,
        /// The amount returned; negative for a reversed refund, see [`Kind::reversed_refund`].
        amount: Money,
    },
    /// A cancelled order; it still counts as an order.
    Cancel {
        /// Id of the cancelled order; a second cancellation is a duplicate.
        order: Option<Cow<'a, str>>,
        /// The amount still to be returned.
        amount: Money,
    },
    /// A visit.
    Session {
        /// Session id; without one, duplicates are not detected.
        id: Option<Cow<'a, str>>,
    },
    /// An update of a customer's profile.
    Customer {
        /// Customer attributes, by dimension index.
        attributes: Attributes<'a>,
        /// The customer who referred this one.
        referred_by: Option<Cow<'a, str>>,
    },
    /// Feedback of a customer.
    Feedback {
        /// Its kind, such as `complaint`.
        kind: Cow<'a, str>,
        /// Its score, in the sender's unit.
        score: Option<f64>,
    },
    /// Money spent on a customer.
    Cost {
        /// Its purpose.
        kind: CostKind,
        /// The amount spent.
        amount: Money,
    },
}

/// The purpose of a cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CostKind {
    /// To win the customer.
    Acquisition,
    /// To keep the customer.
    Retention,
}

/// Suffix of a reversed refund's id, so that it is not a duplicate of the refund.
const REVERSED: &str = "/reversed";

impl<'a> Kind<'a> {
    /// Reverses a refund that failed after it had succeeded, or whose dispute was won. It lowers the refunds by the
    /// amount that the refund with that id had added.
    #[must_use]
    pub fn reversed_refund(id: Option<&str>, amount: Money) -> Kind<'a> {
        let id = id.map(|id| Cow::Owned(format!("{id}{REVERSED}")));
        Kind::Refund { id, amount: Money { minor: -amount.minor, ..amount } }
    }

    /// Id and amount of the refund that this one reverses, if any.
    #[must_use]
    pub fn as_reversed_refund(&self) -> Option<(Option<&str>, Money)> {
        match self {
            Kind::Refund { id, amount } if amount.minor < 0 => {
                let id = id.as_deref().map(|id| id.strip_suffix(REVERSED).unwrap_or(id));
                Some((id, Money { minor: -amount.minor, ..*amount }))
            }
            _ => None,
        }
    }
}

impl Kind<'_> {
    /// A copy without borrows.
    #[must_use]
    pub fn into_owned(self) -> Kind<'static> {
        match self {
            Kind::Order { id, amount, attributes, referred_by } => Kind::Order {
                id: id.map(owned),
                amount,
                attributes: attributes.into_owned(),
                referred_by: referred_by.map(owned),
            },
            Kind::Refund { id, amount } => Kind::Refund { id: id.map(owned), amount },
            Kind::Cancel { order, amount } => Kind::Cancel { order: order.map(owned), amount },
            Kind::Session { id } => Kind::Session { id: id.map(owned) },
            Kind::Customer { attributes, referred_by } => {
                Kind::Customer { attributes: attributes.into_owned(), referred_by: referred_by.map(owned) }
            }
            Kind::Feedback { kind, score } => Kind::Feedback { kind: owned(kind), score },
            Kind::Cost { kind, amount } => Kind::Cost { kind, amount },
        }
    }

    /// The name of the type, as in the native format and in `retentiond_events_total{type}`.
    #[must_use]
    pub fn event_type(&self) -> EventType {
        match self {
            Kind::Order { .. } => EventType::Order,
            Kind::Refund { .. } => EventType::Refund,
            Kind::Cancel { .. } => EventType::Cancel,
            Kind::Session { .. } => EventType::Session,
            Kind::Customer { .. } => EventType::Customer,
            Kind::Feedback { .. } => EventType::Feedback,
            Kind::Cost { .. } => EventType::Cost,
        }
    }

    /// The id that identifies this event within its customer and type.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self {
            Kind::Order { id, .. } | Kind::Refund { id, .. } | Kind::Session { id } => id.as_deref(),
            Kind::Cancel { order, .. } => order.as_deref(),
            Kind::Customer { .. } | Kind::Feedback { .. } | Kind::Cost { .. } => None,
        }
    }
}

/// The type of a message: the values of the label `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventType {
    /// [`Kind::Order`]
    Order,
    /// [`Kind::Refund`]
    Refund,
    /// [`Kind::Cancel`]
    Cancel,
    /// [`Kind::Session`]
    Session,
    /// [`Kind::Customer`]
    Customer,
    /// [`Kind::Feedback`]
    Feedback,
    /// [`Kind::Cost`]
    Cost,
    /// A request to erase a customer.
    Erase,
    /// A type that this version does not know; counted and skipped.
    Unknown,
}

impl EventType {
    /// All types, in the order of their numbers.
    pub const ALL: [EventType; 9] = [
        EventType::Order,
        EventType::Refund,
        EventType::Cancel,
        EventType::Session,
        EventType::Customer,
        EventType::Feedback,
        EventType::Cost,
        EventType::Erase,
        EventType::Unknown,
    ];

    /// The name in the native format and in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EventType::Order => "order",
            EventType::Refund => "refund",
            EventType::Cancel => "cancel",
            EventType::Session => "session",
            EventType::Customer => "customer",
            EventType::Feedback => "feedback",
            EventType::Cost => "cost",
            EventType::Erase => "erase",
            EventType::Unknown => "unknown",
        }
    }
}

/// The values that an event sets, by dimension index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes<'a>([Option<Cow<'a, str>>; MAX_DIMENSIONS]);

impl<'a> Attributes<'a> {
    /// Sets the value of a dimension; ignored beyond [`MAX_DIMENSIONS`].
    pub fn set(&mut self, dimension: usize, value: Cow<'a, str>) {
        if let Some(slot) = self.0.get_mut(dimension) {
            *slot = Some(value);
        }
    }

    /// A copy without borrows.
    #[must_use]
    pub fn into_owned(self) -> Attributes<'static> {
        Attributes(self.0.map(|value| value.map(owned)))
    }

    /// The value of a dimension, if the event sets it.
    #[must_use]
    pub fn get(&self, dimension: usize) -> Option<&str> {
        self.0.get(dimension)?.as_deref()
    }
}
