//! Records that the program reads back from its own topics, dead letters and alerts, and answers of a webhook.

use std::time::Instant;

use retentiond::output::dead_letters::{Channel, OURS, OutboxRecord, RecordOrigin, Sender};
use retentiond::webhook::policy::{Outcome, Tries, retry_after, step};
use retentiond::webhook::queue::Alert;

/// Size limit to which a dead letter is truncated.
const LEAST: usize = 1 << 10;

/// The input is a value, a key, and names and values of headers, separated by a byte that does not occur in UTF-8.
pub fn outbox(bytes: &[u8]) -> bool {
    let mut parts = bytes.split(|byte| *byte == super::decode::SEPARATOR).map(<[u8]>::to_vec);
    let payload = parts.next().unwrap_or_default();
    let key = parts.next();
    let mut headers = Vec::new();
    while let Some(name) = parts.next() {
        headers.push((String::from_utf8_lossy(&name).into_owned(), parts.next()));
    }
    _ = Sender::of(&headers);
    answer(&payload);
    let alert = Alert { partition: 3, offset: 7, key: key.clone(), payload: payload.clone(), headers, time: None };
    let id = alert.id();
    assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()), "no header can hold the id {id:?}");

    let Alert { headers, .. } = alert;
    let theirs = headers.iter().filter(|(name, _)| !name.starts_with(OURS)).count();
    let dead_letter = OutboxRecord { to: Channel::DeadLetters, key, payload: Some(payload), headers, time: None };
    let mut dead_letter =
        dead_letter.marked(&RecordOrigin { group: "shop", topic: "orders", partition: 3 }, 7, "invalid_json: why");
    assert_eq!(dead_letter.headers.len(), theirs + 5, "of ours there are five, whatever was there");
    let sender = Sender::of(&dead_letter.headers);
    assert_eq!((sender.reason.as_str(), sender.topic.as_deref()), ("invalid_json", Some("orders")));
    let is_large = dead_letter.bytes() > LEAST;
    dead_letter.shrink_to(LEAST);
    assert!(dead_letter.bytes() <= LEAST, "{} bytes", dead_letter.bytes());
    let sender = Sender::of(&dead_letter.headers);
    assert_eq!(sender.is_truncated, is_large);
    assert_eq!((sender.group.as_deref(), sender.partition), (Some("shop"), Some(3)), "it keeps its origin");
    id != "3-7"
}

/// Handles an answer with a header `Retry-After`.
fn answer(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (mut tries, now) = (Tries::default(), Instant::now());
    let outcome = Outcome::Answered { status: 429, retry_after: retry_after(text, 1_767_323_045) };
    for _ in 0..3 {
        _ = step(&mut tries, &outcome, None, now, 0.5);
    }
}
