//! Fields that Debezium adds to flattened rows as record headers instead of columns (`add.headers = op,table`).

use serde_json::value::RawValue;

use crate::decode::fields::Value;
use crate::decode::{Message, key};

/// Marks a row that was inserted because its primary key changed.
const OLD_KEY: &str = "__debezium.oldkey";
/// Marks a row that was deleted because its primary key changed.
const NEW_KEY: &str = "__debezium.newkey";

/// Whether the record is one half of a primary key change: the deletion of the old key or the insertion of the new one.
pub(super) fn is_key_change(message: &Message<'_>) -> bool {
    message.header(OLD_KEY).or(message.header(NEW_KEY)).is_some()
}

/// The object with the wanted headers added as members; `None` if the record has none of them.
pub(super) fn added<'w>(
    object: &[u8],
    message: &Message<'_>,
    wanted: impl Iterator<Item = &'w str>,
) -> Option<Vec<u8>> {
    let mut members = Vec::new();
    for name in wanted.filter(|name| name.starts_with("__")) {
        let value = message.header(name).and_then(|value| key::id(value).ok()).and_then(Value::into_text);
        if let Some(value) = value {
            members.push(format!("{}:{}", serde_json::Value::from(name), serde_json::Value::from(value.as_ref())));
        }
    }
    if members.is_empty() {
        return None;
    }
    let object = std::str::from_utf8(object).ok()?.trim_start();
    let rest = object.strip_prefix('{')?;
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    let joined = format!("{{{}{comma}{rest}", members.join(","));
    serde_json::from_str::<&RawValue>(&joined).ok()?;
    Some(joined.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(object: &str, headers: &[(&'static str, &'static str)], wanted: &[&str]) -> Option<String> {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), Some(value.as_bytes()))).collect();
        let message = Message { headers, ..Message::default() };
        let added = added(object.as_bytes(), &message, wanted.iter().copied());
        added.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn headers_become_members_whatever_wrote_them() {
        for (value, expected) in [
            ("d", r#"{"__op":"d","id":1}"#),
            ("\"d\"", r#"{"__op":"d","id":1}"#),
            (r#"{"schema":{"type":"string"},"payload":"d"}"#, r#"{"__op":"d","id":1}"#),
        ] {
            assert_eq!(add(r#"{"id":1}"#, &[("__op", value)], &["__op"]).as_deref(), Some(expected), "{value}");
        }
        assert_eq!(add("{ }", &[("__op", "u")], &["__op"]).as_deref(), Some(r#"{"__op":"u" }"#));
        assert_eq!(add(r#"{"id":1}"#, &[("__op", "d")], &["__table", "id"]), None);
        assert_eq!(add(r#"{"id":1}"#, &[("id", "2")], &["id"]), None, "only what Debezium adds");
    }
}
