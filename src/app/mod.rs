//! Wiring and ordered shutdown.

pub mod blueprint;
mod dispatch;
