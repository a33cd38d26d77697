//! Tests of loading, of rejected configurations and of printing.

use std::collections::BTreeSet;
use std::io::Write;

use super::*;
use crate::event::{Currency, DAY, HOUR, MINUTE};

pub(super) fn load_with(text: &str, environment: &[(&str, &str)]) -> Result<Settings, ConfigErrors> {
    let mut file = tempfile::Builder::new().prefix("retentiond").suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let environment: Vec<_> = environment.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Settings::load(Some(file.path()), environment.into_iter())
}

pub(super) fn load(text: &str) -> Settings {
    load_with(text, &[]).unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
}

fn load_environment(environment: &[(&str, &str)]) -> Settings {
    load_with("", environment).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(super) fn mistakes(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    match load_with(text, environment) {
        Ok(_) => panic!("no mistake in\n{text}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

const REFERENCE: &str = include_str!("../../deploy/retentiond.toml");

/// Sets every key there is.
const EVERYTHING: &str = r#"
[kafka]
brokers = "a:9092, b:9093"
group_id = "shop"
start = 2026-01-02T03:04:05Z
instance_id = "shop-0"
delivery = "at_least_once"
partitioner = "crc32"
[kafka.options]
security.protocol = "SSL"
"fetch.queue.backoff.ms" = 5
"socket.keepalive.enable" = true
[sources.orders]
topic = "shop.orders"
[sources.sessions]
clock = false
[customers]
dimensions = { channel = ["web", "app"], country = [] }
active_for = "60d"
at_risk_cadence = 3
at_risk_min = "3d"
loyal_orders = 4
allowed_lateness = "2d"
dedup_for = "8d"
max_future = "1h"
merge_orders_within = "1d"
[[windows]]
name = "4w"
period = "4w"
active_for = "8w"
resolution = "30m"
[[calendar]]
name = "quarter"
active_for = "92d"
[time]
zone = "europe/oslo"
idle_after = "1m"
history = "800d"
data_begin = "2024-01-01T00:00:00+01:00"
history_whole = true
[clv]
window = "4w"
[currency]
reporting = "EUR"
rates_file = "deploy/rates.csv"
[[inactivity]]
name = "lapsing"
after = "45d"
stage = "loyal"
min_orders = 2
min_revenue = "100 EUR"
segment = { channel = "web", country = "NO" }
[[inactivity]]
name = "rhythm"
cadence = 3.0
min = "7d"
max = "120d"
stage = ["repeat", "loyal"]
[[inactivity]]
name = "away"
no_session_for = "14d"
[alerts]
topic = "a"
backfill = false
since = "2026-01-01T00:00:00Z"
settle = "0s"
holdout = 0.1
salt = "pepper"
winback_within = "14d"
max_per_minute = 600
quiet_hours = "21:00-08:00"
[dead_letters]
topic = "d"
[checkpoint]
url = "s3://bucket/retentiond"
interval = "5s"
[http]
dashboards_url = "https://grafana.example.com/"
listen = "[::]:80"
"#;

const WEBHOOK: &str = r#"
[alerts.webhook]
url = "https://hooks.example.com/retention"
secret_file = "SECRET"
timeout = "3s"
allow_private = true
[http]
token_file = "SECRET"
[kafka.options]
"sasl.password_file" = "SECRET"
"#;

/// Sets every key of mappings and of the schema registry.
const FORMATS: &str = r#"
[customers]
dimensions = ["channel"]
[schema_registry]
url = "http://registry:8081"
user = "ann"
password_file = "SECRET"
timeout = "2s"
[sources.orders]
repartition = true
repartition_topic = "keyed"
format = "debezium"
[sources.orders.mapping]
min_amount = "0.01"
amount_unit = "minor"
amount_scale = 2
time_format = "pattern"
time_pattern = "%Y"
time_zone = "Europe/Oslo"
cancelled = "status"
cancelled_values = ["cancelled"]
deletes = "cancel"
fields = { time = "placed_at" }
constants = { currency = "EUR" }
attributes = { channel = "channel" }
where = { status = ["paid"] }
[sources.shop]
format = "shopify"
mapping = { guests = "email_hash", salt_file = "SECRET", test_orders = "count", amount = "subtotal_price" }
[sources.charges]
format = "stripe"
mapping = { refunds = "refund_objects", root = "detail" }
[sources.clicks]
format = "segment"
mapping = { currency = "EUR", types = { Sold = "order" } }
[sources.rows]
format = "custom"
[sources.rows.mapping]
nobody = ["x"]
tombstones = "erase"
decimal = ","
thousands = "."
negative = "refund"
lines = "sum"
delimiter = ";"
encoding = "windows-1252"
columns = ["order_id"]
[sources.events]
format = "cloudevents"
mapping = { data = "segment" }
"#;

/// The other way to authenticate with the schema registry.
const REGISTRY: &str = r#"
[schema_registry]
url = "https://registry"
token_file = "SECRET"
ca_file = "AUTHORITY"
"#;

fn secret_file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn with_secret_file(text: &str, file: &tempfile::NamedTempFile) -> String {
    text.replace("SECRET", file.path().to_str().unwrap())
}

#[test]
fn nothing_configured_means_the_documented_defaults() {
    let settings = Settings::load(None, std::iter::empty()).unwrap();
    assert_eq!(settings, Settings::default());
    let windows: Vec<_> =
        settings.windows.iter().map(|w| (w.name.as_str(), w.period, w.active_for, w.resolution)).collect();
    assert_eq!(
        windows,
        [
            ("7d", 7 * DAY, 90 * DAY, 15 * MINUTE),
            ("30d", 30 * DAY, 90 * DAY, HOUR),
            ("90d", 90 * DAY, 90 * DAY, 3 * HOUR),
            ("365d", 365 * DAY, 365 * DAY, DAY),
        ]
    );
    let calendar: Vec<_> = settings.calendar.iter().map(|c| (c.name.as_str(), c.unit, c.active_for_days)).collect();
    assert_eq!(
        calendar,
        [("month", Unit::Month, Some(90)), ("quarter", Unit::Quarter, Some(180)), ("year", Unit::Year, Some(366))]
    );
    assert_eq!(settings.sources.keys().collect::<Vec<_>>(), ["orders"]);
    assert_eq!(settings.clv.window.as_deref(), Some("365d"));
}

#[test]
fn every_key_is_read() {
    let settings = load(EVERYTHING);
    assert_eq!(settings.kafka.start.to_string(), "2026-01-02T03:04:05.000Z");
    let options: Vec<_> = settings.kafka.options.iter().collect();
    assert_eq!(
        options,
        [("fetch.queue.backoff.ms", "5"), ("security.protocol", "SSL"), ("socket.keepalive.enable", "true")]
    );
    let sessions = Source { topic: "sessions".into(), clock: false, ..Source::default() };
    assert_eq!(settings.sources["sessions"], sessions);
    let dimensions: Vec<_> =
        settings.customers.dimensions.0.iter().map(|d| (d.name.as_str(), d.values.len())).collect();
    assert_eq!(dimensions, [("channel", 2), ("country", 0)]);
    assert!((settings.customers.at_risk_cadence - 3.0).abs() < f64::EPSILON);
    let window = &settings.windows[0];
    assert_eq!((window.period, window.active_for, window.resolution), (28 * DAY, 56 * DAY, 30 * MINUTE));
    assert_eq!(settings.time.zone.name(), "Europe/Oslo");
    assert_eq!(settings.time.data_begin.map(|time| time.to_string()).as_deref(), Some("2023-12-31T23:00:00.000Z"));
    let [fixed, rhythm, away] = settings.inactivity.as_slice() else { panic!("three rules") };
    assert_eq!(fixed.silence, SilenceSetting::After(Millis::days(45)));
    assert_eq!(fixed.filter.min_revenue.map(|money| money.minor), Some(10_000));
    assert_eq!(rhythm.silence, SilenceSetting::Cadence { factor: 3.0, min: Millis::days(7), max: Millis::days(120) });
    assert_eq!(rhythm.filter.stages, [Stage::Repeat, Stage::Loyal]);
    assert_eq!(away.silence, SilenceSetting::NoSessionFor(Millis::days(14)));
    assert_eq!(settings.currency.reporting.map(Currency::code), Some("EUR"));
    assert_eq!(settings.currency.rates.len(), 8);
    assert_eq!(settings.alerts.settle, Millis::ZERO);
    assert_eq!(settings.checkpoint.interval.to_std(), std::time::Duration::from_secs(5));
}

#[test]
fn defaults_follow_from_other_keys() {
    let settings = load(
        "[customers]\nallowed_lateness = \"3d\"\nactive_for = \"40d\"\n[[windows]]\nname = \"short\"\nperiod = \"10m\"",
    );
    assert_eq!(settings.alerts.settle, Millis::days(3));
    assert_eq!((settings.windows[0].active_for, settings.windows[0].resolution), (40 * DAY, MINUTE));
    assert_eq!(settings.clv.window, None, "no window 365d, no lifetime value");
    assert_eq!(load("calendar = []").calendar, []);
    assert_eq!(load("[sources.shop]").sources["shop"].topic, "shop");
    let lists = [("[\"b\", \"a\"]", "b a"), ("{ b = [], a = [\"x\"] }", "a b")];
    for (written, expected) in lists {
        let settings = load(&format!("[customers]\ndimensions = {written}"));
        let names: Vec<_> = settings.customers.dimensions.0.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names.join(" "), expected);
    }
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
    let environment = [
        ("RETENTIOND__KAFKA__GROUP_ID", "42"),
        ("RETENTIOND__KAFKA__OPTIONS__SECURITY_PROTOCOL", "SSL"),
        ("RETENTIOND__KAFKA__OPTIONS__LINGER_MS", "5"),
        ("RETENTIOND__SOURCES__ORDERS__TOPIC", "other"),
        ("RETENTIOND__SOURCES__ORDERS_EU__TOPIC", "eu"),
        ("RETENTIOND__SOURCES__WEB__CLOCK", "false"),
        ("RETENTIOND__CUSTOMERS__LOYAL_ORDERS", "7"),
        ("RETENTIOND__CUSTOMERS__DIMENSIONS", "[\"channel\"]"),
        ("RETENTIOND__WINDOWS__1__PERIOD", "14d"),
        ("RETENTIOND__WINDOWS__1__NAME", "14d"),
        ("RETENTIOND__ALERTS__HOLDOUT", "0.25"),
        ("RETENTIOND__ALERTS__MAX_PER_MINUTE", "60"),
        ("RETENTIOND__INACTIVITY__0__NAME", "quiet"),
        ("RETENTIOND__INACTIVITY__0__AFTER", "30d"),
        ("RETENTIOND__TIME__DATA_BEGIN", "2024-01-01T00:00:00Z"),
        ("RETENTIOND_TEST_REQUIRE", "kafka"),
        ("PATH", "/bin"),
    ];
    let file = "[kafka]\ngroup_id = \"file\"\nbrokers = \"file:1\"\n[kafka.options]\nsecurity.protocol = \"PLAINTEXT\"\n\
                [sources.orders]\n[sources.orders-eu]\n[[windows]]\nname = \"7d\"\nperiod = \"7d\"\n";
    let settings = load_with(file, &environment).unwrap();
    assert_eq!((settings.kafka.group_id.as_str(), settings.kafka.brokers.as_str()), ("42", "file:1"));
    assert_eq!(settings.kafka.options.iter().collect::<Vec<_>>(), [("linger.ms", "5"), ("security.protocol", "SSL")]);
    let topics: Vec<_> = settings.sources.values().map(|source| (source.topic.as_str(), source.clock)).collect();
    assert_eq!(topics, [("other", true), ("eu", true), ("web", false)]);
    assert_eq!((settings.customers.loyal_orders, settings.customers.dimensions.0.len()), (7, 1));
    assert_eq!(settings.windows.iter().map(|w| w.period).collect::<Vec<_>>(), [7 * DAY, 14 * DAY]);
    assert_eq!(settings.alerts.max_per_minute, Some(60));
    assert_eq!(settings.inactivity[0].silence, SilenceSetting::After(Millis::days(30)));
    assert!(settings.time.data_begin.is_some());

    let settings = load_environment(&[
        ("RETENTIOND__SOURCES__ORDERS__TOPIC", "o"),
        ("RETENTIOND__WINDOWS__3__ACTIVE_FOR", "400d"),
    ]);
    assert_eq!(settings.sources["orders"].topic, "o");
    assert_eq!(settings.windows.iter().map(|w| w.active_for / DAY).collect::<Vec<_>>(), [90, 90, 90, 400]);
}

#[test]
fn the_reference_configuration_is_the_default_and_names_every_key() {
    assert_eq!(load(REFERENCE), Settings::default());

    // The examples after "# " become settings; each must be a key of the right table.
    let examples =
        REFERENCE.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line));
    let uncommented = examples.collect::<Vec<_>>().join("\n");
    let mut written = BTreeSet::new();
    keys("", &toml::from_str(&uncommented).unwrap(), &mut written);

    let secret = secret_file("x");
    let mut known = BTreeSet::new();
    let authority = secret_file(&crate::tls::tests::authority());
    let registry = with_secret_file(REGISTRY, &secret).replace("AUTHORITY", authority.path().to_str().unwrap());
    let all = [EVERYTHING.to_owned(), with_secret_file(WEBHOOK, &secret), with_secret_file(FORMATS, &secret), registry];
    for text in all {
        keys("", &toml::Value::try_from(load(&text)).unwrap(), &mut known);
    }
    assert_eq!(known.difference(&written).collect::<Vec<_>>(), Vec::<&String>::new(), "not in deploy/retentiond.toml");
    assert_eq!(written.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "only in deploy/retentiond.toml");
}

fn is_setting(line: &str) -> bool {
    let is_key = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b"_.\"[]".contains(&b));
    is_key(line) && line.starts_with('[') || line.split_once(" = ").is_some_and(|(left, _)| is_key(left))
}

