//! A broker and a consumer group in memory, for tests that need rebalances on demand.
//!
//! It keeps the guarantees of real brokers that the program relies on: a rebalance waits for the answers of the
//! members, an expelled member gets [`Polled::Lost`] and cannot commit, and no records arrive while an event is
//! unanswered. Partitions are assigned by range, topic by topic. Nothing sleeps or reads a clock except the wait in
//! [`LogClient::poll`], which ends with the first change.

mod transactions;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::transactions::Coordinator;
pub use self::transactions::{Fault, MemoryHandle, MemoryProducer, Produced};
use super::{
    Committed, Header, LogClient, Partition, Polled, RebalanceProtocol, Record, RecordBatch, SourceError, Stamp, Start,
    TopicIndex, TopicPartition,
};

/// A member of the group, numbered in the order of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(u32);

/// Topics, their records, and one consumer group; clones share them.
#[derive(Debug, Clone)]
pub struct MemoryBroker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    group: Mutex<Group>,
    changed: Condvar,
}

#[derive(Debug)]
struct Group {
    protocol: RebalanceProtocol,
    logs: BTreeMap<TopicPartition, Vec<Arc<Stored>>>,
    members: BTreeMap<MemberId, Member>,
    committed: BTreeMap<TopicPartition, Committed>,
    coordinator: Coordinator,
    /// Incremented by every rebalance; a commit must carry the current one.
    generation: i32,
    joined: u32,
    batch_max: usize,
    /// Number of upcoming commits to refuse.
    refusals: u32,
    /// Eager protocol: all members must give up everything before partitions are assigned.
    rebalancing: bool,
}

#[derive(Debug)]
struct Stored {
    time: i64,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

#[derive(Debug, Default)]
struct Member {
    /// A reader outside the group; it may read any partition.
    is_outside: bool,
    /// Expelled, and not yet rejoined.
    lost: bool,
    /// Partitions assigned to it and not yet given back.
    held: BTreeSet<TopicPartition>,
    /// Partitions it was asked to give back.
    revoking: BTreeSet<TopicPartition>,
    /// The partitions it reads.
    reading: BTreeMap<TopicPartition, Position>,
    /// Paused partitions.
    paused: BTreeSet<TopicPartition>,
    events: VecDeque<Polled<MemoryBatch>>,
    /// The rebalance event that it must answer.
    unanswered: Option<Question>,
    /// Whether it has received an assignment since joining.
    welcomed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Assigned,
    Revoked,
    Lost,
}

#[derive(Debug)]
struct Position {
    next: i64,
    reported_end: Option<i64>,
}

/// Records of one topic-partition.
#[derive(Debug)]
pub struct MemoryBatch {
    first: i64,
    records: Vec<Arc<Stored>>,
}

impl RecordBatch for MemoryBatch {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn get(&self, index: usize) -> Record<'_> {
        let stored = &self.records[index];
        Record { offset: self.first + offset_of(index), key: stored.key.as_deref(), payload: stored.payload.as_deref() }
    }

    fn stamp(&self, index: usize) -> Stamp {
        Stamp { time: Some(self.records[index].time), leader_epoch: Some(0) }
    }

    fn headers(&self, index: usize) -> Vec<Header<'_>> {
        let headers = self.records[index].headers.iter();
        headers.map(|(name, value)| Header { name: Cow::Borrowed(name), value: value.as_deref() }).collect()
    }
}

