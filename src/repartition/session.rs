//! One session of a router: takes the transactional id over, finds out how far the source is routed, and routes on.
//!
//! In this order, or events would be routed twice: the transactional id is taken over, which fences whoever had it and
//! ends what that one left; **then** the committed offsets are read, which nobody else can move any more; then reading
//! begins there. Every transaction holds routed events, dead letters and the offsets of **all** partitions behind them:
//! offsets of a group without members expire one by one, each so long after its own last commit.

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

/// After how many bytes a transaction is committed at the latest.
pub(super) const BYTES_MAX: usize = 8 << 20;
/// How many items of one partition wait for the others before it is fetched no further, and when it is again.
const WAITING_HIGH: usize = 20_000;
const WAITING_LOW: usize = 5_000;
/// What those of all partitions may hold together, and one of them at least.
const WAITING_BYTES: usize = 64 << 20;
const WAITING_BYTES_EACH: usize = 512 << 10;
/// How long one question to the brokers may take.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// How long leaving may take.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// A poll that hands out so many records may have left others behind.
const FULL_POLL: usize = 500;
/// Two polls that lie further apart than this say nothing about what did not come in between.
const STALL: Duration = Duration::from_millis(100);
/// How often the state is told to those who ask.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// How often new partitions are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often offsets are committed when nothing happens, so that they do not expire.
const TOUCH_EVERY: Duration = Duration::from_secs(3_600);

/// The topics that a reader knows: the source, and the one that is filled.
pub const FROM: TopicIndex = TopicIndex(0);
pub(super) const INTO: TopicIndex = TopicIndex(1);

/// How a session ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// This replica routes no more.
    GaveUp,
    /// Somebody else has the transactional id.
    Fenced(String),
    /// What happened may be over soon.
    Failed(String),
    /// A person has to do something.
    Broken(String),
    /// The daemon must not go on.
    Fatal(SourceError),
}

impl From<SourceError> for End {
    fn from(error: SourceError) -> End {
        End::Failed(error.to_string())
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How long one poll waits for messages.
    pub(super) poll_wait: Duration,
    /// For how long a partition at its end is waited for.
    pub(super) hold: Duration,
    /// After how long a transaction is committed, and after how many messages at the latest.
    pub(super) commit_every: Duration,
    pub(super) messages: usize,
}

const LIMITS: Limits = Limits {
    poll_wait: Duration::from_millis(50),
    hold: Duration::from_secs(1),
    commit_every: Duration::from_millis(100),
    messages: 20_000,
};

/// One session.
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
    /// Whether more may go on at once than went into the last transaction.
    pub(super) has_more: bool,
    /// What the reader complained about last and keeps trying.
    pub(super) last_warning: Option<String>,
    /// For how long nothing has come.
    pub(super) idle: Duration,
    pub(super) last_poll: Instant,
    pub(super) last_commit: Instant,
    pub(super) last_publish: Option<Instant>,
    pub(super) last_look: Instant,
}

pub(super) fn place(topic: TopicIndex, number: usize) -> TopicPartition {
    TopicPartition { topic, partition: Partition(i32::try_from(number).unwrap_or(i32::MAX)) }
}

