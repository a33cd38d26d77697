//! The client against librdkafka's in-process cluster: real sockets and the real group protocol without a broker.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::*;
use crate::bus::transaction::TransactionError;
use crate::bus::{Committed, GroupHandle, Partition, RecordBatch, TopicIndex};

const DEADLINE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(50);
const TOPICS: [&str; 2] = ["orders", "sessions"];

/// An in-process cluster; the producer owns it.
struct Cluster(BaseProducer);

impl Cluster {
    fn brokers(&self) -> String {
        self.0.client().mock_cluster().unwrap().bootstrap_servers()
    }
}

fn cluster(partitions: i32) -> Cluster {
    let mut config = ClientConfig::new();
    config.set("test.mock.num.brokers", "1").set("message.max.bytes", "4000000").set("linger.ms", "5");
    let owner: BaseProducer = config.create().unwrap();
    ffi::without_rebalance_delay(owner.client());
    for topic in TOPICS {
        owner.client().mock_cluster().unwrap().create_topic(topic, partitions, 1).unwrap();
    }
    Cluster(owner)
}

fn settings(cluster: &Cluster, group: &str) -> KafkaSettings {
    // In every rebalance, the in-process coordinator waits for a second less than the session timeout.
    let options = [("heartbeat.interval.ms", "100"), ("session.timeout.ms", "2000")];
    KafkaSettings {
        brokers: cluster.brokers(),
        group_id: group.to_owned(),
        instance_id: None,
        protocol: GroupProtocol::Classic,
        topics: TOPICS.map(str::to_owned).to_vec(),
        options: options.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    }
}

fn at(topic: u16, partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) }
}

/// Offset, key and value of a record.
type Seen = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

/// A client with its assignment and everything it received.
struct Member {
    client: KafkaClient,
    start: Start,
    assigned: Vec<TopicPartition>,
    revocations: usize,
    records: BTreeMap<TopicPartition, Vec<Seen>>,
    ends: BTreeMap<TopicPartition, i64>,
    errors: Vec<String>,
    out_of_range: Vec<(TopicPartition, String)>,
    fatal: Option<SourceError>,
}

impl Member {
    fn join(settings: &KafkaSettings, start: Start) -> Member {
        Member {
            client: KafkaClient::join(settings).unwrap(),
            start,
            assigned: Vec::new(),
            revocations: 0,
            records: BTreeMap::new(),
            ends: BTreeMap::new(),
            errors: Vec::new(),
            out_of_range: Vec::new(),
            fatal: None,
        }
    }

    fn step(&mut self) {
        for polled in self.client.poll(STEP) {
            match polled {
                Polled::Records(at, batch) => {
                    assert!(!batch.is_empty());
                    let seen = self.records.entry(at).or_default();
                    seen.extend((0..batch.len()).map(|i| {
                        let record = batch.get(i);
                        (record.offset, record.key.map(<[u8]>::to_vec), record.payload.map(<[u8]>::to_vec))
                    }));
                }
                Polled::End { at, offset } => drop(self.ends.insert(at, offset)),
                Polled::Assigned(partitions) => {
                    let starts: Vec<_> = partitions.iter().map(|at| (*at, self.start)).collect();
                    match self.client.protocol() {
                        RebalanceProtocol::Eager => self.client.assign(&starts).unwrap(),
                        RebalanceProtocol::Incremental => self.client.incremental_assign(&starts).unwrap(),
                    }
                    self.assigned.extend(partitions);
                }
                Polled::Revoked(partitions) | Polled::Lost(partitions) => {
                    self.client.unassign(&partitions).unwrap();
                    self.assigned.retain(|at| !partitions.contains(at));
                    self.revocations += 1;
                }
                Polled::Error(text) => self.errors.push(text),
                Polled::OutOfRange(at, text) => self.out_of_range.push((at, text)),
                Polled::Damaged(_, text) => panic!("{text}"),
                Polled::Fatal(error) => self.fatal = Some(error),
            }
        }
    }

    fn seen(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen within {DEADLINE:?}");
    }
}

fn produce_numbers(cluster: &Cluster, count: usize, partitions: usize) {
    for i in 0..count {
        let text = i.to_string();
        let partition = i32::try_from(i / TOPICS.len() % partitions).unwrap();
        let record = BaseRecord::to(TOPICS[i % TOPICS.len()]).partition(partition).key(&text).payload(&text);
        cluster.0.send(record).map_err(|(error, _)| error).unwrap();
    }
    cluster.0.flush(DEADLINE).unwrap();
}

