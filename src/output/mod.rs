//! What leaves the daemon: the summary (JSON and table) and the metrics.

pub mod summary;
