//! Durable state: which state belongs to which offsets, and in what order things become true.
//!
//! - [`protocol`]: the life of a partition as a pure step from state and event to commands. The rules of durability
//!   stand at its top.
//! - [`metadata`]: the text beside a committed offset that names the state.

pub mod metadata;
pub mod protocol;
