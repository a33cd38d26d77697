//! Wiring and ordered shutdown: settings become threads, and a stop goes through them in the order of the data.

mod anchors;
pub mod blueprint;
pub mod bootstrap;
mod committer;
mod dispatch;
pub mod offline;
mod outbox;
mod service;
mod vault;

pub use service::{Daemon, start};
