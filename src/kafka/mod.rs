//! A member of a Kafka consumer group that takes messages in bulk without copying them.
//!
//! It calls librdkafka directly, because the batch call costs half of what single polls cost. The rebalance callback
//! runs inside that call and only records the event. [`KafkaClient::poll`] hands it out, and the caller answers it with
//! `assign`, `incremental_assign` or `unassign`. Until then librdkafka returns no more messages.

mod access;
mod admin;
mod ends;
mod errors;
mod ffi;
mod handle;
mod oidc;
mod producer;
mod reader;
mod settings;
#[cfg(test)]
mod tests;
mod topics;
mod transactions;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode as Code;

pub use self::access::access_mistakes;
pub use self::admin::{GroupState, KafkaAdmin};
use self::ends::Ends;
pub use self::ffi::KafkaBatch;
use self::ffi::{Failure, Handle, Notice, Queue, Run};
pub use self::handle::KafkaHandle;
pub use self::producer::{PlainProducer, Refusal};
pub use self::reader::ProbedRecord;
use self::settings::Role;
pub use self::settings::{
    GroupProtocol, KafkaSettings, TransactionSettings, managed_option, option_mistake, transactional_id,
};
use self::topics::{TopicCache, TopicNames};
pub use self::transactions::TransactionalProducer;
use crate::bus::{
    GroupClient, GroupHandle, GroupToken, LogClient, Polled, RebalanceProtocol, RecordBatch, SourceError, Start,
    TopicPartition,
};

/// Maximum number of messages per poll.
const POLL_RECORDS_MAX: usize = 1_000;
/// How long a query to the brokers may block the poll thread; far below any session timeout.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// For how long after a lost session an answer to an old request may arrive: `socket.timeout.ms`.
const ECHO: Duration = Duration::from_secs(60);
/// How often ends are checked while records keep arriving.
const ENDS_EVERY: Duration = Duration::from_millis(100);
/// Placeholder in lists that need no offset.
const NO_OFFSET: i64 = rd::RD_KAFKA_OFFSET_INVALID as i64;
/// How often closing checks whether it is done.
const CLOSE_STEP: Duration = Duration::from_millis(20);

/// A member of a consumer group; see the module.
#[derive(Debug)]
pub struct KafkaClient {
    handle: Arc<Handle>,
    queue: Queue,
    topics: TopicCache,
    protocol: RebalanceProtocol,
    /// Paused partitions. librdkafka keeps a pause across assignments, so we must end it.
    paused: BTreeSet<TopicPartition>,
    ends: Ends,
    ends_seen: Instant,
    settings: KafkaSettings,
    /// When the session last timed out, until [`KafkaClient::rejoin_after_echo`] has handled it.
    lost_at: Option<Instant>,
}

impl KafkaClient {
    /// Joins the group in the background; the first [`Polled::Assigned`] confirms it.
    ///
    /// # Errors
    /// [`SourceError::Configuration`] if librdkafka refuses the settings.
    pub fn join(settings: &KafkaSettings) -> Result<KafkaClient, SourceError> {
        let handle = open(settings, Role::Member)?;
        let topics = TopicCache::new(TopicNames::new(&settings.topics)?);
        let queue = handle
            .subscribe(&topics.names().subscription())
            .map_err(|failure| errors::failed("cannot subscribe", &failure))?;
        Ok(KafkaClient::with_queue(settings, handle, queue, topics))
    }

    /// A reader outside the group: it reads what [`LogClient::assign`] names, and must not commit.
    ///
    /// # Errors
    /// [`SourceError::Configuration`] if librdkafka refuses the settings.
    pub fn look(settings: &KafkaSettings) -> Result<KafkaClient, SourceError> {
        let handle = open(settings, Role::Member)?;
        let topics = TopicCache::new(TopicNames::new(&settings.topics)?);
        let queue = handle.look().map_err(|failure| errors::failed("cannot read", &failure))?;
        Ok(KafkaClient::with_queue(settings, handle, queue, topics))
    }

