//! Reads tables from text and environment variables: defaults, then the file, then the environment.
//!
//! Loading continues after a mistake: it notes and removes the wrong value and reads the rest again, until no mistake
//! is left. So it reports all mistakes at once.

use std::collections::{BTreeMap, BTreeSet};

use figment::error::{Actual, Kind};
use figment::value::{Dict, Value};
use serde::{Deserialize, Serialize};

use super::alerts::{Alerts, RuleTable};
use super::currency::ReportingCurrency;
use super::error::{Problems, is_index, key_of, nearest, one_of};
use super::figures::{CalendarTable, Clv, Customers, TimeSettings, WindowTable};
use super::kafka::{DeadLetters, Kafka, SchemaRegistry, Source};
use super::options::option_of_variable;
use super::retired;
use super::service::{Checkpoint, Http};

/// Prefix of environment variables that are settings.
const PREFIX: &str = "RETENTIOND__";

/// Sections that are arrays of tables.
const LISTS: [&str; 3] = ["windows", "calendar", "inactivity"];

/// Sections that are tables of keys.
const TABLES: [&str; 10] = [
    "kafka",
    "schema_registry",
    "customers",
    "time",
    "clv",
    "currency",
    "alerts",
    "dead_letters",
    "checkpoint",
    "http",
];

/// The configuration as written, before defaults that depend on other tables.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tables {
    pub(super) kafka: Kafka,
    pub(super) sources: BTreeMap<String, Source>,
    pub(super) schema_registry: Option<SchemaRegistry>,
    pub(super) customers: Customers,
    pub(super) windows: Vec<WindowTable>,
    pub(super) calendar: Vec<CalendarTable>,
    pub(super) time: TimeSettings,
    pub(super) clv: Clv,
    pub(super) currency: ReportingCurrency,
    pub(super) inactivity: Vec<RuleTable>,
    pub(super) alerts: Alerts,
    pub(super) dead_letters: DeadLetters,
    pub(super) checkpoint: Checkpoint,
    pub(super) http: Http,
}

impl Default for Tables {
    fn default() -> Tables {
        let orders = Source { topic: "orders".to_owned(), ..Source::default() };
        Tables {
            kafka: Kafka::default(),
            sources: BTreeMap::from([("orders".to_owned(), orders)]),
            schema_registry: None,
            customers: Customers::default(),
            windows: WindowTable::usual(),
            calendar: CalendarTable::usual(),
            time: TimeSettings::default(),
            clv: Clv::default(),
            currency: ReportingCurrency::default(),
            inactivity: Vec::new(),
            alerts: Alerts::default(),
            dead_letters: DeadLetters::default(),
            checkpoint: Checkpoint::default(),
            http: Http::default(),
        }
    }
}

/// The keys that were written, as opposed to defaulted.
#[derive(Debug, Default)]
pub(super) struct Given(BTreeSet<String>);

impl Given {
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains(key)
    }

    fn collect(&mut self, path: &mut Vec<String>, value: &Value) {
        if !path.is_empty() {
            self.0.insert(key_of(path));
        }
        for (segment, child) in value.as_dict().into_iter().flatten() {
            path.push(segment.clone());
            self.collect(path, child);
            path.pop();
        }
    }
}

/// Reads everything. Adds mistakes to `problems` and uses the default in place of a wrong value.
///
/// `file` is the name of the file (for messages) and its text.
pub(super) fn read(
    file: Option<(&str, &str)>,
    environment: impl Iterator<Item = (String, String)>,
    problems: &mut Problems,
) -> (Tables, Given) {
    if let Some((_, text)) = file {
        problems.in_file(text);
    }
    let mut tree = file.map_or_else(Dict::new, |(name, text)| parse(name, text, problems));
    tree.values_mut().for_each(plain_datetimes);
    if let Some(Value::Dict(_, kafka)) = tree.get_mut("kafka")
        && let Some(Value::Dict(_, options)) = kafka.get_mut("options")
    {
        *options = flattened(options);
    }
    let mut tree = Value::from(tree);
    let variables = overlay(&mut tree, environment, problems);
    retired::take_out(&mut tree, problems);
    let mut given = Given::default();
    given.collect(&mut Vec::new(), &tree);
    refuse_lists(&mut tree, problems);
    (extract(tree, variables, problems), given)
}

