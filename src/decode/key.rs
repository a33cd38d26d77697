//! The id in the key of a record: text, or the JSON of Kafka Connect.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::fields::Value;
use super::json::{Members, scalar};
use super::{Reason, Rejection, decimals};

/// Whether a key is a JSON object, as Kafka Connect writes the keys of rows.
pub(super) fn is_object(key: &[u8]) -> bool {
    key.trim_ascii_start().first() == Some(&b'{') && serde_json::from_slice::<Members<'_>>(key).is_ok()
}

/// The id in a key: text, JSON text, or the only field of an object, also inside Kafka Connect's wrapper of schema and
/// payload.
pub(super) fn id(key: &[u8]) -> Result<Value<'_>, Rejection> {
    let text = std::str::from_utf8(key).map_err(|_| Rejection::new(Reason::NotUtf8, "the key is not UTF-8"))?;
    match text.trim_ascii_start().bytes().next() {
        None => Ok(Value::Absent),
        Some(b'{' | b'"') => match serde_json::from_str::<&RawValue>(text) {
            Ok(json) => of_json(json),
            // For example a GUID in braces.
            Err(_) => Ok(Value::Text(Cow::Borrowed(text))),
        },
        Some(_) if text.bytes().any(|byte| byte.is_ascii_control()) => {
            let what = "the key holds control characters, so it is a binary number or framed for a schema registry; write \
                        keys as text (StringSerializer, StringConverter)";
            Err(Rejection::new(Reason::InvalidId, what))
        }
        Some(_) => Ok(Value::Text(Cow::Borrowed(text))),
    }
}

fn of_json(json: &RawValue) -> Result<Value<'_>, Rejection> {
    if !json.get().starts_with('{') {
        return Ok(scalar(json).into_id());
    }
    let members = serde_json::from_str::<Members<'_>>(json.get()).map(|members| members.0).unwrap_or_default();
    let payload = members.iter().find(|(name, _)| name == "payload");
    let unwrapped = match members.as_slice() {
        [(_, only)] => decimals::unwrapped(only.get()),
        _ => None,
    };
    match (members.as_slice(), payload) {
        ([_, _], Some((_, payload))) if members.iter().any(|(name, _)| name == "schema") => of_json(payload),
        ([(_, only)], _) if !only.get().starts_with(['{', '[']) => Ok(scalar(only).into_id()),
        _ if unwrapped.is_some() => Ok(unwrapped.map_or(Value::Absent, Value::into_id)),
        _ => {
            let what = "the key is an object of several fields, so it is no id; make a key of the customer id alone (Kafka \
                        Connect: ExtractField$Key)";
            Err(Rejection::new(Reason::InvalidId, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_every_kind_of_key() {
        for (key, expected) in [
            ("c-1", "c-1"),
            ("7", "7"),
            ("\"c-1\"", "c-1"),
            ("\"\\u00e9\"", "\u{e9}"),
            (r#"{"id":7}"#, "7"),
            (r#"{"id":{"scale":0,"value":"Bw=="}}"#, "7"),
            (r#"{"schema":null,"payload":{"id":1}}"#, "1"),
            (r#"{"schema":{"type":"string"},"payload":"c-1"}"#, "c-1"),
            ("{0af3c1d2-0000-4000-8000-000000000001}", "{0af3c1d2-0000-4000-8000-000000000001}"),
        ] {
            assert_eq!(id(key.as_bytes()).unwrap(), Value::Text(expected.into()), "{key}");
        }
        assert_eq!(id(b"").unwrap(), Value::Absent);
        assert_eq!(id(br#"{"schema":null,"payload":null}"#).unwrap(), Value::Absent);
    }

    #[test]
    fn keys_that_are_no_id_are_refused() {
        for (key, reason) in [
            (&b"\0\0\0\0\0\0\0\x07"[..], Reason::InvalidId),
            (b"\0\0\0\0\x01\x04c-1", Reason::InvalidId),
            (b"\xff", Reason::NotUtf8),
            (br#"{"a":1,"b":2}"#, Reason::InvalidId),
            (br#"{"schema":null,"payload":{"a":1,"b":2}}"#, Reason::InvalidId),
            (b"{}", Reason::InvalidId),
        ] {
            assert_eq!(id(key).map_err(|rejection| rejection.reason), Err(reason), "{key:?}");
        }
    }
}
