//! Exact churn, retention and lifetime figures from a stream of orders and sessions.
//!
//! The path of a record, and the modules in that order:
//!
//! ```text
//! kafka   -> decode ->  worker -> engine (pure) -> output
//! or files   Event or   one       windows, time,   metrics, summary,
//!            Rejection  thread    customers        alerts, dead letters
//!                                     |
//!                                     +-> http: /metrics, API, page
//! ```
//!
//! - [`event`]: the domain types, independent of any format.
//! - [`bus`]: what the program requires of an event bus, as traits: records, groups, transactions. [`kafka`] is the
//!   only implementation outside tests, and the only module with `unsafe` (the calls to librdkafka). [`files`] reads
//!   event files.
//! - [`status`]: the state that running components publish for metrics, `/readyz` and the page.
//! - [`decode`]: messages to [`event::Event`]s, or to a [`decode::Rejection`] with a reason.
//! - [`registry`]: schemas from a schema registry.
//! - [`worker`]: the engines of one thread's partitions; batches in, answers out.
//! - [`engine`]: pure arithmetic without I/O and clock. [`engine::window`] computes windows, [`engine::axis`] places
//!   events in panes.
//! - [`checkpoint`]: durable state in files; [`checkpoint::protocol`] lists the rules that keep it consistent.
//! - [`output`]: metrics ([`output::metrics`] and its submodules name all of them), the summary, alerts, dead letters.
//! - [`http`]: routes and page.
//! - [`coordinator`]: the poll loop, one per replica. `coordinator/assignment.rs` takes and releases partitions,
//!   `coordinator/checkpoint.rs` writes checkpoints, `coordinator/commit.rs` commits offsets.
//! - [`repartition`]: copies a topic to one that is keyed by customer. [`webhook`]: posts the alerts of the alert topic
//!   to an endpoint. Both run beside the coordinator.
//! - [`daemon`]: startup and ordered shutdown. [`wiring`]: builds clients, workers and topics from the settings.
//!   [`offline`]: the tools behind `bootstrap`, `rewind`, `checkpoint`, `dlq` and `validate --sample`.
//! - [`replay`]: reads history files through the same engine. [`shop`]: the simulated shop of `demo` and `simulate`.
//! - [`cli`]: one file per verb. [`config`]: typed settings. [`tls`]: trusted certificate authorities.
//!
//! `docs/architecture.md` explains how they work together.

pub mod bus;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod coordinator;
pub mod daemon;
pub mod decode;
pub mod engine;
pub mod event;
pub mod files;
pub mod http;
pub mod kafka;
pub mod offline;
pub mod output;
pub mod registry;
pub mod repartition;
pub mod replay;
pub mod shop;
pub mod status;
pub mod tls;
pub mod webhook;
pub mod wiring;
pub mod worker;

/// How much the tests do; shared with the integration tests.
#[cfg(test)]
#[path = "../tests/it/support/effort.rs"]
mod effort;
