//! The broker: group coordinator, transaction coordinator, and the topic for alerts and dead letters. It answers
//! requests at once; the network delays and loses answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::Entry;

pub const SESSION_TIMEOUT: i64 = 1_500;
pub const REBALANCE_TIMEOUT: i64 = 2_000;
const TRANSACTION_TIMEOUT: i64 = 2_500;

/// The membership that a member sends with its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    pub member: u64,
    pub generation: i32,
    pub instance: Option<usize>,
}

/// Offsets and metadata of all topics of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offsets {
    pub next: Vec<i64>,
    pub metadata: String,
}

/// A producer of a transactional id; the epoch also counts new producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    pub transactional_id: usize,
    pub epoch: u32,
}

#[derive(Debug, Clone)]
pub enum Request {
    Join {
        member: Option<u64>,
        instance: Option<usize>,
        holds: BTreeSet<i32>,
    },
    Heartbeat(Membership),
    Leave(Membership),
    FetchOffsets(Vec<i32>),
    CommitOffsets(Membership, Vec<(i32, Offsets)>),
    InitProducer(usize),
    Produce(Producer, Vec<Entry>),
    SendOffsets(Producer, Membership, Vec<(i32, Offsets)>),
    EndTransaction {
        producer: Producer,
        commit: bool,
    },
    /// Without a transaction.
    ProducePlainly(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Done,
    Joined {
        member: u64,
        generation: i32,
        partitions: BTreeSet<i32>,
    },
    Rebalance,
    UnknownMember,
    /// Stale generation.
    Refused,
    Fenced,
    /// A transaction with the same id is ending.
    Concurrent,
    /// An offset is part of a pending transaction.
    Unstable,
    Offsets(Vec<(i32, Option<Offsets>)>),
    Initialized(Producer),
    /// A request that is invalid in this state.
    Invalid,
    TimedOut,
}

/// A decision of the coordinator to commit; the markers follow.
pub struct Decided {
    pub offsets: Vec<(i32, Offsets)>,
    pub entries: Vec<Entry>,
}

/// A marker on its way to the offsets (`0`) or the topic (`1`).
#[derive(Debug, Clone, Copy)]
pub struct Marker {
    pub transactional_id: usize,
    serial: u64,
    pub to: usize,
}

struct Member {
    instance: Option<usize>,
    last_seen: i64,
    /// The call that waits for the end of the rebalance.
    joining: Option<u64>,
    /// The partitions it held when it joined.
    holds: BTreeSet<i32>,
    partitions: BTreeSet<i32>,
}

#[derive(Default)]
struct Transaction {
    epoch: u32,
    serial: u64,
    since: Option<i64>,
    /// Whether it is ending, and with which outcome.
    ending: Option<bool>,
    markers: [bool; 2],
    entries: Vec<Entry>,
    offsets: Vec<(i32, Offsets)>,
    /// Epoch and outcome of the last one.
    last: Option<(u32, bool)>,
}

pub struct Broker {
    eager: bool,
    partitions: i32,
    generation: i32,
    /// Start of the rebalance in progress.
    preparing: Option<i64>,
    members: BTreeMap<u64, Member>,
    next_member: u64,
    pub offsets: BTreeMap<i32, Offsets>,
    transactions: BTreeMap<usize, Transaction>,
    /// The committed entries, as a consumer sees them.
    pub topic: Vec<Entry>,
    /// Injected faults: without `fences`, epochs and generations are not checked; without `reads_stably`, reads do not
    /// wait for transactions.
    pub fences: bool,
    pub reads_stably: bool,
    /// Decisions made during the last request.
    pub decided: Vec<Decided>,
    /// Markers to deliver.
    pub markers: Vec<Marker>,
    /// Answers to earlier joins.
    pub joined: Vec<(u64, Reply)>,
    /// Number of replaced static members.
    pub static_rejoins: u64,
}

impl Broker {
    pub fn new(partitions: i32) -> Broker {
        Broker {
            eager: false,
            partitions,
            generation: 0,
            preparing: None,
            members: BTreeMap::new(),
            next_member: 0,
            offsets: BTreeMap::new(),
            transactions: BTreeMap::new(),
            topic: Vec::new(),
            fences: true,
            reads_stably: true,
            decided: Vec::new(),
            markers: Vec::new(),
            joined: Vec::new(),
            static_rejoins: 0,
        }
    }

    pub fn set_eager(&mut self, eager: bool) {
        self.eager = eager;
    }

