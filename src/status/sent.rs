//! The alerts and win-backs that this replica committed last, for the API. The alert topic holds all of them; this is a
//! bounded copy of its end.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::Time;

/// Maximum number of messages kept.
pub const KEPT: usize = 10_000;
/// Maximum size of the messages kept.
const KEPT_BYTES: usize = 16 << 20;

/// A committed message.
#[derive(Clone, PartialEq, Eq)]
pub struct SentAlert {
    /// Increases in commit order.
    pub number: u64,
    /// When it was committed, by the wall clock.
    pub at: Time,
    /// The JSON of the message.
    pub message: Arc<[u8]>,
}

/// Omits the message, which names a customer: customers must not appear in logs.
impl fmt::Debug for SentAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SentAlert({})", self.number)
    }
}

/// The messages committed last.
#[derive(Debug, Default)]
pub struct SentAlerts(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    next: u64,
    bytes: usize,
    alerts: VecDeque<SentAlert>,
}

impl SentAlerts {
    /// Adds messages committed at a time, and drops the oldest beyond the limits.
    pub fn add(&self, at: Time, messages: impl IntoIterator<Item = Vec<u8>>) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            ring.bytes += message.len();
            let number = ring.next;
            ring.next += 1;
            ring.alerts.push_back(SentAlert { number, at, message: message.into() });
            while ring.alerts.len() > KEPT || ring.bytes > KEPT_BYTES {
                let Some(oldest) = ring.alerts.pop_front() else { break };
                ring.bytes -= oldest.message.len();
            }
        }
    }

    /// The messages with numbers below `before` (default: all), newest first.
    #[must_use]
    pub fn before(&self, before: Option<u64>) -> Vec<SentAlert> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |alert: &&SentAlert| before.is_none_or(|before| alert.number < before);
        ring.alerts.iter().rev().filter(wanted).cloned().collect()
    }

    /// When the oldest message kept was committed, if older ones were dropped.
    #[must_use]
    pub fn oldest_kept(&self) -> Option<Time> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.alerts.front().filter(|oldest| oldest.number > 0).map(|oldest| oldest.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(alerts: &SentAlerts, before: Option<u64>) -> Vec<u64> {
        alerts.before(before).iter().map(|alert| alert.number).collect()
    }

    #[test]
    fn the_newest_are_kept_and_listed_first() {
        let alerts = SentAlerts::default();
        assert_eq!((numbers(&alerts, None), alerts.oldest_kept()), (vec![], None));
        alerts.add(Time::clamped(1), (0..3).map(|i| vec![i]));
        assert_eq!((numbers(&alerts, None), numbers(&alerts, Some(2))), (vec![2, 1, 0], vec![1, 0]));
        assert_eq!(alerts.oldest_kept(), None, "none was dropped");
        alerts.add(Time::clamped(2), (0..KEPT).map(|_| vec![7]));
        let all = numbers(&alerts, None);
        assert_eq!((all.len(), all.first(), all.last()), (KEPT, Some(&10_002), Some(&3)));
        assert_eq!((alerts.oldest_kept(), numbers(&alerts, Some(3))), (Some(Time::clamped(2)), vec![]));
    }

    #[test]
    fn large_messages_are_limited_by_size() {
        let alerts = SentAlerts::default();
        alerts.add(Time::clamped(1), (0..40).map(|_| vec![0; 1 << 20]));
        assert_eq!((alerts.before(None).len(), alerts.oldest_kept()), (16, Some(Time::clamped(1))));
        assert!(!format!("{alerts:?}").contains("message"));
    }
}
