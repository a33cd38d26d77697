//! Checks across tables, and the settings derived from them.
//!
//! Tests of each message are in `check_tests.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::alerts::{RuleTable, Webhook};
use super::error::{Problems, key_of, nearest};
use super::figures::{CalendarActiveFor, CalendarTable, RESOLUTIONS, WindowTable};
use super::kafka::Source;
use super::load::{Given, Tables};
use super::millis::Millis;
use super::options::REDACTED;
use super::repartition;
use super::service::STALE_INTERVALS;
use super::{Settings, shared};
use crate::decode::Decoder;
use crate::event::{DAY, MAX_DIMENSIONS, MINUTE};

/// Valid names of Kafka topics and instance ids.
fn is_legal_topic(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=249).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".."
}

/// Valid names of windows and rules; they become label values.
fn is_legal_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
}

/// Adds every mistake to `problems`.
pub(super) fn check(tables: &Tables, given: &Given, problems: &mut Problems) {
    kafka(tables, problems);
    topics(tables, problems);
    repartition::check(tables, problems);
    mappings(tables, problems);
    schema_registry(tables, problems);
    customers(tables, problems);
    dimensions(tables, problems);
    windows(tables, problems);
    calendar(tables, problems);
    time(tables, given, problems);
    tables.currency.check(problems);
    inactivity(tables, problems);
    alerts(tables, problems);
    http(tables, problems);
    service(tables, given, problems);
}

/// Builds the settings from tables without mistakes.
pub(super) fn settings(tables: Tables, given: &Given) -> Settings {
    let customers = tables.customers;
    let windows: Vec<_> = tables.windows.iter().map(|window| window.settings(customers.active_for)).collect();
    let mut clv = tables.clv;
    clv.window = clv.window.filter(|name| windows.iter().any(|window| window.name == *name));
    let mut alerts = tables.alerts;
    if !given.has("alerts.settle") {
        alerts.settle = customers.allowed_lateness;
    }
    let mut checkpoint = tables.checkpoint;
    if !given.has("checkpoint.stale_after") {
        checkpoint.stale_after = Millis::clamped(checkpoint.interval.get().saturating_mul(STALE_INTERVALS));
    }
    let mut sources = tables.sources;
    for (name, source) in &mut sources {
        if source.topic.is_empty() {
            source.topic.clone_from(name);
        }
    }
    Settings {
        kafka: tables.kafka,
        sources: shared::merged(sources),
        schema_registry: tables.schema_registry,
        customers,
        windows,
        calendar: tables.calendar.iter().filter_map(CalendarTable::settings).collect(),
        time: tables.time,
        clv,
        currency: tables.currency,
        inactivity: tables.inactivity.iter().filter_map(RuleTable::rule).collect(),
        alerts,
        dead_letters: tables.dead_letters,
        checkpoint,
        http: tables.http,
    }
}

fn kafka(tables: &Tables, problems: &mut Problems) {
    let kafka = &tables.kafka;
    for broker in kafka.brokers.split(',').map(str::trim) {
        let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            problems.add(
                "kafka.brokers",
                format!("{broker:?} is no broker; write \"host:port\", such as \"kafka-1:9092\""),
            );
        }
    }
    if kafka.group_id.is_empty() {
        problems.add("kafka.group_id", "is empty; write the name of the consumer group, such as \"retentiond\"");
    }
    if let Some(id) = kafka.instance_id.as_ref().filter(|id| !is_legal_topic(id)) {
        let remedy = "write letters, digits, \".\", \"_\" and \"-\", or leave it out for the host name";
        problems.add("kafka.instance_id", format!("{id:?} is no instance id; {remedy}"));
    }
    for (option, what) in kafka.options.mistakes() {
        problems.add(key_of(&["kafka", "options", option]), what);
    }
    for (option, what) in kafka.options.access_mistakes() {
        problems.add(key_of(&["kafka", "options", &option]), what);
    }
}

