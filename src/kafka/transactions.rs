//! The transactional producer.
//!
//! This module decides which response an error needs, based on librdkafka's sources (`rdkafka_txnmgr.c`, 2.12):
//!
//! - An error that requires an abort leaves the producer usable ([`TransactionError::Abort`]). After a fatal error, an
//!   error of a resumable call, or a missing answer, the outcome is unknown ([`TransactionError::Unknown`]): librdkafka
//!   expects the same call again, and its answer may then concern a transaction that the brokers have already ended.
//! - Brokers also answer "fenced" after they ended a transaction that exceeded its timeout, because they raise the
//!   epoch. So only a transaction within its timeout can have been fenced by another producer.
//! - Sending offsets has no timeout of its own, and never returns if the transaction fails at the same time (librdkafka
//!   drops the "outdated" answer). So records are delivered first, and calls run on a thread that can be abandoned.

use std::ffi::{CStr, CString};
use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;

use super::errors;
use super::ffi::{Failure, Handle, Message, Refused, TransactionFailure};
use super::settings::TransactionSettings;
use super::topics::TopicNames;
use crate::bus::transaction::{FencedBy, Outgoing, TransactionError, Transactions};
use crate::bus::{Committed, GroupToken, SourceError, TopicPartition};

/// How far a call may exceed its timeout before it is abandoned.
const GRACE: Duration = Duration::from_secs(2);
/// How often an idle producer checks for events of librdkafka.
const IDLE_LOOK: Duration = Duration::from_secs(1);
/// Wait between attempts while the queue is full.
const QUEUE_STEP: Duration = Duration::from_millis(20);

type Call = Box<dyn FnOnce(&Handle) + Send>;

/// A transactional producer; see [`Transactions`].
///
/// Dropping it leaves an open transaction pending until [`Transactions::init`] of its successor or the timeout ends it.
/// Dropping never blocks.
pub struct TransactionalProducer {
    handle: Arc<Handle>,
    /// To the thread that makes the calls.
    calls: mpsc::Sender<Call>,
    names: TopicNames,
    settings: TransactionSettings,
    timeout: Duration,
    /// When the transaction began.
    begun: Option<Instant>,
    /// The topics produced to.
    topics: Vec<CString>,
    /// The records of this transaction, each as an index into `topics`.
    sent: Vec<usize>,
    /// A broker refused records and so misses their sequence numbers: librdkafka would send the following records with
    /// later numbers and retry in vain until the transaction times out.
    has_gap: bool,
    /// Whether each record gets its own request, so that a record that is too large fails alone.
    is_single: bool,
    /// Unusable: the outcome of a call is unknown, or another instance took over.
    over: bool,
}

impl fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TransactionalProducer { timeout, begun, over, .. } = self;
        f.debug_struct("TransactionalProducer")
            .field("timeout", timeout)
            .field("begun", begun)
            .field("over", over)
            .finish_non_exhaustive()
    }
}

/// The calls, as far as the meaning of an error depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Init,
    Begin,
    Produce,
    Send,
    Commit,
    Abort,
}

impl Doing {
    fn text(self) -> &'static str {
        match self {
            Doing::Init => "take over the transactional id",
            Doing::Begin => "begin a transaction",
            Doing::Produce => "produce in a transaction",
            Doing::Send => "send offsets with a transaction",
            Doing::Commit => "commit a transaction",
            Doing::Abort => "abort a transaction",
        }
    }
}

impl TransactionalProducer {
    /// A producer that connects with [`Transactions::init`].
    ///
    /// # Errors
    /// [`SourceError::Configuration`] if librdkafka refuses the settings, [`SourceError::Unavailable`] if the operating
    /// system cannot start a thread.
    pub fn new(settings: &TransactionSettings) -> Result<TransactionalProducer, SourceError> {
        let names = TopicNames::new(&settings.kafka.topics)?;
        let (handle, calls) = open(settings)?;
        Ok(TransactionalProducer {
            handle,
            calls,
            names,
            settings: settings.clone(),
            timeout: settings.timeout,
            begun: None,
            topics: Vec::new(),
            sent: Vec::new(),
            has_gap: false,
            is_single: settings.is_single,
            over: false,
        })
    }

