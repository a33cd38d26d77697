//! Alerts over HTTP: every message of the alert topic is posted as it is, signed as Standard Webhooks prescribe.
//!
//! - [`policy`]: what an answer asks for: done, another try at some time, giving up, or never again.
//! - [`queue`]: who is posted next, so that the order of each customer is kept and one who waits holds nobody else up;
//!   and how far the topic is delivered.
//! - [`signature`], [`address`] and [`endpoint`]: one attempt, and where it must not go.
//! - [`task`]: reads the topic, posts, and commits what is delivered.

pub mod address;
pub mod endpoint;
pub mod policy;
pub mod queue;
pub mod signature;
pub mod task;
