//! Every figure of `replay`, and of the daemon's worker for the same messages in arrival order, equals that of SQL.

mod erased;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::support::history::{self, Sale, write};
use crate::support::log::{self, Message, Reach};
use crate::support::oracle::{self, Oracle};
use crate::support::{cli, scratch};
use retentiond::event::{DAY, Time};
use retentiond::shop::{Buying, ShopSettings};
use serde_json::{Value, json};

/// The oracle's parts that are compared by default: everything except the distributions, which are the same at every
/// instant only once all events are applied, and have a test of their own.
const PARTS: [&str; 14] = [
    "windows",
    "calendar",
    "cohorts",
    "stages",
    "segments",
    "transitions",
    "segment_clv",
    "referrals",
    "complainers",
    "feedback",
    "costs",
    "coverage",
    "clv_after_costs",
    "reporting",
];

/// Instants around the 18 months of CDNOW: before its first event, within its first second, at and around the bounds of
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

/// Days from CDNOW to the same days fourteen years later, so that the last day of 1997 becomes that of 2011.
const FOURTEEN_YEARS: i64 = 5113;

/// Instants of CDNOW fourteen years later, in Samoa: the days on which summer time ends and begins, the end of 29
/// December 2011, which was followed by the 31st, and a 29 February.
const SAMOAN_INSTANTS: [&str; 13] = [
    "2011-01-01T10:59:59.999Z",
    "2011-01-01T11:00:00Z",
    "2011-04-02T14:00:00Z",
    "2011-09-24T13:59:59.999Z",
    "2011-12-30T09:59:59.999Z",
    "2011-12-30T10:00:00Z",
    "2012-01-01T09:59:59.999Z",
    "2012-02-28T10:00:00Z",
    "2012-02-29T09:59:59.999Z",
    "2012-02-29T10:00:00Z",
    "2012-06-30T09:59:59.999Z",
    "2012-06-30T23:59:59.999Z",
    "2015-02-28T03:03:03Z",
];

/// Including the days on which summer time begins and ends in New York, which have 23 and 25 hours.
const SHOP_INSTANTS: [&str; 13] = [
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
    "2024-06-14T00:00:00Z",
    "2026-01-01T00:00:00Z",
];

/// A history, its configuration, and the instants of the figures.
struct Case {
    dir: tempfile::TempDir,
    events: PathBuf,
    log: Vec<Message>,
    toml: Option<PathBuf>,
    config: Value,
    instants: &'static [&'static str],
}

impl Case {
    fn new(log: Vec<Message>, setting: Option<(&str, Value)>, instants: &'static [&'static str]) -> Case {
        let dir = tempfile::tempdir_in(scratch()).unwrap();
        let events = write(dir.path(), "events.ndjson", history::ndjson(&log));
        let (toml, config) = setting.map_or((None, json!({})), |(toml, config)| (Some(toml), config));
        let toml = toml.map(|toml| write(dir.path(), "retentiond.toml", toml));
        Case { dir, events, log, toml, config, instants }
    }

    /// Compares the figures of `replay`; returns how many were compared.
    fn compare_replay(&self, oracle: &Oracle, parts: &[&str]) -> u64 {
        compare(oracle, &self.events, self.toml.as_deref(), &self.config, parts, self.instants)
    }

    /// Compares the figures of a worker that reads the messages in arrival order.
    fn compare_log(&self, oracle: &Oracle, parts: &[&str]) -> u64 {
        let expected = oracle.oracle(&self.events, &self.config, parts, self.instants);
        let settings = log::settings(self.toml.as_deref());
        let said = |reach, instants| -> Value {
            let said = log::of_log(&self.log, 1, &settings, reach, instants);
            said.iter().map(|text| serde_json::from_str::<Value>(text).unwrap()).collect()
        };
        // A daemon does not keep its whole past, so this compares figures as of the end of the log and later.
        let since_the_end = self.instants.len() - 2;
        let last = Value::Array(expected.as_array().unwrap()[since_the_end..].to_vec());
        oracle.compare(&last, &said(Reach::Daemon, &self.instants[since_the_end..]))
            + oracle.compare(&expected, &said(Reach::Beginning, self.instants))
    }

    fn equals_sql_sorted_and_as_it_comes(&self) {
        let Some(oracle) = oracle::find_or_skip() else { return };
        for compared in [self.compare_replay(oracle, &PARTS), self.compare_log(oracle, &PARTS)] {
            assert!(compared > 5_000, "{compared} figures were compared");
        }
    }
}

