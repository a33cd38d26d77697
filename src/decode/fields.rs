//! Fields of an event as every format provides them, and the conversion to an event.

use std::borrow::Cow;

use super::instants::{epoch, instant};
use super::{Decoded, Reason, Rejection, Unknown};
use crate::event::{
    Attributes, CostKind, Currency, Event, EventType, Kind, MAX_CUSTOMER_ID_BYTES, Money, MoneyError, Rounding, Time,
};

/// The value of a field in a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Value<'a> {
    /// Missing or null.
    #[default]
    Absent,
    /// Text.
    Text(Cow<'a, str>),
    /// A number, in the notation of the message.
    Number(&'a str),
    /// A computed instant, in epoch milliseconds.
    Millis(i64),
    /// An amount in units of `10^-exponent` of its currency: cents of EUR are `exponent` 2.
    Units {
        /// Number of units.
        units: i64,
        /// `None`: the currency's own minor units.
        exponent: Option<u32>,
    },
    /// An amount in major units; digits beyond the decimals of its currency are rounded half up.
    Rounded(Cow<'a, str>),
    /// A value of another type, described in words.
    Other(&'static str),
}

impl<'a> Value<'a> {
    /// The value as an id. A number becomes text, the same in every notation: `13085`, `13085.0`, `1.3085E4`.
    pub fn into_id(self) -> Value<'a> {
        match self {
            Value::Number(digits) => Value::Text(whole_number(digits)),
            other => other,
        }
    }

    /// The value, or absent if it is blank text.
    pub fn unless_blank(self) -> Value<'a> {
        match &self {
            Value::Text(text) if text.trim().is_empty() => Value::Absent,
            _ => self,
        }
    }

    /// This value, or `other` if it is absent.
    pub fn or(self, other: Value<'a>) -> Value<'a> {
        if self == Value::Absent { other } else { self }
    }

    /// Whether the value is absent or blank text.
    pub fn is_blank(&self) -> bool {
        match self {
            Value::Absent => true,
            Value::Text(text) => text.trim().is_empty(),
            _ => false,
        }
    }

    /// The text, or the digits of a number.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Number(digits) => Some(digits),
            _ => None,
        }
    }

    /// Like [`Value::as_text`], by value.
    pub fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Value::Text(text) => Some(text),
            Value::Number(digits) => Some(Cow::Borrowed(digits)),
            _ => None,
        }
    }

    /// A whole number, as a number or as text.
    pub fn as_integer(&self) -> Option<i64> {
        self.as_text()?.parse().ok()
    }
}

/// The integer notation of a whole number that has a decimal point or exponent, if it is exact.
fn whole_number(digits: &str) -> Cow<'_, str> {
    const LARGEST_EXACT: i64 = 1 << 53;
    if !digits.contains(['.', 'e', 'E']) {
        return Cow::Borrowed(digits);
    }
    let exact = super::amounts::decimal(digits).filter(|number| number.fract().is_zero());
    match exact.and_then(|number| i64::try_from(number.trunc().normalize()).ok()) {
        Some(whole) if whole.abs() <= LARGEST_EXACT => Cow::Owned(whole.to_string()),
        _ => Cow::Borrowed(digits),
    }
}

/// Whether a refund is reversed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reversed {
    #[default]
    No,
    Yes,
    /// Neither `true` nor `false`; the found value in words.
    Unclear(&'static str),
}

impl From<bool> for Reversed {
    fn from(is_reversed: bool) -> Reversed {
        if is_reversed { Reversed::Yes } else { Reversed::No }
    }
}

impl Reversed {
    /// Reads a JSON boolean, or text that contains one.
    pub fn of_json(json: &str) -> Reversed {
        match json {
            "true" => Reversed::Yes,
            "false" => Reversed::No,
            _ => Reversed::of_value(&super::json::spelled(json)),
        }
    }

    /// Reads a boolean in text.
    pub fn of_value(value: &Value<'_>) -> Reversed {
        match value {
            Value::Absent => Reversed::No,
            Value::Text(text) if text.trim().eq_ignore_ascii_case("true") => Reversed::Yes,
            Value::Text(text) if text.trim().is_empty() || text.trim().eq_ignore_ascii_case("false") => Reversed::No,
            Value::Text(_) => Reversed::Unclear("other text"),
            Value::Other(found) => Reversed::Unclear(found),
            Value::Number(_) | Value::Millis(_) | Value::Units { .. } | Value::Rounded(_) => {
                Reversed::Unclear("a number")
            }
        }
    }
}