/// Checks that topic names are valid and that no topic serves two purposes.
fn topics(tables: &Tables, problems: &mut Problems) {
    let mut used: BTreeMap<&str, String> = BTreeMap::new();
    let mut own: BTreeMap<&str, (&str, &Source)> = BTreeMap::new();
    let mut sources = Vec::new();
    for (name, source) in &tables.sources {
        let topic = if source.topic.is_empty() { name } else { &source.topic };
        match own.get(topic.as_str()) {
            Some((first_name, first)) => shared::check(name, source, first_name, first, problems),
            None => {
                own.insert(topic, (name, source));
                sources.push((key_of(&["sources", name, "topic"]), topic.as_str()));
            }
        }
    }
    // Sources that share a topic are routed with the first of them.
    let is_first = |key: &str| own.values().any(|(name, _)| key_of(&["sources", name, "repartition_topic"]) == key);
    let outputs = [
        ("alerts.topic".to_owned(), tables.alerts.topic.as_str()),
        ("dead_letters.topic".to_owned(), tables.dead_letters.topic.as_str()),
    ];
    let routed = repartition::topics(tables);
    let routed = routed.iter().filter(|(key, _)| is_first(key)).map(|(key, topic)| (key.clone(), topic.as_str()));
    for (key, topic) in sources.into_iter().chain(routed).chain(outputs) {
        if !is_legal_topic(topic) {
            problems.add(
                key,
                format!("{topic:?} is no topic name; write 1 to 249 letters, digits, \".\", \"_\" and \"-\""),
            );
        } else if let Some(other) = used.get(topic) {
            problems.add(key, format!("{topic:?} is {other} already; write another topic"));
        } else {
            used.insert(topic, key);
        }
    }
    if tables.sources.is_empty() {
        problems.add_between(&["sources"], "is empty; write at least [sources.orders], or leave it out");
    } else if !tables.sources.values().any(|source| source.clock) {
        problems.add_between(&["sources"], "hold none that drives time; write clock = true for at least one");
    }
}

/// Checks that each source's format supports its options.
fn mappings(tables: &Tables, problems: &mut Problems) {
    let dimensions = || tables.customers.dimensions.0.iter().map(|dimension| dimension.name.clone()).collect();
    for (name, source) in &tables.sources {
        if let Err(wrong) = Decoder::with_options(source.format, dimensions(), &source.mapping) {
            problems.add(format!("{}.{}", key_of(&["sources", name, "mapping"]), wrong.option), wrong.what);
        }
    }
}

fn schema_registry(tables: &Tables, problems: &mut Problems) {
    let Some(registry) = &tables.schema_registry else { return };
    let example = "write such as \"https://schema-registry:8081\"";
    let rest = ["https://", "http://"].iter().find_map(|scheme| registry.url.strip_prefix(scheme));
    let authority = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if registry.url.is_empty() {
        problems.add("schema_registry.url", format!("is missing; {example}"));
    } else if authority.is_empty() {
        problems.add("schema_registry.url", format!("is no web address; {example}"));
    } else if authority.contains('@') {
        problems.add("schema_registry.url", "holds a user or password; write user and password_file instead");
    }
    if registry.user.is_some() != registry.password_file.is_some() {
        problems.add("schema_registry.user", "and password_file belong together; write both or neither");
    } else if registry.user.is_some() && registry.token_file.is_some() {
        problems.add("schema_registry.token_file", "is set beside user and password_file; keep one of the two ways");
    }
    if registry.ca_file.is_some() && !registry.url.starts_with("https://") {
        problems.add(
            "schema_registry.ca_file",
            "is set, but the url does not begin with https://; write that, or remove it",
        );
    }
    if registry.timeout == Millis::ZERO {
        problems.add("schema_registry.timeout", "is zero; write how long a question may take, such as \"5s\"");
    }
}

