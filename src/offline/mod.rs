//! Tools that work beside a running or stopped daemon: `bootstrap`, `rewind`, `checkpoint`, `dlq`, `validate --sample`.

pub mod bootstrap;
pub mod cluster;
pub mod dlq;
pub mod sample;
