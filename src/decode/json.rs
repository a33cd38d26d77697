//! JSON values as they stand in the message, and what is wrong with a document that is no object.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::fields::Value;
use super::{Reason, Rejection};

/// The rejection of a value without bytes.
#[cold]
pub(super) fn no_bytes() -> Rejection {
    Rejection::new(Reason::EmptyMessage, "the value has no bytes; a JSON object is expected")
}

/// What reading a document came to; `true` means that it is an object.
pub(super) fn checked(bytes: &[u8], read: serde_json::Result<bool>) -> Result<(), Rejection> {
    match read {
        Ok(true) => Ok(()),
        Ok(false) => Err(Rejection::new(Reason::NotAnObject, "a JSON object is expected")),
        Err(error) if std::str::from_utf8(bytes).is_err() => {
            Err(Rejection::new(Reason::NotUtf8, format!("not UTF-8 near column {}", error.column())))
        }
        Err(error) => Err(Rejection::new(Reason::InvalidJson, error.to_string())),
    }
}

/// A value that may be text or a number; numbers keep their spelling, so that no float ever holds an amount.
pub(super) fn scalar(raw: &RawValue) -> Value<'_> {
    spelled(raw.get())
}

/// As [`scalar`], of a sound JSON value as it is spelled in the message; no text at all is an absent value.
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
