//! Lists and replays dead letters (`retentiond dlq`).
//!
//! Several groups may share a dead-letter topic. A dead letter names the group that wrote it; each group replays its
//! own and skips the others. Dead letters of version 0.1 name no group and belong to every group.
//!
//! The command joins its own group, `<kafka.group_id>-dlq`. Each step is one transaction: it sends chosen dead letters
//! back to their topics, appends the others to the dead-letter topic again, and commits the offset after both. So each
//! dead letter is replayed once, whatever a call chose or however it ended, and the next call continues after it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::bus::transaction::{Outgoing, TransactionError, Transactions};
use crate::bus::{
    Committed, GroupClient, GroupHandle, GroupToken, Header, LogClient, Partition, Polled, RecordBatch, SourceError,
    Start, TopicIndex, TopicPartition,
};
use crate::config::Settings;
use crate::kafka::{
    KafkaAdmin, KafkaClient, KafkaSettings, TransactionSettings, TransactionalProducer, partition_counts,
};
use crate::output::dead_letters::{OURS, Sender};
use crate::wiring::kafka_settings;

/// How long the brokers may not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Upper limits of one transaction.
const STEP_RECORDS: usize = 500;
const STEP_BYTES: usize = 8 << 20;
/// Timeout of one poll.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Timeout for leaving the group.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Selects dead letters; an empty choice selects all.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Any of these reasons.
    pub reasons: Vec<String>,
    /// Any of these original topics.
    pub topics: Vec<String>,
    /// Lower bound of the message's log time in epoch milliseconds, inclusive.
    pub since: Option<i64>,
    /// Upper bound, exclusive.
    pub until: Option<i64>,
    /// Maximum number.
    pub limit: Option<u64>,
}

/// A record of the dead-letter topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct DeadLetter {
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    time: Option<i64>,
}

impl DeadLetter {
    fn sender(&self) -> Sender {
        Sender::of(&self.headers)
    }

    fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
        length(&self.key) + length(&self.payload) + headers
    }
}

/// What to do with a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disposition {
    /// Send it back to its topic.
    Back,
    /// Keep it for another call: it was not chosen, or its topic does not exist.
    Stays,
    /// It can never be replayed: it was truncated or does not name its topic.
    Lost,
    /// It belongs to another group.
    Foreign,
}

impl Choice {
    fn disposition(
        &self,
        group: &str,
        sender: &Sender,
        time: Option<i64>,
        has_topic: impl FnOnce(&str) -> bool,
    ) -> Disposition {
        if sender.group.as_deref().is_some_and(|of| of != group) {
            return Disposition::Foreign;
        }
        let among = |list: &[String], value: &str| list.is_empty() || list.iter().any(|listed| listed == value);
        let Some(topic) = &sender.topic else { return Disposition::Lost };
        let is_in_time = self.since.is_none_or(|since| time.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| time.is_some_and(|time| time < until));
        if sender.is_truncated {
            Disposition::Lost
        } else if among(&self.reasons, &sender.reason) && among(&self.topics, topic) && is_in_time && has_topic(topic) {
            Disposition::Back
        } else {
            Disposition::Stays
        }
    }
}

/// Counts for one reason and topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Dead letters that were replayed, or would be.
    pub back: u64,
    /// Dead letters kept for another call.
    pub stay: u64,
    /// Dead letters that can never be replayed.
    pub lost: u64,
    /// The latest log time in epoch milliseconds.
    pub newest: Option<i64>,
}

/// Counts by reason and topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The counts.
    pub counts: BTreeMap<(String, String), Count>,
    /// Original topics that do not exist.
    pub missing: Vec<String>,
    /// Skipped dead letters of other groups.
    pub others: u64,
    /// Counted dead letters that name no group.
    pub unnamed: u64,
}

impl Report {
    fn note(&mut self, sender: &Sender, disposition: Disposition, time: Option<i64>) {
        if disposition == Disposition::Foreign {
            self.others += 1;
            return;
        }
        self.unnamed += u64::from(sender.group.is_none());
        let key = (sender.reason.clone(), sender.topic.clone().unwrap_or_default());
        let count = self.counts.entry(key).or_default();
        match disposition {
            Disposition::Back => count.back += 1,
            Disposition::Stays => count.stay += 1,
            Disposition::Lost | Disposition::Foreign => count.lost += 1,
        }
        count.newest = count.newest.max(time);
    }

