//! Bad messages among good ones.

use std::collections::BTreeMap;

use super::common::{PATIENCE, Rig, metrics, summary};
use crate::support::kafka::{self, MURMUR2, Message, Record};
use crate::support::wait_for;

const MEGABYTE: usize = 1 << 20;
/// Record timestamp of the messages.
const LOG_TIME: i64 = 852_076_800_000;

/// A message of partition 0.
fn message(key: Option<&[u8]>, payload: Option<&[u8]>) -> Message {
    Message {
        partition: Some(0),
        key: key.map(<[u8]>::to_vec),
        payload: payload.map(<[u8]>::to_vec),
        timestamp: Some(LOG_TIME),
        headers: vec![("trace".to_owned(), b"\xff".to_vec()), ("trace".to_owned(), Vec::new())],
    }
}

/// An order of customer `c-1` with one field replaced; `None` leaves it out.
fn order(field: &str, value: Option<&str>) -> String {
    let fields = [
        ("type", "\"order\""),
        ("customer_id", "\"c-1\""),
        ("time", "\"2026-03-05T12:00:00Z\""),
        ("amount", "\"10.00\""),
        ("currency", "\"EUR\""),
    ];
    let mut fields: BTreeMap<&str, &str> = fields.into_iter().collect();
    match value {
        Some(value) => fields.insert(field, value),
        None => fields.remove(field),
    };
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

/// Bad messages with the expected reason.
fn bad() -> Vec<(Message, &'static str)> {
    let key = b"c-1".as_slice();
    let text = |payload: &str| message(Some(key), Some(payload.as_bytes()));
    let with = |field: &str, value: &str| text(&order(field, Some(value)));
    let without = |field: &str| text(&order(field, None));
    let garbage = vec![b'x'; 10 * MEGABYTE];
    let long = vec![b'k'; MEGABYTE];
    vec![
        (text("{\"type\":\"order\",\"customer_id\":"), "invalid_json"),
        (text("{broken"), "invalid_json"),
        (text(&(order("amount", Some("1")) + "{}")), "invalid_json"),
        (text(&"[".repeat(100_000)), "invalid_json"),
        (text(&"{\"type\":".repeat(100_000)), "invalid_json"),
        (text(""), "empty_message"),
        (text("[1]"), "not_an_object"),
        (text("\"order\""), "not_an_object"),
        (text(&nested(100_000)), "not_an_object"),
        (message(Some(key), Some(b"\xff\xfe\x00\x01")), "not_utf8"),
        (message(Some(key), Some(b"{\"type\":\"order\",\"customer_id\":\"\xc3\x28\"}")), "not_utf8"),
        (with("type", "7"), "wrong_type"),
        (with("customer_id", "42"), "wrong_type"),
        (with("time", "true"), "wrong_type"),
        (with("amount", "{}"), "wrong_type"),
        (with("amount", &nested(50_000)), "wrong_type"),
        (with("currency", "978"), "wrong_type"),
        (without("type"), "missing_field"),
        (without("customer_id"), "missing_field"),
        (without("time"), "missing_field"),
        (without("amount"), "missing_field"),
        (without("currency"), "missing_field"),
        (with("customer_id", &format!("\"{}\"", "c".repeat(256))), "invalid_id"),
        (with("amount", "\"-1.00\""), "invalid_amount"),
        (with("amount", "-1"), "invalid_amount"),
        (with("amount", "1e300"), "invalid_amount"),
        (with("amount", "\"99999999999999999999.00\""), "invalid_amount"),
        (with("amount", "\"1.001\""), "invalid_amount"),
        (with("amount", "\"ten\""), "invalid_amount"),
        (with("currency", "\"XXX\""), "unknown_currency"),
        (with("currency", "\"euro\""), "unknown_currency"),
        (with("time", "\"9999-01-01T00:00:00Z\""), "invalid_time"),
        (with("time", "\"1960-01-01T00:00:00Z\""), "invalid_time"),
        (with("time", "-315619200000"), "invalid_time"),
        (with("time", "\"yesterday\""), "invalid_time"),
        (with("time", "\"2150-01-01T00:00:00Z\""), "in_the_future"),
        (message(None, None), "invalid_id"),
        (message(Some(b""), None), "invalid_id"),
        (message(Some(&long), None), "invalid_id"),
        (message(Some(b"\xff\xfe"), None), "not_utf8"),
        (message(Some(key), Some(&garbage)), "invalid_json"),
        (message(Some(&long), Some(b"{broken")), "invalid_json"),
        // Four days before the good orders.
        (with("time", "\"2026-03-01T12:00:00Z\""), "too_late"),
    ]
}

/// Unusual but valid messages: each is an order of 10 euros.
fn good() -> Vec<Message> {
    let long = vec![b'k'; MEGABYTE];
    let plain = order("amount", Some("10"));
    let large = order("note", Some(&format!("\"{}\"", "x".repeat(10 * MEGABYTE))));
    let deep = order("note", Some(&nested(100_000)));
    vec![
        message(Some(b"c-1"), Some(plain.as_bytes())),
        message(None, Some(order("amount", Some("\"10.000\"")).as_bytes())),
        message(Some(b""), Some(order("amount", Some("1e1")).as_bytes())),
        message(Some(&long), Some(plain.as_bytes())),
        message(Some(b"c-1"), Some(large.as_bytes())),
        message(Some(b"c-1"), Some(deep.as_bytes())),
        message(Some(b"\xff"), Some(order("customer_id", Some("\"\\u0000 \\ud83d\\ude00\"")).as_bytes())),
    ]
}

#[test]
fn bad_messages_become_dead_letters_and_good_ones_count() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    rig.create_topics(broker, 2);
    let (bad, good) = (bad(), good());
    let mut messages = good.clone();
    // Good ones again, between the bad ones.
    for (place, (message, _)) in bad.iter().enumerate() {
        messages.push(message.clone());
        messages.push(good[place % 3].clone());
    }
    // A null value erases the customer, and an unknown type is skipped.
    messages.push(message(Some(b"c-1"), None));
    messages.push(message(Some(b"c-1"), Some(b"{\"type\":\"teleport\"}")));
    broker.publish_messages(&rig.orders, MURMUR2, messages);

    let mut daemon = rig.launch("only").start();
    daemon.wait_ready(PATIENCE);
    let metrics = metrics(&daemon);
    let mut reasons: BTreeMap<String, f64> = BTreeMap::new();
    for (_, reason) in &bad {
        *reasons.entry(format!("reason=\"{reason}\",topic=\"{}\"", rig.orders)).or_default() += 1.0;
    }
    let late = reasons.remove(&format!("reason=\"too_late\",topic=\"{}\"", rig.orders));
    assert_eq!(metrics.nonzero("retentiond_events_rejected_total"), reasons);
    assert_eq!(metrics.get("retentiond_events_late_total"), late);
    let orders = good.len() + bad.len();
    let expected = [("erase", 1.0), ("order", orders as f64 + 1.0), ("unknown", 1.0)];
    let topic = &rig.orders;
    let expected = expected.map(|(kind, count)| (format!("topic=\"{topic}\",type=\"{kind}\""), count));
    assert_eq!(metrics.nonzero("retentiond_events_total"), expected.into_iter().collect());
    assert_eq!(metrics.get("retentiond_tracked_customers"), Some(1.0), "c-1 is forgotten");
    let summary = summary(&daemon);
    assert_eq!(summary["windows"][0]["orders"], orders, "{summary}");
    assert_eq!(summary["windows"][0]["currencies"]["EUR"]["revenue"], format!("{}.00", 10 * orders));

    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    let dead_letters = broker.consume_all(&rig.dead_letters);
    assert_eq!(dead_letters.len(), bad.len());
    let dead_letters: BTreeMap<usize, Record> =
        dead_letters.into_iter().map(|dead_letter| (offset(&dead_letter), dead_letter)).collect();
    for (place, (message, reason)) in bad.iter().enumerate() {
        let dead_letter =
            dead_letters.get(&(good.len() + 2 * place)).unwrap_or_else(|| panic!("no dead letter for {reason}"));
        assert_dead_letter(dead_letter, message, reason, &rig.orders);
    }
    assert!(daemon.runs());
}

