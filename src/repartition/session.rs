//! One session of a router: takes the transactional id over, finds out how far the source is routed, and routes on.
//!
//! In this order, or events would be routed twice: the transactional id is taken over, which fences whoever had it and
//! ends what that one left; **then** the committed offsets are read, which nobody else can move any more; then reading
//! begins there. Every transaction holds routed events, dead letters and the offsets of **all** partitions behind them:
//! offsets of a group without members expire one by one, each so long after its own last commit.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Route;
use super::merge::Merge;
use super::offset_note::OffsetNote;
use super::partition_reader::{Fetched, Item, ItemKind, Oversized, PartitionReader, RecordPosition};
use crate::bus::transaction::{Outgoing, TransactionError, Transactions};
use crate::bus::{
    Committed, GroupClient, GroupHandle, GroupToken, Header, LogClient, Partition, Polled, RecordBatch, SourceError,
    Start, TopicIndex, TopicPartition,
};
use crate::coordinator::rejection_breaker::RejectionBreaker;
use crate::decode::{Reason, Skip};
use crate::event::wall_clock;
use crate::output::dead_letters::too_large_even_cut_off;
use crate::status::routing::RoutingStatus;
use crate::worker::note_type;

/// After how many bytes a transaction is committed at the latest.
const BYTES_MAX: usize = 8 << 20;
/// How many items of one partition wait for the others before it is fetched no further, and when it is again.
const WAITING_HIGH: usize = 20_000;
const WAITING_LOW: usize = 5_000;
/// What those of all partitions may hold together, and one of them at least.
const WAITING_BYTES: usize = 64 << 20;
const WAITING_BYTES_EACH: usize = 512 << 10;
/// How long one question to the brokers may take.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
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
const INTO: TopicIndex = TopicIndex(1);

/// What a router works with, apart from what it is told to do.
pub trait Clients {
    /// Reads the source; no member of any group.
    type Client: GroupClient;
    /// Routes.
    type Producer: Transactions;
    /// How many partitions the source topic and the one that is filled have.
    ///
    /// # Errors
    /// When the brokers do not answer.
    fn partitions(&self) -> Result<[Option<u32>; 2], SourceError>;
    /// The id of the source topic, where the brokers tell it.
    ///
    /// # Errors
    /// When the brokers do not answer.
    fn topic_id(&self) -> Result<Option<String>, SourceError>;
    /// A new reader.
    ///
    /// # Errors
    /// When it cannot be made.
    fn reader(&self) -> Result<Self::Client, SourceError>;
    /// A new producer.
    ///
    /// # Errors
    /// When it cannot be made.
    fn producer(&self) -> Result<Self::Producer, SourceError>;
    /// From now on a new producer sends each record in a request of its own.
    fn send_singly(&self) {}
}

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

/// What was done in the transaction that is open.
#[derive(Debug)]
struct Open {
    begun: Instant,
    /// Of each message produced, the reader and the offset of its record.
    sent: Vec<(usize, i64)>,
    bytes: usize,
}

/// What is counted once it is committed.
#[derive(Debug)]
struct Counts {
    events: u64,
    dead_letters: u64,
    unknown: u64,
    unknown_types: BTreeSet<String>,
    rejected: [u64; Reason::ALL.len()],
    skipped: [u64; Skip::ALL.len()],
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            events: 0,
            dead_letters: 0,
            unknown: 0,
            unknown_types: BTreeSet::new(),
            rejected: [0; Reason::ALL.len()],
            skipped: [0; Skip::ALL.len()],
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// How long one poll waits for messages.
    poll_wait: Duration,
    /// For how long a partition at its end is waited for.
    hold: Duration,
    /// After how long a transaction is committed, and after how many messages at the latest.
    commit_every: Duration,
    messages: usize,
}

const LIMITS: Limits = Limits {
    poll_wait: Duration::from_millis(50),
    hold: Duration::from_secs(1),
    commit_every: Duration::from_millis(100),
    messages: 20_000,
};

