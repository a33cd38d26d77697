//! Alerts over HTTP: posts every message of the alert topic unchanged, signed as Standard Webhooks require.
//!
//! - [`policy`]: what to do after an attempt: done, retry at some time, give up, or disable the webhook.
//! - [`queue`]: chooses the next alert, so that each customer's alerts stay in order and a failing one delays no other
//!   customer; and tracks how far the topic is delivered.
//! - [`signature`], [`address`] and [`endpoint`]: one attempt, and the addresses that it must not connect to.
//! - [`task`]: reads the topic, posts alerts, and commits offsets.

pub mod address;
pub mod endpoint;
pub mod policy;
pub mod queue;
pub mod signature;
pub mod task;
