//! Wiring and ordered shutdown: settings become threads, and a stop goes through them in the order of the data.

pub mod blueprint;
mod committer;
mod dispatch;
mod outbox;
pub mod sample;
mod service;
mod vault;

pub use service::Daemon;
