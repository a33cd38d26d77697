//! Exact churn, retention and lifetime figures from a stream of orders and sessions.
//!
//! The way of a record, and the modules in its order:
//!
//! ```text
//! source  -> decode ->  worker -> engine (pure) -> output
//! Kafka      Event or   one       windows, time,   metrics, summary,
//! or files   Rejection  thread    customers        dead letters
//!                                     |
//!                                     +-> http: /metrics, API, page
//! ```
//!
//! - [`event`]: the words of the domain, free of any format.
//! - [`source`]: where records come from; the only module with `unsafe` (librdkafka's batch call).
//! - [`decode`]: bytes to [`event::Event`], or a [`decode::Rejection`] with a reason.
//! - [`registry`]: schemas that messages name, from a schema registry.
//! - [`worker`]: the engines of one thread's partitions; batches in, answers out.
//! - [`engine`]: pure arithmetic without I/O and clock. A window is defined in [`engine::window`].
//! - [`checkpoint`]: durable state in files; the rules of durability stand in [`checkpoint::protocol`].
//! - [`output`]: metric names ([`output::metrics`]), the summary, alerts and the webhook, dead letters.
//! - [`http`]: routes and page.
//! - [`app`]: wiring; offsets are committed in `app/dispatch.rs`.
//! - [`replay`]: files through the same engine. [`shop`]: the simulated shop of `demo` and `simulate`.
//! - [`cli`]: one file per verb. [`config`]: typed settings. [`tls`]: whom HTTPS trusts.

pub mod app;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod decode;
pub mod engine;
pub mod event;
pub mod http;
pub mod output;
pub mod registry;
pub mod replay;
pub mod shop;
pub mod source;
pub mod tls;
pub mod worker;
