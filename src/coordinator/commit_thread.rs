//! The commit thread: publishes outbox records and commits offsets, one checkpoint after the other, and reports the
//! outcome.
//!
//! Exactly once uses transactions. At least once delivers the records here, and then the poll thread commits the
//! offsets, because a commit without a transaction uses the current membership.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{error, warn};

use crate::bus::transaction::{FencedBy, TransactionError, Transactions};
use crate::bus::{Committed, GroupToken, SourceError, TopicPartition};
use crate::checkpoint::protocol::{Epoch, Outcome};
use crate::output::dead_letters::{DeadLetters, OutboxRecord, Topics, Undelivered};

/// Timeout of one attempt to take over the transactional id.
const INIT_WAIT: Duration = Duration::from_secs(10);
/// Pause before a producer is created again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The contents of a transaction.
#[derive(Debug)]
pub struct Transaction {
    /// The checkpoint.
    pub epoch: Epoch,
    /// The group membership when the checkpoint began.
    pub token: GroupToken,
    /// The offsets to commit, with their metadata.
    pub next: Vec<(TopicPartition, Committed)>,
    /// The records to publish.
    pub records: Vec<Arc<OutboxRecord>>,
}

/// Replies of the commit thread.
#[derive(Debug)]
pub enum CommitReply {
    /// Outcome of a transaction.
    Ended(Epoch, Outcome),
    /// At least once: the records of the checkpoint are delivered, so the poll thread can commit its offsets.
    Delivered(Transaction),
    /// The records at these indexes in the checkpoint were rejected for their size; the transaction is then aborted.
    TooLarge(Epoch, Vec<usize>),
    /// A new producer exists, and any transaction of the old one has ended.
    Renewed(Epoch),
    /// Why commits currently fail.
    Error(String),
    /// Another process has taken over our transactional id.
    Fenced(String),
    /// Dead letters cannot be delivered until a person removes this cause.
    Undeliverable(String),
}

/// How checkpoints are committed: in transactions, or by the group member.
pub enum CommitMode {
    /// In transactions.
    Transactions {
        /// Creates a producer, which still has to be initialized.
        make: Box<dyn Fn() -> Result<Box<dyn Transactions>, SourceError> + Send>,
        /// Target topics of the records.
        topics: Topics,
    },
    /// By the group member, after delivery; without a producer, records are dropped.
    Plain(Option<DeadLetters>),
}

enum CommitRequest {
    Commit(Transaction),
    Renew(Epoch),
}

/// Handle of the commit thread.
pub struct Committer {
    requests: Option<Sender<CommitRequest>>,
    /// The checkpoint whose transaction must not be committed.
    aborted: Arc<Mutex<Option<Epoch>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the thread; its replies go to `say`.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn start(mode: CommitMode, say: impl Fn(CommitReply) + Send + 'static) -> std::io::Result<Committer> {
        let (requests, received) = channel();
        let (aborted, stopping) = (Arc::default(), Arc::default());
        let mut worker =
            CommitThread { mode, producer: None, aborted: Arc::clone(&aborted), stopping: Arc::clone(&stopping), say };
        let thread = std::thread::Builder::new().name("commit".into()).spawn(move || worker.run(&received))?;
        Ok(Committer { requests: Some(requests), aborted, stopping, thread: Some(thread) })
    }

    /// Commits a checkpoint.
    pub fn commit(&self, transaction: Transaction) {
        self.send(CommitRequest::Commit(transaction));
    }

    /// Aborts the transaction of a checkpoint, if it is not too late.
    pub fn abort(&self, epoch: Epoch) {
        *self.aborted.lock().unwrap_or_else(PoisonError::into_inner) = Some(epoch);
    }

    /// Replaces the producer, which ends any transaction of the old one.
    pub fn renew(&self, epoch: Epoch) {
        self.send(CommitRequest::Renew(epoch));
    }

    fn send(&self, request: CommitRequest) {
        // If the thread has ended, the stop that ended it is in progress.
        if let Some(requests) = &self.requests {
            _ = requests.send(request);
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.requests = None;
        // Do not join the thread: a call to the brokers may take as long as a transaction.
        drop(self.thread.take());
    }
}

struct CommitThread<S> {
    mode: CommitMode,
    producer: Option<Box<dyn Transactions>>,
    aborted: Arc<Mutex<Option<Epoch>>>,
    stopping: Arc<AtomicBool>,
    say: S,
}

impl<S: Fn(CommitReply)> CommitThread<S> {
    fn run(&mut self, requests: &Receiver<CommitRequest>) {
        for request in requests {
            match request {
                CommitRequest::Commit(transaction) => self.commit(transaction),
                CommitRequest::Renew(epoch) => {
                    self.producer = None;
                    if self.has_producer() {
                        (self.say)(CommitReply::Renewed(epoch));
                    }
                }
            }
        }
    }

