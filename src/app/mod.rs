//! Wiring and ordered shutdown: settings become threads, and a stop goes through them in the order of the data.

pub mod blueprint;
mod committer;
mod dispatch;
mod notify;
mod outbox;
mod service;
mod vault;

pub use notify::Manager;
pub use service::Daemon;