fn customers(tables: &Tables, problems: &mut Problems) {
    let customers = &tables.customers;
    if customers.active_for == Millis::ZERO {
        problems
            .add("customers.active_for", "is zero; write how long an order keeps a customer active, such as \"90d\"");
    }
    if !(customers.at_risk_cadence.is_finite() && customers.at_risk_cadence > 0.0) {
        problems.add(
            "customers.at_risk_cadence",
            format!("{} is not above 0; write such as 2.0", customers.at_risk_cadence),
        );
    }
    let longest = Millis::clamped(customers.active_for.get() / 4 * 3);
    if customers.at_risk_min > longest {
        problems.add_between(
            &["customers.at_risk_min", "customers.active_for"],
            format!(
                "\"{}\" is longer than three quarters of customers.active_for, \"{}\"; write at most \"{longest}\"",
                customers.at_risk_min, customers.active_for
            ),
        );
    }
    if customers.loyal_orders < 2 {
        problems.add("customers.loyal_orders", format!("{} is too few; write 2 or more", customers.loyal_orders));
    }
    customers.check_dedup(problems);
    customers.check_merging(problems);
    if customers.dedup_for < customers.allowed_lateness {
        problems.add_between(
            &["customers.dedup_for", "customers.allowed_lateness"],
            format!(
                "\"{}\" is shorter than customers.allowed_lateness, \"{}\", so late duplicates would count twice; \
                 write \"{1}\" or more",
                customers.dedup_for, customers.allowed_lateness
            ),
        );
    }
}

fn dimensions(tables: &Tables, problems: &mut Problems) {
    let key = "customers.dimensions";
    let dimensions = &tables.customers.dimensions.0;
    if dimensions.len() > MAX_DIMENSIONS {
        problems.add(key, format!("are {}; write at most {MAX_DIMENSIONS}", dimensions.len()));
    }
    let mut names = BTreeSet::new();
    for dimension in dimensions {
        if dimension.name.is_empty() {
            problems.add(key, "hold an empty name; write the name of an attribute of the events");
        }
        if !names.insert(&dimension.name) {
            problems.add(key, format!("name {:?} twice; remove one", dimension.name));
        }
        let mut values = BTreeSet::new();
        for value in &dimension.values {
            if !values.insert(value) {
                problems.add(key, format!("list {value:?} twice for {:?}; remove one", dimension.name));
            }
        }
    }
}

fn windows(tables: &Tables, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for (i, window) in tables.windows.iter().enumerate() {
        let key = |field: &str| format!("windows[{i}].{field}");
        let name = window.name.as_str();
        if name.is_empty() {
            problems.add(key("name"), "is missing; write a name, such as \"30d\"");
        } else if !is_legal_name(name) {
            problems.add(
                key("name"),
                format!("{name:?} is no window name; write lower-case letters, digits, \"_\" and \"-\""),
            );
        } else if ["month", "quarter", "year"].contains(&name) {
            problems.add(key("name"), format!("{name:?} is the name of a calendar window; write another"));
        } else if name.ends_with("_previous") {
            problems
                .add(key("name"), format!("{name:?} ends in \"_previous\", which marks closed periods; write another"));
        } else if !names.insert(name) {
            problems.add(key("name"), format!("{name:?} is the name of an earlier window; write another"));
        }
        match window.period {
            None => problems.add(key("period"), "is missing; write the length of the window, such as \"30d\""),
            Some(Millis::ZERO) => {
                problems.add(key("period"), "is zero; write the length of the window, such as \"30d\"")
            }
            Some(period) => spans(i, window, period, tables.customers.active_for, problems),
        }
    }
}

/// Checks that period, `active_for` and resolution of a window fit together.
fn spans(i: usize, window: &WindowTable, period: Millis, customers: Millis, problems: &mut Problems) {
    let keys = ["period", "active_for", "resolution"].map(|field| format!("windows[{i}].{field}"));
    let [period_key, active_key, resolution_key] = keys.each_ref().map(String::as_str);
    let settings = window.settings(customers);
    let active_for = Millis::clamped(settings.active_for);
    let resolution = Millis::clamped(settings.resolution);
    if active_for < period {
        problems.add_between(
            &[active_key, period_key],
            format!("\"{active_for}\" is shorter than the period, \"{period}\"; write \"{period}\" or more"),
        );
    }
    if resolution == Millis::ZERO || resolution.get() % MINUTE != 0 {
        let what = format!("\"{resolution}\" is no whole number of minutes; write such as \"1m\", \"15m\" or \"1h\"");
        return problems.add_between(&[resolution_key, period_key], what);
    }
    let divides = |step: i64| period.get() % step == 0 && active_for.get() % step == 0;
    let origin = if window.resolution.is_some() { "" } else { " that follows from the period" };
    for (key, length) in [(period_key, period), (active_key, active_for)] {
        if length.get() % resolution.get() == 0 {
            continue;
        }
        let remedy = match RESOLUTIONS.iter().rfind(|step| **step <= resolution.get() && divides(**step)) {
            Some(step) => format!("write resolution = \"{}\"", Millis::clamped(*step)),
            None => format!("write \"{}\"", rounded_up(length.get(), resolution.get())),
        };
        problems.add_between(
            &[key, period_key, resolution_key, "customers.active_for"],
            format!("\"{length}\" is no whole multiple of the resolution \"{resolution}\"{origin}; {remedy}"),
        );
    }
}