    fn commit(&mut self, transaction: Transaction) {
        if let CommitMode::Plain(records) = &mut self.mode {
            let epoch = transaction.epoch;
            return (self.say)(match deliver(records.as_mut(), &transaction.records) {
                Ok(()) => CommitReply::Delivered(transaction),
                Err(ever @ Undelivered::Ever(_)) => CommitReply::Undeliverable(ever.to_string()),
                Err(yet @ Undelivered::Yet { .. }) => {
                    error!("no offsets are committed: {yet}");
                    (self.say)(CommitReply::Error(yet.to_string()));
                    CommitReply::Ended(epoch, Outcome::Aborted)
                }
            });
        }
        if !self.has_producer() {
            return;
        }
        let epoch = transaction.epoch;
        let outcome = match self.attempt(&transaction) {
            Ok(()) => Outcome::Committed,
            Err(error) => self.after(epoch, &error),
        };
        if matches!(outcome, Outcome::Unknown | Outcome::Fenced) {
            self.producer = None;
        }
        (self.say)(CommitReply::Ended(epoch, outcome));
    }

    fn is_aborted(&self, epoch: Epoch) -> bool {
        *self.aborted.lock().unwrap_or_else(PoisonError::into_inner) == Some(epoch)
    }

    fn attempt(&mut self, transaction: &Transaction) -> Result<(), TransactionError> {
        let given_up = || TransactionError::Abort("a partition of it was given up meanwhile".to_owned());
        let (Some(producer), CommitMode::Transactions { topics, .. }) = (&mut self.producer, &self.mode) else {
            return Err(given_up());
        };
        producer.begin()?;
        for record in &transaction.records {
            producer.produce(&record.outgoing(topics, &record.borrowed()))?;
        }
        producer.send_offsets(&transaction.token, &transaction.next)?;
        if self.is_aborted(transaction.epoch) {
            return Err(given_up());
        }
        self.producer.as_mut().map_or_else(|| Err(given_up()), |producer| producer.commit())
    }

    /// The outcome of a failed transaction.
    fn after(&mut self, epoch: Epoch, error: &TransactionError) -> Outcome {
        match error {
            TransactionError::Fenced { by: FencedBy::Producer, .. } => {
                error!("{error}");
                return Outcome::Fenced;
            }
            TransactionError::Unknown(_) => {
                warn!("{error}");
                (self.say)(CommitReply::Error(error.to_string()));
                return Outcome::Unknown;
            }
            TransactionError::TooLarge { indexes, .. } => (self.say)(CommitReply::TooLarge(epoch, indexes.clone())),
            // If another process really has our instance id, the group member is fenced too. Otherwise we fenced
            // ourselves by rejoining.
            TransactionError::Fenced { by: FencedBy::Instance, .. }
            | TransactionError::Abort(_)
            | TransactionError::Rejoin(_)
            | TransactionError::TooLargeTogether(_)
            | TransactionError::Configuration(_) => {}
        }
        warn!("a checkpoint is not committed, the next one tries again: {error}");
        (self.say)(CommitReply::Error(error.to_string()));
        let aborted = self.producer.as_mut().map_or(Ok(()), |producer| producer.abort());
        match aborted {
            Ok(()) => Outcome::Aborted,
            Err(TransactionError::Fenced { by: FencedBy::Producer, text }) => {
                error!("{text}");
                Outcome::Fenced
            }
            Err(_) => Outcome::Unknown,
        }
    }

    /// Whether there is a producer that owns the transactional id; retries until one can be created. `false` if the
    /// program ends, or another process owns the id, which is reported.
    fn has_producer(&mut self) -> bool {
        let CommitMode::Transactions { make, .. } = &self.mode else { return true };
        let mut told = None;
        while self.producer.is_none() {
            if self.stopping.load(Ordering::Relaxed) {
                return false;
            }
            let made = make().map_err(|error| TransactionError::Unknown(error.to_string()));
            let ready = made.and_then(|mut producer| producer.init(INIT_WAIT).map(|()| producer));
            match ready {
                Ok(producer) => self.producer = Some(producer),
                Err(fenced @ TransactionError::Fenced { .. }) => {
                    (self.say)(CommitReply::Fenced(fenced.to_string()));
                    return false;
                }
                Err(error) => {
                    let text = error.to_string();
                    if told.as_ref() != Some(&text) {
                        warn!("no transactions yet, trying again: {text}");
                        (self.say)(CommitReply::Error(text.clone()));
                        told = Some(text);
                    }
                    std::thread::park_timeout(RETRY_AFTER);
                }
            }
        }
        true
    }
}

/// At least once: publishes the records and waits for their delivery.
fn deliver(producer: Option<&mut DeadLetters>, records: &[Arc<OutboxRecord>]) -> Result<(), Undelivered> {
    let records: Vec<&OutboxRecord> = records.iter().map(Arc::as_ref).collect();
    producer.map_or(Ok(()), |producer| producer.deliver(&records))
}
