//! Tests that need more than this repository say so and return, unless the environment insists.

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::thread;

/// Why a test cannot run here.
#[derive(Clone, Debug)]
pub struct Skip {
    /// The need, as in "needs java and mvn to run a real Kafka broker".
    pub need: &'static str,
    /// What is missing.
    pub because: String,
    /// The environment variable that turns this skip into a failure.
    pub required_by: &'static str,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.need, self.because)
    }
}

/// The value, or a printed skip; a panic where the environment requires the test to run.
pub fn or_skip<T>(found: Result<T, Skip>) -> Option<T> {
    match found {
        Ok(value) => Some(value),
        Err(skip) => {
            let required = env::var(skip.required_by).is_ok_and(|value| !value.is_empty() && value != "0");
            assert!(!required, "{} is set, but the test {skip}", skip.required_by);
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
