//! Every message of the checks between settings.

use super::tests::{load_with, mistakes};

#[test]
fn the_address_of_the_dashboards_is_one() {
    for url in ["https://grafana.example.com/", "http://g"] {
        assert_eq!(
            super::tests::load(&format!("[http]\ndashboards_url = \"{url}\"")).http.dashboards_url.as_deref(),
            Some(url)
        );
    }
    let remedy = "http.dashboards_url: is no web address; write such as \"https://grafana.example.com/\"";
    for url in ["https://", "javascript:alert(1)", "grafana", ""] {
        assert_eq!(mistakes(&format!("[http]\ndashboards_url = \"{url}\""), &[]), [remedy], "{url}");
    }
}

fn window(fields: &str) -> String {
    format!("[[windows]]\nname = \"w\"\n{fields}")
}

fn rule(fields: &str) -> String {
    format!("[customers]\ndimensions = {{ channel = [\"web\"] }}\n[[inactivity]]\nname = \"r\"\n{fields}")
}

fn hook(fields: &str) -> String {
    format!("[alerts.webhook]\nsecret_file = \"/dev/zero/no\"\n{fields}")
}

/// The text has the mistake, and no other besides an unreadable secret.
fn each(cases: &[(String, &str)]) {
    for (text, expected) in cases {
        let mut found = mistakes(text, &[]);
        found.retain(|mistake| !mistake.contains("/dev/zero/no"));
        assert_eq!(found, [*expected], "{text}");
    }
}

fn kafka(fields: &str) -> String {
    format!("[kafka]\n{fields}")
}

#[test]
fn the_cluster_and_its_options() {
    let no_id = "is no instance id; write letters, digits, \".\", \"_\" and \"-\", or leave it out for the host name";
    each(&[
        (kafka("brokers = \"\""), "kafka.brokers: \"\" is no broker; write \"host:port\", such as \"kafka-1:9092\""),
        (
            kafka("brokers = \"a:1,b\""),
            "kafka.brokers: \"b\" is no broker; write \"host:port\", such as \"kafka-1:9092\"",
        ),
        (
            kafka("brokers = \"a:0\""),
            "kafka.brokers: \"a:0\" is no broker; write \"host:port\", such as \"kafka-1:9092\"",
        ),
        (
            kafka("group_id = \"\""),
            "kafka.group_id: is empty; write the name of the consumer group, such as \"retentiond\"",
        ),
        (kafka("instance_id = \"\""), &format!("kafka.instance_id: \"\" {no_id}")),
        (kafka("instance_id = \"a b\""), &format!("kafka.instance_id: \"a b\" {no_id}")),
    ]);
    for (option, remedy) in [
        ("bootstrap.servers", "write kafka.brokers instead"),
        ("group.id", "write kafka.group_id instead"),
        ("group.instance.id", "write kafka.instance_id instead"),
        ("group.protocol", "write kafka.protocol instead"),
        ("auto.offset.reset", "write kafka.start for the first run: a lost position must stop the partition"),
        ("enable.idempotence", "write kafka.delivery instead"),
        ("transactional.id", "remove it: it is kafka.group_id and kafka.instance_id joined"),
        ("isolation.level", "remove it: only committed records count"),
        ("log.queue", "remove it: retentiond forwards the log itself"),
    ] {
        let expected = format!("kafka.options.\"{option}\": is set by retentiond; {remedy}");
        each(&[(kafka(&format!("options = {{ {option} = \"x\" }}")), &expected)]);
    }
    each(&[
        (
            kafka("options = { \"sasl.password\" = \"***\" }"),
            "kafka.options.\"sasl.password\": is \"***\", which stands for a secret in print; write the secret",
        ),
        (
            kafka("options = { \"sasl.password\" = \"a\", \"sasl.password_file\" = \"/dev/zero/no\" }"),
            "kafka.options.\"sasl.password_file\": is set beside the secret itself; keep one of the two",
        ),
    ]);
}

