//! Fuzz targets: every parser of data from outside, or read back from a store or topic.
//!
//! The programs in `fuzz_targets` pass these functions to a fuzzer; `tests/it/fuzz.rs` calls them with real messages
//! and files and with damaged ones. None may panic, whatever the input; further properties are asserted. Each returns
//! whether the input was valid in some way, so that the tests can check that valid input gets through.

pub mod checkpoint;
pub mod decode;
pub mod framed;
pub mod outbox;

/// Processes any bytes.
pub type Target = fn(&[u8]) -> bool;

/// Every target by name: that of its program and of its corpus directory.
#[allow(dead_code, reason = "a program has one target")]
pub const ALL: [(&str, Target); 6] = [
    ("decode", decode::decode),
    ("framed", framed::framed),
    ("schema", framed::schema),
    ("checkpoint", checkpoint::checkpoint),
    ("rows", checkpoint::rows),
    ("outbox", outbox::outbox),
];
