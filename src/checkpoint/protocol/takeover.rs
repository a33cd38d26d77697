//! From the committed offsets to a running engine, or to the reason why the partition fails.

use super::{
    AssignmentEpoch, Basis, Command, CommittedOffsets, EngineOrigin, Identity, LoadFailure, Phase, Position, Reason,
    Rules, State,
};
use crate::bus::Partition;
use crate::checkpoint::metadata::{ManifestRef, Metadata};
use crate::event::Time;

impl State {
    /// The phase of a partition in this assignment; `None` if the answer belongs to an earlier one.
    fn phase_in(&mut self, partition: Partition, assignment: AssignmentEpoch) -> Option<&mut Phase> {
        let owned = self.owned.get_mut(&partition)?;
        (owned.assignment == assignment).then_some(&mut owned.phase)
    }

    pub(super) fn committed_read(
        &mut self,
        partition: Partition,
        assignment: AssignmentEpoch,
        committed: &CommittedOffsets,
        identity: Identity,
        out: &mut Vec<Command>,
    ) {
        if self.phase_in(partition, assignment) != Some(&mut Phase::Reading) {
            return;
        }
        if partition.0 >= identity.partition_count {
            return self.fail(partition, Reason::PartitionAdded { was: identity.partition_count }, out);
        }
        match position(committed, &self.rules) {
            Err(reason) => self.fail(partition, reason, out),
            Ok(None) => {
                self.forget_parked(partition, out);
                self.set_phase(partition, Phase::Searching(identity));
                out.push(Command::FindStart(partition, assignment));
            }
            Ok(Some(committed)) => self.take_state(partition, assignment, Basis { committed, identity }, out),
        }
    }

    fn take_state(&mut self, partition: Partition, assignment: AssignmentEpoch, basis: Basis, out: &mut Vec<Command>) {
        if self.parked.get(&partition).is_some_and(|parked| parked.basis == basis) {
            self.parked.remove(&partition);
            self.begin(partition, assignment, EngineOrigin::Parked, basis, out);
            return;
        }
        self.forget_parked(partition, out);
        match basis.committed.metadata.clone() {
            Metadata::Genesis { store, .. } if store != basis.identity.store => {
                self.fail(partition, Reason::AnotherStore { was: store, now: basis.identity.store }, out);
            }
            Metadata::Genesis { since, .. } => {
                self.begin(partition, assignment, EngineOrigin::Initial { since: since.millis() }, basis, out);
            }
            Metadata::State(ManifestRef { name, digest }) => {
                self.set_phase(partition, Phase::Loading(basis));
                out.push(Command::Load { partition, assignment, manifest: name, digest });
            }
        }
    }

    fn forget_parked(&mut self, partition: Partition, out: &mut Vec<Command>) {
        if self.parked.remove(&partition).is_some() {
            out.push(Command::Drop(partition));
        }
    }

