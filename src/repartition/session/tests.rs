//! Sessions against an in-memory broker: they die at any step, outlive their successors, and lose replies.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::bus::RebalanceProtocol;
use crate::bus::memory::{Fault, MemoryBroker, MemoryClient, MemoryProducer};
use crate::bus::partitioner::Partitioner;
use crate::coordinator::rejection_breaker::BreakerRules;
use crate::decode::{Decoder, Format, Reason};
use crate::effort::effort;
use crate::event::Time;
use crate::repartition::offset_note::OffsetNote;

const PARTITIONS_READ: u32 = 3;
const PARTITIONS: u32 = 5;

struct RouterRig {
    broker: MemoryBroker,
    topic_id: Option<String>,
    status: RoutingStatus,
    readers: u32,
}

impl RouterRig {
    fn new(readers: u32) -> RouterRig {
        let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[PARTITIONS_READ, PARTITIONS]);
        broker.limit_batches(4);
        let status = RoutingStatus::new("orders".into(), TopicIndex(0));
        RouterRig { broker, topic_id: Some("A".into()), status, readers }
    }

    fn begin(&self, route: &Route) -> Result<Session<'_, RouterRig>, End> {
        // Each session gets its own memory of oversized records, as after a crash.
        let mut session = Session::begin(self, route, &self.status, Box::leak(Box::default()))?;
        let now = Duration::ZERO;
        session.limits = Limits { poll_wait: now, hold: now, commit_every: now, messages: 7 };
        Ok(session)
    }

    fn append(&self, reader: usize, payload: &str) -> i64 {
        self.broker.append(place(FROM, reader), Some(b"order id"), Some(payload.as_bytes()), 0).unwrap()
    }

    /// Routes until everything is committed.
    fn settle(&self, route: &Route) {
        let mut session = self.begin(route).unwrap();
        while !self.is_done() {
            session.round().unwrap();
        }
        session.publish();
    }

    fn is_done(&self) -> bool {
        (0..self.readers as usize).all(|reader| {
            let end = self.broker.look().end_offset(place(FROM, reader));
            self.broker.committed(place(FROM, reader)) == end
        })
    }

    /// The ids of the routed orders in the order in which they became visible, and the positions of the dead letters.
    fn visible(&self) -> (Vec<String>, Vec<(String, String)>) {
        let (mut orders, mut dead_letters) = (Vec::new(), Vec::new());
        for record in self.broker.produced() {
            if record.topic == "dead-letters" {
                let header = |name: &str| {
                    let (_, value) =
                        record.headers.iter().find(|(known, _)| *known == format!("retentiond.error.{name}")).unwrap();
                    String::from_utf8(value.clone().unwrap()).unwrap()
                };
                dead_letters.push((header("partition"), header("offset")));
                continue;
            }
            assert_eq!(record.topic, "keyed");
            let event: serde_json::Value = serde_json::from_slice(&record.payload.unwrap()).unwrap();
            let key = record.key.unwrap();
            assert_eq!(event["customer_id"].as_str().unwrap().as_bytes(), key);
            let partition = Partitioner::Murmur2.partition(&key, PARTITIONS);
            assert_eq!(record.partition, i32::try_from(partition).ok());
            orders.push(event["order_id"].as_str().or(event["refund_id"].as_str()).unwrap().to_owned());
        }
        (orders, dead_letters)
    }
}

impl Clients for RouterRig {
    type Client = MemoryClient;
    type Producer = MemoryProducer;

    fn partitions(&self) -> Result<[Option<u32>; 2], SourceError> {
        Ok([Some(self.readers), Some(PARTITIONS)])
    }

    fn topic_id(&self) -> Result<Option<String>, SourceError> {
        Ok(self.topic_id.clone())
    }

    fn reader(&self) -> Result<MemoryClient, SourceError> {
        Ok(self.broker.look())
    }

    fn producer(&self) -> Result<MemoryProducer, SourceError> {
        Ok(self.broker.producer("router"))
    }
}

