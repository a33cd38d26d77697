//! Wiring and ordered shutdown: settings become threads, and a stop goes through them in the order of the data.

pub mod blueprint;
mod committer;
mod dispatch;
pub mod offline;
mod outbox;
mod service;
mod vault;

pub use service::{Daemon, start};
