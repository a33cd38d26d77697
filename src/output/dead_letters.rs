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

/// How long delivery may take before offsets stay uncommitted for another round.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// What is left of a message that the broker finds too large.
const TRUNCATED_BYTES: usize = 1 << 16;

/// Where a message came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// Dead letters are not delivered yet, so nothing behind them may be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dead letters cannot be delivered to topic {topic:?}: {cause}; create it or set dead_letters.topic")]
pub struct Undelivered {
    topic: String,
    cause: String,
}

/// Publishes dead letters.
pub struct DeadLetters {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
    topic: String,
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
    /// A producer for the topic.
    ///
    /// # Errors
    /// When librdkafka refuses an option.
    pub fn new(
        brokers: &str,
        topic: &str,
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
        Ok(DeadLetters { producer, deliveries, topic: topic.to_owned() })
    }

    /// Queues a message: key and value as they were, reason and origin as headers. One that is too large to be sent
    /// again is cut off and says so.
    pub fn publish(&self, origin: &Origin<'_>, key: Option<&[u8]>, payload: Option<&[u8]>, rejection: &Rejection) {
        if let Err(error) = self.send(origin, key, payload, rejection, false) {
            warn!("a dead letter of {} bytes is cut off: {error}", payload.map_or(0, <[u8]>::len));
            let (key, payload) = (key.map(cut_off), payload.map(cut_off));
            if let Err(error) = self.send(origin, key, payload, rejection, true) {
                self.deliveries.refused.fetch_add(1, Ordering::Relaxed);
                error!("a dead letter was refused: {error}");
            }
        }
    }

    fn send(
        &self,
        origin: &Origin<'_>,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        rejection: &Rejection,
        truncated: bool,
    ) -> Result<(), KafkaError> {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).headers(headers(origin, rejection, truncated));
        (record.key, record.payload) = (key, payload);
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
        let undelivered = |cause: String| Undelivered { topic: self.topic.clone(), cause };
        if self.producer.in_flight_count() > 0 {
            self.producer.flush(FLUSH_WAIT).map_err(|error| undelivered(error.to_string()))?;
        }
        match self.deliveries.refused.load(Ordering::Relaxed) {
            0 => Ok(()),
            refused => Err(undelivered(format!("{refused} message(s) were refused for good"))),
        }
    }
}

fn cut_off(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(TRUNCATED_BYTES)]
}

fn headers(origin: &Origin<'_>, rejection: &Rejection, truncated: bool) -> OwnedHeaders {
    let reason = rejection.to_string();
    let (partition, offset) = (origin.partition.to_string(), origin.offset.to_string());
    let pairs = [
        ("retentiond.error.reason", reason.as_str()),
        ("retentiond.error.topic", origin.topic),
        ("retentiond.error.partition", &partition),
        ("retentiond.error.offset", &offset),
    ];
    let truncated = truncated.then_some(("retentiond.error.truncated", "true"));
    let add = |headers: OwnedHeaders, (key, value)| headers.insert(Header { key, value: Some(value) });
    pairs.into_iter().chain(truncated).fold(OwnedHeaders::new(), add)
}
