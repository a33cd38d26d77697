//! The same orders in every wire format of a schema registry, and bootstraps from files of every format.

use std::collections::BTreeSet;

use retentiond::decode::Format;
use retentiond::event::{DAY, Time, wall_clock};
use serde_json::{Value, json};

use super::common::{PATIENCE, Rig, assert_equals_replay, metrics, readiness, summary};
use super::figures::KNOWN;
use crate::formats::fixtures::{self, Fixture};
use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Broker, MURMUR2, Message};
use crate::support::registry::Registry;
use crate::support::{cli, history, scratch, wait_for};

const BEGIN: i64 = 1_735_700_000_000;
const GUID: &str = "0dd4474b-0a2e-4c9e-9a31-010203040506";

/// An order or a refund.
struct Moved {
    is_order: bool,
    id: usize,
    customer: usize,
    millis: i64,
    cents: u16,
    channel: &'static str,
}

/// Orders over 300 days, and refunds of some.
fn moved() -> Vec<Moved> {
    let one = |n: usize| Moved {
        is_order: n % 7 != 6,
        id: n,
        customer: n * n % 83,
        millis: BEGIN + i64::try_from(n).unwrap() * (DAY * 300 / 900) + 17,
        cents: u16::try_from(100 + n * 131 % 30_000).unwrap(),
        channel: ["web", "app", "store"][n % 3],
    };
    (0..900).map(one).collect()
}

impl Moved {
    fn key(&self) -> String {
        format!("c-{}", self.customer)
    }

    fn kind(&self) -> &'static str {
        if self.is_order { "order" } else { "refund" }
    }

    fn amount(&self) -> String {
        format!("{}.{:02}", self.cents / 100, self.cents % 100)
    }

    fn json(&self) -> Value {
        json!({
            "type": self.kind(),
            (if self.is_order { "order_id" } else { "refund_id" }): format!("n-{}", self.id),
            "customer_id": self.key(),
            "time": Time::clamped(self.millis).to_string(),
            "amount": self.amount(),
            "currency": "EUR",
            "attributes": {"channel": self.channel},
        })
    }

    /// Encodes with [`AVRO`]: numbers are zigzag varints, texts follow their length.
    fn avro(&self) -> Vec<u8> {
        let some = |text: &str| [vec![2], sized(text.as_bytes())].concat();
        let (order, refund) = (some(&format!("n-{}", self.id)), vec![0]);
        let (order, refund) = if self.is_order { (order, refund) } else { (refund, order) };
        let time = varint(u64::try_from(self.millis * 1000).unwrap() * 2);
        // A length of zero ends the blocks of the map.
        let channel = [vec![2], sized(b"channel"), sized(self.channel.as_bytes()), vec![0]].concat();
        let kind = vec![u8::from(!self.is_order) * 2];
        let amount = sized(&[&[0], &self.cents.to_be_bytes()[..]].concat());
        [kind, order, refund, sized(self.key().as_bytes()), time, amount, sized(b"EUR"), channel].concat()
    }

    /// Encodes with [`PROTOBUF`]: tags are (number << 3 | 2), followed by length and text.
    fn protobuf(&self) -> Vec<u8> {
        let field = |number: u8, bytes: &[u8]| {
            [vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes.to_vec()].concat()
        };
        let part = |number: u8, part: i64| [vec![number << 3], varint(u64::try_from(part).unwrap())].concat();
        let time = [part(1, self.millis / 1000), part(2, self.millis % 1000 * 1_000_000)].concat();
        let id = field(if self.is_order { 2 } else { 3 }, format!("n-{}", self.id).as_bytes());
        let channel = [field(1, b"channel"), field(2, self.channel.as_bytes())].concat();
        let amount = self.amount();
        let texts = [(1, self.kind().as_bytes()), (6, amount.as_bytes()), (7, b"EUR")];
        let texts: Vec<u8> = texts.iter().flat_map(|(number, text)| field(*number, text)).collect();
        [texts, id, field(4, self.key().as_bytes()), field(5, &time), field(8, &channel)].concat()
    }
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [varint(bytes.len() as u64 * 2), bytes.to_vec()].concat()
}

const AVRO: &str = r#"{"type":"record","name":"Moved","namespace":"shop","fields":[
    {"name":"type","type":{"type":"enum","name":"Type","symbols":["order","refund"]}},
    {"name":"order_id","type":["null","string"]},
    {"name":"refund_id","type":["null","string"]},
    {"name":"customer_id","type":"string"},
    {"name":"time","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
    {"name":"currency","type":"string"},
    {"name":"attributes","type":{"type":"map","values":"string"}}]}"#;

