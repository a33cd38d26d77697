//! Decodes messages to [`Event`]s, or to a [`Rejection`] with an explanation for people. One file per format.

mod amounts;
mod batch;
mod conditions;
mod decimals;
mod fields;
mod foreign;
mod framing;
mod instants;
mod json;
mod key;
mod lines;
mod min_amount;
mod native;
mod nobody;
mod options;
mod paths;
mod presets;
mod reader;
mod root;
mod routed;
mod rules;
mod shared;
mod table;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub use batch::{Part, Unknown};
pub use conditions::Condition;
pub use framing::{HEADER as SCHEMA_HEADER, Schema, SchemaId, SchemaText, Schemas};
pub use lines::{Above, Line, Lines, OrderLine};
pub use nobody::{NOBODY, Nobody};
pub use options::{
    AmountUnit, Deletes, Disputes, Encoding, FieldText, FieldTexts, Guests, LineMode, Negative, OptionError, Options,
    Salt, StripeRefunds, TestOrders, TimeFormat, Tombstones,
};
pub use routed::{encode, encode_cancellation, encode_erase};
pub use table::{Again, FileOptions, HeaderError, Scratch, Table};

use self::fields::Value;
use self::framing::Unframed;
use self::min_amount::MinAmount;
use self::reader::{NullValue, Reader};
use crate::event::{Event, Time};

/// The parts of a message that formats read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// Headers; empty unless [`Decoder::wants_message`].
    pub headers: Vec<(Cow<'a, str>, Option<&'a [u8]>)>,
    /// Record timestamp, if it is valid; `None` unless [`Decoder::wants_message`].
    pub time: Option<Time>,
}

impl<'a> Message<'a> {
    /// The value of the last header with this name that has one.
    fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().rev().find(|(known, _)| known == name).and_then(|(_, value)| *value)
    }

    /// The customer id in the key.
    fn key_as_customer(&self, because: &str) -> Result<Value<'a>, Rejection> {
        match self.key.map(key::id).transpose() {
            Ok(Some(key)) if key != Value::Absent => Ok(key),
            Ok(_) => Err(Rejection::new(Reason::MissingField, format!("{because}, and there is no key that does"))),
            Err(rejection) => Err(Rejection::new(rejection.reason, format!("{because}, and {}", rejection.detail))),
        }
    }
}

/// The content of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// An event.
    Event(Event<'a>),
    /// Several events, or one that an earlier message may have reported.
    Several {
        /// The events, in order.
        events: Vec<Event<'a>>,
        /// Events before this time repeat earlier messages: if they are too late, they are skipped instead of rejected.
        told_before: Time,
    },
    /// The cancellation of an order that may never have counted. It counts only if the customer's order placed at that
    /// time did.
    Cancellation {
        /// The cancellation.
        event: Event<'a>,
        /// When the order was placed.
        placed: Time,
    },
    /// The request to erase a customer.
    Erase {
        /// Customer id.
        customer: Cow<'a, str>,
        /// Time of the request; `None` if the message has none, so that the record timestamp is used.
        time: Option<Time>,
    },
    /// A type that the format does not know; it is counted and otherwise ignored.
    Unknown(Unknown<'a>),
    /// A message that is deliberately not an event; it is counted and otherwise ignored.
    Skipped(Skip),
    /// At least two objects, none of them a batch. Each is decoded, skipped or rejected separately.
    Batch(Vec<Part<'a>>),
}

impl Decoded<'_> {
    /// A copy that owns its data.
    #[must_use]
    pub fn into_owned(self) -> Decoded<'static> {
        match self {
            Decoded::Event(event) => Decoded::Event(event.into_owned()),
            Decoded::Several { events, told_before } => {
                Decoded::Several { events: events.into_iter().map(Event::into_owned).collect(), told_before }
            }
            Decoded::Cancellation { event, placed } => Decoded::Cancellation { event: event.into_owned(), placed },
            Decoded::Erase { customer, time } => Decoded::Erase { customer: Cow::Owned(customer.into_owned()), time },
            Decoded::Unknown(unknown) => Decoded::Unknown(unknown.into_owned()),
            Decoded::Skipped(skip) => Decoded::Skipped(skip),
            Decoded::Batch(parts) => Decoded::Batch(parts.into_iter().map(Part::into_owned).collect()),
        }
    }
}

