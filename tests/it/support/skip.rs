//! Tests whose requirements are missing print that and return, unless `RETENTIOND_TEST_REQUIRE` forbids it.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::io::{self, Write};
use std::sync::LazyLock;
use std::thread;

const VARIABLE: &str = "RETENTIOND_TEST_REQUIRE";

/// Requirements of tests, by their names in `RETENTIOND_TEST_REQUIRE`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Need {
    /// Java and Maven, for a real Kafka broker.
    Kafka,
    /// Python with `DuckDB`, for the SQL oracle.
    Oracle,
    /// Python with moto, for object storage.
    Bucket,
    Promtool,
    /// Prometheus and Alertmanager.
    Prometheus,
    /// Chromium.
    Browser,
    /// axe-core, for the accessibility of the page.
    Axe,
    /// `unshare` with user namespaces, for a small disk.
    Namespaces,
    /// helm, for the chart; only `.ci/run` checks for it.
    Helm,
}

const KNOWN: [(&str, Need); 9] = [
    ("kafka", Need::Kafka),
    ("oracle", Need::Oracle),
    ("bucket", Need::Bucket),
    ("promtool", Need::Promtool),
    ("prometheus", Need::Prometheus),
    ("browser", Need::Browser),
    ("axe", Need::Axe),
    ("namespaces", Need::Namespaces),
    ("helm", Need::Helm),
];

/// Why a test cannot run here.
#[derive(Clone, Debug)]
pub struct Skip {
    /// For example "needs java and mvn to run a real Kafka broker".
    pub need: &'static str,
    /// What is missing.
    pub because: String,
    /// The requirement that turns this skip into a failure.
    pub required_as: Need,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.need, self.because)
    }
}

/// The value, or `None` after printing the skip; panics if the environment requires the test to run.
pub fn or_skip<T>(found: Result<T, Skip>) -> Option<T> {
    static REQUIRED: LazyLock<BTreeSet<Need>> = LazyLock::new(|| {
        let words = env::var_os(VARIABLE).unwrap_or_default();
        parse(&words.to_string_lossy()).unwrap_or_else(|error| panic!("{error}"))
    });
    let required: &BTreeSet<Need> = &REQUIRED;
    match found {
        Ok(value) => Some(value),
        Err(skip) => {
            let required = required.contains(&skip.required_as);
            assert!(!required, "{VARIABLE} requires {:?}, but the test {skip}", skip.required_as);
            let test = thread::current().name().unwrap_or("a test").to_owned();
            #[allow(
                clippy::explicit_write,
                reason = "eprintln is captured: a skip that nobody sees looks like a pass"
            )]
            writeln!(io::stderr(), "skipped: {skip}: {test}").unwrap();
            None
        }
    }
}

/// The requirements in a list such as `kafka,oracle`.
fn parse(words: &str) -> Result<BTreeSet<Need>, String> {
    let words = words.split(',').map(str::trim).filter(|word| !word.is_empty());
    let need = |word: &str| {
        let known = KNOWN.iter().find(|(name, _)| *name == word).map(|(_, need)| *need);
        known.ok_or_else(|| {
            let names = KNOWN.map(|(name, _)| name).join(", ");
            format!("{VARIABLE} names {word:?}, which is unknown; it is a list of {names}")
        })
    };
    words.map(need).collect()
}

/// If the environment's list is invalid, this test fails, and so does every test that can be skipped.
#[test]
fn an_unknown_need_is_an_error_that_names_the_known_ones() {
    assert_eq!(parse(""), Ok(BTreeSet::new()));
    assert_eq!(parse("kafka, axe,"), Ok(BTreeSet::from([Need::Kafka, Need::Axe])));
    let error = parse("kafka,orcale").unwrap_err();
    assert!(error.contains("\"orcale\"") && error.contains("kafka, oracle, bucket, promtool"), "{error}");
    parse(&env::var(VARIABLE).unwrap_or_default()).unwrap();
}
