//! In which order what the partitions of a source hold goes on: the earliest event time first.
//!
//! An engine refuses what lies too far behind the largest event time of its topic-partition. So nothing may make one
//! source partition run ahead of another while both are read up: of the next events of all partitions the earliest goes
//! first, and a partition whose next event is not known yet holds the others up, unless there is none.
//!
//! Then nothing is later for it. Let W be the largest time that has gone on when an event e of partition A goes. If W
//! came from another partition B, the next event h of A was known then and was not earlier than W; h is e or comes
//! before e in A. So e lies no further behind W than behind the largest time of A up to e: who was in time in the
//! source is in time behind the merge. What arrives in A after A was at its end is not covered by this: it is as late
//! as it came.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::event::Time;

/// Sources in log order, of which the earliest head goes first. Pure.
#[derive(Debug)]
pub struct Merge<T> {
    sources: Vec<Source<T>>,
    /// The head of every source that has one.
    heads: BinaryHeap<Reverse<(Time, usize)>>,
    /// How many sources have no head and may still get one.
    unknown: usize,
}

#[derive(Debug)]
struct Source<T> {
    waiting: VecDeque<(Time, T)>,
    /// Nothing lies behind what waits, as far as is known.
    is_at_end: bool,
}

impl<T> Merge<T> {
    /// Sources of which nothing is known yet.
    #[must_use]
    pub fn new(sources: usize) -> Merge<T> {
        let source = || Source { waiting: VecDeque::new(), is_at_end: false };
        Merge { sources: (0..sources).map(|_| source()).collect(), heads: BinaryHeap::new(), unknown: sources }
    }

    /// Puts an item behind all others of its source; what happened at no time goes as soon as it is at the head.
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

    /// Nothing lies behind what was added to a source: once that has gone on, the source holds nobody up.
    pub fn ended(&mut self, source: usize) {
        let of = &mut self.sources[source];
        if !of.is_at_end {
            of.is_at_end = true;
            self.unknown -= usize::from(of.waiting.is_empty());
        }
    }

    /// Something may come in a source after all: it holds the others up again until [`Merge::ended`].
    pub fn reopened(&mut self, source: usize) {
        let of = &mut self.sources[source];
        if of.is_at_end {
            of.is_at_end = false;
            self.unknown += usize::from(of.waiting.is_empty());
        }
    }

    /// What goes on next, and of which source; `None` while a source holds the others up, or where nothing waits.
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

    /// How many items of a source wait.
    #[must_use]
    pub fn waiting(&self, source: usize) -> usize {
        self.sources[source].waiting.len()
    }

    /// Whether a source has nothing that waits and nothing behind that.
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
    fn a_lane_that_is_not_known_holds_the_others_up_and_one_at_its_end_does_not() {
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
    fn what_has_no_time_goes_in_its_place() {
        let mut merge = Merge::new(2);
        for (source, time, item) in [(0, None, "x"), (0, at(7), "y"), (0, None, "z"), (1, at(5), "b")] {
            merge.add(source, time, item);
        }
        merge.ended(0);
        merge.ended(1);
        assert_eq!(drain(&mut merge), [(0, "x"), (1, "b"), (0, "y"), (0, "z")]);
        assert_eq!(merge.waiting(0), 0);
    }

    /// What a log holds, in its order, and in what portions it becomes known.
    fn logs() -> impl Strategy<Value = (Vec<Vec<i64>>, Vec<usize>)> {
        let log = proptest::collection::vec((0_i64..1_000, -300_i64..300), 0..60).prop_map(|steps| {
            // Times that grow, give or take.
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
        fn nothing_is_lost_no_lane_changes_its_order_and_nothing_becomes_later((logs, choices) in logs()) {
            let mut merge = Merge::new(logs.len());
            let mut known = vec![0; logs.len()];
            let mut out = Vec::new();
            let mut choices = choices.into_iter().cycle();
            while known.iter().zip(&logs).any(|(known, log)| *known <= log.len()) {
                let (Some(source), Some(portion)) = (choices.next(), choices.next()) else { unreachable!("it cycles") };
                // Any source that has something left, in whatever order.
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
