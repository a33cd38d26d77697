//! How much work the tests do where more is always possible: random histories, seeds, damaged messages, kills.
//!
//! `RETENTIOND_TEST_EFFORT` is `quick` (the default), `full` (used by `.ci/run` before a change is accepted) or
//! `night`. The unit tests and the simulation include this file, so that there is only one table.

use std::env;
use std::sync::LazyLock;

const VARIABLE: &str = "RETENTIOND_TEST_EFFORT";

#[allow(dead_code, reason = "each test binary reads its own numbers")]
#[derive(Debug, PartialEq)]
pub struct Effort {
    /// Random histories that compare the engine's figures with brute force; other property tests of the engine use a
    /// fixed share.
    pub histories: u32,
    /// Seeds of the simulated replicas.
    pub simulation_seeds: u64,
    /// Seeds of the repartitioner with a simulated broker.
    pub repartition_seeds: u64,
    /// Random rules and histories whose alerts are compared with SQL.
    pub alert_seeds: u64,
    /// Damaged messages over all formats.
    pub mutations: u64,
    /// Damaged inputs for each fuzz target.
    pub fuzz_inputs: usize,
    /// Kills of replicas with a real broker.
    pub kills: usize,
    /// Kills of repartitioning replicas with a real broker.
    pub repartition_kills: usize,
    /// Replicas that join or leave with a real broker, for each group protocol.
    pub churn: usize,
}

const QUICK: Effort = Effort {
    histories: 300,
    simulation_seeds: 300,
    repartition_seeds: 60,
    alert_seeds: 12,
    mutations: 30_000,
    fuzz_inputs: 3_000,
    kills: 6,
    repartition_kills: 4,
    churn: 6,
};

const FULL: Effort = Effort {
    histories: 1_500,
    simulation_seeds: 1_000,
    repartition_seeds: 500,
    alert_seeds: 12,
    mutations: 200_000,
    fuzz_inputs: 20_000,
    kills: 12,
    repartition_kills: 6,
    churn: 8,
};

const NIGHT: Effort = Effort {
    histories: 20_000,
    simulation_seeds: 10_000,
    repartition_seeds: 10_000,
    alert_seeds: 200,
    mutations: 1_000_000,
    fuzz_inputs: 1_000_000,
    kills: 50,
    repartition_kills: 50,
    churn: 20,
};

const KNOWN: [(&str, Effort); 3] = [("quick", QUICK), ("full", FULL), ("night", NIGHT)];

/// The effort that the environment requests.
///
/// # Panics
/// If the environment requests an unknown effort.
pub fn effort() -> &'static Effort {
    static ASKED: LazyLock<&Effort> = LazyLock::new(|| {
        let word = env::var_os(VARIABLE).unwrap_or_default();
        of(&word.to_string_lossy()).unwrap_or_else(|error| panic!("{error}"))
    });
    &ASKED
}

fn of(word: &str) -> Result<&'static Effort, String> {
    let word = if word.is_empty() { "quick" } else { word };
    let known = KNOWN.iter().find(|(name, _)| *name == word).map(|(_, effort)| effort);
    known.ok_or_else(|| {
        let names = KNOWN.each_ref().map(|(name, _)| *name).join(", ");
        format!("{VARIABLE}={word}: unknown effort; use one of {names}")
    })
}

#[test]
fn an_unknown_effort_is_an_error_that_names_the_known_ones() {
    assert_eq!(of(""), Ok(&QUICK));
    assert_eq!(of("night"), Ok(&NIGHT));
    // An unknown value in the environment fails here too, whichever other tests run.
    effort();
    let error = of("nigth").unwrap_err();
    assert_eq!(error, "RETENTIOND_TEST_EFFORT=nigth: unknown effort; use one of quick, full, night");
}