/// The smallest multiple of `step` that is at least as long.
fn rounded_up(millis: i64, step: i64) -> Millis {
    Millis::clamped((millis + step - 1) / step * step)
}

fn calendar(tables: &Tables, problems: &mut Problems) {
    let mut units = BTreeSet::new();
    for (i, calendar) in tables.calendar.iter().enumerate() {
        let name_key = format!("calendar[{i}].name");
        let Some(unit) = calendar.name else {
            problems.add(name_key, "is missing; write \"week\", \"month\", \"quarter\" or \"year\"");
            continue;
        };
        if !units.insert(unit) {
            problems.add(name_key, format!("\"{unit}\" is there already; remove one"));
        }
        let Some(CalendarActiveFor::For(active_for)) = calendar.active_for else { continue };
        let least = unit.longest_days();
        let key = format!("calendar[{i}].active_for");
        if active_for.get() % DAY != 0 {
            problems.add(key, format!("\"{active_for}\" is no whole number of days; write such as \"{least}d\""));
        } else if active_for < Millis::days(least) {
            problems
                .add(key, format!("\"{active_for}\" is shorter than the longest {unit}; write \"{least}d\" or more"));
        }
    }
}

fn time(tables: &Tables, given: &Given, problems: &mut Problems) {
    if tables.time.idle_after == Millis::ZERO {
        problems.add("time.idle_after", "is zero; write how long a silent partition holds time back, such as \"10m\"");
    }
    let rolling = tables.windows.iter().enumerate().map(|(i, window)| {
        let settings = window.settings(tables.customers.active_for);
        (format!("windows[{i}]"), settings.name, settings.period, settings.active_for)
    });
    let calendar = tables.calendar.iter().enumerate().filter_map(|(i, calendar)| {
        let settings = calendar.settings()?;
        let period = i64::from(settings.unit.longest_days()) * DAY;
        let active_for = settings.active_for_days.map_or(period, |days| i64::from(days) * DAY);
        Some((format!("calendar[{i}]"), settings.name, period, active_for))
    });
    let longest = rolling.chain(calendar).max_by_key(|(_, _, period, active_for)| period + active_for);
    if let Some((key, name, period, active_for)) = longest {
        let lateness = tables.customers.allowed_lateness;
        let needed = Millis::clamped(period + active_for + lateness.get());
        if tables.time.history < needed {
            let whole_days = rounded_up(needed.get(), DAY);
            problems.add_between(
                &[
                    "time.history",
                    &format!("{key}.period"),
                    &format!("{key}.active_for"),
                    "customers.active_for",
                    "customers.allowed_lateness",
                ],
                format!(
                    "\"{}\" is too short for the window {name:?}, which looks back over its period and active_for, \
                     \"{}\", beyond customers.allowed_lateness, \"{lateness}\"; write \"{whole_days}\" or more",
                    tables.time.history,
                    Millis::clamped(period + active_for),
                ),
            );
        }
    }
    // If a window's name is invalid, it may be the one that is meant.
    let names_are_known = !problems.is_wrong("windows")
        && (0..tables.windows.len()).all(|i| !problems.is_wrong(&format!("windows[{i}].name")));
    if let Some(name) = tables.clv.window.as_deref().filter(|_| given.has("clv.window") && names_are_known)
        && !tables.windows.iter().any(|window| window.name == name)
    {
        let names: Vec<&str> = tables.windows.iter().map(|window| window.name.as_str()).collect();
        let remedy = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the windows are {}", names.join(", ")),
        };
        problems.add("clv.window", format!("{name:?} is no window of [[windows]]; {remedy}"));
    }
}

