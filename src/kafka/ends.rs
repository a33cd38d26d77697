//! How far each partition was handed out, and which ends were reached: told from how far each partition was consumed, not by librdkafka's own events.
//!
//! Its batch call takes the event of an end (`enable.partition.eof`) for a message, and counts the position one too far
//! (librdkafka's issue 4844, in the versions from 2.2 to 2.12). After a pause, or after a rebalance in steps, which
//! pauses on its own, it then goes on behind a record that nobody has seen.

use std::collections::BTreeMap;

use crate::bus::TopicPartition;

/// What is assigned, and what of it was told.
#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<TopicPartition, Known>);

#[derive(Debug)]
struct Known {
    start: i64,
    /// Behind the last record that was handed out.
    next: i64,
    told: Option<i64>,
}

impl Ends {
    /// These are read from these offsets on.
    pub fn assigned(&mut self, starts: impl IntoIterator<Item = (TopicPartition, i64)>) {
        self.0.extend(starts.into_iter().map(|(at, start)| (at, Known { start, next: start, told: None })));
    }

    /// What fits is read no longer.
    pub fn given_up(&mut self, fits: impl Fn(&TopicPartition) -> bool) {
        self.0.retain(|at, _| !fits(at));
    }

    /// What is assigned, in order.
    pub fn all(&self) -> impl ExactSizeIterator<Item = TopicPartition> + '_ {
        self.0.keys().copied()
    }

    /// Records up to the one before `end` are handed out. Says from which offset on they are news: a fetch that was
    /// under way during a pause may come twice.
    pub fn handed_out(&mut self, at: TopicPartition, end: i64) -> i64 {
        let Some(known) = self.0.get_mut(&at) else { return i64::MIN };
        let news = known.next;
        known.next = known.next.max(end);
        news
    }

    /// The ends that are reached and were not told yet. `positions` says how far each of [`Ends::all`] was consumed
    /// (negative where nothing was since it was assigned), `end` the end as last fetched.
    pub fn reached(
        &mut self,
        positions: impl Iterator<Item = i64>,
        end: impl Fn(TopicPartition) -> Option<i64>,
    ) -> Vec<(TopicPartition, i64)> {
        let mut reached = Vec::new();
        for ((at, known), position) in self.0.iter_mut().zip(positions) {
            let position = if position < 0 { known.start } else { position };
            if known.told != Some(position) && end(*at).is_some_and(|end| position >= end) {
                known.told = Some(position);
                reached.push((*at, position));
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Partition, TopicIndex};

    #[test]
    fn an_end_is_told_once_until_there_is_more() {
        let [one, other] = [0, 1].map(|n| TopicPartition { topic: TopicIndex(0), partition: Partition(n) });
        let mut ends = Ends::default();
        ends.assigned([(one, 5), (other, 7)]);
        let mut reached = |positions: [i64; 2], end: [Option<i64>; 2]| {
            ends.reached(positions.into_iter(), |at| end[usize::from(at == other)])
        };
        assert_eq!(reached([-1001, -1001], [None, None]), [], "no end is known yet");
        assert_eq!(reached([-1001, -1001], [Some(5), Some(9)]), [(one, 5)], "nothing lies behind the start");
        assert_eq!(reached([-1001, 8], [Some(5), Some(9)]), []);
        assert_eq!(reached([6, 9], [Some(7), Some(9)]), [(other, 9)]);
        assert_eq!(reached([7, 9], [Some(7), Some(9)]), [(one, 7)]);
        assert_eq!((ends.handed_out(one, 8), ends.handed_out(one, 7), ends.handed_out(one, 9)), (5, 8, 8));
        ends.given_up(|at| *at == one);
        assert_eq!(ends.handed_out(one, 8), i64::MIN);
        ends.assigned([(other, 9)]);
        assert_eq!(ends.reached([9].into_iter(), |_| Some(9)), [(other, 9)], "assigned anew, told anew");
        assert_eq!(ends.all().collect::<Vec<_>>(), [other]);
    }
}