    /// How many are replayed.
    #[must_use]
    pub fn back(&self) -> u64 {
        self.counts.values().map(|count| count.back).sum()
    }
}

/// Cached partition counts of the topics that dead letters came from.
struct Targets {
    kafka: KafkaSettings,
    /// `None` for a topic that does not exist.
    partitions: BTreeMap<String, Option<u32>>,
}

impl Targets {
    /// A topic's number of partitions.
    fn of(&mut self, topic: &str) -> Result<Option<u32>, SourceError> {
        if let Some(known) = self.partitions.get(topic) {
            return Ok(*known);
        }
        let lookup = KafkaSettings { topics: vec![topic.to_owned()], ..self.kafka.clone() };
        let found = match partition_counts(&lookup, PATIENCE) {
            Ok(counts) => counts.first().copied().flatten(),
            // Not a valid topic name, so the topic does not exist.
            Err(SourceError::Configuration(_)) => None,
            Err(error) => return Err(error),
        };
        self.partitions.insert(topic.to_owned(), found);
        Ok(found)
    }

    fn missing(&self) -> Vec<String> {
        let missing = self.partitions.iter().filter(|(_, partitions)| partitions.is_none());
        missing.map(|(topic, _)| topic.clone()).collect()
    }
}

/// Client settings for the command's own group and the dead-letter topic, and the topic's number of partitions.
fn group(settings: &Settings) -> Result<(KafkaSettings, u32), SourceError> {
    let mut kafka = kafka_settings(settings);
    kafka.group_id = format!("{}-dlq", kafka.group_id);
    // Dynamic membership releases the partitions immediately on exit.
    kafka.instance_id = None;
    kafka.topics = vec![settings.dead_letters.topic.clone()];
    match partition_counts(&kafka, PATIENCE)?.first().copied().flatten() {
        Some(partitions) => Ok((kafka, partitions)),
        None => Err(SourceError::Configuration(format!(
            "topic {:?} does not exist; dead_letters.topic must be the topic that the daemon writes to",
            settings.dead_letters.topic
        ))),
    }
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicIndex(0), partition: Partition(partition) }
}

/// Replays the chosen dead letters.
///
/// # Errors
/// When the brokers reject a request or do not answer. Dead letters replayed until then stay replayed; another call
/// continues after them.
pub fn replay(settings: &Settings, choice: &Choice) -> Result<Report, SourceError> {
    let (kafka, _) = group(settings)?;
    let mut producer = TransactionalProducer::new(&TransactionSettings::new(&kafka, "replay"))?;
    producer.init(PATIENCE).map_err(failed)?;
    let client = KafkaClient::join(&kafka)?;
    let targets = Targets { kafka: kafka.clone(), partitions: BTreeMap::new() };
    let mut replay = Replay {
        client,
        producer,
        choice: choice.clone(),
        group: settings.kafka.group_id.clone(),
        topic: kafka.topics[0].clone(),
        targets,
        left: BTreeMap::new(),
        report: Report::default(),
    };
    let outcome = replay.run();
    let Replay { client, targets, mut report, .. } = replay;
    client.close(CLOSE_WAIT);
    report.missing = targets.missing();
    outcome.map(|()| report)
}

fn failed(error: TransactionError) -> SourceError {
    match error {
        TransactionError::Fenced { text, .. } => {
            SourceError::Fenced(format!("another `retentiond dlq replay` of the same group is running: {text}"))
        }
        TransactionError::Configuration(text) => SourceError::Configuration(text),
        TransactionError::TooLarge { text, .. } => SourceError::Configuration(format!(
            "a dead letter is too large for its topic: {text}; raise max.message.bytes of the topic, or exclude it \
             with --since and --until"
        )),
        other => SourceError::Unavailable(format!("{other}. Run the command again: it continues where this run ended")),
    }
}