const PROTOBUF: &str = r#"syntax = "proto3";
    package shop;
    import "google/protobuf/timestamp.proto";
    message Other { string x = 1; }
    message Moved {
        string type = 1;
        string order_id = 2;
        string refund_id = 3;
        string customer_id = 4;
        google.protobuf.Timestamp time = 5;
        string amount = 6;
        string currency = 7;
        map<string, string> attributes = 8;
    }"#;

const JSON_SCHEMA: &str = r#"{"type":"object","required":["type","customer_id"]}"#;

fn number(id: u8) -> Vec<u8> {
    vec![0, 0, 0, 0, id]
}

fn guid() -> Vec<u8> {
    let digits = GUID.replace('-', "");
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap();
    [1].into_iter().chain((0..16).map(byte)).collect()
}

/// A message with a frame before its value, or in a header.
fn message(key: &str, frame: &[u8], header: Option<Vec<u8>>, value: &[u8]) -> Message {
    Message {
        key: Some(key.as_bytes().to_vec()),
        payload: Some([frame, value].concat()),
        headers: header.map(|id| ("__value_schema_id".to_owned(), id)).into_iter().collect(),
        ..Message::default()
    }
}

/// Encodes a message.
type Write = fn(&Moved) -> Message;

/// Every way to encode a message, by name.
fn wires() -> [(&'static str, Write); 5] {
    [
        ("plain JSON", |of| message(&of.key(), &[], None, of.json().to_string().as_bytes())),
        ("JSON Schema", |of| message(&of.key(), &number(1), None, of.json().to_string().as_bytes())),
        ("Avro", |of| message(&of.key(), &number(2), None, &of.avro())),
        // The second message of the file: one index with value one, both zigzag.
        ("Protobuf", |of| message(&of.key(), &[number(3), vec![2, 2]].concat(), None, &of.protobuf())),
        ("Avro named by a header", |of| message(&of.key(), &[], Some(guid()), &of.avro())),
    ]
}

fn registry() -> Registry {
    Registry::start(&[
        ("/schemas/ids/1", "JSON", JSON_SCHEMA),
        ("/schemas/ids/2", "AVRO", AVRO),
        ("/schemas/ids/3", "PROTOBUF", PROTOBUF),
        (&format!("/schemas/guids/{GUID}"), "AVRO", AVRO),
    ])
}

fn rig(broker: &Broker, registry: &Registry) -> Rig {
    let more =
        format!("{KNOWN}[customers]\ndimensions = [\"channel\"]\n[schema_registry]\nurl = \"{}\"\n", registry.url());
    let rig = Rig { more: more.leak(), ..Rig::new(broker) };
    rig.create_topics(broker, 2);
    rig
}

/// The result of `replay` for the same orders in a file.
fn replayed(lines: &[Value], as_of: &str) -> Value {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let file = history::write(dir.path(), "events.ndjson", text);
    let config = history::write(dir.path(), "replay.toml", format!("{KNOWN}[customers]\ndimensions = [\"channel\"]\n"));
    cli::replay_as_daemon(&[&file], Some(&config), as_of)
}

fn assert_is_replay(daemon: &Daemon, lines: &[Value], wire: &str) -> Value {
    let summary = summary(daemon);
    let as_of = summary["as_of"].as_str().unwrap_or_else(|| panic!("{wire}: no event was understood"));
    let replay = replayed(lines, as_of);
    assert!(replay["windows"][3]["orders"].as_u64().unwrap() > 700, "{wire}: {replay}");
    assert_equals_replay(&summary, &replay);
    summary
}

#[test]
fn the_same_orders_give_the_same_figures_in_every_wire_format() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let registry = registry();
    let moved = moved();
    let lines: Vec<Value> = moved.iter().map(Moved::json).collect();
    let mut all = Vec::new();
    for (wire, write) in wires() {
        let rig = rig(broker, &registry);
        assert_eq!(broker.publish_messages(&rig.orders, MURMUR2, moved.iter().map(write)), 900);
        let before = registry.asked();
        let mut daemon = rig.launch("only").start();
        daemon.wait_ready(PATIENCE);
        all.push(assert_is_replay(&daemon, &lines, wire));
        assert!(metrics(&daemon).nonzero("retentiond_events_rejected_total").is_empty(), "{wire}");
        assert!(registry.asked() - before <= 1, "{wire}: a schema is fetched once");
    }
    let figures = |summary: &Value| {
        let mut figures = summary.clone();
        // The progress of each daemon, with its own topics and store.
        figures.as_object_mut().unwrap().retain(|name, _| replayed_parts().contains(name.as_str()));
        figures
    };
    assert!(all.iter().all(|summary| figures(summary) == figures(&all[0])));
}

fn replayed_parts() -> BTreeSet<&'static str> {
    BTreeSet::from(["as_of", "windows", "calendar", "cohorts", "stages", "segments"])
}

