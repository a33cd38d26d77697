//! The foundations of exactly-once delivery, against a real broker: transactions, tokens, stable reads, pauses,
//! administration.
//!
//! Some tests document rules of Kafka that the protocol relies on.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use retentiond::bus::transaction::{FencedBy, Outgoing, TransactionError, Transactions};
use retentiond::bus::{
    Committed, GroupClient, GroupHandle, GroupToken, Header, LogClient, Partition, Polled, RebalanceProtocol,
    RecordBatch, SourceError, Start, TopicIndex, TopicPartition,
};
use retentiond::kafka::{
    GroupProtocol, KafkaAdmin, KafkaBatch, KafkaClient, KafkaSettings, TransactionSettings, TransactionalProducer,
};

use crate::support::kafka::{self, Broker, MURMUR2, Message};
use crate::support::{unique, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);
/// Short, so that tests can wait for it to expire.
const SESSION: Duration = Duration::from_secs(1);

fn at(partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicIndex(0), partition: Partition(partition) }
}

fn committed(offset: i64, text: &str) -> Committed {
    Committed { offset, metadata: text.as_bytes().to_vec() }
}

fn settings(broker: &Broker, topic: &str, instance: Option<&str>) -> KafkaSettings {
    let options = [
        ("session.timeout.ms", SESSION.as_millis().to_string()),
        ("heartbeat.interval.ms", "100".to_owned()),
        ("reconnect.backoff.max.ms", "200".to_owned()),
    ];
    KafkaSettings {
        brokers: broker.brokers(),
        group_id: unique("group"),
        instance_id: instance.map(str::to_owned),
        protocol: GroupProtocol::Classic,
        topics: vec![topic.to_owned()],
        options: options.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

/// A group member with the events it received.
pub struct Member {
    pub client: KafkaClient,
    assigned: Vec<TopicPartition>,
    /// Pauses new assignments at once.
    pauses: bool,
    lost: usize,
    records: Vec<(TopicPartition, i64)>,
    fatal: Option<SourceError>,
}

impl Member {
    pub fn join(settings: &KafkaSettings) -> Member {
        let client = KafkaClient::join(settings).unwrap();
        Member { client, assigned: Vec::new(), pauses: false, lost: 0, records: Vec::new(), fatal: None }
    }

    pub fn step(&mut self) {
        for polled in self.client.poll(STEP) {
            match polled {
                Polled::Records(at, batch) => self.note(at, &batch),
                Polled::Assigned(given) => {
                    let starts: Vec<_> = given.iter().map(|at| (*at, Start::Earliest)).collect();
                    match self.client.protocol() {
                        RebalanceProtocol::Eager => self.client.assign(&starts).unwrap(),
                        RebalanceProtocol::Incremental => self.client.incremental_assign(&starts).unwrap(),
                    }
                    if self.pauses {
                        self.client.pause(&given).unwrap();
                    }
                    self.assigned.extend(given);
                }
                Polled::Revoked(taken) | Polled::Lost(taken) if taken.is_empty() => {
                    self.client.unassign(&[]).unwrap();
                }
                Polled::Revoked(taken) => {
                    self.client.unassign(&taken).unwrap();
                    self.assigned.retain(|at| !taken.contains(at));
                }
                Polled::Lost(taken) => {
                    self.client.unassign(&taken).unwrap();
                    self.assigned.clear();
                    self.lost += 1;
                }
                Polled::Fatal(error) => self.fatal = Some(error),
                Polled::OutOfRange(_, text) | Polled::Damaged(_, text) => panic!("{text}"),
                Polled::End { .. } | Polled::Error(_) => {}
            }
        }
    }

    fn note(&mut self, at: TopicPartition, batch: &KafkaBatch) {
        self.records.extend((0..batch.len()).map(|index| (at, batch.get(index).offset)));
    }

    fn token(&self) -> GroupToken {
        self.client.group_token().unwrap()
    }
}

/// Lets all members poll until a condition holds.
fn until(what: &str, members: &mut [&mut Member], mut done: impl FnMut(&[&mut Member]) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done(members) {
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain for {what}");
        members.iter_mut().for_each(|member| member.step());
    }
}

fn joined(settings: &KafkaSettings, partitions: usize) -> Member {
    let mut member = Member::join(settings);
    until("an assignment", &mut [&mut member], |all| all[0].assigned.len() == partitions);
    member
}

fn producer_of(settings: &TransactionSettings) -> TransactionalProducer {
    let mut producer = TransactionalProducer::new(settings).unwrap();
    producer.init(PATIENCE).unwrap();
    producer
}

fn producer(settings: &KafkaSettings) -> TransactionalProducer {
    producer_of(&TransactionSettings::new(settings, "one"))
}

fn dead_letter<'a>(topic: &'a str, payload: &'a [u8]) -> Outgoing<'a> {
    Outgoing { topic, key: None, payload: Some(payload), headers: &[], time: None }
}

fn payloads(broker: &Broker, topic: &str) -> Vec<String> {
    let text = |payload: Option<Vec<u8>>| String::from_utf8(payload.unwrap_or_default()).unwrap();
    broker.consume_all(topic).into_iter().map(|record| text(record.payload)).collect()
}

#[test]
fn records_offsets_and_a_text_of_250_bytes_move_in_one_transaction() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let (source, out) = (broker.create_topic(&unique("source"), 2), broker.create_topic(&unique("out"), 4));
    let settings = settings(broker, &source, Some("one"));
    let member = joined(&settings, 2);
    assert_eq!(member.token().instance_id(), Some("one"));
    let handle = member.client.handle();
    assert_eq!(handle.committed(&[at(1), at(0)], PATIENCE), Ok(vec![None, None]), "none is not an empty text");

    let mut producer = producer(&settings);
    let headers = [
        Header { name: "content-type".into(), value: Some(b"application/cloudevents+json") },
        Header { name: "nothing".into(), value: None },
    ];
    producer.begin().unwrap();
    for n in 0..40 {
        let key = format!("customer-{n}");
        let record = Outgoing {
            topic: &out,
            key: Some(key.as_bytes()),
            payload: (n > 0).then_some(b"{}".as_slice()),
            headers: &headers,
            time: Some(852_076_800_000 + n),
        };
        producer.produce(&record).unwrap();
    }
    let text = format!("v1;{};0123456789abcdef", "m".repeat(230));
    assert_eq!(text.len(), 250);
    let next = [(at(0), committed(0, &text)), (at(1), committed(5, ""))];
    producer.send_offsets(&member.token(), &next).unwrap();
    producer.commit().unwrap();

    let found = handle.committed(&[at(1), at(0)], PATIENCE);
    assert_eq!(found, Ok(vec![Some(committed(5, "")), Some(committed(0, &text))]));
    let records = broker.consume_all(&out);
    assert_eq!(records.len(), 40);
    // The Java producer's partitions for the same keys.
    let twin = broker.create_topic(&unique("twin"), 4);
    let keyed = records.iter().map(|record| Message { key: record.key.clone(), ..Message::default() });
    broker.publish_messages(&twin, MURMUR2, keyed);
    let places = |topic: &str| -> BTreeMap<Vec<u8>, i32> {
        let records = broker.consume_all(topic).into_iter();
        records.map(|record| (record.key.unwrap(), record.partition)).collect()
    };
    assert_eq!(places(&out), places(&twin));
    let first = records.iter().find(|record| record.key_text() == "customer-0").unwrap();
    assert_eq!((first.timestamp, first.payload.as_ref()), (Some(852_076_800_000), None));
    assert_eq!(first.headers[0].1.as_deref(), Some(&b"application/cloudevents+json"[..]));
    assert_eq!(first.headers[1], ("nothing".to_owned(), None));
    assert!(producer.close(PATIENCE));
    member.client.close(PATIENCE);
}

#[test]
fn an_abort_leaves_neither_records_nor_offsets_and_the_producer_goes_on() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let (source, out) = (broker.create_topic(&unique("source"), 1), broker.create_topic(&unique("out"), 1));
    let settings = settings(broker, &source, None);
    let member = joined(&settings, 1);
    let mut producer = producer(&settings);
    producer.begin().unwrap();
    producer.produce(&dead_letter(&out, b"aborted")).unwrap();
    producer.send_offsets(&member.token(), &[(at(0), committed(1, "aborted"))]).unwrap();
    producer.abort().unwrap();
    assert_eq!(member.client.handle().committed(&[at(0)], PATIENCE), Ok(vec![None]));

    producer.begin().unwrap();
    producer.produce(&dead_letter(&out, b"committed")).unwrap();
    producer.commit().unwrap();
    assert_eq!(payloads(broker, &out), ["committed"]);
    assert!(broker.end_offsets(&out)[&0] > 2, "the aborted record lies in the log");
    member.client.close(PATIENCE);
}

