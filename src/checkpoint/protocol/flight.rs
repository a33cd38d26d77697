//! The checkpoint in flight: from the copy to the end of its transaction.

use std::collections::{BTreeMap, BTreeSet};

use super::takeover::position;
use super::{
    Command, CommittedOffsets, Delivery, Ending, EngineOrigin, Epoch, Outcome, OwnedPartition, Part, Phase, Position,
    State, Upload,
};
use crate::bus::Partition;

/// A checkpoint, or an initial commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flight {
    epoch: Epoch,
    is_initial: bool,
    stage: Stage,
    /// The partitions still in it with their uploads; `None` until uploaded.
    parts: BTreeMap<Partition, Option<Upload>>,
    /// The partitions that the transaction began with.
    begun: BTreeSet<Partition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Workers copy state, and the upload task stores it.
    Uploading,
    /// The transaction is running.
    Committing { aborting: bool },
    /// The outcome is unknown, and a new producer is being created.
    Renewing,
    /// The outcome is unknown, and the committed offsets are being read.
    ReadingBack,
}

/// State of the checkpoint from which a partition was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abandoned {
    /// The partition was in no checkpoint.
    NotInFlight,
    /// It will never be committed.
    NotBegun,
    /// It was committed, or may still be.
    InDoubt,
}

impl Flight {
    /// Whether the open transaction includes this partition.
    pub(super) fn has_begun_with(&self, partition: Partition) -> bool {
        self.begun.contains(&partition)
    }

    fn is_in(&self, stages: &[Stage]) -> bool {
        stages.contains(&self.stage)
    }
}

const COMMITTING: [Stage; 2] = [Stage::Committing { aborting: false }, Stage::Committing { aborting: true }];

impl State {
    fn flight_in(&mut self, epoch: Epoch, stages: &[Stage]) -> Option<&mut Flight> {
        self.flight.as_mut().filter(|flight| flight.epoch == epoch && flight.is_in(stages))
    }

    /// Begins the next checkpoint or initial commit if none is in flight.
    pub(super) fn begin_what_waits(&mut self, out: &mut Vec<Command>) {
        if self.flight.is_some() || self.ending == Ending::Ended {
            return;
        }
        for (&partition, owned) in &mut self.owned {
            if owned.phase == Phase::Waiting {
                owned.phase = Phase::Reading;
                out.push(Command::ReadCommitted(partition, owned.assignment));
            }
        }
        let drained = self.having(|phase| matches!(phase, Phase::Draining { last_checkpoint: None, .. }));
        if !drained.is_empty() {
            self.begin_checkpoint(drained, out);
            return;
        }
        let initializing = self.having(|phase| matches!(phase, Phase::Initializing { ready: true, .. }));
        if !initializing.is_empty() {
            self.commit_initial(initializing, out);
        } else if std::mem::take(&mut self.due) {
            let running = self.having(|phase| matches!(phase, Phase::Running(_)));
            if !running.is_empty() {
                self.begin_checkpoint(running, out);
            }
        }
    }

    fn having(&self, matches: impl Fn(&Phase) -> bool) -> Vec<Partition> {
        let matching = self.owned.iter().filter(|(_, owned)| matches(&owned.phase));
        matching.map(|(&partition, _)| partition).collect()
    }

    fn begin_checkpoint(&mut self, partitions: Vec<Partition>, out: &mut Vec<Command>) {
        let epoch = self.numbers.epoch();
        for partition in &partitions {
            if let Some(OwnedPartition { phase: Phase::Draining { last_checkpoint, .. }, .. }) =
                self.owned.get_mut(partition)
            {
                *last_checkpoint = Some(epoch);
            }
        }
        let parts = partitions.iter().map(|&partition| (partition, None)).collect();
        self.flight = Some(Flight { epoch, is_initial: false, stage: Stage::Uploading, parts, begun: BTreeSet::new() });
        out.push(Command::BeginCheckpoint(epoch, partitions));
    }

