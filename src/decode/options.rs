//! Options of a source beyond its format: `[sources.NAME.mapping]`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Format;
use super::conditions::Condition;
use crate::event::{EventType, Rounding};

/// What to do with an order without a customer id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guests {
    /// Skip it.
    #[default]
    Drop,
    /// Use the anonymous id of the browser or device.
    AnonymousId,
    /// Use the hash of the e-mail address: SHA-256 of the salt and the trimmed lower-case address, in hexadecimal.
    EmailHash,
}

/// What to do with test orders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestOrders {
    /// Skip them.
    #[default]
    Skip,
    /// Count them like other orders.
    Count,
}

/// Which of Stripe's events report refunds; reading both would count them twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StripeRefunds {
    /// `charge.refunded`, whose refunded total is compared with the previous one.
    #[default]
    Charges,
    /// `refund.created` and `refund.updated`, one refund each; the message key must be the customer id.
    RefundObjects,
}

/// What to do with money that a dispute takes back from the shop (Stripe).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disputes {
    /// Ignore it: the dispute does not name the customer.
    #[default]
    Ignore,
    /// Count it as a refund, reversed if the money comes back; the message key must be the customer id.
    Count,
}

/// What a deleted row means (Debezium's operation `d`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deletes {
    /// Nothing: rows are deleted as a cleanup.
    #[default]
    Ignore,
    /// The order is cancelled.
    Cancel,
}

/// What a null value under a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tombstones {
    /// Nothing: it removes older records with that key from a compacted topic. Default of all formats except native.
    Skip,
    /// Erase the customer whose id is the key.
    Erase,
}

/// Unit of amounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmountUnit {
    /// Major units, such as euros.
    #[default]
    Major,
    /// Minor units, such as cents: whole numbers, with the decimals of ISO 4217.
    Minor,
    /// Minor units with the decimals that Adyen defines.
    Adyen,
}

/// What a negative order amount means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Negative {
    /// An error.
    #[default]
    Reject,
    /// A refund of that amount. If the row has no refund id, it is derived from the order id.
    Refund,
}

/// What several lines of a file with the same order id are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineMode {
    /// Copies of one order: the first counts.
    #[default]
    Single,
    /// Articles of one order, to be added up.
    Sum,
}

/// Character encoding of a file without a byte order mark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// UTF-8.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// Windows-1252, a superset of Latin-1's printable characters.
    #[serde(rename = "windows-1252", alias = "latin-1", alias = "iso-8859-1")]
    Windows1252,
}

/// Notation of instants. Text with an offset is always read as RFC 3339, text without one is in `time_zone`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// RFC 3339, or days, seconds, milli-, micro- or nanoseconds since the epoch, distinguished by size: the ranges for
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
    /// `time_pattern`, in `time_zone` if the text has no offset.
    Pattern,
}

/// As the path of a field: the key of the record.
pub const RECORD_KEY: &str = "$record.key";
/// As the path of a field: the timestamp of the record.
pub const RECORD_TIME: &str = "$record.time";

/// One path or constant of a field, or several paths whose values are combined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldText {
    first: String,
    more: Vec<String>,
}

impl FieldText {
    /// The paths after the first one.
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
        /// A path or a constant for each field of an event.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct FieldTexts {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<FieldText>,)+
        }

        impl FieldTexts {
            /// The fields that are set, with their first paths.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
                [$((stringify!($field), &self.$field),)+]
                    .into_iter()
                    // A field named like a Rust keyword is written as `r#type` in the code.
                    .filter_map(|(name, text)| Some((name.strip_prefix("r#").unwrap_or(name), text.as_deref()?)))
            }

            /// All paths of the fields that are set.
            pub fn places(&self) -> impl Iterator<Item = (&'static str, &str)> {
                let more = [$((stringify!($field), &self.$field),)+].into_iter().flat_map(|(name, text)| {
                    let places = text.as_ref().map_or(&[][..], FieldText::more);
                    places.iter().map(move |place| (name.strip_prefix("r#").unwrap_or(name), place.as_str()))
                });
                self.iter().chain(more)
            }

            /// These texts, with `defaults` for fields that are not set.
            #[must_use]
            pub fn or(&self, defaults: &FieldTexts) -> FieldTexts {
                FieldTexts { $($field: self.$field.clone().or_else(|| defaults.$field.clone()),)+ }
            }
        }
    };
}

