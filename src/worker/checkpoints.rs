//! Queue of the checkpoints requested from a worker. They are taken one after another, in slices, with other work in
//! between, so that nothing waits long for them.

use std::collections::VecDeque;

use super::Worker;
use super::pool::Report;
use crate::bus::Partition;
use crate::engine::inactivity::release::Allowance;

/// Customers copied per slice: about three milliseconds. Few in unit tests, so that other work runs in between.
const AT_A_TIME: usize = if cfg!(test) { 64 } else { 1 << 15 };

/// A checkpoint that has not begun.
struct Requested {
    partition: Partition,
    epoch: u64,
    allowance: Allowance,
}

/// The requested checkpoints of one worker.
#[derive(Default)]
pub(super) struct CheckpointQueue {
    requested: VecDeque<Requested>,
    in_progress: Option<(Partition, u64)>,
}

impl CheckpointQueue {
    /// Requests a checkpoint, after all others.
    pub fn request(&mut self, partition: Partition, epoch: u64, allowance: Allowance) {
        self.requested.push_back(Requested { partition, epoch, allowance });
    }

    pub fn is_empty(&self) -> bool {
        self.requested.is_empty() && self.in_progress.is_none()
    }

    /// Continues the checkpoint in progress, or begins the next.
    pub fn advance<B>(&mut self, worker: &mut Worker, mut report: impl FnMut(Report<B>)) {
        if let Some((partition, epoch)) = self.in_progress {
            if let Some(taken) = worker.continue_checkpoint(partition, AT_A_TIME) {
                self.in_progress = None;
                report(Report::Taken(partition, epoch, Some(taken)));
            }
            return;
        }
        let Some(Requested { partition, epoch, allowance }) = self.requested.pop_front() else { return };
        match worker.begin_checkpoint(partition, epoch, &allowance) {
            Some(alerts) => {
                self.in_progress = Some((partition, epoch));
                report(Report::Begun(partition, epoch, alerts));
            }
            None => report(Report::Taken(partition, epoch, None)),
        }
    }

    /// Completes all checkpoints up to the last one of a partition, or of all partitions if `None`.
    pub fn finish<B>(&mut self, partition: Option<Partition>, worker: &mut Worker, mut report: impl FnMut(Report<B>)) {
        let is_of = |of: Partition| partition.is_none_or(|partition| partition == of);
        while self.in_progress.is_some_and(|(of, _)| is_of(of))
            || self.requested.iter().any(|requested| is_of(requested.partition))
        {
            self.advance(worker, &mut report);
        }
    }

    /// Removes a checkpoint that has not begun; `false` if there is none.
    pub fn roll_back(&mut self, partition: Partition, epoch: u64) -> bool {
        let before = self.requested.len();
        self.requested.retain(|requested| (requested.partition, requested.epoch) != (partition, epoch));
        self.requested.len() < before
    }

    /// Removes every checkpoint of a partition whose engine is dropped.
    pub fn forget(&mut self, partition: Partition) {
        self.requested.retain(|requested| requested.partition != partition);
        self.in_progress.take_if(|(of, _)| *of == partition);
    }

    /// Forgets the checkpoint in progress, which [`Worker::roll_back`] completes and rolls back.
    pub fn forget_in_progress(&mut self, partition: Partition, epoch: u64) {
        self.in_progress.take_if(|in_progress| *in_progress == (partition, epoch));
    }
}