#[test]
fn every_record_arrives_once_and_in_order_and_commits_can_be_read_back() {
    let (count, partitions) = (10_000, 4);
    let cluster = cluster(4);
    produce_numbers(&cluster, count, partitions);
    let mut member = Member::join(&settings(&cluster, "order"), Start::Earliest);
    until("reading everything", || {
        member.step();
        member.seen() == count && member.ends.len() == TOPICS.len() * partitions
    });
    assert_eq!((member.fatal.as_ref(), member.assigned.len()), (None, 8));
    for (place, records) in &member.records {
        let first = usize::from(place.topic.0) + usize::try_from(place.partition.0).unwrap() * TOPICS.len();
        for (i, (offset, key, payload)) in records.iter().enumerate() {
            let text = (first + i * TOPICS.len() * partitions).to_string().into_bytes();
            assert_eq!(
                (*offset, key.as_ref(), payload.as_ref()),
                (i64::try_from(i).unwrap(), Some(&text), Some(&text))
            );
        }
        let end = i64::try_from(records.len()).unwrap();
        assert_eq!((member.ends[place], member.client.end_offset(*place)), (end, Some(end)));
    }

    let handle = member.client.handle();
    let next = [(at(0, 0), 17), (at(1, 3), 1_250)].map(|(at, offset)| (at, Committed { offset, metadata: Vec::new() }));
    handle.commit(&member.client.group_token().unwrap(), &next, DEADLINE).unwrap();
    let committed = handle.committed(&[at(0, 0), at(1, 3), at(0, 1)], DEADLINE).unwrap();
    let offsets: Vec<_> = committed.into_iter().map(|known| known.map(|known| known.offset)).collect();
    assert_eq!(offsets, [Some(17), Some(1_250), None], "only what was given is committed");
    member.client.close(DEADLINE);
}

#[test]
fn absent_empty_and_large_keys_and_values_come_through() {
    let cluster = cluster(1);
    let large = vec![7_u8; 2_000_000];
    let to = || BaseRecord::<[u8], [u8]>::to("orders").partition(0);
    for record in [to(), to().key(b"k"), to().payload(b"v"), to().key(b"").payload(b""), to().key(b"l").payload(&large)]
    {
        cluster.0.send(record).map_err(|(error, _)| error).unwrap();
    }
    cluster.0.flush(DEADLINE).unwrap();
    let mut member = Member::join(&settings(&cluster, "shapes"), Start::Earliest);
    until("reading", || {
        member.step();
        member.seen() == 5
    });
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    let expected =
        [(None, None), (some(b"k"), None), (None, some(b"v")), (some(b""), some(b"")), (some(b"l"), some(&large))];
    let seen: Vec<_> =
        member.records[&at(0, 0)].iter().map(|(_, key, payload)| (key.clone(), payload.clone())).collect();
    assert!(seen == expected);
    member.client.close(DEADLINE);
}

#[test]
fn a_second_member_takes_half_of_every_topic_and_gives_it_back_when_it_leaves() {
    let cluster = cluster(4);
    let settings = settings(&cluster, "rebalance");
    let mut first = Member::join(&settings, Start::Earliest);
    until("the first assignment", || {
        first.step();
        first.assigned.len() == 8
    });
    let mut second = Member::join(&settings, Start::Earliest);
    until("sharing", || {
        first.step();
        second.step();
        first.assigned.len() == 4 && second.assigned.len() == 4
    });
    assert!(first.revocations >= 1);
    for member in [&first, &second] {
        for partition in 0..4 {
            let owned = (0..2).filter(|topic| member.assigned.contains(&at(*topic, partition))).count();
            assert_ne!(owned, 1, "range assigns partition {partition} of both topics to one member");
        }
    }
    second.client.close(DEADLINE);
    until("taking over", || {
        first.step();
        first.assigned.len() == 8
    });
    first.client.close(DEADLINE);
}

