//! Every message about a single key or value.

use super::error::Problems;
use super::tests::{load, load_with, mistakes};

#[test]
fn all_mistakes_are_named_at_once() {
    let text = r#"
[kafka]
brokrs = "a:1"
start = "yesterday"
delivery = "exactly-once"
[sources.orders]
topc = "orders"
clock = "yes"
[customers]
active_for = 90
allowed_lateness = "8"
dedup_for = "1d"
[[windows]]
name = "30d"
period = "30d"
[[windows]]
name = "30d"
period = "30"
colour = "red"
[webhook]
url = "x"
[http]
listen = "localhost:9736"
"#;
    assert_eq!(
        mistakes(text, &[]),
        [
            "customers.active_for: 90 is no duration; write \"90d\"",
            "customers.allowed_lateness: \"8\" is no duration; write \"8d\" (the units are w, d, h, m, s and ms)",
            "http.listen: \"localhost:9736\" is no IP address with a port; write \"127.0.0.1:9736\", or \
             \"0.0.0.0:9736\" for all interfaces",
            "kafka.brokrs: is no setting; did you mean \"brokers\"?",
            "kafka.delivery: \"exactly-once\" is not known; write \"exactly_once\" or \"at_least_once\"",
            "kafka.start: \"yesterday\" is no place to start; write \"earliest\", \"latest\" or a time such as \
             \"2026-01-02T03:04:05Z\"",
            "sources.orders.clock: \"yes\" is of the wrong type; write true or false, without quotes",
            "sources.orders.topc: is no setting; did you mean \"topic\"?",
            "webhook: is no setting; write [alerts.webhook]",
            "windows[1].colour: is no setting; the keys here are name, period, active_for, resolution",
            "windows[1].period: \"30\" is no duration; write \"30d\" (the units are w, d, h, m, s and ms)",
            "windows[1].name: \"30d\" is the name of an earlier window; write another",
        ]
    );
}

#[test]
fn keys_of_earlier_versions_are_accepted_with_a_warning_that_says_what_happens_now() {
    let text = "[kafka]\nprotocol = \"consumer\"\nmembership = \"static\"\nmissing_topics = \"exit\"\n\
                [dead_letters]\nstop_share = 2\n";
    assert_eq!(load(text), load("[kafka]\nprotocol = \"consumer\""), "they change nothing");
    let warnings = |file: Option<(&str, &str)>, environment: &[(&str, &str)]| {
        let mut problems = Problems::default();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        super::load::read(file, environment, &mut problems);
        problems.warnings().collect::<Vec<_>>()
    };
    let found = warnings(Some(("x.toml", text)), &[]);
    let begins = [
        ("line 3: kafka.membership: does nothing any more: ", "kafka.instance_id"),
        ("line 4: kafka.missing_topics: does nothing any more: ", "is waited for"),
        ("line 6: dead_letters.stop_share: does nothing any more: ", "dead_letters.stop_after = 0"),
    ];
    assert_eq!(found.len(), begins.len(), "{found:?}");
    for (warning, (begin, now)) in found.iter().zip(begins) {
        assert!(warning.starts_with(begin) && warning.contains(now), "{warning}");
    }
    let found = warnings(None, &[("RETENTIOND__KAFKA__MISSING_TOPICS", "wait")]);
    assert!(found[0].ends_with("(set by the environment variable RETENTIOND__KAFKA__MISSING_TOPICS)"), "{found:?}");
    assert_eq!(warnings(Some(("x.toml", "[kafka]\ngroup_id = \"a\"")), &[]), Vec::<String>::new());
}

