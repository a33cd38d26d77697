//! History from files plus the last days of the topics equals the whole history from the topics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use retentiond::event::{DAY, HOUR, Time};
use serde_json::{Value, json};

use super::common::{PATIENCE, Rig, assert_equals_replay, summary};
use super::durability::{LAST, Line, PARTITIONS, last_orders, native, replay, sessions};
use crate::support::daemon::Launch;
use crate::support::kafka::{self, Broker, MURMUR2, Message};
use crate::support::{history, scratch, wait_for};

/// librdkafka's default.
const CRC32: &str = "consistent_random";
/// The files are complete up to here.
const UNTIL: &str = "1997-09-01T06:30:00.000Z";

/// Only `replay` is told that the history is complete; a bootstrap knows it.
const BEGIN: &str = "
[time]
data_begin = \"1997-01-01T00:00:00Z\"
";

/// A message with its record time, which is never before the event.
#[derive(Clone)]
struct Sent {
    at: i64,
    line: Line,
}

impl Sent {
    fn event(&self) -> Value {
        serde_json::from_str(&self.line.2).unwrap()
    }

    fn time(&self) -> i64 {
        Time::parse(self.event()["time"].as_str().unwrap()).unwrap().millis()
    }

    fn message(&self) -> Message {
        let (partition, key, payload) = self.line.clone();
        Message {
            partition,
            key: Some(key.into_bytes()),
            payload: Some(payload.into_bytes()),
            timestamp: Some(self.at),
            headers: Vec::new(),
        }
    }
}

/// Assigns record times: no earlier than the event or the previous message.
fn stamped(lines: Vec<Line>) -> Vec<Sent> {
    let mut at = 0;
    let stamp = |line: Line| {
        let sent = Sent { at: 0, line };
        at = sent.time().max(at);
        Sent { at, ..sent }
    };
    lines.into_iter().map(stamp).collect()
}

/// The export: what happened before [`UNTIL`] and arrived soon after, and some later events.
fn exported(sent: &[Sent]) -> Vec<&Sent> {
    let until = Time::parse(UNTIL).unwrap().millis();
    let is_in = |sent: &&Sent| sent.at < until + 6 * HOUR && (sent.time() < until || sent.at % 2 == 0);
    sent.iter().filter(is_in).collect()
}

/// The topic still holds its last days, from before the overlap.
fn kept(sent: &[Sent]) -> Vec<&Sent> {
    let from = Time::parse(UNTIL).unwrap().millis() - 3 * DAY;
    sent.iter().filter(|sent| sent.at >= from).collect()
}

fn ndjson<'s>(sent: impl IntoIterator<Item = &'s Sent>) -> String {
    sent.into_iter().map(|sent| format!("{}\n", sent.line.2)).collect()
}

fn csv_gz<'s>(sent: impl IntoIterator<Item = &'s Sent>) -> Vec<u8> {
    let mut text = "order_id,customer_id,time,amount,currency\n".to_owned();
    for sent in sent {
        let event = sent.event();
        let field = |name: &str| event[name].as_str().unwrap().to_owned();
        let fields = ["order_id", "customer_id", "time", "amount", "currency"].map(field);
        writeln!(text, "{}", fields.join(",")).unwrap();
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

fn publish(broker: &Broker, topic: &str, partitioner: &str, sent: &[&Sent]) {
    let messages = sent.iter().map(|sent| sent.message());
    assert_eq!(broker.publish_messages(topic, partitioner, messages), sent.len() as u64);
}

fn launch(rig: &Rig) -> Launch {
    let url = format!("file://{}", rig.store("only").display());
    rig.launch("only").env("RETENTIOND__CHECKPOINT__URL", &url)
}

/// Bootstraps a group, runs it through a kill, and compares with `replay` of everything. `files` writes the files and
/// returns the arguments that name them.
fn equals_one_run(
    broker: &Broker,
    rig: &Rig,
    partitioner: &str,
    files: impl FnOnce(&std::path::Path, &[&Sent], &[&Sent]) -> Vec<String>,
) {
    rig.create_topics(broker, PARTITIONS);
    let sales = history::cdnow_sample();
    let orders = stamped(native(history::disorder(&sales, 0)));
    let visits = stamped(sessions(&sales));
    let last = stamped(last_orders());
    let (held, held_visits) = (kept(&orders), kept(&visits));
    assert!(held.len() < orders.len() / 2 && held.len() > 1_000, "{} of {}", held.len(), orders.len());
    let (first, rest) = held.split_at(held.len() / 2);
    publish(broker, &rig.orders, partitioner, first);
    publish(broker, &rig.sessions, partitioner, &held_visits);

    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let files = files(dir.path(), &exported(&orders), &exported(&visits));
    let args: Vec<&str> = ["bootstrap", "--until", UNTIL].into_iter().chain(files.iter().map(String::as_str)).collect();
    let said = rig.run("only", &args);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("Committed for the group"), "{}", said.stdout);
    let begun = broker.committed(&rig.group, &rig.orders);
    assert!(begun.values().all(|next| next.metadata.starts_with("v1;p")), "{begun:?}");
    assert!(begun.values().any(|next| next.offset > 0), "the overlap begins within the topic: {begun:?}");

    let launch = launch(rig);
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    daemon.kill9();
    publish(broker, &rig.orders, partitioner, rest);
    publish(broker, &rig.orders, partitioner, &last.iter().collect::<Vec<_>>());
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    daemon.wait_for("everything to be read", PATIENCE, |daemon| (summary(daemon)["as_of"] == LAST).then_some(()));
    let lines = |sent: &[Sent]| sent.iter().map(|sent| sent.line.clone()).collect::<Vec<_>>();
    let whole = replay(&[&lines(&orders), &lines(&visits), &lines(&last)], LAST);
    assert_equals_replay(&summary(&daemon), &whole);
    assert!(broker.consume_all(&rig.dead_letters).is_empty(), "nothing of the overlap is too late");
}

fn write(dir: &std::path::Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    history::write(dir, name, bytes).display().to_string()
}

#[test]
fn history_and_topic_equal_one_run_under_the_partitioner_of_java() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig { commit_every: "200ms", more: BEGIN, ..Rig::new(broker) };
    equals_one_run(broker, &rig, MURMUR2, |dir, orders, visits| {
        // One export with both; sessions are assigned to their topic automatically.
        let text = ndjson(orders.iter().copied()) + &ndjson(visits.iter().copied());
        vec![write(dir, "everything.ndjson.zst", zstd::encode_all(text.as_bytes(), 1).unwrap())]
    });
}