#[test]
fn the_consumer_protocol_moves_only_changed_partitions() {
    let cluster = cluster(4);
    produce_numbers(&cluster, 80, 4);
    let mut settings = settings(&cluster, "incremental");
    settings.protocol = GroupProtocol::Consumer;
    settings.options.clear();
    let mut first = Member::join(&settings, Start::Earliest);
    until("reading everything", || {
        first.step();
        first.assigned.len() == 8 && first.seen() == 80
    });
    let mut second = Member::join(&settings, Start::Earliest);
    until("sharing", || {
        first.step();
        second.step();
        first.assigned.len() == 4 && second.seen() == 40
    });
    assert_eq!(first.seen(), 80, "kept partitions are not read again");
    second.client.close(DEADLINE);
    first.client.close(DEADLINE);
}

#[test]
fn a_long_wait_ends_with_the_first_rebalance_and_the_first_record() {
    let (cluster, long, soon) = (cluster(1), Duration::from_secs(20), Duration::from_secs(10));
    let mut client = KafkaClient::join(&settings(&cluster, "wait")).unwrap();
    let began = Instant::now();
    let polled = client.poll(long);
    let [Polled::Assigned(all)] = &polled[..] else { panic!("{polled:?}") };
    assert!(began.elapsed() < soon, "a rebalance ends the wait");
    let starts: Vec<_> = all.iter().map(|at| (*at, Start::Earliest)).collect();
    client.assign(&starts).unwrap();
    let mut ends = 0;
    until("both ends", || {
        ends += client.poll(STEP).len();
        ends == 2
    });
    let record = BaseRecord::<[u8], [u8]>::to("orders").partition(0).payload(b"v");
    cluster.0.send(record).map_err(|(error, _)| error).unwrap(); // leaves in the background
    let began = Instant::now();
    let polled = client.poll(long);
    assert!(matches!(polled[0], Polled::Records(..)), "{polled:?}");
    assert!(began.elapsed() < soon, "a record ends the wait, not a full batch");
    client.close(DEADLINE);
}

#[test]
fn closing_is_bounded_though_a_rebalance_is_unanswered_and_a_batch_outlives_the_client() {
    let cluster = cluster(1);
    produce_numbers(&cluster, 10, 1);
    let mut member = Member::join(&settings(&cluster, "close"), Start::Earliest);
    let mut kept = None;
    until("a batch", || {
        for polled in member.client.poll(STEP) {
            match polled {
                Polled::Records(_, batch) => kept = Some(batch),
                Polled::Assigned(all) => {
                    let starts: Vec<_> = all.iter().map(|at| (*at, Start::Earliest)).collect();
                    member.client.assign(&starts).unwrap();
                }
                _ => {}
            }
        }
        kept.is_some()
    });
    let began = Instant::now();
    member.client.close(DEADLINE);
    let batch = kept.unwrap();
    assert_eq!(batch.get(0).key.map(<[u8]>::is_empty), Some(false), "still readable");
    std::thread::spawn(move || drop(batch)).join().unwrap();

    let mut unanswered = KafkaClient::join(&settings(&cluster, "close-2")).unwrap();
    until("an assignment", || unanswered.poll(STEP).iter().any(|polled| matches!(polled, Polled::Assigned(_))));
    unanswered.close(DEADLINE);
    assert!(began.elapsed() < DEADLINE, "closing waited for an answer that never comes");
}

#[test]
fn closing_is_bounded_though_a_revocation_is_unanswered() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let cluster = cluster(2);
        let mut settings = settings(&cluster, "unanswered");
        settings.protocol = protocol;
        if protocol == GroupProtocol::Consumer {
            settings.options.clear();
        }
        let mut first = Member::join(&settings, Start::Earliest);
        until("the first assignment", || {
            first.step();
            first.assigned.len() == 4
        });
        let mut second = Member::join(&settings, Start::Earliest);
        until("a revocation", || {
            second.step();
            first.client.poll(STEP).iter().any(|polled| matches!(polled, Polled::Revoked(_)))
        });
        let began = Instant::now();
        first.client.close(DEADLINE);
        assert!(began.elapsed() < DEADLINE / 2, "{protocol:?}: {:?}", began.elapsed());
        second.client.close(DEADLINE);
    }
}

#[test]
fn a_start_after_every_record_is_the_end() {
    let cluster = cluster(1);
    produce_numbers(&cluster, 10, 1);
    let mut member = Member::join(&settings(&cluster, "by-time"), Start::At(4_000_000_000_000));
    until("the end", || {
        member.step();
        member.ends.len() == 2
    });
    assert_eq!((member.ends[&at(0, 0)], member.ends[&at(1, 0)], member.seen()), (5, 5, 0));
    member.client.close(DEADLINE);
}