/// Rejects lists in place of tables; serde would accept the elements as the values of the keys in order.
fn refuse_lists(tree: &mut Value, problems: &mut Problems) {
    let mut tables: Vec<Vec<String>> = TABLES.iter().map(|name| vec![(*name).to_owned()]).collect();
    tables.push(vec!["alerts".to_owned(), "webhook".to_owned()]);
    if let Some(sources) = tree.as_dict().and_then(|tree| tree.get("sources")?.as_dict()) {
        for name in sources.keys() {
            tables.push(["sources", name, "mapping"].map(str::to_owned).to_vec());
            for table in ["fields", "constants", "types", "attributes", "where"] {
                tables.push(["sources", name, "mapping", table].map(str::to_owned).to_vec());
            }
        }
    }
    for (name, value) in tree.as_dict().into_iter().flatten() {
        let inner: Vec<String> = match value {
            Value::Dict(_, sources) if name == "sources" => sources.keys().cloned().collect(),
            Value::Array(_, list) if LISTS.contains(&name.as_str()) => (0..list.len()).map(|i| i.to_string()).collect(),
            _ => continue,
        };
        tables.extend(inner.into_iter().map(|segment| vec![name.clone(), segment]));
    }
    for path in tables {
        if find(tree, &path).is_some_and(|value| matches!(value, Value::Array(..))) {
            problems.add(key_of(&path), explain(&path, &Kind::InvalidType(Actual::Seq, "struct ".to_owned())));
            take_out(tree, &path);
        }
    }
}

/// Parses TOML; the error message contains neither the line nor a value, which may be a secret.
fn parse(name: &str, text: &str, problems: &mut Problems) -> Dict {
    toml::from_str(text).unwrap_or_else(|error: toml::de::Error| {
        let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        problems.add(name, format!("is no TOML at line {line}, column {column}: {message}"));
        Dict::new()
    })
}

/// Converts TOML date-times without quotes to text.
fn plain_datetimes(value: &mut Value) {
    let plain = match value {
        Value::Dict(_, dict) => {
            dict.values_mut().for_each(plain_datetimes);
            dict.get("$__toml_private_datetime").cloned()
        }
        Value::Array(_, list) => {
            list.iter_mut().for_each(plain_datetimes);
            None
        }
        _ => None,
    };
    if let Some(text) = plain {
        *value = text;
    }
}

