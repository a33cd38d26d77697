//! The interface to the event bus: Kafka, or an in-memory broker in tests.
//!
//! A [`LogClient`] is one member of a consumer group over several topics. It returns record batches by topic-partition,
//! and the rebalances of its group; [`rebalance`] decides how to answer them.

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

/// One message, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset.
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
    /// Its value; `None` differs from an empty value.
    pub value: Option<&'a [u8]>,
}

/// Metadata of a record in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its log time in epoch milliseconds; `None` in logs of old brokers.
    pub time: Option<i64>,
    /// The leader epoch under which it was written, to recognize a truncated log; `None` if the broker does not report
    /// it.
    pub leader_epoch: Option<i32>,
}

/// Consecutive messages of one topic-partition, in log order.
pub trait RecordBatch: Send + 'static {
    /// The number of records, at least one.
    fn len(&self) -> usize;

    /// Whether it is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record at `index`, counted from 0.
    ///
    /// # Panics
    /// If `index` is not below [`RecordBatch::len`].
    fn get(&self, index: usize) -> Record<'_>;

    /// The metadata of the record at `index`. Few callers need it, so it is not part of [`Record`].
    ///
    /// # Panics
    /// As [`RecordBatch::get`].
    fn stamp(&self, index: usize) -> Stamp;

    /// The headers of the record at `index`, parsed on demand.
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

/// Events from [`LogClient::poll`].
#[derive(Debug)]
pub enum Polled<B> {
    /// Messages of one topic-partition.
    Records(TopicPartition, B),
    /// Reached the end of a topic-partition.
    End {
        /// The topic-partition.
        at: TopicPartition,
        /// The next message gets this offset or a later one.
        offset: i64,
    },
    /// The group assigned these; answer with [`LogClient::assign`] or [`LogClient::incremental_assign`].
    Assigned(Vec<TopicPartition>),
    /// The group revokes these; stop working on them, then answer with [`LogClient::unassign`].
    Revoked(Vec<TopicPartition>),
    /// These are lost already (the session timed out): another member may own them, so commit nothing.
    Lost(Vec<TopicPartition>),
    /// The log does not hold the next offset, and no more records of this topic-partition follow; the text names the
    /// remedy.
    OutOfRange(TopicPartition, String),
    /// The next record cannot be read, and no more records of this topic-partition follow; the text names the remedy.
    Damaged(TopicPartition, String),
    /// An error that the client retries, such as an unreachable broker.
    Error(String),
    /// An error that no retry can fix.
    Fatal(SourceError),
}

/// How the group assigns partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceProtocol {
    /// Every rebalance names the complete assignment.
    Eager,
    /// A rebalance names only added or removed partitions.
    Incremental,
}

/// One member of a consumer group.
pub trait LogClient {
    /// The batch in [`Polled::Records`].
    type Batch: RecordBatch;

    /// Waits up to `wait` for events and returns all that are pending; empty if there are none.
    ///
    /// Call it at least every few seconds, or the group takes the partitions away.
    fn poll(&mut self, wait: Duration) -> Vec<Polled<Self::Batch>>;

    /// How the group assigns partitions.
    fn protocol(&self) -> RebalanceProtocol;

    /// Answers [`Polled::Assigned`] under [`RebalanceProtocol::Eager`]: reads exactly these from now on.
    ///
    /// # Errors
    /// If the client refuses, or the offset of a [`Start::At`] cannot be determined.
    fn assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError>;

    /// Answers [`Polled::Assigned`] under [`RebalanceProtocol::Incremental`]: reads these as well.
    ///
    /// # Errors
    /// As [`LogClient::assign`].
    fn incremental_assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError>;

    /// Answers [`Polled::Revoked`] and [`Polled::Lost`]: stops reading these.
    ///
    /// # Errors
    /// If the client refuses.
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError>;

    /// The end of a topic-partition as last seen, without asking the broker; `None` before the first fetch.
    fn end_offset(&self, of: TopicPartition) -> Option<i64>;

    /// Leaves the group in order, within `wait`.
    fn close(self, wait: Duration);
}

/// Why a source failed; the variant names the response it needs.
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
