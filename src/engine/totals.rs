//! Counts over all time: referrals and feedback, in panes of an hour.

use std::collections::BTreeMap;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::axis::Pane;
use super::prefix::{Cell, Prefix};
use super::segments::OTHER;
use super::state::arrays::Visitor;
use super::state::plain::plain;
use super::window::Sign;
use crate::event::{HOUR, Time};

/// Number of kinds of feedback that are counted separately; later ones count as [`OTHER`].
pub const KEPT_KINDS: usize = 50;

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Count {
    count: i32,
}

plain!(Count { count });

impl Cell for Count {
    type Sum = i64;
    type Store = Vec<Count>;
    fn add_to(&self, sum: &mut i64) {
        *sum += i64::from(self.count);
    }
}

/// The feedback of one kind.
#[derive(Debug, Clone, Default)]
struct Opinions {
    kind: String,
    hours: Prefix<Count>,
}

/// The counts of a partition.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    referrals: Prefix<Count>,
    /// Feedback of the kind [`OTHER`].
    other: Prefix<Count>,
    kinds: Vec<Opinions>,
}

/// Counts at an instant. They add up over partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TotalsParts {
    /// Referred customers with an order, up to the hour that no engine can change any more.
    pub referrals: i64,
    /// Feedback by kind, without kinds that have none.
    pub feedback: BTreeMap<String, FeedbackParts>,
}

/// The feedback of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedbackParts {
    /// Up to the hour of the instant.
    pub count: i64,
    /// All accepted feedback, whatever its time.
    pub accepted: i64,
}

impl std::ops::AddAssign<&TotalsParts> for TotalsParts {
    fn add_assign(&mut self, other: &TotalsParts) {
        self.referrals += other.referrals;
        for (kind, more) in &other.feedback {
            let sum = match self.feedback.get_mut(kind) {
                Some(sum) => sum,
                None => self.feedback.entry(kind.clone()).or_default(),
            };
            sum.count += more.count;
            sum.accepted += more.accepted;
        }
    }
}

impl Totals {
    /// Books or undoes a referred customer, from the later of first order and earliest mention on.
    pub fn referral(&mut self, since: Time, sign: Sign) {
        self.referrals.cell(hour(since)).count += sign as i32;
    }

    /// Counts feedback.
    pub fn feedback(&mut self, kind: &str, time: Time) {
        self.hours_of(kind).cell(hour(time)).count += 1;
    }

    fn hours_of(&mut self, kind: &str) -> &mut Prefix<Count> {
        if kind == OTHER {
            return &mut self.other;
        }
        let place = match self.kinds.iter().position(|known| known.kind == kind) {
            Some(place) => place,
            None if self.kinds.len() == KEPT_KINDS => return &mut self.other,
            None => {
                self.kinds.push(Opinions { kind: kind.to_owned(), hours: Prefix::default() });
                self.kinds.len() - 1
            }
        };
        &mut self.kinds[place].hours
    }

    /// Feedback up to the hour of `at`, and referrals before the hour of `horizon`.
    #[must_use]
    pub fn parts(&self, at: Time, horizon: Time) -> TotalsParts {
        let kinds = self.kinds.iter().map(|opinions| (opinions.kind.as_str(), &opinions.hours));
        let counted = |(kind, hours): (&str, &Prefix<Count>)| {
            let parts = FeedbackParts { count: hours.upto(hour(at)), accepted: hours.upto(Pane::MAX) };
            (parts.accepted != 0).then(|| (kind.to_owned(), parts))
        };
        TotalsParts {
            referrals: self.referrals.upto(hour(horizon) - 1),
            feedback: kinds.chain([(OTHER, &self.other)]).filter_map(counted).collect(),
        }
    }

    /// Folds the hours before `limit` into sums.
    pub fn fold_before(&mut self, limit: Time) {
        let limit = hour(limit);
        self.referrals.fold_before(limit);
        self.other.fold_before(limit);
        self.kinds.iter_mut().for_each(|opinions| opinions.hours.fold_before(limit));
    }

    /// The kinds of feedback that are counted separately, for files.
    #[must_use]
    pub fn kinds(&self) -> Vec<String> {
        self.kinds.iter().map(|opinions| opinions.kind.clone()).collect()
    }

    /// Restores the kinds of a state.
    pub fn resume(&mut self, kinds: Vec<String>) {
        self.kinds = kinds.into_iter().map(|kind| Opinions { kind, hours: Prefix::default() }).collect();
    }

    /// Passes every array to a visitor that saves or restores it.
    pub fn show(&mut self, key: &str, visitor: &mut impl Visitor) {
        let Totals { referrals, other, kinds } = self;
        visitor.visit(&format!("{key}/referrals"), referrals);
        visitor.visit(&format!("{key}/feedback/other"), other);
        for (number, Opinions { kind: _, hours }) in kinds.iter_mut().enumerate() {
            visitor.visit(&format!("{key}/feedback/{number}"), hours);
        }
    }

    /// Memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let kinds: usize = self.kinds.iter().map(|opinions| opinions.kind.capacity() + opinions.hours.bytes()).sum();
        self.referrals.bytes() + self.other.bytes() + kinds
    }
}

fn hour(time: Time) -> Pane {
    Pane::try_from(time.millis() / HOUR).unwrap_or(Pane::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_beyond_the_first_fifty_count_as_other() {
        let mut totals = Totals::default();
        for n in 0..KEPT_KINDS + 2 {
            totals.feedback(&format!("kind {n}"), Time::clamped(HOUR));
        }
        totals.feedback("kind 3", Time::clamped(3 * HOUR));
        totals.feedback(OTHER, Time::clamped(HOUR));
        let mut parts = totals.parts(Time::clamped(2 * HOUR), Time::MIN);
        assert_eq!(parts.feedback.len(), KEPT_KINDS + 1);
        assert_eq!(parts.feedback[OTHER], FeedbackParts { count: 3, accepted: 3 });
        assert_eq!(parts.feedback["kind 3"], FeedbackParts { count: 1, accepted: 2 });
        parts += &parts.clone();
        assert_eq!(parts.feedback["kind 3"], FeedbackParts { count: 2, accepted: 4 });
    }

    #[test]
    fn a_kind_of_which_nothing_was_accepted_is_not_named() {
        assert_eq!(Totals::default().parts(Time::MAX, Time::MAX), TotalsParts::default());
    }
}