/// Why a message or event is deliberately ignored: the label `reason` of the metric of skipped events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// A test order.
    Test,
    /// It names no customer, and guests do not count.
    Guest,
    /// Like [`Skip::Guest`], because the id is a placeholder such as `null` or `0`.
    Nobody,
    /// A payment that has not been captured.
    Unpaid,
    /// A refund that moved no money.
    NoMoney,
    /// A change of a row or order that is not an event.
    Change,
    /// Not selected by `mapping.where`.
    Filtered,
    /// Not selected by `mapping.where` because it lacks a field that must have a value.
    NoSuchField,
    /// An empty list of objects.
    Empty,
    /// Other messages report the same.
    ToldElsewhere,
    /// A repeated event that is too late to be recognized as a duplicate.
    ToldBefore,
    /// A null value without a meaning in this source.
    Tombstone,
    /// A repeated header row of a file.
    Header,
    /// An order below `mapping.min_amount`.
    MinAmount,
}

impl Skip {
    /// All reasons.
    pub const ALL: [Skip; 14] = [
        Skip::Test,
        Skip::Guest,
        Skip::Nobody,
        Skip::Unpaid,
        Skip::NoMoney,
        Skip::Change,
        Skip::Filtered,
        Skip::NoSuchField,
        Skip::Empty,
        Skip::ToldElsewhere,
        Skip::ToldBefore,
        Skip::Tombstone,
        Skip::Header,
        Skip::MinAmount,
    ];

    /// The value of the metric label `reason`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Skip::Test => "test",
            Skip::Guest => "guest",
            Skip::Nobody => "nobody",
            Skip::Unpaid => "unpaid",
            Skip::NoMoney => "no_money",
            Skip::Change => "change",
            Skip::Filtered => "filtered",
            Skip::NoSuchField => "no_such_field",
            Skip::Empty => "empty",
            Skip::ToldElsewhere => "told_elsewhere",
            Skip::ToldBefore => "told_before",
            Skip::Tombstone => "tombstone",
            Skip::Header => "header",
            Skip::MinAmount => "min_amount",
        }
    }
}

/// Why a message is not counted: the metric label `reason` and a header of the dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// An empty value.
    EmptyMessage,
    /// Not UTF-8.
    NotUtf8,
    /// Invalid or truncated JSON.
    InvalidJson,
    /// JSON that is not an object.
    NotAnObject,
    /// A required field is missing or null.
    MissingField,
    /// A field has the wrong type.
    WrongType,
    /// An id is empty or too long.
    InvalidId,
    /// An amount is not a number, negative, absurdly large, or has too many decimals.
    InvalidAmount,
    /// Not an ISO 4217 code.
    UnknownCurrency,
    /// Not a valid time, or outside the years 1970 to 2199.
    InvalidTime,
    /// A field has a value that it does not allow.
    InvalidValue,
    /// Later than the wall clock by more than `max_future`.
    InTheFuture,
    /// Behind the watermark by more than `allowed_lateness`.
    TooLate,
    /// The registry does not have the schema, or it cannot be used.
    UnknownSchema,
    /// The message does not match its schema.
    UnfitForSchema,
    /// A row with a number of cells other than that of the header, or with unbalanced quotes.
    InvalidRow,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 16] = [
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
        Reason::UnknownSchema,
        Reason::UnfitForSchema,
        Reason::InvalidRow,
    ];

    /// The value of the metric label `reason`.
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
            Reason::UnknownSchema => "unknown_schema",
            Reason::UnfitForSchema => "unfit_for_schema",
            Reason::InvalidRow => "invalid_row",
        }
    }
}

/// A message that is not counted, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of error.
    pub reason: Reason,
    /// Which field, what was found, what is expected. Never contains a customer id.
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
    /// One JSON object per message, as documented.
    Native,
    /// Segment's `track`, `page`, `screen` and `identify` calls.
    Segment,
    /// Shopify's webhooks for orders and refunds.
    Shopify,
    /// Stripe's events about charges and refunds.
    Stripe,
    /// CloudEvents with data in the native or another format.
    CloudEvents,
    /// Debezium's change events of a table of orders.
    Debezium,
    /// Google Analytics 4.
    Ga4,
    /// Snowplow's ecommerce events.
    Snowplow,
    /// JSON with a configured path for each field.
    Custom,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 9] = [
        Format::Native,
        Format::Segment,
        Format::Shopify,
        Format::Stripe,
        Format::CloudEvents,
        Format::Debezium,
        Format::Ga4,
        Format::Snowplow,
        Format::Custom,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::Native => "native",
            Format::Segment => "segment",
            Format::Shopify => "shopify",
            Format::Stripe => "stripe",
            Format::CloudEvents => "cloudevents",
            Format::Debezium => "debezium",
            Format::Ga4 => "ga4",
            Format::Snowplow => "snowplow",
            Format::Custom => "custom",
        }
    }
}