    fn with_queue(settings: &KafkaSettings, handle: Arc<Handle>, queue: Queue, topics: TopicCache) -> KafkaClient {
        KafkaClient {
            handle,
            queue,
            topics,
            protocol: settings.rebalance_protocol(),
            paused: BTreeSet::new(),
            ends: Ends::default(),
            ends_seen: Instant::now(),
            settings: settings.clone(),
            lost_at: None,
        }
    }

    /// Resolves starts to offsets.
    fn offsets_of(&self, partitions: &[(TopicPartition, Start)]) -> Result<Vec<(TopicPartition, i64)>, SourceError> {
        let offsets = self.handle().offsets(partitions, ANSWER_WAIT)?;
        Ok(partitions.iter().map(|(at, _)| *at).zip(offsets).collect())
    }

    /// Drops records that were handed out before; `false` if none is left.
    fn is_news(&mut self, polled: &mut Polled<KafkaBatch>) -> bool {
        let Polled::Records(at, batch) = polled else { return true };
        let news = self.ends.handed_out(*at, batch.get(batch.len() - 1).offset + 1);
        if batch.get(0).offset < news {
            batch.drop_before(news);
        }
        !batch.is_empty()
    }

    /// Reports the ends reached. Everything before them was handed out.
    fn reached_ends(&mut self, out: &mut Vec<Polled<KafkaBatch>>) {
        self.ends_seen = Instant::now();
        if self.ends.all().len() == 0 {
            return;
        }
        let mut list = self.topics.names().list(self.ends.all().map(|at| (at, NO_OFFSET)));
        if self.handle.positions(&mut list).is_err() {
            return;
        }
        let (names, handle) = (self.topics.names(), &self.handle);
        let end = |at: TopicPartition| handle.high_watermark(names.name(at.topic), at.partition.0);
        let reached = self.ends.reached(list.entries().map(|entry| entry.offset), end);
        out.extend(reached.into_iter().map(|(at, offset)| Polled::End { at, offset }));
    }

    fn known(&self, partitions: Vec<(String, i32)>) -> Vec<TopicPartition> {
        partitions.iter().filter_map(|(topic, partition)| self.topics.names().place(topic, *partition)).collect()
    }

    /// Resumes partitions. It is no error if librdkafka has forgotten one.
    fn end_pauses(&mut self, ended: impl Fn(&TopicPartition) -> bool) {
        let over: Vec<_> = self.paused.iter().filter(|at| ended(at)).copied().collect();
        if !over.is_empty() {
            _ = self.handle.resume(&self.topics.names().list(over.iter().map(|at| (*at, NO_OFFSET))));
            self.paused.retain(|at| !over.contains(at));
        }
    }

    /// Leaves the group and frees the client, within the deadline.
    fn leave(self, deadline: Instant) {
        let remaining = || deadline.saturating_duration_since(Instant::now());
        let KafkaClient { handle, queue, mut topics, .. } = self;
        if handle.fatal().is_none() {
            match handle.begin_close() {
                Ok(mut closing) => {
                    while !handle.closed() && !remaining().is_zero() {
                        closing.fetch(CLOSE_STEP.min(remaining()), POLL_RECORDS_MAX, &mut topics, &mut Vec::new());
                    }
                }
                Err(failure) => {
                    tracing::warn!(target: "kafka", error = %failure.text, "cannot leave the group in order");
                }
            }
        }
        drop(queue);
        if let Some(last) = Arc::into_inner(handle) {
            last.destroy(remaining());
        }
    }

    /// Rejoins if we were fenced by ourselves. A static member whose session timed out rejoins under a new member id. A
    /// commit in flight during the outage is then answered under the old one, which the broker takes for another
    /// instance, and librdkafka fails permanently. At most once per lost session, so that we give way to a real
    /// duplicate instance.
    fn rejoin_after_echo(&mut self, out: &mut Vec<Polled<KafkaBatch>>) {
        if self.protocol != RebalanceProtocol::Eager || self.lost_at.take().is_none_or(|at| at.elapsed() > ECHO) {
            return;
        }
        match KafkaClient::join(&self.settings) {
            Ok(fresh) => {
                std::mem::replace(self, fresh).close(Duration::ZERO);
                // Under this protocol everything is lost, whatever the event names.
                *out = vec![
                    Polled::Lost(Vec::new()),
                    Polled::Error("an old request of ours was fenced; joining the group again".to_owned()),
                ];
            }
            Err(error) => out.push(Polled::Fatal(error)),
        }
    }