impl<'a, P: Clients> Session<'a, P> {
    /// Takes over.
    ///
    /// # Errors
    /// Why that cannot be.
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
            last_look: now,
        };
        if is_first {
            // So that a start that means another place tomorrow is not asked for again.
            session.open()?;
            session.commit()?;
        }
        Ok(session)
    }

    /// Routes while `goes_on` says so.
    pub fn run(mut self, goes_on: impl Fn() -> bool) -> End {
        let end = loop {
            if !goes_on() {
                break End::GaveUp;
            }
            if let Err(end) = self.round() {
                break end;
            }
        };
        if matches!(end, End::GaveUp | End::Broken(_)) && self.open.is_some() {
            // What is pending holds readers up until it is ended; a successor would do that too.
            _ = self.producer.abort();
        }
        self.client.close(CLOSE_WAIT);
        end
    }

    /// One turn: reads, routes what may go on, commits when it is time to.
    ///
    /// # Errors
    /// How the session ends.
    pub fn round(&mut self) -> Result<(), End> {
        let Limits { poll_wait, commit_every, .. } = self.limits;
        let wait = match &self.open {
            _ if self.has_more => Duration::ZERO,
            Some(open) => commit_every.saturating_sub(open.begun.elapsed()).min(poll_wait),
            None => poll_wait,
        };
        let polled = self.client.poll(wait);
        // After a stall of this process, or a long commit, what came meanwhile is to be handed out first.
        let heard = std::mem::replace(&mut self.last_poll, Instant::now()).elapsed().min(STALL);
        let mut records = 0;
        for polled in polled {
            match polled {
                Polled::Records(at, batch) => {
                    records += batch.len();
                    self.bring(at, Fetched::Records(batch));
                }
                Polled::End { at, offset } => self.bring(at, Fetched::End(offset)),
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
            self.idle += heard;
        } else if std::mem::take(&mut self.idle) >= self.limits.hold {
            // What comes after a silence comes to several partitions, though not at once.
            self.readers.iter_mut().for_each(|reader| reader.hold_again(&mut self.merge));
        }
        self.read_on(if records < FULL_POLL { heard } else { Duration::ZERO })?;
        self.route_on()?;
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
        if self.last_look.elapsed() >= LOOK_EVERY {
            self.look()?;
        }
        Ok(())
    }

    fn bring(&mut self, at: TopicPartition, fetched: Fetched<<P::Client as LogClient>::Batch>) {
        self.last_warning = None;
        let reader = usize::try_from(at.partition.0).ok().and_then(|number| self.readers.get_mut(number));
        if let Some(reader) = reader.filter(|_| at.topic == FROM) {
            reader.bring(fetched);
        }
    }

    /// `listened` is for how long the reader had nothing to hand out but what it handed out.
    fn read_on(&mut self, listened: Duration) -> Result<(), End> {
        let latest = wall_clock().plus(self.route.max_future);
        let Session { readers, merge, route, oversized, breaker, limits, .. } = self;
        for reader in readers {
            if let Err((tripped, offset)) = reader.read_on(route, merge, oversized, breaker, latest) {
                return Err(End::Fatal(SourceError::Configuration(format!(
                    "topic {:?} is read in the wrong format: {} of {} messages cannot be used, most of them for {}; such as \
                     offset {offset}: {}. Correct the format of the topic's source under [sources], or the producers; to \
                     take all of them for dead dead_letters, set dead_letters.stop_after = 0",
                    route.topic,
                    tripped.rejected,
                    tripped.messages,
                    tripped.reason.label(),
                    tripped.example.1,
                ))));
            }
            reader.let_others_go(merge, listened, limits.hold);
        }
        Ok(())
    }

    /// Produces what may go on, in the order of the merge, until a transaction is full.
    fn route_on(&mut self) -> Result<(), End> {
        self.has_more = false;
        while let Some((reader, item)) = self.merge.next() {
            self.open()?;
            self.produce(reader, &item)?;
            self.readers[reader].gone_on(&item);
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
            "{text}. Partition {} of topic {:?} is not routed any further, and no other either. To go on without those \
             records, commit an offset that the topic holds for the group {:?} (kafka-consumer-groups --reset-offsets \
             --to-earliest --group {3} --topic {4}:{0} --execute)",
            at.partition.0, self.route.topic, self.route.group, self.route.group, self.route.topic
        ))
    }

    /// Fetches no more of what waits in large numbers, and on of what does not any more.
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
                // What is produced and not committed is not routed yet.
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

    /// A topic that got more partitions is read anew.
    fn look(&mut self) -> Result<(), End> {
        self.last_look = Instant::now();
        if let Ok([Some(readers), Some(partitions)]) = self.clients.partitions() {
            if partitions != self.route.partitions {
                return Err(End::Broken(format!(
                    "topic {:?} has {partitions} partitions instead of {}, so customers would move: rebuild the state with \
                     `retentiond bootstrap`",
                    self.route.into, self.route.partitions
                )));
            }
            if readers as usize != self.readers.len() {
                return Err(End::Failed(format!("topic {:?} has {readers} partitions now", self.route.topic)));
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
#[path = "tests.rs"]
mod tests;
