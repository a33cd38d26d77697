//! What is tried with any bytes: every reader of what comes from outside, or lay in a store or topic meanwhile.
//!
//! The programs of `fuzz_targets` hand these functions to a fuzzer, and `tests/it/fuzz.rs` calls them with real messages
//! and files and with damaged ones. None may panic, whatever the bytes; what must hold beside that is asserted. Each
//! answers whether the bytes meant something, by which a test sees that it gets as far as that.

pub mod checkpoint;
pub mod decode;
pub mod framed;
pub mod outbox;

/// What is done with some bytes.
pub type Target = fn(&[u8]) -> bool;

/// Every target by its name: that of its program and of its directory in the corpus.
#[allow(dead_code, reason = "a program has one target")]
pub const ALL: [(&str, Target); 6] = [
    ("decode", decode::decode),
    ("framed", framed::framed),
    ("schema", framed::schema),
    ("checkpoint", checkpoint::checkpoint),
    ("rows", checkpoint::rows),
    ("outbox", outbox::outbox),
];
