//! retentiond
pub mod app;
pub mod cli;
pub mod config;
pub mod decode;
pub mod engine;
pub mod event;
pub mod output;
pub mod replay;
pub mod shop;
pub mod source;
pub mod worker;
