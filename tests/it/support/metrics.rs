//! Parses `/metrics`, and compares them with a summary.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Every sample by its series, with labels in alphabetical order, such as
/// `retentiond_events_total{topic="orders",type="order"}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads Prometheus' text format without timestamps.
    pub fn parse(text: &str) -> Metrics {
        let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            (sorted_labels(series), value)
        });
        Metrics(samples.collect())
    }

    /// The value of a series.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// All nonzero series of a metric, by their labels in braces.
    pub fn nonzero(&self, metric: &str) -> BTreeMap<String, f64> {
        let labelled = |(series, value): (&String, &f64)| {
            let labels = series.strip_prefix(metric)?.strip_prefix('{')?.strip_suffix('}')?;
            (*value != 0.0).then(|| (labels.to_owned(), *value))
        };
        self.0.iter().filter_map(labelled).collect()
    }

    /// Panics unless the metrics of all windows match the summary exactly; returns how many values were compared.
    pub fn assert_equal(&self, summary: &Value) -> usize {
        let mut expected = BTreeMap::new();
        for (name, window) in shown(summary) {
            let object = window.as_object().expect("a window is an object");
            for (figure, value) in object.iter().filter(|(figure, _)| !BESIDE.contains(&figure.as_str())) {
                if let Some(number) = number(value) {
                    expected.insert(format!("retentiond_window_{figure}{{window=\"{name}\"}}"), number);
                }
            }
            for (currency, money) in object["currencies"].as_object().expect("currencies are an object") {
                for (figure, value) in money.as_object().expect("money is an object") {
                    let figure = if figure == "orders" { "currency_orders" } else { figure };
                    if let Some(number) = number(value) {
                        let labels = format!("{{currency=\"{currency}\",window=\"{name}\"}}");
                        expected.insert(format!("retentiond_window_{figure}{labels}"), number);
                    }
                }
            }
        }
        let found = self.0.iter().filter(|(series, _)| series.starts_with("retentiond_window_"));
        let found: BTreeMap<String, f64> = found.map(|(series, value)| (series.clone(), *value)).collect();
        let series: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
        let differ = |series: &&&String| match (expected.get(**series), found.get(**series)) {
            (Some(one), Some(other)) => (one - other).abs() > 1e-9 * one.abs(),
            _ => true,
        };
        let differing: Vec<String> = series.iter().filter(differ).map(|series| (**series).clone()).collect();
        let list = differing.iter().map(|series| (series, expected.get(series), found.get(series)));
        assert!(differing.is_empty(), "metrics differ from the summary: {:#?}", list.collect::<Vec<_>>());
        expected.len()
    }
}

/// Fields of a window that are not metrics.
const BESIDE: [&str; 8] =
    ["window", "from", "to", "closed", "period_seconds", "active_for_seconds", "lifespan_seconds", "currencies"];

/// The windows that are exported as metrics: the rolling ones, and the open and the last closed period of each calendar
/// window.
fn shown(summary: &Value) -> BTreeMap<String, &Value> {
    let list = |name: &str| summary[name].as_array().unwrap_or_else(|| panic!("no {name} in {summary}")).iter();
    let name = |window: &Value| window["window"].as_str().expect("a window has a name").to_owned();
    let rolling = list("windows").map(|window| (name(window), window));
    // Oldest first, so that the last of a kind wins.
    let calendar = list("calendar").map(|period| {
        let suffix = if period["closed"] == true { "_previous" } else { "" };
        (name(period) + suffix, period)
    });
    rolling.chain(calendar).collect()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(holds) => Some(f64::from(u8::from(*holds))),
        Value::String(decimal) => Some(decimal.parse().unwrap_or_else(|_| panic!("no decimal: {decimal}"))),
        value => value.as_f64(),
    }
}

/// Sorts labels alphabetically; label values contain no commas.
fn sorted_labels(series: &str) -> String {
    let Some((name, labels)) = series.trim_end_matches('}').split_once('{') else { return series.to_owned() };
    let labels: BTreeSet<&str> = labels.split(',').collect();
    format!("{name}{{{}}}", labels.into_iter().collect::<Vec<_>>().join(","))
}