    fn set_phase(&mut self, partition: Partition, phase: Phase) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.phase = phase;
        }
    }

    pub(super) fn begin(
        &mut self,
        partition: Partition,
        assignment: AssignmentEpoch,
        origin: EngineOrigin,
        basis: Basis,
        out: &mut Vec<Command>,
    ) {
        let next = basis.committed.next.clone();
        self.set_phase(partition, Phase::Running(basis));
        out.push(Command::Begin { partition, assignment, origin, next });
    }

    pub(super) fn start_found(
        &mut self,
        partition: Partition,
        assignment: AssignmentEpoch,
        has_checkpoints: bool,
        next: Vec<i64>,
        now: i64,
        out: &mut Vec<Command>,
    ) {
        let Some(phase @ Phase::Searching(_)) = self.phase_in(partition, assignment) else { return };
        if has_checkpoints {
            self.fail(partition, Reason::OffsetsExpired, out);
        } else if let Phase::Searching(identity) = std::mem::replace(phase, Phase::Resting) {
            let metadata = Metadata::Genesis { since: Time::clamped(now), store: identity.store.clone() };
            *phase =
                Phase::Initializing { basis: Basis { committed: Position { next, metadata }, identity }, ready: true };
        }
    }

    pub(super) fn loaded(
        &mut self,
        partition: Partition,
        assignment: AssignmentEpoch,
        manifest: &Identity,
        next: &[i64],
        out: &mut Vec<Command>,
    ) {
        let Some(phase @ Phase::Loading(_)) = self.phase_in(partition, assignment) else { return };
        let Phase::Loading(basis) = std::mem::replace(phase, Phase::Resting) else { return };
        match disagreement(&basis, manifest, next, &self.rules) {
            Some(reason) => self.fail(partition, reason, out),
            None => self.begin(partition, assignment, EngineOrigin::Loaded, basis, out),
        }
    }

    pub(super) fn load_failed(
        &mut self,
        partition: Partition,
        assignment: AssignmentEpoch,
        failure: LoadFailure,
        out: &mut Vec<Command>,
    ) {
        let Some(phase @ Phase::Loading(_)) = self.phase_in(partition, assignment) else { return };
        match failure {
            LoadFailure::Unavailable => *phase = Phase::Resting,
            LoadFailure::Missing(name) => self.fail(partition, Reason::FileMissing { name }, out),
            LoadFailure::Corrupt(name) => self.fail(partition, Reason::FileCorrupt { name }, out),
            LoadFailure::LogDiffers => self.fail(partition, Reason::LogTruncated, out),
        }
    }

    /// The store or the broker did not answer: start over later.
    pub(super) fn rest(&mut self, partition: Partition, assignment: AssignmentEpoch) {
        if let Some(phase @ (Phase::Reading | Phase::Searching(_))) = self.phase_in(partition, assignment) {
            *phase = Phase::Resting;
        }
    }
}

/// The position on which the committed offsets of a partition's topics agree; `None` if nothing is committed.
///
/// # Errors
/// The metadata was not written by retentiond, or the topics disagree.
pub(super) fn position(committed: &CommittedOffsets, rules: &Rules) -> Result<Option<Position>, Reason> {
    if committed.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut agreed: Option<Metadata> = None;
    let mut next = Vec::with_capacity(committed.len());
    for (topic, found) in rules.topics.iter().zip(committed) {
        let Some(found) = found else { return Err(Reason::OffsetsIncomplete { topic: topic.clone() }) };
        let foreign = |_| Reason::ForeignMetadata { topic: topic.clone() };
        let metadata: Metadata = found.metadata.parse().map_err(foreign)?;
        if agreed.get_or_insert_with(|| metadata.clone()) != &metadata {
            return Err(Reason::MixedMetadata);
        }
        next.push(found.offset);
    }
    Ok(agreed.map(|metadata| Position { next, metadata }))
}

/// Why a loaded state cannot be used, if so.
fn disagreement(basis: &Basis, was: &Identity, next: &[i64], rules: &Rules) -> Option<Reason> {
    let now = &basis.identity;
    if (&was.group, was.partition) != (&now.group, now.partition) {
        return Some(Reason::ForeignState);
    }
    if was.store != now.store {
        return Some(Reason::AnotherStore { was: was.store.clone(), now: now.store.clone() });
    }
    if was.topic_ids.len() != now.topic_ids.len() || next.len() != basis.committed.next.len() {
        return Some(Reason::DefinitionChanged);
    }
    let recreated = was.topic_ids.iter().zip(&now.topic_ids).position(|(was, now)| was != now);
    if let Some(topic) = recreated {
        return Some(Reason::TopicRecreated { topic: rules.topics.get(topic).cloned().unwrap_or_default() });
    }
    if was.partition_count != now.partition_count {
        return Some(Reason::PartitionCountChanged { was: was.partition_count, now: now.partition_count });
    }
    if was.definition != now.definition {
        return Some(Reason::DefinitionChanged);
    }
    let offsets = rules.topics.iter().zip(basis.committed.next.iter().zip(next));
    let mut moved = offsets.filter(|(_, (committed, manifest))| committed != manifest);
    moved.next().map(|(topic, (&committed, &manifest))| Reason::OffsetMoved {
        topic: topic.clone(),
        committed,
        manifest,
    })
}