    fn commit_initial(&mut self, initializing: Vec<Partition>, out: &mut Vec<Command>) {
        let epoch = self.numbers.epoch();
        let mut flight = Flight {
            epoch,
            is_initial: true,
            stage: Stage::Committing { aborting: false },
            parts: BTreeMap::new(),
            begun: initializing.iter().copied().collect(),
        };
        for partition in initializing {
            if let Some(OwnedPartition { phase: Phase::Initializing { basis, ready }, .. }) =
                self.owned.get_mut(&partition)
            {
                *ready = false;
                let upload = Upload { position: basis.committed.clone(), superseded: Vec::new() };
                flight.parts.insert(partition, Some(upload));
            }
        }
        out.push(Command::CommitInitial(epoch, shares(&flight.parts)));
        self.flight = Some(flight);
    }

    /// Removes a partition from the checkpoint in flight, so that it is not committed later.
    pub(super) fn abandon(&mut self, partition: Partition, out: &mut Vec<Command>) -> Abandoned {
        let Some(flight) = &mut self.flight else { return Abandoned::NotInFlight };
        if flight.parts.remove(&partition).is_none() {
            return Abandoned::NotInFlight;
        }
        let epoch = flight.epoch;
        match &mut flight.stage {
            Stage::Uploading => {
                out.push(Command::RollBack(epoch, partition));
                Abandoned::NotBegun
            }
            Stage::Committing { aborting } => {
                if !std::mem::replace(aborting, true) {
                    out.push(Command::Abort(epoch));
                }
                Abandoned::InDoubt
            }
            Stage::Renewing | Stage::ReadingBack => Abandoned::InDoubt,
        }
    }

    pub(super) fn uploaded(&mut self, epoch: Epoch, partition: Partition, upload: Upload) {
        let Some(flight) = self.flight_in(epoch, &[Stage::Uploading]) else { return };
        if let Some(part) = flight.parts.get_mut(&partition) {
            *part = Some(upload);
        }
    }

    /// Once every remaining partition is uploaded, begins the transaction; ends the checkpoint if no partition is left.
    pub(super) fn commit_if_complete(&mut self, out: &mut Vec<Command>) {
        let Some(flight) = &mut self.flight else { return };
        if flight.stage != Stage::Uploading || flight.parts.values().any(Option::is_none) {
            return;
        }
        if flight.parts.is_empty() {
            self.flight = None;
            return;
        }
        flight.stage = Stage::Committing { aborting: false };
        flight.begun = flight.parts.keys().copied().collect();
        out.push(Command::Commit(flight.epoch, shares(&flight.parts)));
    }

    pub(super) fn unchanged(&mut self, epoch: Epoch, partition: Partition, out: &mut Vec<Command>) {
        let Some(flight) = self.flight_in(epoch, &[Stage::Uploading]) else { return };
        if flight.parts.remove(&partition).is_some() {
            self.release_after_last_checkpoint(epoch, partition, out);
        }
    }

    pub(super) fn upload_failed(&mut self, epoch: Epoch, partition: Partition, out: &mut Vec<Command>) {
        let Some(flight) = self.flight_in(epoch, &[Stage::Uploading]) else { return };
        if flight.parts.remove(&partition).is_some() {
            self.may_force = false;
            self.not_committed(epoch, partition, out);
        }
    }

    pub(super) fn not_a_member(&mut self, epoch: Epoch, out: &mut Vec<Command>) {
        let asks_now = |flight: &&mut Flight| flight.stage == Stage::Uploading || flight.is_initial;
        let stages = [&[Stage::Uploading], &COMMITTING[..]].concat();
        let Some(flight) = self.flight_in(epoch, &stages).filter(asks_now) else { return };
        let parts: Vec<Partition> = std::mem::take(&mut flight.parts).into_keys().collect();
        self.flight = None;
        self.may_force = false;
        for partition in parts {
            self.release_after_last_checkpoint(epoch, partition, out);
        }
    }

    pub(super) fn ended(&mut self, epoch: Epoch, outcome: Outcome, out: &mut Vec<Command>) {
        let Some(flight) = self.flight_in(epoch, &COMMITTING) else { return };
        match outcome {
            Outcome::Fenced => self.fenced(out),
            Outcome::Unknown => {
                flight.stage = Stage::Renewing;
                match self.rules.delivery {
                    Delivery::ExactlyOnce => out.push(Command::RenewProducer(epoch)),
                    Delivery::AtLeastOnce => self.producer_renewed(epoch, out),
                }
            }
            Outcome::Aborted => {
                let parts: Vec<Partition> = std::mem::take(&mut flight.parts).into_keys().collect();
                self.flight = None;
                self.may_force = false;
                for partition in parts {
                    self.not_committed(epoch, partition, out);
                }
            }
            Outcome::Committed => {
                let parts = std::mem::take(&mut flight.parts);
                self.flight = None;
                for (partition, upload) in parts {
                    if let Some(upload) = upload {
                        self.committed(epoch, partition, upload, out);
                    }
                }
            }
        }
    }

