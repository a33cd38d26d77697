//! `docs/reference/` is written from the code: metrics from their definitions, configuration from the reference
//! configuration. With `RETENTIOND_BLESS=1` these tests write it.

use std::fmt::Write as _;
use std::fs;

use retentiond::output::metrics::{self, Kind, Metric};

use super::{read, root};

#[test]
fn the_reference_of_metrics_is_that_of_the_code() {
    assert_generated("docs/reference/metrics.md", "metrics", &metric_tables());
}

#[test]
fn the_reference_of_the_configuration_is_that_of_the_reference_configuration() {
    let reference = sections(&read("deploy/retentiond.toml"));
    let keys: usize = reference.iter().map(|section| section.keys.len()).sum();
    assert!(keys > 100, "only {keys} keys found; does the search still work?");
    for section in &reference {
        for key in &section.keys {
            assert!(!key.meaning.is_empty(), "deploy/retentiond.toml: {} {} has no comment", section.name, key.name);
        }
    }
    assert_generated("docs/reference/configuration.md", "configuration", &key_tables(&reference));
}

#[test]
fn a_key_is_read_with_its_comment_and_its_default() {
    let text = "# About the file.\n\n# About the table.\n[one]\n# A port,\n# or two.\nport = 1\n# Default: none.\n# \"a.b\" = \"x|y\"\n\n\
                # [[two]]\n# Name.\n# name = \"n\"\n\n# [[two]]\n# name = \"m\"\n";
    let shown = "\n## `[one]`\n\nAbout the table.\n\n| key | default | meaning |\n|---|---|---|\n| `port` | `1` | A port, or two. |\n\
                 | `a.b` | | Default: none. Example: `\"x\\|y\"` |\n\n## `[[two]]`\n\n| key | default | meaning |\n|---|---|---|\n\
                 | `name` | | Name. Example: `\"n\"` |\n";
    assert_eq!(key_tables(&sections(text)), shown);

    let dotted = "# A port.\none.port = 1\n# Name.\ntwo.name = \"n\"\n\n# A host.\none.host = \"h\"\n";
    let shown = "\n## `[one]`\n\n| key | default | meaning |\n|---|---|---|\n| `port` | `1` | A port. |\n| `host` | `\"h\"` | A host. |\n\
                 \n## `[two]`\n\n| key | default | meaning |\n|---|---|---|\n| `name` | `\"n\"` | Name. |\n";
    assert_eq!(key_tables(&sections(dotted)), shown);
}

/// Fails unless this stands in the document between the marks of that name; writes it there if asked to.
fn assert_generated(path: &str, name: &str, generated: &str) {
    let text = read(path);
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{path} lacks {begin}"));
    let (inside, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{path} lacks {end}"));
    if inside == generated {
        return;
    }
    if std::env::var_os("RETENTIOND_BLESS").is_some() {
        fs::write(root().join(path), format!("{before}{begin}{generated}{end}{after}")).unwrap();
        return;
    }
    let stale = inside.lines().zip(generated.lines()).find(|(old, new)| old != new);
    panic!("{path} differs from the code, first at {stale:?}; run this test with RETENTIOND_BLESS=1 to write it");
}

// Metrics --------------------------------------------------------------------------------------------------------------

/// The tables of metrics, by what their names begin with; the last takes the rest.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Windows", &["window_", "figures_missing_"]),
    ("Segments", &["segment_", "dimension_"]),
    (
        "Customers and alerts",
        &[
            "customers",
            "transitions_",
            "referrals_",
            "feedback_",
            "inactivity_",
            "winback",
            "interpurchase_",
            "time_to_second_order_",
            "order_value",
            "webhook_",
        ],
    ),
    (
        "Events",
        &[
            "as_of_",
            "last_event_",
            "history_start_",
            "events_",
            "event_latency_",
            "unconverted_",
            "dead_letters_",
            "topic_unusable",
            "repartitioned_",
            "split_customers_",
            "lag_",
            "caught_up",
        ],
    ),
    ("Daemon", &[""]),
];

