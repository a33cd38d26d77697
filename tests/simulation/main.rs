//! A deterministic simulation of several replicas: the real protocol and real engines over an in-memory broker, network
//! and store, with crashes, pauses, lost answers and slow uploads. Time is a number, and a seed always gives the same
//! run.
//!
//! `RETENTIOND_TEST_EFFORT` chooses the number of seeds; `RETENTIOND_SEED=17 cargo test --test simulation -- --nocapture`
//! runs one and prints its last steps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what cannot go on is a failed test")]

mod broker;
mod chance;
mod client;
mod commit;
#[path = "../it/support/effort.rs"]
mod effort;
mod log;
mod replica;
mod run;
mod stats;
mod store;
mod worker;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use effort::effort;
use run::{Failure, Mishap, STANDSTILL, run, run_into};
use stats::Stats;
use world::Fault;

/// Every injected fault must be found within this many seeds.
const SEEDS_FOR_A_FAULT: u64 = 3_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

fn report(failure: &Failure) -> String {
    let Failure { seed, what, last_steps } = failure;
    format!(
        "{last_steps}\nseed {seed}: {what}\n\nreplay it with\nRETENTIOND_SEED={seed} cargo test --test simulation \
         every_seed -- --nocapture"
    )
}

/// Runs these seeds on all processors; stops at the first failure.
fn run_all(seeds: std::ops::Range<u64>, fault: Option<Fault>) -> Result<Stats, Failure> {
    let next = AtomicU64::new(seeds.start);
    let (stats, failure) = (Mutex::new(Stats::default()), Mutex::new(None::<Failure>));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failure.lock().unwrap().is_some() {
                        return;
                    }
                    match run(seed, fault) {
                        Ok(more) => stats.lock().unwrap().add(&more),
                        Err(found) => _ = failure.lock().unwrap().get_or_insert(found),
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap().map_or_else(|| Ok(stats.into_inner().unwrap()), Err)
}

#[test]
fn every_seed_keeps_state_offsets_and_alerts_together() {
    let (seeds, many) = match number("RETENTIOND_SEED") {
        Some(seed) => (seed..seed + 1, false),
        None => (0..effort().simulation_seeds, true),
    };
    match run_all(seeds, None) {
        Ok(stats) => {
            println!("{stats:?}");
            assert!(!many || stats.is_complete(), "not every kind of event occurred: {stats:?}");
        }
        Err(failure) => panic!("{}", report(&failure)),
    }
}

#[test]
fn a_seed_runs_the_same_way_again() {
    for seed in 0..5 {
        let counts = || format!("{:?}", run(seed, None).map_err(|failure| failure.what));
        assert_eq!(counts(), counts());
    }
}

#[test]
fn every_broken_rule_is_found() {
    for fault in Fault::ALL {
        match run_all(0..SEEDS_FOR_A_FAULT, Some(fault)) {
            Ok(stats) => panic!("{fault:?} was not found: {stats:?}"),
            Err(Failure { seed, what, .. }) => {
                assert!(!what.starts_with(STANDSTILL), "{fault:?} only comes to a standstill, at seed {seed}");
                println!("{fault:?}: seed {seed}: {what:.300}");
            }
        }
    }
}

#[test]
fn inconsistent_state_fails_closed() {
    for (mishap, label) in Mishap::ALL {
        for seed in [0, 1, 2, 3] {
            run_into(seed, mishap, label).unwrap();
        }
    }
}
