//! Batches that wait for their schemas, in order; other topic-partitions continue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::bus::{Partition, TopicPartition};
use crate::event::Time;

/// A queued item of a topic-partition.
pub(super) enum Queued<B> {
    /// Records, with the latest accepted event time and when they were read.
    Records(B, Time, Instant),
    /// The end of the topic-partition, before this offset.
    End(i64),
}

/// The topic-partitions with waiting items, shared by all workers; the poll loop may pause them.
#[derive(Debug, Clone, Default)]
pub(super) struct Stalled(Arc<Mutex<BTreeSet<TopicPartition>>>);

impl Stalled {
    /// All of them.
    pub fn get(&self) -> BTreeSet<TopicPartition> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, at: TopicPartition, is_stalled: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_stalled {
            all.insert(at);
        } else {
            all.remove(&at);
        }
    }
}

/// The waiting items of one worker.
pub(super) struct Waiting<B> {
    queues: BTreeMap<TopicPartition, VecDeque<Queued<B>>>,
    stalled: Stalled,
}

impl<B> Waiting<B> {
    pub fn new(stalled: Stalled) -> Waiting<B> {
        Waiting { queues: BTreeMap::new(), stalled }
    }

    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Queues an item, or returns it if it is ready and nothing of its topic-partition is waiting.
    pub fn admit(&mut self, at: TopicPartition, queued: Queued<B>, is_ready: bool) -> Option<Queued<B>> {
        if is_ready && !self.queues.contains_key(&at) {
            return Some(queued);
        }
        self.queues.entry(at).or_default().push_back(queued);
        self.stalled.set(at, true);
        None
    }

    /// Drops the waiting items of a released partition; its next owner reads them again.
    pub fn forget(&mut self, partition: Partition) {
        let gone: Vec<_> = self.queues.keys().filter(|at| at.partition == partition).copied().collect();
        for at in gone {
            self.queues.remove(&at);
            self.stalled.set(at, false);
        }
    }

    /// Takes the next item that has become ready.
    pub fn next(&mut self, is_ready: impl Fn(TopicPartition, &B) -> bool) -> Option<(TopicPartition, Queued<B>)> {
        let ready = |(at, queue): (&TopicPartition, &VecDeque<Queued<B>>)| match queue.front() {
            Some(Queued::Records(batch, ..)) => is_ready(*at, batch).then_some(*at),
            Some(Queued::End(_)) | None => Some(*at),
        };
        let at = self.queues.iter().find_map(ready)?;
        let queue = self.queues.get_mut(&at)?;
        let queued = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&at);
            self.stalled.set(at, false);
        }
        queued.map(|queued| (at, queued))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::TopicIndex;

    fn at(topic: u16, partition: i32) -> TopicPartition {
        TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) }
    }

    fn records(name: &'static str) -> Queued<&'static str> {
        Queued::Records(name, Time::MAX, Instant::now())
    }

    fn name(queued: Option<(TopicPartition, Queued<&'static str>)>) -> Option<String> {
        queued.map(|(_, queued)| match queued {
            Queued::Records(name, ..) => name.to_owned(),
            Queued::End(offset) => format!("end {offset}"),
        })
    }

    #[test]
    fn waiting_items_keep_their_order_and_block_no_other_partition() {
        let stalled = Stalled::default();
        let mut waiting = Waiting::new(stalled.clone());
        assert!(waiting.admit(at(0, 0), records("a"), false).is_none());
        assert!(waiting.admit(at(0, 0), records("b"), true).is_none(), "after another item");
        assert!(waiting.admit(at(0, 0), Queued::End(9), true).is_none(), "the end waits as well");
        assert!(waiting.admit(at(1, 0), records("c"), true).is_some(), "another topic continues");
        assert!(waiting.admit(at(0, 1), Queued::End(3), true).is_some(), "another partition continues");
        assert_eq!(stalled.get(), BTreeSet::from([at(0, 0)]));

        assert!(waiting.next(|_, _| false).is_none());
        assert_eq!(name(waiting.next(|_, _| true)).as_deref(), Some("a"));
        assert!(waiting.next(|_, batch| *batch != "b").is_none());
        assert_eq!(name(waiting.next(|_, _| true)).as_deref(), Some("b"));
        assert_eq!(name(waiting.next(|_, _| true)).as_deref(), Some("end 9"));
        assert!(waiting.is_empty() && stalled.get().is_empty());
    }

    #[test]
    fn waiting_items_are_dropped_with_their_partition() {
        let stalled = Stalled::default();
        let mut waiting = Waiting::new(stalled.clone());
        for at in [at(0, 0), at(1, 0), at(0, 1)] {
            assert!(waiting.admit(at, records("x"), false).is_none());
        }
        waiting.forget(Partition(0));
        assert_eq!(stalled.get(), BTreeSet::from([at(0, 1)]));
        assert!(waiting.next(|_, _| true).is_some());
        assert!(waiting.next(|_, _| true).is_none());
    }
}
