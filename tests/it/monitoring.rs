//! Rules, alerts and dashboards with the real daemon, Kafka, Prometheus and Alertmanager.

mod quickstart;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The values of a key at the beginning of a line or list item.
fn behind<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let values = text.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(key));
    values.map(str::trim).collect()
}

/// The rules of `alerts.yml`, each with its text.
fn alerts(text: &str) -> BTreeMap<&str, &str> {
    text.split("- alert: ").skip(1).map(|rest| rest.split_once('\n').expect("a rule has lines")).collect()
}

#[test]
fn every_alert_says_what_to_do_and_is_tested_both_ways() {
    let (rules, runbook) = (read("deploy/prometheus/alerts.yml"), read("docs/runbook.md"));
    let tests = read("deploy/prometheus/alerts_test.yml") + &read("deploy/prometheus/winback_test.yml");
    let alerts = alerts(&rules);
    assert!(alerts.len() > 8, "only {} alerts found; does the search still work?", alerts.len());
    for (name, rule) in &alerts {
        for key in ["summary:", "description:"] {
            assert_eq!(behind(rule, key).len(), 1, "{name} has no {key}");
        }
        assert!(matches!(behind(rule, "severity:")[..], ["warning" | "critical"]), "the severity of {name}");
        let link = format!("http://127.0.0.1:9736/runbook#{}", name.to_lowercase());
        assert_eq!(behind(rule, "runbook_url:"), [link], "{name}");

        // Each check of the alert, up to the next one.
        let looks: Vec<&str> = tests
            .split("- alertname: ")
            .skip(1)
            .filter_map(|look| look.strip_prefix(&format!("{name}\n")))
            .map(|look| look.split("- name: ").next().unwrap())
            .collect();
        assert!(looks.iter().any(|look| look.contains("exp_alerts:")), "{name} is nowhere seen to fire");
        assert!(looks.iter().any(|look| !look.contains("exp_alerts:")), "{name} is nowhere seen not to fire");
    }
    let told: BTreeSet<&str> = behind(&runbook, "### ").into_iter().collect();
    assert_eq!(told, alerts.keys().copied().collect(), "sections of the runbook, and alerts");
}
