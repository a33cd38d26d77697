//! Identifies messages that are not JSON, or not the JSON that their format expects, and suggests the remedy.

use super::batch::Unknown;
use super::json::{self, Members};
use super::reader::Reader;
use super::{Decoded, Decoder, Message, Reason, Rejection, Skip};

/// Minimum number of columns by which Snowplow's enriched events are recognized.
const SNOWPLOW_COLUMNS: usize = 100;

/// Describes bytes that are not JSON, with the remedy; `None` if nothing is recognized.
#[cold]
pub(super) fn named(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x1f, 0x8b, ..] => {
            return Some("compressed with gzip by the application; let the producer compress it (compression.type)");
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            return Some(
                "compressed with Zstandard by the application; let the producer compress it (compression.type)",
            );
        }
        [0, _, _, _, _, _, ..] => {
            return Some(
                "begins with the byte 0, as messages do that name the number of a schema; write [schema_registry] with its url",
            );
        }
        [0xac, 0xed, ..] => return Some("a serialized Java object; let the producer write JSON"),
        [b'O', b'b', b'j', 1, ..] => return Some("an Avro file; let the producer write one JSON object a message"),
        _ => {}
    }
    named_text(std::str::from_utf8(bytes).ok()?)
}

fn named_text(text: &str) -> Option<&'static str> {
    if text.matches('\t').count() >= SNOWPLOW_COLUMNS {
        return Some(
            "the tab-separated text of Snowplow's enriched events; let a transformation with one of Snowplow's analytics SDKs \
             write JSON, and read that with format = \"snowplow\"",
        );
    }
    let text = text.trim();
    let first = text.chars().next()?;
    if first == '<' {
        return Some("XML or HTML; let the producer write JSON");
    }
    if first == '{' && text.contains("'") && text[1..].trim_start().starts_with('\'') {
        return Some("a dictionary as Python prints it; let the producer write JSON (json.dumps)");
    }
    if first == '{' && (text.contains("}\n{") || text.contains("}{")) {
        return Some("several JSON objects; let the producer write one a message, or a JSON list");
    }
    if matches!(first, '{' | '[' | '"') {
        return None;
    }
    if text.contains("\t{") || text.contains("\t\"") || text.starts_with("CreateTime:") {
        return Some(
            "a line of kafka-console-consumer or kcat with the key or the timestamp in front of the value; print the value \
             alone (without print.key, print.timestamp, -K)",
        );
    }
    if text.len() > 8
        && text.starts_with("eyJ")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_.".contains(&byte))
    {
        return Some("JSON in base64; let the producer write JSON itself (Kafka Connect: not the ByteArrayConverter)");
    }
    if is_form(text) {
        return Some(
            "a form-encoded body (application/x-www-form-urlencoded); let the bridge of the webhook write JSON",
        );
    }
    (text.contains(',') && !text.contains('{')).then_some("text with commas, perhaps a row of CSV; topics hold JSON")
}

/// Whether the text is form-encoded (`name=value&name=value`).
fn is_form(text: &str) -> bool {
    let is_escaped = |byte: u8| byte.is_ascii_alphanumeric() || b"%+-_.~*=&[]".contains(&byte);
    let mut pairs = text.split('&').map(|pair| pair.split_once('='));
    text.bytes().all(is_escaped) && pairs.all(|pair| pair.is_some_and(|(name, _)| !name.is_empty()))
}

/// Known envelopes: the members that identify one, the path of the object in it, and a description.
const ENVELOPES: [(&[&str], &str, &str); 6] = [
    (&["topic", "partition", "offset", "payload"], "payload", "a record as kcat -J prints it"),
    (&["detail-type", "detail"], "detail", "an event of Amazon EventBridge"),
    (&["TopicArn", "Message"], "Message", "a notification of Amazon SNS"),
    (&["partition", "offset", "value"], "value", "a record of Kafka's REST proxy"),
    (&["message", "subscription"], "message", "a push message of Google Pub/Sub"),
    (&["schema", "payload"], "payload", "Kafka Connect's JSON with a schema"),
];

/// The path of the object that a message wraps, and a description of the message.
fn wrapped(bytes: &[u8]) -> Option<(String, &'static str)> {
    let members = serde_json::from_slice::<Members<'_>>(bytes).ok()?.0;
    let holds_object = |json: &str| {
        json.starts_with('{') || (json.starts_with('[') && json.contains('{')) || json::in_a_string(json).is_some()
    };
    let holds = |wanted: &str| members.iter().any(|(name, raw)| name == wanted && holds_object(raw.get()));
    let has = |wanted: &str| members.iter().any(|(name, _)| name == wanted);
    for (marks, place, what) in ENVELOPES {
        if marks.iter().all(|mark| has(mark)) && holds(place) {
            return Some((place.to_owned(), what));
        }
    }
    match members.as_slice() {
        [(name, raw)] if holds_object(raw.get()) => {
            let is_plain = !name.is_empty() && !name.contains(['.', '/', '~', '*']);
            let pointer = || format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            Some((if is_plain { name.to_string() } else { pointer() }, "an object around another one"))
        }
        _ => None,
    }
}

