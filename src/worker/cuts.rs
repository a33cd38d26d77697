//! The cuts that a worker is asked for: made one behind another and each bit by bit, with other work in between, so that
//! nothing waits long for them.

use std::collections::VecDeque;

use super::Worker;
use super::pool::Report;
use crate::engine::inactivity::release::Allowance;
use crate::source::Partition;

/// How many customers are copied before other work has a turn: some three milliseconds. Few in the tests of this crate,
/// so that there is other work in between.
const AT_A_TIME: usize = if cfg!(test) { 64 } else { 1 << 15 };

/// A cut that has not begun.
struct Wanted {
    partition: Partition,
    cut: u64,
    allowance: Allowance,
}

/// The cuts of one worker.
#[derive(Default)]
pub(super) struct Cuts {
    wanted: VecDeque<Wanted>,
    under_way: Option<(Partition, u64)>,
}

impl Cuts {
    /// Asks for one, behind all others.
    pub fn want(&mut self, partition: Partition, cut: u64, allowance: Allowance) {
        self.wanted.push_back(Wanted { partition, cut, allowance });
    }

    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.under_way.is_none()
    }

    /// Goes on with the one that is under way, or begins the next.
    pub fn go_on<B>(&mut self, worker: &mut Worker, mut tell: impl FnMut(Report<B>)) {
        if let Some((partition, cut)) = self.under_way {
            if let Some(taken) = worker.go_on(partition, AT_A_TIME) {
                self.under_way = None;
                tell(Report::Cut(partition, cut, Some(taken)));
            }
            return;
        }
        let Some(Wanted { partition, cut, allowance }) = self.wanted.pop_front() else { return };
        match worker.begin_cut(partition, cut, &allowance) {
            Some(alerts) => {
                self.under_way = Some((partition, cut));
                tell(Report::Begun(partition, cut, alerts));
            }
            None => tell(Report::Cut(partition, cut, None)),
        }
    }

    /// Makes the cuts of a partition, and what was asked for before; of all when none is named.
    pub fn finish<B>(&mut self, partition: Option<Partition>, worker: &mut Worker, mut tell: impl FnMut(Report<B>)) {
        let is_of = |of: Partition| partition.is_none_or(|partition| partition == of);
        while self.under_way.is_some_and(|(of, _)| is_of(of)) || self.wanted.iter().any(|cut| is_of(cut.partition)) {
            self.go_on(worker, &mut tell);
        }
    }

    /// Forgets a cut that has not begun. `false`: there is no such one.
    pub fn take_back(&mut self, partition: Partition, cut: u64) -> bool {
        let before = self.wanted.len();
        self.wanted.retain(|wanted| (wanted.partition, wanted.cut) != (partition, cut));
        self.wanted.len() < before
    }

    /// Forgets every cut of a partition, whose engine is dropped.
    pub fn forget(&mut self, partition: Partition) {
        self.wanted.retain(|wanted| wanted.partition != partition);
        self.under_way.take_if(|(of, _)| *of == partition);
    }

    /// Forgets that one is under way which [`Worker::take_back`] makes and takes back itself.
    pub fn give_up(&mut self, partition: Partition, cut: u64) {
        self.under_way.take_if(|under_way| *under_way == (partition, cut));
    }
}
