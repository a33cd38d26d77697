//! Rate limit for queries of single customers: scans cost worker time, and tokens must not be guessed at full speed.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Burst size in requests.
const BURST: f64 = 100.0;
/// Sustained requests per second.
const PER_SECOND: f64 = 50.0;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Limit(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    questions: f64,
    at: Instant,
}

/// A request above the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    /// When to try again.
    pub after: Duration,
    pub error: &'static str,
}

impl Limit {
    pub(super) fn new(now: Instant) -> Limit {
        Limit(Mutex::new(Bucket { questions: BURST, at: now }))
    }

    /// Takes a token out of the bucket.
    pub(super) fn take(&self, now: Instant) -> Result<(), TooMany> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * PER_SECOND;
        *bucket = Bucket { questions: (bucket.questions + gained).min(BURST), at: now.max(bucket.at) };
        if bucket.questions < 1.0 {
            let after = Duration::from_secs_f64((1.0 - bucket.questions) / PER_SECOND);
            return Err(TooMany { after, error: "too many questions about single customers" });
        }
        bucket.questions -= 1.0;
        Ok(())
    }
}

impl IntoResponse for TooMany {
    fn into_response(self) -> Response {
        // Whole seconds, rounded up.
        let seconds = self.after.as_secs() + 1;
        let body = json!({"error": self.error, "hint": format!("ask again after {seconds} s")});
        (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds.to_string())], Json(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_a_steady_flow() {
        let start = Instant::now();
        let limit = Limit::new(start);
        assert_eq!((0..1_000).filter(|_| limit.take(start).is_ok()).count(), 100);
        let refused = limit.take(start).unwrap_err();
        assert_eq!(refused.after, Duration::from_millis(20));
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1_000).filter(|_| limit.take(later).is_ok()).count(), 50);
        let much_later = start + Duration::from_secs(1_000);
        assert_eq!((0..1_000).filter(|_| limit.take(much_later).is_ok()).count(), 100);
    }
}
