//! Every figure of `replay` equals SQL's over the same events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retentiond::event::{DAY, Time};
use retentiond::shop::ShopSettings;
use serde_json::{Value, json};
use support::history::{self, Sale, write};
use support::oracle::{self, Oracle};
use support::{cli, scratch};

/// Instants around the 18 months of CDNOW: before its first event, within its first second, at and beside the bounds of
/// periods, at odd times, at its last event and long after.
const CDNOW_INSTANTS: [&str; 15] = [
    "1996-12-31T23:59:59.999Z",
    "1997-01-01T00:00:01Z",
    "1997-01-31T23:59:59.999Z",
    "1997-02-01T00:00:00Z",
    "1997-03-31T12:34:56.789Z",
    "1997-06-30T23:59:59Z",
    "1997-07-01T00:00:00Z",
    "1997-09-14T03:07:00Z",
    "1997-12-31T23:59:59.999Z",
    "1998-01-01T00:00:00Z",
    "1998-02-28T17:45:00.001Z",
    "1998-06-30T00:00:00Z",
    "1998-06-30T23:59:59.999Z",
    "1998-12-31T13:00:00Z",
    "2001-05-05T05:05:05Z",
];

/// Compares at every instant; returns how many figures were compared.
fn compare(oracle: &Oracle, events: &Path, toml: Option<&Path>, config: &Value, instants: &[&str]) -> u64 {
    let expected = oracle.oracle(events, config, instants);
    let found: Vec<Value> = instants.iter().map(|as_of| cli::replay(&[events], toml, Some(as_of))).collect();
    oracle.compare(&expected, &Value::Array(found))
}

fn compare_cdnow(sales: &[Sale]) -> u64 {
    let Some(oracle) = oracle::find_or_skip() else { return u64::MAX };
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let events = write(dir.path(), "cdnow.csv", history::csv(sales));
    compare(oracle, &events, None, &json!({}), &CDNOW_INSTANTS)
}

#[test]
fn cdnow_master_equals_sql() {
    let sales = history::cdnow_master();
    assert_eq!(sales.len(), 69_659);
    let compared = compare_cdnow(&sales);
    assert!(compared > 5_000, "{compared} figures were compared");
}

#[test]
fn cdnow_sample_equals_sql() {
    let sales = history::cdnow_sample();
    assert_eq!(sales.len(), 6_919);
    let compared = compare_cdnow(&sales);
    assert!(compared > 5_000, "{compared} figures were compared");
}

/// The sample with times of day and order ids, unsorted within each day; three orders in ten are sent a second time
/// within a day, some of them with another amount, which must not matter.
fn shuffled_with_duplicates() -> String {
    let mut chance = ChaCha8Rng::seed_from_u64(7);
    let mut messages = Vec::new();
    for (number, sale) in history::cdnow_sample().into_iter().enumerate() {
        let midnight = Time::parse(&sale.time()).unwrap().millis();
        let time = Time::clamped(midnight + chance.random_range(0..DAY));
        let native = |amount: &str| {
            format!(
                r#"{{"type":"order","order_id":"o-{number}","customer_id":"{}","time":"{time}","amount":"{amount}","currency":"USD"}}"#,
                sale.customer
            )
        };
        messages.push((midnight + chance.random_range(0..DAY), native(&sale.dollars)));
        if chance.random_bool(0.3) {
            let amount = if chance.random_bool(0.5) { "999.99" } else { &sale.dollars };
            let first = messages.last().map_or(0, |(at, _)| *at);
            messages.push((first + chance.random_range(1..DAY), native(amount)));
        }
    }
    messages.shuffle(&mut chance);
    messages.sort_by_key(|(sent, _)| *sent);
    messages.into_iter().map(|(_, line)| line + "\n").collect()
}

#[test]
fn disorder_and_duplicates_change_nothing() {
    let Some(oracle) = oracle::find_or_skip() else { return };
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let events = write(dir.path(), "shuffled.ndjson", shuffled_with_duplicates());
    let compared = compare(oracle, &events, None, &json!({}), &CDNOW_INSTANTS);
    assert!(compared > 5_000, "{compared} figures were compared");
    let last = cli::replay(&[&events], None, Some("1998-06-30T23:59:59.999Z"));
    let year = last["windows"].as_array().unwrap().iter().find(|window| window["window"] == "365d").unwrap();
    assert!(year["orders"].as_i64().unwrap() < 6_919, "no copy counts");
}

