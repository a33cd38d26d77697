//! Tokens, stable reads, pauses and transactions of the in-memory broker, with fault injection.
//!
//! It checks what a real broker checks, and no more: a commit needs the current generation and a current member, not
//! the owner of the partition. A pending transaction blocks stable reads until its transactional id is taken over.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Group, MemberId, MemoryBroker, MemoryClient, gone};
use crate::bus::transaction::{FencedBy, Outgoing, TransactionError, Transactions};
use crate::bus::{Committed, GroupClient, GroupHandle, GroupToken, SourceError, Start, TopicPartition};

/// The name of the group.
const GROUP: &str = "memory";

/// A fault to inject into the next transaction commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The commit is refused, and the transaction must be aborted.
    Refused,
    /// The commit succeeds, but the reply is lost.
    ReplyLost,
    /// The request is lost.
    RequestLost,
}

/// A record of a committed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Produced {
    /// Its topic.
    pub topic: String,
    /// The requested partition, if any.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub payload: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its time, if one was given.
    pub time: Option<i64>,
}

/// The transactions of all producers.
#[derive(Debug, Default)]
pub(super) struct Coordinator {
    /// The epoch and the pending transaction of each transactional id.
    ids: BTreeMap<String, (u32, Pending)>,
    visible: Vec<Produced>,
    faults: VecDeque<Fault>,
}

#[derive(Debug, Default)]
struct Pending {
    records: Vec<Produced>,
    offsets: Vec<(TopicPartition, Committed)>,
}

impl Coordinator {
    fn is_unstable(&self, at: TopicPartition) -> bool {
        self.ids.values().any(|(_, pending)| pending.offsets.iter().any(|(held, _)| *held == at))
    }
}

impl Group {
    fn token(&self, id: MemberId) -> Result<GroupToken, SourceError> {
        match self.members.get(&id) {
            Some(member) if !member.lost && member.welcomed => {
                GroupToken::new(GROUP, self.generation, &format!("member-{}", id.0), None)
            }
            _ => Err(SourceError::Unavailable("this member is not in the group".to_owned())),
        }
    }

    /// Performs the checks of a group coordinator.
    fn check(&self, token: &GroupToken) -> Result<(), TransactionError> {
        if token.is_of_nobody() {
            return Ok(()); // a group without members; its offsets are stored with the others here
        }
        let is_member =
            |(id, member): (&MemberId, &super::Member)| !member.lost && format!("member-{}", id.0) == token.member_id();
        if !self.members.iter().any(is_member) {
            return Err(TransactionError::Rejoin("unknown member id".to_owned()));
        }
        if token.generation() != self.generation {
            return Err(TransactionError::Rejoin("illegal generation".to_owned()));
        }
        Ok(())
    }
}

impl MemoryBroker {
    /// A producer; call [`Transactions::init`] before any other method.
    #[must_use]
    pub fn producer(&self, transactional_id: &str) -> MemoryProducer {
        MemoryProducer { broker: self.clone(), id: transactional_id.to_owned(), epoch: 0, open: None, over: false }
    }

    /// All records of committed transactions, in order.
    #[must_use]
    pub fn produced(&self) -> Vec<Produced> {
        self.lock().coordinator.visible.clone()
    }

    /// Injects a fault into an upcoming commit; each call adds one.
    pub fn inject(&self, fault: Fault) {
        self.change(|group| group.coordinator.faults.push_back(fault));
    }
}

/// Queries to a [`MemoryBroker`] for one of its members.
#[derive(Debug, Clone)]
pub struct MemoryHandle {
    broker: MemoryBroker,
    id: MemberId,
}

impl GroupClient for MemoryClient {
    type Handle = MemoryHandle;

    fn group_token(&self) -> Result<GroupToken, SourceError> {
        self.broker.lock().token(self.id)
    }

    fn handle(&self) -> MemoryHandle {
        MemoryHandle { broker: self.broker.clone(), id: self.id }
    }

    fn rejoin(&mut self) -> Result<(), SourceError> {
        self.broker.change(|group| group.members.contains_key(&self.id).then(|| group.rebalance()).ok_or_else(gone))
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.broker.change(|group| {
            let member = group.members.get_mut(&self.id).ok_or_else(gone)?;
            if let Some(at) = partitions.iter().find(|at| !member.reading.contains_key(at)) {
                return Err(SourceError::Configuration(format!("{at:?} is not read")));
            }
            member.paused.extend(partitions);
            Ok(())
        })
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.broker.change(|group| {
            let member = group.members.get_mut(&self.id).ok_or_else(gone)?;
            if let Some(at) = partitions.iter().find(|at| !member.reading.contains_key(at)) {
                return Err(SourceError::Configuration(format!("{at:?} is not read")));
            }
            member.paused.retain(|at| !partitions.contains(at));
            Ok(())
        })
    }
}

impl GroupHandle for MemoryHandle {
    fn committed(&self, of: &[TopicPartition], wait: Duration) -> Result<Vec<Option<Committed>>, SourceError> {
        let unstable = |group: &mut Group| of.iter().any(|at| group.coordinator.is_unstable(*at));
        let shared = &self.broker.0;
        let (group, outcome) = shared
            .changed
            .wait_timeout_while(self.broker.lock(), wait, unstable)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if outcome.timed_out() {
            return Err(SourceError::Unavailable("a transaction with these offsets is pending".to_owned()));
        }
        Ok(of.iter().map(|at| group.committed.get(at).cloned()).collect())
    }