#[test]
fn history_and_topic_equal_one_run_under_the_partitioner_of_librdkafka() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let kafka = "partitioner = \"crc32\"";
    let rig = Rig { commit_every: "200ms", more: BEGIN, kafka, ..Rig::new(broker) };
    equals_one_run(broker, &rig, CRC32, |dir, orders, visits| {
        let orders = write(dir, "orders.csv.gz", csv_gz(orders.iter().copied()));
        let visits = write(dir, "visits.ndjson", ndjson(visits.iter().copied()));
        vec![format!("orders={orders}"), format!("sessions={visits}")]
    });
}

/// An order without an id, and its message.
fn order(customer: &str, time: &str) -> Sent {
    let payload = json!({"type": "order", "customer_id": customer, "time": time, "amount": "1", "currency": "EUR"});
    stamped(vec![(None, customer.to_owned(), payload.to_string())]).remove(0)
}

#[test]
fn a_bootstrap_takes_the_place_of_nothing_by_mistake() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig { commit_every: "200ms", kafka: "partitioner = \"crc32\"", ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let at = |hour: usize| format!("2024-03-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24);
    let orders: Vec<_> = (0..400).map(|number| order(&format!("c-{number}"), &at(number))).collect();
    let refs: Vec<_> = orders.iter().collect();
    publish(broker, &rig.orders, MURMUR2, &refs);
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let file = write(dir.path(), "orders.ndjson", ndjson(&orders));
    let args = ["bootstrap", "--until", "2024-03-15T00:00:00Z", "--overlap", "2d", &file];

    let said = rig.run("only", &args);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("write kafka.partitioner = \"murmur2\""), "{}", said.stderr);
    let nothing = BTreeMap::new();
    assert_eq!(broker.committed(&rig.group, &rig.orders), nothing);

    let rig = Rig { kafka: "", ..rig };
    let mut daemon = launch(&rig).start();
    daemon.wait_ready(PATIENCE);
    let said = rig.run("only", &args);
    assert!(said.code == Some(1) && said.stderr.contains("has members"), "{said:?}");
    daemon.kill9();
    let before = broker.committed(&rig.group, &rig.orders);
    let said = rig.run_on_empty_group("only", &args);
    assert!(said.code == Some(1) && said.stderr.contains("--replace"), "{said:?}");
    assert_eq!(broker.committed(&rig.group, &rig.orders), before);

    let said = rig.run("only", &[&args[..], &["--replace"]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    // Without ids, what both hold is counted from the topic: two days of orders, and all later ones.
    assert!(said.stdout.contains("64 event(s) from") && said.stdout.contains("and 48 without an id"), "{said:?}");
    let mut daemon = launch(&rig).start();
    daemon.wait_ready(PATIENCE);
    let found = summary(&daemon);
    let as_of = found["as_of"].as_str().unwrap();
    assert!(as_of > at(350).as_str(), "{as_of}");
    let whole = replay(&[&orders.iter().map(|sent| sent.line.clone()).collect::<Vec<_>>()], as_of);
    let figure = |of: &Value, name: &str| of["windows"][3][name].clone();
    for name in ["orders", "end_customers", "ordering_customers"] {
        assert_eq!(figure(&found, name), figure(&whole, name), "{name}");
    }
}