    /// A fatal error arrives as a message with a generic code; this restores the actual one.
    fn unwrap_fatal(&self, run: Run) -> Run {
        match run {
            Run::Problem { topic, partition, offset, failure } if failure.code == Code::Fatal => {
                Run::Problem { topic, partition, offset, failure: self.handle.fatal().unwrap_or(failure) }
            }
            run => run,
        }
    }

    fn notices(&mut self, out: &mut Vec<Polled<KafkaBatch>>) {
        for notice in self.handle.take_notices() {
            out.push(match notice {
                Notice::Assigned(partitions) => Polled::Assigned(self.known(partitions)),
                Notice::Revoked(partitions) => Polled::Revoked(self.known(partitions)),
                Notice::Lost(partitions) => {
                    self.lost_at = Some(Instant::now());
                    Polled::Lost(self.known(partitions))
                }
                Notice::Error(failure) => errors::reported(None, -1, &failure),
                Notice::Fatal(failure) => errors::fatal(&failure),
            });
        }
    }
}

/// Merges runs of messages into one batch per topic-partition.
fn gather(runs: Vec<Run>, names: &TopicNames, out: &mut Vec<Polled<KafkaBatch>>) {
    for run in runs {
        match run {
            Run::Records(at, batch) => {
                let last = out.iter_mut().rev().find(|polled| concerns(polled, at));
                if let Some(Polled::Records(_, earlier)) = last {
                    earlier.append(batch);
                } else {
                    out.push(Polled::Records(at, batch));
                }
            }
            Run::End(_) => {}
            Run::Problem { topic: Some(topic), partition, offset, failure }
                if errors::is_out_of_range(failure.code) =>
            {
                let place = format!("topic {topic:?} partition {partition}");
                let text = errors::out_of_range(&place, offset, &failure);
                out.extend(names.place(&topic, partition).map(|at| Polled::OutOfRange(at, text)));
            }
            Run::Problem { topic: Some(topic), partition, offset, failure } if errors::is_damaged(failure.code) => {
                let place = format!("topic {topic:?} partition {partition}");
                let text = errors::damaged(&place, offset, &failure);
                out.extend(names.place(&topic, partition).map(|at| Polled::Damaged(at, text)));
            }
            Run::Problem { topic, partition, offset, failure } => {
                let place = topic.map(|topic| format!("topic {topic:?} partition {partition}"));
                out.push(errors::reported(place.as_deref(), offset, &failure));
            }
        }
    }
}

fn concerns(polled: &Polled<KafkaBatch>, place: TopicPartition) -> bool {
    matches!(polled, Polled::Records(at, _) if *at == place)
}

impl LogClient for KafkaClient {
    type Batch = KafkaBatch;

    /// Rebalances and errors come after the records, since those were fetched before.
    fn poll(&mut self, wait: Duration) -> Vec<Polled<KafkaBatch>> {
        let mut runs = Vec::new();
        let mut out = Vec::new();
        self.queue.fetch(Duration::ZERO, POLL_RECORDS_MAX, &mut self.topics, &mut runs);
        self.notices(&mut out);
        if runs.is_empty() && out.is_empty() {
            self.reached_ends(&mut out);
        }
        if runs.is_empty() && out.is_empty() {
            // One message ends the wait; a larger batch would wait until it is full.
            self.queue.fetch(wait, 1, &mut self.topics, &mut runs);
            if !runs.is_empty() {
                self.queue.fetch(Duration::ZERO, POLL_RECORDS_MAX - 1, &mut self.topics, &mut runs);
            }
            self.notices(&mut out);
        }
        let notices = std::mem::take(&mut out);
        let runs = runs.into_iter().map(|run| self.unwrap_fatal(run)).collect();
        gather(runs, self.topics.names(), &mut out);
        out.retain_mut(|polled| self.is_news(polled));
        if self.ends_seen.elapsed() >= ENDS_EVERY {
            self.reached_ends(&mut out);
        }
        out.extend(notices);
        if out.iter().any(|polled| matches!(polled, Polled::Fatal(SourceError::Fenced(_)))) {
            self.rejoin_after_echo(&mut out);
        }
        out
    }

