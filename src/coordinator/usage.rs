//! Checks whether the messages of a source are usable: with a mistyped path or the wrong topic, each message may be
//! valid, but none counts. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::decode::{Reason, Skip};
use crate::event::EventType;
use crate::status::routing::Routing;
use crate::worker::Tally;

/// Minimum number of messages to judge a share, if some of them are used.
const ENOUGH: u64 = 100;
/// Number of messages without a single used one that makes a replica not ready.
const ENOUGH_OF_NONE: u64 = 20;
/// Unused messages, in tenths, that are too many.
const TENTHS: u64 = 9;
/// Maximum number of types in a warning.
const NAMED: usize = 8;

/// How the messages of a source were classified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Events and erasures.
    pub events: u64,
    /// Messages of unknown types.
    pub unknown: u64,
    /// Those types.
    pub types: BTreeSet<String>,
    /// Messages that were skipped.
    pub skipped: BTreeMap<Skip, u64>,
    /// Messages that were rejected.
    pub rejected: BTreeMap<Reason, u64>,
}

impl Usage {
    /// The usage of a topic, from the counts of the workers.
    #[must_use]
    pub fn of_tally(tally: &Tally, topic: usize) -> Usage {
        let events = tally.events.get(topic).copied().unwrap_or_default();
        let unknown = events[EventType::Unknown as usize];
        Usage {
            events: events.iter().sum::<u64>() - unknown,
            unknown,
            types: tally.unknown_types.get(topic).cloned().unwrap_or_default(),
            skipped: some(Skip::ALL, tally.skipped.get(topic).map_or(&[][..], |list| list)),
            rejected: some(Reason::ALL, tally.rejected.get(topic).map_or(&[][..], |list| list)),
        }
    }

    /// The usage of a repartitioned source.
    #[must_use]
    pub fn of_router(router: &Routing) -> Usage {
        Usage {
            events: router.events,
            unknown: router.unknown,
            types: router.unknown_types.clone(),
            skipped: some(Skip::ALL, &router.skipped),
            rejected: some(Reason::ALL, &router.rejected),
        }
    }

    /// Number of messages, or more exactly of their contents: one message can contain several events.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.events + self.unknown + self.skipped.values().sum::<u64>() + self.rejected.values().sum::<u64>()
    }

    /// Number of messages that do not count although they probably should. Messages that repeat others, or that the
    /// configuration filters out, are included only if there are no events at all.
    #[must_use]
    pub fn unused(&self) -> u64 {
        if self.events == 0 {
            return self.messages();
        }
        let suspicious = |skip: &Skip| {
            !matches!(
                skip,
                Skip::Change
                    | Skip::Filtered
                    | Skip::ToldElsewhere
                    | Skip::ToldBefore
                    | Skip::Tombstone
                    | Skip::MinAmount
            )
        };
        let is_of_format = |reason: &Reason| !matches!(reason, Reason::InTheFuture | Reason::TooLate);
        let skipped: u64 = self.skipped.iter().filter(|(skip, _)| suspicious(skip)).map(|(_, count)| count).sum();
        let rejected: u64 =
            self.rejected.iter().filter(|(reason, _)| is_of_format(reason)).map(|(_, count)| count).sum();
        self.unknown + skipped + rejected
    }

    /// Whether to warn. If events were `used_before` this process started, a few messages are not enough to judge.
    #[must_use]
    pub fn is_poor(&self, used_before: bool) -> bool {
        let messages = self.messages();
        let is_first = self.events == 0 && !used_before && messages > 0;
        is_first || messages >= ENOUGH && self.unused() * 10 >= messages * TENTHS
    }

    /// Whether there are enough messages and none was ever used.
    #[must_use]
    pub fn is_none(&self, used_before: bool) -> bool {
        self.events == 0 && !used_before && self.messages() >= ENOUGH_OF_NONE
    }

    /// The unknown types in parentheses; empty without any.
    #[must_use]
    pub fn named_types(&self) -> String {
        let mut named: Vec<&str> = self.types.iter().take(NAMED).map(String::as_str).collect();
        if self.types.len() > NAMED {
            named.push("...");
        }
        if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) }
    }

    /// The unused messages, such as `12 of unknown types (type "page"), 3 skipped as filtered`.
    #[must_use]
    pub fn words(&self) -> String {
        let mut parts = Vec::new();
        if self.unknown > 0 {
            parts.push(format!("{} of unknown types{}", self.unknown, self.named_types()));
        }
        parts.extend(self.skipped.iter().map(|(skip, count)| format!("{count} skipped as {}", skip.label())));
        parts.extend(self.rejected.iter().map(|(reason, count)| format!("{count} rejected for {}", reason.label())));
        parts.join(", ")
    }

    /// The warning about a source's topic.
    #[must_use]
    pub fn warning(&self, topic: &str, source: &str) -> String {
        let (unused, messages, words) = (self.unused(), self.messages(), self.words());
        format!(
            "{unused} of {messages} messages of topic {topic} enter no figure: {words}. Is it the topic that is meant, and do \
             sources.{source}.format and the paths of sources.{source}.mapping fit its messages? `retentiond validate \
             --sample 1000` shows examples"
        )
    }
}