fn offset_of(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

fn index_of(offset: i64) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

impl MemoryBroker {
    /// Creates a broker with one topic for each partition count.
    #[must_use]
    pub fn new(protocol: RebalanceProtocol, partitions: &[u32]) -> MemoryBroker {
        let mut logs = BTreeMap::new();
        for (topic, count) in (0_u16..).zip(partitions) {
            for partition in (0_i32..).take(usize::try_from(*count).unwrap_or(0)) {
                let at = TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) };
                logs.insert(at, Vec::new());
            }
        }
        let group = Group {
            protocol,
            logs,
            members: BTreeMap::new(),
            committed: BTreeMap::new(),
            coordinator: Coordinator::default(),
            generation: 0,
            joined: 0,
            batch_max: usize::MAX,
            refusals: 0,
            rebalancing: false,
        };
        MemoryBroker(Arc::new(Shared { group: Mutex::new(group), changed: Condvar::new() }))
    }

    /// Appends a record with this log time and returns its offset; `None` if the partition does not exist.
    pub fn append(&self, at: TopicPartition, key: Option<&[u8]>, payload: Option<&[u8]>, time: i64) -> Option<i64> {
        self.append_with_headers(at, key, payload, time, &[])
    }

    /// As [`MemoryBroker::append`], with headers.
    pub fn append_with_headers(
        &self,
        at: TopicPartition,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        time: i64,
        headers: &[Header<'_>],
    ) -> Option<i64> {
        let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let headers = headers.iter().map(|header| (header.name.to_string(), bytes(header.value))).collect();
        self.change(|group| {
            let log = group.logs.get_mut(&at)?;
            let stored = Stored { time, key: bytes(key), payload: bytes(payload), headers };
            log.push(Arc::new(stored));
            Some(offset_of(log.len() - 1))
        })
    }

    /// Adds a member to the group, which triggers a rebalance.
    #[must_use]
    pub fn join(&self) -> MemoryClient {
        let (id, protocol) = self.change(|group| {
            let id = MemberId(group.joined);
            group.joined += 1;
            group.members.insert(id, Member::default());
            group.rebalance();
            (id, group.protocol)
        });
        MemoryClient { broker: self.clone(), id, protocol }
    }

    /// A reader outside the group, which reads what [`LogClient::assign`] names.
    #[must_use]
    pub fn look(&self) -> MemoryClient {
        let (id, protocol) = self.change(|group| {
            let id = MemberId(group.joined);
            group.joined += 1;
            group.members.insert(id, Member { is_outside: true, ..Member::default() });
            (id, group.protocol)
        });
        MemoryClient { broker: self.clone(), id, protocol }
    }

    /// Expels a member, as after a session timeout: the others get its partitions at once, it gets [`Polled::Lost`],
    /// and it rejoins when it has answered that.
    pub fn kick(&self, id: MemberId) {
        self.change(|group| {
            let Some(member) = group.members.get_mut(&id).filter(|member| !member.lost) else { return };
            let held = std::mem::take(&mut member.held);
            member.revoking.clear();
            member.lost = true;
            member.welcomed = false;
            // This overrides earlier events that the member has not seen.
            member.events.retain(|event| matches!(event, Polled::Error(_) | Polled::Fatal(_)));
            member.ask(Question::Lost, Polled::Lost(held.into_iter().collect()));
            group.rebalance();
        });
    }

    /// Removes a member for good, as if its process had crashed and its session timed out.
    pub fn forget_member(&self, id: MemberId) {
        self.change(|group| {
            if group.members.remove(&id).is_some_and(|gone| !gone.is_outside) {
                group.rebalance();
            }
        });
    }

    /// Lets the next poll of a member bring [`Polled::Error`].
    pub fn last_error(&self, id: MemberId, text: &str) {
        self.tell(id, Polled::Error(text.to_owned()));
    }

    /// Makes the next poll of a member return [`Polled::Damaged`].
    pub fn damage(&self, id: MemberId, at: TopicPartition, text: &str) {
        self.tell(id, Polled::Damaged(at, text.to_owned()));
    }

    /// Makes the next poll of a member return [`Polled::Fatal`].
    pub fn fatal(&self, id: MemberId, error: SourceError) {
        self.tell(id, Polled::Fatal(error));
    }

    fn tell(&self, id: MemberId, event: Polled<MemoryBatch>) {
        self.change(|group| {
            if let Some(member) = group.members.get_mut(&id) {
                member.events.push_back(event);
            }
        });
    }

    /// Limits the number of records in a batch; at least one.
    pub fn limit_batches(&self, records: usize) {
        self.change(|group| group.batch_max = records.max(1));
    }

    /// Refuses this many upcoming commits, as if the coordinator were unavailable.
    pub fn refuse_commits(&self, commits: u32) {
        self.change(|group| group.refusals = commits);
    }

    /// The committed offset of the group.
    #[must_use]
    pub fn committed(&self, at: TopicPartition) -> Option<i64> {
        self.lock().committed.get(&at).map(|committed| committed.offset)
    }

    /// The committed offset of the group with its metadata.
    #[must_use]
    pub fn committed_whole(&self, at: TopicPartition) -> Option<Committed> {
        self.lock().committed.get(&at).cloned()
    }

    /// The partitions assigned to a member, as the group sees it.
    #[must_use]
    pub fn held(&self, id: MemberId) -> BTreeSet<TopicPartition> {
        self.lock().members.get(&id).map(|member| member.held.clone()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Group> {
        self.0.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Group) -> T) -> T {
        let mut group = self.lock();
        let answer = change(&mut group);
        group.hand_out();
        drop(group);
        self.0.changed.notify_all();
        answer
    }
}

impl Member {
    fn is_in(&self) -> bool {
        !self.lost && !self.is_outside
    }

    fn ask(&mut self, question: Question, event: Polled<MemoryBatch>) {
        self.unanswered = Some(question);
        self.events.push_back(event);
    }
}

impl Group {
    fn rebalance(&mut self) {
        self.rebalancing = true;
        if self.protocol == RebalanceProtocol::Incremental {
            self.generation += 1; // the broker needs no answers for it
        }
    }

    /// The target assignment by range: the first members get one partition more if the count does not divide evenly.
    fn target(&self) -> BTreeMap<TopicPartition, MemberId> {
        let members: Vec<MemberId> =
            self.members.iter().filter(|(_, member)| member.is_in()).map(|(id, _)| *id).collect();
        let mut by_topic: BTreeMap<TopicIndex, Vec<TopicPartition>> = BTreeMap::new();
        for at in self.logs.keys() {
            by_topic.entry(at.topic).or_default().push(*at);
        }
        let mut target = BTreeMap::new();
        for partitions in by_topic.values() {
            let mut rest = partitions.as_slice();
            for (i, id) in members.iter().enumerate() {
                let (range, later) = rest.split_at(rest.len().div_ceil(members.len() - i));
                target.extend(range.iter().map(|at| (*at, *id)));
                rest = later;
            }
        }
        target
    }

    /// Moves partitions as far as the answers of the members allow.
    fn hand_out(&mut self) {
        match self.protocol {
            RebalanceProtocol::Eager if self.rebalancing => self.hand_out_everything(),
            RebalanceProtocol::Eager => {}
            RebalanceProtocol::Incremental => self.hand_out_changes(),
        }
    }

    fn hand_out_everything(&mut self) {
        let mut all_back = true;
        for member in self.members.values_mut().filter(|member| member.is_in()) {
            if member.unanswered.is_none() && !member.held.is_empty() {
                member.revoking = member.held.clone();
                member.ask(Question::Revoked, Polled::Revoked(member.held.iter().copied().collect()));
            }
            all_back &= member.unanswered.is_none() && member.held.is_empty();
        }
        if !all_back {
            return;
        }
        self.rebalancing = false;
        self.generation += 1;
        let target = self.target();
        for (id, member) in self.members.iter_mut().filter(|(_, member)| member.is_in()) {
            member.held = target.iter().filter(|(_, owner)| *owner == id).map(|(at, _)| *at).collect();
            member.welcomed = true;
            member.ask(Question::Assigned, Polled::Assigned(member.held.iter().copied().collect()));
        }
    }

    fn hand_out_changes(&mut self) {
        let target = self.target();
        for (id, member) in
            self.members.iter_mut().filter(|(_, member)| !member.is_outside && member.unanswered.is_none())
        {
            let surplus: BTreeSet<_> = member.held.iter().filter(|at| target.get(at) != Some(id)).copied().collect();
            if !surplus.is_empty() {
                let event = Polled::Revoked(surplus.iter().copied().collect());
                member.revoking = surplus;
                member.ask(Question::Revoked, event);
            }
        }
        let taken: BTreeSet<_> = self.members.values().flat_map(|member| member.held.iter().copied()).collect();
        for (id, member) in
            self.members.iter_mut().filter(|(_, member)| !member.is_outside && member.unanswered.is_none())
        {
            let free = |(at, owner): &(&TopicPartition, &MemberId)| *owner == id && !taken.contains(at);
            let given: Vec<_> = target.iter().filter(free).map(|(at, _)| *at).collect();
            if !given.is_empty() || !member.welcomed {
                member.welcomed = true;
                member.held.extend(&given);
                member.ask(Question::Assigned, Polled::Assigned(given));
            }
        }
    }

    fn poll(&mut self, id: MemberId) -> Vec<Polled<MemoryBatch>> {
        let Some(member) = self.members.get_mut(&id) else { return Vec::new() };
        let mut out: Vec<_> = member.events.drain(..).collect();
        if member.unanswered.is_some() {
            return out; // as librdkafka does, no records until the answer
        }
        let paused = &member.paused;
        for (at, position) in member.reading.iter_mut().filter(|(at, _)| !paused.contains(at)) {
            let log = &self.logs[at];
            let rest = log.get(index_of(position.next)..).unwrap_or_default();
            let records: Vec<_> = rest.iter().take(self.batch_max).cloned().collect();
            if !records.is_empty() {
                let first = position.next;
                position.next += offset_of(records.len());
                out.push(Polled::Records(*at, MemoryBatch { first, records }));
            }
            if position.next == offset_of(log.len()) && position.reported_end != Some(position.next) {
                position.reported_end = Some(position.next);
                out.push(Polled::End { at: *at, offset: position.next });
            }
        }
        out
    }

    fn position(&self, at: TopicPartition, start: Start) -> Result<Position, SourceError> {
        let log = &self.logs[&at];
        let end = offset_of(log.len());
        let next = match start {
            Start::Earliest => 0,
            Start::Latest => end,
            Start::At(time) => log.iter().position(|stored| stored.time >= time).map_or(end, offset_of),
            Start::Offset(offset) if (0..=end).contains(&offset) => offset,
            Start::Offset(offset) => {
                let text = format!("{at:?}: there is no offset {offset}, the log ends at {end}");
                return Err(SourceError::Configuration(text));
            }
        };
        Ok(Position { next, reported_end: None })
    }

    /// Starts reading, if the answer fits the pending event.
    fn read(&mut self, id: MemberId, partitions: &[(TopicPartition, Start)], all: bool) -> Result<(), SourceError> {
        let wrong = |text: String| Err(SourceError::Configuration(text));
        let mut positions = BTreeMap::new();
        for (at, start) in partitions {
            match self.members.get(&id) {
                Some(member) if !member.is_outside && !member.held.contains(at) => {
                    return wrong(format!("{at:?} is not ours to read"));
                }
                Some(member) if !all && member.reading.contains_key(at) => {
                    return wrong(format!("{at:?} is read already"));
                }
                _ => positions.insert(*at, self.position(*at, *start)?),
            };
        }
        let Some(member) = self.members.get_mut(&id) else { return Err(gone()) };
        if all {
            member.reading.clear();
            member.paused.clear();
        }
        member.paused.retain(|at| !positions.contains_key(at));
        member.reading.extend(positions);
        if member.unanswered == Some(Question::Assigned) {
            member.unanswered = None;
        }
        Ok(())
    }

    fn give_back(&mut self, id: MemberId, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        let eager = self.protocol == RebalanceProtocol::Eager;
        let Some(member) = self.members.get_mut(&id) else { return Err(gone()) };
        if let Some(at) = partitions.iter().find(|at| !eager && !member.reading.contains_key(at)) {
            return Err(SourceError::Configuration(format!("{at:?} is not read")));
        }
        member.reading.retain(|at, _| !eager && !partitions.contains(at));
        let reading = &member.reading;
        member.paused.retain(|at| reading.contains_key(at));
        match member.unanswered {
            Some(Question::Revoked) => {
                let revoking = std::mem::take(&mut member.revoking);
                member.held.retain(|at| !revoking.contains(at));
                member.unanswered = None;
            }
            Some(Question::Lost) => {
                member.lost = false;
                member.unanswered = None;
                self.rebalance();
            }
            Some(Question::Assigned) | None => {}
        }
        Ok(())
    }
}

fn gone() -> SourceError {
    SourceError::Unavailable("cannot commit: the group no longer knows this member".to_owned())
}

/// A member of the group of a [`MemoryBroker`]. Dropping it without [`LogClient::close`] simulates a crash.
#[derive(Debug)]
pub struct MemoryClient {
    broker: MemoryBroker,
    id: MemberId,
    protocol: RebalanceProtocol,
}

impl MemoryClient {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.id
    }
}

impl LogClient for MemoryClient {
    type Batch = MemoryBatch;

    fn poll(&mut self, wait: Duration) -> Vec<Polled<MemoryBatch>> {
        let mut out = Vec::new();
        let nothing = |group: &mut Group| {
            out = group.poll(self.id);
            out.is_empty()
        };
        drop(self.broker.0.changed.wait_timeout_while(self.broker.lock(), wait, nothing));
        out
    }

    fn protocol(&self) -> RebalanceProtocol {
        self.protocol
    }

    fn assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError> {
        self.broker.change(|group| group.read(self.id, partitions, true))
    }

    fn incremental_assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError> {
        self.broker.change(|group| group.read(self.id, partitions, false))
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.broker.change(|group| group.give_back(self.id, partitions))
    }

    fn end_offset(&self, of: TopicPartition) -> Option<i64> {
        self.broker.lock().logs.get(&of).map(|log| offset_of(log.len()))
    }

    fn close(self, _wait: Duration) {
        self.broker.forget_member(self.id);
    }
}

#[cfg(test)]
mod tests;
