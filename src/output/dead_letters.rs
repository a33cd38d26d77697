//! The dead-letter topic: every rejected message, unchanged, with the reason.

use std::time::{Duration, Instant};

use tracing::warn;

use crate::bus::transaction::Outgoing;
use crate::bus::{Header, RecordBatch, SourceError};
use crate::decode::SCHEMA_HEADER;
use crate::kafka::{KafkaSettings, PlainProducer};
use crate::worker::Rejected;

/// How long delivery may take before the commit is postponed.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// The sizes in bytes to which a record that is too large is truncated, one after the other.
const SIZES: [usize; 4] = [1 << 17, 1 << 15, 1 << 13, 1 << 10];
/// Prefix of the names of our own headers.
pub const OURS: &str = "retentiond.error.";

/// Where a message came from.
#[derive(Debug, Clone, Copy)]
pub struct RecordOrigin<'a> {
    /// The consumer group that rejected it.
    pub group: &'a str,
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
}

/// Dead letters or alerts are not delivered, so offsets after them must not be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// A retry may help.
    #[error("cannot deliver messages to topic {topic:?}: {cause}; create the topic, or configure another one")]
    Yet {
        /// The topic.
        topic: String,
        /// The error.
        cause: String,
    },
    /// A retry cannot help.
    #[error("{}", too_large_even_cut_off(.0))]
    Ever(String),
}

/// The message for an alert, or a record truncated to the smallest size, that does not fit into its topic.
#[must_use]
pub fn too_large_even_cut_off(topic: &str) -> String {
    format!(
        "topic {topic:?} refuses an alert, or a dead letter truncated to about {} bytes, as too large; set \
         max.message.bytes of the topic (default: message.max.bytes of the brokers) to at least 65536",
        SIZES[SIZES.len() - 1]
    )
}

/// Publishes dead letters and alerts without transactions.
pub struct DeadLetters {
    producer: PlainProducer,
    topics: Topics,
    /// The number of the next attempt's first record. Reports about lower numbers belong to earlier attempts.
    next: usize,
}

impl DeadLetters {
    /// Creates a producer for the topics.
    ///
    /// # Errors
    /// When librdkafka rejects an option.
    pub fn new(kafka: &KafkaSettings, topics: Topics) -> Result<DeadLetters, SourceError> {
        Ok(DeadLetters { producer: PlainProducer::new(kafka)?, topics, next: 0 })
    }

    /// Publishes records and waits a few seconds until all are delivered. Records that are too large are truncated as
    /// far as needed and marked as such. After an error, deliver all records again; some may then be in the topic
    /// twice.
    ///
    /// # Errors
    /// When a record is not delivered.
    pub fn deliver(&mut self, records: &[&OutboxRecord]) -> Result<(), Undelivered> {
        for place in self.attempt(records)? {
            self.deliver_alone(records[place].clone())?;
        }
        Ok(())
    }

    /// Retries a record by itself: it may have been refused because of the other records in the request.
    fn deliver_alone(&mut self, mut record: OutboxRecord) -> Result<(), Undelivered> {
        while !self.attempt(&[&record])?.is_empty() {
            let before = record.bytes();
            if !record.shrink() {
                return Err(Undelivered::Ever(self.topics.of(&record).to_owned()));
            }
            warn!("a dead letter of {before} bytes is too large and was truncated to {} bytes", record.bytes());
        }
        Ok(())
    }

