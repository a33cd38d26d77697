//! Test helpers that create, fill and read topics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Broker;
use crate::support::{unique, wait_for};

/// The default partitioner of Kafka's Java producer: murmur2 of the key, random without a key.
pub const MURMUR2: &str = "murmur2_random";

const REQUEST: Duration = Duration::from_secs(20);
const TRANSFER: Duration = Duration::from_secs(120);
const LARGEST_MESSAGE: &str = "16777216";

/// A message to publish; fields that are not set are absent or chosen by Kafka.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Partition; chosen by the partitioner if not set.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Milliseconds since the epoch; by default the time of publishing.
    pub timestamp: Option<i64>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// A message as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The committed offset of a group for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    pub metadata: String,
}

impl Record {
    /// The key as text; empty if there is none.
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The payload as JSON.
    pub fn json(&self) -> serde_json::Value {
        let payload = self.payload.as_deref().unwrap_or_default();
        serde_json::from_slice(payload).unwrap_or_else(|error| panic!("{self:?} holds no JSON: {error}"))
    }

    /// The value of the first header called `name`, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        value.as_deref().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    fn read(message: &BorrowedMessage<'_>) -> Record {
        let header = |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        Record {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers: message.headers().map(|all| all.iter().map(header).collect()).unwrap_or_default(),
        }
    }
}

pub fn admin(port: u16) -> AdminClient<DefaultClientContext> {
    config(&format!("127.0.0.1:{port}")).create().expect("an admin client")
}

/// For a broker that stops and starts: reconnects quickly.
fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "100")
        .set("topic.metadata.refresh.fast.interval.ms", "20");
    config
}

impl Broker {
    /// Creates a topic and returns its name once its partitions can be used.
    pub fn create_topic(&self, name: &str, partitions: i32) -> String {
        self.create_topic_with(name, partitions, &[])
    }

    /// Like [`Broker::create_topic`], with settings such as `("cleanup.policy", "compact")`.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let created = self.in_runtime(async |admin| admin.create_topics([&topic], &patient()).await);
        for outcome in created.expect("the broker answers") {
            outcome.unwrap_or_else(|(name, code)| panic!("cannot create the topic {name}: {code}"));
        }
        wait_for("the partitions of a new topic", REQUEST, || {
            (self.partitions_with_leader(name) == partitions as usize).then_some(())
        });
        name.to_owned()
    }

    /// Adds partitions to a topic and waits until all of them can be used.
    pub fn add_partitions(&self, name: &str, partitions: usize) {
        let more = NewPartitions::new(name, partitions);
        let added = self.in_runtime(async |admin| admin.create_partitions([&more], &patient()).await);
        for outcome in added.expect("the broker answers") {
            outcome.unwrap_or_else(|(name, code)| panic!("cannot add partitions to {name}: {code}"));
        }
        wait_for("the added partitions", REQUEST, || (self.partitions_with_leader(name) == partitions).then_some(()));
    }

    /// Deletes a topic and waits until it is gone.
    pub fn delete_topic(&self, name: &str) {
        let deleted = self.in_runtime(async |admin| admin.delete_topics(&[name], &patient()).await);
        for outcome in deleted.expect("the broker answers") {
            outcome.unwrap_or_else(|(name, code)| panic!("cannot delete the topic {name}: {code}"));
        }
        wait_for("a topic to go", REQUEST, || (self.partitions_with_leader(name) == 0).then_some(()));
    }

    /// Deletes the records of a partition before an offset.
    pub fn delete_records_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a valid offset");
        let deleted = self.in_runtime(async |admin| admin.delete_records(&before, &patient()).await);
        let deleted = deleted.expect("the broker answers");
        assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
    }

    fn partitions_with_leader(&self, topic: &str) -> usize {
        let Ok(metadata) = self.admin.inner().fetch_metadata(None, REQUEST) else { return 0 };
        let topic = metadata.topics().iter().find(|found| found.name() == topic);
        topic.map_or(0, |topic| topic.partitions().iter().filter(|partition| partition.leader() >= 0).count())
    }

    /// Runs an admin request, in a thread of its own, so that tests inside a runtime can call it.
    fn in_runtime<T: Send>(&self, ask: impl AsyncFnOnce(&AdminClient<DefaultClientContext>) -> T + Send) -> T {
        thread::scope(|scope| {
            let work = || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                runtime.block_on(ask(&self.admin))
            };
            scope.spawn(work).join().expect("the admin request runs")
        })
    }

    /// Publishes (partition, key, payload) with the Java producer's partitioner and waits until all are in the log;
    /// returns their number. Without a partition the key decides.
    pub fn publish<K: AsRef<[u8]>, P: AsRef<[u8]>>(
        &self,
        topic: &str,
        messages: impl IntoIterator<Item = (Option<i32>, Option<K>, Option<P>)>,
    ) -> u64 {
        let bytes = |part: &dyn AsRef<[u8]>| part.as_ref().to_vec();
        let messages = messages.into_iter().map(|(partition, key, payload)| Message {
            partition,
            key: key.as_ref().map(|key| bytes(key)),
            payload: payload.as_ref().map(|payload| bytes(payload)),
            ..Message::default()
        });
        self.publish_messages(topic, MURMUR2, messages)
    }

    /// Like [`Broker::publish`], with all fields of a message, and a partitioner by librdkafka's name
    /// (`consistent_random` is crc32).
    pub fn publish_messages(&self, topic: &str, partitioner: &str, messages: impl IntoIterator<Item = Message>) -> u64 {
        let mut kept = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        let publisher = kept.take().filter(|publisher| publisher.partitioner == partitioner);
        let publisher = publisher.unwrap_or_else(|| Publisher::new(&self.brokers(), partitioner));
        let sent = publisher.publish(topic, messages);
        // After a panic nothing is kept: the next call creates a new producer.
        *kept = Some(publisher);
        sent
    }

    /// The end offset of each partition, including records of open transactions.
    pub fn end_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        let reader = self.reader(&unique("ends"), "read_uncommitted");
        let partitions = partitions(&reader, topic).into_iter();
        let end = |partition| {
            let (_, end) = reader.fetch_watermarks(topic, partition, REQUEST).expect("the broker tells its offsets");
            (partition, end)
        };
        partitions.map(end).collect()
    }

    /// The offsets that `group` committed for `topic`; partitions without a commit are absent.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, Committed> {
        let reader = self.reader(group, "read_committed");
        let mut wanted = TopicPartitionList::new();
        for partition in partitions(&reader, topic) {
            wanted.add_partition(topic, partition);
        }
        // A broker that has just started first loads its groups.
        let found = wait_for("the broker to tell what is committed", REQUEST, || {
            match reader.committed_offsets(wanted.clone(), REQUEST) {
                Ok(found) => Some(found),
                Err(KafkaError::MetadataFetch(code)) if is_starting(code) => None,
                Err(error) => panic!("the broker does not tell what is committed: {error}"),
            }
        });
        let committed = found.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => {
                Some((element.partition(), Committed { offset, metadata: element.metadata().to_owned() }))
            }
            _ => None,
        });
        committed.collect()
    }

    /// Commits offsets for a group without members, by partition.
    pub fn commit(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, Committed>) {
        let mut wanted = TopicPartitionList::new();
        for (&partition, committed) in offsets {
            let mut element = wanted.add_partition(topic, partition);
            element.set_offset(Offset::Offset(committed.offset)).expect("a valid offset");
            element.set_metadata(&committed.metadata);
        }
        self.reader(group, "read_committed").commit(&wanted, CommitMode::Sync).expect("the group commits");
    }

    /// Every record of `topic` that is not in an open or aborted transaction, by partition and offset.
    pub fn consume_all(&self, topic: &str) -> Vec<Record> {
        let reader = self.reader(&unique("reader"), "read_committed");
        let mut from_start = TopicPartitionList::new();
        let partitions = partitions(&reader, topic);
        for &partition in &partitions {
            from_start.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
        }
        reader.assign(&from_start).expect("the partitions can be assigned");

        let mut records = Vec::new();
        let mut ended = Vec::new();
        while ended.len() < partitions.len() {
            match reader.poll(TRANSFER) {
                Some(Ok(message)) => records.push(Record::read(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) if !ended.contains(&partition) => ended.push(partition),
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                // librdkafka retries after these by itself; if one persists, the deadline below fails the test.
                Some(Err(KafkaError::MessageConsumption(code))) if passes(code) => {}
                Some(Err(error)) => panic!("cannot read {topic}: {error}"),
                None => panic!("{topic} did not end within {TRANSFER:?}; read {} records", records.len()),
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    fn reader(&self, group: &str, isolation: &str) -> BaseConsumer {
        config(&self.brokers())
            .set("group.id", group)
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", LARGEST_MESSAGE)
            .create()
            .expect("a consumer")
    }
}

fn patient() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST))
}

