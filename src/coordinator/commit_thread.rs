//! The commit thread: makes outbox and offsets visible together, one checkpoint after the other, and says how it ended.
//!
//! Exactly once by transactions, or at least once: then the records are delivered first, and the poll thread commits
//! the offsets, for a plain commit shows the membership of the moment.

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

/// How long taking over the transactional id may take at a time.
const INIT_WAIT: Duration = Duration::from_secs(10);
/// How long to wait before a producer is made again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What one transaction is to hold.
#[derive(Debug)]
pub struct Transaction {
    /// Its checkpoint.
    pub epoch: Epoch,
    /// Who we were when the checkpoint began.
    pub token: GroupToken,
    /// The offsets, with the metadata beside them.
    pub next: Vec<(TopicPartition, Committed)>,
    /// What is to be published.
    pub records: Vec<Arc<OutboxRecord>>,
}

/// Replies of the commit thread.
#[derive(Debug)]
pub enum CommitReply {
    /// How a transaction ended.
    Ended(Epoch, Outcome),
    /// At least once: the records of the checkpoint are delivered, so its offsets may be committed; the transaction
    /// comes back.
    Delivered(Transaction),
    /// The records with these numbers in the checkpoint were refused for their size; the transaction ends as aborted.
    TooLarge(Epoch, Vec<usize>),
    /// There is a new producer, and whatever the old one left is ended.
    Renewed(Epoch),
    /// Why nothing is committed at the moment.
    Error(String),
    /// Somebody else has our transactional id.
    Fenced(String),
    /// Dead letters can never be delivered, for this reason, which a person has to remove.
    Undeliverable(String),
}

/// How checkpoints are committed: by transactions, or by the member.
pub enum CommitMode {
    /// By transactions; makes a producer that has to be initialised.
    Transactions {
        /// Makes one.
        make: Box<dyn Fn() -> Result<Box<dyn Transactions>, SourceError> + Send>,
        /// Where records go.
        topics: Topics,
    },
    /// By the member, behind the records; without a producer records are dropped.
    Plain(Option<DeadLetters>),
}

enum CommitRequest {
    Commit(Transaction),
    Renew(Epoch),
}

/// The commit thread.
pub struct Committer {
    requests: Option<Sender<CommitRequest>>,
    /// The checkpoint whose transaction is not to go on.
    aborted: Arc<Mutex<Option<Epoch>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the thread; what it says goes to `say`.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(mode: CommitMode, say: impl Fn(CommitReply) + Send + 'static) -> std::io::Result<Committer> {
        let (requests, received) = channel();
        let (aborted, stopping) = (Arc::default(), Arc::default());
        let mut worker =
            CommitThread { mode, producer: None, aborted: Arc::clone(&aborted), stopping: Arc::clone(&stopping), say };
        let thread = std::thread::Builder::new().name("commit".into()).spawn(move || worker.run(&received))?;
        Ok(Committer { requests: Some(requests), aborted, stopping, thread: Some(thread) })
    }

    /// Begins a transaction.
    pub fn commit(&self, transaction: Transaction) {
        self.send(CommitRequest::Commit(transaction));
    }

    /// The transaction of the checkpoint is aborted if that is still possible.
    pub fn abort(&self, epoch: Epoch) {
        *self.aborted.lock().unwrap_or_else(PoisonError::into_inner) = Some(epoch);
    }

    /// Drops the producer and makes a new one, which ends what the old one left.
    pub fn renew(&self, epoch: Epoch) {
        self.send(CommitRequest::Renew(epoch));
    }

    fn send(&self, request: CommitRequest) {
        // A thread that has ended says nothing more, and the stop that ended it is under way.
        if let Some(requests) = &self.requests {
            _ = requests.send(request);
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.requests = None;
        // A call to the brokers may take as long as a transaction; nobody waits for it.
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

    /// What a failed transaction came to.
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
            // An instance that is really another one shows at the member as well; an echo of ourselves is a rejoin.
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

    /// Whether there is a producer that owns the transactional id; makes one until it works. `false`: the program
    /// ends, or somebody else has the id, which is said.
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

/// At least once: publishes the records and waits for them.
fn deliver(producer: Option<&mut DeadLetters>, records: &[Arc<OutboxRecord>]) -> Result<(), Undelivered> {
    let records: Vec<&OutboxRecord> = records.iter().map(Arc::as_ref).collect();
    producer.map_or(Ok(()), |producer| producer.deliver(&records))
}
