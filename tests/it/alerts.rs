//! Every alert and win-back of `replay`, and the statistics of the rules, equal those of SQL, and messages match their
//! schema.

mod random;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::history::{self, write};
use crate::support::oracle::{self, Oracle, Order};
use crate::support::{cli, scratch};
use retentiond::event::{DAY, Time};
use retentiond::shop::{Buying, ShopSettings};
use serde_json::{Value, json};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/test_alert_schema.py");

/// Rules of every kind, with every filter.
const RULES: &str = r#"
[[inactivity]]
name = "lapsing"
after = "45d"
[[inactivity]]
name = "off-pace"
cadence = 2.5
min = "5d"
max = "120d"
[[inactivity]]
name = "good-ones"
after = "60d"
stage = ["repeat", "loyal"]
min_orders = 3
min_revenue = "80.00 USD"
[[inactivity]]
name = "newcomers"
after = "21d"
stage = "new"
[alerts]
holdout = 0.2
salt = "a pinch"
winback_within = "40d"
"#;

fn rules() -> Value {
    json!([
        {"name": "lapsing", "after_ms": 45 * DAY},
        {"name": "off-pace", "cadence": 2.5, "min_ms": 5 * DAY, "max_ms": 120 * DAY},
        {"name": "good-ones", "after_ms": 60 * DAY, "stage": ["repeat", "loyal"], "min_orders": 3,
         "min_revenue": ["80.00", "USD"]},
        {"name": "newcomers", "after_ms": 21 * DAY, "stage": ["new"]},
    ])
}

fn alerts() -> Value {
    json!({"settle_ms": DAY, "holdout": 0.2, "salt": "a pinch", "winback_within_ms": 40 * DAY})
}

/// Compares; returns the numbers of alerts, win-backs and held-out silences, and the path of the messages.
fn compare(oracle: &Oracle, dir: &Path, events: &Path, toml: &str, config: &Value) -> ([u64; 3], PathBuf) {
    let toml = write(dir, "retentiond.toml", toml);
    let messages = dir.join("alerts.ndjson");
    let args: [&OsStr; 8] = [
        "replay".as_ref(),
        events.as_ref(),
        "--config".as_ref(),
        toml.as_ref(),
        "--alerts".as_ref(),
        messages.as_ref(),
        "--format".as_ref(),
        "json".as_ref(),
    ];
    let said = cli::run(args);
    assert_eq!(said.code, Some(0), "{said:?}");
    let summary = write(dir, "summary.json", said.stdout);
    let counts = oracle.compare_alerts(events, config, &messages, Order::Time { summary: &summary });
    (counts, messages)
}

fn cdnow(sales: &[history::Sale], more: &str, change: impl FnOnce(&mut Value)) -> [u64; 3] {
    let Some(oracle) = oracle::find_or_skip() else { return [u64::MAX; 3] };
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let events = write(dir.path(), "cdnow.csv", history::csv(sales));
    let mut config = json!({"dimensions": [], "inactivity": rules(), "alerts": alerts()});
    change(&mut config);
    compare(oracle, dir.path(), &events, &format!("{RULES}{more}"), &config).0
}

#[test]
fn alerts_of_cdnow_equal_sql() {
    let counts = cdnow(&history::cdnow_master(), "", |_| {});
    assert!(counts[0] > 40_000 && counts[1] > 2_000 && counts[2] > 10_000, "{counts:?}");
}

/// Without waiting for late events, which a sorted history does not have, and with `alerts.since`.
#[test]
fn alerts_since_an_instant_and_without_a_wait_equal_sql() {
    let since = Time::parse("1997-05-01T00:00:00Z").unwrap().millis();
    let more = "settle = \"0s\"\nsince = \"1997-05-01T00:00:00Z\"\n";
    let counts = cdnow(&history::cdnow_sample(), more, |config| {
        config["alerts"]["settle_ms"] = json!(0);
        config["alerts"]["since"] = json!(since);
    });
    assert!(counts[0] > 2_000 && counts[1] > 100 && counts[2] > 500, "{counts:?}");
}

