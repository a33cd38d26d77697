//! The commit protocol of one replica: a pure step from state and event to commands. No I/O, no clock.
//!
//! # The rules of durability
//!
//! The committed offset is the only truth: the text beside it names the state that belongs to it. Everything else
//! follows from the order in which things are done, and this is the only place where that order is decided.
//!
//! 1. **Read stably, then decide.** A partition is taken up from what a read that waits for pending transactions says,
//!    and that read begins only after every transaction of this process that held the partition has ended. All topics
//!    of the partition must name the same state.
//! 2. **Initial commit before the first record.** Where nothing is committed and no checkpoint exists, the start is
//!    committed before anything is applied. An engine begins empty on the strength of a committed initial commit and of
//!    nothing else.
//! 3. **Membership and ownership are captured together**, on the poll thread, in the step that begins a checkpoint
//!    ([`Command::BeginCheckpoint`]); the transaction of the checkpoint uses that capture. Whoever lost a partition in
//!    between is refused by the group, for its generation has passed.
//! 4. **Positions ride with the state.** The offsets of a checkpoint are the worker's at the instant that its state
//!    shows, which is when the worker begins it. The poll thread knows what it handed out, which may not be applied
//!    yet.
//! 5. **Files, manifest, transaction.** The transaction is begun after the last upload of its checkpoint. What it names
//!    exists.
//! 6. **One transaction per checkpoint, one checkpoint at a time**: the outbox up to the checkpoint, and the offsets,
//!    or neither.
//! 7. **What is given up is never committed later.** A partition that leaves a checkpoint before its transaction is
//!    taken out of it; one that leaves during the transaction takes the transaction with it ([`Command::Abort`]), and
//!    where that comes too late, its state is dropped and never used again.
//! 8. **In doubt, ask the group.** After an unknown outcome: a new producer first (it ends the old transaction), then
//!    the committed offsets. This checkpoint's: it was committed. The former: it was not, and the entries return to the
//!    outbox before any other checkpoint begins. Anything else: somebody else went on, and this state is dropped.
//! 9. **Entries leave the outbox once**, when their checkpoint is committed. Until then they stay with their state, in
//!    order.
//! 10. **Delete last.** Files go after the own commit that made them superfluous, and only those of own earlier
//!     manifests: a sleeper that wakes up cannot know what a newer owner needs.
//! 11. **Fenced is the end** ([`Command::Exit`]): nothing is sent any more.
//! 12. **Fail closed.** What does not fit together stops its partition with a [`Reason`], and never begins empty.
//!
//! # The lifecycle of a partition
//!
//! ```text
//! Assigned -> Waiting (for a transaction of a former assignment) -> Reading the committed offsets
//!    nothing committed, no checkpoints -> Searching the start -> Initializing (initial transaction) -> Running, empty
//!    initial commit -> Running, empty           own parked state -> Running, as parked
//!    manifest -> Loading -> Running      anything else -> Failed
//! Revoked -> Draining: the checkpoint in flight ends, a last one is taken and ends -> parked, released
//! Lost -> dropped, released
//! ```
//!
//! A partition here is that partition of *every* source topic: [`crate::bus::rebalance`] puts them together. The
//! shell passes on its `Start` as [`Event::Assigned`], its `Stop` and `Commit` as [`Event::Revoked`] or
//! [`Event::Lost`], and holds its `Unassign` back until all partitions in it are released. The shell keeps polling
//! the group meanwhile.

mod flight;
mod reason;
mod takeover;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

pub use reason::Reason;
pub use words::{
    AssignmentEpoch, BudgetId, Command, CommittedOffset, CommittedOffsets, Delivery, EngineOrigin, Epoch, Event,
    Identity, LoadFailure, Outcome, Part, Position, Rules, Upload,
};

use crate::bus::Partition;
use flight::Flight;

