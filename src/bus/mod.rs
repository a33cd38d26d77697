//! Where events come from: Kafka, files, or a fake broker in tests.
//!
//! A [`LogClient`] is one member of a consumer group over several topics. It hands out record batches grouped by
//! topic-partition, and the rebalances of its group; [`rebalance`] decides what to do about the latter.

mod co_partitioning;
pub mod group;
#[cfg(test)]
pub(crate) mod memory;
pub mod partitioner;
pub mod rebalance;
pub mod transaction;

use std::borrow::Cow;
use std::time::Duration;

pub use self::co_partitioning::{CoPartitioning, check_co_partitioning};
pub use self::group::{Committed, GroupClient, GroupHandle, GroupToken};

/// A source topic, by its position in the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicIndex(pub u16);

/// A partition number; the same number of every source topic belongs to one engine (co-partitioning).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub i32);

/// One partition of one source topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicIndex,
    /// The partition.
    pub partition: Partition,
}

/// One message as it lies in the log; borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the topic-partition.
    pub offset: i64,
    /// The message key, if any.
    pub key: Option<&'a [u8]>,
    /// The message value; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
}

/// One header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its name; names may repeat.
    pub name: Cow<'a, str>,
    /// Its value; `None` is something else than no bytes.
    pub value: Option<&'a [u8]>,
}

/// What the log says about a record beside its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its log time in epoch milliseconds; `None` in logs of old.
    pub time: Option<i64>,
    /// The epoch of the leader that took it, which tells a truncated log from the one that was read; `None` where the
    /// broker does not say.
    pub leader_epoch: Option<i32>,
}

/// Messages of one topic-partition, in log order, as the client handed them out.
pub trait RecordBatch: Send + 'static {
    /// The number of records, at least one.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record at `index`, counted from 0.
    ///
    /// # Panics
    /// When `index` is not below [`RecordBatch::len`].
    fn get(&self, index: usize) -> Record<'_>;

    /// What the log says about the record at `index`; asked of few, so not part of [`Record`].
    ///
    /// # Panics
    /// As [`RecordBatch::get`].
    fn stamp(&self, index: usize) -> Stamp;

    /// The headers of the record at `index`, which are looked for only now.
    ///
    /// # Panics
    /// As [`RecordBatch::get`].
    fn headers(&self, index: usize) -> Vec<Header<'_>>;
}

/// Where to begin reading a topic-partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest record that the topic holds.
    Earliest,
    /// Only records that arrive from now on.
    Latest,
    /// The first record whose log time is at or after this epoch millisecond; the end if there is none.
    At(i64),
    /// Exactly this offset.
    Offset(i64),
}

/// What [`LogClient::poll`] brings.
#[derive(Debug)]
pub enum Polled<B> {
    /// Messages of one topic-partition.
    Records(TopicPartition, B),
    /// The end of a topic-partition was reached: `offset` is the next one to come.
    End {
        /// Which one.
        at: TopicPartition,
        /// The offset that the next message will get (or a later one).
        offset: i64,
    },
    /// The group gives these to us; answer with [`LogClient::assign`] or [`LogClient::incremental_assign`].
    Assigned(Vec<TopicPartition>),
    /// The group takes these away; stop working on them, then answer with [`LogClient::unassign`].
    Revoked(Vec<TopicPartition>),
    /// Taken away already (the session timed out): another member may own them, so nothing may be committed.
    Lost(Vec<TopicPartition>),
    /// The log does not hold the offset that is to be read next, and nothing more comes of this topic-partition; the
    /// text says what to do.
    OutOfRange(TopicPartition, String),
    /// What is to be read next is there but cannot be made out, and nothing more comes of this topic-partition; the
    /// text says what to do.
    Damaged(TopicPartition, String),
    /// Something is wrong and the client keeps trying, such as an unreachable broker.
    Error(String),
    /// Something is wrong that trying again cannot mend.
    Fatal(SourceError),
}

/// How the group hands out partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceProtocol {
    /// Every rebalance names the whole assignment.
    Eager,
    /// A rebalance names only what is added or taken away.
    Incremental,
}

/// One member of a consumer group.
pub trait LogClient {
    /// What [`Polled::Records`] carries.
    type Batch: RecordBatch;

    /// Waits up to `wait` for something to happen and returns all that has; an empty list when nothing did.
    ///
    /// Must be called at least every few seconds, or the group takes the partitions away.
    fn poll(&mut self, wait: Duration) -> Vec<Polled<Self::Batch>>;

    /// How the group hands out partitions.
    fn protocol(&self) -> RebalanceProtocol;

    /// Answers [`Polled::Assigned`] under [`RebalanceProtocol::Eager`]: read exactly these from now on.
    ///
    /// # Errors
    /// When the client refuses, or when the offset of a [`Start::At`] cannot be found out.
    fn assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError>;

    /// Answers [`Polled::Assigned`] under [`RebalanceProtocol::Incremental`]: read these as well.
    ///
    /// # Errors
    /// As [`LogClient::assign`].
    fn incremental_assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError>;

    /// Answers [`Polled::Revoked`] and [`Polled::Lost`]: read these no more.
    ///
    /// # Errors
    /// When the client refuses.
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError>;

    /// The end of a topic-partition as last seen, without asking the broker; `None` before the first fetch.
    fn end_offset(&self, of: TopicPartition) -> Option<i64>;

    /// Leaves the group in order; for at most `wait`.
    fn close(self, wait: Duration);
}

/// Why a source cannot go on; the variant names the response it needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Fix the configuration or the cluster (exit 78).
    #[error("{0}")]
    Configuration(String),
    /// Try again later.
    #[error("{0}")]
    Unavailable(String),
    /// Another instance took over (exit 75).
    #[error("{0}")]
    Fenced(String),
}
