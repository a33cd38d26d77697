//! The native format: one JSON object per message, parsed in one pass without building a tree.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::conditions::Filter;
use super::fields::{Fields, Reversed, Value, customer};
use super::json::{self, scalar};
use super::options::{OptionError, Options, RECORD_KEY, RECORD_TIME};
use super::presets::constant_type;
use super::rules::Rules;
use super::{Decoded, Reason, Rejection, Skip, key};
use crate::event::{Attributes, Time};

/// Reads the native format.
#[derive(Debug, Clone)]
pub(super) struct Native {
    rules: Rules,
    filter: Option<Box<Filter>>,
    /// Fields that the options take from elsewhere; `None` if all are in the object.
    given: Option<Box<Given>>,
}

/// Fields that are not read from the object.
#[derive(Debug, Clone, Default)]
struct Given {
    customer_is_key: bool,
    time_is_sent: bool,
    event_type: Option<String>,
    currency: Option<String>,
}

impl Native {
    pub fn new(options: &Options) -> Result<Native, OptionError> {
        let mut given = Given::default();
        for (name, place) in options.fields.iter() {
            match (name, place) {
                ("customer_id", RECORD_KEY) => given.customer_is_key = true,
                ("time", RECORD_TIME) => given.time_is_sent = true,
                _ => {
                    let what = format!(
                        "cannot be {place:?}: the native format has its own names, and only fields.customer_id = \
                         {RECORD_KEY:?} and fields.time = {RECORD_TIME:?} come from elsewhere; write format = \"custom\" to \
                         name places"
                    );
                    return Err(OptionError::new(format!("fields.{name}"), what));
                }
            }
        }
        for (name, constant) in options.constants.iter() {
            match name {
                "type" => {
                    constant_type(constant, None)?;
                    given.event_type = Some(constant.to_owned());
                }
                "currency" => given.currency = Some(constant.to_owned()),
                _ => {
                    let what = "is none that the native format takes from elsewhere, which are type and currency; write \
                                format = \"custom\" for others";
                    return Err(OptionError::new(format!("constants.{name}"), what));
                }
            }
        }
        let is_given = options.fields.iter().next().or(options.constants.iter().next()).is_some();
        let given = is_given.then(|| Box::new(given));
        Ok(Native { rules: Rules::new(options)?, filter: Filter::new(options)?, given })
    }

    /// The format without options.
    pub fn plain() -> Native {
        // Default options are valid, as a test checks.
        Native::new(&Options::default()).unwrap_or_else(|wrong| unreachable!("{wrong}"))
    }

    /// Whether the record timestamp is needed.
    pub fn wants_time(&self) -> bool {
        self.given.as_ref().is_some_and(|given| given.time_is_sent)
    }

    /// Decodes an object. `key` and the timestamp are those of its record.
    pub fn decode<'a>(
        &self,
        key: Option<&'a [u8]>,
        sent: Option<Time>,
        bytes: &'a [u8],
        dimensions: &[String],
    ) -> Result<Decoded<'a>, Rejection> {
        // Filled in place, because the struct is large.
        let mut fields = Fields::default();
        if let Err(skip) = self.fields(bytes, None, dimensions, &mut fields)? {
            return Ok(Decoded::Skipped(skip));
        }
        self.fill_in(key, sent, &mut fields)?;
        let is_absent = fields.customer_id == Value::Absent;
        if !is_absent && self.rules.is_nobody(&fields.customer_id) {
            return Ok(Decoded::Skipped(Skip::Nobody));
        }
        self.rules.settle(&mut fields)?;
        let decoded = fields.into_decoded();
        if is_absent { decoded.map_err(with_hint_at_key) } else { decoded }
    }

    /// Reads the fields of an object, or returns why it is skipped. Conditions look up fields that it lacks in the
    /// surrounding object, if there is one.
    pub fn fields<'a>(
        &self,
        bytes: &'a [u8],
        around: Option<&[u8]>,
        dimensions: &[String],
        fields: &mut Fields<'a>,
    ) -> Result<Result<(), Skip>, Rejection> {
        if let Some(filter) = &self.filter
            && let Err(skip) = filter.check(bytes, around)?
        {
            return Ok(Err(skip));
        }
        object(bytes, dimensions, fields).map(Ok)
    }

    /// Sets the fields that the options take from the record or from constants.
    pub fn fill_in<'a>(
        &self,
        key: Option<&'a [u8]>,
        sent: Option<Time>,
        fields: &mut Fields<'a>,
    ) -> Result<(), Rejection> {
        match &self.given {
            Some(given) => given.fill_in(key, sent, fields),
            None => Ok(()),
        }
    }

    /// Whether the customer id is the key of the record.
    pub fn takes_key(&self) -> bool {
        self.given.as_ref().is_some_and(|given| given.customer_is_key)
    }

    /// The conditions of `mapping.where`.
    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_deref()
    }

    /// The constant type and currency, if configured.
    pub fn constants(&self) -> (Option<&str>, Option<&str>) {
        let given = self.given.as_deref();
        (given.and_then(|given| given.event_type.as_deref()), given.and_then(|given| given.currency.as_deref()))
    }

    /// How the source writes values.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }
}

