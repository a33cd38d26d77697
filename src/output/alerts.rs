//! Alerts and win-backs as CloudEvents 1.0 in structured JSON mode; the schema is in `docs/schema/`.
//!
//! A message depends only on events, so producing it again yields the same bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::dead_letters::{Channel, OutboxRecord};
use crate::engine::inactivity::release::{Alert, AlertKind};
use crate::event::{Currency, Money, Time, decimal_text};

/// The media type of a message, sent in the header `content-type`.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
/// The type of an alert.
pub const INACTIVE: &str = "retentiond.customer.inactive.v1";
/// The type of a win-back.
pub const WON_BACK: &str = "retentiond.customer.winback.v1";

#[derive(Serialize)]
struct Message<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    r#type: &'static str,
    subject: &'a str,
    time: Time,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    customer_id: &'a str,
    rule: &'a str,
    silent_since: Time,
    due_at: Time,
    #[serde(flatten)]
    news: News,
}

#[derive(Serialize)]
#[serde(untagged)]
enum News {
    Inactive {
        orders: u32,
        revenue: BTreeMap<Currency, String>,
        stage: &'static str,
        status: &'static str,
        complained: bool,
        risk: &'static str,
    },
    WonBack {
        alert_id: String,
        ordered_at: Time,
        revenue: BTreeMap<Currency, String>,
    },
}

/// The id of the alert for a silence: hexadecimal SHA-256 of rule, 0, customer, 0 and the start of the silence in epoch
/// milliseconds.
#[must_use]
pub fn alert_id(rule: &str, customer: &str, silent_since: Time) -> String {
    hex(&[rule, customer, &silent_since.millis().to_string()])
}

/// The id of the win-back of an alert: hexadecimal SHA-256 of "winback", 0 and the alert's id.
#[must_use]
pub fn winback_id(alert_id: &str) -> String {
    hex(&["winback", alert_id])
}

fn hex(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\0").as_bytes());
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// How likely the customer is lost: given by the status, and one step higher after a complaint.
fn risk(status: &str, complained: bool) -> &'static str {
    let step = match status {
        "at_risk" => 1,
        "lapsed" => 2,
        _ => 0,
    };
    ["low", "medium", "high"][(step + usize::from(complained)).min(2)]
}

fn amount(money: &Money) -> (Currency, String) {
    (money.currency, decimal_text(i128::from(money.minor), money.currency))
}

/// The attribute `source` of a group's messages.
#[must_use]
pub fn source(group: &str) -> String {
    let mut text = "/retentiond/".to_owned();
    for byte in group.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// The JSON of a message.
#[must_use]
pub fn json(alert: &Alert, source: &str) -> Vec<u8> {
    let Alert { customer, rule, silent_since, due_at, what } = alert;
    let alert_id = alert_id(rule, customer, *silent_since);
    let (id, kind, time, news) = match what {
        AlertKind::Inactive { orders, stage, status, complained, revenue } => {
            let news = News::Inactive {
                orders: *orders,
                revenue: revenue.iter().map(amount).collect(),
                stage,
                status,
                complained: *complained,
                risk: risk(status, *complained),
            };
            (alert_id, INACTIVE, *due_at, news)
        }
        AlertKind::WonBack { ordered_at, amount: money } => {
            let id = winback_id(&alert_id);
            let revenue = BTreeMap::from([amount(money)]);
            (id, WON_BACK, *ordered_at, News::WonBack { alert_id, ordered_at: *ordered_at, revenue })
        }
    };
    let message = Message {
        specversion: "1.0",
        id,
        source,
        r#type: kind,
        subject: customer,
        time,
        datacontenttype: "application/json",
        data: Data { customer_id: customer, rule, silent_since: *silent_since, due_at: *due_at, news },
    };
    // Cannot fail: the struct contains only texts and numbers.
    serde_json::to_vec(&message).unwrap_or_default()
}

/// The message for the alert topic, keyed by customer.
#[must_use]
pub fn outbox_record(alert: &Alert, source: &str) -> OutboxRecord {
    OutboxRecord {
        to: Channel::Alerts,
        key: Some(alert.customer.clone().into_bytes()),
        payload: Some(json(alert, source)),
        headers: vec![("content-type".to_owned(), Some(CONTENT_TYPE.as_bytes().to_vec()))],
        time: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(customer: &str) -> Alert {
        let eur = Currency::from_code("EUR").unwrap();
        let what = AlertKind::Inactive {
            orders: 3,
            stage: "repeat",
            status: "at_risk",
            complained: true,
            revenue: vec![Money { minor: 7_212, currency: eur }],
        };
        let at = Time::clamped;
        Alert { customer: customer.into(), rule: "lapsing".into(), silent_since: at(1_000), due_at: at(5_000), what }
    }

    #[test]
    fn ids_follow_their_definition() {
        // printf 'lapsing\0c-1\0001000' | sha256sum; then of "winback", 0 and that.
        let id = alert_id("lapsing", "c-1", Time::clamped(1_000));
        assert_eq!(id, "d0c7a710ca0e2195bc40ab2200ff0d16899fbd0f943b6f916591badf6d91a5ba");
        assert_eq!(winback_id(&id), "f5c217654fea6bc6f2a31c7be0cdac61f5e78f3c089097ac14d2f12b21ae71c2");
    }

    #[test]
    fn a_complaint_raises_the_risk_by_a_step() {
        for (status, complained, expected) in [
            ("none", false, "low"),
            ("active", true, "medium"),
            ("at_risk", false, "medium"),
            ("at_risk", true, "high"),
            ("lapsed", true, "high"),
        ] {
            assert_eq!(risk(status, complained), expected, "{status}");
        }
    }

    #[test]
    fn a_message_has_all_attributes() {
        let text = String::from_utf8(json(&silent("c-1"), &source("my group"))).unwrap();
        for part in [
            r#""specversion":"1.0""#,
            r#""source":"/retentiond/my%20group""#,
            r#""type":"retentiond.customer.inactive.v1""#,
            r#""subject":"c-1""#,
            r#""time":"1970-01-01T00:00:05.000Z""#,
            r#""silent_since":"1970-01-01T00:00:01.000Z""#,
            r#""revenue":{"EUR":"72.12"}"#,
            r#""risk":"high""#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let record = outbox_record(&silent("c-1"), "/retentiond");
        assert_eq!((record.to, record.key.as_deref()), (Channel::Alerts, Some(&b"c-1"[..])));
    }
}
