//! `replay --as-of`: the same figures as a history that ends there, and as a series at that instant.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retentiond::event::{DAY, Time};
use serde_json::Value;

use crate::support::cli::{replay, run};
use crate::support::history::{self, write};
use crate::support::scratch;

const RULES: &str = r#"
[[inactivity]]
name = "short"
after = "14d"
[[inactivity]]
name = "off-pace"
cadence = 2.0
min = "5d"
max = "100d"
[alerts]
holdout = 0.2
"#;

/// The messages that `replay --alerts` writes, one per line.
fn alerts(dir: &Path, events: &Path, toml: &Path, as_of: Option<&str>) -> String {
    let messages = dir.join("alerts.ndjson");
    let [replay, config, alerts, flag] = ["replay", "--config", "--alerts", "--as-of"].map(OsStr::new);
    let args = [replay, events.as_ref(), config, toml.as_ref(), alerts, messages.as_ref()];
    let said = run(args.into_iter().chain(as_of.into_iter().flat_map(|as_of| [flag, as_of.as_ref()])));
    assert_eq!(said.code, Some(0), "{said:?}");
    std::fs::read_to_string(messages).unwrap()
}

/// At the time of an order, which is also the watermark of a history that ends with it.
#[test]
fn alerts_win_backs_and_order_values_are_those_of_a_history_that_ends_there() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let sales = history::cdnow_sample();
    let whole = write(dir.path(), "whole.csv", history::csv(&sales));
    let toml = write(dir.path(), "retentiond.toml", RULES);
    let all = alerts(dir.path(), &whole, &toml, None);
    for day in ["1997-01-05", "1997-03-17", "1997-12-24", "1998-06-30"] {
        let as_of = format!("{day}T00:00:00Z");
        let until: Vec<_> = sales.iter().filter(|sale| sale.day.as_str() <= day).cloned().collect();
        assert!(until.iter().any(|sale| sale.day == day));
        let part = write(dir.path(), "part.csv", history::csv(&until));
        let told = alerts(dir.path(), &whole, &toml, Some(&as_of));
        assert_eq!(told, alerts(dir.path(), &part, &toml, None), "{day}");
        assert_eq!(told.is_empty(), day == "1997-01-05", "{day}");
        assert_eq!(told == all, day == "1998-06-30", "{day}");
        let [found, expected] = [&whole, &part].map(|file| replay(&[file], Some(&toml), Some(&as_of)));
        assert_eq!(found, expected, "{day}");
    }
    // Time advances beyond the last event.
    assert!(alerts(dir.path(), &whole, &toml, Some("1999-06-30T00:00:00Z")).len() > all.len());
}

/// The windows of a single run, by the names that a line of the series uses too.
fn windows(summary: &Value) -> BTreeMap<String, Value> {
    let of = |key: &str| summary[key].as_array().unwrap().clone();
    // The open period of a calendar window comes last.
    let all = of("windows").into_iter().chain(of("calendar"));
    all.map(|window| (window["window"].as_str().unwrap().to_owned(), window)).collect()
}

#[test]
fn a_series_shows_what_single_runs_print_at_random_instants_and_in_random_zones() {
    const ZONES: [&str; 8] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Pacific/Apia",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "America/St_Johns",
        "Pacific/Kiritimati",
    ];
    let mut chance = ChaCha8Rng::seed_from_u64(20);
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let sales: Vec<_> = history::cdnow_sample().into_iter().step_by(4).collect();
    let mut compared = 0;
    for zone in ZONES {
        // Shifted by years, so that leap days and changes of summer time differ.
        let log = history::disorder(&sales, chance.random_range(0..20 * 365));
        let events = write(dir.path(), "events.ndjson", history::ndjson(&log));
        let toml = format!(
            "[time]\nzone = \"{zone}\"\n[[windows]]\nname = \"7d\"\nperiod = \"7d\"\nresolution = \"12h\"\n\
             [[windows]]\nname = \"30d\"\nperiod = \"30d\"\nresolution = \"1d\"\n"
        );
        let toml = write(dir.path(), "retentiond.toml", toml);
        let args = ["replay", "--series", "--format", "json", "--config"].map(OsStr::new);
        let said = run(args.into_iter().chain([toml.as_ref(), events.as_ref()]));
        assert_eq!(said.code, Some(0), "{said:?}");
        let mut series = BTreeMap::<String, BTreeMap<Time, Value>>::new();
        for line in said.stdout.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let at = Time::parse(line["at"].as_str().unwrap()).unwrap();
            series.entry(line["window"].as_str().unwrap().to_owned()).or_default().insert(at, line);
        }
        let days = &series["month"];
        let first = days.first_key_value().unwrap().0.plus(DAY);
        let span = days.last_key_value().unwrap().0.millis() - first.millis();
        for _ in 0..4 {
            // Also instants that are not the beginning of a civil day.
            let at = first.plus(chance.random_range(0..span));
            let midnight = *days.range(..=at).next_back().unwrap().0;
            for at in [at, midnight, midnight.plus(-1)] {
                for (window, single) in windows(&replay(&[&events], Some(&toml), Some(&at.to_string()))) {
                    let (_, line) = series[&window].range(..=at).next_back().unwrap();
                    for (figure, value) in line.as_object().unwrap().iter().filter(|(name, _)| *name != "at") {
                        assert_eq!(value, &single[figure], "{figure} of {window} at {at} in {zone}");
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 5_000, "{compared}");
}