    /// Publishes records; returns the indexes of those that are too large.
    fn attempt(&mut self, records: &[&OutboxRecord]) -> Result<Vec<usize>, Undelivered> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.next;
        self.next += records.len();
        let topic_of = |place: usize| self.topics.of(records[place]).to_owned();
        let undelivered = |place, cause: String| Undelivered::Yet { topic: topic_of(place), cause };
        let deadline = Instant::now() + FLUSH_WAIT;
        let mut refused = Vec::new();
        let sent = (0..).zip(records).try_for_each(|(place, record)| {
            match self.producer.send(&record.outgoing(&self.topics, &record.borrowed()), first + place, deadline) {
                Err(refusal) if refusal.is_too_large => {
                    refused.push((place, refusal));
                    Ok(())
                }
                outcome => outcome,
            }
        });
        let flushed = sent.and_then(|()| self.producer.flush(deadline.saturating_duration_since(Instant::now())));
        if let Err(refusal) = flushed {
            // The next attempt sends what is still queued again.
            self.producer.forget();
            return Err(undelivered(0, refusal.text));
        }
        let reported = self.producer.take_refused().into_iter();
        refused.extend(reported.filter_map(|(number, refusal)| Some((number.checked_sub(first)?, refusal))));
        match refused.iter().find(|(_, refusal)| !refusal.is_too_large) {
            Some((place, refusal)) => {
                Err(undelivered(*place, format!("{} message(s) were refused: {}", refused.len(), refusal.text)))
            }
            None => Ok(refused.into_iter().map(|(place, _)| place).collect()),
        }
    }
}

/// The kind of topic that a record goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The dead-letter topic.
    DeadLetters,
    /// The alert topic.
    Alerts,
}

/// The names of the output topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// The dead-letter topic.
    pub dead_letters: String,
    /// The alert topic.
    pub alerts: String,
}

impl Topics {
    /// The topic of a record.
    #[must_use]
    pub fn of(&self, record: &OutboxRecord) -> &str {
        match record.to {
            Channel::DeadLetters => &self.dead_letters,
            Channel::Alerts => &self.alerts,
        }
    }
}

/// A record for an output topic: a dead letter or an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRecord {
    /// The topic.
    pub to: Channel,
    /// The original key.
    pub key: Option<Vec<u8>>,
    /// The original value.
    pub payload: Option<Vec<u8>>,
    /// The original headers, followed by reason and origin.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The original log time in epoch milliseconds.
    pub time: Option<i64>,
}

impl OutboxRecord {
    /// A copy of the rejected record, or of the record with only the rejected object, with reason and origin as
    /// headers. `now` is in epoch milliseconds.
    ///
    /// Our own headers of an earlier rejection are replaced. A log time in the future becomes `now`, because brokers
    /// refuse records from the future.
    pub fn new<B: RecordBatch>(origin: &RecordOrigin<'_>, batch: &B, rejected: &Rejected, now: i64) -> OutboxRecord {
        let record = batch.get(rejected.index);
        let part = rejected.part.as_ref().map(|part| part.message.to_vec());
        let mut theirs = batch.headers(rejected.index);
        if part.is_some() {
            // The object is plain JSON, whatever the record's schema was.
            theirs.retain(|header| header.name != SCHEMA_HEADER);
        }
        let theirs = theirs.into_iter().map(|header| (header.name.into_owned(), header.value.map(<[u8]>::to_vec)));
        let dead_letter = OutboxRecord {
            to: Channel::DeadLetters,
            key: record.key.map(<[u8]>::to_vec),
            payload: part.or(record.payload.map(<[u8]>::to_vec)),
            headers: theirs.collect(),
            time: batch.stamp(rejected.index).time.map(|time| time.min(now)),
        };
        dead_letter.marked(origin, record.offset, &rejected.rejection.to_string())
    }

    /// Adds reason and origin as headers, and removes those of an earlier rejection.
    #[must_use]
    pub fn marked(mut self, origin: &RecordOrigin<'_>, offset: i64, reason: &str) -> OutboxRecord {
        self.headers.retain(|(name, _)| !name.starts_with(OURS));
        let ours = [
            ("group", origin.group.to_owned()),
            ("reason", reason.to_owned()),
            ("topic", origin.topic.to_owned()),
            ("partition", origin.partition.to_string()),
            ("offset", offset.to_string()),
        ];
        self.headers.extend(ours.map(|(name, value)| (format!("{OURS}{name}"), Some(value.into_bytes()))));
        self
    }

