//! The dead-letter topic: every message that enters no figure, as it was, with the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tracing::{error, warn};

use crate::decode::Rejection;
use crate::source::RecordBatch;

/// How long delivery may take before offsets stay uncommitted for another round.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// What is left of a key, a value, and headers that cannot be produced again for their size.
const TRUNCATED_BYTES: usize = 1 << 16;
/// What the names of our own headers begin with.
const OURS: &str = "retentiond.error.";

/// Where a message came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
}

/// Dead letters or alerts are not delivered yet, so nothing behind them may be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "dead letters or alerts cannot be delivered to topic {dead_letters:?} or {alerts:?}: {cause}; create them, or set \
     dead_letters.topic and alerts.topic"
)]
pub struct Undelivered {
    dead_letters: String,
    alerts: String,
    cause: String,
}

/// Publishes dead letters and alerts.
pub struct DeadLetters {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
    topics: Topics,
}

/// Counts the messages that the broker refused for good.
#[derive(Clone, Default)]
struct Deliveries {
    refused: Arc<AtomicU64>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.refused.fetch_add(1, Ordering::Relaxed);
            error!("a dead letter was refused: {error}");
        }
    }
}

impl DeadLetters {
    /// A producer for the topics.
    ///
    /// # Errors
    /// When librdkafka refuses an option.
    pub fn new(
        brokers: &str,
        topics: Topics,
        options: impl Iterator<Item = (String, String)>,
    ) -> Result<DeadLetters, KafkaError> {
        let mut config = ClientConfig::new();
        for (option, value) in options {
            config.set(option, value);
        }
        config
            .set("bootstrap.servers", brokers)
            .set("client.id", "retentiond-dead-letters")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random");
        let deliveries = Deliveries::default();
        let producer = config.create_with_context(deliveries.clone())?;
        Ok(DeadLetters { producer, deliveries, topics })
    }

    /// Queues a letter; one that is too large to be sent again is cut off and says so.
    pub fn publish(&self, letter: &Letter) {
        if let Err(error) = self.send(letter) {
            let mut letter = letter.clone();
            if letter.to == Channel::DeadLetters {
                warn!("a dead letter of {} bytes is cut off: {error}", letter.bytes());
                letter.truncate();
            }
            if let Err(error) = self.send(&letter) {
                self.deliveries.refused.fetch_add(1, Ordering::Relaxed);
                error!("a message was refused: {error}");
            }
        }
    }

    fn send(&self, letter: &Letter) -> Result<(), KafkaError> {
        let headers = letter.headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
            headers.insert(Header { key: name, value: value.as_deref() })
        });
        let mut record = BaseRecord::<[u8], [u8]>::to(self.topics.of(letter)).headers(headers);
        (record.key, record.payload) = (letter.key.as_deref(), letter.payload.as_deref());
        record.timestamp = letter.time;
        loop {
            record = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    _ = self.producer.flush(Duration::from_millis(100));
                    back
                }
                Err((error, _)) => return Err(error),
            };
        }
    }

    /// Waits until everything queued is delivered, for a few seconds at most.
    ///
    /// # Errors
    /// When something is not delivered.
    pub fn flush(&self) -> Result<(), Undelivered> {
        let Topics { dead_letters, alerts } = &self.topics;
        let topics = (dead_letters.clone(), alerts.clone());
        let undelivered =
            |cause: String| Undelivered { dead_letters: topics.0.clone(), alerts: topics.1.clone(), cause };
        if self.producer.in_flight_count() > 0 {
            self.producer.flush(FLUSH_WAIT).map_err(|error| undelivered(error.to_string()))?;
        }
        match self.deliveries.refused.load(Ordering::Relaxed) {
            0 => Ok(()),
            refused => Err(undelivered(format!("{refused} message(s) were refused for good"))),
        }
    }
}

/// Which topic a letter goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// That of messages that enter no figure.
    DeadLetters,
    /// That of alerts.
    Alerts,
}

/// The topics that letters go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// That of messages that enter no figure.
    pub dead_letters: String,
    /// That of alerts.
    pub alerts: String,
}

impl Topics {
    /// The topic of a letter.
    #[must_use]
    pub fn of(&self, letter: &Letter) -> &str {
        match letter.to {
            Channel::DeadLetters => &self.dead_letters,
            Channel::Alerts => &self.alerts,
        }
    }
}

/// A message for a topic of ours: one that enters no figure, as it is to be kept, or an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it goes.
    pub to: Channel,
    /// The key as it was.
    pub key: Option<Vec<u8>>,
    /// The value as it was.
    pub payload: Option<Vec<u8>>,
    /// The headers as they were, and behind them the reason and the origin.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its log time as it was, in epoch milliseconds.
    pub time: Option<i64>,
}

