//! retentiond
pub mod decode;
pub mod engine;
pub mod event;
pub mod output;
pub mod source;
