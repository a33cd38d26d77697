//! Commands that access the cluster and the store without the daemon: `bootstrap`, `rewind`, `checkpoint`, `dlq`,
//! `validate --sample`.

pub mod bootstrap;
pub mod cluster;
pub mod dlq;
pub mod sample;
