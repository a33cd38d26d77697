//! The commit protocol of one replica: a pure step from state and event to commands. No I/O, no clock.
//!
//! # The rules of durability
//!
//! The committed offset is the only truth: its metadata names the state that belongs to it. Everything else follows
//! from the order of operations, and only this module decides that order.
//!
//! 1. **Read stably, then decide.** What to do with a partition is decided by a read that waits for pending
//!    transactions. That read starts only after every transaction of this process that included the partition has
//!    ended. All topics of the partition must name the same state.
//! 2. **Initial commit before the first record.** If nothing is committed and no checkpoint exists, the start offsets
//!    are committed before any record is applied. An engine starts empty only from a committed initial commit.
//! 3. **Membership and ownership are captured together**, on the poll thread, in the step that begins a checkpoint
//!    ([`Command::BeginCheckpoint`]). The checkpoint's transaction uses that capture: if the partition was lost in
//!    between, the generation is stale and the group refuses the offsets.
//! 4. **Positions travel with the state.** The offsets of a checkpoint are the worker's at the moment it takes the
//!    checkpoint. The poll thread only knows what it handed out, which may not be applied yet.
//! 5. **Files, manifest, transaction.** The transaction begins after the last upload of its checkpoint, so that
//!    everything it names exists.
//! 6. **One transaction per checkpoint, one checkpoint at a time.** It commits the checkpoint's outbox and the offsets,
//!    or neither.
//! 7. **An abandoned partition is never committed later.** A partition that leaves a checkpoint before its transaction
//!    is removed from it. One that leaves during the transaction aborts it ([`Command::Abort`]); if the abort is too
//!    late, its state is dropped and never used again.
//! 8. **In doubt, ask the group.** After an unknown outcome, first create a new producer, which ends the old
//!    transaction, then read the committed offsets. If they are this checkpoint's, it was committed. If they are the
//!    previous ones, it was not, and its entries return to the outbox before any other checkpoint begins. Otherwise
//!    another process has continued, and this state is dropped.
//! 9. **Entries leave the outbox once**, when their checkpoint is committed. Until then they stay with their state, in
//!    order.
//! 10. **Delete last.** Files are deleted after our own commit that superseded them, and only if our own earlier
//!     manifests named them: a process that wakes up after a long pause cannot know what a newer owner needs.
//! 11. **Fenced means exit** ([`Command::Exit`]): send nothing more.
//! 12. **Fail closed.** A partition with inconsistent state stops with a [`Reason`]; it never starts empty.
//!
//! # The lifecycle of a partition
//!
//! Events that are not listed for a phase do not change it. *Nothing in flight* means that no checkpoint or transaction
//! of this replica is under way; `tests.rs` takes every phase through every event.
//!
//! | phase | event | next phase | commands |
//! |---|---|---|---|
//! | not owned | `Assigned` | Reading | `ReadCommitted` |
//! | not owned | `Assigned`, and a transaction of a former assignment is open | Waiting | |
//! | Waiting | nothing in flight | Reading | `ReadCommitted` |
//! | Reading | `Committed`: nothing | Searching | `FindStart` |
//! | Reading | `Committed`: initial commit, or own parked state | Running | `Begin` |
//! | Reading | `Committed`: a manifest | Loading | `Load` |
//! | Reading | `Committed`: anything else | Failed | `Drop`, `Fail` |
//! | Reading, Searching | `Unavailable` | Resting | |
//! | Resting | `Due` | Reading | `ReadCommitted` |
//! | Searching | `StartFound`: no checkpoints | Initializing | `CommitInitial`, with nothing in flight |
//! | Searching | `StartFound`: checkpoints exist | Failed | `Drop`, `Fail` |
//! | Initializing | `Ended`: committed | Running | `Begin` |
//! | Initializing | `Ended`: aborted; `NotAMember` | Initializing | `CommitInitial` after the next `Due` |
//! | Loading | `Loaded`: what is committed | Running | `Begin` |
//! | Loading | `Loaded`: anything else; `LoadFailed`: for good | Failed | `Drop`, `Fail` |
//! | Loading | `LoadFailed`: unavailable | Resting | |
//! | Running | `Due` or full outbox, with nothing in flight | Running | `BeginCheckpoint` |
//! | Running, Draining | `Ended`: committed | the same | `Confirm`, `Delete` |
//! | Running, Draining | `Ended`: aborted; `UploadFailed` | the same | `RollBack` |
//! | Running | `OutOfRange`, `LogDamaged` | Failed | `Stop`, `RollBack` or `Abort`, `Drop`, `Fail` |
//! | Running | `Revoked`, `Closing` | Draining | `Stop`, `StartBudget`, then a last `BeginCheckpoint` |
//! | Draining | its last checkpoint has ended, or `BudgetOver` | parked | `Park`, `Release` |
//! | Draining | `BudgetOver`, and its transaction is open | not owned | `Abort`, `Drop`, `Release` |
//! | parked | `Due`, too often | not owned | `Drop` |
//! | any but Running, Draining | `Revoked`, `Closing` | not owned | `Drop`, `Release` |
//! | any | `Lost` | not owned | `RollBack` or `Abort`, `Drop`, `Release` |
//!
//! `Ended` with an unknown outcome leads to `RenewProducer` and `ReadBack`. What the group has then counts as committed
//! or as aborted; where it has neither, the partition is dropped and taken over again, or released when it drains.
//!
//! A partition here means that partition number of *every* source topic: [`crate::bus::rebalance`] combines them. The
//! coordinator passes on its `Start` as [`Event::Assigned`], its `Stop` and `Commit` as [`Event::Revoked`] or
//! [`Event::Lost`], and holds back its `Unassign` until all partitions in it are released. It keeps polling the group
//! in the meantime.

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

