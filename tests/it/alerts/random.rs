//! Random rules of every kind over random histories, with spans from a minute to two years over gaps in the same range.

use std::fmt::Write as _;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retentiond::event::{DAY, MINUTE, Time};
use serde_json::{Value, json};

use super::compare;
use crate::support::effort::effort;
use crate::support::history::write;
use crate::support::{oracle, scratch};

const LONGEST: i64 = 730 * DAY;

/// From a minute to two years, log-uniformly distributed.
fn span(chance: &mut ChaCha8Rng) -> i64 {
    let magnitudes = LONGEST as f64 / MINUTE as f64;
    (MINUTE as f64 * magnitudes.powf(chance.random::<f64>())) as i64
}

/// A rule for the configuration, and for the oracle.
fn rule(number: usize, chance: &mut ChaCha8Rng) -> (String, Value) {
    let mut toml = format!("[[inactivity]]\nname = \"rule-{number}\"\n");
    let mut rule = json!({"name": format!("rule-{number}")});
    match chance.random_range(0..8) {
        0 | 1 => {
            let (one, other) = (span(chance), span(chance));
            let (min, max) = (one.min(other), one.max(other));
            let factor = f64::from(chance.random_range(1..40)) / 10.0;
            _ = writeln!(toml, "cadence = {factor:.1}\nmin = \"{min}ms\"\nmax = \"{max}ms\"");
            (rule["cadence"], rule["min_ms"], rule["max_ms"]) = (json!(factor), json!(min), json!(max));
        }
        2 | 3 => {
            let length = span(chance);
            _ = writeln!(toml, "no_session_for = \"{length}ms\"");
            rule["no_session_for_ms"] = json!(length);
        }
        _ => {
            let after = span(chance);
            _ = writeln!(toml, "after = \"{after}ms\"");
            rule["after_ms"] = json!(after);
        }
    }
    match chance.random_range(0..10) {
        0 => {
            let stages = [["prospect", "new"], ["repeat", "loyal"], ["new", "loyal"]][chance.random_range(0..3)];
            _ = writeln!(toml, "stage = {stages:?}");
            rule["stage"] = json!(stages);
        }
        1 => {
            let least = chance.random_range(1..4);
            _ = writeln!(toml, "min_orders = {least}");
            rule["min_orders"] = json!(least);
        }
        2 => {
            _ = writeln!(toml, "min_revenue = \"60.00 EUR\"");
            rule["min_revenue"] = json!(["60.00", "EUR"]);
        }
        3 => {
            let value = ["web", "other", "unknown", "none"][chance.random_range(0..4)];
            _ = writeln!(toml, "segment = {{ channel = \"{value}\" }}");
            rule["segment"] = json!({ "channel": value });
        }
        _ => {}
    }
    (toml, rule)
}

/// The events of one customer: a few dozen, mostly orders.
fn doings(customer: usize, begin: Time, end: Time, chance: &mut ChaCha8Rng) -> Vec<(Time, String)> {
    let mut time = begin.plus(chance.random_range(0..LONGEST));
    let mut doings = Vec::new();
    for number in 0..chance.random_range(1..30) {
        let (cents, currency) = (chance.random_range(0..9_000), ["EUR", "USD"][chance.random_range(0..2)]);
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        let id = format!("{customer}-{number}");
        let what = match chance.random_range(0..14) {
            0 => format!(r#""type":"refund","refund_id":"{id}","amount":"{amount}","currency":"{currency}""#),
            1 => format!(r#""type":"cancel","order_id":"{id}","amount":"{amount}","currency":"{currency}""#),
            2 => r#""type":"feedback","kind":"complaint""#.to_owned(),
            3 => r#""type":"customer""#.to_owned(),
            4..7 => format!(r#""type":"session","session_id":"{id}""#),
            _ => {
                let attributes = ["{}", r#"{"channel":"web"}"#, r#"{"channel":"app"}"#, r#"{"channel":"fax"}"#]
                    [chance.random_range(0..4)];
                format!(
                    r#""type":"order","order_id":"{id}","amount":"{amount}","currency":"{currency}","attributes":{attributes}"#
                )
            }
        };
        doings.push((time, format!("{{{what},\"customer_id\":\"c-{customer}\",\"time\":\"{time}\"}}\n")));
        time = time.plus(if chance.random_bool(0.1) { 0 } else { span(chance) });
    }
    doings.retain(|(time, _)| *time < end);
    doings
}

/// The history as lines, sorted by time except for duplicates, of which the first in the file counts.
fn history(chance: &mut ChaCha8Rng) -> String {
    let [begin, end] = ["2004-02-29T00:00:00Z", "2024-02-29T00:00:00Z"].map(|text| Time::parse(text).unwrap());
    let mut all: Vec<_> = (0..40).flat_map(|customer| doings(customer, begin, end, chance)).collect();
    all.sort_by_key(|(time, _)| *time);
    let mut text = String::new();
    for (at, (_, line)) in all.iter().enumerate() {
        text += line;
        let (_, former) = &all[chance.random_range(0..=at)];
        // Events without an id always count, so only events with an id are duplicated.
        if chance.random_bool(0.05) && former.contains("_id\":\"c-") && former.contains(r#""type":"order""#) {
            text += former;
        }
    }
    text
}

#[test]
fn any_rules_over_any_gaps_equal_sql() {
    let Some(oracle) = oracle::find_or_skip() else { return };
    let mut sums = [0; 3];
    for seed in 0..effort().alert_seeds {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let dir = tempfile::tempdir_in(scratch()).unwrap();
        let events = write(dir.path(), "events.ndjson", history(&mut chance));
        let rules: Vec<_> = (0..1 + seed as usize % 6).map(|number| rule(number, &mut chance)).collect();
        let (settle, within) = (chance.random_range(0..3 * DAY), span(&mut chance));
        let mut toml = String::from(
            "[customers]\ndimensions = { channel = [\"web\", \"app\"] }\nactive_for = \"40d\"\nloyal_orders = 4\n",
        );
        _ = writeln!(
            toml,
            "[alerts]\nholdout = 0.2\nsalt = \"a pinch\"\nsettle = \"{settle}ms\"\nwinback_within = \"{within}ms\""
        );
        toml.extend(rules.iter().map(|(toml, _)| toml.as_str()));
        let config = json!({
            "dimensions": {"channel": ["web", "app"]}, "active_for_ms": 40 * DAY, "loyal_orders": 4,
            "inactivity": rules.iter().map(|(_, rule)| rule).collect::<Vec<_>>(),
            "alerts": {"settle_ms": settle, "holdout": 0.2, "salt": "a pinch", "winback_within_ms": within},
        });
        println!("seed {seed}:\n{toml}");
        let (counts, _) = compare(oracle, dir.path(), &events, &toml, &config);
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    assert!(sums[0] > 1_000 && sums[1] > 200 && sums[2] > 200, "{sums:?}");
}