    /// The headers in the form that a producer takes.
    #[must_use]
    pub fn borrowed<'a>(&'a self) -> Vec<Header<'a>> {
        let header = |(name, value): &'a (String, Option<Vec<u8>>)| Header {
            name: name.as_str().into(),
            value: value.as_deref(),
        };
        self.headers.iter().map(header).collect()
    }

    /// The record in the form that a producer takes; `headers` must come from [`OutboxRecord::borrowed`].
    #[must_use]
    pub fn outgoing<'a>(&'a self, topics: &'a Topics, headers: &'a [Header<'a>]) -> Outgoing<'a> {
        let (key, payload) = (self.key.as_deref(), self.payload.as_deref());
        Outgoing { topic: topics.of(self), key, payload, headers, time: self.time }
    }

    /// Size in bytes of key, value and headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
        length(&self.key) + length(&self.payload) + headers
    }

    /// Whether the record was truncated.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.headers.iter().any(|(name, _)| name.strip_prefix(OURS) == Some("truncated"))
    }

    /// Truncates a dead letter to the next smaller size. Returns `false` for alerts, and at the smallest size.
    pub fn shrink(&mut self) -> bool {
        let before = self.bytes();
        let smaller = SIZES.into_iter().find(|size| *size < before);
        let Some(size) = smaller.filter(|_| self.to == Channel::DeadLetters) else { return false };
        self.shrink_to(size);
        self.bytes() < before
    }

    /// Truncates the record to about `most` bytes and marks it in a header. Reason, key and original headers (the first
    /// ones) keep at most a quarter each; the value gets the rest.
    pub fn shrink_to(&mut self, most: usize) {
        if self.bytes() <= most {
            return;
        }
        if !self.is_truncated() {
            self.headers.push((format!("{OURS}truncated"), Some(b"true".to_vec())));
        }
        let quarter = most / 4;
        let reason = self.headers.iter_mut().filter(|(name, _)| name.strip_prefix(OURS) == Some("reason"));
        for text in reason.filter_map(|(_, value)| value.as_mut()) {
            let end = (0..=quarter.min(text.len())).rev().find(|&end| std::str::from_utf8(&text[..end]).is_ok());
            text.truncate(end.unwrap_or(0));
        }
        let mut room = quarter;
        self.headers.retain(|(name, value)| {
            let bytes = name.len() + value.as_ref().map_or(0, Vec::len);
            let fits = name.starts_with(OURS) || bytes <= room;
            room = if fits { room.saturating_sub(bytes) } else { 0 };
            fits
        });
        self.key.iter_mut().for_each(|key| key.truncate(quarter));
        let others = self.bytes() - self.payload.as_ref().map_or(0, Vec::len);
        self.payload.iter_mut().for_each(|payload| payload.truncate(most.saturating_sub(others)));
    }
}

/// The origin of a dead letter according to its headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sender {
    /// The group whose replica wrote it; none in records of version 0.1.
    pub group: Option<String>,
    /// The label of the reason, without the detail; `unknown` if there is none.
    pub reason: String,
    /// The topic, if it is named.
    pub topic: Option<String>,
    /// Its partition, if it is a number.
    pub partition: Option<i32>,
    /// Whether the record was truncated.
    pub is_truncated: bool,
}

