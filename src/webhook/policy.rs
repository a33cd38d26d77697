//! Decides what to do after an attempt. Pure: time and randomness are arguments.
//!
//! An endpoint that is down loses no alerts: while it accepts nothing at all, every message is retried and later ones
//! stay in the topic. A message that fails while others get through is given up after `FAILURES` tries and goes to
//! the dead-letter topic. A message that the endpoint refuses for good (most of 4xx, and redirects, which are not
//! followed) is given up after `REFUSALS` tries. Status 410 disables the webhook (Standard Webhooks, "Disabling
//! endpoints").

use std::time::{Duration, Instant};

/// Upper limit of the pause before the second try; it doubles with every try. Full jitter: the pause is drawn uniformly
/// between zero and the limit (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Upper limit of all drawn pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Upper limit of a pause requested by the endpoint.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// Tries after which a refused message is given up.
const REFUSALS: u32 = 3;
/// Tries after which a message that fails while others get through is given up.
const FAILURES: u32 = 12;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with a status.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The pause requested by `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No answer within the timeout.
    TimedOut,
    /// The name resolves only to forbidden addresses.
    Forbidden(String),
    /// No answer, for this reason.
    Failed(String),
}

impl Outcome {
    /// The value of the label `code`.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Outcome::Answered { status: 200..=299, .. } => Class::Taken,
            Outcome::Answered { status: 300..=399, .. } => Class::Redirect,
            Outcome::Answered { status: 400..=499, .. } => Class::Refused,
            Outcome::Answered { .. } => Class::Error,
            Outcome::TimedOut => Class::Timeout,
            Outcome::Forbidden(_) => Class::Forbidden,
            Outcome::Failed(_) => Class::Failed,
        }
    }
}

/// Outcomes by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "see status::delivery::CODES")]
pub enum Class {
    Taken,
    Redirect,
    Refused,
    Error,
    Timeout,
    Forbidden,
    Failed,
}

impl Class {
    /// The index into `status::delivery::CODES`, the values of the label `code`.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// The attempts of a message so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tries {
    /// Number of attempts.
    pub count: u32,
    /// How many of them were refused.
    refusals: u32,
    /// Time of the first attempt.
    first: Option<Instant>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The message is delivered.
    Delivered,
    /// Try again later.
    Retry {
        /// When.
        at: Instant,
        /// Whether the endpoint requested the pause; then it applies to all messages.
        asked: bool,
    },
    /// Give up the message, for this reason.
    GiveUp(String),
    /// Stop posting altogether.
    Disable,
}

/// The action after an attempt. `last_success` is when the endpoint last accepted any message; `draw` is a random
/// number in [0, 1).
pub fn step(tries: &mut Tries, outcome: &Outcome, last_success: Option<Instant>, now: Instant, draw: f64) -> Action {
    tries.count += 1;
    let first = *tries.first.get_or_insert(now);
    let retry = |asked: Option<Duration>, count: u32| {
        let pause = match asked {
            Some(asked) => asked.min(LONGEST_ASKED),
            None => drawn_pause(count, draw),
        };
        Action::Retry { at: now + pause, asked: asked.is_some() }
    };
    match outcome {
        Outcome::Answered { status: 200..=299, .. } => Action::Delivered,
        Outcome::Answered { status: 410, .. } => Action::Disable,
        Outcome::Answered { status, .. } if is_refusal(*status) => {
            tries.refusals += 1;
            if tries.refusals >= REFUSALS {
                return Action::GiveUp(format!("the endpoint answered {status} {REFUSALS} times"));
            }
            retry(None, tries.count)
        }
        _ => {
            let others_pass = last_success.is_some_and(|at| at > first);
            if tries.count >= FAILURES && others_pass {
                return Action::GiveUp(format!(
                    "{} attempts failed while other alerts got through; last failure: {}",
                    tries.count,
                    describe(outcome)
                ));
            }
            let asked = match outcome {
                Outcome::Answered { retry_after, .. } => *retry_after,
                _ => None,
            };
            retry(asked, tries.count)
        }
    }
}

/// Whether the endpoint would refuse the message again: redirects, and 4xx except the temporary ones (timeout, too
/// early, too many requests).
fn is_refusal(status: u16) -> bool {
    matches!(status, 300..=499) && !matches!(status, 408 | 425 | 429)
}

fn drawn_pause(count: u32, draw: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << (count.saturating_sub(1)).min(16));
    doubled.min(LONGEST_PAUSE).mul_f64(draw.clamp(0.0, 1.0))
}

/// Describes an outcome for logs and dead letters.
#[must_use]
pub fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered { status, .. } => format!("status {status}"),
        Outcome::TimedOut => "no answer in time".to_owned(),
        Outcome::Forbidden(why) | Outcome::Failed(why) => why.clone(),
    }
}

/// Parses `Retry-After`: seconds, or an HTTP date. `now` is the wall clock in seconds since the epoch. A date in the
/// past means no pause.
#[must_use]
pub fn retry_after(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(at.as_secs().saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, retry_after: None }
    }

    fn pause(action: &Action, now: Instant) -> Duration {
        match action {
            Action::Retry { at, .. } => *at - now,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_are_drawn_from_zero() {
        let now = Instant::now();
        let mut tries = Tries::default();
        let longest: Vec<_> =
            (0..12).map(|_| pause(&step(&mut tries, &answered(500), None, now, 1.0), now).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        let mut tries = Tries::default();
        assert_eq!(pause(&step(&mut tries, &Outcome::TimedOut, None, now, 0.25), now), Duration::from_millis(250));
        let mut tries = Tries { count: u32::MAX - 1, ..Tries::default() };
        assert_eq!(pause(&step(&mut tries, &answered(503), None, now, 0.5), now), LONGEST_PAUSE / 2);
    }

    #[test]
    fn a_requested_pause_is_kept_up_to_a_limit() {
        let now = Instant::now();
        for (asked, kept) in [(0, 0), (7, 7), (1 << 40, 3600)] {
            let outcome = Outcome::Answered { status: 429, retry_after: Some(Duration::from_secs(asked)) };
            let action = step(&mut Tries::default(), &outcome, None, now, 0.9);
            assert_eq!(action, Action::Retry { at: now + Duration::from_secs(kept), asked: true });
        }
        // An HTTP date in all three formats of RFC 9110.
        let at = 784_111_777;
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(retry_after(date, at - 90), Some(Duration::from_secs(90)), "{date}");
            assert_eq!(retry_after(date, at + 1), Some(Duration::ZERO), "{date}");
        }
        assert_eq!((retry_after(" 120 ", 0), retry_after("soon", 0)), (Some(Duration::from_secs(120)), None));
    }

    #[test]
    fn a_refused_message_is_given_up_after_few_tries_and_410_ends_everything() {
        let now = Instant::now();
        for status in [301, 307, 400, 401, 404, 413, 422] {
            let mut tries = Tries::default();
            for _ in 1..REFUSALS {
                assert!(
                    matches!(step(&mut tries, &answered(status), None, now, 0.5), Action::Retry { .. }),
                    "{status}"
                );
            }
            assert!(matches!(step(&mut tries, &answered(status), None, now, 0.5), Action::GiveUp(_)), "{status}");
        }
        assert_eq!(step(&mut Tries::default(), &answered(410), None, now, 0.5), Action::Disable);
        for status in [200, 201, 204] {
            assert_eq!(step(&mut Tries::default(), &answered(status), None, now, 0.5), Action::Delivered);
        }
    }

    #[test]
    fn an_endpoint_that_is_down_loses_nothing_but_a_message_that_fails_alone_is_given_up() {
        let now = Instant::now();
        let outcomes = [
            answered(408),
            answered(425),
            answered(429),
            answered(500),
            Outcome::TimedOut,
            Outcome::Failed(String::new()),
            Outcome::Forbidden(String::new()),
        ];
        for outcome in outcomes {
            let mut tries = Tries::default();
            for _ in 0..10 * FAILURES {
                let taken_before = Some(now);
                let action = step(&mut tries, &outcome, taken_before, now, 0.5);
                assert!(matches!(action, Action::Retry { .. }), "{outcome:?}: {action:?}");
            }
            let taken_since = Some(now + Duration::from_secs(1));
            let action = step(&mut tries, &outcome, taken_since, now + Duration::from_secs(2), 0.5);
            assert!(matches!(action, Action::GiveUp(_)), "{outcome:?}: {action:?}");
        }
    }
}