/// Decodes the messages of one source.
#[derive(Debug, Clone)]
pub struct Decoder {
    reader: Reader,
    null_value: NullValue,
    dimensions: Vec<String>,
    files: FileOptions,
    /// How tables with native columns write their values.
    table_rules: rules::Rules,
    /// Source of the schemas that messages may name.
    schemas: Option<Arc<dyn Schemas>>,
    min_amount: Option<MinAmount>,
}

impl Decoder {
    /// A decoder without options. It keeps the attributes of `dimensions` only.
    #[must_use]
    pub fn new(format: Format, dimensions: Vec<String>) -> Decoder {
        let plain = Options::default();
        // Every format works without options, as a test checks.
        let reader = Reader::new(format, &plain, &dimensions)
            .unwrap_or_else(|_| Reader::Native(Box::new(native::Native::plain())));
        Decoder {
            reader,
            null_value: NullValue::of(format, &plain),
            dimensions,
            files: FileOptions::default(),
            table_rules: rules::Rules::default(),
            schemas: None,
            min_amount: None,
        }
    }

    /// A decoder with options. It keeps the attributes of `dimensions` only.
    ///
    /// # Errors
    /// If an option is invalid or does not belong to the format.
    pub fn with_options(format: Format, dimensions: Vec<String>, options: &Options) -> Result<Decoder, OptionError> {
        if let Some((option, known)) = options.unknown_to(format).first() {
            let remedy = match known {
                [] => "remove it".to_owned(),
                known => format!("its options are {}", known.join(", ")),
            };
            let what = format!("means nothing to the format {:?}; {remedy}", format.name());
            return Err(OptionError::new(*option, what));
        }
        let (reader, files) = (Reader::new(format, options, &dimensions)?, FileOptions::new(options)?);
        Ok(Decoder {
            reader,
            null_value: NullValue::of(format, options),
            dimensions,
            files,
            table_rules: rules::Rules::of_tables(options)?,
            schemas: None,
            min_amount: MinAmount::new(options)?,
        })
    }

    /// A decoder for the output of [`encode`] with the same dimensions.
    #[must_use]
    pub fn routed(dimensions: Vec<String>) -> Decoder {
        Decoder {
            reader: Reader::Routed,
            null_value: NullValue::Erases,
            dimensions,
            files: FileOptions::default(),
            table_rules: rules::Rules::default(),
            schemas: None,
            min_amount: None,
        }
    }

    /// A decoder for a topic that several sources share. Each source reads every message, and all events that they find
    /// count.
    #[must_use]
    pub fn shared(mut decoders: Vec<Decoder>) -> Option<Decoder> {
        let first = decoders.first()?.clone();
        if decoders.len() == 1 {
            return decoders.pop();
        }
        let null_value = match decoders.iter().find(|decoder| decoder.null_value != NullValue::Nothing) {
            Some(decoder) => decoder.null_value,
            None => NullValue::Nothing,
        };
        let readers = decoders.into_iter().map(|decoder| (decoder.reader, decoder.min_amount)).collect();
        Some(Decoder { reader: Reader::Each(readers), null_value, min_amount: None, ..first })
    }

    /// Reads messages that name a schema with these schemas.
    #[must_use]
    pub fn with_schemas(self, schemas: Arc<dyn Schemas>) -> Decoder {
        Decoder { schemas: Some(schemas), ..self }
    }

    /// Whether the decoder needs more than key and value: headers or the record timestamp.
    #[must_use]
    pub fn wants_message(&self) -> bool {
        self.wants_schemas() || self.reader.wants_message()
    }

    /// Whether [`Decoder::is_ready_for`] can return `false`.
    #[must_use]
    pub fn wants_schemas(&self) -> bool {
        self.schemas.is_some()
    }

    /// Whether the schema of a message is available. If not, this requests it, and the message has to wait.
    #[must_use]
    pub fn is_ready_for(&self, message: &Message<'_>) -> bool {
        let Some(schemas) = &self.schemas else { return true };
        framing::schema_of(message).is_none_or(|id| schemas.is_settled(id))
    }

