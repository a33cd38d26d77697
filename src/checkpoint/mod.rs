//! Durable state: which state belongs to which offsets, in what order things become true, and the state in files.
//!
//! [`protocol`] is the lifecycle of a partition as a pure step from state and event to commands; the rules of durability
//! stand at its top.
//!
//! A checkpoint ([`crate::engine::state`]) becomes up to three files and a manifest that names them and all older files
//! that are still needed:
//!
//! - [`rows`]: customers, in Parquet for anyone to read. [`sections`]: everything else, in a format of our own.
//! - [`manifest`]: which files belong together, and what of the log they hold. [`metadata`] is its name in a committed
//!   offset, which is what makes it valid.
//! - [`chain`]: which files are needed still. [`files`]: from a checkpoint to its files, and from files to an engine.
//! - [`catalogue`]: what the store holds of a group, for people.
//! - [`store`]: where the files are; the only input and output here.

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
        // Writing to a text never fails.
        _ = write!(text, "{byte:02x}");
        text
    })
}