fn metric_tables() -> String {
    let group_of = |metric: &Metric| {
        let name = metric.name.strip_prefix("retentiond_").expect("the prefix of every metric");
        GROUPS.iter().position(|(_, prefixes)| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    };
    let mut out = String::new();
    for (index, (title, _)) in GROUPS.iter().enumerate() {
        _ = write!(out, "\n## {title}\n\n| metric | type | meaning |\n|---|---|---|\n");
        for metric in metrics::definitions().filter(|metric| group_of(metric) == Some(index)) {
            let kind = match metric.kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
                Kind::Histogram => "histogram",
            };
            let labels = metric.labels().join(",");
            let shown = if labels.is_empty() { metric.name.to_owned() } else { format!("{}{{{labels}}}", metric.name) };
            _ = writeln!(out, "| `{shown}` | {kind} | {} |", metric.help.replace('|', "\\|"));
        }
    }
    out.push('\n');
    out
}

// Configuration --------------------------------------------------------------------------------------------------------

/// A table of the configuration.
struct Section {
    /// With its brackets.
    name: String,
    meaning: String,
    keys: Vec<Key>,
}

struct Key {
    name: String,
    /// What it is set to, or, behind "# ", could be.
    value: String,
    is_default: bool,
    meaning: String,
}

/// The tables of a configuration in which every key has its comment above it. Of several tables of one name, and of tables
/// of sources, the first explains the keys. Dotted keys above all tables belong to the table that they name.
fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    // Where keys belong: nowhere once they are explained, and above all tables to what their dots say.
    let (mut comment, mut place) = (String::new(), Place::Dotted);
    for line in text.lines() {
        let setting = line.strip_prefix("# ").filter(|rest| is_header(rest) || is_key(rest)).unwrap_or(line);
        if is_header(setting) {
            let meaning = std::mem::take(&mut comment);
            let explained = sections.iter().any(|section| section.name == setting) || setting == "[sources.sessions]";
            place = if explained { Place::Nowhere } else { Place::At(section(&mut sections, setting, meaning)) };
        } else if let Some((name, value)) = setting.split_once(" = ").filter(|_| is_key(setting)) {
            let meaning = std::mem::take(&mut comment);
            let (at, name) = match (place, name.rsplit_once('.')) {
                (Place::At(at), _) => (at, name.trim_matches('"')),
                (Place::Dotted, Some((table, name))) => {
                    (section(&mut sections, &format!("[{table}]"), String::new()), name)
                }
                _ => continue,
            };
            let (name, value) = (name.to_owned(), value.to_owned());
            sections[at].keys.push(Key { name, value, is_default: setting == line, meaning });
        } else if let Some(words) = line.strip_prefix("# ") {
            comment.extend((!comment.is_empty()).then_some(' '));
            comment.push_str(words);
        } else {
            comment.clear();
        }
    }
    sections
}

#[derive(Clone, Copy)]
enum Place {
    Dotted,
    At(usize),
    Nowhere,
}

/// The place of the table of that name, which is added if it is not there.
fn section(sections: &mut Vec<Section>, name: &str, meaning: String) -> usize {
    sections.iter().position(|section| section.name == name).unwrap_or_else(|| {
        sections.push(Section { name: name.to_owned(), meaning, keys: Vec::new() });
        sections.len() - 1
    })
}

fn is_header(line: &str) -> bool {
    line.starts_with('[') && line.ends_with(']') && is_name(line.trim_matches(['[', ']']))
}

fn is_key(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(name, _)| is_name(name.trim_matches('"')))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || b"_.".contains(&byte))
}

fn key_tables(sections: &[Section]) -> String {
    let mut out = String::new();
    for section in sections {
        _ = writeln!(out, "\n## `{}`\n", section.name);
        if !section.meaning.is_empty() {
            _ = writeln!(out, "{}\n", section.meaning);
        }
        out.push_str("| key | default | meaning |\n|---|---|---|\n");
        for Key { name, value, is_default, meaning } in &section.keys {
            let (value, meaning) = (value.replace('|', "\\|"), meaning.replace('|', "\\|"));
            _ = match is_default {
                true => writeln!(out, "| `{name}` | `{value}` | {meaning} |"),
                false => writeln!(out, "| `{name}` | | {meaning} Example: `{value}` |"),
            };
        }
    }
    out
}
