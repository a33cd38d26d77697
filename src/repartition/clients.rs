//! A router's clients of Kafka.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Route;
use crate::bus::transaction::Transactions;
use crate::bus::{GroupClient, SourceError};
use crate::kafka::{
    KafkaAdmin, KafkaClient, KafkaSettings, TransactionSettings, TransactionalProducer, partition_counts,
};

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

/// How long one question may take.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How much is fetched ahead: partitions are to come in small portions, since all of them are needed to go on with one.
const FETCH: [(&str, &str); 3] =
    [("queued.min.messages", "20000"), ("queued.max.messages.kbytes", "8192"), ("fetch.message.max.bytes", "1048576")];

/// Makes the clients of one router.
#[derive(Debug)]
pub struct KafkaClients {
    reader: KafkaSettings,
    producer: TransactionSettings,
    is_single: AtomicBool,
    /// To ask for the topic's id; made once.
    admin: Mutex<Option<KafkaAdmin>>,
}

impl KafkaClients {
    /// For a route, over the cluster of these settings.
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
