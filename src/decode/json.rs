//! JSON values in the notation of the message, and errors about documents that are not objects.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::Value;
use super::{Reason, Rejection, foreign};

/// The rejection of an empty value.
#[cold]
pub(super) fn no_bytes() -> Rejection {
    Rejection::new(Reason::EmptyMessage, "the value has no bytes; a JSON object is expected")
}

/// Converts the result of reading a document; `true` means that it was an object.
pub(super) fn checked(bytes: &[u8], read: serde_json::Result<bool>) -> Result<(), Rejection> {
    match read {
        Ok(true) => Ok(()),
        Ok(false) => Err(Rejection::new(Reason::NotAnObject, "a JSON object is expected")),
        Err(error) if std::str::from_utf8(bytes).is_err() => {
            Err(Rejection::new(Reason::NotUtf8, with_name(format!("not UTF-8 near column {}", error.column()), bytes)))
        }
        Err(error) => Err(Rejection::new(Reason::InvalidJson, with_name(error.to_string(), bytes))),
    }
}

/// The error, with a description of the bytes if they are recognized.
#[cold]
fn with_name(wrong: String, bytes: &[u8]) -> String {
    match foreign::named(bytes) {
        Some(what) => format!("{wrong}; the message is {what}"),
        None => wrong,
    }
}

/// A text or number. Numbers keep their notation, so that amounts never pass through floating point.
pub(super) fn scalar(raw: &RawValue) -> Value<'_> {
    spelled(raw.get())
}

/// Like [`scalar`], for the text of a valid JSON value; empty text is an absent value.
pub(super) fn spelled(json: &str) -> Value<'_> {
    match json.as_bytes().first() {
        Some(b'"') => text(json),
        Some(b'-' | b'0'..=b'9') => Value::Number(json),
        None | Some(b'n') => Value::Absent,
        Some(b't' | b'f') => Value::Other("a boolean"),
        Some(b'[') => Value::Other("a list"),
        Some(_) => Value::Other("an object"),
    }
}

fn text(json: &str) -> Value<'_> {
    let inner = &json[1..json.len() - 1];
    if !inner.contains('\\') {
        return Value::Text(Cow::Borrowed(inner));
    }
    serde_json::from_str(json)
        .map_or(Value::Other("text with a broken escape"), |text: String| Value::Text(text.into()))
}

/// The members of an object, in document order.
pub(super) struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'a>, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    members.push((name.0, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The value in MongoDB's extended JSON, such as `{"$numberDecimal":"72.12"}`; `None` for any other object.
pub(super) fn extended(json: &str) -> Option<Value<'_>> {
    let members = serde_json::from_str::<Members<'_>>(json).ok()?.0;
    let [(name, raw)] = members.as_slice() else { return None };
    match name.as_ref() {
        "$oid" | "$numberDecimal" | "$numberLong" | "$numberInt" | "$numberDouble" | "$uuid" => Some(scalar(raw)),
        "$date" if raw.get().starts_with('{') => extended(raw.get()),
        "$date" => Some(scalar(raw)),
        _ => None,
    }
}

/// How many strings may be nested around JSON.
const MAX_STRINGS: usize = 4;

/// The object or list in the JSON string `json`, also if it was put into a string several times.
pub(super) fn in_a_string(json: &str) -> Option<String> {
    if !json.starts_with('"') {
        return None;
    }
    let mut inner: String = serde_json::from_str(json).ok()?;
    for _ in 1..MAX_STRINGS {
        match inner.trim_ascii_start().as_bytes().first()? {
            b'{' | b'[' => return Some(inner),
            b'"' => inner = serde_json::from_str(&inner).ok()?,
            _ => return None,
        }
    }
    inner.trim_ascii_start().starts_with(['{', '[']).then_some(inner)
}

/// `bytes` with the slice `piece` replaced.
pub(super) fn spliced(bytes: &[u8], piece: &str, with: &str) -> Option<Vec<u8>> {
    let begin = (piece.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
    let (before, after) = (bytes.get(..begin)?, bytes.get(begin.checked_add(piece.len())?..)?);
    Some([before, with.as_bytes(), after].concat())
}