#[test]
fn a_stable_read_waits_for_the_end_of_another_transaction() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let source = broker.create_topic(&unique("source"), 1);
    let settings = settings(broker, &source, None);
    let member = joined(&settings, 1);
    let mut producer = producer(&settings);
    let handle = member.client.handle();
    let commit = |producer: &mut TransactionalProducer, next| {
        producer.begin().unwrap();
        producer.send_offsets(&member.token(), &[(at(0), next)]).unwrap();
    };
    commit(&mut producer, committed(1, "old"));
    producer.commit().unwrap();
    commit(&mut producer, committed(2, "new"));

    let too_early = handle.committed(&[at(0)], Duration::from_millis(500));
    assert!(matches!(too_early, Err(SourceError::Unavailable(_))), "{too_early:?}");
    let admin = KafkaAdmin::new(&settings).unwrap();
    let listed = admin.all_committed(Duration::from_millis(500));
    assert!(matches!(listed, Err(SourceError::Unavailable(_))), "{listed:?}");
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || tell.send(handle.committed(&[at(0)], PATIENCE)));
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err(), "it waits");
    producer.commit().unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Ok(vec![Some(committed(2, "new"))]));
    reader.join().unwrap().unwrap();
    member.client.close(PATIENCE);
}

#[test]
fn a_second_producer_with_the_same_id_fences_the_first() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let (source, out) = (broker.create_topic(&unique("source"), 1), broker.create_topic(&unique("out"), 1));
    let settings = settings(broker, &source, None);
    let member = joined(&settings, 1);
    let mut first = producer(&settings);
    first.begin().unwrap();
    first.produce(&dead_letter(&out, b"of the first")).unwrap();
    let mut second = producer(&settings);
    let refused =
        first.send_offsets(&member.token(), &[(at(0), committed(1, "of the first"))]).and_then(|()| first.commit());
    assert!(matches!(refused, Err(TransactionError::Fenced { by: FencedBy::Producer, .. })), "{refused:?}");
    let after = first.begin();
    assert!(matches!(after, Err(TransactionError::Unknown(_))), "it is spent: {after:?}");
    second.begin().unwrap();
    second.produce(&dead_letter(&out, b"of the second")).unwrap();
    second.commit().unwrap();
    assert_eq!(payloads(broker, &out), ["of the second"]);
    drop(first);
    member.client.close(PATIENCE);
}

