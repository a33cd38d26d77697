//! Detects that a source has the wrong format: otherwise a whole topic would become dead letters, and its offsets would
//! be committed. Pure.

use std::collections::BTreeMap;

use crate::decode::Reason;
use crate::worker::Rejected;

/// When a source is considered to have the wrong format.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerRules {
    /// Number of messages of a topic that are evaluated together; 0 disables the breaker.
    pub messages: u64,
    /// Share of rejected messages that trips the breaker, above 0 and up to 1.
    pub share: f64,
}

/// A source with the wrong format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tripped {
    /// Number of evaluated messages.
    pub messages: u64,
    /// Number of rejected messages.
    pub rejected: u64,
    /// The most frequent reason.
    pub reason: Reason,
    /// A rejected message: its index in the batch, and the rejection.
    pub example: (usize, String),
}

/// Counts since the last evaluation.
#[derive(Debug, Clone, Default)]
struct Tally {
    messages: u64,
    /// In messages; a rejected object counts as its fraction of a message.
    rejected: f64,
    reasons: BTreeMap<Reason, u64>,
}

/// Evaluates every topic separately.
#[derive(Debug)]
pub struct RejectionBreaker {
    rules: BreakerRules,
    topics: Vec<Tally>,
}

impl RejectionBreaker {
    /// A breaker that has not counted anything yet.
    #[must_use]
    pub fn new(rules: BreakerRules, topics: usize) -> RejectionBreaker {
        RejectionBreaker { rules, topics: vec![Tally::default(); topics] }
    }

    /// Counts a batch of a topic; returns an error description if the topic trips the breaker.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of messages")]
    pub fn note(&mut self, topic: usize, records: usize, rejected: &[Rejected]) -> Option<Tripped> {
        if self.rules.messages == 0 {
            return None;
        }
        let tally = self.topics.get_mut(topic)?;
        tally.messages += records as u64;
        for rejected in rejected.iter().filter(|rejected| is_of_format(rejected.rejection.reason)) {
            tally.rejected += rejected.part.as_ref().map_or(1.0, |part| 1.0 / part.of as f64);
            *tally.reasons.entry(rejected.rejection.reason).or_default() += 1;
        }
        if tally.messages < self.rules.messages {
            return None;
        }
        let Tally { messages, rejected: count, reasons } = std::mem::take(tally);
        // Tolerates rounding: three thirds may add up to less than one.
        if count == 0.0 || count * (1.0 + 1e-9) < self.rules.share * messages as f64 {
            return None;
        }
        let reason = reasons.into_iter().max_by_key(|(_, count)| *count).map(|(reason, _)| reason)?;
        let of = |wanted: Option<Reason>| {
            rejected.iter().find(|rejected| wanted.is_none_or(|wanted| rejected.rejection.reason == wanted))
        };
        let example = of(Some(reason)).or_else(|| of(None));
        let example = example.map_or((0, String::new()), |example| (example.index, example.rejection.to_string()));
        Some(Tripped { messages, rejected: count.round() as u64, reason, example })
    }
}

/// Whether a rejection suggests the wrong format. One for its time says only that the message was sent early or late.
fn is_of_format(reason: Reason) -> bool {
    !matches!(reason, Reason::InTheFuture | Reason::TooLate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Rejection;

    fn rejected(count: usize, reason: Reason) -> Vec<Rejected> {
        (0..count).map(|index| Rejected::whole(index, Rejection::new(reason, format!("no. {index}")))).collect()
    }

    fn breaker() -> RejectionBreaker {
        RejectionBreaker::new(BreakerRules { messages: 100, share: 0.9 }, 2)
    }

    #[test]
    fn tells_when_nearly_everything_of_a_topic_is_rejected() {
        let mut breaker = breaker();
        assert_eq!(breaker.note(0, 60, &rejected(60, Reason::InvalidJson)), None, "too few to tell");
        assert_eq!(breaker.note(1, 60, &[]), None);
        let found = breaker.note(0, 40, &rejected(30, Reason::MissingField)).unwrap();
        assert_eq!((found.messages, found.rejected, found.reason), (100, 90, Reason::InvalidJson));
        // The last batch contains no example of the most frequent reason.
        assert_eq!(found.example, (0, "missing_field: no. 0".to_owned()));
        assert_eq!(breaker.note(1, 40, &rejected(40, Reason::InvalidJson)), None, "each topic on its own");
    }

    #[test]
    fn some_bad_messages_and_wrong_clocks_do_not_trip_it() {
        let mut breaker = breaker();
        for _ in 0..20 {
            assert_eq!(breaker.note(0, 100, &rejected(89, Reason::WrongType)), None);
            assert_eq!(breaker.note(0, 100, &rejected(100, Reason::TooLate)), None);
            assert_eq!(breaker.note(0, 100, &rejected(100, Reason::InTheFuture)), None);
        }
        assert!(breaker.note(0, 1_000, &rejected(900, Reason::WrongType)).is_some());
        let mut off = RejectionBreaker::new(BreakerRules { messages: 0, share: 0.9 }, 1);
        assert_eq!(off.note(0, 1_000, &rejected(1_000, Reason::WrongType)), None);
    }
}