#[test]
fn a_registry_that_is_down_is_waited_for_and_a_schema_that_it_lacks_is_a_dead_letter() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let registry = registry();
    registry.set_down(true);
    let rig = rig(broker, &registry);
    let moved = moved();
    let avro = |of: &Moved| message(&of.key(), &number(2), None, &of.avro());
    broker.publish_messages(&rig.orders, MURMUR2, moved[..450].iter().map(avro));
    let mut daemon = rig.launch("only").start();
    let waits = |daemon: &Daemon| {
        let (status, reasons) = readiness(daemon)?;
        (status == 503 && reasons.contains("waiting for schema 2")).then_some(())
    };
    daemon.wait_for("the daemon to wait for a schema", PATIENCE, waits);
    assert_eq!(summary(&daemon)["as_of"], Value::Null, "nothing is read past what waits");
    assert!(broker.consume_all(&rig.dead_letters).is_empty(), "and nothing is thrown away");

    registry.set_down(false);
    daemon.wait_ready(PATIENCE);
    let lines: Vec<Value> = moved.iter().map(Moved::json).collect();

    // Between good ones of the same customer: an unknown schema, and values that do not match theirs.
    let key = moved[0].key();
    let whole = moved[0].avro();
    let bad = [
        message(&key, &number(9), None, &whole),
        message(&key, &number(2), None, &whole[..whole.len() - 1]),
        message(&key, &[number(3), vec![2, 4]].concat(), None, &moved[0].protobuf()),
    ];
    broker.publish_messages(&rig.orders, MURMUR2, bad.clone());
    broker.publish_messages(&rig.orders, MURMUR2, moved[450..].iter().map(avro));
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    daemon.wait_ready(PATIENCE);
    assert_is_replay(&daemon, &lines, "after the registry came back");

    let dead_letters = broker.consume_all(&rig.dead_letters);
    let reason = |offset: usize| dead_letters[offset].header("retentiond.error.reason").unwrap_or_default();
    assert_eq!(dead_letters.len(), 3, "{dead_letters:?}");
    assert!(reason(0).starts_with("unknown_schema: schema 9"), "{}", reason(0));
    assert!(reason(1).starts_with("unfit_for_schema: "), "{}", reason(1));
    assert!(reason(2).starts_with("unfit_for_schema: ") && reason(2).contains("no message"), "{}", reason(2));
    for (dead_letter, bad) in dead_letters.iter().zip(&bad) {
        assert_eq!((&dead_letter.payload, &dead_letter.key), (&bad.payload, &bad.key), "the frame is kept");
    }
}

/// Bootstraps from a file; returns the numbers of events and customers.
fn bootstrapped(broker: &Broker, source: &str, lines: &[String]) -> (u64, u64) {
    let rig = Rig { more: "[customers]\ndimensions = [\"channel\", \"country\"]\n", ..Rig::new(broker) };
    rig.create_topics(broker, 1);
    // Format and mapping of the source, next to its topic.
    let topic = format!("[sources.orders]\ntopic = \"{}\"\n", rig.orders);
    let config = rig.config("only").replace(&topic, "") + &source.replace("[sources.orders]\n", &topic);
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let file = history::write(dir.path(), "history.ndjson", lines.join("\n"));
    let config = history::write(dir.path(), "retentiond.toml", config);
    let until = Time::clamped(wall_clock().millis() - DAY).to_string();
    let args = ["bootstrap", "--until", &until, "--config", config.to_str().unwrap(), file.to_str().unwrap()];
    let said = cli::run(args);
    assert_eq!(said.code, Some(0), "{source}\n{said:?}");
    let count = |before: &str, behind: &str| {
        let (head, _) = said.stdout.split_once(behind).unwrap_or_else(|| panic!("{said:?}"));
        let head = head.rsplit_once(before).map_or(head, |(_, head)| head);
        head.trim().parse::<u64>().unwrap_or_else(|error| panic!("{error}: {head:?} of {said:?}"))
    };
    (count("\n", " of "), count("the state of ", " customer(s)"))
}

#[test]
fn a_state_is_built_from_files_of_every_format() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let mut seen = BTreeSet::new();
    for (source, messages) in fixtures::files() {
        let name = messages[0].format.name();
        let meaning: Vec<String> = messages.iter().flat_map(Fixture::native).collect();
        // One mapping per format is enough: mappings are tested without a broker.
        if meaning.is_empty() || !seen.insert(name) {
            continue;
        }
        let lines: Vec<String> = messages.iter().map(Fixture::line).collect();
        let found = bootstrapped(broker, &source, &lines);
        let expected = bootstrapped(broker, "[sources.orders]\nformat = \"native\"\n", &meaning);
        assert_eq!(found, expected, "{source}");
        assert!(found.0 > 0 && found.1 > 0, "{source}: {found:?}");
    }
    assert_eq!(seen, Format::ALL.map(Format::name).into_iter().collect());
}