/// The paths of all values, without list positions; for names chosen by users, only the table.
fn keys(path: &str, value: &toml::Value, found: &mut BTreeSet<String>) {
    let chosen = ["kafka.options", "customers.dimensions", "inactivity.segment"];
    let is_chosen = chosen.contains(&path) || path.starts_with("sources.NAME.mapping.");
    match value {
        toml::Value::Table(table) if !is_chosen => {
            for (key, value) in table {
                let key = if path == "sources" { "NAME" } else { key };
                keys(format!("{path}.{key}").trim_start_matches('.'), value, found);
            }
        }
        toml::Value::Array(list) if list.iter().any(toml::Value::is_table) || path == "inactivity" => {
            list.iter().for_each(|value| keys(path, value, found));
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn the_print_loads_to_the_same_settings() {
    for text in ["", EVERYTHING, "windows = []\ncalendar = []", "[[windows]]\nname = \"1d\"\nperiod = \"1d\"\n"] {
        let settings = load(text);
        let printed = settings.to_redacted_toml();
        assert_eq!(load(&printed), settings, "{printed}");
        assert_eq!(load(&printed).to_redacted_toml(), printed);
    }
    let secret = secret_file("hunter2\n");
    let settings = load(&with_secret_file(WEBHOOK, &secret));
    assert_eq!(load(&settings.to_redacted_toml()), settings);
}

#[test]
fn the_print_fills_in_every_default() {
    let printed =
        load("[kafka.options]\n\"linger.ms\" = 5\n[[inactivity]]\nname = \"a\"\nafter = \"45d\"").to_redacted_toml();
    for line in [
        "brokers = \"localhost:9092\"",
        "start = \"earliest\"",
        "\"linger.ms\" = \"5\"",
        "[sources.orders]",
        "dimensions = []",
        "at_risk_cadence = 2.0",
        "resolution = \"15m\"",
        "active_for = \"180d\"",
        "zone = \"UTC\"",
        "settle = \"1d\"",
        "after = \"45d\"",
        "listen = \"127.0.0.1:9736\"",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is not in\n{printed}");
    }
}

#[test]
fn secrets_are_read_and_never_shown() {
    let secret = secret_file("hunter2\r\n");
    let inline = "\"sasl.password\" = \"hunter2\"\n\"ssl.key.pem\" = \"hunter2\"\n\"sasl.oauthbearer.client.secret\" = \"hunter2\"\n\
                  \"ssl.key.password\" = \"hunter2\"\n";
    let hook = WEBHOOK.replace("/retention", "/retention?key=hunter2");
    let from_files = load(&with_secret_file(&hook, &secret));
    assert_eq!(from_files.kafka.options.get("sasl.password"), Some("hunter2"));
    assert_eq!(from_files.kafka.options.iter().collect::<Vec<_>>(), [("sasl.password", "hunter2")]);
    assert_eq!(from_files.http.token.as_ref().map(Secret::reveal), Some("hunter2"));
    let secret_of_hook = from_files.alerts.webhook.as_ref().and_then(|hook| hook.secret.as_ref());
    assert_eq!(secret_of_hook.map(Secret::reveal), Some("hunter2"));

    let written = load(&format!("[kafka.options]\n{inline}"));
    assert_eq!(written.kafka.options.iter().filter(|(_, value)| *value == "hunter2").count(), 4);
    assert_eq!(written.to_redacted_toml().matches(" = \"***\"").count(), 4);

    let path = secret.path().to_str().unwrap();
    let from_environment = load_environment(&[("RETENTIOND__KAFKA__OPTIONS__SASL_PASSWORD_FILE", path)]);
    assert_eq!(from_environment.kafka.options.get("sasl.password"), Some("hunter2"));
    assert!(from_environment.to_redacted_toml().contains("\"sasl.password_file\" = "));
    for settings in [from_files, written, from_environment] {
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert!(!settings.to_redacted_toml().contains("hunter2"));
    }
}

#[test]
fn secret_files_are_opened_only_where_secrets_are_wanted() {
    let text = WEBHOOK.replace("SECRET", "/nowhere/secret");
    let why = "cannot read \"/nowhere/secret\" (No such file or directory (os error 2)); the file must hold the secret \
    and be readable for this user";
    assert_eq!(
        mistakes(&text, &[]),
        ["kafka.options.\"sasl.password_file\"", "http.token_file", "alerts.webhook.secret_file"]
            .map(|key| format!("{key}: {why}"))
    );
    let file = secret_file(&text);
    let settings = Settings::load_without_secrets(Some(file.path()), std::iter::empty()).unwrap();
    assert_eq!(settings.http.token, None);

    let empty = secret_file("\n");
    let errors = mistakes(&with_secret_file("[http]\ntoken_file = \"SECRET\"", &empty), &[]);
    assert_eq!(errors, [format!("http.token_file: {:?} is empty; write the secret into it", empty.path())]);
}
