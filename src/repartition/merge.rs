//! Merges the partitions of a source by event time, earliest first.
//!
//! An engine rejects events that are too far behind the largest event time of their topic-partition. Therefore no
//! source partition may run ahead of another while both have a backlog: the merge forwards the earliest of the
//! partitions' next events. A partition whose next event is not known yet blocks the others, unless it is at its end.
//!
//! The merge makes no event later than it was. Let W be the largest event time forwarded before an event e of partition
//! A. If W came from another partition B, the next event h of A was known at that time and was not earlier than W; h is
//! e or precedes e in A. So e is no further behind W than behind the largest time of A up to e: an event that was in
//! time in the source is in time after the merge. Events that arrive in A after A was at its end are not covered: they
//! are as late as they came.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::event::Time;

/// Merges sources that are each in log order; the earliest head leaves first. Pure.
#[derive(Debug)]
pub struct Merge<T> {
    sources: Vec<Source<T>>,
    /// The head of every source that has items.
    heads: BinaryHeap<Reverse<(Time, usize)>>,
    /// How many sources are empty but not at their end. They block the others.
    unknown: usize,
}

#[derive(Debug)]
struct Source<T> {
    waiting: VecDeque<(Time, T)>,
    /// Nothing follows the waiting items, as far as is known.
    is_at_end: bool,
}

impl<T> Merge<T> {
    /// A merge of empty sources, none of which is at its end.
    #[must_use]
    pub fn new(sources: usize) -> Merge<T> {
        let source = || Source { waiting: VecDeque::new(), is_at_end: false };
        Merge { sources: (0..sources).map(|_| source()).collect(), heads: BinaryHeap::new(), unknown: sources }
    }

    /// Appends an item to its source. An item without a time leaves as soon as it is at the head.
    pub fn add(&mut self, source: usize, time: Option<Time>, item: T) {
        let time = time.unwrap_or(Time::MIN);
        let of = &mut self.sources[source];
        if of.waiting.is_empty() {
            self.heads.push(Reverse((time, source)));
            if !of.is_at_end {
                self.unknown -= 1;
            }
        }
        of.is_at_end = false;
        of.waiting.push_back((time, item));
    }

    /// Marks a source as being at its end: once its items have left, it no longer blocks the others.
    pub fn ended(&mut self, source: usize) {
        let of = &mut self.sources[source];
        if !of.is_at_end {
            of.is_at_end = true;
            self.unknown -= usize::from(of.waiting.is_empty());
        }
    }

    /// Reverts [`Merge::ended`]: the source may get more items and blocks the others again.
    pub fn reopened(&mut self, source: usize) {
        let of = &mut self.sources[source];
        if of.is_at_end {
            of.is_at_end = false;
            self.unknown += usize::from(of.waiting.is_empty());
        }
    }

    /// The next item and its source; `None` while a source blocks the others, or when no items wait.
    pub fn next(&mut self) -> Option<(usize, T)> {
        if self.unknown > 0 {
            return None;
        }
        let Reverse((_, source)) = self.heads.pop()?;
        let of = &mut self.sources[source];
        let (_, item) = of.waiting.pop_front()?;
        match of.waiting.front() {
            Some((time, _)) => self.heads.push(Reverse((*time, source))),
            None => self.unknown += usize::from(!of.is_at_end),
        }
        Some((source, item))
    }

    /// How many items of a source are waiting.
    #[must_use]
    pub fn waiting(&self, source: usize) -> usize {
        self.sources[source].waiting.len()
    }