/// Everything that one replica knows of its partitions and their commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    rules: Rules,
    /// The partitions that the group gave us and does not have back yet.
    owned: BTreeMap<Partition, OwnedPartition>,
    /// States of partitions that were given up in order.
    parked: BTreeMap<Partition, Parked>,
    flight: Option<Flight>,
    numbers: Numbers,
    /// Whether a checkpoint of all is due and could not begin yet.
    due: bool,
    /// Whether the outbox may force a checkpoint: not after one has failed, until the next is due.
    may_force: bool,
    /// Whether reading is paused because of the outbox.
    held: bool,
    ending: Ending,
}

/// The next number of each sort.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Numbers {
    assignment: u64,
    epoch: u64,
    budget: u64,
}

impl Numbers {
    fn assignment(&mut self) -> AssignmentEpoch {
        self.assignment += 1;
        AssignmentEpoch(self.assignment)
    }

    fn epoch(&mut self) -> Epoch {
        self.epoch += 1;
        Epoch(self.epoch)
    }

    fn budget(&mut self) -> BudgetId {
        self.budget += 1;
        BudgetId(self.budget)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotYet,
    /// Asked to end: partitions are given up, none is taken.
    Closing,
    /// [`Command::Close`] or [`Command::Exit`] was given: nothing is done any more.
    Ended,
}

/// One owned partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnedPartition {
    assignment: AssignmentEpoch,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// A transaction that held it in a former assignment has not ended.
    Waiting,
    /// The committed offsets are being read.
    Reading,
    /// Store or broker did not answer; from the beginning when the next checkpoint is due.
    Resting,
    /// The start is being looked for.
    Searching(Identity),
    /// The initial commit is to be committed; not before the next checkpoint is due when it just failed.
    Initializing { basis: Basis, ready: bool },
    /// The state is being loaded.
    Loading(Basis),
    /// It is read and applied.
    Running(Basis),
    /// It is read no more, and waits for its last checkpoint to begin and to end.
    Draining { basis: Basis, budget: BudgetId, last_checkpoint: Option<Epoch> },
    /// It waits for a person.
    Failed,
}

/// What an engine builds on: what is committed, and what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    committed: Position,
    identity: Identity,
}

/// The state of a partition that was given up, kept for its return.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parked {
    basis: Basis,
    /// How many [`Event::Due`] ago.
    age: u32,
}

/// What the outside may see of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartitionPhase {
    /// It is being taken over; nothing is read yet.
    Restoring,
    /// It is read and applied.
    Running,
    /// It is being given up.
    Draining,
    /// It waits for a person.
    Failed,
}

impl State {
    /// A replica that owns nothing yet.
    #[must_use]
    pub fn new(rules: Rules) -> State {
        debug_assert!(!rules.topics.is_empty());
        State {
            rules,
            owned: BTreeMap::new(),
            parked: BTreeMap::new(),
            flight: None,
            numbers: Numbers::default(),
            due: false,
            may_force: true,
            held: false,
            ending: Ending::NotYet,
        }
    }

    /// The partitions that the group gave us, and how far each is.
    pub fn partitions(&self) -> impl Iterator<Item = (Partition, PartitionPhase)> {
        self.owned.iter().map(|(&partition, owned)| {
            let phase = match owned.phase {
                Phase::Running(_) => PartitionPhase::Running,
                Phase::Draining { .. } => PartitionPhase::Draining,
                Phase::Failed => PartitionPhase::Failed,
                _ => PartitionPhase::Restoring,
            };
            (partition, phase)
        })
    }

