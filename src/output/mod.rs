//! Output of the daemon: summaries (JSON and table), metrics, alerts and dead letters.

pub mod alerts;
pub mod dead_letters;
pub mod metrics;
pub mod summary;
