//! One session of a router: takes over the transactional id, finds out how far the source is routed, and continues.
//!
//! The order matters, or events would be routed twice. First, the session takes over the transactional id, which fences
//! the previous router and ends its open transaction. **Then** it reads the committed offsets, which nobody else can
//! move any more, and starts reading there. Every transaction holds the routed events, the dead letters and the offsets
//! of **all** partitions: in a group without members, each offset expires on its own, counted from its last commit.

use std::time::{Duration, Instant};

use tracing::warn;

use super::Route;
use super::clients::Clients;
use super::merge::Merge;
use super::partition_reader::{Fetched, Item, Oversized, PartitionReader, RecordPosition};
use super::start::begins;
use super::transaction::{Counts, Open};
use crate::bus::transaction::{TransactionError, Transactions};
use crate::bus::{
    GroupClient, LogClient, Partition, Polled, RecordBatch, SourceError, Start, TopicIndex, TopicPartition,
};
use crate::coordinator::rejection_breaker::RejectionBreaker;
use crate::event::wall_clock;
use crate::status::routing::RoutingStatus;

/// Bytes at which a transaction is committed.
pub(super) const BYTES_MAX: usize = 8 << 20;
/// Number of waiting items at which a partition is paused, and below which it is resumed.
const WAITING_HIGH: usize = 20_000;
const WAITING_LOW: usize = 5_000;
/// Bytes that the waiting items of all partitions may hold together, and the minimum that each partition may hold.
const WAITING_BYTES: usize = 64 << 20;
const WAITING_BYTES_EACH: usize = 512 << 10;
/// Timeout of one request to the brokers.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// Timeout for closing the reader.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// A poll that returns this many records may have left others behind.
const FULL_POLL: usize = 500;
/// Upper limit of the silence that is credited between two polls: a longer gap is a stall of this process.
const STALL: Duration = Duration::from_millis(100);
/// How often the status is published.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// How often partition counts are checked.
const CHECK_COUNTS_EVERY: Duration = Duration::from_secs(60);
/// How often an idle router commits its offsets, so that they do not expire.
const TOUCH_EVERY: Duration = Duration::from_secs(3_600);

/// The topics of a reader: the source and the target.
pub const FROM: TopicIndex = TopicIndex(0);
pub(super) const INTO: TopicIndex = TopicIndex(1);

/// Why a session ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// This replica no longer owns the router's partition, or is stopping.
    GaveUp,
    /// Another router took over the transactional id.
    Fenced(String),
    /// A failure that may be temporary.
    Failed(String),
    /// A failure that an operator must resolve.
    Broken(String),
    /// A failure that must stop the daemon.
    Fatal(SourceError),
}

impl From<SourceError> for End {
    fn from(error: SourceError) -> End {
        End::Failed(error.to_string())
    }
}

/// Limits, which tests change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How long one poll waits for messages.
    pub(super) poll_wait: Duration,
    /// How long a partition at its end still blocks the others.
    pub(super) hold: Duration,
    /// Age and number of messages at which a transaction is committed, whichever comes first.
    pub(super) commit_every: Duration,
    pub(super) messages: usize,
}

const LIMITS: Limits = Limits {
    poll_wait: Duration::from_millis(50),
    hold: Duration::from_secs(1),
    commit_every: Duration::from_millis(100),
    messages: 20_000,
};

/// One session of a router.
pub struct Session<'a, P: Clients> {
    pub(super) clients: &'a P,
    pub(super) route: Route,
    pub(super) status: &'a RoutingStatus,
    pub(super) oversized: &'a mut Oversized,
    pub(super) client: P::Client,
    pub(super) producer: P::Producer,
    pub(super) topic_id: Option<String>,
    pub(super) readers: Vec<PartitionReader<<P::Client as LogClient>::Batch>>,
    pub(super) merge: Merge<Item>,
    pub(super) breaker: RejectionBreaker,
    pub(super) open: Option<Open>,
    pub(super) counts: Counts,
    pub(super) limits: Limits,
    /// Whether the last transaction was full, so more items may be ready.
    pub(super) has_more: bool,
    /// The last warning of the reader, to log it once.
    pub(super) last_warning: Option<String>,
    /// For how long no records have arrived.
    pub(super) idle: Duration,
    pub(super) last_poll: Instant,
    pub(super) last_commit: Instant,
    pub(super) last_publish: Option<Instant>,
    pub(super) last_count_check: Instant,
}

pub(super) fn place(topic: TopicIndex, number: usize) -> TopicPartition {
    TopicPartition { topic, partition: Partition(i32::try_from(number).unwrap_or(i32::MAX)) }
}