#[cold]
fn with_hint_at_key(rejection: Rejection) -> Rejection {
    match rejection.detail.as_str() {
        "customer_id is missing" => Rejection::new(
            rejection.reason,
            format!(
                "customer_id is missing; if the key of the record is the customer id, write fields.customer_id = {RECORD_KEY:?} \
                 in the source's mapping"
            ),
        ),
        _ => rejection,
    }
}

impl Given {
    fn fill_in<'a>(&self, key: Option<&'a [u8]>, sent: Option<Time>, fields: &mut Fields<'a>) -> Result<(), Rejection> {
        if self.customer_is_key {
            fields.customer_id = key.map_or(Ok(Value::Absent), key::id)?;
        }
        if self.time_is_sent {
            fields.time = sent.map_or(Value::Absent, |sent| Value::Millis(sent.millis()));
        }
        let constant = |text: &Option<String>| text.clone().map_or(Value::Absent, |text| Value::Text(Cow::Owned(text)));
        if fields.event_type.is_blank() {
            fields.event_type = constant(&self.event_type);
        }
        if fields.currency.is_blank() {
            fields.currency = constant(&self.currency);
        }
        Ok(())
    }
}

/// The erasure of the customer whose id is the key.
pub(super) fn tombstone(key: Option<&[u8]>) -> Result<Decoded<'_>, Rejection> {
    let Some(key) = key else {
        return Err(Rejection::new(Reason::InvalidId, "a null value without a key names no customer to erase"));
    };
    match key::id(key)? {
        Value::Absent => {
            Err(Rejection::new(Reason::InvalidId, "the key of a null value is empty, so it names no customer"))
        }
        id => customer(id).map(|customer| Decoded::Erase { customer, time: None }),
    }
}

/// Parses the fields of an object.
pub(super) fn object<'a>(bytes: &'a [u8], dimensions: &[String], fields: &mut Fields<'a>) -> Result<(), Rejection> {
    // With text that is known to be UTF-8, the parser does not check each string again.
    let read = match std::str::from_utf8(bytes) {
        Ok(text) => read(serde_json::Deserializer::from_str(text), dimensions, fields),
        Err(_) => read(serde_json::Deserializer::from_slice(bytes), dimensions, fields),
    };
    json::checked(bytes, read)
}

fn read<'de, R: serde_json::de::Read<'de>>(
    mut json: serde_json::Deserializer<R>,
    dimensions: &[String],
    fields: &mut Fields<'de>,
) -> serde_json::Result<bool> {
    let is_object = ObjectSeed { dimensions, fields }.deserialize(&mut json)?;
    json.end().map(|()| is_object)
}

/// Parses the fields of an object; returns `false` for any other JSON value.
struct ObjectSeed<'d, 'f, 'de> {
    dimensions: &'d [String],
    fields: &'f mut Fields<'de>,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_, '_, 'de> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Implements the visitor methods for JSON types that are not expected; each returns the given answer.
