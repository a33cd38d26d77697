//! The integration tests, in one binary: one link, and one set of helpers that the compiler can tell unused ones of.
//!
//! `cargo test --test it kafka::` runs those of one module. Messages, files and programs that the tests read stay beside
//! this directory: `tests/{data,formats,golden,kafka,oracle}`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test, what cannot go on is a failure")]

mod alerts;
mod checkpoint;
mod cli;
mod formats;
mod fuzz;
mod kafka;
mod monitoring;
mod oracle;
mod page;
mod support;
mod tidy;