#[test]
fn a_stale_token_is_refused_and_one_from_after_a_rebalance_is_not_asked_what_it_owns() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let source = broker.create_topic(&unique("source"), 2);
    let settings = settings(broker, &source, None);
    let mut first = joined(&settings, 2);
    let before = first.token();
    let mut second = Member::join(&settings);
    until("sharing", &mut [&mut first, &mut second], |all| all.iter().all(|member| member.assigned.len() == 1));
    let after = first.token();
    assert!(after.generation() > before.generation());
    let given_up = second.assigned[0];

    let mut producer = producer(&settings);
    producer.begin().unwrap();
    let refused = producer.send_offsets(&before, &[(given_up, committed(7, "stale"))]);
    assert!(matches!(refused, Err(TransactionError::Rejoin(_))), "{refused:?}");
    producer.abort().unwrap();
    let handle = first.client.handle();
    let refused = handle.commit(&before, &[(given_up, committed(7, "stale"))], PATIENCE);
    assert!(matches!(refused, Err(TransactionError::Rejoin(_))), "{refused:?}");
    assert_eq!(handle.committed(&[given_up], PATIENCE), Ok(vec![None]));

    // A rule of Kafka: ownership is not checked. This is why a token is taken together with the set of owned
    // partitions.
    producer.begin().unwrap();
    producer.send_offsets(&after, &[(given_up, committed(7, "not its own"))]).unwrap();
    producer.commit().unwrap();
    assert_eq!(handle.committed(&[given_up], PATIENCE), Ok(vec![Some(committed(7, "not its own"))]));
    first.client.close(PATIENCE);
    second.client.close(PATIENCE);
}

