//! Wiring and ordered shutdown: settings become threads, and a stop goes through them in the order of the data.

pub mod blueprint;
mod dispatch;
mod service;

pub use service::Daemon;
