//! How the messages of a source are read beyond their format: `[sources.NAME.mapping]`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Format;
use super::conditions::Condition;
use crate::event::{EventType, Rounding};

/// What becomes of an order without a customer id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guests {
    /// It is skipped, and counted.
    #[default]
    Drop,
    /// The customer is the anonymous id of the browser or device.
    AnonymousId,
    /// The customer is the hash of the e-mail address: SHA-256 of salt and trimmed lower-case address, in hex digits.
    EmailHash,
}

/// What becomes of an order that its system calls a test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestOrders {
    /// It is skipped, and counted.
    #[default]
    Skip,
    /// It is an order like any other.
    Count,
}

/// Which of Stripe's events say that money went back; both would count it twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StripeRefunds {
    /// `charge.refunded`, whose total so far is compared with the one before.
    #[default]
    Charges,
    /// `refund.created` and `refund.updated`, one refund each; the message key names the customer.
    RefundObjects,
}

/// What becomes of money that a dispute takes back from the shop (Stripe).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disputes {
    /// Nothing: who disputed is not said, unless the message key does.
    #[default]
    Ignore,
    /// It is a refund, reversed if the money comes back; the message key names the customer.
    Count,
}

/// What a row that is deleted means (Debezium's operation `d`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deletes {
    /// Nothing: rows are deleted to tidy up.
    #[default]
    Ignore,
    /// The order is cancelled.
    Cancel,
}

/// What a null value under a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tombstones {
    /// Nothing: it removes older records of that key from a compacted topic. The default of every format but the native.
    Skip,
    /// The customer whose id the key is is to be forgotten.
    Erase,
}

/// What amounts are numbers of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmountUnit {
    /// Euros.
    #[default]
    Major,
    /// Cents: whole numbers of the currency's minor unit (ISO 4217).
    Minor,
    /// The same with the decimals that Adyen gives to currencies.
    Adyen,
}

/// What an order of an amount below zero is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Negative {
    /// A mistake.
    #[default]
    Reject,
    /// A refund of so much, with the id of the order where it has none of its own.
    Refund,
}

/// What the lines of a file are that have the same order id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineMode {
    /// Copies of one order: the first counts.
    #[default]
    Single,
    /// Articles of one order, to be added up.
    Sum,
}

/// How the characters of a file are encoded, where no byte order mark says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// UTF-8.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// Windows-1252, and with it Latin-1.
    #[serde(rename = "windows-1252", alias = "latin-1", alias = "iso-8859-1")]
    Windows1252,
}

/// How instants are written. Text with an offset is RFC 3339 whatever this says, and text without one is in `time_zone`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// RFC 3339, or time since the epoch in days, seconds, milli-, micro- or nanoseconds, told apart by size: the ranges of
    /// the years 1971 to 2199 do not overlap.
    #[default]
    Auto,
    /// RFC 3339 text.
    Rfc3339,
    /// Seconds since the epoch.
    EpochS,
    /// Milliseconds since the epoch.
    EpochMs,
    /// Microseconds since the epoch.
    EpochUs,
    /// `time_pattern`, in `time_zone` where the text names no offset.
    Pattern,
}

/// As the place of a field: the key of the record.
pub const RECORD_KEY: &str = "$record.key";
/// As the place of a field: the time that the log keeps with the record.
pub const RECORD_TIME: &str = "$record.time";

/// A place in a message, or the value itself; or several places whose values make up a field together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldText {
    first: String,
    more: Vec<String>,
}

impl FieldText {
    /// The places behind the first one.
    #[must_use]
    pub fn more(&self) -> &[String] {
        &self.more
    }
}

impl Deref for FieldText {
    type Target = str;
    fn deref(&self) -> &str {
        &self.first
    }
}

impl From<&str> for FieldText {
    fn from(text: &str) -> FieldText {
        FieldText { first: text.to_owned(), more: Vec::new() }
    }
}

impl Serialize for FieldText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.more.as_slice() {
            [] => serializer.serialize_str(&self.first),
            more => serializer.collect_seq(std::iter::once(&self.first).chain(more)),
        }
    }
}

impl<'de> Deserialize<'de> for FieldText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FieldText, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = FieldText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, or a list of places")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<FieldText, E> {
                Ok(text.into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FieldText, A::Error> {
                let Some(first) = list.next_element()? else { return Err(de::Error::invalid_length(0, &self)) };
                let mut more = Vec::new();
                while let Some(place) = list.next_element()? {
                    more.push(place);
                }
                Ok(FieldText { first, more })
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident,)+) => {
        /// A text for each field of an event: a place in the message, or the value itself.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct FieldTexts {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<FieldText>,)+
        }

        impl FieldTexts {
            /// The fields that are set, by name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
                [$((stringify!($field), &self.$field),)+]
                    .into_iter()
                    // A keyword has to be written as r#type in Rust.
                    .filter_map(|(name, text)| Some((name.strip_prefix("r#").unwrap_or(name), text.as_deref()?)))
            }

            /// The same with every place of fields that have several.
            pub fn places(&self) -> impl Iterator<Item = (&'static str, &str)> {
                let more = [$((stringify!($field), &self.$field),)+].into_iter().flat_map(|(name, text)| {
                    let places = text.as_ref().map_or(&[][..], FieldText::more);
                    places.iter().map(move |place| (name.strip_prefix("r#").unwrap_or(name), place.as_str()))
                });
                self.iter().chain(more)
            }

            /// These, and those of `defaults` where nothing is set.
            #[must_use]
            pub fn or(&self, defaults: &FieldTexts) -> FieldTexts {
                FieldTexts { $($field: self.$field.clone().or_else(|| defaults.$field.clone()),)+ }
            }
        }
    };
}

