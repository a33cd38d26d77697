//! What leaves the daemon: the summary (JSON and table) and the metrics.

pub mod alerts;
pub mod dead_letters;
pub mod metrics;
pub mod summary;