#[test]
fn an_offset_outside_the_log_is_named() {
    let cluster = cluster(1);
    let mut member = Member::join(&settings(&cluster, "gone"), Start::Offset(1_000));
    until("the refusal", || {
        member.step();
        member.out_of_range.len() == 2
    });
    let (gone, text) = &member.out_of_range[0];
    let place = format!("partition {}", gone.partition.0);
    assert!(text.contains(&place) && text.contains("retentiond bootstrap"), "{text}");
    assert!(member.fatal.is_none());
    member.client.close(DEADLINE);
}

#[test]
fn counts_partitions_and_distinguishes_missing_topics_from_an_unreachable_broker() {
    let cluster = cluster(3);
    let mut settings = settings(&cluster, "counts");
    settings.topics.push("not-there".to_owned());
    assert_eq!(partition_counts(&settings, DEADLINE), Ok(vec![Some(3), Some(3), None]));
    settings.brokers = "127.0.0.1:1".to_owned();
    let Err(SourceError::Unavailable(text)) = partition_counts(&settings, Duration::from_millis(500)) else {
        panic!("not unavailable")
    };
    assert!(text.contains("127.0.0.1:1"), "{text}");
}

#[test]
fn an_unreachable_broker_is_an_error_and_closing_is_bounded() {
    let cluster = cluster(1);
    let mut settings = settings(&cluster, "nobody");
    settings.brokers = "127.0.0.1:1".to_owned();
    let mut member = Member::join(&settings, Start::Earliest);
    until("an error", || {
        member.step();
        !member.errors.is_empty()
    });
    assert_eq!(member.fatal, None);
    let began = Instant::now();
    member.client.close(Duration::from_secs(2));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn a_plain_commit_keeps_any_metadata_and_needs_the_member_of_its_token() {
    let cluster = cluster(1);
    let mut member = Member::join(&settings(&cluster, "texts"), Start::Earliest);
    assert!(member.client.group_token().is_err(), "not joined yet");
    until("the assignment", || {
        member.step();
        member.assigned.len() == 2
    });
    let (token, handle) = (member.client.group_token().unwrap(), member.client.handle());
    assert_eq!((token.group_id(), token.generation() > 0, token.instance_id()), ("texts", true, None));
    let text = [b"v1;\xff\xfe;".as_slice(), &[b'x'; 240]].concat();
    let next =
        [(at(0, 0), Committed { offset: 0, metadata: text }), (at(1, 0), Committed { offset: 7, metadata: vec![] })];
    handle.commit(&token, &next, DEADLINE).unwrap();
    let found = handle.committed(&[at(1, 0), at(0, 0)], DEADLINE).unwrap();
    assert_eq!(found, [Some(next[1].1.clone()), Some(next[0].1.clone())]);

    let stale = GroupToken::new("texts", token.generation() + 1, token.member_id(), None).unwrap();
    let refused = handle.commit(&stale, &[(at(0, 0), next[1].1.clone())], DEADLINE);
    assert!(matches!(refused, Err(TransactionError::Rejoin(_))), "{refused:?}");
    assert_eq!(handle.committed(&[at(0, 0)], DEADLINE).unwrap(), [Some(next[0].1.clone())]);
    member.client.close(DEADLINE);
    let late = handle.commit(&token, &next, Duration::from_secs(2));
    assert!(matches!(late, Err(TransactionError::Rejoin(_))), "{late:?}");
}

#[test]
fn a_pause_drops_fetched_records_and_loses_none() {
    let cluster = cluster(1);
    produce_numbers(&cluster, 2_000, 1);
    let mut client = KafkaClient::join(&settings(&cluster, "paused")).unwrap();
    let mut assigned = Vec::new();
    until("the assignment", || {
        assigned.extend(client.poll(STEP).into_iter().filter_map(|polled| match polled {
            Polled::Assigned(all) => Some(all),
            _ => None,
        }));
        !assigned.is_empty()
    });
    let count = |client: &mut KafkaClient, wait| -> BTreeMap<TopicPartition, usize> {
        let mut seen = BTreeMap::new();
        for polled in client.poll(wait) {
            match polled {
                Polled::Records(at, batch) => *seen.entry(at).or_default() += batch.len(),
                Polled::End { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        seen
    };
    // Repeated, because a fetch may or may not be faster than the pause.
    for _ in 0..20 {
        client.assign(&[(at(0, 0), Start::Earliest), (at(1, 0), Start::Earliest)]).unwrap();
        client.pause(&[at(0, 0)]).unwrap();
        let mut others = 0;
        until("the other topic", || {
            let seen = count(&mut client, STEP);
            assert_eq!(seen.get(&at(0, 0)), None, "paused");
            others += seen.get(&at(1, 0)).unwrap_or(&0);
            others == 1_000
        });
    }
    client.resume(&[at(0, 0)]).unwrap();
    let mut here = 0;
    until("the paused topic", || {
        here += count(&mut client, STEP).get(&at(0, 0)).unwrap_or(&0);
        here == 1_000
    });
    client.pause(&[at(0, 0)]).unwrap();
    client.unassign(&[]).unwrap();
    client.assign(&[(at(0, 0), Start::Offset(900))]).unwrap();
    let mut again = 0;
    until("the end of the pause by an assignment", || {
        again += count(&mut client, STEP).get(&at(0, 0)).unwrap_or(&0);
        again == 100
    });
    client.close(DEADLINE);
}

#[test]
fn a_pause_at_the_end_loses_nothing() {
    let cluster = cluster(1);
    produce_numbers(&cluster, 10, 1);
    let mut member = Member::join(&settings(&cluster, "paused-at-the-end"), Start::Earliest);
    until("both ends", || {
        member.step();
        member.ends == BTreeMap::from([(at(0, 0), 5), (at(1, 0), 5)])
    });
    // An end counted as a record would skip the next one.
    member.client.pause(&[at(0, 0), at(1, 0)]).unwrap();
    member.client.resume(&[at(0, 0), at(1, 0)]).unwrap();
    produce_numbers(&cluster, 10, 1);
    until("the rest", || {
        member.step();
        member.ends == BTreeMap::from([(at(0, 0), 10), (at(1, 0), 10)])
    });
    for seen in member.records.values() {
        assert_eq!(seen.iter().map(|(offset, ..)| *offset).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    }
    member.client.close(DEADLINE);
}

#[test]
fn starts_resolve_to_offsets_and_records_carry_headers_and_time() {
    let cluster = cluster(1);
    for (time, value) in [(1_000, "a"), (2_000, "b"), (3_000, "c")] {
        use rdkafka::message::{Header, OwnedHeaders};
        let headers = OwnedHeaders::new()
            .insert(Header { key: "h", value: Some("1") })
            .insert(Header { key: "h", value: None::<&str> })
            .insert(Header { key: "", value: Some("") });
        let record = BaseRecord::<[u8], str>::to("orders").partition(0).payload(value).timestamp(time);
        cluster.0.send(record.headers(headers)).map_err(|(error, _)| error).unwrap();
    }
    cluster.0.flush(DEADLINE).unwrap();
    let mut client = KafkaClient::join(&settings(&cluster, "starts")).unwrap();
    for (start, offset) in
        [(Start::Earliest, 0), (Start::Latest, 3), (Start::At(4_000_000_000_000), 3), (Start::Offset(2), 2)]
    {
        let both = [(at(0, 0), start), (at(1, 0), Start::Latest)];
        assert_eq!(client.handle().offsets(&both, DEADLINE), Ok(vec![offset, 0]), "{start:?}");
    }
    let mut batches = Vec::new();
    until("three records", || {
        for polled in client.poll(STEP) {
            match polled {
                Polled::Records(_, batch) => batches.push(batch),
                Polled::Assigned(_) => client.assign(&[(at(0, 0), Start::Earliest)]).unwrap(),
                _ => {}
            }
        }
        batches.iter().map(RecordBatch::len).sum::<usize>() == 3
    });
    let records: Vec<_> = batches.iter().flat_map(|batch| (0..batch.len()).map(move |index| (batch, index))).collect();
    let times: Vec<_> = records.iter().map(|(batch, index)| batch.stamp(*index).time).collect();
    assert_eq!(times, [Some(1_000), Some(2_000), Some(3_000)]);
    let expected = [("h", Some(&b"1"[..])), ("h", None), ("", Some(&b""[..]))];
    for (batch, index) in records {
        let headers = batch.headers(index).into_iter().map(|header| (header.name.into_owned(), header.value));
        assert_eq!(headers.collect::<Vec<_>>(), expected.map(|(name, value)| (name.to_owned(), value)));
    }
    client.close(DEADLINE);
}