    /// Takes note of an event, and says what to do about it, in order.
    #[must_use]
    pub fn step(&mut self, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        if self.ending == Ending::Ended {
            return out;
        }
        match event {
            Event::Assigned(given) => self.assigned(given, &mut out),
            Event::Revoked(taken) => self.revoked(&taken, &mut out),
            Event::Lost(taken) => self.lost(&taken, &mut out),
            Event::Closing => self.closing(&mut out),
            Event::Due => self.interval_passed(&mut out),
            Event::Outbox(bytes) => self.outbox(bytes, &mut out),
            Event::BudgetOver(budget) => self.budget_over(budget, &mut out),
            Event::Fenced => self.fenced(&mut out),
            Event::Committed { partition, assignment, committed, identity } => {
                self.committed_read(partition, assignment, &committed, identity, &mut out);
            }
            Event::Unavailable { partition, assignment } => self.rest(partition, assignment),
            Event::StartFound { partition, assignment, has_checkpoints, next, now } => {
                self.start_found(partition, assignment, has_checkpoints, next, now, &mut out);
            }
            Event::Loaded { partition, assignment, manifest, next } => {
                self.loaded(partition, assignment, &manifest, &next, &mut out);
            }
            Event::LoadFailed { partition, assignment, failure } => {
                self.load_failed(partition, assignment, failure, &mut out)
            }
            Event::OutOfRange { partition, assignment } => {
                self.cannot_be_read(partition, assignment, Reason::OffsetOutOfRange, &mut out);
            }
            Event::LogDamaged { partition, assignment } => {
                self.cannot_be_read(partition, assignment, Reason::LogDamaged, &mut out);
            }
            Event::NotAMember(epoch) => self.not_a_member(epoch, &mut out),
            Event::Uploaded { epoch, partition, upload } => self.uploaded(epoch, partition, upload),
            Event::Unchanged { epoch, partition } => self.unchanged(epoch, partition, &mut out),
            Event::UploadFailed { epoch, partition } => self.upload_failed(epoch, partition, &mut out),
            Event::Ended { epoch, outcome } => self.ended(epoch, outcome, &mut out),
            Event::ProducerRenewed(epoch) => self.producer_renewed(epoch, &mut out),
            Event::ReadBack { epoch, committed } => self.read_back(epoch, &committed, &mut out),
        }
        self.commit_if_complete(&mut out);
        self.begin_what_waits(&mut out);
        if self.ending == Ending::Closing && self.owned.is_empty() {
            self.ending = Ending::Ended;
            out.push(Command::Close);
        }
        out
    }

    fn assigned(&mut self, given: Vec<Partition>, out: &mut Vec<Command>) {
        if self.ending == Ending::Closing {
            out.push(Command::Release(given));
            return;
        }
        for partition in given {
            if !self.owned.contains_key(&partition) {
                self.take_up(partition, out);
            }
        }
    }

    /// Begins a new assignment of a partition.
    fn take_up(&mut self, partition: Partition, out: &mut Vec<Command>) {
        let assignment = self.numbers.assignment();
        let in_doubt = self.flight.as_ref().is_some_and(|flight| flight.has_begun_with(partition));
        let phase = if in_doubt { Phase::Waiting } else { Phase::Reading };
        if !in_doubt {
            out.push(Command::ReadCommitted(partition, assignment));
        }
        self.owned.insert(partition, OwnedPartition { assignment, phase });
    }

    fn revoked(&mut self, taken: &[Partition], out: &mut Vec<Command>) {
        let mut budget = None;
        let (mut drained, mut released) = (Vec::new(), Vec::new());
        for &partition in taken {
            match self.owned.get_mut(&partition).map(|owned| &mut owned.phase) {
                Some(Phase::Draining { .. }) => {}
                Some(phase @ Phase::Running(_)) => {
                    let budget = *budget.get_or_insert_with(|| self.numbers.budget());
                    if let Phase::Running(basis) = std::mem::replace(phase, Phase::Failed) {
                        *phase = Phase::Draining { basis, budget, last_checkpoint: None };
                    }
                    drained.push(partition);
                }
                Some(_) => {
                    self.give_up(partition, out);
                    released.push(partition);
                }
                None => released.push(partition),
            }
        }
        if let Some(budget) = budget {
            out.push(Command::Stop(drained));
            out.push(Command::StartBudget(budget));
        }
        if !released.is_empty() {
            out.push(Command::Release(released));
        }
    }

    fn lost(&mut self, taken: &[Partition], out: &mut Vec<Command>) {
        for &partition in taken {
            self.give_up(partition, out);
        }
        if !taken.is_empty() {
            out.push(Command::Release(taken.to_vec()));
        }
    }

    fn closing(&mut self, out: &mut Vec<Command>) {
        self.ending = Ending::Closing;
        let all: Vec<Partition> = self.owned.keys().copied().collect();
        self.revoked(&all, out);
    }

