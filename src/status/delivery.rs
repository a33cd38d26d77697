//! How the webhook is doing, for those who ask: written by its task, read by a scrape.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How attempts end, as the label `code` says it: a class of statuses, or why there was no answer.
pub const CODES: [&str; 7] = ["2xx", "3xx", "4xx", "5xx", "timeout", "forbidden", "failed"];

/// What the task counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Alerts that the endpoint took.
    pub delivered: u64,
    /// Alerts that were given up, and are dead letters.
    pub given_up: u64,
    /// Attempts by the place of how they ended in [`CODES`].
    pub attempts: [u64; CODES.len()],
    /// When the oldest alert was published that is neither delivered nor given up.
    pub oldest: Option<Instant>,
    /// Whether the endpoint wants nothing any more.
    pub is_disabled: bool,
}

/// The shared place of [`Deliveries`].
#[derive(Debug, Default)]
pub struct DeliveryStatus(Mutex<Deliveries>);

impl DeliveryStatus {
    /// What is counted now.
    #[must_use]
    pub fn read(&self) -> Deliveries {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts something.
    pub fn change(&self, change: impl FnOnce(&mut Deliveries)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
