//! The quick start, from an empty Kafka to an alert: a simulated shop loses customers, the figures of the API and
//! Prometheus agree, every panel of every dashboard has data, and the churn spike reaches Alertmanager.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use retentiond::event::{DAY, Time, wall_clock};
use serde_json::Value;

use super::read;
use super::servers::{self, Servers};
use crate::support::cli::run;
use crate::support::daemon::{Daemon, Launch};
use crate::support::history::write;
use crate::support::kafka::{self, Broker};
use crate::support::skip::or_skip;
use crate::support::{free_port, poll_until, scratch, unique, wait_for};

const PATIENCE: Duration = Duration::from_secs(120);

/// A short `active_for`, as in the demo, so that customers who leave are lost within the simulated time.
fn config(broker: &Broker, orders: &str, sessions: &str, rates: &Path) -> String {
    format!(
        r#"
[kafka]
brokers = "{}"
group_id = "{}"
instance_id = "one"
[sources.orders]
topic = "{orders}"
[sources.sessions]
topic = "{sessions}"
clock = false
[dead_letters]
topic = "{}"
[customers]
dimensions = ["channel", "country"]
active_for = "30d"
[[windows]]
name = "7d"
period = "7d"
active_for = "30d"
[[windows]]
name = "30d"
period = "30d"
active_for = "30d"
[[inactivity]]
name = "lapsing"
after = "20d"
[alerts]
topic = "{}"
backfill = true
holdout = 0.2
[clv]
window = "30d"
[time]
history_whole = true
[currency]
reporting = "EUR"
rates_file = "{}"
[checkpoint]
interval = "1s"
"#,
        broker.brokers(),
        unique("retentiond"),
        unique("dead-letters"),
        unique("alerts"),
        rates.display()
    )
}

/// The contents of the topics, as lines of JSON.
fn ndjson(broker: &Broker, topics: [&str; 2]) -> String {
    let records = topics.into_iter().flat_map(|topic| broker.consume_all(topic));
    let lines = records.filter_map(|record| record.payload).map(|bytes| String::from_utf8(bytes).unwrap() + "\n");
    lines.collect()
}

/// The history up to an instant in OpenMetrics, with the labels of scraped samples.
fn openmetrics(events: &Path, config: &Path, until: Time) -> String {
    let as_of = until.to_string();
    let options = ["--series", "--format", "openmetrics", "--label", "job=retentiond", "--as-of", &as_of, "--config"];
    let paths = [config, events].map(Path::as_os_str);
    let said = run(["replay"].into_iter().chain(options).map(OsStr::new).chain(paths));
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.stdout
}

/// The churn of the window 7d in a history in OpenMetrics, under the name of the recording rule, so that the usual
/// level is known from the start.
fn as_recorded(history: &str) -> String {
    let lines = history.lines().filter(|line| line.starts_with("retentiond_window_churn_ratio{window=\"7d\""));
    let renamed = lines.map(|line| line.replace("retentiond_window_churn_ratio", RECORDED) + "\n");
    let text = format!("# TYPE {RECORDED} gauge\n") + &renamed.collect::<String>() + "# EOF\n";
    assert!(text.lines().count() > 24 * 28, "four weeks of hours:\n{text}");
    text
}

const RECORDED: &str = "job_window:retentiond_window_churn:ratio";

#[test]
fn a_simulated_churn_spike_arrives_at_alertmanager() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    if or_skip(servers::find()).is_none() {
        return;
    }
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let (orders, sessions) = (unique("orders"), unique("sessions"));
    let brokers = broker.brokers();
    let simulated = run([
        "simulate",
        "--brokers",
        &brokers,
        "--partitions",
        "4",
        "--rate",
        "0",
        "--customers",
        "1000",
        "--days",
        "150",
        "--slump",
        "0.8",
        "--slump-days",
        "30",
        "--orders",
        &orders,
        "--sessions",
        &sessions,
    ]);
    assert_eq!(simulated.code, Some(0), "{simulated:?}");

    let rates = write(dir.path(), "rates.csv", read("deploy/rates.csv"));
    let config = config(broker, &orders, &sessions, &rates);
    let events = write(dir.path(), "events.ndjson", ndjson(broker, [&orders, &sessions]));
    // Prometheus does not accept samples older than imported ones, so the import ends before the daemon starts.
    let until = wall_clock().plus(-DAY / 2);
    let toml = write(dir.path(), "retentiond.toml", &config);
    let history = as_recorded(&openmetrics(&events, &toml, until));
    broker.publish(&orders, [(None, Some("c-1"), Some("not JSON"))]);

    let mut daemon = Launch::verb("run").config(config).http_port(free_port()).start();
    daemon.wait_ready(PATIENCE);
    let servers = Servers::start(&daemon.http_addr(), &history);
    wait_for("all replicas together to be whole", PATIENCE, || {
        let whole = servers.query("job:retentiond_whole:bool == 1").ok()?;
        let usual = servers.query(&format!("{RECORDED}_usual{{window=\"7d\"}}")).ok()?;
        let dead_letters = servers.query("retentiond_dead_letters_total >= 1").ok()?;
        (!whole.is_empty() && !usual.is_empty() && !dead_letters.is_empty()).then_some(())
    });
    assert_recorded_equals_api(&servers, &daemon);
    assert_every_panel_has_data(&servers);
    assert_spike_arrives(&servers);
}