fn some<T: Copy + Ord, const N: usize>(all: [T; N], counts: &[u64]) -> BTreeMap<T, u64> {
    all.into_iter().zip(counts).filter(|(_, count)| **count > 0).map(|(what, count)| (what, *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(events: u64, unknown: u64, skipped: &[(Skip, u64)], rejected: &[(Reason, u64)]) -> Usage {
        let types = if unknown > 0 { [r#"type "page""#.to_owned()].into() } else { BTreeSet::new() };
        let (skipped, rejected) = (skipped.iter().copied().collect(), rejected.iter().copied().collect());
        Usage { events, unknown, types, skipped, rejected }
    }

    #[test]
    fn a_topic_of_which_nothing_is_used_is_poor_at_once_and_blocks_once_it_is_sure() {
        assert!(!Usage::default().is_poor(false) && !Usage::default().is_none(false), "an empty topic");
        for all in [
            usage(0, 1, &[], &[]),
            usage(0, 0, &[(Skip::Filtered, 1)], &[]),
            usage(0, 0, &[(Skip::Tombstone, 1)], &[]),
            usage(0, 0, &[], &[(Reason::TooLate, 1)]),
        ] {
            assert!(all.is_poor(false) && !all.is_none(false), "{all:?}");
            assert!(!all.is_poor(true), "after a restart: {all:?}");
        }
        let none = usage(0, 12, &[(Skip::Guest, 8)], &[]);
        assert!(none.is_none(false) && !none.is_none(true));
        assert!(!usage(1, 99, &[], &[]).is_none(false));
    }

    #[test]
    fn nine_of_ten_of_a_hundred_are_too_many_but_not_those_that_are_left_out_for_good_reasons() {
        assert!(usage(10, 50, &[(Skip::Guest, 20)], &[(Reason::MissingField, 20)]).is_poor(false));
        assert!(!usage(11, 50, &[(Skip::Guest, 20)], &[(Reason::MissingField, 19)]).is_poor(false));
        assert!(!usage(1, 98, &[], &[]).is_poor(false), "too few to tell");
        assert!(!usage(10, 0, &[(Skip::Filtered, 5_000), (Skip::Change, 5_000)], &[]).is_poor(false));
        assert!(!usage(10, 0, &[], &[(Reason::TooLate, 5_000)]).is_poor(false));
    }

    #[test]
    fn the_warning_names_numbers_types_reasons_and_the_remedy() {
        let warning = usage(5, 90, &[(Skip::Filtered, 3)], &[(Reason::MissingField, 2)]).warning("shop", "orders");
        let expected = "92 of 100 messages of topic shop enter no figure: 90 of unknown types (type \"page\"), 3 skipped as \
                        filtered, 2 rejected for missing_field. ";
        assert!(warning.starts_with(expected), "{warning}");
        assert!(warning.contains("sources.orders.format") && warning.contains("validate --sample"), "{warning}");
    }
}