#[test]
fn under_the_broker_s_protocol_a_token_holds_for_one_epoch() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let source = broker.create_topic(&unique("source"), 2);
    let settings = KafkaSettings {
        protocol: GroupProtocol::Consumer,
        options: BTreeMap::new(),
        ..settings(broker, &source, None)
    };
    let mut first = joined(&settings, 2);
    let before = first.token();
    let mut producer = producer(&settings);
    producer.begin().unwrap();
    producer.send_offsets(&before, &[(at(0), committed(1, "alone"))]).unwrap();
    producer.commit().unwrap();
    let mut second = Member::join(&settings);
    until("sharing", &mut [&mut first, &mut second], |all| all.iter().all(|member| member.assigned.len() == 1));
    assert!(first.token().generation() > before.generation());
    producer.begin().unwrap();
    let refused = producer.send_offsets(&before, &[(at(0), committed(2, "stale"))]);
    assert!(matches!(refused, Err(TransactionError::Rejoin(_))), "{refused:?}");
    producer.abort().unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&first.token(), &[(at(0), committed(3, "fresh"))]).unwrap();
    producer.commit().unwrap();
    assert_eq!(first.client.handle().committed(&[at(0)], PATIENCE), Ok(vec![Some(committed(3, "fresh"))]));
    first.client.close(PATIENCE);
    second.client.close(PATIENCE);
}

#[test]
fn what_a_lost_producer_left_pending_is_ended_by_its_successor() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let (source, out) = (broker.create_topic(&unique("source"), 1), broker.create_topic(&unique("out"), 1));
    let settings = settings(broker, &source, None);
    let member = joined(&settings, 1);
    let handle = member.client.handle();
    // The longest timeout that the broker allows, so that only the successor ends the transaction in time.
    let long = TransactionSettings { timeout: Duration::from_secs(600), ..TransactionSettings::new(&settings, "one") };
    let mut lost = producer_of(&long);
    lost.begin().unwrap();
    lost.produce(&dead_letter(&out, b"left")).unwrap();
    lost.send_offsets(&member.token(), &[(at(0), committed(1, "left"))]).unwrap();
    let begun = Instant::now();
    drop(lost);
    assert!(begun.elapsed() < Duration::from_millis(500), "dropping waits for nothing");
    let pending = handle.committed(&[at(0)], Duration::from_millis(500));
    assert!(matches!(pending, Err(SourceError::Unavailable(_))), "{pending:?}");

    let mut successor = producer(&settings);
    assert_eq!(handle.committed(&[at(0)], PATIENCE), Ok(vec![None]));
    assert_eq!(payloads(broker, &out), [""; 0]);
    successor.begin().unwrap();
    successor.send_offsets(&member.token(), &[(at(0), committed(2, "next"))]).unwrap();
    successor.commit().unwrap();
    assert_eq!(handle.committed(&[at(0)], PATIENCE), Ok(vec![Some(committed(2, "next"))]));
    member.client.close(PATIENCE);
}