    fn protocol(&self) -> RebalanceProtocol {
        self.protocol
    }

    fn assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError> {
        let starts = self.offsets_of(partitions)?;
        let list = self.topics.names().list(starts.iter().copied());
        self.topics.forget_addresses();
        self.handle.assign(Some(&list)).map_err(|failure| errors::failed("cannot assign partitions", &failure))?;
        self.end_pauses(|_| true);
        self.ends = Ends::default();
        self.ends.assigned(starts);
        Ok(())
    }

    fn incremental_assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError> {
        let starts = self.offsets_of(partitions)?;
        let list = self.topics.names().list(starts.iter().copied());
        self.topics.forget_addresses();
        self.handle
            .incremental_assign(&list)
            .map_err(|failure| errors::failed("cannot assign partitions", &failure))?;
        self.end_pauses(|at| partitions.iter().any(|(assigned, _)| assigned == at));
        self.ends.assigned(starts);
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.topics.forget_addresses();
        match self.protocol {
            RebalanceProtocol::Eager => self.handle.assign(None),
            RebalanceProtocol::Incremental => {
                let list = self.topics.names().list(partitions.iter().map(|at| (*at, NO_OFFSET)));
                self.handle.incremental_unassign(&list)
            }
        }
        .map_err(|failure| errors::failed("cannot give up partitions", &failure))?;
        let eager = self.protocol == RebalanceProtocol::Eager;
        self.end_pauses(|at| eager || partitions.contains(at));
        self.ends.given_up(|at| eager || partitions.contains(at));
        Ok(())
    }

    fn end_offset(&self, of: TopicPartition) -> Option<i64> {
        self.handle.high_watermark(self.topics.names().name(of.topic), of.partition.0)
    }

    /// A static member stays in the group, so that a restart within the session timeout moves no partition.
    ///
    /// Batches still in use keep the client's memory alive, not its membership. Runs on a separate thread, because some
    /// calls of librdkafka have no timeout.
    fn close(self, wait: Duration) {
        let deadline = Instant::now() + wait;
        let (done, closed) = mpsc::channel::<()>();
        let leave = move || {
            self.leave(deadline);
            drop(done);
        };
        if let Err(error) = thread::Builder::new().name("kafka-close".to_owned()).spawn(leave) {
            tracing::warn!(target: "kafka", %error, "no thread to leave the group in order");
        }
        if closed.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!(target: "kafka", "did not leave the group in time; its session will time out");
        }
    }
}

impl GroupClient for KafkaClient {
    type Handle = KafkaHandle;

    fn group_token(&self) -> Result<GroupToken, SourceError> {
        self.handle().token()
    }

    fn handle(&self) -> KafkaHandle {
        KafkaHandle { handle: Arc::clone(&self.handle), names: self.topics.names().clone() }
    }

    fn rejoin(&mut self) -> Result<(), SourceError> {
        let rejoined = self.handle.rejoin(&self.topics.names().subscription());
        rejoined.map_err(|failure| errors::failed("cannot leave the group and join it again", &failure))
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        let list = self.topics.names().list(partitions.iter().map(|at| (*at, NO_OFFSET)));
        // Recorded even on failure, which leaves the other partitions of the list paused.
        self.paused.extend(partitions);
        self.handle.pause(&list).map_err(|failure| errors::failed("cannot pause", &failure))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        let list = self.topics.names().list(partitions.iter().map(|at| (*at, NO_OFFSET)));
        self.handle.resume(&list).map_err(|failure| errors::failed("cannot resume", &failure))?;
        self.paused.retain(|at| !partitions.contains(at));
        Ok(())
    }
}

