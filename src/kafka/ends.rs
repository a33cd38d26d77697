//! Tracks how far each partition was handed out, and which ends were reached. Derived from consumed positions instead
//! of librdkafka's own events.
//!
//! librdkafka's batch call treats an end event (`enable.partition.eof`) as a message and advances the position by one
//! too many (its issue 4844, versions 2.2 to 2.12). After a pause, or after an incremental rebalance, which pauses
//! internally, it would then skip a record.

use std::collections::BTreeMap;

use crate::bus::TopicPartition;

/// The assigned partitions with their progress.
#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<TopicPartition, Known>);

#[derive(Debug)]
struct Known {
    start: i64,
    /// The offset after the last record handed out.
    next: i64,
    reported: Option<i64>,
}

impl Ends {
    /// Starts tracking partitions that are read from these offsets.
    pub fn assigned(&mut self, starts: impl IntoIterator<Item = (TopicPartition, i64)>) {
        self.0.extend(starts.into_iter().map(|(at, start)| (at, Known { start, next: start, reported: None })));
    }

    /// Stops tracking the partitions that match.
    pub fn given_up(&mut self, fits: impl Fn(&TopicPartition) -> bool) {
        self.0.retain(|at, _| !fits(at));
    }

    /// The assigned partitions, in order.
    pub fn all(&self) -> impl ExactSizeIterator<Item = TopicPartition> + '_ {
        self.0.keys().copied()
    }

    /// Notes that records before `end` were handed out. Returns the offset from which records are new: a fetch that was
    /// in flight during a pause may arrive twice.
    pub fn handed_out(&mut self, at: TopicPartition, end: i64) -> i64 {
        let Some(known) = self.0.get_mut(&at) else { return i64::MIN };
        let news = known.next;
        known.next = known.next.max(end);
        news
    }

    /// The ends reached and not yet reported. `positions` holds the consumed position of each of [`Ends::all`],
    /// negative if nothing was consumed since the assignment; `end` returns the end as last fetched.
    pub fn reached(
        &mut self,
        positions: impl Iterator<Item = i64>,
        end: impl Fn(TopicPartition) -> Option<i64>,
    ) -> Vec<(TopicPartition, i64)> {
        let mut reached = Vec::new();
        for ((at, known), position) in self.0.iter_mut().zip(positions) {
            let position = if position < 0 { known.start } else { position };
            if known.reported != Some(position) && end(*at).is_some_and(|end| position >= end) {
                known.reported = Some(position);
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
    fn an_end_is_reported_once_until_more_records_arrive() {
        let [one, other] = [0, 1].map(|n| TopicPartition { topic: TopicIndex(0), partition: Partition(n) });
        let mut ends = Ends::default();
        ends.assigned([(one, 5), (other, 7)]);
        let mut reached = |positions: [i64; 2], end: [Option<i64>; 2]| {
            ends.reached(positions.into_iter(), |at| end[usize::from(at == other)])
        };
        assert_eq!(reached([-1001, -1001], [None, None]), [], "the end is unknown");
        assert_eq!(reached([-1001, -1001], [Some(5), Some(9)]), [(one, 5)], "no record after the start");
        assert_eq!(reached([-1001, 8], [Some(5), Some(9)]), []);
        assert_eq!(reached([6, 9], [Some(7), Some(9)]), [(other, 9)]);
        assert_eq!(reached([7, 9], [Some(7), Some(9)]), [(one, 7)]);
        assert_eq!((ends.handed_out(one, 8), ends.handed_out(one, 7), ends.handed_out(one, 9)), (5, 8, 8));
        ends.given_up(|at| *at == one);
        assert_eq!(ends.handed_out(one, 8), i64::MIN);
        ends.assigned([(other, 9)]);
        assert_eq!(ends.reached([9].into_iter(), |_| Some(9)), [(other, 9)], "reported again after a new assignment");
        assert_eq!(ends.all().collect::<Vec<_>>(), [other]);
    }
}
