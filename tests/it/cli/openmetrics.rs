//! History for dashboards: `replay --series --format openmetrics`, imported into Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use retentiond::event::Time;
use serde_json::Value;

use super::{assert_refused, scratch, write};
use crate::support::cli::{replay, run};
use crate::support::history::{Sale, cdnow_master, cdnow_sample};
use crate::support::skip::{Need, Skip, or_skip};

const CONFIG: &str = r#"
[customers]
dimensions = ["half"]
[[windows]]
name = "7d"
period = "7d"
[[windows]]
name = "30d"
period = "30d"
[[calendar]]
name = "month"
"#;

/// CSV with a dimension that divides customers into odd and even; one of its values needs escaping.
fn csv(sales: &[Sale]) -> String {
    let row = |sale: &Sale| {
        let half = if sale.customer.ends_with(['1', '3', '5', '7', '9']) { r#""od""d\""# } else { "even" };
        format!("{},{},{},USD,{half}\n", sale.customer, sale.time(), sale.dollars)
    };
    "customer_id,time,amount,currency,half\n".to_owned() + &sales.iter().map(row).collect::<String>()
}

fn openmetrics(csv: &Path, toml: &Path, options: &[&str]) -> String {
    let mut args: Vec<&OsStr> = ["replay", "--series", "--format", "openmetrics", "--config"].map(OsStr::new).into();
    args.extend([toml.as_os_str(), csv.as_os_str()]);
    args.extend(options.iter().map(OsStr::new));
    let said = run(args);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.stdout
}

/// Timestamps and values by series. Panics unless the text is OpenMetrics 1.0: the samples of a family together after
/// its TYPE and HELP, within it those of each series together and sorted by time, and `# EOF` at the end.
fn parse(text: &str) -> BTreeMap<String, BTreeMap<i64, f64>> {
    let mut all = BTreeMap::<String, BTreeMap<i64, f64>>::new();
    let (mut families, mut family, mut last_series) = (BTreeSet::new(), "", "");
    let text = text.strip_suffix("\n# EOF\n").expect("# EOF at the end");
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            family = typed.strip_suffix(" gauge").expect("a gauge");
            assert!(families.insert(family), "{family} stands in two places");
        } else if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(help.starts_with(&format!("{family} ")), "{line} behind the type of {family}");
        } else {
            let [stamp, value, series] = line.rsplitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("no sample: {line}")
            };
            assert!(series.starts_with(&format!("{family}{{")), "{line} in {family}");
            let (second, value) = (stamp.parse::<i64>().expect("whole seconds"), value.parse().expect("a number"));
            let samples = all.entry(series.to_owned()).or_default();
            assert!(series == last_series || samples.is_empty(), "{series} stands in two places");
            assert!(samples.last_key_value().is_none_or(|(&last, _)| last < second), "{line}");
            samples.insert(second, value);
            last_series = series;
        }
    }
    all
}

fn seconds(time: &str) -> i64 {
    Time::parse(time).unwrap().millis() / 1000
}

#[test]
fn the_history_is_valid_and_as_fine_as_asked_for() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let csv = write(dir.path(), "cdnow.csv", csv(&cdnow_sample()));
    let toml = write(dir.path(), "retentiond.toml", CONFIG);
    let as_of = ["--as-of", "1997-03-04T12:34:56Z"];
    let of_day = |options: &[&str], series: &str| -> Vec<i64> {
        let text = openmetrics(&csv, &toml, &[options, &as_of].concat());
        let day = seconds("1997-03-01T00:00:00Z")..seconds("1997-03-02T00:00:00Z");
        parse(&text)[series].range(day.clone()).map(|(second, _)| second - day.start).collect()
    };
    let week = "retentiond_window_orders{window=\"7d\"}";
    let hours: Vec<i64> = (1..=24).map(|hour| hour * 3600 - 1).collect();
    let quarters: Vec<i64> = (1..=96).map(|quarter| quarter * 900 - 1).collect();
    assert_eq!(of_day(&[], week), hours, "one an hour unless told otherwise");
    assert_eq!(of_day(&["--step", "15m"], week), quarters);
    assert_eq!(of_day(&["--step", "1m"], week), quarters, "panes are not divided");
    assert_eq!(of_day(&["--step", "1d"], week), [86_399]);
    assert_eq!(of_day(&[], "retentiond_window_orders{window=\"month\"}"), [86_399], "long panes are printed each");
    let step = of_day(&["--step", "7h"], week);
    assert!(step.len() == 3 || step.len() == 4, "{step:?}");

    let text = openmetrics(&csv, &toml, &[&["--segments", "--label", "job=a\"b"][..], &as_of].concat());
    let samples = parse(&text);
    let last = |series: &str| samples[series].last_key_value().map(|(&second, &value)| (second, value)).unwrap();
    let labels = ",job=\"a\\\"b\"}";
    let of_half = |half: &str| {
        last(&format!("retentiond_segment_orders{{window=\"30d\",dimension=\"half\",value=\"{half}\"{labels}"))
    };
    let all = last(&format!("retentiond_window_orders{{window=\"30d\"{labels}"));
    let end = seconds("1997-03-04T12:34:56Z");
    assert_eq!(all.0, end, "the last pane is there however coarse the step, and is no sample of the future");
    assert_eq!(last(&format!("retentiond_window_orders{{window=\"month\"{labels}")).0, end, "of long panes neither");
    assert!(samples.values().all(|of_series| of_series.keys().all(|&second| second <= end)));
    let (odd, even) = (of_half("od\\\"d\\\\"), of_half("even"));
    assert_eq!((odd.0, even.0, odd.1 + even.1), (all.0, all.0, all.1), "two halves make the whole");

    let lines = run([
        "replay".as_ref(),
        csv.as_os_str(),
        "--series".as_ref(),
        "--format".as_ref(),
        "json".as_ref(),
        "--step".as_ref(),
        "1d".as_ref(),
        "--config".as_ref(),
        toml.as_os_str(),
    ]);
    let day = lines.stdout.lines().filter(|line| line.contains("\"7d\"") && line.contains("1997-03-01T")).count();
    assert_eq!(day, 1, "JSON lines follow --step too");
    assert_refused(&run(["replay", "a.csv", "--series", "--step", "0h"]), 2, &["write a span such as 15m"]);
    assert_refused(&run(["replay", "a.csv", "--step", "1h"]), 2, &["--series"]);
    for (label, why) in [("job", "write NAME=VALUE"), ("1=2", "letters"), ("window=a", "already have a label")] {
        assert_refused(&run(["replay", "a.csv", "--label", label]), 2, &[why]);
    }
}

