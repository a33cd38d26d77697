//! Publishes a simulated shop's messages to Kafka.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::{Published, Stream};

/// Timeout for the brokers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A producer for the two topics of a shop.
pub struct Publisher {
    producer: BaseProducer,
    orders: String,
    sessions: String,
}

/// Why the shop's messages could not be published.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {}", without_value(.cause))]
pub struct PublishError {
    doing: &'static str,
    cause: KafkaError,
}

/// The text of an error, without the value of a rejected option, which may be a secret.
fn without_value(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, option, _) => format!("the option {option:?} is refused: {why}"),
        error => error.to_string(),
    }
}

impl PublishError {
    fn when(doing: &'static str) -> impl Fn(KafkaError) -> PublishError {
        move |cause| PublishError { doing, cause }
    }
}

impl Publisher {
    /// A producer with the partitioner of the Java client.
    ///
    /// # Errors
    /// When librdkafka rejects an option.
    pub fn new(
        brokers: &str,
        orders: &str,
        sessions: &str,
        options: impl Iterator<Item = (String, String)>,
    ) -> Result<Publisher, PublishError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("client.id", "retentiond-simulate")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("message.timeout.ms", "30000");
        for (option, value) in options {
            config.set(option, value);
        }
        let producer = config.create().map_err(PublishError::when("set up a producer"))?;
        Ok(Publisher { producer, orders: orders.to_owned(), sessions: sessions.to_owned() })
    }

    /// Queues a message; waits while the queue is full.
    ///
    /// # Errors
    /// When librdkafka rejects the message, such as one larger than `message.max.bytes`.
    pub fn publish(&self, message: &Published) -> Result<(), PublishError> {
        let topic = match message.stream {
            Stream::Orders => &self.orders,
            Stream::Sessions => &self.sessions,
        };
        let mut record = BaseRecord::to(topic).key(&message.key);
        record.payload = message.payload.as_ref();
        loop {
            record = match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.producer.poll(Duration::from_millis(10));
                    back
                }
                Err((error, _)) => return Err(PublishError::when("publish a message")(error)),
            };
        }
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    /// Waits until everything queued is delivered.
    ///
    /// # Errors
    /// When the brokers do not accept it within half a minute.
    pub fn flush(&self) -> Result<(), PublishError> {
        self.producer.flush(PATIENCE).map_err(PublishError::when("deliver the messages"))
    }
}

/// Creates the topics that do not exist yet, with `partitions` each and the brokers' default replication.
///
/// # Errors
/// When the brokers do not answer or reject the request.
pub async fn create_topics(
    brokers: &str,
    topics: &[&str],
    partitions: i32,
    options: impl Iterator<Item = (String, String)>,
) -> Result<(), PublishError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    for (option, value) in options {
        config.set(option, value);
    }
    let creating = PublishError::when("create the topics");
    let admin: AdminClient<DefaultClientContext> = config.create().map_err(&creating)?;
    let wanted: Vec<_> =
        topics.iter().map(|topic| NewTopic::new(topic, partitions, TopicReplication::Fixed(-1))).collect();
    let limits = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    for result in admin.create_topics(&wanted, &limits).await.map_err(&creating)? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(creating(KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}