    /// Forgets a partition: whatever of it is under way is not to be committed.
    fn give_up(&mut self, partition: Partition, out: &mut Vec<Command>) {
        self.abandon(partition, out);
        self.owned.remove(&partition);
        self.parked.remove(&partition);
        out.push(Command::Drop(partition));
    }

    /// Forgets what is known of an owned partition, and finds out anew.
    fn start_over(&mut self, partition: Partition, out: &mut Vec<Command>) {
        let draining = self.owned.get(&partition).is_some_and(|own| matches!(own.phase, Phase::Draining { .. }));
        self.give_up(partition, out);
        if draining {
            out.push(Command::Release(vec![partition]));
        } else {
            self.take_up(partition, out);
        }
    }

    fn fail(&mut self, partition: Partition, reason: Reason, out: &mut Vec<Command>) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.phase = Phase::Failed;
            self.parked.remove(&partition);
            out.push(Command::Drop(partition));
            out.push(Command::Fail(partition, reason));
        }
    }

    fn cannot_be_read(
        &mut self,
        partition: Partition,
        assignment: AssignmentEpoch,
        why: Reason,
        out: &mut Vec<Command>,
    ) {
        let running =
            |owned: &&OwnedPartition| owned.assignment == assignment && matches!(owned.phase, Phase::Running(_));
        if self.owned.get(&partition).filter(running).is_some() {
            out.push(Command::Stop(vec![partition]));
            self.abandon(partition, out);
            self.fail(partition, why, out);
        }
    }

    fn interval_passed(&mut self, out: &mut Vec<Command>) {
        self.may_force = true;
        self.due = true;
        for parked in self.parked.values_mut() {
            parked.age += 1;
        }
        let too_old = self.parked.extract_if(.., |_, parked| parked.age > self.rules.parked_for);
        let dropped: Vec<Partition> = too_old.map(|(partition, _)| partition).collect();
        // One that is owned again reads its committed offsets just now, and will load.
        out.extend(dropped.into_iter().map(Command::Drop));
        for (&partition, owned) in &mut self.owned {
            match &mut owned.phase {
                phase @ Phase::Resting => {
                    *phase = Phase::Reading;
                    out.push(Command::ReadCommitted(partition, owned.assignment));
                }
                Phase::Initializing { ready, .. } => *ready = true,
                _ => {}
            }
        }
    }

    fn outbox(&mut self, bytes: u64, out: &mut Vec<Command>) {
        let limit = self.rules.outbox_limit;
        if bytes >= limit && self.may_force && self.flight.is_none() {
            self.due = true;
        }
        if bytes >= limit.saturating_mul(2) && !self.held {
            self.held = true;
            out.push(Command::Pause);
        } else if bytes < limit && self.held {
            self.held = false;
            out.push(Command::Resume);
        }
    }

    fn budget_over(&mut self, over: BudgetId, out: &mut Vec<Command>) {
        let late = |(&partition, owned): (&Partition, &OwnedPartition)| match owned.phase {
            Phase::Draining { budget, .. } => (budget == over).then_some(partition),
            _ => None,
        };
        let late: Vec<Partition> = self.owned.iter().filter_map(late).collect();
        for partition in late {
            self.part_with(partition, out);
        }
    }

    /// Ends the draining of a partition: its state is kept, unless it is in doubt.
    fn part_with(&mut self, partition: Partition, out: &mut Vec<Command>) {
        if self.abandon(partition, out) == flight::Abandoned::InDoubt {
            self.give_up(partition, out);
        } else if let Some(OwnedPartition { phase: Phase::Draining { basis, .. }, .. }) = self.owned.remove(&partition)
        {
            self.parked.insert(partition, Parked { basis, age: 0 });
            out.push(Command::Park(partition));
        }
        out.push(Command::Release(vec![partition]));
    }

    fn fenced(&mut self, out: &mut Vec<Command>) {
        self.ending = Ending::Ended;
        out.push(Command::Exit);
    }
}