fields! {
    /// Event type.
    r#type,
    /// Customer id.
    customer_id,
    /// Time of the event.
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
    /// Factor of the amount, if that is a price per piece.
    quantity,
    /// ISO 4217 code.
    currency,
    /// Customer id of the referrer.
    referred_by,
    /// Kind of feedback or cost.
    kind,
    /// Score of feedback.
    score,
    /// E-mail address, to identify guests.
    email,
    /// Id of the browser or device, to identify guests.
    anonymous_id,
}

/// Prefix of hashed e-mail addresses; never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Salt(pub(super) String);

impl Salt {
    /// Wraps the salt so that it is not printed.
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

/// `[sources.NAME.mapping]`; [`Options::unknown_to`] checks which options a format supports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// What to do with an order without a customer id.
    pub guests: Guests,
    /// File with the salt for `guests = "email_hash"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub salt_file: Option<PathBuf>,
    /// Content of that file.
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
    /// Stripe: which events report refunds.
    pub refunds: StripeRefunds,
    /// Stripe: what to do with disputed money.
    pub disputes: Disputes,
    /// Path of the object in a message; by default the message itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// CloudEvents: the format of `data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Placeholders for missing customer and order ids; by default [`super::NOBODY`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nobody: Option<Vec<String>>,
    /// What a null value under a key means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tombstones: Option<Tombstones>,
    /// Whether later messages repeat earlier ones: a repetition that is too late is then skipped instead of rejected.
    pub repeats: bool,
    /// What to do with digits beyond the decimals of the currency.
    pub rounding: Rounding,
    /// Unit of amounts.
    pub amount_unit: AmountUnit,
    /// Decimal separator of amounts in text: "." or ",".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decimal: Option<String>,
    /// Separator between groups of digits of amounts in text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thousands: Option<String>,
    /// Smaller orders do not count: a decimal number in the currency of the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_amount: Option<String>,
    /// What a negative order amount means.
    pub negative: Negative,
    /// Files: what several lines with the same order id are.
    pub lines: LineMode,
    /// Files: separator between the cells of a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// Files: character encoding.
    pub encoding: Encoding,
    /// Files: column names of files without a header row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Scale of amounts that are bytes, if messages contain no schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_scale: Option<i32>,
    /// Notation of instants.
    pub time_format: TimeFormat,
    /// Pattern of instants, in the syntax of strptime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_pattern: Option<String>,
    /// IANA zone of instants without an offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Debezium: the column that marks an order as cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
    /// Debezium: values of that column that mean cancelled. Without them the column is a flag or a time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cancelled_values: Vec<String>,
    /// Debezium: what a deleted row means.
    pub deletes: Deletes,
    /// Path of each field.
    pub fields: FieldTexts,
    /// Constant fields.
    pub constants: FieldTexts,
    /// Names of event types in the messages, and the types that they mean.
    pub types: BTreeMap<String, String>,
    /// Path of each dimension's value.
    pub attributes: BTreeMap<String, String>,
    /// `where`: paths, and the values that a message must or must not have there to count.
    #[serde(rename = "where")]
    pub only: BTreeMap<String, Condition>,
}

/// An invalid option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {what}")]
pub struct OptionError {
    /// Name of the option, such as `fields.time`.
    pub option: String,
    /// What is wrong; after a semicolon, the remedy.
    pub what: String,
}

impl OptionError {
    /// An error about an option.
    pub(super) fn new(option: impl Into<String>, what: impl Into<String>) -> OptionError {
        OptionError { option: option.into(), what: what.into() }
    }
}

impl Options {
    /// Names of the options that are set.
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

    /// The options that are set but not supported by a format, each with the options that the format supports.
    #[must_use]
    pub fn unknown_to(&self, format: Format) -> Vec<(&'static str, &'static [&'static str])> {
        let known = known_to(format);
        // Data inside a CloudEvent may have any format, whose reader checks the options.
        if format == Format::CloudEvents {
            return Vec::new();
        }
        self.set().into_iter().filter(|option| !known.contains(option)).map(|option| (option, known)).collect()
    }

    /// The event types by their names in messages: as configured, by default those of the format.
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
    /// Whether messages of this format can contain what the setting needs.
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

/// The options that every format supports.
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