impl Letter {
    /// A copy of the message at `index`, with the reason and the origin as headers. `now` in epoch milliseconds.
    ///
    /// Headers of ours are those of an earlier rejection and are replaced. A log time that lies ahead is moved to now:
    /// brokers refuse records from the future.
    pub fn new<B: RecordBatch>(
        origin: &Origin<'_>,
        batch: &B,
        index: usize,
        rejection: &Rejection,
        now: i64,
    ) -> Letter {
        let record = batch.get(index);
        let theirs = batch.headers(index);
        let theirs = theirs.iter().filter(|header| !header.name.starts_with(OURS));
        let ours = [
            ("reason", rejection.to_string()),
            ("topic", origin.topic.to_owned()),
            ("partition", origin.partition.to_string()),
            ("offset", record.offset.to_string()),
        ];
        let ours = ours.into_iter().map(|(name, value)| (format!("{OURS}{name}"), Some(value.into_bytes())));
        Letter {
            to: Channel::DeadLetters,
            key: record.key.map(<[u8]>::to_vec),
            payload: record.payload.map(<[u8]>::to_vec),
            headers: theirs
                .map(|header| (header.name.to_string(), header.value.map(<[u8]>::to_vec)))
                .chain(ours)
                .collect(),
            time: batch.stamp(index).time.map(|time| time.min(now)),
        }
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
        length(&self.key) + length(&self.payload) + headers
    }

    /// Whether it was cut off.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.headers.iter().any(|(name, _)| name.strip_prefix(OURS) == Some("truncated"))
    }

    /// Cuts it off, so that it can be produced, and says so in a header. Of the original headers the first remain, as
    /// far as they are small together.
    pub fn truncate(&mut self) {
        let cut = |bytes: &mut Option<Vec<u8>>| bytes.iter_mut().for_each(|bytes| bytes.truncate(TRUNCATED_BYTES));
        cut(&mut self.key);
        cut(&mut self.payload);
        let mut room = TRUNCATED_BYTES;
        self.headers.retain(|(name, value)| {
            let bytes = name.len() + value.as_ref().map_or(0, Vec::len);
            let fits = name.starts_with(OURS) || bytes <= room;
            room = if fits { room.saturating_sub(bytes) } else { 0 };
            fits
        });
        if !self.is_truncated() {
            self.headers.push((format!("{OURS}truncated"), Some(b"true".to_vec())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Reason;
    use crate::source::memory::{MemoryBatch, MemoryBroker};
    use crate::source::{Header, LogClient, Partition, Polled, RebalanceProtocol, Start, TopicIndex, TopicPartition};

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

    fn letter(payload: &[u8], headers: &[Header<'_>], time: i64) -> Letter {
        let origin = Origin { topic: "orders", partition: 3 };
        let rejection = Rejection::new(Reason::InvalidJson, "no");
        Letter::new(&origin, &batch(payload, headers, time), 0, &rejection, NOW)
    }

    fn names(letter: &Letter) -> Vec<&str> {
        letter.headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn keeps_everything_and_adds_the_reason_and_the_origin() {
        let headers = [
            Header { name: "trace".into(), value: Some(b"\xff") },
            Header { name: "trace".into(), value: None },
            Header { name: "retentiond.error.reason".into(), value: Some(b"an earlier one") },
        ];
        let letter = letter(b"{broken", &headers, 4_000);
        assert_eq!((letter.key.as_deref(), letter.payload.as_deref()), (Some(&b"k"[..]), Some(&b"{broken"[..])));
        assert_eq!((letter.time, letter.is_truncated()), (Some(4_000), false));
        let ours = ["reason", "topic", "partition", "offset"].map(|name| format!("retentiond.error.{name}"));
        let expected: Vec<&str> = ["trace", "trace"].into_iter().chain(ours.iter().map(String::as_str)).collect();
        assert_eq!(names(&letter), expected);
        let values: Vec<_> = letter.headers.iter().map(|(_, value)| value.as_deref()).collect();
        let expected = [&b"\xff"[..], b"invalid_json: no", b"orders", b"3", b"0"].map(Some);
        assert_eq!((values[0], values[1], &values[2..]), (expected[0], None, &expected[1..]));
    }

    #[test]
    fn a_time_that_lies_ahead_is_now() {
        assert_eq!(letter(b"", &[], NOW + 1).time, Some(NOW));
    }

    #[test]
    fn what_is_too_large_is_cut_off_once_and_says_so() {
        let (large, small) = (vec![7_u8; 1 << 20], Header { name: "small".into(), value: Some(b"1") });
        let headers = [
            small.clone(),
            Header { name: "large".into(), value: Some(&large) },
            Header { name: "behind".into(), value: Some(b"2") },
        ];
        let mut letter = letter(&large, &headers, 0);
        assert!(letter.bytes() > 2 << 20);
        letter.truncate();
        let once = letter.clone();
        letter.truncate();
        assert_eq!(letter, once);
        assert!(letter.is_truncated() && letter.bytes() < 2 * TRUNCATED_BYTES, "{}", letter.bytes());
        assert_eq!(letter.payload.as_ref().map(Vec::len), Some(TRUNCATED_BYTES));
        assert_eq!((names(&letter)[0], names(&letter).len()), ("small", 6));
    }
}
