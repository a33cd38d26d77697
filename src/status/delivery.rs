//! Status of the webhook: written by its task, read by scrapes.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Values of the label `code`: a status class, or why there was no answer.
pub const CODES: [&str; 7] = ["2xx", "3xx", "4xx", "5xx", "timeout", "forbidden", "failed"];

/// Counts of the webhook task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Alerts that the endpoint accepted.
    pub delivered: u64,
    /// Alerts that were given up, and became dead letters.
    pub given_up: u64,
    /// Attempts by outcome, indexed as [`CODES`].
    pub attempts: [u64; CODES.len()],
    /// Publication time of the oldest alert that is neither delivered nor given up.
    pub oldest: Option<Instant>,
    /// Whether the endpoint asked to stop.
    pub is_disabled: bool,
}

/// Shared [`Deliveries`].
#[derive(Debug, Default)]
pub struct DeliveryStatus(Mutex<Deliveries>);

impl DeliveryStatus {
    /// The current counts.
    #[must_use]
    pub fn read(&self) -> Deliveries {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the counts.
    pub fn change(&self, change: impl FnOnce(&mut Deliveries)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
