//! The reporting currency, from the configuration to the output.

use serde_json::json;

use super::{assert_holds, assert_refused, validate};
use crate::support::cli::{Said, run};
use crate::support::history::write;
use crate::support::scratch;

/// In Oslo, bob's order is in February, at the rate 0.5; dee's currency has no rate, and eve's has none on that day.
const EVENTS: &str = r#"
{"type":"order","customer_id":"eve","time":"2025-12-31T12:00:00Z","amount":"1.00","currency":"USD"}
{"type":"order","customer_id":"ada","time":"2026-01-05T10:00:00Z","amount":"10.00","currency":"EUR","order_id":"1"}
{"type":"order","customer_id":"bob","time":"2026-01-31T23:30:00Z","amount":"20.01","currency":"USD","attributes":{"channel":"web"}}
{"type":"refund","customer_id":"bob","time":"2026-02-02T10:00:00Z","amount":"3.00","currency":"USD"}
{"type":"order","customer_id":"cyd","time":"2026-02-03T10:00:00Z","amount":"500","currency":"JPY","attributes":{"channel":"web"}}
{"type":"order","customer_id":"dee","time":"2026-02-04T10:00:00Z","amount":"7.00","currency":"CHF"}
{"type":"cancel","customer_id":"ada","time":"2026-02-05T10:00:00Z","amount":"10.00","currency":"EUR","order_id":"1"}
"#;

const RATES: &str = "date,currency,rate\n2026-02-01,USD,0.5\n2026-01-01,USD,0.9\n2026-01-01,JPY,0.0061\n";

fn config(rates: &std::path::Path) -> String {
    format!(
        "[time]\nzone = \"Europe/Oslo\"\n[customers]\ndimensions = [\"channel\"]\n\
         [currency]\nreporting = \"EUR\"\nrates_file = {rates:?}\n"
    )
}

#[test]
fn every_amount_stands_once_more_in_the_reporting_currency() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let (events, rates) = (write(dir.path(), "events.ndjson", EVENTS), write(dir.path(), "rates.csv", RATES));
    let toml = write(dir.path(), "retentiond.toml", config(&rates));
    let replay = |format: &str| -> Said {
        let said = run([
            "replay".as_ref(),
            events.as_os_str(),
            "--format".as_ref(),
            format.as_ref(),
            "--config".as_ref(),
            toml.as_os_str(),
        ]);
        assert_eq!(said.code, Some(0), "{said:?}");
        said
    };
    let said = replay("json");
    for missing in ["1 amount(s) in CHF have no rate", "1 amount(s) in USD have no rate"] {
        assert!(said.stderr.contains(missing), "{}", said.stderr);
    }
    let summary: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let reporting = json!({
        "orders": 3, "revenue": "23.06", "refunds": "1.50", "cancellations": "10.00",
        "average_order_value": "7.6866666667", "net_average_order_value": "3.8533333333",
    });
    let own = json!({
        "USD": {"orders": 2, "revenue": "21.01", "refunds": "3.00"}, "EUR": {"orders": 1, "revenue": "10.00"},
        "JPY": {"orders": 1, "revenue": "500"}, "CHF": {"orders": 1, "revenue": "7.00"},
    });
    let window = &summary["windows"][2];
    assert_holds(window, &json!({"window": "90d", "orders": 5, "currencies": own}));
    assert_holds(&window["currencies"]["reporting"], &reporting);
    let find = |list: &str, wanted: &dyn Fn(&serde_json::Value) -> bool| {
        let found = summary[list].as_array().unwrap().iter().find(|entry| wanted(entry));
        found.unwrap_or_else(|| panic!("not in {list} of {summary}")).clone()
    };
    let february = find("calendar", &|period| period["from"] == "2026-02-01" && period["window"] == "month");
    assert_holds(&february["currencies"]["reporting"], &json!({"orders": 2, "revenue": "13.06"}));
    let web = find("segments", &|segment| segment["value"] == "web" && segment["window"] == "90d");
    assert_holds(&web["currencies"]["reporting"], &json!({"orders": 2, "revenue": "13.06", "refunds": "1.50"}));
    let cohort = find("cohorts", &|cell| cell["cohort"] == "2026-02" && cell["age_months"] == 0);
    assert_holds(&cohort, &json!({"orders": 3, "currencies": {"reporting": {"revenue": "13.06"}}}));

    assert!(replay("table").stdout.contains("revenue reporting"), "in the table");
    let metric = "retentiond_window_revenue{window=\"90d\",currency=\"reporting\"} 23.06 ";
    assert!(replay("openmetrics").stdout.contains(metric), "among the metrics");
}

#[test]
fn mistakes_around_the_reporting_currency_are_named() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let rates = write(dir.path(), "rates.csv", RATES);
    let toml = write(dir.path(), "retentiond.toml", config(&rates));
    let printed = run(["config".as_ref(), "--config".as_ref(), toml.as_os_str()]).stdout;
    assert!(printed.contains("[currency]\nreporting = \"EUR\"\nrates_file = "), "{printed}");
    assert_eq!(validate(&printed).code, Some(0), "{printed}");

    let header = write(dir.path(), "header.csv", "currency,rate\nUSD,1\n");
    assert_refused(&validate(&config(&header)), 78, &["header.csv, line 1: ", "write \"date,currency,rate\""]);
    let lines = "date,currency,rate\n2026-01-01,USD,1\n2026-01-01,USD,1\n2026-01-01,XYZ,1\n2026-01-02,USD,0\n";
    let words =
        ["lines.csv, line 3: USD of 2026-01-01 stands on line 2", "line 4: currency \"XYZ\"", "line 5: rate \"0\" is"];
    let lines = write(dir.path(), "lines.csv", lines);
    assert_refused(&validate(&config(&lines)), 78, &words);
    let toml = write(dir.path(), "lines.toml", config(&lines));
    for verb in ["run", "config"] {
        assert_refused(&run([verb.as_ref(), "--config".as_ref(), toml.as_os_str()]), 78, &words);
    }
    assert_refused(&validate("[currency]\nreporting = \"EUR\"\n"), 78, &["currency.rates_file: is missing"]);
    let alone = format!("[currency]\nrates_file = {rates:?}\n");
    assert_refused(&validate(&alone), 78, &["currency.reporting: is missing"]);
}
