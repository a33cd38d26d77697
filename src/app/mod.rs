//! Wiring and ordered shutdown: settings become threads, and a stop goes through them in the order of the data.

mod alert_rate;
mod anchors;
pub mod bootstrap;
mod committer;
mod dispatch;
pub mod dlq;
pub mod notify;
pub mod offline;
mod outbox;
mod rejection_breaker;
pub mod repartition;
mod router;
pub mod sample;
mod service;
mod store_tasks;
mod usage;
mod watch;
mod webhook;
pub mod worker_config;

pub(crate) use service::kafka_settings;
pub use service::{Daemon, start};
