//! Transactions: records and offsets that become visible together or not at all.

use std::time::Duration;

use super::{Committed, GroupToken, Header, TopicPartition};

/// A record to produce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The key. The partitioner of the Java producer maps it to a partition.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: &'a [Header<'a>],
    /// Its time in epoch milliseconds; `None` for the time of producing.
    pub time: Option<i64>,
}

/// What replaced this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FencedBy {
    /// Another producer with the same transactional id.
    Producer,
    /// Another member of the group with the same instance id. A member also gets this for a token from before it lost
    /// its session and rejoined under a new member id: compare the member ids.
    Instance,
}

/// Why a transaction failed; the variant names the response it needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Another instance took over: do not retry (exit 75).
    #[error("another instance with the same kafka.instance_id took over: {text}. Each replica needs its own")]
    Fenced {
        /// Producer or group member.
        by: FencedBy,
        /// The error of the client.
        text: String,
    },
    /// Abort; the next transaction may retry.
    #[error("{0}")]
    Abort(String),
    /// Abort; the token is stale, and the current rebalance decides.
    #[error("the group has rebalanced, so this commit is void: {0}")]
    Rejoin(String),
    /// The outcome is unknown, or the producer is unusable: drop it, create a new one, and call [`Transactions::init`],
    /// which ends the old transaction; then read the committed offsets.
    #[error("{0}; a new producer will determine the outcome of the transaction")]
    Unknown(String),
    /// Abort; these records can never be produced as they are.
    #[error("{} record(s) of the transaction are too large to be produced: {text}", indexes.len())]
    TooLarge {
        /// Their indexes in the order of [`Transactions::produce`], from 0; each is too large on its own.
        indexes: Vec<usize>,
        /// The error of the client.
        text: String,
    },
    /// Abort; a request of several records was too large, and from now on each record gets its own request: the next
    /// transaction may retry.
    #[error("{0}")]
    TooLargeTogether(String),
    /// Abort; an operator must change the configuration or the cluster.
    #[error("{0}")]
    Configuration(String),
}

/// A transactional producer. No call blocks much longer than the transaction timeout.
///
/// After [`TransactionError::Unknown`] and [`TransactionError::Fenced`] every further call fails.
pub trait Transactions: Send {
    /// Takes over the transactional id: fences the former producer, and finishes or aborts its pending transaction.
    /// Call it once, before the first [`Transactions::begin`]; after [`TransactionError::Unknown`], call it on a new
    /// producer.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn init(&mut self, wait: Duration) -> Result<(), TransactionError>;

    /// Begins a transaction and starts the transaction timeout.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn begin(&mut self) -> Result<(), TransactionError>;

    /// Queues a record, waiting while the queue is full. Delivery errors show here or in a later call.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn produce(&mut self, record: &Outgoing<'_>) -> Result<(), TransactionError> {
        self.produce_to(None, record)
    }

    /// As [`Transactions::produce`], to a given partition, which must exist.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn produce_to(&mut self, partition: Option<i32>, record: &Outgoing<'_>) -> Result<(), TransactionError>;

    /// Adds offsets and their metadata to the transaction, after all records are delivered.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn send_offsets(
        &mut self,
        token: &GroupToken,
        next: &[(TopicPartition, Committed)],
    ) -> Result<(), TransactionError>;

    /// Commits the transaction.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn commit(&mut self) -> Result<(), TransactionError>;

    /// Aborts the transaction.
    ///
    /// # Errors
    /// See [`TransactionError`].
    fn abort(&mut self) -> Result<(), TransactionError>;
}