#[test]
fn topics_and_clocks() {
    let named = "is no topic name; write 1 to 249 letters, digits, \".\", \"_\" and \"-\"";
    each(&[
        ("sources = {}".into(), "sources: is empty; write at least [sources.orders], or leave it out"),
        (
            "[sources.s]\nclock = false".into(),
            "sources: hold none that drives time; write clock = true for at least one",
        ),
        ("[sources.a]\ntopic = \"a b\"".into(), &format!("sources.a.topic: \"a b\" {named}")),
        ("[alerts]\ntopic = \"\"".into(), &format!("alerts.topic: \"\" {named}")),
        ("[dead_letters]\ntopic = \"..\"".into(), &format!("dead_letters.topic: \"..\" {named}")),
        (
            "[alerts]\ntopic = \"orders\"".into(),
            "alerts.topic: \"orders\" is sources.orders.topic already; write another topic",
        ),
    ]);
}

#[test]
fn customers() {
    let customers = |fields: &str| format!("[customers]\n{fields}");
    each(&[
        (
            customers("active_for = \"0d\"\nat_risk_min = \"0d\""),
            "customers.active_for: is zero; write how long an order keeps a customer active, such as \"90d\"",
        ),
        (customers("at_risk_cadence = 0"), "customers.at_risk_cadence: 0 is not above 0; write such as 2.0"),
        (customers("at_risk_cadence = nan"), "customers.at_risk_cadence: NaN is not above 0; write such as 2.0"),
        (
            customers("active_for = \"8d\""),
            "customers.at_risk_min: \"7d\" is longer than three quarters of customers.active_for, \"8d\"; write at most \"6d\"",
        ),
        (customers("loyal_orders = 1"), "customers.loyal_orders: 1 is too few; write 2 or more"),
        (
            customers("dedup_for = \"1h\""),
            "customers.dedup_for: \"1h\" is shorter than customers.allowed_lateness, \"1d\", so late duplicates would count \
             twice; write \"1d\" or more",
        ),
        (
            customers("merge_orders_within = \"2d\""),
            "customers.merge_orders_within: \"2d\" is not supported; write \"1d\": orders of one civil day in time.zone are one \
             order",
        ),
        (customers("dimensions = [\"a\", \"b\", \"c\", \"d\", \"e\"]"), "customers.dimensions: are 5; write at most 4"),
        (customers("dimensions = [\"a\", \"a\"]"), "customers.dimensions: name \"a\" twice; remove one"),
        (
            customers("dimensions = [\"\"]"),
            "customers.dimensions: hold an empty name; write the name of an attribute of the events",
        ),
        (
            customers("dimensions = { a = [\"x\", \"x\"] }"),
            "customers.dimensions: list \"x\" twice for \"a\"; remove one",
        ),
    ]);
}

#[test]
fn windows() {
    let named = |name: &str| format!("[[windows]]\nname = \"{name}\"\nperiod = \"1d\"");
    let legal = "is no window name; write lower-case letters, digits, \"_\" and \"-\"";
    each(&[
        ("[[windows]]\nperiod = \"1d\"".into(), "windows[0].name: is missing; write a name, such as \"30d\""),
        (named("30 D"), &format!("windows[0].name: \"30 D\" {legal}")),
        (named("month"), "windows[0].name: \"month\" is the name of a calendar window; write another"),
        (
            named("30d_previous"),
            "windows[0].name: \"30d_previous\" ends in \"_previous\", which marks closed periods; write another",
        ),
        (
            format!("{}\n{}", named("a"), named("a")),
            "windows[1].name: \"a\" is the name of an earlier window; write another",
        ),
        (window(""), "windows[0].period: is missing; write the length of the window, such as \"30d\""),
        (window("period = \"0d\""), "windows[0].period: is zero; write the length of the window, such as \"30d\""),
        (
            window("period = \"30d\"\nactive_for = \"20d\""),
            "windows[0].active_for: \"20d\" is shorter than the period, \"30d\"; write \"30d\" or more",
        ),
        (
            window("period = \"30d\"\nresolution = \"90s\""),
            "windows[0].resolution: \"1m 30s\" is no whole number of minutes; write such as \"1m\", \"15m\" or \"1h\"",
        ),
        (
            window("period = \"30d\"\nresolution = \"0s\""),
            "windows[0].resolution: \"0s\" is no whole number of minutes; write such as \"1m\", \"15m\" or \"1h\"",
        ),
        (
            window("period = \"30d 30m\""),
            "windows[0].period: \"30d 30m\" is no whole multiple of the resolution \"1h\" that follows from the period; \
             write resolution = \"15m\"",
        ),
        (
            window("period = \"30d\"\nactive_for = \"90d 20m\""),
            "windows[0].active_for: \"90d 20m\" is no whole multiple of the resolution \"1h\" that follows from the \
             period; write resolution = \"5m\"",
        ),
        (
            window("period = \"30s\""),
            "windows[0].period: \"30s\" is no whole multiple of the resolution \"1m\" that follows from the period; \
             write \"1m\"",
        ),
        (
            window("period = \"30d\"\nresolution = \"7h\""),
            "windows[0].period: \"30d\" is no whole multiple of the resolution \"7h\"; write resolution = \"3h\"",
        ),
    ]);
}