fn route(format: Format) -> Route {
    Route {
        source: "orders".into(),
        topic: "orders".into(),
        into: "keyed".into(),
        partitions: 0,
        partitioner: Partitioner::Murmur2,
        decoder: Decoder::new(format, Vec::new()),
        dead_letters: "dead-letters".into(),
        max_future: 0,
        start: Start::Earliest,
        group: "router".into(),
        owner: "shop".into(),
        breaker: BreakerRules { messages: 0, share: 1.0 },
    }
}

/// `time` is in milliseconds of 2020.
fn order(id: &str, customer: u32, time: i64) -> String {
    let time = Time::clamped(1_577_836_800_000 + time);
    format!(
        r#"{{"type":"order","order_id":"{id}","customer_id":"c-{customer}","time":"{time}","amount":"1.00","currency":"EUR"}}"#
    )
}

/// Everything that was sent, and so must be routed once.
#[derive(Default)]
struct Sent {
    /// The reader of each order, by id.
    orders: BTreeMap<String, usize>,
    /// Partition and offset of everything that cannot be read, as in the headers of dead letters.
    broken: Vec<(String, String)>,
    /// Milliseconds since the first event.
    clock: i64,
}

impl Sent {
    fn order(&mut self, reader: usize, chance: &mut ChaCha8Rng) -> String {
        let id = format!("o-{}", self.orders.len());
        let time = 1_000_000 + self.clock - chance.random_range(0..100);
        let payload = order(&id, chance.random_range(0..9), time);
        self.orders.insert(id, reader);
        payload
    }

    /// Several objects in one message, some of which cannot be read.
    fn send_batch(&mut self, rig: &RouterRig, reader: usize, chance: &mut ChaCha8Rng) {
        let mut objects = Vec::new();
        for _ in 0..chance.random_range(2..6) {
            let is_bad = chance.random_bool(0.3);
            objects.push(if is_bad { "7".to_owned() } else { self.order(reader, chance) });
        }
        let offset = rig.append(reader, &format!("[{}]", objects.join(",")));
        let bad = objects.iter().filter(|object| *object == "7");
        self.broken.extend(bad.map(|_| (reader.to_string(), offset.to_string())));
    }

    fn send(&mut self, rig: &RouterRig, chance: &mut ChaCha8Rng) {
        for _ in 0..chance.random_range(0..12) {
            let reader = chance.random_range(0..PARTITIONS_READ as usize);
            self.clock += chance.random_range(0..50);
            if chance.random_bool(0.1) {
                self.broken.push((reader.to_string(), rig.append(reader, "{broken").to_string()));
            } else if chance.random_bool(0.2) {
                self.send_batch(rig, reader, chance);
            } else {
                let payload = self.order(reader, chance);
                rig.append(reader, &payload);
            }
        }
    }

    fn assert_routed_once(mut self, rig: &RouterRig, seed: u64) {
        let (orders, mut dead_letters) = rig.visible();
        let mut sorted = orders.clone();
        sorted.sort();
        let mut expected: Vec<_> = self.orders.keys().cloned().collect();
        expected.sort();
        assert_eq!(sorted, expected, "seed {seed}: each order once");
        dead_letters.sort();
        self.broken.sort();
        assert_eq!(dead_letters, self.broken, "seed {seed}: each dead letter once");
        for reader in 0..PARTITIONS_READ as usize {
            let number = |id: &String| id[2..].parse::<u32>().unwrap();
            let of_reader: Vec<_> = orders.iter().filter(|id| self.orders[*id] == reader).map(number).collect();
            assert!(of_reader.is_sorted(), "seed {seed}: reader {reader} keeps its order: {of_reader:?}");
        }
    }
}