    /// Serves a request; returns the answer, or `None` for a join that must wait.
    pub fn serve(&mut self, now: i64, call: u64, request: Request) -> Option<Reply> {
        Some(match request {
            Request::Join { member, instance, holds } => return self.join(now, call, member, instance, holds),
            Request::Heartbeat(membership) => self.heartbeat(now, membership),
            Request::Leave(membership) => {
                if self.check_member(membership) == Ok(()) {
                    self.members.remove(&membership.member);
                    self.prepare(now);
                }
                Reply::Done
            }
            Request::FetchOffsets(partitions) => self.fetch(&partitions),
            Request::CommitOffsets(membership, offsets) => match self.check_generation(membership) {
                Ok(()) => {
                    self.offsets.extend(offsets.iter().cloned());
                    self.decided.push(Decided { offsets, entries: Vec::new() });
                    Reply::Done
                }
                Err(refusal) => refusal,
            },
            Request::InitProducer(id) => self.init_producer(id),
            Request::Produce(producer, entries) => self.in_transaction(now, producer, |transaction| {
                transaction.entries.extend(entries);
            }),
            Request::SendOffsets(producer, membership, offsets) => match self.check_generation(membership) {
                Ok(()) => self.in_transaction(now, producer, |transaction| transaction.offsets.extend(offsets)),
                Err(refusal) => refusal,
            },
            Request::EndTransaction { producer, commit } => self.end_transaction(producer, commit),
            Request::ProducePlainly(entries) => {
                self.topic.extend(entries.iter().cloned());
                self.decided.push(Decided { offsets: Vec::new(), entries });
                Reply::Done
            }
        })
    }

    /// Expires sessions, rebalances and transactions.
    pub fn tick(&mut self, now: i64) {
        let before = self.members.len();
        self.members.retain(|_, member| member.joining.is_some() || now - member.last_seen <= SESSION_TIMEOUT);
        if self.members.len() < before {
            self.prepare(now);
        }
        if let Some(since) = self.preparing {
            if now - since > REBALANCE_TIMEOUT {
                self.members.retain(|_, member| member.joining.is_some());
            }
            self.complete_if_all_joined(now);
        }
        let late = |(&id, transaction): (&usize, &Transaction)| {
            let late = transaction.since.is_some_and(|since| now - since > TRANSACTION_TIMEOUT);
            (late && transaction.ending.is_none()).then_some(id)
        };
        let late: Vec<usize> = self.transactions.iter().filter_map(late).collect();
        for id in late {
            if let Some(transaction) = self.transactions.get_mut(&id) {
                transaction.epoch += 1;
                self.end(id, false);
            }
        }
    }

    // The group ------------------------------------------------------------------------------------------------------

    fn join(
        &mut self,
        now: i64,
        call: u64,
        member: Option<u64>,
        instance: Option<usize>,
        holds: BTreeSet<i32>,
    ) -> Option<Reply> {
        let id = if let Some(id) = member {
            let membership = Membership { member: id, generation: 0, instance };
            if let Err(refusal) = self.check_member(membership) {
                return Some(refusal);
            }
            id
        } else {
            self.next_member += 1;
            let id = self.next_member;
            let former = instance.and_then(|_| {
                self.members.iter().find(|(_, member)| member.instance == instance).map(|(&former, _)| former)
            });
            if let Some(former) = former.and_then(|former| self.members.remove(&former)) {
                let partitions = former.partitions;
                let replaced = Member { instance, last_seen: now, joining: None, holds, partitions };
                self.members.insert(id, replaced);
                self.static_rejoins += 1;
                // If a partition is still waiting for its former holder, which may be gone, the group rebalances.
                let given: usize = self.members.values().map(|member| member.partitions.len()).sum();
                if self.preparing.is_none() && given < self.partitions as usize {
                    self.prepare(now);
                }
                if self.preparing.is_none() {
                    let partitions = self.members[&id].partitions.clone();
                    return Some(Reply::Joined { member: id, generation: self.generation, partitions });
                }
                self.await_generation(now, id, call);
                return None;
            }
            let new =
                Member { instance, last_seen: now, joining: None, holds: BTreeSet::new(), partitions: BTreeSet::new() };
            self.members.insert(id, new);
            id
        };
        if let Some(member) = self.members.get_mut(&id) {
            member.holds = holds;
        }
        self.prepare(now);
        self.await_generation(now, id, call);
        None
    }

    fn await_generation(&mut self, now: i64, id: u64, call: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.joining = Some(call);
            member.last_seen = now;
        }
        self.complete_if_all_joined(now);
    }

    fn prepare(&mut self, now: i64) {
        self.preparing.get_or_insert(now);
    }

    fn complete_if_all_joined(&mut self, now: i64) {
        if self.preparing.is_none() || self.members.values().any(|member| member.joining.is_none()) {
            return;
        }
        self.preparing = None;
        self.generation += 1;
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let mut shares: BTreeMap<u64, BTreeSet<i32>> = ids.iter().map(|&id| (id, BTreeSet::new())).collect();
        for partition in 0..self.partitions {
            let Some(&target) = ids.get(partition as usize % ids.len().max(1)) else { continue };
            let holder = self.members.iter().find(|(_, member)| member.holds.contains(&partition)).map(|(&id, _)| id);
            // Incremental: the holder gives it up first, and only the next generation assigns it to another.
            let kept_back = !self.eager && holder.is_some_and(|holder| holder != target);
            if !kept_back && let Some(share) = shares.get_mut(&target) {
                share.insert(partition);
            }
        }
        for (id, share) in shares {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.partitions = share.clone();
            member.last_seen = now;
            if let Some(call) = member.joining.take() {
                let reply = Reply::Joined { member: id, generation: self.generation, partitions: share };
                self.joined.push((call, reply));
            }
        }
    }