fn open(settings: &KafkaSettings, role: Role) -> Result<Arc<Handle>, SourceError> {
    Handle::new(settings.configuration(role)?).map_err(|text| SourceError::Configuration(format!("kafka: {text}")))
}

/// The partition count of each topic of the settings, in order; `None` if a topic does not exist.
///
/// Uses its own connection; may be called from any thread. Waits up to `wait`.
///
/// # Errors
/// [`SourceError::Unavailable`] if no broker answers, [`SourceError::Configuration`] if one refuses.
pub fn partition_counts(settings: &KafkaSettings, wait: Duration) -> Result<Vec<Option<u32>>, SourceError> {
    let deadline = Instant::now() + wait;
    let handle = open(settings, Role::Visitor)?;
    let topics = TopicNames::new(&settings.topics)?;
    let mut counts = Vec::with_capacity(topics.all().len());
    for name in topics.all() {
        let remaining = deadline.saturating_duration_since(Instant::now());
        counts.push(match handle.partition_count(name, remaining) {
            Ok(0) => None, // being created
            Ok(count) => Some(count),
            Err(failure) => match failure.code {
                Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::LeaderNotAvailable => None,
                Code::TopicAuthorizationFailed | Code::InvalidTopic => {
                    let (name, text) = (name.to_string_lossy(), &failure.text);
                    let is_right = failure.code == Code::TopicAuthorizationFailed;
                    let right = if is_right { format!(". {}", errors::READ_TOPIC) } else { String::new() };
                    return Err(SourceError::Configuration(format!("topic {name:?}: {text}{right}")));
                }
                _ => return Err(unreachable_broker(&handle, &settings.brokers, &failure)),
            },
        });
    }
    Ok(counts)
}

/// Creates the missing topics of the settings, with the brokers' default replication and the topic options `with`, such
/// as `("cleanup.policy", "delete")`.
///
/// Uses its own connection; may be called from any thread. Waits up to `wait`.
///
/// # Errors
/// If the brokers refuse or do not answer.
pub fn create_topics(
    settings: &KafkaSettings,
    partitions: i32,
    with: &[(&str, &str)],
    wait: Duration,
) -> Result<(), SourceError> {
    let handle = open(settings, Role::Visitor)?;
    let topics = TopicNames::new(&settings.topics)?;
    let text =
        |text: &str| CString::new(text).map_err(|_| SourceError::Configuration(format!("{text:?} holds a zero byte")));
    let with = with.iter().map(|(name, value)| Ok((text(name)?, text(value)?)));
    let with = with.collect::<Result<Vec<_>, SourceError>>()?;
    let answers = handle.create_topics(topics.all(), partitions, &with, wait);
    for answer in answers.map_err(|failure| unreachable_broker(&handle, &settings.brokers, &failure))? {
        match answer {
            Ok(()) => {}
            Err(failure) if failure.code == Code::TopicAlreadyExists => {}
            Err(failure) => return Err(errors::not_created(&failure)),
        }
    }
    Ok(())
}

/// Adds the reason that the connection reported, since the answer itself only says "timed out". Prefers denied access
/// over the closed connection that follows from it.
fn unreachable_broker(handle: &Handle, brokers: &str, failure: &Failure) -> SourceError {
    handle.serve_callbacks();
    let reasons = handle.take_notices().into_iter().rev().filter_map(|notice| match notice {
        Notice::Error(reason) if reason.code != Code::AllBrokersDown => Some(reason),
        _ => None,
    });
    let reasons: Vec<Failure> = reasons.collect();
    let is_refusal = |reason: &&Failure| reason.code == Code::Authentication || errors::is_of_tls(reason);
    let reason = reasons.iter().find(is_refusal).or(reasons.first()).unwrap_or(failure);
    let reason = errors::explained(reason);
    SourceError::Unavailable(format!("no answer from the brokers at {brokers}: {reason}"))
}