fn passes(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
}

fn is_starting(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator};
    matches!(code, CoordinatorLoadInProgress | CoordinatorNotAvailable | NotCoordinator)
}

fn partitions(reader: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = reader.fetch_metadata(Some(topic), REQUEST).expect("the broker describes its topics");
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions: Vec<i32> = found.into_iter().flat_map(|topic| topic.partitions()).map(|one| one.id()).collect();
    assert!(!partitions.is_empty(), "there is no topic {topic}");
    partitions
}

/// An idempotent producer, so that retries neither repeat nor reorder. Getting its id takes half a second, which is why
/// the broker keeps the last producer.
pub struct Publisher {
    partitioner: String,
    producer: BaseProducer<Deliveries>,
}

impl Publisher {
    fn new(brokers: &str, partitioner: &str) -> Publisher {
        let producer = config(brokers)
            .set("partitioner", partitioner)
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("batch.num.messages", "100000")
            .set("message.max.bytes", LARGEST_MESSAGE)
            .create_with_context(Deliveries::default())
            .expect("a producer");
        Publisher { partitioner: partitioner.to_owned(), producer }
    }

    fn publish(&self, topic: &str, messages: impl IntoIterator<Item = Message>) -> u64 {
        let delivered_before = self.producer.context().delivered.load(Ordering::Relaxed);
        let sent = messages.into_iter().map(|message| self.send(topic, &message)).count() as u64;
        self.producer.flush(TRANSFER).unwrap_or_else(|error| panic!("publishing to {topic} did not end: {error}"));
        let deliveries = self.producer.context();
        let delivered = deliveries.delivered.load(Ordering::Relaxed) - delivered_before;
        let failure = deliveries.failure.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(delivered == sent, "{delivered} of {sent} messages reached {topic}; first failure: {failure:?}");
        sent
    }

    fn send(&self, topic: &str, message: &Message) {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic);
        record.partition = message.partition;
        record.key = message.key.as_deref();
        record.payload = message.payload.as_deref();
        record.timestamp = message.timestamp;
        if !message.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(message.headers.len());
            record.headers = Some(
                message
                    .headers
                    .iter()
                    .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) })),
            );
        }
        while let Err((error, refused)) = self.producer.send(record) {
            let full = error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            assert!(full, "cannot publish to {topic}: {error}");
            self.producer.poll(Duration::from_millis(50));
            record = refused;
        }
    }
}

/// Counts deliveries, and keeps the first failure.
#[derive(Default)]
struct Deliveries {
    delivered: AtomicU64,
    failure: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert_with(|| error.clone());
            }
        }
    }
}