/// The fields of all event types.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub event_type: Value<'a>,
    pub customer_id: Value<'a>,
    pub time: Value<'a>,
    pub order_id: Value<'a>,
    pub refund_id: Value<'a>,
    /// Whether the money of a refund came back: the refund failed, or a dispute was won.
    pub reversed: Reversed,
    pub session_id: Value<'a>,
    pub amount: Value<'a>,
    pub currency: Value<'a>,
    pub referred_by: Value<'a>,
    pub kind: Value<'a>,
    pub score: Value<'a>,
    pub attributes: Attributes<'a>,
}

impl<'a> Fields<'a> {
    /// Builds the event.
    #[inline]
    pub fn into_decoded(mut self) -> Result<Decoded<'a>, Rejection> {
        let name = required_text("type", std::mem::take(&mut self.event_type))?;
        let Some(event_type) = event_type(&name) else {
            return Ok(Decoded::Unknown(Unknown::of("type", Some(name))));
        };
        match event_type {
            EventType::Unknown => Ok(Decoded::Unknown(Unknown::of("type", Some(name)))),
            EventType::Erase => self.into_erasure(),
            _ => Ok(Decoded::Event(self.into_event(event_type)?)),
        }
    }

    /// Builds the erasure of the customer; the time may be missing.
    pub fn into_erasure(self) -> Result<Decoded<'a>, Rejection> {
        let time = if self.time == Value::Absent { None } else { Some(time(self.time)?) };
        Ok(Decoded::Erase { customer: customer(self.customer_id)?, time })
    }

    /// Builds an event of the given type.
    #[inline]
    pub fn into_event(self, event_type: EventType) -> Result<Event<'a>, Rejection> {
        let customer = customer(self.customer_id)?;
        let time = time(self.time)?;
        let kind = match event_type {
            EventType::Order => Kind::Order {
                id: id("order_id", self.order_id)?,
                amount: money(self.amount, self.currency)?,
                attributes: self.attributes,
                referred_by: id("referred_by", self.referred_by)?,
            },
            EventType::Refund => {
                let (id, amount) = (id("refund_id", self.refund_id)?, money(self.amount, self.currency)?);
                match self.reversed {
                    Reversed::No => Kind::Refund { id, amount },
                    Reversed::Yes => Kind::reversed_refund(id.as_deref(), amount),
                    Reversed::Unclear(found) => return Err(wrong_type("reversed", "true or false", found)),
                }
            }
            EventType::Cancel => {
                Kind::Cancel { order: id("order_id", self.order_id)?, amount: money(self.amount, self.currency)? }
            }
            EventType::Session => Kind::Session { id: id("session_id", self.session_id)? },
            EventType::Feedback => {
                Kind::Feedback { kind: required_text("kind", self.kind)?, score: score(self.score)? }
            }
            EventType::Cost => Kind::Cost { kind: cost_kind(self.kind)?, amount: money(self.amount, self.currency)? },
            EventType::Customer | EventType::Erase | EventType::Unknown => {
                Kind::Customer { attributes: self.attributes, referred_by: id("referred_by", self.referred_by)? }
            }
        };
        Ok(Event { customer, time, kind })
    }
}

/// The event type with a name of the native format; case does not matter.
pub(super) fn event_type(name: &str) -> Option<EventType> {
    let exact = EventType::ALL.into_iter().find(|known| known.name() == name);
    let in_any_case = |known: &EventType| known.name().eq_ignore_ascii_case(name.trim());
    exact.or_else(|| EventType::ALL.into_iter().find(in_any_case))
}

pub(super) fn missing(field: &str) -> Rejection {
    Rejection::new(Reason::MissingField, format!("{field} is missing"))
}

fn wrong_type(field: &str, expected: &str, found: &str) -> Rejection {
    Rejection::new(Reason::WrongType, format!("{field} must be {expected}, not {found}"))
}

fn required_text<'a>(field: &str, value: Value<'a>) -> Result<Cow<'a, str>, Rejection> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Absent => Err(missing(field)),
        Value::Number(_) | Value::Millis(_) | Value::Units { .. } | Value::Rounded(_) => {
            Err(wrong_type(field, "a string", "a number"))
        }
        Value::Other(found) => Err(wrong_type(field, "a string", found)),
    }
}

