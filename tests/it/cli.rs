//! Each verb without a Kafka broker, and its error messages.

mod as_of;
mod currency;
mod exports;
mod files;
mod notify;
mod openmetrics;

use std::path::Path;
use std::time::Duration;

use crate::support::cli::{Said, replay, run};
use crate::support::daemon::Launch;
use crate::support::history::write;
use crate::support::{free_port, scratch};
use serde_json::{Value, json};

const VERBS: [&str; 6] = ["demo", "run", "replay", "simulate", "validate", "config"];

/// Panics unless the verb ended with `code` and printed all of `words` on standard error.
fn assert_refused(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, Some(code), "{said:?}");
    for word in words {
        assert!(said.stderr.contains(word), "{word:?} in {}", said.stderr);
    }
    assert_eq!(said.stdout, "", "what went wrong goes to standard error");
}

fn validate(toml: &str) -> Said {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let file = write(dir.path(), "retentiond.toml", toml);
    run(["validate".as_ref(), "--config".as_ref(), file.as_os_str()])
}

#[test]
fn every_verb_explains_itself() {
    let all = run(["--help"]);
    assert_eq!(all.code, Some(0));
    for verb in VERBS {
        assert!(all.stdout.contains(&format!("\n  {verb} ")), "{verb} in {}", all.stdout);
        let said = run([verb, "--help"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.stdout.contains(&format!("Usage: retentiond {verb}")), "{}", said.stdout);
    }
    assert_eq!(run([] as [&str; 0]).code, Some(2), "without a verb there is help, and no success");
    assert_eq!(run(["replya"]).code, Some(2));
    assert!(run(["--version"]).stdout.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_sound_configuration_is_valid_and_prints_as_one() {
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/retentiond.toml");
    let said = run(["validate", "--config", reference]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    assert!(said.stdout.contains("is valid"), "{}", said.stdout);
    assert_eq!(run(["validate"]).code, Some(0), "the defaults are valid");

    let config = |file: &Path| {
        let printed = run(["config".as_ref(), "--config".as_ref(), file.as_os_str()]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        printed.stdout
    };
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let own = write(dir.path(), "own.toml", "[time]\nzone = \"Europe/Oslo\"\n");
    for file in [Path::new(reference), &own] {
        let printed = config(file);
        let said = validate(&printed);
        assert_eq!(said.code, Some(0), "{said:?} for {printed}");
    }
    assert!(config(&own).contains("zone = \"Europe/Oslo\""));

    let said = validate("[kafka]\nmissing_topics = \"exit\"\n");
    assert_eq!(said.code, Some(0), "a key of an earlier version is no mistake: {said:?}");
    assert!(said.stderr.contains("line 2: kafka.missing_topics: does nothing any more"), "{said:?}");

    let secret = write(dir.path(), "secret.toml", "[kafka.options]\n\"sasl.password\" = \"open sesame\"\n");
    let printed = config(&secret);
    assert!(!printed.contains("sesame"), "{printed}");
    assert_refused(&validate(&printed), 78, &["sasl.password", "stands for a secret in print"]);
}

#[test]
fn every_mistake_of_a_configuration_is_named() {
    let said = validate(
        r#"
[kafka]
broker = "localhost:9092"
[kafka.options]
"enable.auto.commit" = "true"
"fetch.min.bytes" = "many"
"fetch.minimum" = 5
"ssl.key.location" = "/nowhere/key.pem"
[clv]
window = "forty"
[currency]
rates_file = "/nowhere/rates.csv"
[customers]
active_for = "5"
allowed_lateness = "9d"
[[windows]]
name = "short"
period = "7d"
active_for = "1d"
[time]
zone = "Mars/Olympus"
"#,
    );
    let words = [
        "kafka.broker: is no setting; did you mean \"brokers\"?",
        "enable.auto.commit",
        "kafka.options.\"fetch.min.bytes\": is wrong: ",
        "kafka.options.\"fetch.minimum\": is wrong: ",
        "kafka.options.\"ssl.key.location\": cannot read \"/nowhere/key.pem\"",
        "clv.window: \"forty\" is no window",
        "currency.reporting: is missing",
        "currency.rates_file: cannot read \"/nowhere/rates.csv\"",
        "customers.active_for: \"5\" is no duration",
        "customers.dedup_for",
        "windows[0].active_for",
        "time.zone: \"Mars/Olympus\"",
    ];
    assert_refused(&said, 78, &words);
    assert_refused(&validate("[kafka\n"), 78, &["retentiond.toml"]);
    assert_refused(&run(["validate", "--config", "/nowhere/retentiond.toml"]), 78, &["/nowhere/retentiond.toml"]);
    assert_refused(&run(["run", "--config", "/nowhere/retentiond.toml"]), 78, &["/nowhere/retentiond.toml"]);
}

#[test]
fn replay_says_what_it_cannot_read() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let refuses = |name: &str, text: &[u8], words: &[&str]| {
        let file = write(dir.path(), name, text);
        let said = run(["replay".as_ref(), file.as_os_str()]);
        assert_refused(&said, 1, words);
    };
    refuses(
        "short.csv",
        b"customer_id,time,amount\nc,2026-01-01T00:00:00Z,1\n",
        &["short.csv", "lacks the column currency"],
    );
    refuses("empty.csv", b"", &["empty.csv is empty", "no event in 0 line(s)"]);
    refuses("header.csv", b"customer_id,time,amount,currency\n", &["no event in 1 line(s)"]);
    refuses("empty.ndjson", b"", &["no event in 0 line(s)"]);
    refuses("bad.ndjson", b"{\n\xff\n7\n", &["bad.ndjson, line 1", "3 of 3 line(s) were rejected", "no event"]);
    refuses("broken.csv.gz", b"no gzip", &["broken.csv.gz"]);
    refuses("broken.csv.zst", b"no zstd", &["broken.csv.zst"]);
    assert_refused(&run(["replay", "/nowhere/orders.csv"]), 1, &["/nowhere/orders.csv: cannot be read"]);
    assert_refused(&run(["replay"]), 2, &["<FILE>"]);
    assert_refused(&run(["replay", "a.csv", "--as-of", "yesterday"]), 2, &["not an RFC 3339 time"]);
}

/// Six lines after a header; the last is a duplicate with different content.
const ORDERS: &str = "\
order_id,customer_id,time,amount,currency,channel
1,ada,2026-01-05T10:00:00Z,10.00,EUR,web
2,bob,2026-01-10T10:00:00Z,20,EUR,app
3,ada,2026-02-20T10:00:00Z,30.00,EUR,web
4,cyd,2026-02-25T10:00:00Z,500,JPY,web
5,ada,2026-03-01T10:00:00+00:00,5.5,EUR,
5,ada,2026-03-02T10:00:00Z,99.99,EUR,web
";

/// Panics unless `found` has all keys of `expected`, with equal values.
fn assert_holds(found: &Value, expected: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        if value.is_object() {
            assert_holds(&found[key], value);
        } else {
            assert_eq!(found.get(key), Some(value), "{key} in {found}");
        }
    }
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

const FIGURES: [&str; 31] = [
    "active_for_seconds",
    "churn_ratio",
    "complete",
    "conversion_ratio",
    "cost_coverage_ratio",
    "costed_customers",
    "crr_ratio",
    "currencies",
    "customers_to_date",
    "end_customers",
    "lifespan_seconds",
    "lost_complainer_ratio",
    "lost_complainers",
    "lost_customers",
    "new_complete",
    "new_customers",
    "ordering_customers",
    "orders",
    "purchase_frequency",
    "reactivated_customers",
    "referral_ratio",
    "referred_customers",
    "repeat_customers",
    "repeat_ratio",
    "retained_customers",
    "retention_ratio",
    "returning_customers",
    "returning_ratio",
    "sessions",
    "start_customers",
    "visiting_customers",
];

const MONEY: [&str; 10] = [
    "acquisition_costs",
    "average_order_value",
    "cancellations",
    "clv",
    "clv_after_costs",
    "net_average_order_value",
    "orders",
    "refunds",
    "retention_costs",
    "revenue",
];

/// The names of the figures and some more, in alphabetical order.
fn figures_and(more: &[&'static str]) -> Vec<&'static str> {
    let mut names = [&FIGURES, more].concat();
    names.sort_unstable();
    names
}

#[test]
fn replay_prints_the_figures_of_a_small_history() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let file = write(dir.path(), "orders.csv", ORDERS);
    let summary = replay(&[&file], None, None);
    assert_eq!(summary["as_of"], "2026-03-01T10:00:00.000Z", "the last event that counts");
    let windows = summary["windows"].as_array().unwrap();
    let names: Vec<&Value> = windows.iter().map(|window| &window["window"]).collect();
    assert_eq!(names, ["7d", "30d", "90d", "365d"]);
    for window in windows {
        assert_eq!(keys(window), figures_and(&["period_seconds", "window"]));
        window["currencies"].as_object().unwrap().values().for_each(|money| assert_eq!(keys(money), MONEY));
    }
    // (30 January, 1 March]: ada and bob were active before it, cyd is new, ada ordered twice.
    assert_holds(
        &windows[1],
        &json!({
            "period_seconds": 2_592_000, "active_for_seconds": 7_776_000,
            "start_customers": 2, "end_customers": 3, "new_customers": 1, "lost_customers": 0,
            "retained_customers": 2, "reactivated_customers": 0, "ordering_customers": 2, "repeat_customers": 1,
            "returning_customers": 1, "visiting_customers": 0, "orders": 3, "sessions": 0,
            "churn_ratio": 0.0, "retention_ratio": 1.0, "crr_ratio": 1.0, "repeat_ratio": 0.5,
            "returning_ratio": 0.5, "purchase_frequency": 1.5, "conversion_ratio": null,
            "lifespan_seconds": 55.0 * 86_400.0, "complete": false, "new_complete": false,
            "currencies": {
                "EUR": {
                    "orders": 2, "revenue": "35.50", "refunds": "0.00", "cancellations": "0.00",
                    "average_order_value": "17.75", "net_average_order_value": "17.75", "clv": null,
                },
                "JPY": {"orders": 1, "revenue": "500", "average_order_value": "500"},
            },
        }),
    );
    assert_holds(
        &windows[1],
        &json!({
            "referred_customers": 0, "referral_ratio": 0.0, "lost_complainers": 0, "lost_complainer_ratio": null,
            "customers_to_date": 3, "costed_customers": 0, "cost_coverage_ratio": 0.0,
            "currencies": {"EUR": {"acquisition_costs": "0.00", "retention_costs": "0.00", "clv_after_costs": null}},
        }),
    );
    assert_eq!((&summary["referrals"], &summary["feedback"]), (&json!(0), &json!([])));
    let calendar = summary["calendar"].as_array().unwrap();
    let periods: Vec<(&Value, &Value)> = calendar.iter().map(|period| (&period["window"], &period["from"])).collect();
    let listed = |window: &str, from: &str| periods.contains(&(&json!(window), &json!(from)));
    assert_eq!(periods.len(), 5, "three months, a quarter, a year: {periods:?}");
    assert!(listed("month", "2026-01-01") && listed("quarter", "2026-01-01") && listed("year", "2026-01-01"));
    for period in calendar {
        assert_eq!(keys(period), figures_and(&["closed", "from", "to", "window"]));
    }
    let march = calendar.iter().find(|period| period["from"] == "2026-03-01").unwrap();
    let expected = json!({
        "window": "month", "to": "2026-03-31", "closed": false, "start_customers": 3, "end_customers": 3,
        "ordering_customers": 1, "returning_customers": 1, "repeat_customers": 0, "orders": 1,
        "currencies": {"EUR": {"revenue": "5.50"}},
    });
    assert_holds(march, &expected);

    // The same as of an earlier instant, as a table, and from two files.
    assert_eq!(replay(&[&file], None, Some("2026-01-31T23:59:59Z"))["windows"][1]["orders"], 2);
    let table = run(["replay".as_ref(), file.as_os_str()]);
    assert_eq!(table.code, Some(0), "{table:?}");
    assert!(table.stdout.contains("30d") && table.stdout.contains("35.50"), "{}", table.stdout);
    let (header, rows) = ORDERS.split_once('\n').unwrap();
    let (early, late) = rows.split_at(rows.find("4,").unwrap());
    let halves =
        [early, late].map(|half| write(dir.path(), &format!("{}.csv", half.len()), format!("{header}\n{half}")));
    assert_eq!(replay(&[&halves[0], &halves[1]], None, None), summary);
}

#[test]
fn simulate_refuses_a_pace_that_is_none() {
    for rate in ["-5", "nan", "inf"] {
        assert_refused(&run(["simulate", &format!("--rate={rate}")]), 1, &["--rate is "]);
    }
    assert_refused(&run(["simulate", "--rate", "fast"]), 2, &["--rate"]);
    for share in ["-0.1", "1.5", "nan"] {
        assert_refused(&run(["simulate", &format!("--slump={share}")]), 1, &["--slump is ", "from 0 to 1"]);
    }
    assert_refused(&run(["simulate", "--option", "novalue"]), 2, &["NAME=VALUE"]);
}

#[test]
fn a_full_disk_or_a_limit_of_file_sizes_is_an_error_and_the_demo_names_its_own_option() {
    let program = env!("CARGO_BIN_EXE_retentiond");
    let shell = |line: &str| {
        let output = std::process::Command::new("sh").args(["-c", line, "sh", program]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = shell("exec \"$1\" config > /dev/full");
    assert!(code == Some(74) && said.contains("cannot write to standard output"), "{code:?}: {said}");
    let file = scratch().join(crate::support::unique("limited"));
    let (code, said) = shell(&format!("ulimit -f 1; exec \"$1\" config > {file:?}"));
    assert!(code == Some(74) && said.contains("File too large"), "{code:?}: {said}");
    assert_eq!(shell("\"$1\" config | head -n 1").0, Some(0), "a reader may go away");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let said = run(["demo", "--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("set --listen") && !said.stderr.contains("http.listen"), "{said:?}");
}

#[test]
fn the_demo_shows_a_shop_and_ends() {
    let port = free_port();
    let mut demo = Launch::verb("demo")
        .arg("--seconds")
        .arg("30")
        .arg("--listen")
        .arg(format!("127.0.0.1:{port}"))
        .http_port(port)
        .start();
    demo.wait_ready(Duration::from_secs(28));
    let (status, page) = demo.get("/");
    assert!(status == 200 && page.contains("<html"), "{status}: {page}");
    let (status, metrics) = demo.get("/metrics");
    assert!(status == 200 && metrics.contains("retentiond_window_orders{window=\"30d\"}"), "{status}: {metrics}");
    assert_eq!(demo.get("/healthz").0, 200);
    demo.wait_for("orders", Duration::from_secs(11), |demo| {
        let summary = demo.get_json("/api/v1/summary");
        summary["windows"].as_array()?.iter().find(|window| window["orders"].as_i64() > Some(0)).map(|_| ())
    });
    let metrics = demo.get("/metrics").1;
    let has = |series: &str| metrics.lines().any(|line| line.starts_with(series));
    assert!(has("retentiond_window_revenue{window=\"30d\",currency=\"reporting\"} "), "{metrics}");
    assert!(has("retentiond_unconverted_total{currency=\"USD\"} 0"), "{metrics}");
    assert_eq!(demo.wait_exit(Duration::from_secs(30)).code(), Some(0), "{}", demo.stderr());
    let said = demo.stdout();
    assert!(said.contains(&format!("http://127.0.0.1:{port}/metrics")), "{said}");
    let figures = said.lines().filter(|line| line.starts_with("20") && line.contains(" %")).count();
    assert!(figures >= 2, "{figures} lines of figures in {said}");
}