fn inactivity(tables: &Tables, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for (i, rule) in tables.inactivity.iter().enumerate() {
        let key = |field: &str| format!("inactivity[{i}].{field}");
        let name = rule.name.as_str();
        if name.is_empty() {
            problems.add(key("name"), "is missing; write a name, such as \"lapsing\"");
        } else if !is_legal_name(name) {
            problems.add(
                key("name"),
                format!("{name:?} is no rule name; write lower-case letters, digits, \"_\" and \"-\""),
            );
        } else if !names.insert(name) {
            problems.add(key("name"), format!("{name:?} is the name of an earlier rule; write another"));
        }
        silence(i, rule, problems);
        segment(i, rule, tables, problems);
    }
}

fn silence(i: usize, rule: &RuleTable, problems: &mut Problems) {
    let key = |field: &str| format!("inactivity[{i}].{field}");
    let wrong = ["after", "cadence", "no_session_for"].iter().any(|field| problems.is_wrong(&key(field)));
    match rule.silences().as_slice() {
        [] if wrong => {}
        [] => problems.add(
            format!("inactivity[{i}]"),
            "does not say what silence is; write one of after = \"45d\", no_session_for = \"14d\", or cadence = 3.0 \
             with min and max",
        ),
        [_] => {}
        several => problems.add(
            format!("inactivity[{i}]"),
            format!("says what silence is in several ways, {}; keep one", several.join(" and ")),
        ),
    }
    for (field, length) in [("after", rule.after), ("no_session_for", rule.no_session_for)] {
        if length == Some(Millis::ZERO) {
            problems.add(key(field), "is zero; write how long the silence lasts, such as \"45d\"");
        }
    }
    let Some(cadence) = rule.cadence else {
        for (field, bound) in [("min", rule.min), ("max", rule.max)] {
            if bound.is_some() && !problems.is_wrong(&key("cadence")) {
                problems.add(key(field), "bounds a cadence, and the rule has none; write cadence = 3.0, or remove it");
            }
        }
        return;
    };
    if !(cadence.is_finite() && cadence > 0.0) {
        problems.add(key("cadence"), format!("{cadence} is not above 0; write such as 3.0"));
    }
    for (field, bound) in [("min", rule.min), ("max", rule.max)] {
        match bound {
            None => {
                problems.add(key(field), "is missing; a cadence needs bounds, such as min = \"7d\" and max = \"120d\"")
            }
            Some(Millis::ZERO) => problems.add(key(field), "is zero; write a bound, such as \"7d\""),
            Some(_) => {}
        }
    }
    if let (Some(min), Some(max)) = (rule.min, rule.max)
        && min > max
    {
        problems.add(key("min"), format!("\"{min}\" is longer than max, \"{max}\"; write \"{max}\" or less"));
    }
}

fn segment(i: usize, rule: &RuleTable, tables: &Tables, problems: &mut Problems) {
    let dimensions = &tables.customers.dimensions.0;
    for (name, value) in &rule.segment {
        let key = format!("inactivity[{i}].{}", key_of(&["segment", name]));
        let Some(dimension) = dimensions.iter().find(|dimension| dimension.name == *name) else {
            let remedy = match nearest(name, dimensions.iter().map(|dimension| dimension.name.as_str())) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add it there".to_owned(),
            };
            let what = format!("{name:?} is not among customers.dimensions; {remedy}");
            problems.add_between(&[&key, "customers.dimensions"], what);
            continue;
        };
        let is_fixed = ["none", "unknown", "other"].contains(&value.as_str());
        if !dimension.values.is_empty() && !is_fixed && !dimension.values.contains(value) {
            let what = format!(
                "{value:?} is not among the listed values of {name:?}, so it is \"other\"; list it, or write \
                 \"other\", \"unknown\" (the first order names none) or \"none\" (no order yet)"
            );
            problems.add(key, what);
        }
    }
}