    pub(super) fn producer_renewed(&mut self, epoch: Epoch, out: &mut Vec<Command>) {
        let Some(flight) = self.flight_in(epoch, &[Stage::Renewing]) else { return };
        if flight.parts.is_empty() {
            self.flight = None;
        } else {
            flight.stage = Stage::ReadingBack;
            out.push(Command::ReadBack(epoch, flight.parts.keys().copied().collect()));
        }
    }

    /// Resolves an unknown outcome by the committed offsets.
    pub(super) fn read_back(
        &mut self,
        epoch: Epoch,
        committed: &[(Partition, CommittedOffsets)],
        out: &mut Vec<Command>,
    ) {
        let Some(flight) = self.flight_in(epoch, &[Stage::ReadingBack]) else { return };
        let parts = std::mem::take(&mut flight.parts);
        self.flight = None;
        for (partition, upload) in parts {
            let Some(upload) = upload else { continue };
            let found = committed.iter().find(|(of, _)| *of == partition);
            let found = found.map(|(_, committed)| position(committed, &self.rules));
            match found {
                Some(Ok(Some(found))) if found == upload.position => self.committed(epoch, partition, upload, out),
                Some(Ok(found)) if found.as_ref() == self.former(partition) => {
                    self.may_force = false;
                    self.not_committed(epoch, partition, out);
                }
                _ => self.start_over(partition, out),
            }
        }
    }

    /// The last committed position that we know of; `None` before the initial commit.
    fn former(&self, partition: Partition) -> Option<&Position> {
        match &self.owned.get(&partition)?.phase {
            Phase::Running(basis) | Phase::Draining { basis, .. } => Some(&basis.committed),
            _ => None,
        }
    }

    fn committed(&mut self, epoch: Epoch, partition: Partition, upload: Upload, out: &mut Vec<Command>) {
        let Some(owned) = self.owned.get_mut(&partition) else { return };
        match &mut owned.phase {
            Phase::Initializing { basis, .. } => {
                let (assignment, basis) = (owned.assignment, basis.clone());
                if let crate::checkpoint::metadata::Metadata::Genesis { since, .. } = basis.committed.metadata {
                    self.begin(partition, assignment, EngineOrigin::Initial { since: since.millis() }, basis, out);
                }
            }
            Phase::Running(basis) | Phase::Draining { basis, .. } => {
                basis.committed = upload.position;
                out.push(Command::Confirm(epoch, partition));
                if !upload.superseded.is_empty() {
                    out.push(Command::Delete(partition, upload.superseded));
                }
                self.release_after_last_checkpoint(epoch, partition, out);
            }
            _ => {}
        }
    }

    fn not_committed(&mut self, epoch: Epoch, partition: Partition, out: &mut Vec<Command>) {
        let has_engine = |owned: &OwnedPartition| matches!(owned.phase, Phase::Running(_) | Phase::Draining { .. });
        if self.owned.get(&partition).is_some_and(has_engine) {
            out.push(Command::RollBack(epoch, partition));
        }
        self.release_after_last_checkpoint(epoch, partition, out);
    }

    /// Releases a partition whose last checkpoint has ended, whatever the outcome.
    fn release_after_last_checkpoint(&mut self, epoch: Epoch, partition: Partition, out: &mut Vec<Command>) {
        let last = |owned: &OwnedPartition| matches!(owned.phase, Phase::Draining { last_checkpoint: Some(last), .. } if last == epoch);
        if self.owned.get(&partition).is_some_and(last) {
            self.part_with(partition, out);
        }
    }
}

/// The partitions of a transaction with their positions.
fn shares(parts: &BTreeMap<Partition, Option<Upload>>) -> Vec<Part> {
    let share = |(&partition, upload): (&Partition, &Option<Upload>)| {
        Some(Part { partition, position: upload.as_ref()?.position.clone() })
    };
    parts.iter().filter_map(share).collect()
}