#[test]
fn calendar_windows() {
    let calendar = |fields: &str| format!("[[calendar]]\n{fields}");
    each(&[
        (calendar(""), "calendar[0].name: is missing; write \"week\", \"month\", \"quarter\" or \"year\""),
        (format!("{0}\n{0}", calendar("name = \"month\"")), "calendar[1].name: \"month\" is there already; remove one"),
        (
            calendar("name = \"month\"\nactive_for = \"36h\""),
            "calendar[0].active_for: \"1d 12h\" is no whole number of days; write such as \"31d\"",
        ),
        (
            calendar("name = \"month\"\nactive_for = \"30d\""),
            "calendar[0].active_for: \"30d\" is shorter than the longest month; write \"31d\" or more",
        ),
        (
            calendar("name = \"quarter\"\nactive_for = \"91d\""),
            "calendar[0].active_for: \"91d\" is shorter than the longest quarter; write \"92d\" or more",
        ),
        (
            calendar("name = \"year\"\nactive_for = \"365d\""),
            "calendar[0].active_for: \"365d\" is shorter than the longest year; write \"366d\" or more",
        ),
    ]);
}

#[test]
fn time_and_lifetime_value() {
    let time = |fields: &str| format!("[time]\n{fields}");
    let looks = "which looks back over its period and active_for,";
    each(&[
        (
            time("idle_after = \"0s\""),
            "time.idle_after: is zero; write how long a silent partition holds time back, such as \"10m\"",
        ),
        (
            time("history = \"700d\""),
            &format!(
                "time.history: \"700d\" is too short for the window \"year\", {looks} \"732d\", beyond \
                 customers.allowed_lateness, \"1d\"; write \"733d\" or more"
            ),
        ),
        (
            format!("[customers]\nallowed_lateness = \"1h\"\n{}", window("period = \"600d\"")),
            &format!(
                "time.history: \"1100d\" is too short for the window \"w\", {looks} \"1200d\", beyond \
                 customers.allowed_lateness, \"1h\"; write \"1201d\" or more"
            ),
        ),
        ("[clv]\nwindow = \"356d\"".into(), "clv.window: \"356d\" is no window of [[windows]]; did you mean \"365d\"?"),
        (
            "[clv]\nwindow = \"year\"".into(),
            "clv.window: \"year\" is no window of [[windows]]; the windows are 7d, 30d, 90d, 365d",
        ),
    ]);
}

