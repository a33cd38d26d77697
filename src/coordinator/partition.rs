//! The coordinator's data about one owned partition, apart from its phase in the commit protocol.
//!
//! An entry is created when the partition is assigned, and removed when it is released, unless its state is parked
//! (kept in memory). While a partition is restored, failed or parked it has no running assignment, so none of its
//! records are handed out.

use std::collections::BTreeMap;
use std::time::Instant;

use super::store_tasks::Files;
use crate::bus::TopicIndex;
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::protocol::{AssignmentEpoch, Epoch};
use crate::engine::Engine;
use crate::status::ReadPosition;

/// How far one topic-partition has been read and applied.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// The offset after the last record handed to a worker.
    pub(super) handed_out: Option<i64>,
    pub(super) position: ReadPosition,
    /// When the last record arrived, or the partition was taken over.
    pub(super) last_record: Option<Instant>,
}

/// One partition of all source topics.
#[derive(Default)]
pub(super) struct OwnedPartition {
    /// The assignment in which its engine runs.
    pub(super) running: Option<AssignmentEpoch>,
    /// It is being given up, so no more records are handed out.
    pub(super) draining: bool,
    /// Its engine runs, but it is not yet assigned to the client.
    pub(super) to_assign: bool,
    pub(super) progress: BTreeMap<TopicIndex, Progress>,
    /// `None` unless an engine runs or is parked.
    pub(super) files: Option<Files>,
    /// The ids of the source topics when the partition was taken over.
    pub(super) topic_ids: Vec<String>,
    /// A loaded engine, until the protocol has decided about it.
    pub(super) loaded: Option<(Box<Engine>, Box<Manifest>)>,
    /// The checkpoint requested from the worker, until it begins or is rolled back.
    pub(super) requested: Option<Epoch>,
    /// Why the partition failed.
    pub(super) failure: Option<String>,
}

impl OwnedPartition {
    /// An engine begins at these offsets, by topic.
    pub(super) fn begin(&mut self, assignment: AssignmentEpoch, next: impl Iterator<Item = (TopicIndex, i64)>) {
        let begun = |next| Progress {
            handed_out: Some(next),
            position: ReadPosition { applied: Some(next), ..ReadPosition::default() },
            last_record: Some(Instant::now()),
        };
        self.progress.extend(next.map(|(topic, next)| (topic, begun(next))));
        self.running = Some(assignment);
        self.draining = false;
        self.to_assign = true;
        self.failure = None;
    }

    /// Its engine is parked, with its files.
    pub(super) fn park(&mut self) {
        self.running = None;
        self.to_assign = false;
    }

    /// The entry without an engine, which keeps the lag visible until the partition is released, especially if it
    /// failed. `None` if nothing remains.
    pub(super) fn without_engine(self) -> Option<OwnedPartition> {
        let progress = self.progress;
        (!progress.is_empty()).then(|| OwnedPartition { progress, ..OwnedPartition::default() })
    }

    /// The entry after the release, if its state is parked. A partition that was taken over again in the meantime stays
    /// as it is.
    pub(super) fn released(mut self) -> Option<OwnedPartition> {
        if self.running.is_none() {
            self.progress.clear();
        }
        (self.running.is_some() || self.files.is_some()).then_some(self)
    }

    /// Whether its records are handed to a worker.
    pub(super) fn is_read(&self) -> bool {
        self.running.is_some() && !self.draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> OwnedPartition {
        let mut owned = OwnedPartition { files: Some(Files::default()), ..OwnedPartition::default() };
        owned.begin(AssignmentEpoch(1), [(TopicIndex(0), 7)].into_iter());
        owned
    }

    #[test]
    fn records_are_handed_out_only_while_an_engine_runs_and_does_not_drain() {
        assert!(!OwnedPartition::default().is_read());
        let mut owned = running();
        assert!(owned.is_read());
        owned.draining = true;
        assert!(!owned.is_read());
        owned.park();
        owned.begin(AssignmentEpoch(2), [(TopicIndex(0), 9)].into_iter());
        assert!(owned.is_read() && owned.to_assign);
        assert_eq!(owned.progress[&TopicIndex(0)].handed_out, Some(9));
    }

    #[test]
    fn a_dropped_partition_keeps_its_lag_until_it_is_released_and_a_parked_one_its_files() {
        let dropped = running().without_engine().unwrap();
        assert!(!dropped.is_read() && dropped.files.is_none() && !dropped.to_assign);
        assert_eq!(dropped.progress[&TopicIndex(0)].position.applied, Some(7));
        assert!(dropped.released().is_none());

        let mut parked = running();
        parked.park();
        let parked = parked.released().unwrap();
        assert!(parked.files.is_some() && parked.progress.is_empty() && !parked.to_assign);
        assert!(parked.without_engine().is_none());

        let again = running().released().unwrap();
        assert!(again.is_read() && !again.progress.is_empty(), "taken up anew before the release was answered");
    }
}