fields! {
    /// What happened.
    r#type,
    /// Whose event it is.
    customer_id,
    /// When it happened.
    time,
    /// Order id.
    order_id,
    /// Refund id.
    refund_id,
    /// Whether a refund is reversed.
    reversed,
    /// Session id.
    session_id,
    /// Amount.
    amount,
    /// What the amount is multiplied by, if it is a price.
    quantity,
    /// ISO 4217 code.
    currency,
    /// Who referred the customer.
    referred_by,
    /// Kind of a feedback or cost.
    kind,
    /// Score of a feedback.
    score,
    /// E-mail address, for guests.
    email,
    /// Id of browser or device, for guests.
    anonymous_id,
}

/// What the hash of an e-mail address begins with; never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Salt(pub(super) String);

impl Salt {
    /// Keeps a text from being shown.
    #[must_use]
    pub fn new(text: &str) -> Salt {
        Salt(text.to_owned())
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `[sources.NAME.mapping]`; which format knows which option is [`Options::unknown_to`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// What becomes of an order without a customer id.
    pub guests: Guests,
    /// File with the salt of `guests = "email_hash"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub salt_file: Option<PathBuf>,
    /// What is in that file.
    #[serde(skip)]
    pub salt: Option<Salt>,
    /// Whether test orders count.
    pub test_orders: TestOrders,
    /// Which of the format's amounts is the order's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    /// Currency of messages that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Stripe: which events say that money went back.
    pub refunds: StripeRefunds,
    /// Stripe: what becomes of money that a dispute takes.
    pub disputes: Disputes,
    /// Where in a message the object lies; the message itself unless it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// CloudEvents: the format of `data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What stands for no customer and no order id; [`super::NOBODY`] unless it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nobody: Option<Vec<String>>,
    /// What a null value under a key means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tombstones: Option<Tombstones>,
    /// Whether later messages repeat what earlier ones told: a repetition that comes too late is no dead letter then.
    pub repeats: bool,
    /// What becomes of digits beyond the currency's decimals.
    pub rounding: Rounding,
    /// What amounts are numbers of.
    pub amount_unit: AmountUnit,
    /// Decimal separator of amounts that are text: "." or ",".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decimal: Option<String>,
    /// Separator between groups of digits of amounts that are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thousands: Option<String>,
    /// Orders below this do not count: a decimal number in the currency of the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_amount: Option<String>,
    /// What an order of an amount below zero is.
    pub negative: Negative,
    /// Files: what lines with the same order id are.
    pub lines: LineMode,
    /// Files: what stands between the cells of a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// Files: how characters are encoded.
    pub encoding: Encoding,
    /// Files: the names of the columns, of files without a header row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// The scale of amounts that are bytes, where messages carry no schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_scale: Option<i32>,
    /// How instants are written.
    pub time_format: TimeFormat,
    /// Pattern of instants, as of strptime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_pattern: Option<String>,
    /// IANA zone of instants without an offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Debezium: column that says that an order was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
    /// Debezium: values of that column that say so; without any, every value but null, false, 0 and no text at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cancelled_values: Vec<String>,
    /// Debezium: what a deleted row means.
    pub deletes: Deletes,
    /// Where each field stands.
    pub fields: FieldTexts,
    /// Fields that are the same in every message.
    pub constants: FieldTexts,
    /// What the message calls a type, and the type that it is.
    pub types: BTreeMap<String, String>,
    /// Where the value of each dimension stands.
    pub attributes: BTreeMap<String, String>,
    /// Places and the values that they must or must not hold for the message to count.
    #[serde(rename = "where")]
    pub only: BTreeMap<String, Condition>,
}

/// An option that cannot be as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {what}")]
pub struct OptionError {
    /// Which option, such as `fields.time`.
    pub option: String,
    /// What is wrong with it; then, after a semicolon, the remedy.
    pub what: String,
}

impl OptionError {
    /// A mistake at an option.
    pub(super) fn new(option: impl Into<String>, what: impl Into<String>) -> OptionError {
        OptionError { option: option.into(), what: what.into() }
    }
}

impl Options {
    /// The options that are set, by name.
    fn set(&self) -> Vec<&'static str> {
        let plain = Options::default();
        let all = [
            ("guests", self.guests != plain.guests),
            ("salt_file", self.salt_file.is_some()),
            ("test_orders", self.test_orders != plain.test_orders),
            ("amount", self.amount.is_some()),
            ("currency", self.currency.is_some()),
            ("refunds", self.refunds != plain.refunds),
            ("disputes", self.disputes != plain.disputes),
            ("root", self.root.is_some()),
            ("data", self.data.is_some()),
            ("nobody", self.nobody.is_some()),
            ("tombstones", self.tombstones.is_some()),
            ("repeats", self.repeats),
            ("rounding", self.rounding != plain.rounding),
            ("min_amount", self.min_amount.is_some()),
            ("amount_unit", self.amount_unit != plain.amount_unit),
            ("decimal", self.decimal.is_some()),
            ("thousands", self.thousands.is_some()),
            ("negative", self.negative != plain.negative),
            ("lines", self.lines != plain.lines),
            ("delimiter", self.delimiter.is_some()),
            ("encoding", self.encoding != plain.encoding),
            ("columns", !self.columns.is_empty()),
            ("amount_scale", self.amount_scale.is_some()),
            ("time_format", self.time_format != plain.time_format),
            ("time_pattern", self.time_pattern.is_some()),
            ("time_zone", self.time_zone.is_some()),
            ("cancelled", self.cancelled.is_some()),
            ("cancelled_values", !self.cancelled_values.is_empty()),
            ("deletes", self.deletes != plain.deletes),
            ("fields", self.fields != plain.fields),
            ("constants", self.constants != plain.constants),
            ("types", !self.types.is_empty()),
            ("attributes", !self.attributes.is_empty()),
            ("where", !self.only.is_empty()),
        ];
        all.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }

    /// The options that are set and mean nothing to a format, with those that it knows.
    #[must_use]
    pub fn unknown_to(&self, format: Format) -> Vec<(&'static str, &'static [&'static str])> {
        let known = known_to(format);
        // What is inside a CloudEvent may be of any format; that one's own reader looks at the rest.
        if format == Format::CloudEvents {
            return Vec::new();
        }
        self.set().into_iter().filter(|option| !known.contains(option)).map(|option| (option, known)).collect()
    }

    /// What a type is called in the messages and the type that it is: as configured, else the format's own.
    pub(super) fn types(&self, usual: &[(&str, EventType)]) -> Result<BTreeMap<String, EventType>, OptionError> {
        if self.types.is_empty() {
            return Ok(usual.iter().map(|(name, event_type)| ((*name).to_owned(), *event_type)).collect());
        }
        let known = |name: &String| {
            let is = |known: &EventType| *known != EventType::Unknown && known.name() == name;
            EventType::ALL.into_iter().find(is)
        };
        let names: Vec<_> =
            EventType::ALL.iter().filter(|known| **known != EventType::Unknown).map(|t| t.name()).collect();
        let read = |(called, name): (&String, &String)| match known(name) {
            Some(event_type) => Ok((called.clone(), event_type)),
            None => {
                let what = format!("{name:?} is no type of event; write one of {}", names.join(", "));
                Err(OptionError::new(format!("types.{called:?}"), what))
            }
        };
        self.types.iter().map(read).collect()
    }
}

impl Guests {
    /// Whether messages of a format hold what it takes.
    pub(super) fn fits(self, format: Format) -> bool {
        let any = matches!(format, Format::Native | Format::CloudEvents);
        match self {
            Guests::Drop => true,
            Guests::AnonymousId => {
                any || matches!(
                    format,
                    Format::Segment | Format::Ga4 | Format::Snowplow | Format::Debezium | Format::Custom
                )
            }
            Guests::EmailHash => any || !matches!(format, Format::Ga4 | Format::Snowplow),
        }
    }
}

/// What every format knows.
macro_rules! common_and {
    ($($option:literal),*) => {
        &["nobody", "root", "tombstones", "rounding", "min_amount", "time_zone", "where", $($option),*]
    };
}

const fn known_to(format: Format) -> &'static [&'static str] {
    match format {
        Format::Native => common_and!("time_format", "time_pattern", "fields", "constants"),
        Format::Segment => common_and!("guests", "salt_file", "amount", "currency", "types", "attributes"),
        Format::Shopify => common_and!("guests", "salt_file", "test_orders", "amount", "attributes"),
        Format::Stripe => common_and!("guests", "salt_file", "test_orders", "refunds", "disputes", "attributes"),
        Format::Ga4 => common_and!("guests", "currency", "types", "attributes"),
        Format::Snowplow => common_and!("guests", "currency", "attributes"),
        Format::Debezium => common_and!(
            "guests",
            "salt_file",
            "amount_unit",
            "amount_scale",
            "time_format",
            "time_pattern",
            "cancelled",
            "cancelled_values",
            "deletes",
            "fields",
            "constants",
            "types",
            "attributes"
        ),
        Format::Custom => common_and!(
            "guests",
            "salt_file",
            "amount_unit",
            "decimal",
            "thousands",
            "negative",
            "lines",
            "delimiter",
            "encoding",
            "columns",
            "amount_scale",
            "time_format",
            "time_pattern",
            "repeats",
            "fields",
            "constants",
            "types",
            "attributes"
        ),
        Format::CloudEvents => &["data"],
    }
}