/// State of the protocol: the partitions of one replica and their commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    rules: Rules,
    /// Partitions assigned by the group and not yet released.
    owned: BTreeMap<Partition, OwnedPartition>,
    /// Parked states of released partitions.
    parked: BTreeMap<Partition, Parked>,
    flight: Option<Flight>,
    numbers: Numbers,
    /// Whether a checkpoint of all partitions is due but could not begin yet.
    due: bool,
    /// Whether a full outbox may force a checkpoint. After a failed checkpoint it may not, until the next one is due.
    may_force: bool,
    /// Whether reading is paused because the outbox is full.
    is_paused: bool,
    ending: Ending,
}

/// The last number used, of each kind.
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
    /// Shutting down: partitions are released, none is taken.
    Closing,
    /// [`Command::Close`] or [`Command::Exit`] was issued: every event is ignored.
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
    /// A transaction that included it in an earlier assignment has not ended.
    Waiting,
    /// The committed offsets are being read.
    Reading,
    /// The store or the broker did not answer; retry from the start when the next checkpoint is due.
    Resting,
    /// The start offsets are being looked up.
    Searching(Identity),
    /// The initial commit is pending. `ready` is false after a failed attempt, until the next checkpoint is due.
    Initializing { basis: Basis, ready: bool },
    /// The state is being loaded.
    Loading(Basis),
    /// Its records are read and applied.
    Running(Basis),
    /// Reading has stopped; its last checkpoint is pending or in flight.
    Draining { basis: Basis, budget: BudgetId, last_checkpoint: Option<Epoch> },
    /// It is not processed until an operator acts.
    Failed,
}

/// What an engine builds on: the committed position, and the identity it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    committed: Position,
    identity: Identity,
}

/// The state of a released partition, kept in case it is assigned again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parked {
    basis: Basis,
    /// Number of [`Event::Due`] since.
    age: u32,
}

/// The phase of a partition as shown to operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartitionPhase {
    /// Being taken over; nothing is read yet.
    Restoring,
    /// Its records are read and applied.
    Running,
    /// Being released.
    Draining,
    /// Not processed until an operator acts.
    Failed,
}

impl State {
    /// A replica that owns no partitions.
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
            is_paused: false,
            ending: Ending::NotYet,
        }
    }

    /// The owned partitions with their phases.
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

    /// Applies an event and returns the commands to execute, in order.
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

    /// Forgets a partition and abandons any commit that includes it.
    fn give_up(&mut self, partition: Partition, out: &mut Vec<Command>) {
        self.abandon(partition, out);
        self.owned.remove(&partition);
        self.parked.remove(&partition);
        out.push(Command::Drop(partition));
    }

    /// Drops the state of an owned partition and reads its committed offsets again.
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
        // A parked partition that is owned again is still reading its committed offsets, and will load its state.
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
        if bytes >= limit.saturating_mul(2) && !self.is_paused {
            self.is_paused = true;
            out.push(Command::Pause);
        } else if bytes < limit && self.is_paused {
            self.is_paused = false;
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

    /// Ends the draining of a partition. Parks its state unless a commit of it is in doubt.
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
