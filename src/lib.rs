//! retentiond
pub mod engine;
pub mod event;
pub mod source;