/// Sixteen months of a small shop with everything that the shop knows, most of it more often than is likely.
fn shop_history() -> Vec<retentiond::shop::Published> {
    let start = Time::parse("2023-02-10T00:00:00Z").unwrap();
    let settings = ShopSettings {
        seed: 11,
        start,
        initial_customers: 400,
        customers_per_day: 4.0,
        erasures: 0.2,
        duplicates: 0.05,
        late: 0.1,
        too_late: 0.01,
        refunds: 0.15,
        cancellations: 0.1,
        ..ShopSettings::default()
    };
    history::shop(settings, start.plus(490 * DAY))
}

/// The days on which summer time begins and ends there, where a day has 23 and 25 hours, are among the instants.
const SHOP_INSTANTS: [&str; 12] = [
    "2023-02-10T00:00:01Z",
    "2023-02-28T23:59:59.999Z",
    "2023-03-12T06:59:59.999Z",
    "2023-03-12T07:00:00Z",
    "2023-04-01T03:59:59.999Z",
    "2023-04-01T04:00:00Z",
    "2023-07-19T11:23:45.678Z",
    "2023-11-05T05:30:00Z",
    "2024-01-01T04:59:59.999Z",
    "2024-01-01T05:00:00Z",
    "2024-05-31T18:18:18.018Z",
    "2026-01-01T00:00:00Z",
];

const SHOP_TOML: &str = r#"
[time]
zone = "America/New_York"
history_whole = true
[clv]
window = "28d"
[[windows]]
name = "6h"
period = "6h"
active_for = "3d"
[[windows]]
name = "10d"
period = "10d"
active_for = "45d"
resolution = "1h"
[[windows]]
name = "28d"
period = "28d"
active_for = "28d"
[[windows]]
name = "90d"
period = "90d"
active_for = "200d"
resolution = "1d"
[[calendar]]
name = "month"
active_for = "31d"
[[calendar]]
name = "quarter"
active_for = "100d"
[[calendar]]
name = "year"
active_for = "366d"
"#;

fn shop_config() -> Value {
    json!({
        "zone": "America/New_York",
        "history_whole": true,
        "clv_window": "28d",
        "windows": [
            {"name": "6h", "period_ms": DAY / 4, "active_for_ms": 3 * DAY},
            {"name": "10d", "period_ms": 10 * DAY, "active_for_ms": 45 * DAY, "resolution_ms": DAY / 24},
            {"name": "28d", "period_ms": 28 * DAY, "active_for_ms": 28 * DAY},
            {"name": "90d", "period_ms": 90 * DAY, "active_for_ms": 200 * DAY, "resolution_ms": DAY},
        ],
        "calendar": [
            {"name": "month", "active_for_days": 31},
            {"name": "quarter", "active_for_days": 100},
            {"name": "year", "active_for_days": 366},
        ],
    })
}

#[test]
fn a_shop_in_its_own_zone_and_windows_equals_sql() {
    let Some(oracle) = oracle::find_or_skip() else { return };
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let text = history::ndjson(&shop_history());
    let values = |field: &str| -> BTreeSet<String> {
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter_map(|event| Some(event[field].as_str()?.to_owned())).collect()
    };
    let types = values("type");
    for needed in ["order", "refund", "cancel", "session", "customer", "feedback", "cost", "erase"] {
        assert!(types.contains(needed), "the history has no {needed}: {types:?}");
    }
    assert!(values("currency").len() >= 4, "few currencies: {:?}", values("currency"));
    let events = write(dir.path(), "shop.ndjson", &text);
    let toml = write(dir.path(), "shop.toml", SHOP_TOML);
    let compared = compare(oracle, &events, Some(&toml), &shop_config(), &SHOP_INSTANTS);
    assert!(compared > 5_000, "{compared} figures were compared");
}

#[test]
fn compressed_files_say_the_same() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let sales = history::cdnow_sample();
    let csv = history::csv(&sales);
    let native: String = sales.iter().map(|sale| sale.native() + "\n").collect();
    let mut said = BTreeSet::new();
    for (name, text) in [("a.csv", csv), ("a.ndjson", native)] {
        let plain = write(dir.path(), name, &text);
        let gz = dir.path().join(format!("{name}.gz"));
        let mut encoder = flate2::write::GzEncoder::new(File::create(&gz).unwrap(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();
        let zst = write(dir.path(), &format!("{name}.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap());
        said.extend([plain, gz, zst].iter().map(|path| cli::replay_text(&[path], None, None)));
    }
    assert_eq!(said.len(), 1, "six spellings of the same orders, {} answers", said.len());
}