/// An optional id; empty text is no id.
fn id<'a>(field: &str, value: Value<'a>) -> Result<Option<Cow<'a, str>>, Rejection> {
    match value {
        Value::Absent => Ok(None),
        value => required_text(field, value).map(|id| Some(id).filter(|id| !id.is_empty())),
    }
}

/// A customer id: text of 1 to [`MAX_CUSTOMER_ID_BYTES`] bytes.
pub(super) fn customer(value: Value<'_>) -> Result<Cow<'_, str>, Rejection> {
    let id = required_text("customer_id", value)?;
    match id.len() {
        0 => Err(Rejection::new(Reason::InvalidId, "customer_id is empty")),
        1..=MAX_CUSTOMER_ID_BYTES => Ok(id),
        len => Err(Rejection::new(
            Reason::InvalidId,
            format!("customer_id has {len} bytes; at most {MAX_CUSTOMER_ID_BYTES} are accepted"),
        )),
    }
}

/// An instant: RFC 3339 text, or a number since the epoch as number or text.
pub(super) fn time(value: Value<'_>) -> Result<Time, Rejection> {
    let wanted = "RFC 3339 text or a number since the epoch";
    match &value {
        Value::Absent => Err(missing("time")),
        Value::Millis(millis) => Time::from_millis(*millis).map_err(|_| {
            let what = format!("time {millis} ms since the epoch is outside the years 1970 to 2199");
            Rejection::new(Reason::InvalidTime, what)
        }),
        Value::Number(digits) => epoch(digits),
        Value::Text(text) => instant(text, None),
        Value::Units { .. } | Value::Rounded(_) => Err(wrong_type("time", wanted, "an amount")),
        Value::Other(found) => Err(wrong_type("time", wanted, found)),
    }
}

/// An amount with its currency.
pub(super) fn money(amount: Value<'_>, currency: Value<'_>) -> Result<Money, Rejection> {
    let code = required_text("currency", currency)?;
    let currency = Currency::from_code(&code).map_err(|error| {
        Rejection::new(Reason::UnknownCurrency, format!("currency {:?} is {error}", excerpt(&code)))
    })?;
    let (text, rounding) = match &amount {
        Value::Absent => return Err(missing("amount")),
        Value::Units { units, exponent } => return in_units(*units, *exponent, currency),
        Value::Millis(_) => return Err(wrong_type("amount", "a decimal string or a number", "a time")),
        Value::Other(found) => return Err(wrong_type("amount", "a decimal string or a number", found)),
        Value::Number(digits) => (*digits, Rounding::Exact),
        Value::Text(text) => (text.as_ref(), Rounding::Exact),
        Value::Rounded(text) => (text.as_ref(), Rounding::HalfUp),
    };
    Money::parse_with(text, currency, rounding)
        .map_err(|error| no_amount(&format!("{:?}", excerpt(text)), &error, currency))
}

#[cold]
fn no_amount(amount: &str, error: &MoneyError, currency: Currency) -> Rejection {
    let (verb, remedy) = match error {
        MoneyError::ExcessDecimals => {
            ("", "; to round such amounts write rounding = \"half_up\" in the source's mapping")
        }
        _ => ("is ", ""),
    };
    Rejection::new(Reason::InvalidAmount, format!("amount {amount} {verb}{error} ({currency}){remedy}"))
}

fn in_units(units: i64, exponent: Option<u32>, currency: Currency) -> Result<Money, Rejection> {
    Money::from_units(units, exponent.unwrap_or(currency.exponent()), currency)
        .map_err(|error| no_amount(&format!("{units} in small units"), &error, currency))
}

fn score(value: Value<'_>) -> Result<Option<f64>, Rejection> {
    match value {
        Value::Absent => Ok(None),
        Value::Number(digits) => Ok(digits.parse().ok().filter(|score: &f64| score.is_finite())),
        Value::Text(_) | Value::Millis(_) | Value::Units { .. } | Value::Rounded(_) => {
            Err(wrong_type("score", "a number", "text"))
        }
        Value::Other(found) => Err(wrong_type("score", "a number", found)),
    }
}

fn cost_kind(value: Value<'_>) -> Result<CostKind, Rejection> {
    match required_text("kind", value)?.as_ref() {
        "acquisition" => Ok(CostKind::Acquisition),
        "retention" => Ok(CostKind::Retention),
        other => Err(Rejection::new(
            Reason::InvalidValue,
            format!("kind of a cost is {:?}; it must be acquisition or retention", excerpt(other)),
        )),
    }
}

/// At most 40 characters of a value, so that a huge message does not make a huge log line.
pub(super) fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
