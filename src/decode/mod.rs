//! Bytes to [`Event`], or a [`Rejection`] that a person understands. One file per format.

mod csv;
mod fields;
mod native;

use std::borrow::Cow;
use std::fmt;

pub use csv::{CsvColumns, CsvHeaderError};

use crate::event::{Event, EventType, Time};

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// Something happened.
    Event(Event<'a>),
    /// A customer is to be forgotten.
    Erase(Cow<'a, str>),
    /// A type that this version does not know; to be counted and passed over.
    Unknown,
}

impl Decoded<'_> {
    /// The value of the label `type`.
    #[must_use]
    pub fn event_type(&self) -> EventType {
        match self {
            Decoded::Event(event) => event.kind.event_type(),
            Decoded::Erase(_) => EventType::Erase,
            Decoded::Unknown => EventType::Unknown,
        }
    }
}

/// Why a message enters no figure: the label `reason` and the dead letter's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A value of no bytes.
    EmptyMessage,
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON, or a JSON document cut off.
    InvalidJson,
    /// JSON, but no object.
    NotAnObject,
    /// A field that the type needs is absent or null.
    MissingField,
    /// A field holds another type than it should.
    WrongType,
    /// An id that is empty or too long.
    InvalidId,
    /// An amount that is no number, negative, absurd or too finely divided.
    InvalidAmount,
    /// No ISO 4217 code.
    UnknownCurrency,
    /// No RFC 3339 time, or one outside the years 1970 to 2199.
    InvalidTime,
    /// A value outside those that the field knows.
    InvalidValue,
    /// Further ahead of the wall clock than `max_future`.
    InTheFuture,
    /// Further behind the watermark than `allowed_lateness`.
    TooLate,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 13] = [
        Reason::EmptyMessage,
        Reason::NotUtf8,
        Reason::InvalidJson,
        Reason::NotAnObject,
        Reason::MissingField,
        Reason::WrongType,
        Reason::InvalidId,
        Reason::InvalidAmount,
        Reason::UnknownCurrency,
        Reason::InvalidTime,
        Reason::InvalidValue,
        Reason::InTheFuture,
        Reason::TooLate,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Reason::EmptyMessage => "empty_message",
            Reason::NotUtf8 => "not_utf8",
            Reason::InvalidJson => "invalid_json",
            Reason::NotAnObject => "not_an_object",
            Reason::MissingField => "missing_field",
            Reason::WrongType => "wrong_type",
            Reason::InvalidId => "invalid_id",
            Reason::InvalidAmount => "invalid_amount",
            Reason::UnknownCurrency => "unknown_currency",
            Reason::InvalidTime => "invalid_time",
            Reason::InvalidValue => "invalid_value",
            Reason::InTheFuture => "in_the_future",
            Reason::TooLate => "too_late",
        }
    }
}

/// A message that enters no figure, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of mistake.
    pub reason: Reason,
    /// Which field, what stands there, what should. Never holds a customer id.
    pub detail: String,
}

impl Rejection {
    /// A rejection with its explanation.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Rejection {
        Rejection { reason, detail: detail.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.label(), self.detail)
    }
}

/// The format of a topic or file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a message, as in the documentation.
    Native,
}

/// Decodes the messages of one source.
#[derive(Debug, Clone)]
pub struct Decoder {
    format: Format,
    dimensions: Vec<String>,
}

impl Decoder {
    /// A decoder that keeps the attributes of these dimensions and no others.
    #[must_use]
    pub fn new(format: Format, dimensions: Vec<String>) -> Decoder {
        Decoder { format, dimensions }
    }

    /// Decodes one message. Events after `latest` are refused.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and the mistake.
    pub fn decode<'a>(
        &self,
        key: Option<&'a [u8]>,
        payload: Option<&'a [u8]>,
        latest: Time,
    ) -> Result<Decoded<'a>, Rejection> {
        let decoded = match self.format {
            Format::Native => native::decode(key, payload, &self.dimensions)?,
        };
        refuse_future(&decoded, latest)?;
        Ok(decoded)
    }

    /// The names of the dimensions whose attributes are kept.
    #[must_use]
    pub fn dimensions(&self) -> &[String] {
        &self.dimensions
    }
}

fn refuse_future(decoded: &Decoded<'_>, latest: Time) -> Result<(), Rejection> {
    match decoded {
        Decoded::Event(event) if event.time > latest => Err(Rejection::new(
            Reason::InTheFuture,
            format!(
                "time {} is ahead of the clock by more than customers.max_future (latest accepted: {latest})",
                event.time
            ),
        )),
        _ => Ok(()),
    }
}
