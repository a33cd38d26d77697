//! retentiond
pub mod event;
