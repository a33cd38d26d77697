//! Output of the program never contains a secret, however it was configured.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use retentiond::config::SECRET_OPTIONS;

use super::common::PATIENCE;
use super::security::{Secured, secured_or_skip, wait_for_orders, wait_for_reason};
use crate::support::daemon::{Daemon, Launch};
use crate::support::free_port;
use crate::support::provider::Provider;

/// A marker in every secret of these tests.
const MARKER: &str = "Mark3d";
const REFERENCE: &str = include_str!("../../../deploy/retentiond.toml");
/// Keys that name files without a secret.
const NO_SECRET: [&str; 2] = ["rates_file", "ca_file"];

/// Fails with the line that contains the marker.
fn assert_unmarked(what: &str, text: &str) {
    let marked = text.lines().find(|line| line.contains(MARKER));
    assert!(marked.is_none(), "{what} holds a secret: {marked:?}");
}

/// Runs a verb and checks its output.
fn assert_silent(what: &str, launch: &Launch) -> Option<i32> {
    let mut program = launch.start();
    let code = program.wait_exit(Duration::from_secs(60)).code();
    assert!(!format!("{}{}", program.stdout(), program.stderr()).is_empty(), "{what} says nothing at all");
    assert_unmarked(&format!("{what}, standard output"), &program.stdout());
    assert_unmarked(&format!("{what}, standard error"), &program.stderr());
    code
}

/// Each secret option in the file, in the environment and as a file name: the output of verbs that do not connect, and
/// error messages for invalid values.
#[test]
fn no_secret_option_is_shown_however_it_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, format!("{MARKER}\n")).unwrap();
    let (mut accepted, mut printed) = (0_u32, 0_usize);
    for option in SECRET_OPTIONS {
        let variable = format!("RETENTIOND__KAFKA__OPTIONS__{}", option.to_uppercase().replace('.', "_"));
        let with = |line: &str| {
            let user = if option == "sasl.password" { "" } else { "\"sasl.password\" = \"Mark3d-too\"\n" };
            format!(
                "[kafka]\nbrokers = \"127.0.0.1:1\"\n[kafka.options]\n\"security.protocol\" = \"SASL_SSL\"\n\
                 \"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"alice\"\ndebug = \"all\"\n{user}{line}\n"
            )
        };
        let path = file.to_str().unwrap();
        let ways = [
            ("in the file", with(&format!("{option:?} = \"{MARKER}\"")), None),
            ("in the environment", with(""), Some((variable.clone(), MARKER))),
            ("by a file", with(&format!("\"{option}_file\" = {path:?}")), None),
            ("by a file that the environment names", with(""), Some((format!("{variable}_FILE"), path))),
        ];
        for (way, toml, variable) in ways {
            // Inconsistent options are refused before they are printed; an option alone is printed.
            let alone = toml.replace("\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"PLAIN\"\n", "");
            for (verb, toml) in [("config", &alone), ("config", &toml), ("validate", &toml)] {
                let mut launch = Launch::verb(verb).config(toml.as_str()).env("RETENTIOND_LOG", "trace");
                if let Some((name, value)) = &variable {
                    launch = launch.env(name, value);
                }
                let code = assert_silent(&format!("{verb} with {option} {way}"), &launch);
                assert!(matches!(code, Some(0 | 78)), "{verb} with {option} {way}: {code:?}");
                accepted += u32::from(code == Some(0) && verb == "validate");
                printed += usize::from(code == Some(0) && toml == &alone);
            }
        }
    }
    // At least the SASL password and the key passwords are accepted as they are.
    assert!(accepted >= 12, "only {accepted} were accepted");
    // All but the two that this build does not support, each in four ways; librdkafka refuses the one that only Java
    // supports (sasl.jaas.config) once it sees its value.
    assert_eq!(printed, 4 * (SECRET_OPTIONS.len() - 2) - 2, "configurations that were printed");
}

/// Every key of the reference configuration that names a file with a secret; the configuration below sets all of them.
fn keys_of_secret_files() -> BTreeSet<&'static str> {
    let keys = REFERENCE.lines().filter_map(|line| line.trim_start_matches("# ").split_once(" = "));
    // Names of librdkafka options contain dots and are quoted.
    let last = |key: &'static str| match key.strip_prefix('"') {
        Some(option) => option.trim_end_matches('"'),
        None => key.rsplit('.').next().unwrap_or(key),
    };
    let keys = keys.map(|(key, _)| last(key)).filter(|key| key.ends_with("_file"));
    keys.filter(|key| !NO_SECRET.contains(key)).collect()
}