#[test]
fn a_transaction_over_its_time_is_ended_by_the_broker_and_no_other_owner_is_blamed() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let (source, out) = (broker.create_topic(&unique("source"), 1), broker.create_topic(&unique("out"), 1));
    let settings = settings(broker, &source, None);
    let member = joined(&settings, 1);
    let short = TransactionSettings { timeout: Duration::from_secs(2), ..TransactionSettings::new(&settings, "one") };
    let mut producer = producer_of(&short);
    producer.begin().unwrap();
    producer.produce(&dead_letter(&out, b"too slow")).unwrap();
    producer.send_offsets(&member.token(), &[(at(0), committed(1, "too slow"))]).unwrap();
    // The record and its transaction marker.
    wait_for("the broker to end it", PATIENCE, || (broker.end_offsets(&out)[&0] == 2).then_some(()));
    let refused = producer.commit();
    assert!(matches!(refused, Err(TransactionError::Abort(_))), "{refused:?}");
    let refused = producer.abort();
    assert!(matches!(&refused, Err(TransactionError::Unknown(text)) if text.contains("timeout")), "{refused:?}");
    drop(producer);
    let mut successor = producer_of(&short);
    assert_eq!(member.client.handle().committed(&[at(0)], PATIENCE), Ok(vec![None]));
    successor.begin().unwrap();
    successor.commit().unwrap();
    member.client.close(PATIENCE);
}

#[test]
fn a_record_that_is_too_large_is_named_and_a_missing_topic_too() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let out = broker.create_topic_with(&unique("out"), 1, &[("max.message.bytes", "5000")]);
    let settings = settings(broker, &out, None);
    let mut producer = producer(&settings);
    let (small, larger, huge) = (vec![b'a'; 100], vec![b'b'; 9_000], vec![b'c'; 2 << 20]);

    producer.begin().unwrap();
    producer.produce(&dead_letter(&out, &small)).unwrap();
    let refused = producer.produce(&dead_letter(&out, &huge));
    assert!(
        matches!(refused, Err(TransactionError::TooLarge { ref indexes, .. }) if *indexes == [1]),
        "by our own limit: {refused:?}"
    );
    producer.abort().unwrap();

    let mut produce = |payloads: &[&Vec<u8>]| {
        producer.begin().unwrap();
        payloads.iter().for_each(|payload| producer.produce(&dead_letter(&out, payload)).unwrap());
        let outcome = producer.commit();
        if outcome.is_err() {
            producer.abort().unwrap();
        }
        outcome
    };
    // The topic refuses the whole request, whichever record is too large.
    let together = produce(&[&small, &larger, &small, &larger]);
    assert!(matches!(together, Err(TransactionError::TooLargeTogether(_))), "{together:?}");
    let refused = produce(&[&small, &larger, &small, &larger]);
    assert!(
        matches!(refused, Err(TransactionError::TooLarge { ref indexes, .. }) if *indexes == [1, 3]),
        "{refused:?}"
    );
    produce(&[&small; 60]).unwrap();

    let missing = unique("missing");
    producer.begin().unwrap();
    producer.produce(&dead_letter(&missing, b"x")).unwrap();
    let refused = producer.commit();
    assert!(
        matches!(&refused, Err(TransactionError::Abort(text)) if text.contains(&missing) && text.contains("Create")),
        "{refused:?}"
    );
    producer.abort().unwrap();

    // At once, not after a transaction timeout: librdkafka alone would fail over the sequence numbers of refused
    // records.
    let begun = Instant::now();
    producer.begin().unwrap();
    producer.produce(&dead_letter(&out, b"good")).unwrap();
    producer.commit().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let mut found = payloads(broker, &out);
    assert_eq!((found.pop().as_deref(), found.len()), (Some("good"), 60));
}