/// Compares the figures of `replay` at every instant; returns how many were compared.
fn compare(
    oracle: &Oracle,
    events: &Path,
    toml: Option<&Path>,
    config: &Value,
    parts: &[&str],
    instants: &[&str],
) -> u64 {
    let expected = oracle.oracle(events, config, parts, instants);
    let found: Vec<Value> = instants.iter().map(|as_of| cli::replay(&[events], toml, Some(as_of))).collect();
    oracle.compare(&expected, &Value::Array(found))
}

fn compare_cdnow(sales: &[Sale]) {
    let Some(oracle) = oracle::find_or_skip() else { return };
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let events = write(dir.path(), "cdnow.csv", history::csv(sales));
    let config = json!({"dimensions": []});
    let compared = compare(oracle, &events, None, &config, &PARTS, &CDNOW_INSTANTS);
    assert!(compared > 5_000, "{compared} figures were compared");
}

#[test]
fn cdnow_master_equals_sql() {
    let sales = history::cdnow_master();
    assert_eq!(sales.len(), 69_659);
    compare_cdnow(&sales);
}

#[test]
fn cdnow_sample_equals_sql() {
    let sales = history::cdnow_sample();
    assert_eq!(sales.len(), 6_919);
    compare_cdnow(&sales);
}

const DIMENSIONS_TOML: &str = "
[customers]
dimensions = { channel = [\"web\", \"app\"], country = [] }
active_for = \"60d\"
loyal_orders = 3
";

fn dimensions_config() -> Value {
    json!({"dimensions": {"channel": ["web", "app"], "country": null}, "active_for_ms": 60 * DAY, "loyal_orders": 3})
}

#[test]
fn disorder_and_duplicates_change_nothing_in_the_sample() {
    let log = history::disorder(&history::cdnow_sample(), 0);
    Case::new(log, Some((DIMENSIONS_TOML, dimensions_config())), &CDNOW_INSTANTS).equals_sql_sorted_and_as_it_comes();
}

#[test]
fn disorder_and_duplicates_change_nothing_in_the_master() {
    let sales = history::cdnow_master();
    let log = history::disorder(&sales, 0);
    assert!(log.len() > sales.len() * 5 / 4, "few copies among {} messages", log.len());
    let case = Case::new(log, Some((DIMENSIONS_TOML, dimensions_config())), &CDNOW_INSTANTS);
    case.equals_sql_sorted_and_as_it_comes();
    let last = cli::replay(&[&case.events], case.toml.as_deref(), Some("1998-07-01T23:59:59.999Z"));
    let year = last["windows"].as_array().unwrap().iter().find(|window| window["window"] == "365d").unwrap();
    assert!(year["orders"].as_i64().unwrap() < 69_659, "no copy counts");
}

#[test]
fn a_day_that_never_was_and_a_leap_day_equal_sql() {
    let sales = history::cdnow_sample();
    let log = history::disorder(&sales, FOURTEEN_YEARS);
    for day in ["2011-12-29T", "2011-12-30T", "2011-12-31T", "2012-02-29T"] {
        let happened = |message: &Message| message.payload.as_ref().unwrap().contains(&format!("\"time\":\"{day}"));
        assert!(log.iter().any(happened), "no order on {day}");
    }
    let toml = format!("{DIMENSIONS_TOML}\n[time]\nzone = \"Pacific/Apia\"\n");
    let mut config = dimensions_config();
    config["zone"] = json!("Pacific/Apia");
    Case::new(log, Some((&toml, config)), &SAMOAN_INSTANTS).equals_sql_sorted_and_as_it_comes();
}

/// Sixteen months of a small shop with everything that the simulation offers, most of it more often than is realistic.
fn shop_log() -> Vec<Message> {
    let start = Time::parse("2023-02-10T00:00:00Z").unwrap();
    let settings = ShopSettings {
        seed: 11,
        start,
        initial_customers: 400,
        customers_per_day: 4.0,
        // Often within a day of the previous order, so that late orders precede others.
        buying: Buying { days_between_orders: 8.0, rate_shape: 0.6, ..Buying::default() },
        referrals: 0.3,
        complaints: 0.15,
        win_backs: 0.3,
        erasures: 0.2,
        duplicates: 0.05,
        late: 0.2,
        too_late: 0.0,
        refunds: 0.15,
        cancellations: 0.1,
        ..ShopSettings::default()
    };
    with_reversed_refunds(history::shop_log(settings, start.plus(490 * DAY)))
}

/// The messages with one refund in four failing at once.
fn with_reversed_refunds(log: Vec<Message>) -> Vec<Message> {
    let mut refunds = 0;
    let reversed = |message: &Message| {
        let payload = message.payload.as_ref()?;
        refunds += usize::from(payload.contains(r#""type":"refund""#));
        let is_one = payload.contains(r#""type":"refund""#) && refunds % 4 == 0;
        let payload = payload.replace(r#""type":"refund""#, r#""type":"refund","reversed":true"#);
        is_one.then(|| Message { key: message.key.clone(), payload: Some(payload) })
    };
    let more: Vec<_> = log.iter().map(reversed).collect();
    log.into_iter().zip(more).flat_map(|(message, more)| [Some(message), more]).flatten().collect()
}

/// The panes of the shortest window are not its default, a minute: complete histories with panes of a minute, for every
/// value of a dimension, in seven engines at once, would take 14 GiB.
const SHOP_TOML: &str = r#"
[customers]
dimensions = { channel = ["web", "app"], country = [] }
active_for = "40d"
at_risk_cadence = 1.5
loyal_orders = 4
[time]
zone = "America/New_York"
history_whole = true
[clv]
window = "28d"
[[windows]]
name = "6h"
period = "6h"
active_for = "3d"
resolution = "15m"
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
name = "week"
active_for = "20d"
[[calendar]]
name = "month"
active_for = "31d"
[[calendar]]
name = "quarter"
active_for = "period"
[[calendar]]
name = "year"
active_for = "366d"
"#;

fn shop_config() -> Value {
    json!({
        "dimensions": {"channel": ["web", "app"], "country": null},
        "active_for_ms": 40 * DAY,
        "at_risk_cadence": 1.5,
        "loyal_orders": 4,
        "zone": "America/New_York",
        "history_whole": true,
        "clv_window": "28d",
        "windows": [
            {"name": "6h", "period_ms": DAY / 4, "active_for_ms": 3 * DAY, "resolution_ms": DAY / 96},
            {"name": "10d", "period_ms": 10 * DAY, "active_for_ms": 45 * DAY, "resolution_ms": DAY / 24},
            {"name": "28d", "period_ms": 28 * DAY, "active_for_ms": 28 * DAY},
            {"name": "90d", "period_ms": 90 * DAY, "active_for_ms": 200 * DAY, "resolution_ms": DAY},
        ],
        "calendar": [
            {"name": "week", "active_for_days": 20},
            {"name": "month", "active_for_days": 31},
            {"name": "quarter", "active_for": "period"},
            {"name": "year", "active_for_days": 366},
        ],
    })
}

fn shop_case() -> Case {
    Case::new(shop_log(), Some((SHOP_TOML, shop_config())), &SHOP_INSTANTS)
}

#[test]
fn a_shop_in_its_own_zone_and_windows_equals_sql() {
    let case = shop_case();
    let text = history::ndjson(&case.log);
    let values = |field: &str| -> BTreeSet<String> {
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter_map(|event| Some(event[field].as_str()?.to_owned())).collect()
    };
    let types = values("type");
    assert!(text.contains(r#""reversed":true"#), "the history has no reversed refund");
    for needed in ["order", "refund", "cancel", "session", "customer", "feedback", "cost", "erase"] {
        assert!(types.contains(needed), "the history has no {needed}: {types:?}");
    }
    let currencies = values("currency");
    assert!(["JPY", "KWD", "EUR"].iter().all(|code| currencies.contains(*code)), "{currencies:?}");
    case.equals_sql_sorted_and_as_it_comes();
}

// Further figures, each in a test of its own -------------------------------------------------------------------------

/// At the last event and later: there the gaps of the last day before T - `allowed_lateness` become final one by one.
#[test]
fn distributions_equal_sql() {
    const SINCE_THE_END: [&str; 5] = [
        "2024-06-14T00:00:00Z",
        "2024-06-14T12:34:56Z",
        "2024-06-14T23:59:59.999Z",
        "2024-06-15T00:00:00Z",
        "2026-01-01T00:00:00Z",
    ];
    let Some(oracle) = oracle::find_or_skip() else { return };
    let case = Case { instants: &SINCE_THE_END, ..shop_case() };
    for compared in [case.compare_replay(oracle, &["distributions"]), case.compare_log(oracle, &["distributions"])] {
        assert!(compared > 100, "{compared} figures were compared");
    }
}

/// Rates that change within the history, on a leap day, for currencies with no, two and three decimals; some of the
/// currencies have no rate, and one has none at first.
#[test]
fn the_reporting_currency_equals_sql() {
    let rates = [
        ("2023-01-01", "USD", "0.9234567"),
        ("2023-03-12", "USD", "0.93"),
        ("2024-02-29", "USD", "0.9199999999999999"),
        ("2023-01-01", "JPY", "0.00625"),
        ("2023-11-05", "JPY", "0.006149"),
        ("2023-01-01", "KWD", "3.03"),
        ("2023-06-15", "NOK", "0.0855"),
    ];
    let case = shop_case();
    let lines: String = rates.iter().map(|(day, currency, rate)| format!("{day},{currency},{rate}\n")).collect();
    let file = write(case.dir.path(), "rates.csv", format!("date,currency,rate\n{lines}"));
    let toml = format!("{SHOP_TOML}\n[currency]\nreporting = \"EUR\"\nrates_file = \"{}\"\n", file.display());
    let toml = write(case.dir.path(), "reporting.toml", toml);
    let mut config = shop_config();
    config["reporting"] = json!("EUR");
    config["rates"] = json!(rates);
    let Some(oracle) = oracle::find_or_skip() else { return };
    let case = Case { toml: Some(toml), config, ..case };
    for compared in [case.compare_replay(oracle, &PARTS), case.compare_log(oracle, &PARTS)] {
        assert!(compared > 5_000, "{compared} figures were compared");
    }
}

/// The case with `customers.merge_orders_within = "1d"`.
fn merging(case: Case, toml: &str) -> Case {
    let toml = toml.replacen("[customers]", "[customers]\nmerge_orders_within = \"1d\"", 1);
    let toml = write(case.dir.path(), "merging.toml", toml);
    let mut config = case.config.clone();
    config["merge_orders"] = json!(true);
    Case { toml: Some(toml), config, ..case }
}

#[test]
fn orders_of_a_day_that_are_one_equal_sql_in_cdnow() {
    let log = history::disorder(&history::cdnow_master(), 0);
    let case = Case::new(log, Some((DIMENSIONS_TOML, dimensions_config())), &CDNOW_INSTANTS);
    let apart = cli::replay(&[&case.events], case.toml.as_deref(), Some("1998-07-01T23:59:59.999Z"));
    let case = merging(case, DIMENSIONS_TOML);
    let merged = cli::replay(&[&case.events], case.toml.as_deref(), Some("1998-07-01T23:59:59.999Z"));
    let orders = |said: &Value| said["windows"][3]["orders"].as_i64().unwrap();
    assert!(orders(&merged) < orders(&apart), "CDNOW has customers with several orders on one day");
    case.equals_sql_sorted_and_as_it_comes();
}

#[test]
fn orders_of_a_day_that_are_one_equal_sql_in_a_shop() {
    let case = merging(shop_case(), SHOP_TOML);
    case.equals_sql_sorted_and_as_it_comes();
    let Some(oracle) = oracle::find_or_skip() else { return };
    let since_the_end = Case { instants: &["2024-06-14T12:34:56Z", "2026-01-01T00:00:00Z"], ..case };
    for compared in [
        since_the_end.compare_replay(oracle, &["distributions"]),
        since_the_end.compare_log(oracle, &["distributions"]),
    ] {
        assert!(compared > 40, "{compared} figures were compared");
    }
}

// Partitions ---------------------------------------------------------------------------------------------------------

/// However a log is split over partitions, and whether it is sorted or in arrival order, the figures are exactly equal.
fn adds_up(case: &Case) {
    let settings = log::settings(case.toml.as_deref());
    let sorted = |partitions| log::of_histories(&case.log, partitions, &settings, case.instants);
    let as_it_comes = |partitions| log::of_log(&case.log, partitions, &settings, Reach::Beginning, case.instants);
    let whole = sorted(1);
    assert!(whole.iter().any(|said| said.len() > 10_000), "the summaries say little");
    for partitions in [1, 2, 7] {
        let (sorted, as_it_comes) = (sorted(partitions), as_it_comes(partitions));
        for (place, instant) in case.instants.iter().enumerate() {
            same(&sorted[place], &whole[place], &format!("{partitions} histories as of {instant}"));
            same(&as_it_comes[place], &whole[place], &format!("{partitions} partitions as of {instant}"));
        }
    }
}

/// Panics with the text around the first difference of two texts.
fn same(said: &str, expected: &str, what: &str) {
    if let Some(at) = said.bytes().zip(expected.bytes()).position(|(one, other)| one != other) {
        let around = |text: &str| text[at.saturating_sub(300)..text.len().min(at + 100)].to_owned();
        panic!("{what} say at byte {at}:\n{}\ninstead of\n{}", around(said), around(expected));
    }
    assert_eq!(said.len(), expected.len(), "{what} say more or less");
}

#[test]
fn partitions_of_cdnow_add_up() {
    let log = history::disorder(&history::cdnow_master(), 0);
    adds_up(&Case::new(log, Some((DIMENSIONS_TOML, json!({}))), &CDNOW_INSTANTS));
}

#[test]
fn partitions_of_a_shop_add_up() {
    adds_up(&shop_case());
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