impl Sender {
    /// Reads the headers, which may contain anything.
    #[must_use]
    pub fn of(headers: &[(String, Option<Vec<u8>>)]) -> Sender {
        let ours = |name: &str| {
            let found = headers.iter().find(|(header, _)| header.strip_prefix(OURS) == Some(name));
            found.map(|(_, value)| String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned())
        };
        let reason = ours("reason").unwrap_or_else(|| "unknown".to_owned());
        Sender {
            group: ours("group").filter(|group| !group.is_empty()),
            reason: reason.split(':').next().unwrap_or_default().to_owned(),
            topic: ours("topic").filter(|topic| !topic.is_empty()),
            partition: ours("partition").and_then(|partition| partition.parse().ok()),
            is_truncated: ours("truncated").is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::memory::{MemoryBatch, MemoryBroker};
    use crate::bus::{LogClient, Partition, Polled, RebalanceProtocol, Start, TopicIndex, TopicPartition};
    use crate::decode::{Reason, Rejection};

    const NOW: i64 = 5_000;

    fn batch(payload: &[u8], headers: &[Header<'_>], time: i64) -> MemoryBatch {
        let at = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
        let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[1]);
        broker.append_with_headers(at, Some(b"k"), Some(payload), time, headers).unwrap();
        let mut client = broker.join();
        client.poll(Duration::ZERO);
        client.assign(&[(at, Start::Earliest)]).unwrap();
        let polled = client.poll(Duration::ZERO).into_iter().find_map(|polled| match polled {
            Polled::Records(_, batch) => Some(batch),
            _ => None,
        });
        polled.unwrap()
    }

    fn record(payload: &[u8], headers: &[Header<'_>], time: i64) -> OutboxRecord {
        let origin = RecordOrigin { group: "retentiond", topic: "orders", partition: 3 };
        let rejection = Rejection::new(Reason::InvalidJson, "no");
        OutboxRecord::new(&origin, &batch(payload, headers, time), &Rejected::whole(0, rejection), NOW)
    }

    fn names(record: &OutboxRecord) -> Vec<&str> {
        record.headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn keeps_everything_and_adds_the_reason_and_the_origin() {
        let headers = [
            Header { name: "trace".into(), value: Some(b"\xff") },
            Header { name: "trace".into(), value: None },
            Header { name: "retentiond.error.reason".into(), value: Some(b"an earlier one") },
        ];
        let record = record(b"{broken", &headers, 4_000);
        assert_eq!((record.key.as_deref(), record.payload.as_deref()), (Some(&b"k"[..]), Some(&b"{broken"[..])));
        assert_eq!((record.time, record.is_truncated()), (Some(4_000), false));
        let ours = ["group", "reason", "topic", "partition", "offset"].map(|name| format!("retentiond.error.{name}"));
        let expected: Vec<&str> = ["trace", "trace"].into_iter().chain(ours.iter().map(String::as_str)).collect();
        assert_eq!(names(&record), expected);
        let values: Vec<_> = record.headers.iter().map(|(_, value)| value.as_deref()).collect();
        let expected = [&b"\xff"[..], b"retentiond", b"invalid_json: no", b"orders", b"3", b"0"].map(Some);
        assert_eq!((values[0], values[1], &values[2..]), (expected[0], None, &expected[1..]));
    }

    #[test]
    fn a_log_time_in_the_future_becomes_now() {
        assert_eq!(record(b"", &[], NOW + 1).time, Some(NOW));
    }

    #[test]
    fn a_record_that_is_too_large_is_truncated_and_marked_once() {
        let (large, small) = (vec![7_u8; 1 << 20], Header { name: "small".into(), value: Some(b"1") });
        let headers = [
            small.clone(),
            Header { name: "large".into(), value: Some(&large) },
            Header { name: "behind".into(), value: Some(b"2") },
        ];
        let mut record = record(&large, &headers, 0);
        record.key = Some(vec![b'k'; 1 << 20]);
        assert!(record.bytes() >= 3 << 20);
        for size in SIZES {
            assert!(record.shrink(), "to {size}");
            assert!(record.is_truncated() && record.bytes() <= size && record.bytes() > size / 2, "{}", record.bytes());
            let once = record.clone();
            record.shrink_to(size);
            assert_eq!(record, once);
            assert_eq!((names(&record)[0], names(&record).len()), ("small", 7));
            let sender = Sender::of(&record.headers);
            assert_eq!((sender.reason.as_str(), sender.topic.as_deref()), ("invalid_json", Some("orders")));
        }
        assert!(!record.shrink(), "it is as small as it can be");
    }

    #[test]
    fn a_long_reason_is_truncated_between_characters_and_an_alert_never_is() {
        let mut long = record(b"x", &[], 0).marked(
            &RecordOrigin { group: "retentiond", topic: "orders", partition: 3 },
            0,
            &"\u{20ac}".repeat(5_000),
        );
        assert!(long.shrink() && long.bytes() <= 1 << 13, "{}", long.bytes());
        let reason = long.headers.iter().find(|(name, _)| name == "retentiond.error.reason").unwrap();
        assert!(std::str::from_utf8(reason.1.as_deref().unwrap()).is_ok_and(|text| !text.is_empty()));
        let mut alert = OutboxRecord { to: Channel::Alerts, ..record(&[b'a'; 1 << 20], &[], 0) };
        assert!(!alert.shrink() && alert.bytes() > 1 << 20);
    }
}