fn offset(dead_letter: &Record) -> usize {
    dead_letter.header("retentiond.error.offset").and_then(|offset| offset.parse().ok()).expect("an offset")
}

fn assert_dead_letter(dead_letter: &Record, message: &Message, reason: &str, topic: &str) {
    let found = dead_letter.header("retentiond.error.reason").expect("a reason");
    assert!(found.starts_with(&format!("{reason}: ")), "{found:?} for {reason}");
    assert!(found.len() < 300, "a reason of {} bytes", found.len());
    assert_eq!(dead_letter.timestamp, Some(LOG_TIME), "{reason}");
    let theirs = dead_letter.headers[..2].iter().map(|(name, value)| (name.clone(), value.clone().unwrap_or_default()));
    assert_eq!(theirs.collect::<Vec<_>>(), message.headers, "{reason}");
    assert_eq!(dead_letter.header("retentiond.error.topic").as_deref(), Some(topic));
    assert_eq!(dead_letter.header("retentiond.error.partition").as_deref(), Some("0"));
    let size = message.key.as_ref().map_or(0, Vec::len) + message.payload.as_ref().map_or(0, Vec::len);
    // What a producer with default settings may send.
    if size < 900_000 {
        assert_eq!(dead_letter.header("retentiond.error.truncated"), None, "{reason}");
        assert_eq!((&dead_letter.key, &dead_letter.payload), (&message.key, &message.payload), "{reason}");
    } else {
        assert!(dead_letter.header("retentiond.error.truncated").is_some(), "{reason}");
        let begins = |whole: &Option<Vec<u8>>, part: &Option<Vec<u8>>| match (whole, part) {
            (Some(whole), Some(part)) => whole.starts_with(part) && part.len() >= whole.len().min(1000),
            (whole, part) => whole == part,
        };
        assert!(begins(&message.key, &dead_letter.key) && begins(&message.payload, &dead_letter.payload), "{reason}");
    }
}