/// Runs sessions that die, sleep and lose replies, until everything that was sent is routed.
fn run(seed: u64) {
    let rig = RouterRig::new(PARTITIONS_READ);
    let route = route(Format::Native);
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut sent = Sent::default();
    let mut session = None;
    // Sessions that were replaced and do not know it.
    let mut sleepers: Vec<Session<'_, RouterRig>> = Vec::new();
    for _ in 0..120 {
        sent.send(&rig, &mut chance);
        match chance.random_range(0..10) {
            0 => session = None,
            1 => sleepers.extend(session.take()),
            2 => {
                let fault = [Fault::Refused, Fault::ReplyLost, Fault::RequestLost][chance.random_range(0..3)];
                rig.broker.inject(fault);
            }
            3 if !sleepers.is_empty() => {
                let mut sleeper = sleepers.remove(chance.random_range(0..sleepers.len()));
                if let Ok(()) = sleeper.round() {
                    // It has not been replaced yet, or had nothing to commit.
                    sleepers.push(sleeper);
                }
            }
            _ => {}
        }
        // The first commit of a session may fail as well.
        let Some(mut current) = session.take().or_else(|| rig.begin(&route).ok()) else { continue };
        let result = current.round();
        if chance.random_bool(0.7) && result.is_ok() {
            session = Some(current);
        }
    }
    drop(session);
    // The last session may still meet injected faults.
    let is_last = |mut last: Session<'_, RouterRig>| (0..300).all(|_| last.round().is_ok()) && rig.is_done();
    while !rig.begin(&route).is_ok_and(is_last) {}
    for mut sleeper in sleepers {
        _ = sleeper.round();
        _ = sleeper.round();
    }
    sent.assert_routed_once(&rig, seed);
}

#[test]
fn sessions_that_die_sleep_and_lose_replies_route_everything_once() {
    (0..effort().repartition_seeds).for_each(run);
}

#[test]
fn partitions_are_merged_by_event_time_and_the_status_is_published() {
    let rig = RouterRig::new(PARTITIONS_READ);
    let route = route(Format::Native);
    for (reader, base) in [(0, 0), (1, 5), (2, 7)] {
        (0..20).for_each(|n| {
            _ = rig.append(reader, &order(&format!("{reader}-{n}"), n, 1_000 + i64::from(n) * 10 + base))
        });
    }
    rig.append(1, r#"{"type":"wish","customer_id":"c-1"}"#);
    rig.append(2, "{broken");
    rig.settle(&route);
    let (orders, dead_letters) = rig.visible();
    let expected: Vec<_> = (0..20).flat_map(|n| (0..3).map(move |reader| format!("{reader}-{n}"))).collect();
    assert_eq!((orders, dead_letters.len()), (expected, 1));
    let status = rig.status.read();
    assert_eq!((status.events, status.dead_letters, status.unknown, status.lag()), (60, 1, 1, Some(0)));
    assert_eq!(status.unknown_types, ["type \"wish\"".to_owned()].into());
    assert_eq!(status.rejected[Reason::InvalidJson as usize], 1);
    assert!(status.is_ours && status.caught_up_at.is_some() && status.last_error.is_none());
}

#[test]
fn a_message_of_several_events_may_be_split_over_transactions_and_is_routed_once() {
    let refunds = |paid: i64, list: &[(&str, i64)]| {
        // Newest first.
        let list: Vec<_> = list
            .iter()
            .rev()
            .map(|(id, time)| {
                format!(r#"{{"id":"{id}","amount":100,"created":{time},"currency":"usd","status":"succeeded"}}"#)
            })
            .collect();
        format!(
            r#"{{"id":"evt","type":"charge.refunded","created":{paid},"livemode":true,"data":{{"object":{{"id":"ch","object":"charge",
            "amount":1000,"amount_captured":1000,"amount_refunded":200,"captured":true,"created":1000,"currency":"usd",
            "customer":"c-1","paid":true,"status":"succeeded","payment_intent":"pi","livemode":true,
            "refunds":{{"data":[{}]}}}}}}}}"#,
            list.join(",")
        )
    };
    for dies_after in 0..12 {
        let rig = RouterRig::new(2);
        let route = route(Format::Stripe);
        rig.append(0, &refunds(90_010, &[("a1", 90_000), ("a2", 90_004), ("a3", 90_008)]));
        rig.append(1, &refunds(90_010, &[("b1", 90_002), ("b2", 90_003), ("b3", 90_009)]));
        rig.append(0, &refunds(90_030, &[("a4", 90_020), ("a5", 90_030)]));
        rig.append(1, &refunds(90_026, &[("b4", 90_025)]));
        let mut session = rig.begin(&route).unwrap();
        // One message per transaction, so that the session can die between any two events.
        session.limits.messages = 1;
        (0..dies_after).for_each(|_| session.round().unwrap());
        drop(session);
        let routed = rig.visible().0.len();
        assert!(dies_after > 9 || routed <= dies_after, "{routed} after {dies_after} transactions");
        rig.settle(&route);
        let (events, dead_letters) = rig.visible();
        assert_eq!(events, ["a1", "b1", "b2", "a2", "a3", "b3", "a4", "b4", "a5"], "{dead_letters:?}");
    }
}

