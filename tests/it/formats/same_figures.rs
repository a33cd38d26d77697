//! The same orders in several formats give the same figures.

use std::fmt::Write as _;
use std::fs;

use crate::support::cli;

/// An order: its number, customer, seconds after the start of 2026, cents, and cents refunded a day later.
struct Bought {
    id: u64,
    customer: u64,
    at: i64,
    cents: i64,
    refunded: i64,
    channel: &'static str,
}

const BEGIN: i64 = 1_767_225_600;

fn orders() -> Vec<Bought> {
    (0..400_u64)
        .map(|i| Bought {
            id: 1000 + i,
            customer: 1 + (i * i * 7 + i) % 60,
            at: BEGIN + i64::try_from(i * 86_400 / 4 + i * 37 % 3_600).unwrap(),
            cents: i64::try_from(500 + i * 131 % 9_000).unwrap(),
            refunded: if i % 9 == 0 { i64::try_from(100 + i % 50).unwrap() } else { 0 },
            channel: ["web", "app", "store"][usize::try_from(i % 3).unwrap()],
        })
        .collect()
}

fn text(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn time(seconds: i64) -> String {
    retentiond::event::Time::clamped(seconds * 1000).to_string()
}

fn native(of: &Bought) -> String {
    let Bought { id, customer, at, cents, refunded, channel } = of;
    let mut lines = format!(
        r#"{{"type":"order","order_id":"{id}","customer_id":"{customer}","time":"{}","amount":"{}","currency":"EUR","attributes":{{"channel":"{channel}"}}}}"#,
        time(*at),
        text(*cents)
    );
    if *refunded > 0 {
        _ = write!(
            lines,
            "\n{{\"type\":\"refund\",\"refund_id\":\"r{id}\",\"customer_id\":\"{customer}\",\"time\":{},\"amount\":\"{}\",\"currency\":\"EUR\"}}",
            (at + 86_400) * 1000,
            text(*refunded)
        );
    }
    lines
}

fn segment(of: &Bought) -> String {
    let Bought { id, customer, at, cents, refunded, channel } = of;
    let track = |event: &str, message: String, at: i64, total: i64| {
        format!(
            r#"{{"type":"track","event":"{event}","userId":"{customer}","messageId":"{message}","timestamp":"{}","properties":{{"order_id":"{id}","total":{},"currency":"EUR","channel":"{channel}"}}}}"#,
            time(at),
            text(total)
        )
    };
    let mut lines = track("Order Completed", format!("m{id}"), *at, *cents);
    if *refunded > 0 {
        _ = write!(lines, "\n{}", track("Order Refunded", format!("n{id}"), at + 86_400, *refunded));
    }
    lines
}

fn shopify(of: &Bought) -> String {
    let Bought { id, customer, at, cents, refunded, channel } = of;
    let order = |refunds: &str, updated: i64| {
        format!(
            r#"{{"id":{id},"customer":{{"id":{customer}}},"processed_at":"{}","updated_at":"{}","total_price":"{}","currency":"EUR","test":false,"cancelled_at":null,"source_name":"{channel}","refunds":[{refunds}]}}"#,
            time(*at),
            time(updated),
            text(*cents)
        )
    };
    let mut lines = order("", at + 1);
    if *refunded > 0 {
        let refund = format!(
            r#"{{"id":{id},"processed_at":"{}","transactions":[{{"kind":"refund","status":"success","amount":"{}","currency":"EUR"}}]}}"#,
            time(at + 86_400),
            text(*refunded)
        );
        _ = write!(lines, "\n{}", order(&refund, at + 86_401));
    }
    lines
}

fn debezium(of: &Bought) -> String {
    let Bought { id, customer, at, cents, channel, .. } = of;
    format!(
        r#"{{"before":null,"after":{{"id":{id},"customer_id":{customer},"placed_at":{},"amount":{cents},"currency":"EUR","channel":"{channel}"}},"source":{{"ts_ms":1}},"op":"c"}}"#,
        at * 1_000_000
    )
}

/// The figures of a history in one format, without those that the format cannot express.
fn figures(format: &str, mapping: &str, lines: &[String]) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    let (file, config) = (dir.path().join("history.ndjson"), dir.path().join("retentiond.toml"));
    fs::write(&file, lines.join("\n")).unwrap();
    let text = format!("[customers]\ndimensions = [\"channel\"]\n[sources.orders]\nformat = \"{format}\"\n{mapping}");
    fs::write(&config, text).unwrap();
    cli::replay(&[&file], Some(&config), Some("2026-04-20T00:00:00Z"))
}

#[test]
fn the_same_orders_give_the_same_figures_in_every_format() {
    let orders = orders();
    let lines = |write: fn(&Bought) -> String| orders.iter().map(write).collect::<Vec<_>>();
    let expected = figures("native", "", &lines(native));
    let refunds = expected.pointer("/windows/2/currencies/EUR/refunds").and_then(serde_json::Value::as_str).unwrap();
    assert!(refunds != "0.00" && expected["windows"][2]["orders"].as_u64().unwrap() > 300, "{expected}");
    assert_eq!(figures("segment", "", &lines(segment)), expected, "segment");
    assert_eq!(figures("shopify", "", &lines(shopify)), expected, "shopify");

    // A table of orders contains no refunds.
    let sold: Vec<_> = orders.iter().map(|of| native(&Bought { refunded: 0, ..*of })).collect();
    let mapping = "[sources.orders.mapping]\namount_unit = \"minor\"\nfields = { time = \"placed_at\" }\n\
                   attributes = { channel = \"channel\" }\n";
    assert_eq!(figures("debezium", mapping, &lines(debezium)), figures("native", "", &sold), "debezium");
}