/// A shop with sessions, prospects, refunds, complaints, several currencies and erasures, and with late events and
/// duplicates, which a replay sorts and removes.
#[test]
fn alerts_of_a_shop_equal_sql_and_fit_their_schema() {
    let Some(oracle) = oracle::find_or_skip() else { return };
    let start = Time::parse("2023-02-10T00:00:00Z").unwrap();
    let settings = ShopSettings {
        seed: 5,
        start,
        initial_customers: 300,
        customers_per_day: 4.0,
        buying: Buying { days_between_orders: 12.0, rate_shape: 0.6, ..Buying::default() },
        complaints: 0.15,
        win_backs: 0.3,
        erasures: 0.1,
        duplicates: 0.05,
        late: 0.2,
        too_late: 0.0,
        refunds: 0.15,
        cancellations: 0.1,
        ..ShopSettings::default()
    };
    let log = history::shop_log(settings, start.plus(300 * DAY));
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let events = write(dir.path(), "events.ndjson", history::ndjson(&log));
    let toml = format!(
        "[customers]\ndimensions = {{ channel = [\"web\", \"app\"] }}\nactive_for = \"40d\"\nloyal_orders = 4\n{RULES}\
         [[inactivity]]\nname = \"unseen\"\nno_session_for = \"10d\"\n\
         [[inactivity]]\nname = \"web\"\nafter = \"14d\"\nsegment = {{ channel = \"web\" }}\n\
         [[inactivity]]\nname = \"others\"\nafter = \"14d\"\nsegment = {{ channel = \"other\" }}\n\
         [[inactivity]]\nname = \"euros\"\nafter = \"7d\"\nmin_revenue = \"120 EUR\"\n"
    );
    let mut rules = rules();
    rules.as_array_mut().unwrap().extend([
        json!({"name": "unseen", "no_session_for_ms": 10 * DAY}),
        json!({"name": "web", "after_ms": 14 * DAY, "segment": {"channel": "web"}}),
        json!({"name": "others", "after_ms": 14 * DAY, "segment": {"channel": "other"}}),
        json!({"name": "euros", "after_ms": 7 * DAY, "min_revenue": ["120", "EUR"]}),
    ]);
    let config = json!({
        "dimensions": {"channel": ["web", "app"]}, "active_for_ms": 40 * DAY, "loyal_orders": 4,
        "inactivity": rules, "alerts": alerts(),
    });
    let (counts, messages) = compare(oracle, dir.path(), &events, &toml, &config);
    assert!(counts[0] > 2_000 && counts[1] > 300 && counts[2] > 500, "{counts:?}");
    let output = Command::new(oracle.python()).arg(SCHEMA).arg(&messages).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let fit: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(fit["retentiond.customer.inactive.v1"], json!(counts[0]));
    assert_eq!(fit["retentiond.customer.winback.v1"], json!(counts[1]));
}

/// Rules with very different spans: no rule suppresses an alert of another.
#[test]
fn each_rule_alerts_as_if_it_were_alone() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let events = write(dir.path(), "cdnow.csv", history::csv(&history::cdnow_sample()));
    let count = |spans: &[&str]| {
        let rules = spans.iter().map(|span| format!("[[inactivity]]\nname = \"after-{span}\"\nafter = \"{span}\"\n"));
        let toml =
            write(dir.path(), "retentiond.toml", format!("{}[alerts]\nbackfill = true\n", rules.collect::<String>()));
        let messages = dir.path().join("alerts.ndjson");
        let [replay, config, alerts] = ["replay", "--config", "--alerts"].map(OsStr::new);
        let said = cli::run([replay, events.as_ref(), config, toml.as_ref(), alerts, messages.as_ref()]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let messages = std::fs::read_to_string(messages).unwrap();
        messages.lines().filter(|line| line.contains("retentiond.customer.inactive.v1")).count()
    };
    assert_eq!((count(&["14d"]), count(&["90d"])), (5_290, 3_131));
    assert_eq!((count(&["14d", "90d"]), count(&["90d", "14d"])), (8_421, 8_421));
    assert_eq!((count(&["7d"]), count(&["200d"]), count(&["7d", "200d"])), (5_825, 2_221, 8_046));
}