fn alerts(tables: &Tables, problems: &mut Problems) {
    let alerts = &tables.alerts;
    if !(0.0..1.0).contains(&alerts.holdout) {
        problems.add("alerts.holdout", format!("{} is no share from 0 to below 1; write such as 0.1", alerts.holdout));
    }
    if alerts.winback_within == Millis::ZERO {
        problems.add("alerts.winback_within", "is zero; write how long an order counts as a win-back, such as \"30d\"");
    }
    if alerts.max_per_minute == Some(0) {
        problems.add("alerts.max_per_minute", "is 0, so no alert would ever leave; write 1 or more, or leave it out");
    }
    if alerts.backfill && alerts.since.is_some() {
        problems.add("alerts.since", "contradicts alerts.backfill = true, which begins at the beginning; remove one");
    }
    if let Some(hook) = &alerts.webhook {
        webhook(hook, problems);
    }
}

fn webhook(hook: &Webhook, problems: &mut Problems) {
    let host = hook.url.strip_prefix("https://").or_else(|| hook.url.strip_prefix("http://"));
    let authority = host.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if hook.url.is_empty() {
        problems.add("alerts.webhook.url", "is missing; write such as \"https://hooks.example.com/retention\"");
    } else if authority.is_empty() {
        problems.add("alerts.webhook.url", "is no web address; write such as \"https://hooks.example.com/retention\"");
    } else if hook.url.contains(REDACTED) {
        problems
            .add("alerts.webhook.url", format!("holds {REDACTED:?}, which stands for a key in print; write the key"));
    } else if authority.contains('@') {
        problems.add("alerts.webhook.url", "holds a user or password; remove it, alerts are signed with secret_file");
    }
    if hook.secret_file.as_os_str().is_empty() {
        problems
            .add("alerts.webhook.secret_file", "is missing; write the path of a file that holds the signing secret");
    }
    if hook.timeout == Millis::ZERO {
        problems.add("alerts.webhook.timeout", "is zero; write how long an attempt may take, such as \"10s\"");
    }
}

fn http(tables: &Tables, problems: &mut Problems) {
    let is_web = |url: &str| {
        ["https://", "http://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
    };
    if tables.http.dashboards_url.as_deref().is_some_and(|url| !is_web(url)) {
        problems.add("http.dashboards_url", "is no web address; write such as \"https://grafana.example.com/\"");
    }
}

fn service(tables: &Tables, given: &Given, problems: &mut Problems) {
    let url = &tables.checkpoint.url;
    let known = ["file:///", "s3://", "gs://", "az://"];
    let rest = known.iter().find_map(|scheme| url.strip_prefix(scheme));
    if rest.is_none_or(str::is_empty) {
        problems.add(
            "checkpoint.url",
            "is no place for state; write \"file:///absolute/path\", \"s3://bucket/path\", \"gs://bucket/path\" or \
             \"az://container/path\"",
        );
    } else if !url.starts_with("file:") && url.contains('@') {
        problems.add("checkpoint.url", "holds a user or password; remove it, credentials come from the environment");
    }
    if tables.checkpoint.interval < Millis::clamped(100) {
        problems.add(
            "checkpoint.interval",
            format!("\"{}\" is too short; write \"100ms\" or more, such as \"10s\"", tables.checkpoint.interval),
        );
    }
    let checkpoint = &tables.checkpoint;
    if given.has("checkpoint.stale_after") && checkpoint.stale_after <= checkpoint.interval {
        problems.add_between(
            &["checkpoint.stale_after", "checkpoint.interval"],
            format!(
                "\"{}\" is not longer than checkpoint.interval, \"{}\", so every checkpoint would seem late; write \
                 such as \"{}\"",
                checkpoint.stale_after,
                checkpoint.interval,
                Millis::clamped(checkpoint.interval.get().saturating_mul(STALE_INTERVALS))
            ),
        );
    }
}