    /// Drops the producer and waits up to `wait` until it is freed; returns whether it is. An abandoned call keeps it
    /// alive.
    pub fn close(self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let TransactionalProducer { handle, calls, .. } = self;
        let (reply, ended) = mpsc::channel::<()>();
        // The channel closes once the thread has dropped this closure, after all earlier calls.
        _ = calls.send(Box::new(move |_| drop(reply)));
        drop(calls);
        _ = ended.recv_timeout(wait);
        loop {
            if Arc::strong_count(&handle) == 1 {
                break;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        Arc::into_inner(handle).is_some_and(|last| last.destroy(deadline.saturating_duration_since(Instant::now())))
    }

    /// Creates a new client under the same transactional id, while no transaction is open.
    fn renew(&mut self) -> Result<(), TransactionError> {
        match open(&TransactionSettings { is_single: self.is_single, ..self.settings.clone() }) {
            Ok((handle, calls)) => (self.handle, self.calls) = (handle, calls),
            Err(error) => return Err(self.noted(TransactionError::Unknown(error.to_string()))),
        }
        self.has_gap = false;
        self.init(self.timeout)
    }

    /// The time left until the transaction timeout.
    fn remaining(&self) -> Duration {
        self.begun.map_or(self.timeout, |begun| self.timeout.saturating_sub(begun.elapsed()))
    }

    fn is_overdue(&self) -> bool {
        self.begun.is_some() && self.remaining().is_zero()
    }

    /// Makes a call on the other thread and waits slightly longer than it should take.
    fn call<T: Send + 'static>(
        &mut self,
        doing: Doing,
        wait: Duration,
        work: impl FnOnce(&Handle) -> T + Send + 'static,
    ) -> Result<T, TransactionError> {
        if self.over {
            return Err(TransactionError::Unknown(format!("cannot {}: the producer is unusable", doing.text())));
        }
        let (reply, answer) = mpsc::sync_channel(1);
        let sent = self.calls.send(Box::new(move |handle| _ = reply.send(work(handle))));
        let answer = sent.ok().and_then(|()| answer.recv_timeout(wait + GRACE).ok());
        answer.ok_or_else(|| {
            self.over = true;
            TransactionError::Unknown(format!("cannot {}: no answer within {:?}", doing.text(), wait + GRACE))
        })
    }

    fn transactional(
        &mut self,
        doing: Doing,
        wait: Duration,
        work: impl FnOnce(&Handle) -> Result<(), TransactionFailure> + Send + 'static,
    ) -> Result<(), TransactionError> {
        match self.call(doing, wait, work)? {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.noted(classify(doing, &failure, self.is_overdue()))),
        }
    }

    /// Marks the producer as unusable after errors that require it.
    fn noted(&mut self, error: TransactionError) -> TransactionError {
        self.over |= matches!(error, TransactionError::Unknown(_) | TransactionError::Fenced { .. });
        error
    }

    /// Waits until every record is delivered; reports the ones that were not.
    fn deliver(&mut self, doing: Doing) -> Result<(), TransactionError> {
        if self.sent.is_empty() {
            return Ok(());
        }
        let remaining = self.remaining();
        let flushed = self.call(doing, remaining, move |handle| handle.flush(remaining))?;
        self.check_refused(doing)?;
        flushed.map_err(|failure| {
            TransactionError::Abort(format!(
                "records were not delivered within the transaction timeout: {}",
                failure.text
            ))
        })
    }

    /// Reports the records refused since the last call.
    fn check_refused(&mut self, doing: Doing) -> Result<(), TransactionError> {
        let refused = self.handle.take_refused();
        if refused.is_empty() {
            return Ok(());
        }
        self.has_gap |= refused.iter().any(is_reason);
        if let Some(fatal) = self.handle.fatal() {
            let failure = TransactionFailure { failure: fatal, is_fatal: true, needs_abort: false };
            return Err(self.noted(classify(doing, &failure, self.is_overdue())));
        }
        let refused_together = refused.iter().filter(|refused| is_large(refused)).count();
        if refused_together > 1 && !self.is_single {
            self.is_single = true;
            return Err(TransactionError::TooLargeTogether(format!(
                "a request with {refused_together} records is too large; from now on each record gets its own \
                 request, which is slower. Raise max.message.bytes of the topic"
            )));
        }
        let error = undelivered(&refused, &self.sent, |topic| {
            self.topics.get(topic).map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        });
        Err(self.noted(match error {
            TransactionError::Fenced { by: FencedBy::Producer, text } if self.is_overdue() => overdue(doing, &text),
            error => error,
        }))
    }