/// Requests everything that the daemon serves, and checks it and the log.
fn assert_all_silent(what: &str, daemon: &mut Daemon) {
    let paths = [
        "/",
        "/metrics",
        "/readyz",
        "/healthz",
        "/api/v1/summary",
        "/api/v1/definitions",
        "/api/v1/at-risk",
        "/nowhere",
    ];
    for path in paths {
        let (_, body) = daemon.get(path);
        assert_unmarked(&format!("{what}: {path}"), &body);
    }
    daemon.terminate();
    daemon.wait_exit(PATIENCE);
    let (stdout, stderr) = (daemon.stdout(), daemon.stderr());
    assert!(stderr.contains("SASL") && stderr.contains("DEBUG"), "the log is not as loud as it should be:\n{stderr}");
    assert_unmarked(&format!("{what}: standard output"), &stdout);
    assert_unmarked(&format!("{what}: standard error"), &stderr);
}

fn configuration(secured: &Secured, brokers: &str, secret: &str) -> String {
    let authority = secured.rig("SECURE", &[]).options;
    format!(
        r#"
[kafka]
brokers = "{brokers}"
[kafka.options]
{authority}
"security.protocol" = "SASL_SSL"
"sasl.mechanism" = "SCRAM-SHA-256"
"sasl.username" = "alice"
"sasl.password_file" = "{secret}"
"ssl.key.password" = "{MARKER}"
debug = "all"
[schema_registry]
url = "http://127.0.0.1:1"
user = "ann"
password_file = "{secret}"
[sources.orders]
format = "shopify"
mapping = {{ guests = "email_hash", salt_file = "{secret}" }}
[[inactivity]]
name = "lapsing"
after = "45d"
[alerts.webhook]
url = "http://127.0.0.1:1/"
secret_file = "{secret}"
[http]
token_file = "{secret}"
"#
    )
}

#[test]
fn a_daemon_that_is_not_let_in_shows_no_secret_at_its_loudest() {
    let Some(secured) = secured_or_skip() else { return };
    let secret = secured.password("marked", MARKER);
    let secret = secret.display().to_string();
    let nobody = format!("localhost:{}", free_port());
    let listener = secured.broker.listener("SECURE");
    for (brokers, reason) in [(listener.as_str(), "sasl.password"), (nobody.as_str(), nobody.as_str())] {
        let toml = configuration(secured, brokers, &secret);
        for key in keys_of_secret_files() {
            assert!(toml.contains(key), "{key} is a secret too, and is set by no test of this file");
        }
        for toml in [toml.clone(), toml.replace("user = \"ann\"\npassword_file", "token_file")] {
            assert_eq!(assert_silent("config", &Launch::verb("config").config(toml.as_str())), Some(0));
        }
        let mut daemon = Launch::verb("run").config(toml).env("RETENTIOND_LOG", "trace").http_port(free_port()).start();
        wait_for_reason(&mut daemon, &[reason]);
        assert_all_silent(brokers, &mut daemon);
    }
}

#[test]
fn neither_the_secret_of_a_client_nor_its_token_is_shown() {
    let Some(secured) = secured_or_skip() else { return };
    let provider = Provider::start("service", Duration::from_secs(6));
    let options = |secret: &str| {
        let url = provider.url();
        let rig = secured.rig(
            "TOKENS",
            &[
                ("security.protocol", "SASL_SSL"),
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.method", "oidc"),
                ("sasl.oauthbearer.client.id", "retentiond"),
                ("sasl.oauthbearer.client.secret", secret),
                ("sasl.oauthbearer.token.endpoint.url", &url),
                ("debug", "all"),
            ],
        );
        rig.create_topics(&secured.broker, 1);
        secured.publish(&rig, 0..5);
        rig
    };
    let wrong = options(MARKER);
    let mut daemon = wrong.launch("only").env("RETENTIOND_LOG", "trace").start();
    wait_for_reason(&mut daemon, &["answers 401", "invalid_client", "sasl.oauthbearer.client.secret"]);
    assert_all_silent("a wrong client secret", &mut daemon);

    let right = options(provider.secret());
    let mut daemon = right.launch("only").env("RETENTIOND_LOG", "trace").start();
    wait_for_orders(&mut daemon, 5);
    assert!(provider.issued() > 0);
    daemon.terminate();
    daemon.wait_exit(PATIENCE);
    let said = daemon.stderr();
    for secret in [provider.secret(), "eyJ"] {
        let marked = said.lines().find(|line| line.contains(secret));
        assert!(marked.is_none(), "{marked:?}");
    }
}