#[test]
fn a_broker_that_stands_still_leaves_the_outcome_unknown_in_bounded_time() {
    let Some(mut broker) = kafka::start_or_skip() else { return };
    let (source, out) = (broker.create_topic(&unique("source"), 1), broker.create_topic(&unique("out"), 1));
    let settings = KafkaSettings {
        options: [("session.timeout.ms".to_owned(), "30000".to_owned())].into(),
        ..settings(&broker, &source, None)
    };
    let member = joined(&settings, 1);
    let short = TransactionSettings { timeout: Duration::from_secs(3), ..TransactionSettings::new(&settings, "one") };
    let mut producer = producer_of(&short);
    producer.begin().unwrap();
    producer.produce(&dead_letter(&out, b"perhaps")).unwrap();
    producer.send_offsets(&member.token(), &[(at(0), committed(1, "perhaps"))]).unwrap();
    broker.pause();
    let begun = Instant::now();
    let outcome = producer.commit();
    assert!(matches!(outcome, Err(TransactionError::Unknown(_))), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(producer);
    broker.resume();

    let mut successor = producer_of(&short);
    let found = member.client.handle().committed(&[at(0)], PATIENCE).unwrap();
    let shown = payloads(&broker, &out);
    match &found[0] {
        Some(next) => assert_eq!((next, shown), (&committed(1, "perhaps"), vec!["perhaps".to_owned()])),
        None => assert_eq!(shown, [""; 0]),
    }
    successor.begin().unwrap();
    successor.send_offsets(&member.token(), &[(at(0), committed(2, "surely"))]).unwrap();
    successor.commit().unwrap();
    assert_eq!(member.client.handle().committed(&[at(0)], PATIENCE), Ok(vec![Some(committed(2, "surely"))]));
    member.client.close(PATIENCE);
}

#[test]
fn offsets_are_committed_from_outside_only_while_nobody_is_in_the_group() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let source = broker.create_topic(&unique("source"), 2);
    let settings = settings(broker, &source, None);
    let admin = KafkaAdmin::new(&settings).unwrap();
    assert!(admin.describe_group(PATIENCE).unwrap().is_empty(), "it does not exist");
    assert_eq!(admin.all_committed(PATIENCE), Ok(BTreeMap::new()));
    let next = [(at(0), committed(3, "v1;bootstrap")), (at(1), committed(4, ""))];
    admin.commit(&next, PATIENCE).unwrap();
    let all = BTreeMap::from([((source.clone(), 0), next[0].1.clone()), ((source.clone(), 1), next[1].1.clone())]);
    assert_eq!(admin.all_committed(PATIENCE), Ok(all));
    assert_eq!(admin.committed(&[at(0)], PATIENCE), Ok(vec![Some(next[0].1.clone())]));

    let member = joined(&settings, 2);
    let state = admin.describe_group(PATIENCE).unwrap();
    assert_eq!((state.state.as_str(), state.members.len(), state.is_empty()), ("Stable", 1, false));
    let refused = admin.commit(&[(at(0), committed(9, "live"))], PATIENCE);
    assert!(matches!(&refused, Err(SourceError::Unavailable(text)) if text.contains("Stop every replica")));
    assert_eq!(admin.committed(&[at(0)], PATIENCE), Ok(vec![Some(next[0].1.clone())]));
    member.client.close(PATIENCE);
    wait_for("the member to go", PATIENCE, || admin.describe_group(PATIENCE).unwrap().is_empty().then_some(()));
    admin.commit(&[(at(0), committed(9, "empty again"))], PATIENCE).unwrap();
    assert_eq!(admin.committed(&[at(0)], PATIENCE), Ok(vec![Some(committed(9, "empty again"))]));
}

#[test]
fn a_recreated_topic_has_another_id() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = broker.create_topic(&unique("recreated"), 1);
    let admin = KafkaAdmin::new(&settings(broker, &topic, None)).unwrap();
    let first = admin.topic_ids(PATIENCE).unwrap();
    assert!(first[0].as_ref().is_some_and(|id| id.len() == 22), "{first:?}");
    assert_eq!(admin.topic_ids(PATIENCE).unwrap(), first);
    broker.delete_topic(&topic);
    let gone = admin.topic_ids(PATIENCE);
    assert!(matches!(&gone, Err(SourceError::Unavailable(text)) if text.contains(&topic)), "{gone:?}");
    broker.create_topic(&topic, 1);
    let second = admin.topic_ids(PATIENCE).unwrap();
    assert!(second[0].is_some() && second != first, "{second:?}");
}