/// Flattens nested option tables: to TOML, the unquoted key in `security.protocol = "SSL"` is a table in a table.
fn flattened(options: &Dict) -> Dict {
    let mut flat = Dict::new();
    for (key, value) in options {
        match value {
            Value::Dict(_, nested) => {
                flat.extend(flattened(nested).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            _ => drop(flat.insert(key.clone(), value.clone())),
        }
    }
    flat
}

/// Applies the environment on top of the file; returns the paths that it set.
fn overlay(
    tree: &mut Value,
    environment: impl Iterator<Item = (String, String)>,
    problems: &mut Problems,
) -> BTreeSet<Vec<String>> {
    let variables: Vec<(String, String)> = environment.collect();
    for (name, remedy) in variables.iter().filter_map(|(name, _)| Some((name, with_two_underscores(name)?))) {
        problems.add(name, format!("sets nothing; write {remedy}, with two underscores between the parts"));
    }
    let variables = variables.into_iter();
    let settings = variables.filter_map(|(name, text)| Some((name.strip_prefix(PREFIX)?.to_lowercase(), name, text)));
    let settings: BTreeMap<String, (String, String)> = settings.map(|(key, name, text)| (key, (name, text))).collect();
    let mut paths = BTreeSet::new();
    for (key, (name, text)) in settings {
        let segments: Vec<&str> = key.split("__").collect();
        for table in ["sources", "windows", "calendar"] {
            if segments.first() == Some(&table) {
                set_default(tree, table);
            }
        }
        let mut path = Vec::new();
        match set(tree, &segments, &mut path, &text) {
            Ok(()) => {
                problems.set_by(key_of(&path), name);
                paths.insert(path);
            }
            Err(what) => problems.add(name, what),
        }
    }
    paths
}

/// The right spelling of a variable that names a setting with single underscores, such as `RETENTIOND_KAFKA_BROKERS`.
/// Other variables with that prefix are not settings, such as those that Kubernetes derives from service names.
fn with_two_underscores(name: &str) -> Option<String> {
    let single = name.strip_prefix("RETENTIOND_")?.to_lowercase();
    let Ok(Value::Dict(_, known)) = Value::serialize(Tables::default()) else { return None };
    let rest_of = |section: &str| {
        single.strip_prefix(section)?.strip_prefix('_').map(|rest| rest.trim_start_matches('_').to_owned())
    };
    for section in TABLES {
        let Some(rest) = rest_of(section) else { continue };
        let keys = known.get(section).and_then(Value::as_dict).into_iter().flatten().map(|(key, _)| key.as_str());
        // Keys without a default, which `known` does not contain.
        let optional = [("kafka", "instance_id"), ("kafka", "options"), ("schema_registry", "url")];
        let optional = optional.into_iter().filter(|(of, _)| *of == section).map(|(_, key)| key);
        let key = keys.chain(optional).find(|key| rest == *key || rest.starts_with(&format!("{key}_")))?;
        let rest = rest[key.len()..].trim_start_matches('_');
        let option = if rest.is_empty() { String::new() } else { format!("__{rest}") };
        return Some(format!("{PREFIX}{section}__{key}{option}").to_uppercase());
    }
    let rest = rest_of("sources")?;
    let (source, key) = ["topic", "format", "clock"].iter().find_map(|key| Some((rest.strip_suffix(key)?, key)))?;
    let source = source.trim_end_matches('_');
    (!source.is_empty()).then(|| format!("{PREFIX}sources__{source}__{key}").to_uppercase())
}

/// Inserts the default of a table that is not in the file, so that a variable can change a part of it.
fn set_default(tree: &mut Value, table: &str) {
    if let Value::Dict(_, root) = tree
        && !root.contains_key(table)
        && let Ok(Value::Dict(_, mut defaults)) = Value::serialize(Tables::default())
        && let Some(value) = defaults.remove(table)
    {
        root.insert(table.to_owned(), value);
    }
}

/// Sets one value; `path` becomes the path to it in the spelling of the file.
fn set(tree: &mut Value, segments: &[&str], path: &mut Vec<String>, text: &str) -> Result<(), String> {
    let [segment, rest @ ..] = segments else {
        *tree = Value::from(text);
        return Ok(());
    };
    if segment.is_empty() {
        return Err(format!("names no setting; write {PREFIX}SECTION__KEY"));
    }
    if let Value::Array(_, list) = tree {
        let index: usize = segment
            .parse()
            .map_err(|_| format!("needs a position in the list {}; write its number, 0 for the first", key_of(path)))?;
        if index > list.len() {
            return Err(format!("is number {index} of the list {}, which has {}", key_of(path), list.len()));
        }
        if index == list.len() {
            list.push(Value::from(Dict::new()));
        }
        path.push(index.to_string());
        return set(&mut list[index], rest, path, text);
    }
    if tree.as_dict().is_none() {
        *tree = Value::from(Dict::new());
    }
    let Value::Dict(_, dict) = tree else { return Ok(()) };
    let known = dict.keys().find(|key| key.to_lowercase().replace(['-', '.'], "_") == *segment).cloned();
    let is_option = path.iter().map(String::as_str).eq(["kafka", "options"]);
    let key = known.unwrap_or_else(|| if is_option { option_of_variable(segment) } else { (*segment).to_owned() });
    path.push(key.clone());
    let empty = if path.len() == 1 && LISTS.contains(segment) {
        Value::from(Vec::<Value>::new())
    } else {
        Value::from(Dict::new())
    };
    set(dict.entry(key).or_insert(empty), rest, path, text)
}

/// Reads the tables, removing one wrong value after the other.
fn extract(mut tree: Value, mut variables: BTreeSet<Vec<String>>, problems: &mut Problems) -> Tables {
    loop {
        let error = match tree.deserialize::<Tables>() {
            Ok(tables) => return tables,
            Err(error) => error,
        };
        // A variable is text; if another type is expected, parse it as TOML.
        if matches!(error.kind, Kind::InvalidType(Actual::Str(_), _))
            && variables.remove(&error.path)
            && let Some(value) = find(&mut tree, &error.path)
            && let Some(typed) = value.as_str().and_then(typed)
        {
            *value = typed;
            continue;
        }
        problems.add(key_of(&error.path), explain(&error.path, &error.kind));
        if !take_out(&mut tree, &error.path) {
            return Tables::default();
        }
    }
}

fn typed(text: &str) -> Option<Value> {
    toml::from_str::<Dict>(&format!("value = {text}")).ok()?.remove("value")
}

fn find<'a>(tree: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(tree, |value, segment| match value {
        Value::Dict(_, dict) => dict.get_mut(segment),
        Value::Array(_, list) => list.get_mut(segment.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Removes a wrong value. A table in a list is emptied instead, so that the others keep their positions; a list of
/// plain values is removed as a whole. Returns whether anything was removed.
fn take_out(tree: &mut Value, path: &[String]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let Some(parent) = find(tree, parents) else { return false };
    match parent {
        Value::Dict(_, dict) => dict.remove(last).is_some(),
        Value::Array(_, elements) if parents.len() == 1 && is_index(last) => {
            let Some(element) = last.parse::<usize>().ok().and_then(|i| elements.get_mut(i)) else { return false };
            let emptied = !element.as_dict().is_some_and(Dict::is_empty);
            *element = Value::from(Dict::new());
            emptied
        }
        _ => take_out(tree, parents),
    }
}

/// What is wrong with a value, and the remedy.
fn explain(path: &[String], kind: &Kind) -> String {
    match kind {
        Kind::Message(what) => what.clone(),
        Kind::UnknownVariant(name, known) => format!("{name:?} is not known; write {}", one_of(known.iter().copied())),
        Kind::UnknownField(name, known) => unknown_key(path, name, known),
        Kind::InvalidType(actual, expected) => {
            format!("{} is of the wrong type; write {}", shown(actual), wanted(expected))
        }
        Kind::InvalidValue(actual, expected) => {
            format!("{} is out of range; write {}", shown(actual), wanted(expected))
        }
        other => other.to_string(),
    }
}

fn unknown_key(path: &[String], name: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(name, known.iter().copied()) {
        return format!("is no setting; did you mean {near:?}?");
    }
    let parent = path.split_last().map_or_else(String::new, |(_, parents)| key_of(parents));
    match (parent.as_str(), name) {
        ("", "webhook") => "is no setting; write [alerts.webhook]".to_owned(),
        ("kafka", _) => {
            format!(
                "is no setting; librdkafka options belong in [kafka.options], the keys here are {}",
                known.join(", ")
            )
        }
        ("", _) => format!("is no section; the sections are {}", known.join(", ")),
        _ => format!("is no setting; the keys here are {}", known.join(", ")),
    }
}

fn shown(actual: &Actual) -> String {
    match actual {
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        Actual::Float(value) => value.to_string(),
        Actual::Char(value) => format!("{value:?}"),
        Actual::Str(value) => format!("{value:?}"),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

fn wanted(expected: &str) -> &str {
    match expected {
        "a boolean" => "true or false, without quotes",
        "u32" | "u64" | "u16" => "a whole number, at least 0 and without quotes",
        "f64" => "a number, without quotes",
        "a string" | "path string" => "text in quotes",
        "a duration" => "a duration such as \"30d\"",
        "a sequence" => "a list, as in [[windows]] or [\"a\", \"b\"]",
        "a map" => "a table, as in [sources.orders]",
        other if other.starts_with("struct ") => "a table with keys, as in [kafka]",
        other => other,
    }
}
