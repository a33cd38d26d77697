//! Wiring and ordered shutdown: settings become threads, and a stop goes through them in the order of the data.

mod anchors;
pub mod blueprint;
pub mod bootstrap;
mod committer;
mod dispatch;
pub mod dlq;
mod rejection_breaker;
pub mod notify;
pub mod offline;
mod outbox;
mod alert_rate;
pub mod repartition;
mod router;
pub mod sample;
mod service;
mod store_tasks;
mod usage;
mod watch;
mod webhook;

pub(crate) use service::kafka_settings;
pub use service::{Daemon, start};