    /// The error that currently keeps schemas from being fetched.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.schemas.as_ref()?.last_error()
    }

    /// Decodes one message from its key and value alone. Events after `latest` are rejected.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and the error.
    pub fn decode<'a>(
        &self,
        key: Option<&'a [u8]>,
        payload: Option<&'a [u8]>,
        latest: Time,
    ) -> Result<Decoded<'a>, Rejection> {
        // The result is built in place and not moved, because an event is large.
        let mut decoded = match (&self.reader, payload) {
            (Reader::Native(native), Some(bytes)) if self.schemas.is_none() && !bytes.is_empty() => {
                native.decode(key, None, bytes, &self.dimensions)
            }
            _ => self.read(&Message { key, payload, ..Message::default() }),
        };
        if let (Reader::Native(_), Err(_), Some(bytes)) = (&self.reader, &decoded, payload) {
            decoded = self.explained(&Message { key, payload, ..Message::default() }, bytes, decoded);
        }
        self.settle(&mut decoded, payload, latest);
        decoded
    }

    /// Decodes one message. Events after `latest` are rejected.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and the error.
    pub fn decode_message<'a>(&self, message: &Message<'a>, latest: Time) -> Result<Decoded<'a>, Rejection> {
        let mut decoded = self.read(message);
        self.settle(&mut decoded, message.payload, latest);
        decoded
    }

    fn read<'a>(&self, message: &Message<'a>) -> Result<Decoded<'a>, Rejection> {
        match message.payload {
            None => self.null_value.decode(message.key),
            Some([]) => Err(json::no_bytes()),
            Some(bytes) => match &self.schemas {
                None => self.read_json(message, bytes),
                Some(schemas) => self.read_framed(message, bytes, schemas.as_ref()),
            },
        }
    }

    fn read_framed<'a>(
        &self,
        message: &Message<'a>,
        bytes: &'a [u8],
        schemas: &dyn Schemas,
    ) -> Result<Decoded<'a>, Rejection> {
        match framing::unframed(message, bytes, schemas)? {
            Unframed::Borrowed([]) => Err(json::no_bytes()),
            Unframed::Borrowed(bytes) => self.read_json(message, bytes),
            Unframed::Owned(json) => {
                let message = Message { payload: Some(&json), ..message.clone() };
                self.read_json(&message, &json).map(Decoded::into_owned)
            }
        }
    }

    fn read_json<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        self.explained(message, bytes, self.reader.decode(message, bytes, &self.dimensions))
    }

    /// Reads a document that is not an object: a list of objects, or JSON in a string. Returns `otherwise` if it is
    /// neither.
    #[cold]
    fn read_other<'a>(
        &self,
        message: &Message<'a>,
        bytes: &'a [u8],
        otherwise: Result<Decoded<'a>, Rejection>,
    ) -> Result<Decoded<'a>, Rejection> {
        match std::str::from_utf8(bytes).ok().and_then(|text| json::in_a_string(text.trim())) {
            Some(inner) => {
                let message = Message { payload: Some(inner.as_bytes()), ..message.clone() };
                self.read_json(&message, inner.as_bytes()).map(Decoded::into_owned)
            }
            None => self.read_list(message, bytes, otherwise),
        }
    }

    /// The dimensions whose attributes are kept.
    #[must_use]
    pub fn dimensions(&self) -> &[String] {
        &self.dimensions
    }
}

fn refuse_future(decoded: &mut Result<Decoded<'_>, Rejection>, latest: Time) {
    let newest = match decoded {
        Ok(Decoded::Event(event) | Decoded::Cancellation { event, .. }) => event.time,
        Ok(Decoded::Several { events, .. }) => events.iter().map(|event| event.time).max().unwrap_or(Time::MIN),
        Ok(Decoded::Batch(parts)) => {
            return parts.iter_mut().for_each(|part| refuse_future(&mut part.decoded, latest));
        }
        Ok(Decoded::Erase { time: Some(time), .. }) => *time,
        Ok(Decoded::Erase { time: None, .. } | Decoded::Unknown(_) | Decoded::Skipped(_)) | Err(_) => return,
    };
    if newest > latest {
        *decoded = Err(in_the_future(newest, latest));
    }
}

/// The rejection of an event dated after `latest`.
#[cold]
#[must_use]
pub fn in_the_future(newest: Time, latest: Time) -> Rejection {
    Rejection::new(
        Reason::InTheFuture,
        format!("time {newest} is ahead of the clock by more than customers.max_future (latest accepted: {latest})"),
    )
}
