//! Bytes to [`Event`], or a [`Rejection`] that a person understands. One file per format.

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

/// One message, as far as formats look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its key, if any.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// Its headers, by name; empty unless [`Decoder::wants_message`].
    pub headers: Vec<(Cow<'a, str>, Option<&'a [u8]>)>,
    /// The time that the log keeps with it, if it is one; empty unless [`Decoder::wants_message`].
    pub time: Option<Time>,
}

impl<'a> Message<'a> {
    /// The last header of a name that has a value.
    fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().rev().find(|(known, _)| known == name).and_then(|(_, value)| *value)
    }

    /// The customer id that is the key.
    fn key_as_customer(&self, because: &str) -> Result<Value<'a>, Rejection> {
        match self.key.map(key::id).transpose() {
            Ok(Some(key)) if key != Value::Absent => Ok(key),
            Ok(_) => Err(Rejection::new(Reason::MissingField, format!("{because}, and there is no key that does"))),
            Err(rejection) => Err(Rejection::new(rejection.reason, format!("{because}, and {}", rejection.detail))),
        }
    }
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// Something happened.
    Event(Event<'a>),
    /// Several things happened, or one that an earlier message may have told.
    Several {
        /// Them, in this order.
        events: Vec<Event<'a>>,
        /// What happened before this is told again: if it is too late by now, nothing is lost.
        told_before: Time,
    },
    /// The cancellation of an order that may never have counted: it counts only if an order that its customer placed at
    /// that time did.
    Cancellation {
        /// The cancellation.
        event: Event<'a>,
        /// When the order was placed.
        placed: Time,
    },
    /// A customer is to be forgotten.
    Erase {
        /// Who.
        customer: Cow<'a, str>,
        /// When; `None` where the message does not say, so that it is the time of its record.
        time: Option<Time>,
    },
    /// A type that this version does not know; to be counted and passed over.
    Unknown(Unknown<'a>),
    /// A message that is no event on purpose; to be counted and passed over.
    Skipped(Skip),
    /// Several objects, at least two, none of them a batch. Each means something of its own, or is rejected alone.
    Batch(Vec<Part<'a>>),
}

impl Decoded<'_> {
    /// The same, borrowing nothing.
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

/// Why a message, or an event of it, is passed over on purpose: the label `reason` of what is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// An order that its system calls a test.
    Test,
    /// It names no customer, and guests are not to count.
    Guest,
    /// The same, where `null`, `0` or another word for nobody stands in place of an id.
    Nobody,
    /// A payment that is not taken yet.
    Unpaid,
    /// A refund that moved no money.
    NoMoney,
    /// A change of a row or order that is no event.
    Change,
    /// Not among those that `mapping.where` chooses.
    Filtered,
    /// Not among those that `mapping.where` chooses, because it lacks a field that has to hold a value.
    NoSuchField,
    /// A list of objects that is empty.
    Empty,
    /// Other messages tell the same.
    ToldElsewhere,
    /// An event that its message repeats from an earlier one, too late to recognise it as a duplicate.
    ToldBefore,
    /// A null value that means nothing.
    Tombstone,
    /// The header of a file once more.
    Header,
    /// An order below `mapping.min_amount`.
    MinAmount,
}

impl Skip {
    /// Every reason.
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

    /// The value of the label `reason`.
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
    /// Written with a schema that the registry does not have, or that cannot be read with.
    UnknownSchema,
    /// Not what its schema says.
    UnfitForSchema,
    /// A row of a file with other cells than its header has columns, or with broken quotes.
    InvalidRow,
}

impl Reason {
    /// Every reason.
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
            Reason::UnknownSchema => "unknown_schema",
            Reason::UnfitForSchema => "unfit_for_schema",
            Reason::InvalidRow => "invalid_row",
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
    /// Segment's `track`, `page`, `screen` and `identify` calls.
    Segment,
    /// Shopify's webhooks of orders and refunds.
    Shopify,
    /// Stripe's events of charges and refunds.
    Stripe,
    /// CloudEvents around the native or another format.
    CloudEvents,
    /// Debezium's changes of a table of orders.
    Debezium,
    /// Google Analytics 4.
    Ga4,
    /// Snowplow's ecommerce events.
    Snowplow,
    /// JSON with a place for each field.
    Custom,
}

impl Format {
    /// Every format.
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

    /// As it is written in the configuration.
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
    /// How values in tables of native columns are spelled.
    table_rules: rules::Rules,
    /// Where the schemas come from that messages may name.
    schemas: Option<Arc<dyn Schemas>>,
    min_amount: Option<MinAmount>,
}

impl Decoder {
    /// A decoder of a format without options that keeps the attributes of these dimensions and no others.
    #[must_use]
    pub fn new(format: Format, dimensions: Vec<String>) -> Decoder {
        let plain = Options::default();
        // Every format can do without options; a test holds that.
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

    /// A decoder of a format that keeps the attributes of these dimensions and no others.
    ///
    /// # Errors
    /// The option that cannot be as it is.
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

    /// A decoder of what [`encode`] writes, with the same dimensions.
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

    /// A decoder of a topic that several sources share: each of them reads every message, and all that they find
    /// counts.
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

    /// The same for messages that may name the schema they were written with.
    #[must_use]
    pub fn with_schemas(self, schemas: Arc<dyn Schemas>) -> Decoder {
        Decoder { schemas: Some(schemas), ..self }
    }

    /// Whether more than key and value matters: headers, or the time of the record.
    #[must_use]
    pub fn wants_message(&self) -> bool {
        self.wants_schemas() || self.reader.wants_message()
    }

    /// Whether [`Decoder::is_ready_for`] may say no.
    #[must_use]
    pub fn wants_schemas(&self) -> bool {
        self.schemas.is_some()
    }

    /// Whether the schema that a message names is at hand; if not it is asked for, and the message has to wait.
    #[must_use]
    pub fn is_ready_for(&self, message: &Message<'_>) -> bool {
        let Some(schemas) = &self.schemas else { return true };
        framing::schema_of(message).is_none_or(|id| schemas.is_settled(id))
    }

    /// What keeps schemas from coming at the moment.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.schemas.as_ref()?.last_error()
    }

    /// Decodes one message by its key and value alone. Events after `latest` are refused.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and the mistake.
    pub fn decode<'a>(
        &self,
        key: Option<&'a [u8]>,
        payload: Option<&'a [u8]>,
        latest: Time,
    ) -> Result<Decoded<'a>, Rejection> {
        // Nothing is taken out and put back in, for an event is large.
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

    /// Decodes one message. Events after `latest` are refused.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and the mistake.
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

    /// Reads a document that is no object: a list of objects, or one that was put into a string; `otherwise` if it is
    /// something else.
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

    /// The names of the dimensions whose attributes are kept.
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

/// The rejection of something that is dated after `latest`.
#[cold]
#[must_use]
pub fn in_the_future(newest: Time, latest: Time) -> Rejection {
    Rejection::new(
        Reason::InTheFuture,
        format!("time {newest} is ahead of the clock by more than customers.max_future (latest accepted: {latest})"),
    )
}