#[test]
fn inactivity_rules() {
    let legal = "is no rule name; write lower-case letters, digits, \"_\" and \"-\"";
    each(&[
        ("[[inactivity]]\nafter = \"9d\"".into(), "inactivity[0].name: is missing; write a name, such as \"lapsing\""),
        ("[[inactivity]]\nname = \"A\"\nafter = \"9d\"".into(), &format!("inactivity[0].name: \"A\" {legal}")),
        (
            format!("{}\n[[inactivity]]\nname = \"r\"\nafter = \"9d\"", rule("after = \"9d\"")),
            "inactivity[1].name: \"r\" is the name of an earlier rule; write another",
        ),
        (
            rule(""),
            "inactivity[0]: does not say what silence is; write one of after = \"45d\", no_session_for = \"14d\", or cadence = \
             3.0 with min and max",
        ),
        (
            rule("after = \"9d\"\nno_session_for = \"9d\""),
            "inactivity[0]: says what silence is in several ways, after and no_session_for; keep one",
        ),
        (rule("after = \"0d\""), "inactivity[0].after: is zero; write how long the silence lasts, such as \"45d\""),
        (
            rule("after = \"9d\"\nmin = \"1d\""),
            "inactivity[0].min: bounds a cadence, and the rule has none; write cadence = 3.0, or remove it",
        ),
        (
            rule("cadence = 3.0\nmin = \"1d\""),
            "inactivity[0].max: is missing; a cadence needs bounds, such as min = \"7d\" and max = \"120d\"",
        ),
        (
            rule("cadence = -1\nmin = \"1d\"\nmax = \"2d\""),
            "inactivity[0].cadence: -1 is not above 0; write such as 3.0",
        ),
        (rule("cadence = 3\nmin = \"0d\"\nmax = \"2d\""), "inactivity[0].min: is zero; write a bound, such as \"7d\""),
        (
            rule("cadence = 3\nmin = \"3d\"\nmax = \"2d\""),
            "inactivity[0].min: \"3d\" is longer than max, \"2d\"; write \"2d\" or less",
        ),
        (
            rule("after = \"9d\"\nsegment = { chanel = \"web\" }"),
            "inactivity[0].segment.chanel: \"chanel\" is not among customers.dimensions; did you mean \"channel\"?",
        ),
        (
            rule("after = \"9d\"\nsegment = { country = \"NO\" }"),
            "inactivity[0].segment.country: \"country\" is not among customers.dimensions; add it there",
        ),
        (
            rule("after = \"9d\"\nsegment = { channel = \"app\" }"),
            "inactivity[0].segment.channel: \"app\" is not among the listed values of \"channel\", so it is \"other\"; list it, \
             or write \"other\", \"unknown\" (the first order names none) or \"none\" (no order yet)",
        ),
    ]);
    for value in ["web", "other", "unknown", "none"] {
        let toml = rule(&format!("after = \"9d\"\nsegment = {{ channel = \"{value}\" }}"));
        assert!(load_with(&toml, &[]).is_ok(), "{value}");
    }
}

#[test]
fn alerts_and_webhook() {
    let alerts = |fields: &str| format!("[alerts]\n{fields}");
    let address = "write such as \"https://hooks.example.com/retention\"";
    each(&[
        (alerts("holdout = 1.0"), "alerts.holdout: 1 is no share from 0 to below 1; write such as 0.1"),
        (alerts("holdout = -0.1"), "alerts.holdout: -0.1 is no share from 0 to below 1; write such as 0.1"),
        (
            alerts("winback_within = \"0d\""),
            "alerts.winback_within: is zero; write how long an order counts as a win-back, such as \"30d\"",
        ),
        (
            alerts("max_per_minute = 0"),
            "alerts.max_per_minute: is 0, so no alert would ever leave; write 1 or more, or leave it out",
        ),
        (
            alerts("quiet_hours = \"9pm-8am\""),
            "alerts.quiet_hours: \"9pm-8am\" is no time of day; write such as \"21:00-08:00\"",
        ),
        (
            alerts("quiet_hours = \"08:00-08:00\""),
            "alerts.quiet_hours: \"08:00-08:00\" is no time at all, or all day; write such as \"21:00-08:00\"",
        ),
        (
            alerts("backfill = true\nsince = 2026-01-01T00:00:00Z"),
            "alerts.since: contradicts alerts.backfill = true, which begins at the beginning; remove one",
        ),
        (hook(""), &format!("alerts.webhook.url: is missing; {address}")),
        (hook("url = \"hooks.example.com\""), &format!("alerts.webhook.url: is no web address; {address}")),
        (
            hook("url = \"https://me:hunter2@example.com\""),
            "alerts.webhook.url: holds a user or password; remove it, alerts are signed with secret_file",
        ),
        (
            hook("url = \"https://example.com?***\""),
            "alerts.webhook.url: holds \"***\", which stands for a key in print; write the key",
        ),
        (
            hook("url = \"https://example.com\"\ntimeout = \"0s\""),
            "alerts.webhook.timeout: is zero; write how long an attempt may take, such as \"10s\"",
        ),
        (
            "[alerts.webhook]\nurl = \"https://example.com\"".into(),
            "alerts.webhook.secret_file: is missing; write the path of a file that holds the signing secret",
        ),
    ]);
}