#[test]
fn each_mistake_in_the_structure_is_explained() {
    for (text, expected) in [
        ("[kafak]\na = 1", "kafak: is no setting; did you mean \"kafka\"?"),
        (
            "[telemetry]\na = 1",
            "telemetry: is no section; the sections are kafka, sources, schema_registry, customers, windows, calendar, \
             time, clv, currency, inactivity, alerts, dead_letters, checkpoint, http",
        ),
        (
            "[kafka]\nsecurity.protocol = \"SSL\"",
            "kafka.security: is no setting; librdkafka options belong in [kafka.options], the keys here are brokers, \
             group_id, start, instance_id, delivery, protocol, partitioner, options",
        ),
        ("kafka = 5", "kafka: 5 is of the wrong type; write a table with keys, as in [kafka]"),
        ("[kafka]\nbrokers = [\"a:1\"]", "kafka.brokers: a list is of the wrong type; write text in quotes"),
        ("[kafka]\ndelivery = 0", "kafka.delivery: 0 is of the wrong type; write text in quotes"),
        ("[kafka.options]\n\"a.b\" = [1]", "kafka.options.\"a.b\": a list is of the wrong type; write text in quotes"),
        ("sources = [\"orders\"]", "sources: a list is of the wrong type; write a table, as in [sources.orders]"),
        (
            "[sources]\norders = \"o\"",
            "sources.orders: \"o\" is of the wrong type; write a table with keys, as in [kafka]",
        ),
        (
            "[sources.orders]\nformat = \"xml\"",
            "sources.orders.format: \"xml\" is not known; write \"native\", \"segment\", \"shopify\", \"stripe\", \
             \"cloudevents\", \"debezium\", \"ga4\", \"snowplow\" or \"custom\"",
        ),
        ("http = [\"0.0.0.0:80\"]", "http: a list is of the wrong type; write a table with keys, as in [kafka]"),
        ("windows = [[\"a\"]]", "windows[0]: a list is of the wrong type; write a table with keys, as in [kafka]"),
        (
            "[alerts]\nwebhook = []",
            "alerts.webhook: a list is of the wrong type; write a table with keys, as in [kafka]",
        ),
        ("[sources]\na = []", "sources.a: a list is of the wrong type; write a table with keys, as in [kafka]"),
        ("windws = []", "windws: is no setting; did you mean \"windows\"?"),
    ] {
        assert_eq!(mistakes(text, &[]), [expected], "{text}");
    }
}

#[test]
fn each_mistake_in_a_value_is_explained() {
    for (text, expected) in [
        (
            "[customers]\nloyal_orders = -1",
            "customers.loyal_orders: -1 is out of range; write a whole number, at least 0 and without quotes",
        ),
        (
            "[customers]\nloyal_orders = \"5\"",
            "customers.loyal_orders: \"5\" is of the wrong type; write a whole number, at least 0 and without quotes",
        ),
        (
            "[customers]\ndimensions = \"channel\"",
            "customers.dimensions: \"channel\" is of the wrong type; write a list such as [\"channel\"] or a table \
             such as { channel = [\"web\", \"app\"] }",
        ),
        (
            "[customers]\ndimensions = [\"channel\", 5]",
            "customers.dimensions[1]: 5 is of the wrong type; write text in quotes",
        ),
        ("windows = [\"30d\"]", "windows[0]: \"30d\" is of the wrong type; write a table with keys, as in [kafka]"),
        (
            "windows = \"30d\"",
            "windows: \"30d\" is of the wrong type; write a list, as in [[windows]] or [\"a\", \"b\"]",
        ),
        (
            "[[calendar]]\nname = \"fortnight\"",
            "calendar[0].name: \"fortnight\" is not known; write \"week\", \"month\", \"quarter\" or \"year\"",
        ),
        (
            "[time]\nzone = \"Europe/Olso\"",
            "time.zone: \"Europe/Olso\" is no IANA time zone; did you mean \"Europe/Oslo\"?",
        ),
        (
            "[time]\nzone = \"the moon\"",
            "time.zone: \"the moon\" is no IANA time zone; write a name such as \"UTC\" or \"Europe/Oslo\"",
        ),
        (
            "[time]\ndata_begin = 2024-01-01",
            "time.data_begin: \"2024-01-01\" is no instant; write RFC 3339 with an offset, such as \"2026-01-02T03:04:05Z\"",
        ),
        (
            "[alerts]\nsince = \"1900-01-01T00:00:00Z\"",
            "alerts.since: \"1900-01-01T00:00:00Z\" lies outside the years 1970 to 2199; write RFC 3339 with an \
             offset, such as \"2026-01-02T03:04:05Z\"",
        ),
        (
            "[alerts]\nholdout = \"lots\"",
            "alerts.holdout: \"lots\" is of the wrong type; write a number, without quotes",
        ),
        (
            "[[inactivity]]\nname = \"a\"\nafter = \"9d\"\nstage = \"vip\"",
            "inactivity[0].stage: \"vip\" is not known; write \"prospect\", \"new\", \"repeat\" or \"loyal\"",
        ),
        (
            "[[inactivity]]\nname = \"a\"\nafter = \"9d\"\nmin_revenue = \"100\"",
            "inactivity[0].min_revenue: \"100\" is no amount; write an amount and a currency, such as \"100.00 EUR\"",
        ),
        (
            "[[inactivity]]\nname = \"a\"\nafter = \"9d\"\nmin_revenue = \"1.001 EUR\"",
            "inactivity[0].min_revenue: \"1.001 EUR\" is no amount (has more decimals than the currency); write an \
             amount and a currency, such as \"100.00 EUR\"",
        ),
    ] {
        assert_eq!(mistakes(text, &[]), [expected], "{text}");
    }
}

