//! Sessions over a broker in memory: they die at any step, sleep through their successors, and lose answers.

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
        // A session that is killed leaves its memory behind as well.
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

    /// The ids of the routed orders in the order in which they became visible, and the dead letters' places.
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

fn order(id: &str, customer: u32, time: i64) -> String {
    let time = Time::clamped(time);
    format!(
        r#"{{"type":"order","order_id":"{id}","customer_id":"c-{customer}","time":"{time}","amount":"1.00","currency":"EUR"}}"#
    )
}

/// One run of sessions that die, sleep and lose answers, until everything that was sent is routed.
fn run(seed: u64) {
    let world = RouterRig::new(PARTITIONS_READ);
    let route = route(Format::Native);
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    let mut broken = Vec::new();
    let mut now = 1_000_000;
    let mut send = |chance: &mut ChaCha8Rng| {
        for _ in 0..chance.random_range(0..12) {
            let reader = chance.random_range(0..PARTITIONS_READ as usize);
            now += chance.random_range(0..50);
            if chance.random_bool(0.1) {
                broken.push((reader.to_string(), world.append(reader, "{broken").to_string()));
            } else if chance.random_bool(0.2) {
                // Several objects in one message, some of which cannot be read.
                let mut objects = Vec::new();
                for _ in 0..chance.random_range(2..6) {
                    let id = format!("o-{}", sent.len());
                    if chance.random_bool(0.3) {
                        objects.push("7".to_owned());
                    } else {
                        objects.push(order(&id, chance.random_range(0..9), now - chance.random_range(0..100)));
                        sent.insert(id, reader);
                    }
                }
                let offset = world.append(reader, &format!("[{}]", objects.join(",")));
                let bad = objects.iter().filter(|object| *object == "7");
                broken.extend(bad.map(|_| (reader.to_string(), offset.to_string())));
            } else {
                let id = format!("o-{}", sent.len());
                let time = now - chance.random_range(0..100);
                world.append(reader, &order(&id, chance.random_range(0..9), time));
                sent.insert(id, reader);
            }
        }
    };
    let mut session = None;
    // Those that were replaced and do not know it.
    let mut sleepers: Vec<Session<'_, RouterRig>> = Vec::new();
    for _ in 0..120 {
        send(&mut chance);
        match chance.random_range(0..10) {
            0 => session = None,
            1 => sleepers.extend(session.take()),
            2 => {
                let fault = [Fault::Refused, Fault::ReplyLost, Fault::RequestLost][chance.random_range(0..3)];
                world.broker.inject(fault);
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
        let Some(mut current) = session.take().or_else(|| world.begin(&route).ok()) else { continue };
        let ended = current.round();
        if chance.random_bool(0.7) && ended.is_ok() {
            session = Some(current);
        }
    }
    drop(session);
    // Faults that nobody met would meet the last session.
    let is_last = |mut last: Session<'_, RouterRig>| (0..300).all(|_| last.round().is_ok()) && world.is_done();
    while !world.begin(&route).is_ok_and(is_last) {}
    for mut sleeper in sleepers {
        _ = sleeper.round();
        _ = sleeper.round();
    }
    let (orders, mut dead_letters) = world.visible();
    let mut once: Vec<_> = orders.clone();
    once.sort();
    let mut all: Vec<_> = sent.keys().cloned().collect();
    all.sort();
    assert_eq!(once, all, "seed {seed}: each order once");
    dead_letters.sort();
    broken.sort();
    assert_eq!(dead_letters, broken, "seed {seed}: each dead letter once");
    for reader in 0..PARTITIONS_READ as usize {
        let number = |id: &String| id[2..].parse::<u32>().unwrap();
        let of_reader: Vec<_> = orders.iter().filter(|id| sent[*id] == reader).map(number).collect();
        assert!(of_reader.is_sorted(), "seed {seed}: reader {reader} keeps its order: {of_reader:?}");
    }
}

#[test]
fn sessions_that_die_sleep_and_lose_answers_route_everything_once() {
    (0..effort().repartition_seeds).for_each(run);
}

#[test]
fn partitions_go_on_in_the_order_of_time_and_the_state_is_told() {
    let world = RouterRig::new(PARTITIONS_READ);
    let route = route(Format::Native);
    for (reader, base) in [(0, 0), (1, 5), (2, 7)] {
        (0..20).for_each(|n| {
            _ = world.append(reader, &order(&format!("{reader}-{n}"), n, 1_000 + i64::from(n) * 10 + base))
        });
    }
    world.append(1, r#"{"type":"wish","customer_id":"c-1"}"#);
    world.append(2, "{broken");
    world.settle(&route);
    let (orders, dead_letters) = world.visible();
    let expected: Vec<_> = (0..20).flat_map(|n| (0..3).map(move |reader| format!("{reader}-{n}"))).collect();
    assert_eq!((orders, dead_letters.len()), (expected, 1));
    let status = world.status.read();
    assert_eq!((status.events, status.dead_letters, status.unknown, status.lag()), (60, 1, 1, Some(0)));
    assert_eq!(status.unknown_types, ["type \"wish\"".to_owned()].into());
    assert_eq!(status.rejected[Reason::InvalidJson as usize], 1);
    assert!(status.is_ours && status.caught_up_at.is_some() && status.last_error.is_none());
}

#[test]
fn a_message_of_several_events_may_be_torn_apart_and_is_told_once() {
    let refunds = |paid: i64, list: &[(&str, i64)]| {
        // The newest comes first.
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
        let world = RouterRig::new(2);
        let route = route(Format::Stripe);
        world.append(0, &refunds(90_010, &[("a1", 90_000), ("a2", 90_004), ("a3", 90_008)]));
        world.append(1, &refunds(90_010, &[("b1", 90_002), ("b2", 90_003), ("b3", 90_009)]));
        world.append(0, &refunds(90_030, &[("a4", 90_020), ("a5", 90_030)]));
        world.append(1, &refunds(90_026, &[("b4", 90_025)]));
        let mut session = world.begin(&route).unwrap();
        // One message in each transaction, so that it dies between any two events.
        session.limits.messages = 1;
        (0..dies_after).for_each(|_| session.round().unwrap());
        drop(session);
        let routed = world.visible().0.len();
        assert!(dies_after > 9 || routed <= dies_after, "{routed} after {dies_after} transactions");
        world.settle(&route);
        let (events, dead_letters) = world.visible();
        assert_eq!(events, ["a1", "b1", "b2", "a2", "a3", "b3", "a4", "b4", "a5"], "{dead_letters:?}");
    }
}

#[test]
fn the_letter_of_an_object_holds_that_object_alone() {
    let world = RouterRig::new(1);
    let route = route(Format::Native);
    world.append(0, &format!(r#"[{},{{"type":"order"}},{}]"#, order("a", 1, 1_000), order("b", 2, 1_001)));
    world.settle(&route);
    let dead_letter = world.broker.produced().into_iter().find(|record| record.topic == "dead-letters").unwrap();
    assert_eq!(dead_letter.payload.as_deref(), Some(&br#"{"type":"order"}"#[..]));
    assert_eq!(world.visible().0, ["a", "b"]);
}

#[test]
fn a_place_inside_a_message_is_kept_over_a_start() {
    let note = OffsetNote { events_done: 2, topic_id: Some("A".into()) };
    assert_eq!(OffsetNote::parse(note.to_string().as_bytes()), note);
    assert_eq!(OffsetNote::parse(b"v1;routed;0;"), OffsetNote::default());
    for foreign in [&b""[..], b"\xff", b"v1;genesis;5;s", b"v1;routed;x;A"] {
        assert_eq!(OffsetNote::parse(foreign), OffsetNote::default(), "{foreign:?}");
    }
}

#[test]
fn what_does_not_fit_stops_routing_with_a_remedy() {
    let route = route(Format::Native);
    let broken = |world: &RouterRig| match world.begin(&route).map(drop) {
        Err(End::Broken(text)) => text,
        other => panic!("{other:?}"),
    };
    // Events were routed, and nobody knows how far.
    let mut world = RouterRig::new(PARTITIONS_READ);
    world.append(0, &order("o", 1, 5));
    world.broker.append(place(INTO, 1), Some(b"c-1"), Some(b"{}"), 0).unwrap();
    let text = broken(&world);
    assert!(text.contains("has no offsets") && text.contains("--reset-offsets --group router"), "{text}");
    // The topic was made anew.
    world = RouterRig::new(PARTITIONS_READ);
    world.append(0, &order("o", 1, 5));
    world.settle(&route);
    world.topic_id = Some("B".into());
    let text = broken(&world);
    assert!(text.contains("created again") && text.contains("--to-earliest"), "{text}");
    // A misread topic ends the daemon.
    let world = RouterRig::new(PARTITIONS_READ);
    (0..10).for_each(|_| _ = world.append(0, "<order/>"));
    let strict = Route { breaker: BreakerRules { messages: 5, share: 0.5 }, ..route.clone() };
    let mut session = world.begin(&strict).unwrap();
    let end = (0..10).find_map(|_| session.round().err()).unwrap();
    assert!(matches!(&end, End::Fatal(SourceError::Configuration(text)) if text.contains("wrong format")), "{end:?}");
}

#[test]
fn the_first_start_is_kept_and_new_partitions_are_read_whole() {
    let mut world = RouterRig::new(2);
    let route = Route { start: Start::Latest, ..route(Format::Native) };
    world.append(0, &order("before", 1, 5));
    drop(world.begin(&route).unwrap());
    // It died before anything came; what came since belongs to those who begin at the end.
    world.append(0, &order("after", 1, 6));
    world.append(2, &order("new", 2, 7));
    world.settle(&route);
    assert_eq!(world.visible().0, ["after"]);
    world.readers = 3;
    world.settle(&route);
    assert_eq!(world.visible().0, ["after", "new"]);
}
