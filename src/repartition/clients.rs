//! The Kafka clients of a router.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Route;
use crate::bus::transaction::Transactions;
use crate::bus::{GroupClient, SourceError};
use crate::kafka::{
    KafkaAdmin, KafkaClient, KafkaSettings, TransactionSettings, TransactionalProducer, partition_counts,
};

/// Creates the clients of a router.
pub trait Clients {
    /// Reads the source without joining a group.
    type Client: GroupClient;
    /// Writes to the target.
    type Producer: Transactions;
    /// The numbers of partitions of the source and the target topic.
    ///
    /// # Errors
    /// When the brokers do not answer.
    fn partitions(&self) -> Result<[Option<u32>; 2], SourceError>;
    /// The id of the source topic, if the brokers report it.
    ///
    /// # Errors
    /// When the brokers do not answer.
    fn topic_id(&self) -> Result<Option<String>, SourceError>;
    /// A new reader.
    ///
    /// # Errors
    /// When it cannot be created.
    fn reader(&self) -> Result<Self::Client, SourceError>;
    /// A new producer.
    ///
    /// # Errors
    /// When it cannot be created.
    fn producer(&self) -> Result<Self::Producer, SourceError>;
    /// Makes new producers send each record in its own request.
    fn send_singly(&self) {}
}

/// Timeout of one request.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Prefetch limits. Small, because the merge needs records of all partitions before it can forward any.
const FETCH: [(&str, &str); 3] =
    [("queued.min.messages", "20000"), ("queued.max.messages.kbytes", "8192"), ("fetch.message.max.bytes", "1048576")];

/// Creates the clients of one router.
#[derive(Debug)]
pub struct KafkaClients {
    reader: KafkaSettings,
    producer: TransactionSettings,
    is_single: AtomicBool,
    /// For looking up the topic id; created once.
    admin: Mutex<Option<KafkaAdmin>>,
}

impl KafkaClients {
    /// Clients for a route in the cluster of these settings.
    pub fn new(kafka: &KafkaSettings, route: &Route) -> KafkaClients {
        let mut reader = kafka.clone();
        reader.group_id.clone_from(&route.group);
        reader.instance_id = None;
        reader.topics = vec![route.topic.clone(), route.into.clone()];
        for (option, value) in FETCH {
            reader.options.entry(option.to_owned()).or_insert_with(|| value.to_owned());
        }
        let producer = TransactionSettings::of_router(&reader);
        KafkaClients { reader, producer, is_single: AtomicBool::default(), admin: Mutex::new(None) }
    }
}

impl Clients for KafkaClients {
    type Client = KafkaClient;
    type Producer = TransactionalProducer;

    fn partitions(&self) -> Result<[Option<u32>; 2], SourceError> {
        let counts = partition_counts(&self.reader, ANSWER_WAIT)?;
        let count = |place: usize| counts.get(place).copied().flatten();
        Ok([count(0), count(1)])
    }

    fn topic_id(&self) -> Result<Option<String>, SourceError> {
        let mut admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match admin.take() {
            Some(known) => known,
            None => KafkaAdmin::new(&self.reader)?,
        };
        let ids = known.topic_ids(ANSWER_WAIT)?;
        *admin = Some(known);
        Ok(ids.into_iter().next().flatten())
    }

    fn reader(&self) -> Result<KafkaClient, SourceError> {
        KafkaClient::look(&self.reader)
    }

    fn producer(&self) -> Result<TransactionalProducer, SourceError> {
        let is_single = self.is_single.load(Ordering::Relaxed);
        TransactionalProducer::new(&TransactionSettings { is_single, ..self.producer.clone() })
    }

    fn send_singly(&self) {
        self.is_single.store(true, Ordering::Relaxed);
    }
}