#[test]
fn environment_variables_are_named() {
    for (variable, value, expected) in [
        (
            "RETENTIOND__KAFKA__BROKRS",
            "a:1",
            "kafka.brokrs: is no setting; did you mean \"brokers\"? (set by the environment variable RETENTIOND__KAFKA__BROKRS)",
        ),
        (
            "RETENTIOND__CUSTOMERS__LOYAL_ORDERS",
            "many",
            "customers.loyal_orders: \"many\" is of the wrong type; write a whole number, at least 0 and without \
             quotes (set by the environment variable RETENTIOND__CUSTOMERS__LOYAL_ORDERS)",
        ),
        (
            "RETENTIOND__CUSTOMERS__DEDUP_FOR",
            "1h",
            "customers.dedup_for: \"1h\" is shorter than customers.allowed_lateness, \"1d\", so late duplicates would \
             count twice; write \"1d\" or more (set by the environment variable RETENTIOND__CUSTOMERS__DEDUP_FOR)",
        ),
        (
            "RETENTIOND__WINDOWS__9__PERIOD",
            "1d",
            "RETENTIOND__WINDOWS__9__PERIOD: is number 9 of the list windows, which has 4",
        ),
        (
            "RETENTIOND__WINDOWS__PERIOD",
            "1d",
            "RETENTIOND__WINDOWS__PERIOD: needs a position in the list windows; write its number, 0 for the first",
        ),
        ("RETENTIOND__", "1d", "RETENTIOND__: names no setting; write RETENTIOND__SECTION__KEY"),
    ] {
        assert_eq!(mistakes("", &[(variable, value)]), [expected]);
    }
}

#[test]
fn a_file_that_is_no_toml_is_named_with_the_place_and_without_its_text() {
    let errors = load_with("[kafka.options]\n\"sasl.password\" = hunter2\n", &[]).unwrap_err();
    let text = errors.to_string();
    assert!(text.contains(".toml: is no TOML at line 2, column 19: "), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let missing = super::Settings::load(Some("/nowhere/x.toml".as_ref()), std::iter::empty()).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "/nowhere/x.toml: cannot be read (No such file or directory (os error 2)); check the path and its permissions"
    );
}

#[test]
fn variables_with_single_underscores_are_named() {
    for (name, remedy) in [
        ("RETENTIOND_KAFKA_BROKERS", "RETENTIOND__KAFKA__BROKERS"),
        ("RETENTIOND_KAFKA__BROKERS", "RETENTIOND__KAFKA__BROKERS"),
        ("RETENTIOND_KAFKA_INSTANCE_ID", "RETENTIOND__KAFKA__INSTANCE_ID"),
        ("RETENTIOND_KAFKA_OPTIONS_SASL_PASSWORD", "RETENTIOND__KAFKA__OPTIONS__SASL_PASSWORD"),
        ("RETENTIOND_DEAD_LETTERS_TOPIC", "RETENTIOND__DEAD_LETTERS__TOPIC"),
        ("RETENTIOND_SOURCES_ORDERS_TOPIC", "RETENTIOND__SOURCES__ORDERS__TOPIC"),
    ] {
        let expected = format!("{name}: sets nothing; write {remedy}, with two underscores between the parts");
        assert_eq!(mistakes("", &[(name, "x")]), [expected]);
    }
    // Variables that Kubernetes derives from services, and our own variables that are not settings.
    for name in [
        "RETENTIOND_HTTP_PORT",
        "RETENTIOND_SERVICE_HOST",
        "RETENTIOND_PORT_9736_TCP",
        "RETENTIOND_CONFIG",
        "RETENTIOND_LOG",
    ] {
        assert!(load_with("", &[(name, "tcp://10.0.0.1:9736")]).is_ok(), "{name}");
    }
}

#[test]
fn mistakes_in_a_file_are_reported_with_their_lines() {
    let text = "[kafka]\nbrokrs = \"a:1\"\n\n[customers]\nactive_for = 90\n[[windows]]\nperiod = \"30d\"\n[[windows]]\nname = \"x\"\nperiod = \"30\"\n";
    let said = load_with(text, &[("RETENTIOND__HTTP__LISTEN", "here")]).unwrap_err().to_string();
    let lines: Vec<_> = said.lines().map(|line| line.split(':').next().unwrap_or_default()).collect();
    assert_eq!(lines, ["line 5", "http.listen", "line 2", "line 10", "line 6"], "{said}");
}