    fn topic(&mut self, name: &str) -> Result<usize, TransactionError> {
        if let Some(known) = self.topics.iter().position(|topic| topic.as_bytes() == name.as_bytes()) {
            return Ok(known);
        }
        let zero = |_| TransactionError::Configuration("a topic name contains a zero byte".to_owned());
        self.topics.push(CString::new(name).map_err(zero)?);
        Ok(self.topics.len() - 1)
    }

    /// Queues a record, waiting while the queue is full.
    fn queue(&self, topic: &CStr, partition: Option<i32>, record: &Outgoing<'_>, number: usize) -> Result<(), Failure> {
        let Outgoing { key, payload, headers, time, .. } = *record;
        let message = Message { topic, partition, key, payload, headers, time };
        loop {
            match self.handle.produce(&message, number) {
                Err(failure) if failure.code == Code::QueueFull && !self.remaining().is_zero() => {
                    self.handle.serve(QUEUE_STEP);
                }
                outcome => return outcome,
            }
        }
    }
}

impl Transactions for TransactionalProducer {
    fn init(&mut self, wait: Duration) -> Result<(), TransactionError> {
        self.transactional(Doing::Init, wait, move |handle| handle.init_transactions(wait))
    }

    fn begin(&mut self) -> Result<(), TransactionError> {
        self.begun = None;
        self.transactional(Doing::Begin, self.timeout, Handle::begin_transaction)?;
        self.begun = Some(Instant::now());
        self.sent.clear();
        _ = self.handle.take_refused(); // of the last transaction
        Ok(())
    }

    fn produce_to(&mut self, partition: Option<i32>, record: &Outgoing<'_>) -> Result<(), TransactionError> {
        if self.over {
            return Err(TransactionError::Unknown("cannot produce: the producer is unusable".to_owned()));
        }
        let number = self.sent.len();
        let topic = self.topic(record.topic)?;
        let Err(failure) = self.queue(&self.topics[topic], partition, record, number) else {
            self.sent.push(topic);
            return Ok(());
        };
        // A failed transaction accepts no more records; the reason for its failure says more than this error.
        self.check_refused(Doing::Produce)?;
        let failure = self.handle.fatal().unwrap_or(failure);
        if failure.code == Code::MessageSizeTooLarge {
            return Err(TransactionError::TooLarge { indexes: vec![number], text: failure.text });
        }
        let failure = TransactionFailure { failure, is_fatal: false, needs_abort: true };
        Err(self.noted(classify(Doing::Produce, &failure, self.is_overdue())))
    }

    fn send_offsets(
        &mut self,
        token: &GroupToken,
        next: &[(TopicPartition, Committed)],
    ) -> Result<(), TransactionError> {
        self.deliver(Doing::Send)?;
        let (list, token, remaining) = (self.names.list_with_metadata(next), token.clone(), self.remaining());
        self.transactional(Doing::Send, remaining, move |handle| handle.send_offsets(&list, &token, remaining))
    }

    fn commit(&mut self) -> Result<(), TransactionError> {
        self.deliver(Doing::Commit)?;
        let remaining = self.remaining();
        if remaining.is_zero() {
            let text = format!("the transaction took longer than {:?}, so it is not committed", self.timeout);
            return Err(TransactionError::Abort(text));
        }
        self.transactional(Doing::Commit, remaining, move |handle| handle.commit_transaction(remaining))?;
        self.begun = None;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), TransactionError> {
        let wait = self.timeout;
        self.transactional(Doing::Abort, wait, move |handle| handle.abort_transaction(wait))?;
        self.begun = None;
        if self.has_gap { self.renew() } else { Ok(()) }
    }
}