/// How often a record may be refused for its size: as an event, as a dead letter, and as one that was cut off time and
/// again.
const REFUSALS: u32 = 5;

/// One session.
pub struct Session<'a, P: Clients> {
    clients: &'a P,
    route: Route,
    status: &'a RoutingStatus,
    oversized: &'a mut Oversized,
    client: P::Client,
    producer: P::Producer,
    topic_id: Option<String>,
    readers: Vec<PartitionReader<<P::Client as LogClient>::Batch>>,
    merge: Merge<Item>,
    breaker: RejectionBreaker,
    open: Option<Open>,
    counts: Counts,
    limits: Limits,
    /// Whether more may go on at once than went into the last transaction.
    has_more: bool,
    /// What the reader complained about last and keeps trying.
    events_done: Option<String>,
    /// For how long nothing has come.
    idle: Duration,
    last_poll: Instant,
    last_commit: Instant,
    last_publish: Option<Instant>,
    last_look: Instant,
}

fn place(topic: TopicIndex, number: usize) -> TopicPartition {
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
            events_done: None,
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
                Polled::Error(text) if self.events_done.as_ref() != Some(&text) => {
                    warn!(source = self.route.source, "the router's reader: {text}");
                    self.events_done = Some(text);
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
        self.events_done = None;
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

    fn open(&mut self) -> Result<(), End> {
        if self.open.is_none() {
            self.producer.begin().map_err(|error| ended(&error))?;
            self.open = Some(Open { begun: Instant::now(), sent: Vec::new(), bytes: 0 });
        }
        Ok(())
    }

    fn produce(&mut self, reader: usize, item: &Item) -> Result<(), End> {
        let produced = match &item.what {
            ItemKind::Event { partition, key, bytes } => {
                self.counts.events += 1;
                let (key, payload) = bytes.split_at(*key);
                let record = Outgoing {
                    topic: &self.route.into,
                    key: Some(key),
                    payload: Some(payload),
                    headers: &[],
                    time: None,
                };
                self.producer.produce_to(Some(*partition), &record).map(|()| bytes.len())
            }
            ItemKind::DeadLetter(dead_letter, reason) => {
                self.counts.dead_letters += 1;
                self.counts.rejected[*reason as usize] += 1;
                let header = |(name, value): &'_ (String, Option<Vec<u8>>)| (name.clone(), value.clone());
                let own: Vec<_> = dead_letter.headers.iter().map(header).collect();
                let headers = own.iter().map(|(name, value)| Header { name: name.into(), value: value.as_deref() });
                let record = Outgoing {
                    topic: &self.route.dead_letters,
                    key: dead_letter.key.as_deref(),
                    payload: dead_letter.payload.as_deref(),
                    headers: &headers.collect::<Vec<_>>(),
                    time: dead_letter.time,
                };
                self.producer.produce(&record).map(|()| dead_letter.bytes())
            }
            ItemKind::Skipped(skip) => {
                self.counts.skipped[*skip as usize] += 1;
                return Ok(());
            }
            ItemKind::Unknown(name) => {
                self.counts.unknown += 1;
                note_type(&mut self.counts.unknown_types, name);
                return Ok(());
            }
            ItemKind::Nothing => return Ok(()),
        };
        // A refusal may name this message.
        if let Some(open) = &mut self.open {
            open.sent.push((reader, item.offset));
        }
        match produced {
            Ok(bytes) => self.open.iter_mut().for_each(|open| open.bytes += bytes),
            Err(error) => return Err(self.failed(&error)),
        }
        Ok(())
    }

    /// Makes visible what was produced, with the offsets behind it.
    fn commit(&mut self) -> Result<(), End> {
        let Session { readers, merge, topic_id, .. } = self;
        let next = |(number, reader): (usize, &mut PartitionReader<_>)| {
            reader.is_done(merge);
            let metadata = OffsetNote { events_done: reader.next.events_done, topic_id: topic_id.clone() }
                .to_string()
                .into_bytes();
            (place(FROM, number), Committed { offset: reader.next.offset, metadata })
        };
        let next: Vec<_> = readers.iter_mut().enumerate().map(next).collect();
        let token = GroupToken::of_nobody(&self.route.group);
        let committed = self.producer.send_offsets(&token, &next).and_then(|()| self.producer.commit());
        committed.map_err(|error| self.failed(&error))?;
        self.open = None;
        self.last_commit = Instant::now();
        let counts = std::mem::take(&mut self.counts);
        self.status.change(|status| {
            status.events += counts.events;
            status.dead_letters += counts.dead_letters;
            status.unknown += counts.unknown;
            counts.unknown_types.iter().for_each(|name| note_type(&mut status.unknown_types, name));
            add(&mut status.rejected, &counts.rejected);
            add(&mut status.skipped, &counts.skipped);
        });
        Ok(())
    }

    /// How a failed call ends the session; a successor goes on from what is committed.
    fn failed(&mut self, error: &TransactionError) -> End {
        match error {
            TransactionError::TooLargeTogether(_) => self.clients.send_singly(),
            TransactionError::TooLarge { indexes, .. } => {
                let sent = self.open.as_ref().map(|open| open.sent.as_slice()).unwrap_or_default();
                for record in indexes.iter().filter_map(|&index| sent.get(index)) {
                    let refusals = self.oversized.entry(*record).or_default();
                    *refusals += 1;
                    if *refusals > REFUSALS {
                        return End::Broken(too_large_even_cut_off(&self.route.dead_letters));
                    }
                }
            }
            _ => {}
        }
        ended(error)
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

fn ended(error: &TransactionError) -> End {
    match error {
        TransactionError::Fenced { text, .. } => End::Fenced(text.clone()),
        other => End::Failed(other.to_string()),
    }
}

fn add(sums: &mut Vec<u64>, more: &[u64]) {
    sums.resize(sums.len().max(more.len()), 0);
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// Where reading begins, and whether nobody ever has.
fn begins<H: GroupHandle>(
    handle: &H,
    route: &Route,
    readers: usize,
    topic_id: Option<&str>,
) -> Result<(Vec<RecordPosition>, bool), End> {
    let all: Vec<_> = (0..readers).map(|number| place(FROM, number)).collect();
    let committed = handle.committed(&all, ANSWER_WAIT)?;
    let ask = |start: Start| {
        let question: Vec<_> = all.iter().map(|at| (*at, start)).collect();
        handle.offsets(&question, ANSWER_WAIT)
    };
    let at = |offset: i64| RecordPosition { offset, events_done: 0 };
    if committed.iter().all(Option::is_none) {
        let into = (0..route.partitions as usize).map(|number| (place(INTO, number), Start::Latest));
        if handle.offsets(&into.collect::<Vec<_>>(), ANSWER_WAIT)?.iter().any(|end| *end > 0) {
            return Err(End::Broken(route.lost_offsets()));
        }
        return Ok((ask(route.start)?.into_iter().map(at).collect(), true));
    }
    // All are committed together, so those without are partitions that the topic got since.
    let fresh = if committed.iter().any(Option::is_none) { ask(Start::Earliest)? } else { Vec::new() };
    let begin = |(number, committed): (usize, &Option<Committed>)| {
        let Some(committed) = committed else { return Ok(at(fresh[number])) };
        let note = OffsetNote::parse(&committed.metadata);
        match (&note.topic_id, topic_id) {
            (Some(then), Some(now)) if then != now => Err(End::Broken(route.other_topic())),
            _ => Ok(RecordPosition { offset: committed.offset, events_done: note.events_done }),
        }
    };
    Ok((committed.iter().enumerate().map(begin).collect::<Result<_, End>>()?, false))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