macro_rules! otherwise {
    ($($answer:expr)?) => { otherwise!(@ $($answer)?, "a boolean", "a number", "a list"); };
    (@ $answer:expr, $bool:literal, $number:literal, $list:literal) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> { Ok($answer($bool)) }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> { Ok($answer($number)) }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> { Ok($answer($number)) }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> { Ok($answer($number)) }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok($answer($list))
        }
    };
}

impl<'de> Visitor<'de> for ObjectSeed<'_, '_, 'de> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let fields = self.fields;
        while let Some(name) = map.next_key_seed(NameSeed)? {
            match name {
                Name::Type => fields.event_type = map.next_value_seed(TextSeed)?,
                Name::CustomerId => fields.customer_id = map.next_value_seed(TextSeed)?,
                Name::Time => fields.time = scalar(map.next_value()?),
                Name::OrderId => fields.order_id = map.next_value_seed(TextSeed)?,
                Name::RefundId => fields.refund_id = map.next_value_seed(TextSeed)?,
                Name::Reversed => fields.reversed = Reversed::of_json(map.next_value::<&RawValue>()?.get()),
                Name::SessionId => fields.session_id = map.next_value_seed(TextSeed)?,
                Name::Amount => fields.amount = scalar(map.next_value()?),
                Name::Currency => fields.currency = map.next_value_seed(TextSeed)?,
                Name::ReferredBy => fields.referred_by = map.next_value_seed(TextSeed)?,
                Name::Kind => fields.kind = map.next_value_seed(TextSeed)?,
                Name::Score => fields.score = scalar(map.next_value()?),
                Name::Attributes if !self.dimensions.is_empty() => {
                    fields.attributes = map.next_value_seed(AttributesSeed { dimensions: self.dimensions })?;
                }
                Name::Attributes | Name::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(true)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(false)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(false)
    }
    otherwise!(|_: &str| false);
}

/// Field names of the native format.
enum Name {
    Type,
    CustomerId,
    Time,
    OrderId,
    RefundId,
    Reversed,
    SessionId,
    Amount,
    Currency,
    ReferredBy,
    Kind,
    Score,
    Attributes,
    Unknown,
}

struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Name;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for NameSeed {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }
    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        // Byte string patterns compile to inline comparisons, string patterns to calls.
        Ok(match name.as_bytes() {
            b"type" => Name::Type,
            b"customer_id" => Name::CustomerId,
            b"time" => Name::Time,
            b"order_id" => Name::OrderId,
            b"refund_id" => Name::RefundId,
            b"reversed" => Name::Reversed,
            b"session_id" => Name::SessionId,
            b"amount" => Name::Amount,
            b"currency" => Name::Currency,
            b"referred_by" => Name::ReferredBy,
            b"kind" => Name::Kind,
            b"score" => Name::Score,
            b"attributes" => Name::Attributes,
            _ => Name::Unknown,
        })
    }
}

/// Parses text; for another type, returns its description.
struct TextSeed;

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Value<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextSeed {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Absent)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an object"))
    }
    otherwise!(Value::Other);
}

/// Parses the attributes of the configured dimensions and ignores the others.
struct AttributesSeed<'d> {
    dimensions: &'d [String],
}

impl<'de> DeserializeSeed<'de> for AttributesSeed<'_> {
    type Value = Attributes<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AttributesSeed<'_> {
    type Value = Attributes<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of attributes")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut attributes = Attributes::default();
        while let Some(name) = map.next_key_seed(TextSeed)? {
            let Value::Text(name) = name else { continue };
            match self.dimensions.iter().position(|dimension| *dimension == name) {
                Some(dimension) => {
                    let raw: &RawValue = map.next_value()?;
                    match scalar(raw) {
                        Value::Text(text) if !text.is_empty() => attributes.set(dimension, text),
                        Value::Number(digits) => attributes.set(dimension, Cow::Borrowed(digits)),
                        _ if matches!(raw.get(), "true" | "false") => {
                            attributes.set(dimension, Cow::Borrowed(raw.get()));
                        }
                        _ => {}
                    }
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(attributes)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Attributes::default())
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Attributes::default())
    }
    otherwise!(|_: &str| Attributes::default());
}

#[cfg(test)]
mod tests;