#[test]
fn the_dead_letter_of_an_object_holds_only_that_object() {
    let rig = RouterRig::new(1);
    let route = route(Format::Native);
    rig.append(0, &format!(r#"[{},{{"type":"order"}},{}]"#, order("a", 1, 1_000), order("b", 2, 1_001)));
    rig.settle(&route);
    let dead_letter = rig.broker.produced().into_iter().find(|record| record.topic == "dead-letters").unwrap();
    assert_eq!(dead_letter.payload.as_deref(), Some(&br#"{"type":"order"}"#[..]));
    assert_eq!(rig.visible().0, ["a", "b"]);
}

#[test]
fn a_position_inside_a_record_survives_a_restart() {
    let note = OffsetNote { events_done: 2, topic_id: Some("A".into()) };
    assert_eq!(OffsetNote::parse(note.to_string().as_bytes()), note);
    assert_eq!(OffsetNote::parse(b"v1;routed;0;"), OffsetNote::default());
    for foreign in [&b""[..], b"\xff", b"v1;genesis;5;s", b"v1;routed;x;A"] {
        assert_eq!(OffsetNote::parse(foreign), OffsetNote::default(), "{foreign:?}");
    }
}

#[test]
fn lost_offsets_a_recreated_topic_and_a_wrong_format_stop_routing_with_a_remedy() {
    let route = route(Format::Native);
    let broken = |rig: &RouterRig| match rig.begin(&route).map(drop) {
        Err(End::Broken(text)) => text,
        other => panic!("{other:?}"),
    };
    // Events were routed, but the offsets are gone.
    let mut rig = RouterRig::new(PARTITIONS_READ);
    rig.append(0, &order("o", 1, 5));
    rig.broker.append(place(INTO, 1), Some(b"c-1"), Some(b"{}"), 0).unwrap();
    let text = broken(&rig);
    assert!(text.contains("has no offsets") && text.contains("--reset-offsets --group router"), "{text}");
    // The topic was created again.
    rig = RouterRig::new(PARTITIONS_READ);
    rig.append(0, &order("o", 1, 5));
    rig.settle(&route);
    rig.topic_id = Some("B".into());
    let text = broken(&rig);
    assert!(text.contains("created again") && text.contains("--to-earliest"), "{text}");
    // A misread topic ends the daemon.
    let rig = RouterRig::new(PARTITIONS_READ);
    (0..10).for_each(|_| _ = rig.append(0, "<order/>"));
    let strict = Route { breaker: BreakerRules { messages: 5, share: 0.5 }, ..route.clone() };
    let mut session = rig.begin(&strict).unwrap();
    let end = (0..10).find_map(|_| session.round().err()).unwrap();
    assert!(matches!(&end, End::Fatal(SourceError::Configuration(text)) if text.contains("wrong format")), "{end:?}");
}

#[test]
fn the_first_start_is_kept_and_new_partitions_are_read_from_their_beginning() {
    let mut rig = RouterRig::new(2);
    let route = Route { start: Start::Latest, ..route(Format::Native) };
    rig.append(0, &order("before", 1, 5));
    drop(rig.begin(&route).unwrap());
    // It died before any record arrived; records since then must still be routed.
    rig.append(0, &order("after", 1, 6));
    rig.append(2, &order("new", 2, 7));
    rig.settle(&route);
    assert_eq!(rig.visible().0, ["after"]);
    rig.readers = 3;
    rig.settle(&route);
    assert_eq!(rig.visible().0, ["after", "new"]);
}