#[test]
fn starts_become_numbers_also_behind_deleted_records_and_before_a_pending_transaction() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = broker.create_topic(&unique("starts"), 1);
    let message = |n: i64| Message { timestamp: Some(1_000_000 + n), payload: Some(vec![b'x']), ..Message::default() };
    broker.publish_messages(&topic, MURMUR2, (0..10).map(message));
    broker.delete_records_before(&topic, 0, 4);
    let settings = settings(broker, &topic, None);
    let mut producer = producer(&settings);
    producer.begin().unwrap();
    let pending = Outgoing { time: Some(2_000_000), ..dead_letter(&topic, b"pending") };
    producer.produce(&pending).unwrap();
    producer.send_offsets(&joined(&settings, 1).token(), &[(at(0), committed(1, ""))]).unwrap();

    let admin = KafkaAdmin::new(&settings).unwrap();
    let starts = [
        (Start::Earliest, 4),
        (Start::Latest, 10),
        (Start::At(1_000_006), 6),
        (Start::At(0), 4),
        (Start::At(3_000_000), 10),
        (Start::Offset(5), 5),
    ];
    for (start, offset) in starts {
        assert_eq!(admin.offsets(&[(at(0), start)], PATIENCE), Ok(vec![offset]), "{start:?}");
    }
    producer.abort().unwrap();
}

#[test]
fn paused_partitions_deliver_nothing_and_keep_the_membership() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = broker.create_topic(&unique("paused"), 2);
    let settings = settings(broker, &topic, None);
    let two = || (0..2).map(|partition| (Some(partition), None::<&str>, Some("x")));
    broker.publish(&topic, two());
    let mut member = Member { pauses: true, ..Member::join(&settings) };
    until("an assignment", &mut [&mut member], |all| all[0].assigned.len() == 2);
    let before = member.token();
    broker.publish(&topic, two());
    // Three times the interval after which a member that does not poll is expelled.
    let end = Instant::now() + 3 * SESSION;
    until("the session to have run out otherwise", &mut [&mut member], |_| Instant::now() > end);
    assert_eq!((member.records.len(), member.lost, &member.fatal), (0, 0, &None));
    assert_eq!(member.token(), before, "the same member of the same generation");
    // Loaded: reading continues at the committed offset.
    member.client.assign(&[(at(0), Start::Offset(1)), (at(1), Start::Offset(0))]).unwrap();
    member.client.pause(&[at(0)]).unwrap();
    until("one of them", &mut [&mut member], |all| all[0].records.len() == 2);
    assert!(member.records.iter().all(|(place, _)| *place == at(1)));
    member.client.resume(&[at(0)]).unwrap();
    until("the other", &mut [&mut member], |all| all[0].records.len() == 3);
    assert_eq!(member.records[2], (at(0), 1));
    member.client.close(PATIENCE);
}

#[test]
fn records_carry_the_epoch_of_their_leader() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = broker.create_topic(&unique("epoch"), 1);
    let message = Message { payload: Some(vec![b'x']), timestamp: Some(852_076_800_000), ..Message::default() };
    broker.publish_messages(&topic, MURMUR2, [message]);
    let mut client = KafkaClient::join(&settings(broker, &topic, None)).unwrap();
    let stamp = wait_for("a record", PATIENCE, || {
        client.poll(STEP).into_iter().find_map(|polled| match polled {
            Polled::Assigned(given) => {
                let starts: Vec<_> = given.into_iter().map(|at| (at, Start::Earliest)).collect();
                client.assign(&starts).unwrap();
                None
            }
            Polled::Records(_, batch) => Some(batch.stamp(0)),
            _ => None,
        })
    });
    assert_eq!((stamp.time, stamp.leader_epoch), (Some(852_076_800_000), Some(0)));
    client.close(PATIENCE);
}