fn find_promtool() -> Result<(), Skip> {
    let tried = Command::new("promtool").arg("--version").output();
    if tried.as_ref().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    Err(Skip {
        need: "needs promtool of Prometheus to import a history",
        because: tried.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stderr).into()),
        required_as: Need::Promtool,
    })
}

fn promtool(args: &[&OsStr]) -> String {
    let output = Command::new("promtool").args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "promtool {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Every sample at a second in a directory of blocks, by metric and labels (`window`, `currency` and so on, in this
/// order).
fn dump(blocks: &Path, second: i64) -> BTreeMap<String, f64> {
    let stamp = second * 1000;
    let (from, to) = (format!("--min-time={stamp}"), format!("--max-time={stamp}"));
    let text = promtool(
        &["tsdb", "dump", &from, &to].map(OsStr::new).into_iter().chain([blocks.as_os_str()]).collect::<Vec<_>>(),
    );
    let sample = |line: &str| {
        let [at, value, series] = line.rsplitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("no sample: {line}") };
        assert_eq!(at, stamp.to_string(), "{line}");
        (series.to_owned(), value.parse().expect("a number"))
    };
    text.lines().map(sample).collect()
}

/// For example `{__name__="retentiond_window_orders", job="shop", window="30d"}`.
fn series_of(figure: &str, currency: Option<&str>, window: &str) -> String {
    let currency = currency.map(|code| format!("currency=\"{code}\", ")).unwrap_or_default();
    format!("{{__name__=\"retentiond_window_{figure}\", {currency}job=\"shop\", window=\"{window}\"}}")
}

#[test]
fn prometheus_takes_the_history_over() {
    if or_skip(find_promtool()).is_none() {
        return;
    }
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let csv = write(dir.path(), "cdnow.csv", csv(&cdnow_master()));
    let toml = write(dir.path(), "retentiond.toml", CONFIG);
    let options = ["--step", "1d", "--segments", "--label", "job=shop"];
    let history = write(dir.path(), "history.om", openmetrics(&csv, &toml, &options));
    let blocks = dir.path().join("data");
    let import = ["tsdb", "create-blocks-from", "--max-block-duration=504h", "openmetrics"].map(OsStr::new);
    promtool(&[&import[..], &[history.as_os_str(), blocks.as_os_str()]].concat());
    let list = promtool(&["tsdb".as_ref(), "list".as_ref(), blocks.as_os_str()]);
    assert!(list.lines().count() > 20, "18 months in blocks of three weeks at most:\n{list}");

    // The last day of the data, as in the example of the README. The history ends with the last order.
    let last = dump(&blocks, seconds("1998-06-30T00:00:00Z"));
    assert_eq!(last[&series_of("start_customers", None, "30d")], 3612.0);
    assert_eq!(last[&series_of("lost_customers", None, "30d")], 949.0);
    assert_eq!(last[&series_of("churn_ratio", None, "30d")], 949.0 / 3612.0);
    assert_eq!(last[&series_of("revenue", Some("USD"), "30d")], 76_109.30);

    // In the middle of the data: exactly the figures that replay prints as of that second for these windows.
    for instant in ["1997-01-01T23:59:59Z", "1997-12-31T23:59:59Z"] {
        let summary = replay(&[&csv], Some(&toml), Some(instant));
        let mut found = dump(&blocks, seconds(instant));
        for window in summary["windows"].as_array().unwrap() {
            let name = window["window"].as_str().unwrap();
            for (figure, value) in window.as_object().unwrap() {
                if !["period_seconds", "active_for_seconds", "lifespan_seconds"].contains(&figure.as_str()) {
                    take(&mut found, series_of(figure, None, name), value);
                }
            }
            for (figure, value) in window["currencies"]["USD"].as_object().unwrap() {
                let figure = if figure == "orders" { "currency_orders" } else { figure };
                take(&mut found, series_of(figure, Some("USD"), name), value);
            }
        }
        found.retain(|series, _| series.contains("_window_") && !series.contains("window=\"month\""));
        assert_eq!(found, BTreeMap::new(), "as of {instant}");
    }
}

/// Removes the sample; panics unless it has the value that `replay` printed, or is absent for null.
fn take(found: &mut BTreeMap<String, f64>, series: String, expected: &Value) {
    let expected = match expected {
        Value::Bool(holds) => Some(f64::from(u8::from(*holds))),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.parse::<f64>() {
            Ok(amount) => Some(amount),
            Err(_) => return,
        },
        Value::Null => None,
        _ => return,
    };
    let sample = found.remove(&series);
    let near = |one: f64, other: f64| (one - other).abs() <= 1e-9 * other.abs();
    let equal = match (sample, expected) {
        (Some(sample), Some(expected)) => near(sample, expected),
        (sample, expected) => sample == expected,
    };
    assert!(equal, "{series}: {sample:?}, not {expected:?}");
}
