//! Tracks since when records are applied but not in a committed checkpoint. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::bus::Partition;

/// The uncommitted records of the owned partitions.
#[derive(Debug, Default)]
pub(super) struct Uncommitted(BTreeMap<Partition, Since>);

/// When the first record in the open checkpoint was applied, and when the first one after it.
#[derive(Debug, Clone, Copy, Default)]
struct Since {
    in_checkpoint: Option<Instant>,
    later: Option<Instant>,
}

impl Uncommitted {
    /// Records of a partition were applied.
    pub(super) fn applied(&mut self, partition: Partition, now: Instant) {
        self.0.entry(partition).or_default().later.get_or_insert(now);
    }

    /// A checkpoint has begun; it includes everything applied so far.
    pub(super) fn checkpoint_begun(&mut self, partition: Partition) {
        if let Some(since) = self.0.get_mut(&partition) {
            since.in_checkpoint = since.in_checkpoint.or(since.later);
            since.later = None;
        }
    }

    /// The checkpoint was rolled back, so the next one includes its records.
    pub(super) fn rolled_back(&mut self, partition: Partition) {
        if let Some(since) = self.0.get_mut(&partition) {
            since.later = since.in_checkpoint.take().or(since.later);
        }
    }

    /// The checkpoint was committed.
    pub(super) fn committed(&mut self, partition: Partition) {
        if let Some(since) = self.0.get_mut(&partition) {
            since.in_checkpoint = None;
        }
    }

    /// Nothing is uncommitted any more: there was nothing to write, or the partition was given up.
    pub(super) fn forget(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    /// When the oldest uncommitted record was applied.
    pub(super) fn since(&self) -> Option<Instant> {
        self.0.values().filter_map(|since| since.in_checkpoint.or(since.later)).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const P: Partition = Partition(0);

    #[test]
    fn what_waits_is_what_no_committed_checkpoint_holds() {
        let (mut all, start) = (Uncommitted::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        all.checkpoint_begun(P);
        assert_eq!(all.since(), None, "nothing was applied");
        all.applied(P, at(1));
        all.applied(P, at(2));
        assert_eq!(all.since(), Some(at(1)));
        all.checkpoint_begun(P);
        all.applied(P, at(3));
        assert_eq!(all.since(), Some(at(1)), "the checkpoint is under way");
        all.rolled_back(P);
        assert_eq!(all.since(), Some(at(1)), "the next one holds it");
        all.checkpoint_begun(P);
        all.applied(P, at(4));
        all.committed(P);
        assert_eq!(all.since(), Some(at(4)));
        all.applied(Partition(1), at(2));
        assert_eq!(all.since(), Some(at(2)), "the oldest of all partitions");
        all.forget(Partition(1));
        all.checkpoint_begun(P);
        all.committed(P);
        assert_eq!(all.since(), None);
    }
}