    /// Whether a source is empty and at its end.
    #[must_use]
    pub fn is_done(&self, source: usize) -> bool {
        let of = &self.sources[source];
        of.waiting.is_empty() && of.is_at_end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Option<Time> {
        Some(Time::clamped(millis))
    }

    fn drain<T>(merge: &mut Merge<T>) -> Vec<(usize, T)> {
        std::iter::from_fn(|| merge.next()).collect()
    }

    #[test]
    fn an_empty_source_blocks_the_others_unless_it_is_at_its_end() {
        let mut merge = Merge::new(2);
        merge.add(0, at(5), "a");
        assert_eq!(merge.next(), None, "source 1 may hold something earlier");
        merge.add(1, at(3), "b");
        assert_eq!(drain(&mut merge), [(1, "b")], "then it may hold something earlier than a");
        merge.ended(1);
        assert_eq!(drain(&mut merge), [(0, "a")]);
        assert!(merge.is_done(1) && !merge.is_done(0));
        merge.add(1, at(1), "late");
        assert_eq!(merge.next(), None, "source 0 is not at its end");
        merge.ended(0);
        assert_eq!(drain(&mut merge), [(1, "late")]);
        merge.add(0, at(9), "c");
        assert_eq!(merge.next(), None, "source 1 got something after its end, and may get more");
        merge.ended(1);
        merge.ended(1);
        assert_eq!(drain(&mut merge), [(0, "c")]);
        merge.ended(0);
        (0..2).for_each(|source| merge.reopened(source));
        merge.add(0, at(11), "d");
        assert_eq!(merge.next(), None, "source 1 may get something again");
        merge.ended(1);
        assert_eq!(drain(&mut merge), [(0, "d")]);
    }

    #[test]
    fn an_item_without_a_time_leaves_once_it_is_at_the_head() {
        let mut merge = Merge::new(2);
        for (source, time, item) in [(0, None, "x"), (0, at(7), "y"), (0, None, "z"), (1, at(5), "b")] {
            merge.add(source, time, item);
        }
        merge.ended(0);
        merge.ended(1);
        assert_eq!(drain(&mut merge), [(0, "x"), (1, "b"), (0, "y"), (0, "z")]);
        assert_eq!(merge.waiting(0), 0);
    }

    /// The event times of each log in log order, and choices of how much to reveal of which log.
    fn logs() -> impl Strategy<Value = (Vec<Vec<i64>>, Vec<usize>)> {
        let log = proptest::collection::vec((0_i64..1_000, -300_i64..300), 0..60).prop_map(|steps| {
            // Increasing times with some jitter.
            let mut clock = 1_000;
            let time = |(step, jitter): (i64, i64)| {
                clock += step % 40;
                clock + jitter
            };
            steps.into_iter().map(time).collect::<Vec<_>>()
        });
        (proptest::collection::vec(log, 1..6), proptest::collection::vec(0_usize..1_000, 50..400))
    }

    proptest! {
        #[test]
        fn the_merge_loses_nothing_keeps_each_source_in_order_and_makes_nothing_later((logs, choices) in logs()) {
            let mut merge = Merge::new(logs.len());
            let mut known = vec![0; logs.len()];
            let mut out = Vec::new();
            let mut choices = choices.into_iter().cycle();
            while known.iter().zip(&logs).any(|(known, log)| *known <= log.len()) {
                let (Some(source), Some(portion)) = (choices.next(), choices.next()) else { unreachable!("it cycles") };
                // Any source with items left, in arbitrary order.
                let open: Vec<_> = (0..logs.len()).filter(|&source| known[source] <= logs[source].len()).collect();
                let source = open[source % open.len()];
                for _ in 0..portion % 7 + 1 {
                    match logs[source].get(known[source]) {
                        Some(&time) => merge.add(source, at(time), (source, known[source], time)),
                        None => merge.ended(source),
                    }
                    known[source] += 1;
                    if known[source] > logs[source].len() {
                        break;
                    }
                }
                out.extend(drain(&mut merge).into_iter().map(|(_, item)| item));
            }
            merge.sources.iter().enumerate().for_each(|(source, _)| assert!(merge.is_done(source)));
            prop_assert_eq!(out.len(), logs.iter().map(Vec::len).sum::<usize>());
            let mut next = vec![0; logs.len()];
            let (mut all, mut own) = (0, vec![0; logs.len()]);
            for (source, place, time) in out {
                prop_assert_eq!(place, next[source]);
                next[source] += 1;
                own[source] = own[source].max(time);
                prop_assert!(
                    (all - time).max(0) <= own[source] - time,
                    "{} behind all, {} behind its own source", all - time, own[source] - time
                );
                all = all.max(time);
            }
        }
    }
}
