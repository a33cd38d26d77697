//! Wiring and ordered shutdown: settings become threads, and a stop goes through them in the order of the data.

pub mod blueprint;
mod committer;
mod dispatch;
mod flood;
pub mod letters;
mod outbox;
mod pace;
mod service;
mod vault;
mod webhook;

pub use service::Daemon;