    fn offsets(&self, of: &[(TopicPartition, Start)], _wait: Duration) -> Result<Vec<i64>, SourceError> {
        let group = self.broker.lock();
        of.iter().map(|(at, start)| group.position(*at, *start).map(|position| position.next)).collect()
    }

    fn commit(
        &self,
        token: &GroupToken,
        next: &[(TopicPartition, Committed)],
        _wait: Duration,
    ) -> Result<(), TransactionError> {
        self.broker.change(|group| {
            let now = group.token(self.id).map_err(|error| TransactionError::Rejoin(error.to_string()))?;
            if now != *token {
                return Err(TransactionError::Rejoin("the token is out of date".to_owned()));
            }
            if group.refusals > 0 {
                group.refusals -= 1;
                return Err(TransactionError::Abort("the coordinator is unavailable".to_owned()));
            }
            group.committed.extend(next.iter().cloned());
            Ok(())
        })
    }
}

/// A transactional producer; dropping it leaves its transaction pending.
#[derive(Debug)]
pub struct MemoryProducer {
    broker: MemoryBroker,
    id: String,
    epoch: u32,
    /// The records of the open transaction.
    open: Option<Vec<Produced>>,
    over: bool,
}

impl MemoryProducer {
    fn spent(&mut self, text: &str) -> TransactionError {
        self.over = true;
        TransactionError::Unknown(text.to_owned())
    }

    /// Changes the pending transaction, unless another producer has taken over the transactional id.
    fn with_pending<T>(
        &mut self,
        change: impl FnOnce(&mut Group, &str) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        if self.over {
            return Err(TransactionError::Unknown("the producer is spent".to_owned()));
        }
        let (id, epoch) = (self.id.clone(), self.epoch);
        let outcome = self.broker.change(|group| match group.coordinator.ids.get(&id) {
            Some((owner, _)) if *owner == epoch && epoch > 0 => change(group, &id),
            _ => Err(TransactionError::Fenced {
                by: FencedBy::Producer,
                text: "the transactional id has another owner".to_owned(),
            }),
        });
        let is_last =
            |error: &TransactionError| matches!(error, TransactionError::Fenced { .. } | TransactionError::Unknown(_));
        self.over |= outcome.as_ref().is_err_and(is_last);
        outcome
    }
}

impl Transactions for MemoryProducer {
    fn init(&mut self, _wait: Duration) -> Result<(), TransactionError> {
        if self.over {
            return Err(TransactionError::Unknown("the producer is spent".to_owned()));
        }
        self.epoch = self.broker.change(|group| {
            let (epoch, pending) = group.coordinator.ids.entry(self.id.clone()).or_default();
            *epoch += 1;
            *pending = Pending::default();
            *epoch
        });
        Ok(())
    }

    fn begin(&mut self) -> Result<(), TransactionError> {
        if self.open.is_some() || self.epoch == 0 {
            return Err(self.spent("a transaction is open, or there was no init"));
        }
        self.open = Some(Vec::new());
        Ok(())
    }

    fn produce_to(&mut self, partition: Option<i32>, record: &Outgoing<'_>) -> Result<(), TransactionError> {
        let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let produced = Produced {
            topic: record.topic.to_owned(),
            partition,
            key: bytes(record.key),
            payload: bytes(record.payload),
            headers: record.headers.iter().map(|header| (header.name.to_string(), bytes(header.value))).collect(),
            time: record.time,
        };
        match &mut self.open {
            Some(records) => records.push(produced),
            None => return Err(self.spent("no transaction is open")),
        }
        Ok(())
    }

    fn send_offsets(
        &mut self,
        token: &GroupToken,
        next: &[(TopicPartition, Committed)],
    ) -> Result<(), TransactionError> {
        if self.open.is_none() {
            return Err(self.spent("no transaction is open"));
        }
        self.with_pending(|group, id| {
            group.check(token)?;
            if let Some((_, pending)) = group.coordinator.ids.get_mut(id) {
                pending.offsets.extend(next.iter().cloned());
            }
            Ok(())
        })
    }

    fn commit(&mut self) -> Result<(), TransactionError> {
        let Some(records) = self.open.clone() else { return Err(self.spent("no transaction is open")) };
        self.with_pending(|group, id| {
            let fault = group.coordinator.faults.pop_front();
            match fault {
                Some(Fault::Refused) => return Err(TransactionError::Abort("refused".to_owned())),
                Some(Fault::RequestLost) => return Err(TransactionError::Unknown("no answer".to_owned())),
                Some(Fault::ReplyLost) | None => {}
            }
            if let Some((_, pending)) = group.coordinator.ids.get_mut(id) {
                pending.records = records;
                let Pending { records, offsets } = std::mem::take(pending);
                group.coordinator.visible.extend(records);
                group.committed.extend(offsets);
            }
            match fault {
                Some(_) => Err(TransactionError::Unknown("no answer".to_owned())),
                None => Ok(()),
            }
        })?;
        self.open = None;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), TransactionError> {
        if self.open.take().is_none() {
            return Err(self.spent("no transaction is open"));
        }
        self.with_pending(|group, id| {
            if let Some((_, pending)) = group.coordinator.ids.get_mut(id) {
                *pending = Pending::default();
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