    fn heartbeat(&mut self, now: i64, membership: Membership) -> Reply {
        if let Err(refusal) = self.check_member(membership) {
            return refusal;
        }
        if let Some(member) = self.members.get_mut(&membership.member) {
            member.last_seen = now;
        }
        let current = membership.generation == self.generation;
        if self.preparing.is_some() || !current { Reply::Rebalance } else { Reply::Done }
    }

    fn check_member(&self, membership: Membership) -> Result<(), Reply> {
        if self.members.contains_key(&membership.member) {
            return Ok(());
        }
        let replaced = |member: &Member| membership.instance.is_some() && member.instance == membership.instance;
        Err(if self.members.values().any(replaced) { Reply::Fenced } else { Reply::UnknownMember })
    }

    fn check_generation(&self, membership: Membership) -> Result<(), Reply> {
        if !self.fences {
            return Ok(());
        }
        self.check_member(membership).map_err(|refusal| match refusal {
            Reply::Fenced => Reply::Fenced,
            _ => Reply::Refused,
        })?;
        if membership.generation == self.generation { Ok(()) } else { Err(Reply::Refused) }
    }

    /// Whether this is a member of the current generation that owns the partition.
    pub fn owns(&self, membership: Membership, partition: i32) -> bool {
        let given = |member: &Member| member.partitions.contains(&partition);
        membership.generation == self.generation && self.members.get(&membership.member).is_some_and(given)
    }

    fn fetch(&self, partitions: &[i32]) -> Reply {
        let pends = |transaction: &Transaction| {
            let held = |(partition, _): &(i32, Offsets)| partitions.contains(partition);
            !transaction.markers[0] && transaction.offsets.iter().any(held)
        };
        if self.reads_stably && self.transactions.values().any(pends) {
            return Reply::Unstable;
        }
        let found = partitions.iter().map(|partition| (*partition, self.offsets.get(partition).cloned()));
        Reply::Offsets(found.collect())
    }

    // Transactions ---------------------------------------------------------------------------------------------------

    fn init_producer(&mut self, id: usize) -> Reply {
        let transaction = self.transactions.entry(id).or_default();
        if transaction.ending.is_some() {
            return Reply::Concurrent;
        }
        transaction.epoch += 1;
        if transaction.since.is_some() {
            self.end(id, false);
            return Reply::Concurrent;
        }
        Reply::Initialized(Producer { transactional_id: id, epoch: transaction.epoch })
    }

    fn in_transaction(&mut self, now: i64, producer: Producer, add: impl FnOnce(&mut Transaction)) -> Reply {
        let fences = self.fences;
        let transaction = self.transactions.entry(producer.transactional_id).or_default();
        if fences && producer.epoch != transaction.epoch {
            return Reply::Fenced;
        }
        if transaction.ending.is_some() {
            return Reply::Concurrent;
        }
        if transaction.since.is_none() {
            transaction.since = Some(now);
            transaction.serial += 1;
            transaction.markers = [false; 2];
        }
        add(transaction);
        Reply::Done
    }

    fn end_transaction(&mut self, producer: Producer, commit: bool) -> Reply {
        let fences = self.fences;
        let transaction = self.transactions.entry(producer.transactional_id).or_default();
        if fences && producer.epoch != transaction.epoch {
            return Reply::Fenced;
        }
        match (transaction.since, transaction.ending) {
            (Some(_), None) => {
                transaction.last = Some((producer.epoch, commit));
                self.end(producer.transactional_id, commit);
                Reply::Done
            }
            _ if transaction.last == Some((producer.epoch, commit)) => Reply::Done,
            _ => Reply::Invalid,
        }
    }

    /// Decides the outcome of a transaction; markers apply it to offsets and topic.
    fn end(&mut self, id: usize, commit: bool) {
        let Some(transaction) = self.transactions.get_mut(&id) else { return };
        transaction.ending = Some(commit);
        if commit {
            let (offsets, entries) = (transaction.offsets.clone(), transaction.entries.clone());
            self.decided.push(Decided { offsets, entries });
        }
        let marker = |to| Marker { transactional_id: id, serial: transaction.serial, to };
        self.markers.extend([0, 1].map(marker));
    }

    /// Applies a marker; duplicates have no effect, however late.
    pub fn mark(&mut self, marker: Marker) {
        let Some(transaction) = self.transactions.get_mut(&marker.transactional_id) else { return };
        let Some(commit) = transaction.ending.filter(|_| transaction.serial == marker.serial) else { return };
        if std::mem::replace(&mut transaction.markers[marker.to], true) {
            return;
        }
        if commit && marker.to == 0 {
            self.offsets.extend(transaction.offsets.iter().cloned());
        } else if commit {
            self.topic.extend(transaction.entries.iter().cloned());
        }
        if transaction.markers == [true; 2] {
            transaction.ending = None;
            transaction.since = None;
            transaction.entries.clear();
            transaction.offsets.clear();
        }
    }
}
