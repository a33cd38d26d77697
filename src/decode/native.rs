//! The native format: one JSON object a message, read in one pass and without a tree.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fields::{Fields, Value, customer};
use super::json::{self, scalar};
use super::{Decoded, Reason, Rejection};
use crate::event::Attributes;

/// Decodes a message; a null value under a customer's key is the wish to forget that customer.
pub(super) fn decode<'a>(
    key: Option<&'a [u8]>,
    payload: Option<&'a [u8]>,
    dimensions: &[String],
) -> Result<Decoded<'a>, Rejection> {
    match payload {
        None => tombstone(key),
        Some([]) => Err(json::no_bytes()),
        Some(bytes) => {
            // Filled in place, because it is large.
            let mut fields = Fields::default();
            object(bytes, dimensions, &mut fields)?;
            fields.into_decoded()
        }
    }
}

/// The wish to forget the customer whose id is the key.
pub(super) fn tombstone(key: Option<&[u8]>) -> Result<Decoded<'_>, Rejection> {
    let Some(key) = key else {
        return Err(Rejection::new(Reason::InvalidId, "a null value without a key names no customer to erase"));
    };
    let id = std::str::from_utf8(key).map_err(|_| {
        Rejection::new(Reason::NotUtf8, "the key of a null value is not UTF-8, so it names no customer")
    })?;
    customer(Value::Text(Cow::Borrowed(id))).map(Decoded::Erase)
}

/// Reads the fields of an object.
pub(super) fn object<'a>(bytes: &'a [u8], dimensions: &[String], fields: &mut Fields<'a>) -> Result<(), Rejection> {
    // In text that is known to be UTF-8, no string needs a check of its own.
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

/// Reads an object's fields; `false` for any other JSON value.
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

/// What a visitor answers to every JSON value that it does not expect.
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

/// The name of a field.
enum Name {
    Type,
    CustomerId,
    Time,
    OrderId,
    RefundId,
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
        // Bytes are told apart in place, text by calls that compare it.
        Ok(match name.as_bytes() {
            b"type" => Name::Type,
            b"customer_id" => Name::CustomerId,
            b"time" => Name::Time,
            b"order_id" => Name::OrderId,
            b"refund_id" => Name::RefundId,
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

/// Reads text; says what else stands there.
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

/// Reads the attributes of the configured dimensions and passes over the rest.
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
                Some(dimension) => match scalar(map.next_value()?) {
                    Value::Text(text) if !text.is_empty() => attributes.set(dimension, text),
                    Value::Number(digits) => attributes.set(dimension, Cow::Borrowed(digits)),
                    _ => {}
                },
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