/// A running replay.
struct Replay {
    client: KafkaClient,
    producer: TransactionalProducer,
    choice: Choice,
    /// The group whose dead letters are replayed.
    group: String,
    topic: String,
    targets: Targets,
    /// End offsets of the partitions at the start; partitions that are done are removed.
    left: BTreeMap<i32, i64>,
    report: Report,
}

impl Replay {
    fn run(&mut self) -> Result<(), SourceError> {
        let mut last_answer = Instant::now();
        let mut is_assigned = false;
        while !is_assigned || !self.left.is_empty() {
            for polled in self.client.poll(POLL_WAIT) {
                match polled {
                    Polled::Assigned(given) => {
                        is_assigned = true;
                        self.begin(&given)?;
                    }
                    Polled::Records(at, batch) => self.put_back(at.partition.0, &batch)?,
                    Polled::End { at, offset } => self.reached(at.partition.0, offset),
                    Polled::Revoked(_) | Polled::Lost(_) => {
                        return Err(SourceError::Unavailable(
                            "another `retentiond dlq replay` of the same group has joined; run one at a time".into(),
                        ));
                    }
                    Polled::Error(text) => tracing::warn!("{text}"),
                    Polled::OutOfRange(_, text) | Polled::Damaged(_, text) => {
                        return Err(SourceError::Unavailable(text));
                    }
                    Polled::Fatal(error) => return Err(error),
                }
                last_answer = Instant::now();
                if self.is_full() {
                    return Ok(());
                }
            }
            if last_answer.elapsed() > 2 * PATIENCE {
                return Err(SourceError::Unavailable(format!(
                    "the brokers have not answered for {} s",
                    last_answer.elapsed().as_secs()
                )));
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.choice.limit.is_some_and(|limit| self.report.back() >= limit)
    }

    /// Starts the assigned partitions at their committed offsets, and notes their current ends.
    fn begin(&mut self, given: &[TopicPartition]) -> Result<(), SourceError> {
        let handle = self.client.handle();
        let ask = |start: Start| handle.offsets(&given.iter().map(|at| (*at, start)).collect::<Vec<_>>(), PATIENCE);
        let (earliest, ends) = (ask(Start::Earliest)?, ask(Start::Latest)?);
        let committed = handle.committed(given, PATIENCE)?;
        let next = committed.iter().zip(&earliest).map(|(committed, earliest)| {
            committed.as_ref().map_or(*earliest, |committed| committed.offset.max(*earliest))
        });
        let starts: Vec<_> = given.iter().copied().zip(next).collect();
        self.left = starts
            .iter()
            .zip(ends)
            .filter(|((_, next), end)| next < end)
            .map(|((at, _), end)| (at.partition.0, end))
            .collect();
        let starts: Vec<_> = starts.into_iter().map(|(at, next)| (at, Start::Offset(next))).collect();
        match self.client.protocol() {
            crate::bus::RebalanceProtocol::Eager => self.client.assign(&starts),
            crate::bus::RebalanceProtocol::Incremental => self.client.incremental_assign(&starts),
        }
    }

    fn reached(&mut self, partition: i32, offset: i64) {
        if self.left.get(&partition).is_some_and(|end| offset >= *end) {
            self.left.remove(&partition);
        }
    }

    fn put_back<B: RecordBatch>(&mut self, partition: i32, batch: &B) -> Result<(), SourceError> {
        let mut index = 0;
        while index < batch.len() && !self.is_full() {
            let Some(&end) = self.left.get(&partition) else { return Ok(()) };
            let mut step = ReplayStep::default();
            let room = self.choice.limit.map_or(u64::MAX, |limit| limit - self.report.back());
            while index < batch.len() && step.has_room(room) {
                let offset = batch.get(index).offset;
                if offset >= end {
                    break;
                }
                let dead_letter = read(batch, index);
                let sender = dead_letter.sender();
                let count = match &sender.topic {
                    Some(topic) if *topic != self.topic => self.targets.of(topic)?,
                    _ => None,
                };
                match self.choice.disposition(&self.group, &sender, dead_letter.time, |_| count.is_some()) {
                    Disposition::Foreign => step.pass(offset),
                    disposition => step.add(dead_letter, sender, disposition, count, offset),
                }
                index += 1;
            }
            let token = self.client.group_token()?;
            if let Some(next) = step.next {
                self.commit(&step, &token, partition, next)?;
                self.report.others += step.others;
                for (dead_letter, sender, disposition, _) in &step.dead_letters {
                    self.report.note(sender, *disposition, dead_letter.time);
                }
                self.reached(partition, next);
            } else {
                self.reached(partition, end);
            }
        }
        Ok(())
    }

    fn commit(&mut self, step: &ReplayStep, token: &GroupToken, partition: i32, next: i64) -> Result<(), SourceError> {
        let mut outcome = self.transaction(step, token, partition, next);
        if matches!(outcome, Err(TransactionError::TooLargeTogether(_))) {
            self.producer.abort().map_err(failed)?;
            outcome = self.transaction(step, token, partition, next);
        }
        if let Err(error) = outcome {
            // Ignore the result: if the producer is unusable, the brokers abort the transaction themselves.
            _ = self.producer.abort();
            return Err(failed(error));
        }
        Ok(())
    }

    fn transaction(
        &mut self,
        step: &ReplayStep,
        token: &GroupToken,
        partition: i32,
        next: i64,
    ) -> Result<(), TransactionError> {
        self.producer.begin()?;
        for (dead_letter, sender, disposition, count) in &step.dead_letters {
            let (topic, target) = match (disposition, &sender.topic) {
                (Disposition::Back, Some(topic)) => {
                    let fits = |partition: &i32| u32::try_from(*partition).is_ok_and(|number| Some(number) < *count);
                    (topic.as_str(), sender.partition.filter(fits))
                }
                (Disposition::Stays, _) => (self.topic.as_str(), Some(partition)),
                _ => continue,
            };
            let theirs = |name: &String| *disposition == Disposition::Stays || !name.starts_with(OURS);
            let headers = dead_letter.headers.iter().filter(|(name, _)| theirs(name));
            let mut headers: Vec<_> =
                headers.map(|(name, value)| Header { name: name.as_str().into(), value: value.as_deref() }).collect();
            if *disposition == Disposition::Stays && sender.group.is_none() {
                // From now on it belongs to this group; otherwise every group would replay its own copy.
                headers.push(Header { name: format!("{OURS}group").into(), value: Some(self.group.as_bytes()) });
            }
            let record = Outgoing {
                topic,
                key: dead_letter.key.as_deref(),
                payload: dead_letter.payload.as_deref(),
                headers: &headers,
                time: dead_letter.time,
            };
            self.producer.produce_to(target, &record)?;
        }
        let next = Committed { offset: next, metadata: Vec::new() };
        self.producer.send_offsets(token, &[(place(partition), next)])?;
        self.producer.commit()
    }
}

/// The dead letters of one transaction, each with its sender, its disposition and its topic's number of partitions.
#[derive(Default)]
struct ReplayStep {
    dead_letters: Vec<(DeadLetter, Sender, Disposition, Option<u32>)>,
    bytes: usize,
    back: u64,
    /// Dead letters of other groups.
    others: u64,
    /// The offset after the last one.
    next: Option<i64>,
}

impl ReplayStep {
    fn has_room(&self, back: u64) -> bool {
        self.dead_letters.len() < STEP_RECORDS && self.bytes < STEP_BYTES && self.back < back
    }

    fn pass(&mut self, offset: i64) {
        self.others += 1;
        self.next = Some(offset + 1);
    }

    fn add(
        &mut self,
        dead_letter: DeadLetter,
        sender: Sender,
        disposition: Disposition,
        count: Option<u32>,
        offset: i64,
    ) {
        self.bytes += dead_letter.bytes();
        self.back += u64::from(disposition == Disposition::Back);
        self.next = Some(offset + 1);
        self.dead_letters.push((dead_letter, sender, disposition, count));
    }
}

fn read<B: RecordBatch>(batch: &B, index: usize) -> DeadLetter {
    let record = batch.get(index);
    let headers = batch.headers(index).into_iter();
    DeadLetter {
        key: record.key.map(<[u8]>::to_vec),
        payload: record.payload.map(<[u8]>::to_vec),
        headers: headers.map(|header| (header.name.into_owned(), header.value.map(<[u8]>::to_vec))).collect(),
        time: batch.stamp(index).time,
    }
}

/// Reports the pending dead letters and what [`replay`] would do with them; changes nothing and joins no group.
///
/// # Errors
/// When the brokers reject a request or do not answer.
pub fn look(settings: &Settings, choice: &Choice) -> Result<Report, SourceError> {
    let (kafka, partitions) = group(settings)?;
    let mut targets = Targets { kafka: kafka.clone(), partitions: BTreeMap::new() };
    let mut report = Report::default();
    let mut found = Ok(());
    read_waiting(&kafka, partitions, |dead_letter| {
        let sender = dead_letter.sender();
        let count = match &sender.topic {
            Some(topic) if *topic != kafka.topics[0] => targets.of(topic)?,
            _ => None,
        };
        let disposition =
            match choice.disposition(&settings.kafka.group_id, &sender, dead_letter.time, |_| count.is_some()) {
                Disposition::Back if choice.limit.is_some_and(|limit| report.back() >= limit) => Disposition::Stays,
                disposition => disposition,
            };
        report.note(&sender, disposition, dead_letter.time);
        Ok(())
    })
    .unwrap_or_else(|error| found = Err(error));
    report.missing = targets.missing();
    found.map(|()| report)
}

/// Reads every dead letter after the group's committed offsets.
fn read_waiting(
    kafka: &KafkaSettings,
    partitions: u32,
    mut each: impl FnMut(&DeadLetter) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let all: Vec<TopicPartition> = (0..partitions).filter_map(|p| i32::try_from(p).ok()).map(place).collect();
    let admin = KafkaAdmin::new(kafka)?;
    let ask = |start| admin.offsets(&all.iter().map(|at| (*at, start)).collect::<Vec<_>>(), PATIENCE);
    let (begins, ends, committed) = (ask(Start::Earliest)?, ask(Start::Latest)?, admin.committed(&all, PATIENCE)?);
    let ranges = all.iter().zip(begins).zip(ends).zip(committed).map(|(((at, begin), end), committed)| {
        (*at, committed.map_or(begin, |committed| committed.offset.max(begin)), end)
    });
    let ranges: Vec<_> = ranges.filter(|(_, from, end)| from < end).collect();
    let mut client = KafkaClient::look(kafka)?;
    let outcome = read_ranges(&mut client, &ranges, &mut each);
    client.close(CLOSE_WAIT);
    outcome
}

/// Reads the dead letters in these offset ranges (end exclusive).
fn read_ranges(
    client: &mut KafkaClient,
    ranges: &[(TopicPartition, i64, i64)],
    each: &mut impl FnMut(&DeadLetter) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    client.assign(&ranges.iter().map(|(at, from, _)| (*at, Start::Offset(*from))).collect::<Vec<_>>())?;
    let mut open: BTreeMap<TopicPartition, i64> = ranges.iter().map(|(at, _, end)| (*at, *end)).collect();
    let mut progress = Instant::now();
    while !open.is_empty() {
        if progress.elapsed() > PATIENCE {
            let seconds = PATIENCE.as_secs();
            return Err(SourceError::Unavailable(format!("the brokers have not answered for {seconds} s")));
        }
        for polled in client.poll(POLL_WAIT) {
            match polled {
                Polled::Records(at, batch) => {
                    progress = Instant::now();
                    let Some(&end) = open.get(&at) else { continue };
                    for index in (0..batch.len()).filter(|&index| batch.get(index).offset < end) {
                        each(&read(&batch, index))?;
                    }
                    if batch.get(batch.len() - 1).offset + 1 >= end {
                        open.remove(&at);
                    }
                }
                // After the last record there may be only transaction markers.
                Polled::End { at, offset } if open.get(&at).is_some_and(|end| offset >= *end) => drop(open.remove(&at)),
                Polled::Fatal(error) => return Err(error),
                Polled::Error(text) => tracing::warn!("{text}"),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