/// Every recorded sum and ratio of a window equals the figure of the API.
fn assert_recorded_equals_api(servers: &Servers, daemon: &Daemon) {
    let summary = daemon.get_json("/api/v1/summary");
    let windows = summary["windows"].as_array().unwrap();
    let recorded = servers.query("{__name__=~\"job_window:retentiond_window_.*:(sum|ratio)\"}").unwrap();
    let mut compared = BTreeSet::new();
    for (labels, value) in recorded {
        let (name, window) = (labels["__name__"].as_str().unwrap(), labels["window"].as_str().unwrap());
        let Some(figures) = windows.iter().find(|figures| figures["window"] == window) else { continue };
        let figure = name.trim_start_matches("job_window:retentiond_window_");
        let figure = match figure.split_once(':').unwrap() {
            ("purchase_frequency", "ratio") => "purchase_frequency".to_owned(),
            (part, "ratio") => format!("{part}_ratio"),
            (part, _) => part.to_owned(),
        };
        let expected = figures[&figure].as_f64().unwrap_or_else(|| panic!("{name}: no {figure} in {figures}"));
        assert!((value - expected).abs() <= 1e-9 * expected.abs(), "{name} of {window}: {value}, not {expected}");
        compared.insert((figure, window.to_owned()));
    }
    assert!(compared.len() >= 2 * 18, "only {} figures compared: {compared:?}", compared.len());
}

/// Runs every query of every panel, and every variable, as Grafana would.
fn assert_every_panel_has_data(servers: &Servers) {
    let mut empty = Vec::new();
    let mut asked = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/dashboards")).unwrap() {
        let path = entry.unwrap().path();
        let board: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let title = board["title"].as_str().unwrap();
        for query in queries(&board) {
            asked += 1;
            let answer = poll_until(Duration::from_secs(10), || {
                let answer = servers.query(&filled(&query));
                answer.as_ref().is_ok_and(|samples| !samples.is_empty()).then_some(())
            });
            if answer.is_none() {
                empty.push(format!("{title}: {query}: {:?}", servers.query(&filled(&query))));
            }
        }
    }
    assert!(empty.is_empty(), "{} of {asked} queries show nothing:\n{}", empty.len(), empty.join("\n"));
    assert!(asked > 80, "only {asked} queries found; does the search still work?");
}

/// The queries of the panels, and the metrics from which the variables choose.
fn queries(board: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let panels = board["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let variables = board["templating"]["list"].as_array().unwrap().iter();
    let chosen = variables.filter(|variable| variable["type"] == "query").map(|variable| {
        let query = text(&variable["query"]["query"]);
        let (metric, label) = query.trim_start_matches("label_values(").rsplit_once(", ").expect("label_values");
        format!("count by ({}) ({metric})", label.trim_end_matches(')'))
    });
    targets.map(|target| text(&target["expr"])).chain(chosen).collect()
}

/// Replaces variables like Grafana.
fn filled(query: &str) -> String {
    let values = [
        ("$__rate_interval", "30s"),
        ("$job", ".+"),
        ("$instance", ".+"),
        ("$window", "30d"),
        ("$dimension", "channel"),
    ];
    let query = values.into_iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!query.contains('$'), "a variable that this test does not know: {query}");
    query
}

/// Churn is above its usual level, the rule fires, and Alertmanager routes it to the customer team.
fn assert_spike_arrives(servers: &Servers) {
    let figure = |name: &str| servers.query(&format!("{name}{{window=\"7d\"}}"));
    let arrived = poll_until(Duration::from_secs(60), || {
        servers.received().into_iter().find(|alert| alert["labels"]["alertname"] == "RetentiondChurnSpike")
    });
    let Some(alert) = arrived else {
        panic!("no churn spike: churn {:?}, usual {:?}", figure(RECORDED), figure(&format!("{RECORDED}_usual")));
    };
    assert_eq!(alert["labels"]["window"], "7d");
    assert_eq!(alert["labels"]["job"], "retentiond");
    assert_eq!(alert["receivers"][0]["name"], "growth");
    assert_eq!(alert["annotations"]["runbook_url"], "http://127.0.0.1:9736/runbook#retentiondchurnspike");
    let told: BTreeSet<String> =
        servers.received().iter().map(|alert| alert["labels"]["alertname"].to_string()).collect();
    assert!(!told.iter().any(|name| name.contains("NotReady") || name.contains("Down")), "{told:?}");
}