#[test]
fn state_and_http() {
    let place = "is no place for state; write \"file:///absolute/path\", \"s3://bucket/path\", \"gs://bucket/path\" or \
                 \"az://container/path\"";
    for url in ["", "/var/lib/retentiond", "file://relative", "ftp://host/path", "s3://"] {
        each(&[(format!("[checkpoint]\nurl = \"{url}\""), &format!("checkpoint.url: {place}"))]);
    }
    each(&[
        (
            "[checkpoint]\nurl = \"s3://key:hunter2@bucket\"".into(),
            "checkpoint.url: holds a user or password; remove it, credentials come from the environment",
        ),
        (
            "[checkpoint]\ninterval = \"5ms\"".into(),
            "checkpoint.interval: \"5ms\" is too short; write \"100ms\" or more, such as \"10s\"",
        ),
        (
            "[checkpoint]\ninterval = \"30s\"\nstale_after = \"30s\"".into(),
            "checkpoint.stale_after: \"30s\" is not longer than checkpoint.interval, \"30s\", so every checkpoint would seem \
             late; write such as \"5m\"",
        ),
    ]);
}

#[test]
fn the_reporting_currency_and_its_rates() {
    each(&[
        (
            "[currency]\nreporting = \"EUR\"".to_owned(),
            "currency.rates_file: is missing; write the CSV file (date,currency,rate) that says what other currencies are \
             worth in EUR, or remove currency.reporting",
        ),
        (
            "[currency]\nrates_file = \"deploy/rates.csv\"".to_owned(),
            "currency.reporting: is missing; write the currency that currency.rates_file converts into, such as \"EUR\", \
             or remove the file",
        ),
        (
            "[currency]\nreporting = \"Euro\"\nrates_file = \"deploy/rates.csv\"".to_owned(),
            "currency.reporting: \"Euro\" is not a three-letter ISO 4217 currency code in capitals; write such as \"EUR\"",
        ),
        (
            "[currency]\nreporting = \"EUR\"\nrates_file = 3".to_owned(),
            "currency.rates_file: 3 is of the wrong type; write text in quotes",
        ),
        (
            "[currency]\nreporting = \"EUR\"\nrates_file = \"/nowhere/rates.csv\"".to_owned(),
            "currency.rates_file: cannot read \"/nowhere/rates.csv\" (No such file or directory (os error 2)); write a CSV \
             file that is readable for this user",
        ),
    ]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let bad = "2026-01-01,USD,0\n".repeat(12);
    std::io::Write::write_all(&mut file, format!("date,currency,rate\n2026-01-01,CHF,1\n{bad}").as_bytes()).unwrap();
    let path = file.path().display();
    let found = mistakes(&format!("[currency]\nreporting = \"EUR\"\nrates_file = \"{path}\""), &[]);
    assert_eq!(found.len(), 11, "ten of twelve, and how many more: {found:?}");
    let remedy = "write how many EUR one USD is worth, such as 0.92";
    assert_eq!(found[0], format!("{path}, line 3: rate \"0\" is not above 0; {remedy}"));
    assert_eq!(found[9], format!("{path}, line 12: rate \"0\" is not above 0; {remedy}"));
    assert_eq!(found[10], format!("{path}: has 2 more mistake(s); mend those above first"));
}
