//! Records and offsets that become visible together or not at all.

use std::time::Duration;

use super::{Committed, GroupToken, Header, TopicPartition};

/// A record to be produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The key, which decides the partition as Java's producer would.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a [Header<'a>],
    /// Its time in epoch milliseconds; the time of producing when `None`.
    pub time: Option<i64>,
}

/// Who took this instance's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FencedBy {
    /// Another producer with the same transactional id.
    Producer,
    /// Another member of the group with the same instance id. Also what a member is told about itself when it lost its
    /// session, joined anew under a new member id, and an old token is used: compare the member ids.
    Instance,
}

/// Why a transaction did not come about; the variant names the response it needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Another instance took over: never try again (exit 75).
    #[error("another instance with the same kafka.instance_id took over: {text}. Each replica needs its own")]
    Fenced {
        /// How.
        by: FencedBy,
        /// What was said.
        text: String,
    },
    /// Abort; the next transaction may try the same again.
    #[error("{0}")]
    Abort(String),
    /// Abort; the member is not the one of the token any more, and the rebalance under way decides.
    #[error("the group moved on, so this commit no longer counts: {0}")]
    Rejoin(String),
    /// Nobody knows whether it was committed, or the producer is of no further use: drop it, make a new one, and call
    /// [`Transactions::init`], which ends what was left; then what is committed tells.
    #[error("{0}; a new producer finds out what became of the transaction")]
    Unknown(String),
    /// Abort; these records can never be produced as they are.
    #[error("{} record(s) of the transaction are too large to be produced: {text}", indexes.len())]
    TooLarge {
        /// Which, counted from 0 in the order of [`Transactions::produce`]; each was refused for itself.
        indexes: Vec<usize>,
        /// What was said.
        text: String,
    },
    /// Abort; records that went in one request were refused for their size, and from now on each goes in its own: the
    /// next transaction may try the same again.
    #[error("{0}")]
    TooLargeTogether(String),
    /// Abort; a person has to change the configuration or the cluster.
    #[error("{0}")]
    Configuration(String),
}

/// A producer whose records and offsets become visible together. No call waits longer than the transaction timeout
/// and a little more.
///
/// After [`TransactionError::Unknown`] and [`TransactionError::Fenced`] every further call fails.
pub trait Transactions: Send {
    /// Takes over the transactional id: fences its former owner, and finishes or aborts the transaction that was left
    /// pending. Once, before the first [`Transactions::begin`]; after [`TransactionError::Unknown`] again by a new
    /// producer.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn init(&mut self, wait: Duration) -> Result<(), TransactionError>;

    /// Begins a transaction; the transaction timeout runs from here.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn begin(&mut self) -> Result<(), TransactionError>;

    /// Queues a record; waits while the queue is full. That it cannot be delivered shows here or later.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn produce(&mut self, record: &Outgoing<'_>) -> Result<(), TransactionError> {
        self.produce_to(None, record)
    }

    /// As [`Transactions::produce`], into this partition; one that the topic does not have is an error.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn produce_to(&mut self, partition: Option<i32>, record: &Outgoing<'_>) -> Result<(), TransactionError>;

    /// Makes offsets and their metadata part of the transaction; waits until the records are delivered.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn send_offsets(
        &mut self,
        token: &GroupToken,
        next: &[(TopicPartition, Committed)],
    ) -> Result<(), TransactionError>;

    /// Makes everything visible.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn commit(&mut self) -> Result<(), TransactionError>;

    /// Makes everything as if it had not been.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn abort(&mut self) -> Result<(), TransactionError>;
}
