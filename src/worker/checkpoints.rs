//! The checkpoints that a worker is asked for: made one behind another and each in slices, with other work in between,
//! so that nothing waits long for them.

use std::collections::VecDeque;

use super::Worker;
use super::pool::Report;
use crate::bus::Partition;
use crate::engine::inactivity::release::Allowance;

/// How many customers are copied before other work has a turn: some three milliseconds. Few in the tests of this crate,
/// so that there is other work in between.
const AT_A_TIME: usize = if cfg!(test) { 64 } else { 1 << 15 };

/// A checkpoint that has not begun.
struct Wanted {
    partition: Partition,
    epoch: u64,
    allowance: Allowance,
}

/// The checkpoints of one worker.
#[derive(Default)]
pub(super) struct CheckpointQueue {
    wanted: VecDeque<Wanted>,
    under_way: Option<(Partition, u64)>,
}

impl CheckpointQueue {
    /// Asks for one, behind all others.
    pub fn want(&mut self, partition: Partition, epoch: u64, allowance: Allowance) {
        self.wanted.push_back(Wanted { partition, epoch, allowance });
    }

    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.under_way.is_none()
    }

    /// Goes on with the one that is under way, or begins the next.
    pub fn go_on<B>(&mut self, worker: &mut Worker, mut tell: impl FnMut(Report<B>)) {
        if let Some((partition, epoch)) = self.under_way {
            if let Some(taken) = worker.go_on(partition, AT_A_TIME) {
                self.under_way = None;
                tell(Report::Taken(partition, epoch, Some(taken)));
            }
            return;
        }
        let Some(Wanted { partition, epoch, allowance }) = self.wanted.pop_front() else { return };
        match worker.begin_checkpoint(partition, epoch, &allowance) {
            Some(alerts) => {
                self.under_way = Some((partition, epoch));
                tell(Report::Begun(partition, epoch, alerts));
            }
            None => tell(Report::Taken(partition, epoch, None)),
        }
    }

    /// Makes the checkpoints of a partition, and what was asked for before; of all when none is named.
    pub fn finish<B>(&mut self, partition: Option<Partition>, worker: &mut Worker, mut tell: impl FnMut(Report<B>)) {
        let is_of = |of: Partition| partition.is_none_or(|partition| partition == of);
        while self.under_way.is_some_and(|(of, _)| is_of(of))
            || self.wanted.iter().any(|wanted| is_of(wanted.partition))
        {
            self.go_on(worker, &mut tell);
        }
    }

    /// Forgets a checkpoint that has not begun. `false`: there is no such one.
    pub fn roll_back(&mut self, partition: Partition, epoch: u64) -> bool {
        let before = self.wanted.len();
        self.wanted.retain(|wanted| (wanted.partition, wanted.epoch) != (partition, epoch));
        self.wanted.len() < before
    }

    /// Forgets every checkpoint of a partition, whose engine is dropped.
    pub fn forget(&mut self, partition: Partition) {
        self.wanted.retain(|wanted| wanted.partition != partition);
        self.under_way.take_if(|(of, _)| *of == partition);
    }

    /// Forgets that one is under way which [`Worker::roll_back`] makes and rolls back itself.
    pub fn give_up(&mut self, partition: Partition, epoch: u64) {
        self.under_way.take_if(|under_way| *under_way == (partition, epoch));
    }
}
