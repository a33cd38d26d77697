//! Tests against a real Kafka broker: of the rig itself here, of the daemon in `tests/it/kafka/`.

mod alerts;
mod bad_input;
mod bootstrap;
#[cfg(feature = "cloud")]
mod bucket;
mod chaos;
mod common;
mod dead_letters;
mod durability;
mod figures;
mod framing;
mod going_back;
mod logs;
mod operators;
mod outages;
mod repartition;
mod sample;
mod secrets;
mod security;
mod transactions;
mod webhook;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::support::kafka::{self, Committed, MURMUR2, Message};
use crate::support::unique;

/// 1,000 messages of 100 keys.
fn keyed_messages() -> impl Iterator<Item = (Option<i32>, Option<String>, Option<String>)> {
    (0..1000).map(|n| (None, Some(format!("customer-{}", n % 100)), Some(format!("payload-{n}"))))
}

#[test]
fn keyed_messages_come_back_whole_and_in_order() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = broker.create_topic(&unique("keyed"), 4);
    assert_eq!(broker.publish(&topic, keyed_messages()), 1000);

    let records = broker.consume_all(&topic);
    assert_eq!(records.len(), 1000);
    let mut by_key: HashMap<String, Vec<_>> = HashMap::new();
    for record in &records {
        by_key.entry(record.key_text()).or_default().push(record);
    }
    assert_eq!(by_key.len(), 100);
    for (key, records) in by_key {
        assert!(records.iter().all(|record| record.partition == records[0].partition), "{key} is in one partition");
        let first: u32 = key.trim_start_matches("customer-").parse().expect("a number");
        let expected: Vec<Vec<u8>> = (0..10).map(|n| format!("payload-{}", first + 100 * n).into_bytes()).collect();
        let found: Vec<Vec<u8>> = records.iter().filter_map(|record| record.payload.clone()).collect();
        assert_eq!(found, expected, "{key}");
    }

    let ends = broker.end_offsets(&topic);
    assert_eq!(ends.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(ends.values().all(|&end| end > 0), "every partition has messages: {ends:?}");
    assert_eq!(ends.values().sum::<i64>(), 1000);
}

#[test]
fn a_message_keeps_all_that_it_carries() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = broker.create_topic(&unique("carried"), 2);
    let full = Message {
        partition: Some(1),
        key: Some(b"c-1".to_vec()),
        payload: Some(br#"{"n":1}"#.to_vec()),
        // 1997: a broker with common settings would delete it soon.
        timestamp: Some(852_076_800_000),
        headers: vec![("origin".to_owned(), b"test".to_vec())],
    };
    let tombstone = Message { payload: None, ..full.clone() };
    let large = Message { payload: Some(vec![b'x'; 10 << 20]), ..full.clone() };
    broker.publish_messages(&topic, MURMUR2, [full, tombstone, large]);

    let records = broker.consume_all(&topic);
    assert_eq!(records.len(), 3);
    for (offset, record) in (0..).zip(&records) {
        assert_eq!((record.partition, record.offset), (1, offset));
        assert_eq!(record.timestamp, Some(852_076_800_000));
        assert_eq!(record.header("origin").as_deref(), Some("test"));
    }
    assert_eq!(records[0].json()["n"], 1);
    assert_eq!(records[1].payload, None);
    assert_eq!(records[2].payload.as_ref().map(Vec::len), Some(10 << 20));
    broker.delete_topic(&topic);
}

#[test]
fn a_group_sees_what_it_committed() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = broker.create_topic(&unique("committed"), 2);
    let group = unique("group");
    assert_eq!(broker.committed(&group, &topic), BTreeMap::new());
    let offsets = BTreeMap::from([(0, Committed { offset: 7, metadata: "checkpoint-1".to_owned() })]);
    broker.commit(&group, &topic, &offsets);
    assert_eq!(broker.committed(&group, &topic), offsets);
}

#[test]
fn a_restarted_broker_keeps_its_data() {
    let Some(mut broker) = kafka::start_or_skip() else { return };
    let topic = broker.create_topic(&unique("kept"), 4);
    let group = unique("group");
    broker.publish(&topic, keyed_messages());
    broker.commit(&group, &topic, &BTreeMap::from([(0, Committed { offset: 5, metadata: String::new() })]));
    let before = (broker.brokers(), broker.consume_all(&topic), broker.committed(&group, &topic));
    assert_eq!(before.1.len(), 1000);

    broker.restart();
    assert_eq!((broker.brokers(), broker.consume_all(&topic), broker.committed(&group, &topic)), before);

    broker.kill();
    broker.restart();
    assert_eq!((broker.brokers(), broker.consume_all(&topic), broker.committed(&group, &topic)), before);

    broker.pause();
    broker.resume();
    broker.publish(&topic, keyed_messages());
    assert_eq!(broker.consume_all(&topic).len(), 2000);
}

#[test]
fn the_program_runs_as_a_process() {
    let mut program = crate::support::daemon::Launch::verb("--help").start();
    assert!(program.wait_exit(Duration::from_secs(20)).success(), "{}", program.stderr());
}