impl Decoder {
    /// The decoding result with a better explanation. A document that is not an object is read as a list or as JSON in
    /// a string. If the format found no event, the rejection suggests a `root` that may contain one.
    pub(super) fn explained<'a>(
        &self,
        message: &Message<'a>,
        bytes: &'a [u8],
        decoded: Result<Decoded<'a>, Rejection>,
    ) -> Result<Decoded<'a>, Rejection> {
        let is_plain = !matches!(self.reader, Reader::Rooted(_) | Reader::Each(_) | Reader::Routed);
        match &decoded {
            Err(rejection) if rejection.reason == Reason::NotAnObject => self.read_other(message, bytes, decoded),
            Err(_) | Ok(Decoded::Skipped(Skip::Guest) | Decoded::Unknown(_)) if is_plain => {
                with_hint_at_root(bytes, decoded)
            }
            _ => decoded,
        }
    }
}

/// The same, with a hint at `mapping.root` if the message wraps an object that may be the event.
#[cold]
fn with_hint_at_root<'a>(bytes: &[u8], decoded: Result<Decoded<'a>, Rejection>) -> Result<Decoded<'a>, Rejection> {
    let may_be_inside = match &decoded {
        Err(rejection) => rejection.reason == Reason::MissingField,
        Ok(Decoded::Skipped(Skip::Guest)) => true,
        Ok(Decoded::Unknown(unknown)) => unknown.name.is_none() && unknown.hint.is_none(),
        Ok(_) => false,
    };
    let Some((place, what)) = may_be_inside.then(|| wrapped(bytes)).flatten() else { return decoded };
    let hint = format!("the message is {what}; to read what is inside write root = {place:?} in the source's mapping");
    match decoded {
        Err(rejection) => Err(Rejection::new(rejection.reason, format!("{}; {hint}", rejection.detail))),
        Ok(Decoded::Unknown(unknown)) => Ok(Decoded::Unknown(Unknown {
            hint: Some("the object is inside another one; write the place of it as root in the source's mapping"),
            ..unknown
        })),
        Ok(_) => Err(Rejection::new(Reason::MissingField, format!("customer_id is missing; {hint}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_json_is_named() {
        let tsv = vec!["x"; 131].join("\t");
        for (bytes, part) in [
            (&b"id=7&total_price=72.12&line_items%5B0%5D=a"[..], "form-encoded"),
            (b"payload=%7B%22id%22%3A7%7D", "form-encoded"),
            (tsv.as_bytes(), "Snowplow"),
            (b"c-1\t{\"type\":\"order\"}", "kafka-console-consumer"),
            (b"CreateTime:1767607200000\tnull\t{}", "kafka-console-consumer"),
            (b"<order><id>7</id></order>", "XML"),
            (b"{'type': 'order'}", "Python"),
            (b"{\"a\":1}\n{\"a\":2}", "several JSON objects"),
            (b"eyJ0eXBlIjoib3JkZXIifQ==", "base64"),
            (b"7,c-1,2026-01-05,72.12,EUR", "CSV"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"\0\0\0\0\x07\x02a", "schema_registry"),
            (b"\xac\xed\0\x05t", "Java"),
        ] {
            let found = named(bytes);
            assert!(found.is_some_and(|what| what.contains(part)), "{}: {found:?}", String::from_utf8_lossy(bytes));
        }
        for bytes in [&b"{\"a\":"[..], b"", b"hello", b"[1,", b"\xff\xfe", b"nul"] {
            assert_eq!(named(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn the_object_inside_is_found() {
        for (message, place) in [
            (r#"{"order":{"id":7}}"#, Some("order")),
            (r#"{"my.order":{"id":7}}"#, Some("/my.order")),
            (r#"{"order":"{\"id\":7}"}"#, Some("order")),
            (r#"{"orders":[{"id":7}]}"#, Some("orders")),
            (r#"{"topic":"t","partition":0,"offset":1,"key":null,"payload":"{\"id\":7}"}"#, Some("payload")),
            (r#"{"version":"0","detail-type":"Order","detail":{"id":7}}"#, Some("detail")),
            (r#"{"TopicArn":"arn","Message":"{\"id\":7}"}"#, Some("Message")),
            (r#"{"order":7}"#, None),
            (r#"{"type":"order","attributes":{"a":1}}"#, None),
            ("[]", None),
        ] {
            assert_eq!(wrapped(message.as_bytes()).map(|(place, _)| place).as_deref(), place, "{message}");
        }
    }
}
