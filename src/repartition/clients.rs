//! A router's clients of Kafka.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Route;
use super::session::Clients;
use crate::bus::SourceError;
use crate::kafka::{
    KafkaAdmin, KafkaClient, KafkaSettings, TransactionSettings, TransactionalProducer, partition_counts,
};

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