impl<'a, P: Clients> Session<'a, P> {
    /// Fences the previous router and resumes from its committed offsets.
    ///
    /// # Errors
    /// Why the session cannot start.
    pub fn begin(
        clients: &'a P,
        route: &Route,
        status: &'a RoutingStatus,
        oversized: &'a mut Oversized,
    ) -> Result<Session<'a, P>, End> {
        let [readers, partitions] = clients.partitions()?;
        let missing = |topic: &str| End::Failed(format!("topic {topic:?} does not exist"));
        let readers = readers.ok_or_else(|| missing(&route.topic))? as usize;
        let route = Route { partitions: partitions.ok_or_else(|| missing(&route.into))?, ..route.clone() };
        let topic_id = clients.topic_id()?;
        let mut producer = clients.producer()?;
        producer.init(ANSWER_WAIT).map_err(|error| ended(&error))?;
        let mut client = clients.reader()?;
        let (begins, is_first) = begins(&client.handle(), &route, readers, topic_id.as_deref())?;
        let starts = |(number, begin): (usize, &RecordPosition)| (place(FROM, number), Start::Offset(begin.offset));
        client.assign(&begins.iter().enumerate().map(starts).collect::<Vec<_>>())?;
        let now = Instant::now();
        let mut session = Session {
            clients,
            status,
            oversized,
            client,
            producer,
            topic_id,
            merge: Merge::new(readers),
            readers: begins
                .into_iter()
                .enumerate()
                .map(|(number, begin)| PartitionReader::new(number, begin))
                .collect(),
            breaker: RejectionBreaker::new(route.breaker, 1),
            route,
            open: None,
            counts: Counts::default(),
            limits: LIMITS,
            has_more: false,
            last_warning: None,
            idle: Duration::ZERO,
            last_poll: now,
            last_commit: now,
            last_publish: None,
            last_count_check: now,
        };
        if is_first {
            // Pin the start: `latest` or a time would resolve to other offsets later.
            session.open()?;
            session.commit()?;
        }
        Ok(session)
    }

    /// Routes while `is_active` returns true.
    pub fn run(mut self, is_active: impl Fn() -> bool) -> End {
        let end = loop {
            if !is_active() {
                break End::GaveUp;
            }
            if let Err(end) = self.round() {
                break end;
            }
        };
        if matches!(end, End::GaveUp | End::Broken(_)) && self.open.is_some() {
            // An open transaction blocks read-committed consumers; otherwise only a successor would end it.
            _ = self.producer.abort();
        }
        self.client.close(CLOSE_WAIT);
        end
    }

    /// One iteration: polls, routes ready items, and commits when due.
    ///
    /// # Errors
    /// Why the session ended.
    pub fn round(&mut self) -> Result<(), End> {
        let Limits { poll_wait, commit_every, .. } = self.limits;
        let wait = match &self.open {
            _ if self.has_more => Duration::ZERO,
            Some(open) => commit_every.saturating_sub(open.begun.elapsed()).min(poll_wait),
            None => poll_wait,
        };
        let polled = self.client.poll(wait);
        // After a stall of this process or a long commit, records may be waiting that this poll did not return.
        let listened = std::mem::replace(&mut self.last_poll, Instant::now()).elapsed().min(STALL);
        let mut records = 0;
        for polled in polled {
            match polled {
                Polled::Records(at, batch) => {
                    records += batch.len();
                    self.push(at, Fetched::Records(batch));
                }
                Polled::End { at, offset } => self.push(at, Fetched::End(offset)),
                Polled::Error(text) if self.last_warning.as_ref() != Some(&text) => {
                    warn!(source = self.route.source, "the router's reader: {text}");
                    self.last_warning = Some(text);
                }
                Polled::OutOfRange(at, text) | Polled::Damaged(at, text) => return Err(self.unreadable(at, &text)),
                Polled::Fatal(error) => return Err(error.into()),
                Polled::Error(_) | Polled::Assigned(_) | Polled::Revoked(_) | Polled::Lost(_) => {}
            }
        }
        if records == 0 {
            self.idle += listened;
        } else if std::mem::take(&mut self.idle) >= self.limits.hold {
            // After a silence, records usually reach several partitions, but not at the same moment.
            self.readers.iter_mut().for_each(|reader| reader.block_again(&mut self.merge));
        }
        self.decode(if records < FULL_POLL { listened } else { Duration::ZERO })?;
        self.route_ready()?;
        if self.open.is_none() && self.last_commit.elapsed() >= TOUCH_EVERY {
            self.open()?;
        }
        let is_due = |open: &Open| open.begun.elapsed() >= self.limits.commit_every;
        if self.open.as_ref().is_some_and(is_due) {
            self.commit()?;
        }
        self.keep_bounds()?;
        if self.last_publish.is_none_or(|last| last.elapsed() >= PUBLISH_EVERY) {
            self.publish();
        }
        if self.last_count_check.elapsed() >= CHECK_COUNTS_EVERY {
            self.check_partition_counts()?;
        }
        Ok(())
    }

    fn push(&mut self, at: TopicPartition, fetched: Fetched<<P::Client as LogClient>::Batch>) {
        self.last_warning = None;
        let reader = usize::try_from(at.partition.0).ok().and_then(|number| self.readers.get_mut(number));
        if let Some(reader) = reader.filter(|_| at.topic == FROM) {
            reader.push(fetched);
        }
    }

    /// Decodes fetched records into the merge. `listened` is how long the last poll had nothing more to return.
    fn decode(&mut self, listened: Duration) -> Result<(), End> {
        let latest = wall_clock().plus(self.route.max_future);
        let Session { readers, merge, route, oversized, breaker, limits, .. } = self;
        for reader in readers {
            if let Err((tripped, offset)) = reader.decode_fetched(route, merge, oversized, breaker, latest) {
                return Err(End::Fatal(SourceError::Configuration(format!(
                    "topic {:?} is read in the wrong format: {} of {} messages were rejected, most of them because of \
                     {}; for example offset {offset}: {}. Correct the format of the topic's source under [sources], or \
                     the producers; to send all of them to the dead-letter topic instead, set dead_letters.stop_after \
                     = 0",
                    route.topic,
                    tripped.rejected,
                    tripped.messages,
                    tripped.reason.label(),
                    tripped.example.1,
                ))));
            }
            reader.unblock_after(merge, listened, limits.hold);
        }
        Ok(())
    }

    /// Produces ready items in the order of the merge, until a transaction is full.
    fn route_ready(&mut self) -> Result<(), End> {
        self.has_more = false;
        while let Some((reader, item)) = self.merge.next() {
            self.open()?;
            self.produce(reader, &item)?;
            self.readers[reader].routed(&item);
            let is_full = |open: &Open| open.sent.len() >= self.limits.messages || open.bytes >= BYTES_MAX;
            if self.open.as_ref().is_some_and(is_full) {
                self.has_more = true;
                return self.commit();
            }
        }
        Ok(())
    }

    fn unreadable(&self, at: TopicPartition, text: &str) -> End {
        End::Broken(format!(
            "{text}. Routing has stopped at partition {} of topic {:?}, and in all other partitions. To skip the \
             missing records, commit an offset that exists in the topic for group {:?} (kafka-consumer-groups \
             --reset-offsets --to-earliest --group {3} --topic {4}:{0} --execute)",
            at.partition.0, self.route.topic, self.route.group, self.route.group, self.route.topic
        ))
    }

    /// Pauses partitions with many waiting items, and resumes those that have drained.
    fn keep_bounds(&mut self) -> Result<(), End> {
        let bytes = (WAITING_BYTES / self.readers.len().max(1)).max(WAITING_BYTES_EACH);
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (number, reader) in self.readers.iter_mut().enumerate() {
            let waiting = self.merge.waiting(number);
            if !reader.is_paused && reader.is_above(WAITING_HIGH, waiting, bytes) {
                reader.is_paused = true;
                pause.push(place(FROM, number));
            } else if reader.is_paused && !reader.is_above(WAITING_LOW, waiting, bytes / 4) {
                reader.is_paused = false;
                resume.push(place(FROM, number));
            }
        }
        if !pause.is_empty() {
            self.client.pause(&pause)?;
        }
        if !resume.is_empty() {
            self.client.resume(&resume)?;
        }
        Ok(())
    }

    fn publish(&mut self) {
        let now = Instant::now();
        self.last_publish = Some(now);
        let Session { readers, merge, client, open, .. } = self;
        let mut is_done = open.is_none();
        let mut positions = Vec::with_capacity(readers.len());
        for (number, reader) in readers.iter_mut().enumerate() {
            let at = place(FROM, number);
            let reader_is_done = reader.is_done(merge);
            is_done &= reader_is_done;
            positions.push((at.partition, reader.next.offset, client.end_offset(at), reader_is_done));
        }
        let is_settled = open.is_none();
        let is_stalled = self.readers.iter().any(PartitionReader::is_stalled);
        let last_error = is_stalled.then(|| self.route.decoder.last_error()).flatten();
        self.status.change(|status| {
            status.is_ours = true;
            status.last_error = last_error;
            for (partition, next, end, reader_is_done) in positions {
                let position = status.positions.entry(partition).or_default();
                // Produced but uncommitted events do not count as routed.
                if is_settled || position.applied.is_none() {
                    position.applied = position.applied.max(Some(next));
                }
                position.end = end.max(position.end).max(reader_is_done.then_some(next));
            }
            if is_done {
                status.caught_up_at.get_or_insert(now);
                status.last_at_end = Some(now);
            }
        });
    }

    /// Ends the session when the partition count of the source or the target has changed.
    fn check_partition_counts(&mut self) -> Result<(), End> {
        self.last_count_check = Instant::now();
        if let Ok([Some(readers), Some(partitions)]) = self.clients.partitions() {
            if partitions != self.route.partitions {
                return Err(End::Broken(format!(
                    "topic {:?} now has {partitions} partitions instead of {}, so customers would change partitions: \
                     rebuild the state with `retentiond bootstrap`",
                    self.route.into, self.route.partitions
                )));
            }
            if readers as usize != self.readers.len() {
                return Err(End::Failed(format!("topic {:?} now has {readers} partitions", self.route.topic)));
            }
        }
        Ok(())
    }
}

pub(super) fn ended(error: &TransactionError) -> End {
    match error {
        TransactionError::Fenced { text, .. } => End::Fenced(text.clone()),
        other => End::Failed(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
