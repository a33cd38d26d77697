//! Messages of every format in files, read by `retentiond replay`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use retentiond::decode::Format;
use serde_json::Value;

use super::fixtures;
use crate::support::cli;

fn figures(dir: &Path, name: &str, source: &str, lines: &[String]) -> Value {
    let (file, config) = (dir.join(format!("{name}.ndjson")), dir.join(format!("{name}.toml")));
    fs::write(&file, lines.join("\n")).unwrap();
    fs::write(&config, format!("[customers]\ndimensions = [\"channel\", \"country\"]\n{source}")).unwrap();
    cli::replay(&[&file], Some(&config), Some("2026-06-30T00:00:00Z"))
}

fn orders(figures: &Value) -> u64 {
    let periods = figures["calendar"].as_array().unwrap().iter();
    periods.filter(|period| period["window"] == "year").map(|period| period["orders"].as_u64().unwrap()).sum()
}

#[test]
fn files_of_every_format_give_the_figures_of_the_events_that_they_mean() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = BTreeSet::new();
    for (source, messages) in fixtures::files() {
        let name = messages[0].format.name();
        let lines: Vec<String> = messages.iter().map(fixtures::Fixture::line).collect();
        let meaning: Vec<String> = messages.iter().flat_map(fixtures::Fixture::native).collect();
        let found = figures(dir.path(), "foreign", &source, &lines);
        // Placeholder ids have already been removed.
        let native = "[sources.orders]\nformat = \"native\"\n[sources.orders.mapping]\nnobody = []\n";
        let expected = figures(dir.path(), "native", native, &meaning);
        assert_eq!(found, expected, "{source}");
        if orders(&found) > 0 {
            seen.insert(name);
        }
    }
    for format in Format::ALL {
        assert!(seen.contains(format.name()), "no order of {} in a file: {seen:?}", format.name());
    }
}

#[test]
fn a_file_of_parquet_that_is_damaged_is_an_error_and_no_panic() {
    let sound = fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/checkpoint-v2/shop=2Feu/p3/0000000003-0000000000000383.parquet"
    ))
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("orders.parquet");
    // The columns are not those of orders. This tests the parsing of the footer, from which everything else is found.
    for at in (sound.len() - 400..sound.len()).step_by(23) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0xff;
        fs::write(&file, damaged).unwrap();
        let said = cli::run(["replay".as_ref(), file.as_os_str()]);
        assert!(matches!(said.code, Some(1..=100)), "byte {at}: {said:?}");
        assert!(said.stderr.contains("orders.parquet"), "byte {at}: {said:?}");
    }
}
