//! Durable state: which state belongs to which offsets, the order of writes and commits, and the file formats.
//!
//! [`protocol`] is the lifecycle of a partition as a pure step from state and event to commands. Its header lists the
//! rules of durability.
//!
//! A checkpoint ([`crate::engine::state`]) becomes up to three files and a manifest that names them and all older files
//! that are still needed:
//!
//! - [`rows`]: customers, in Parquet so that any tool can read them. [`sections`]: everything else, in our own format.
//! - [`manifest`]: which files belong together, and the offsets they include. [`metadata`] is the reference to it in a
//!   committed offset, which is what makes it valid.
//! - [`chain`]: which files are still needed. [`files`]: from a checkpoint to files and from files to an engine.
//! - [`catalogue`]: the checkpoints of a group in the store, for operators.
//! - [`store`]: a directory or bucket of files; the only I/O in this module.

pub mod catalogue;
pub mod chain;
pub mod files;
pub mod manifest;
pub mod metadata;
pub mod protocol;
pub mod rows;
pub mod sections;
pub mod store;

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The SHA-256 of some bytes in hexadecimal.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String never fails.
        _ = write!(text, "{byte:02x}");
        text
    })
}