/// A client and the channel to the thread that makes its calls. The thread ends when the channel is dropped.
fn open(settings: &TransactionSettings) -> Result<(Arc<Handle>, mpsc::Sender<Call>), SourceError> {
    let handle = Handle::new_producer(settings.configuration()?)
        .map_err(|text| SourceError::Configuration(format!("kafka: {text}")))?;
    let (calls, received) = mpsc::channel();
    let of_thread = Arc::clone(&handle);
    thread::Builder::new()
        .name("kafka-transactions".to_owned())
        .spawn(move || make_calls(&of_thread, &received))
        .map_err(|error| SourceError::Unavailable(format!("no thread for transactions: {error}")))?;
    Ok((handle, calls))
}

/// The thread that makes the calls, and may be abandoned in one.
fn make_calls(handle: &Handle, calls: &mpsc::Receiver<Call>) {
    loop {
        match calls.recv_timeout(IDLE_LOOK) {
            Ok(call) => call(handle),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                handle.serve(Duration::ZERO);
                for notice in handle.take_notices() {
                    tracing::debug!(target: "kafka", ?notice, "event of the transactional producer");
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn overdue(doing: Doing, text: &str) -> TransactionError {
    TransactionError::Unknown(format!(
        "cannot {}: the transaction took longer than its timeout, and the brokers ended it: {text}",
        doing.text()
    ))
}

/// The response that a failed call needs.
fn classify(doing: Doing, failure: &TransactionFailure, is_overdue: bool) -> TransactionError {
    let text = format!("cannot {}: {}", doing.text(), failure.failure.text);
    match errors::refusal(&failure.failure) {
        Some(TransactionError::Fenced { by: FencedBy::Producer, text }) if is_overdue => overdue(doing, &text),
        Some(fenced @ TransactionError::Fenced { .. }) => fenced,
        // After a failed abort there is nothing left to abort, whatever the reason.
        _ if doing == Doing::Abort => TransactionError::Unknown(text),
        Some(error) => error,
        None if failure.is_fatal => TransactionError::Unknown(text),
        // Certainly not committed, because no commit was sent.
        None if matches!(doing, Doing::Produce | Doing::Send) => TransactionError::Abort(text),
        None if failure.needs_abort => TransactionError::Abort(text),
        None => TransactionError::Unknown(text),
    }
}

/// Whether a record, or its request, was too large.
fn is_large(refused: &Refused) -> bool {
    matches!(refused.failure.code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge)
}

/// Whether a record was refused itself, not discarded with a failed transaction.
fn is_reason(refused: &Refused) -> bool {
    !matches!(refused.failure.code, Code::PurgeQueue | Code::PurgeInflight)
}

/// The response that refused records need. Records discarded with a failed transaction carry no information.
fn undelivered(refused: &[Refused], sent: &[usize], topic: impl Fn(usize) -> String) -> TransactionError {
    let large: Vec<&Refused> = refused.iter().filter(|refused| is_large(refused)).collect();
    if let Some(first) = large.first() {
        let text = first.failure.text.clone();
        return TransactionError::TooLarge { indexes: large.iter().map(|refused| refused.number).collect(), text };
    }
    let Some(first) = refused.iter().find(|refused| is_reason(refused)) else {
        return TransactionError::Abort("records were discarded with a failed transaction".to_owned());
    };
    errors::refusal(&first.failure).unwrap_or_else(|| {
        let topic = sent.get(first.number).map_or_else(String::new, |place| topic(*place));
        let remedy = match first.failure.code {
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => ". Create the topic",
            _ => "",
        };
        TransactionError::Abort(format!("cannot produce to topic {topic:?}: {}{remedy}", first.failure.text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: [Doing; 6] = [Doing::Init, Doing::Begin, Doing::Produce, Doing::Send, Doing::Commit, Doing::Abort];

    fn failure(code: Code, is_fatal: bool, needs_abort: bool) -> TransactionFailure {
        TransactionFailure { failure: Failure { code, text: "why".to_owned() }, is_fatal, needs_abort }
    }

    #[test]
    fn fenced_errors_are_never_retried() {
        for doing in CALLS {
            for code in [Code::Fenced, Code::ProducerFenced, Code::InvalidProducerEpoch] {
                let found = classify(doing, &failure(code, true, false), false);
                assert!(matches!(found, TransactionError::Fenced { by: FencedBy::Producer, .. }), "{doing:?} {code:?}");
            }
            let found = classify(doing, &failure(Code::FencedInstanceId, false, true), true);
            assert!(matches!(found, TransactionError::Fenced { by: FencedBy::Instance, .. }), "{doing:?} {found:?}");
        }
    }

    #[test]
    fn a_fenced_overdue_transaction_was_ended_by_the_brokers() {
        for doing in [Doing::Produce, Doing::Send, Doing::Commit, Doing::Abort] {
            let found = classify(doing, &failure(Code::Fenced, true, false), true);
            assert!(matches!(&found, TransactionError::Unknown(text) if text.contains("timeout")), "{found:?}");
        }
    }

    #[test]
    fn a_stale_member_waits_for_its_rebalance() {
        let codes = [
            Code::IllegalGeneration,
            Code::UnknownMemberId,
            Code::RebalanceInProgress,
            Code::StaleMemberEpoch,
            Code::FencedMemberEpoch,
        ];
        for code in codes {
            for doing in [Doing::Send, Doing::Commit] {
                let found = classify(doing, &failure(code, false, true), false);
                assert!(matches!(found, TransactionError::Rejoin(_)), "{doing:?} {code:?}");
            }
        }
    }

    #[test]
    fn only_certainly_uncommitted_transactions_are_aborted() {
        for code in [Code::OperationTimedOut, Code::BrokerTransportFailure, Code::RequestTimedOut, Code::State] {
            let found = classify(Doing::Commit, &failure(code, false, false), false);
            assert!(matches!(found, TransactionError::Unknown(_)), "{code:?} {found:?}");
            let found = classify(Doing::Send, &failure(code, false, false), false);
            assert!(matches!(found, TransactionError::Abort(_)), "{code:?} {found:?}");
        }
        let found = classify(Doing::Commit, &failure(Code::UnknownProducerId, false, true), false);
        assert!(matches!(found, TransactionError::Abort(_)), "{found:?}");
        let found = classify(Doing::Send, &failure(Code::InvalidTransactionalState, true, false), false);
        assert!(matches!(found, TransactionError::Unknown(_)), "fatal: {found:?}");
        let found = classify(Doing::Abort, &failure(Code::UnknownMemberId, false, true), false);
        assert!(matches!(found, TransactionError::Unknown(_)), "an abort that failed: {found:?}");
    }

    #[test]
    fn configuration_errors_name_the_remedy() {
        let cases = [
            (Code::TransactionalIdAuthorizationFailed, "transactional ids"),
            (Code::GroupAuthorizationFailed, "kafka.group_id"),
            (Code::TopicAuthorizationFailed, "Write and Describe on the topic"),
            (Code::OffsetMetadataTooLarge, "offset.metadata.max.bytes"),
            (Code::InvalidTransactionTimeout, "transaction.max.timeout.ms"),
        ];
        for (code, remedy) in cases {
            let found = classify(Doing::Send, &failure(code, true, false), false);
            assert!(matches!(&found, TransactionError::Configuration(text) if text.contains(remedy)), "{found:?}");
        }
    }

    #[test]
    fn records_that_are_too_large_are_named_and_discarded_ones_are_not() {
        let refused = |number, code| Refused { number, failure: Failure { code, text: "why".to_owned() } };
        let name = |_: usize| "dead-letters".to_owned();
        let sent = [0; 3];
        let large = [
            refused(2, Code::MessageSizeTooLarge),
            refused(1, Code::MessageSizeTooLarge),
            refused(0, Code::PurgeQueue),
        ];
        let found = undelivered(&large, &sent, name);
        assert!(matches!(&found, TransactionError::TooLarge { indexes, .. } if indexes == &[2, 1]), "{found:?}");
        let missing = [refused(0, Code::PurgeInflight), refused(2, Code::UnknownTopic)];
        let found = undelivered(&missing, &sent, name);
        assert!(
            matches!(&found, TransactionError::Abort(text) if text.contains("dead-letters") && text.contains("Create")),
            "{found:?}"
        );
        let found = undelivered(&[refused(0, Code::TopicAuthorizationFailed)], &sent, name);
        assert!(matches!(found, TransactionError::Configuration(_)), "{found:?}");
    }
}
