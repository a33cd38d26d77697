//! The alert topic equals the SQL result over the log, exactly once, whatever happens to the replicas.

use std::collections::BTreeMap;
use std::fs;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retentiond::event::{DAY, wall_clock};
use serde_json::json;

use super::common::{PATIENCE, Rig, metrics};
use crate::support::daemon::{Daemon, Launch};
use crate::support::history::{self, write};
use crate::support::kafka::{self, Broker};
use crate::support::log::Message;
use crate::support::oracle::{self, Order};
use crate::support::{scratch, unique, wait_for};

const PARTITIONS: i32 = 4;
/// After every other event.
const LAST: &str = "1998-09-03T00:00:00.000Z";

const RULES: &str = r#"
[[inactivity]]
name = "lapsing"
after = "45d"
[[inactivity]]
name = "off-pace"
cadence = 2.0
min = "3d"
max = "90d"
stage = ["repeat", "loyal"]
[alerts]
topic = "TOPIC"
backfill = true
holdout = 0.2
winback_within = "20d"
"#;

fn publish(broker: &Broker, rig: &Rig, messages: &[Message]) {
    let messages = messages.iter().map(|message| (None, Some(&message.key), message.payload.as_ref()));
    broker.publish(&rig.orders, messages);
}

/// An order of a separate customer in each partition, so that everything earlier is decided.
fn publish_last(broker: &Broker, rig: &Rig) {
    let order = |partition| {
        let order = format!(
            r#"{{"type":"order","order_id":"l","customer_id":"last-{partition}","time":"{LAST}","amount":"1.00","currency":"USD"}}"#
        );
        (Some(partition), Some(format!("last-{partition}")), Some(order))
    };
    assert_eq!(broker.publish(&rig.orders, (0..PARTITIONS).map(order)), PARTITIONS as u64);
}

/// Compares each partition of the alert topic with SQL over the same partition of the log; returns the number of
/// alerts, win-backs and held-out silences.
fn compare(broker: &Broker, rig: &Rig, topic: &str) -> Option<[u64; 3]> {
    compare_messages(broker, rig, &broker.consume_all(topic))
}

fn compare_messages(broker: &Broker, rig: &Rig, messages: &[kafka::Record]) -> Option<[u64; 3]> {
    let oracle = oracle::find_or_skip()?;
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let config = json!({
        "dimensions": [],
        "inactivity": [
            {"name": "lapsing", "after_ms": 45 * DAY},
            {"name": "off-pace", "cadence": 2.0, "min_ms": 3 * DAY, "max_ms": 90 * DAY, "stage": ["repeat", "loyal"]},
        ],
        "alerts": {"settle_ms": DAY, "holdout": 0.2, "salt": "retentiond", "winback_within_ms": 20 * DAY},
    });
    let mut sums = [0; 3];
    let log = broker.consume_all(&rig.orders);
    for message in messages {
        assert_eq!(message.header("content-type").as_deref(), Some("application/cloudevents+json"));
        assert_eq!(message.json()["data"]["customer_id"], message.key_text());
    }
    for partition in 0..PARTITIONS {
        let lines = |records: &[kafka::Record]| -> Vec<u8> {
            let of = records.iter().filter(|record| record.partition == partition);
            of.flat_map(|record| [record.payload.as_deref().unwrap(), b"\n"].concat()).collect()
        };
        let events = write(dir.path(), "events.ndjson", lines(&log));
        let alerts = write(dir.path(), "alerts.ndjson", lines(messages));
        let counts = oracle.compare_alerts(&events, &config, &alerts, Order::Log);
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    fs::remove_dir_all(dir.path()).unwrap();
    Some(sums)
}

#[test]
fn kill9_and_rebalances_lose_and_repeat_no_alert() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = unique("alerts");
    let rules: &str = RULES.replace("TOPIC", &topic).leak();
    let rig = Rig { commit_every: "200ms", more: rules, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let messages = history::disorder(&history::cdnow_sample(), 0);
    let launch = |instance: &str| rig.launch(instance).env("RETENTIOND__KAFKA__DELIVERY", "exactly_once");
    let launches = ["one", "other"].map(launch);
    let mut replicas = launches.each_ref().map(Launch::start);
    let mut chance = ChaCha8Rng::seed_from_u64(3);
    let kills = 6;
    let mut left = &messages[..];
    for kill in 0..kills {
        let victim = kill % 2;
        // From this portion on there are some alerts.
        let before: i64 = broker.end_offsets(&rig.orders).values().sum();
        let portion = left.split_off(..messages.len() / (kills + 1)).unwrap();
        for part in portion.chunks(portion.len() / 8) {
            publish(broker, &rig, part);
            std::thread::yield_now();
        }
        wait_for("commits beyond the portion before", PATIENCE, || {
            let committed = broker.committed(&rig.group, &rig.orders);
            let sum: i64 = committed.values().map(|committed| committed.offset).sum();
            (sum > before + chance.random_range(0..200)).then_some(())
        });
        replicas[victim].kill9();
        replicas[victim] = launches[victim].start();
    }
    publish(broker, &rig, left);
    publish_last(broker, &rig);
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    let Some(counts) = compare(broker, &rig, &topic) else { return };
    assert!(counts[0] > 2_000 && counts[1] > 300 && counts[2] > 500, "{counts:?}");

    // A replica counts what it committed; both together count no more than there is.
    let sent = |daemon: &Daemon| {
        let metrics = metrics(daemon);
        let sent = |rule: &str| metrics.get(&format!("retentiond_inactivity_alerts_total{{rule=\"{rule}\"}}"));
        sent("lapsing").unwrap() + sent("off-pace").unwrap()
    };
    replicas.iter_mut().for_each(|replica| replica.wait_ready(PATIENCE));
    let counted: f64 = replicas.iter().map(sent).sum();
    assert!(counted > 0.0 && counted <= counts[0] as f64, "{counted} of {}", counts[0]);
    replicas.iter_mut().for_each(|replica| replica.terminate());
}

/// Quiet hours around the clock, except for a minute in the past, hold every alert back; without them each is sent
/// once.
#[test]
fn what_waits_outlives_a_restart() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = unique("alerts");
    // A minute in twelve hours.
    let open = wall_clock().to_string();
    let hour: u32 = open[11..13].parse().unwrap();
    let hours = format!("quiet_hours = \"{:02}:01-{0:02}:00\"\n", (hour + 12) % 24);
    let rules: &str = RULES.replace("TOPIC", &topic).leak();
    let quiet: &str = format!("{rules}{hours}").leak();
    let rig = Rig { commit_every: "200ms", more: quiet, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let launch = |rig: &Rig| rig.launch("only").env("RETENTIOND__KAFKA__DELIVERY", "exactly_once");
    publish(broker, &rig, &history::disorder(&history::cdnow_sample(), 0));
    publish_last(broker, &rig);
    let mut daemon = launch(&rig).start();
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    let waiting = |daemon: &Daemon| metrics(daemon).get("retentiond_inactivity_alerts_waiting").unwrap();
    let held = waiting(&daemon);
    assert!(held > 2_000.0, "{held}");
    assert!(broker.consume_all(&topic).is_empty(), "it is quiet");
    daemon.kill9();
    let mut daemon = launch(&rig).start();
    daemon.wait_ready(PATIENCE);
    assert_eq!(waiting(&daemon), held);
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());

    let loud = Rig { more: rules, ..rig };
    let mut daemon = launch(&loud).start();
    daemon.wait_ready(PATIENCE);
    daemon.wait_for("everything to leave", PATIENCE, |daemon| (waiting(daemon) == 0.0).then_some(()));
    wait_for("all messages to be there", PATIENCE, || (broker.consume_all(&topic).len() as f64 >= held).then_some(()));
    let Some(counts) = compare(broker, &loud, &topic) else { return };
    assert_eq!((counts[0] + counts[1]) as f64, held);
    daemon.terminate();
}

/// At-least-once delivery: a kill between an alert and its offset may repeat the alert, with the same id and content.
#[test]
fn at_least_once_loses_no_alert_and_repeats_it_unchanged() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = unique("alerts");
    let rules: &str = RULES.replace("TOPIC", &topic).leak();
    let rig = Rig { commit_every: "200ms", more: rules, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let launch = rig.launch("only").env("RETENTIOND__KAFKA__DELIVERY", "at_least_once");
    let messages = history::disorder(&history::cdnow_sample(), 0);
    let mut daemon = launch.start();
    // By then the alert topic exists.
    daemon.wait_ready(PATIENCE);
    let parts = 4;
    for (number, part) in messages.chunks(messages.len().div_ceil(parts)).enumerate() {
        let there = broker.consume_all(&topic).len();
        publish(broker, &rig, part);
        if number > 0 {
            wait_for("more alerts", PATIENCE, || (broker.consume_all(&topic).len() > there).then_some(()));
            daemon.kill9();
            daemon = launch.start();
        }
    }
    publish_last(broker, &rig);
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    let mut alerts = broker.consume_all(&topic);
    let all = alerts.len();
    let mut known = BTreeMap::new();
    alerts.retain(|alert| {
        let id = alert.json()["id"].as_str().unwrap().to_owned();
        let before = known.insert(id, alert.json());
        assert!(before.as_ref().is_none_or(|before| *before == alert.json()), "one id, one message");
        before.is_none()
    });
    let Some(counts) = compare_messages(broker, &rig, &alerts) else { return };
    assert_eq!(counts[0] + counts[1], alerts.len() as u64);
    assert!(counts[0] > 2_000 && counts[1] > 300 && all >= alerts.len(), "{counts:?} of {all}");
    daemon.terminate();
}

/// A launch over old history is throttled to a rate per minute, and no alert is dropped.
#[test]
fn max_per_minute_delays_and_drops_nothing() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = unique("alerts");
    let rules: &str = RULES.replace("TOPIC", &topic).leak();
    let slow: &str = format!("{rules}max_per_minute = 80\n").leak();
    let rig = Rig { commit_every: "200ms", more: slow, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let launch = |rig: &Rig| rig.launch("only").env("RETENTIOND__KAFKA__DELIVERY", "exactly_once");
    publish(broker, &rig, &history::disorder(&history::cdnow_sample(), 0));
    publish_last(broker, &rig);
    let minute = || wall_clock().millis() / 60_000;
    let begun = minute();
    let mut daemon = launch(&rig).start();
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    let waiting = |daemon: &Daemon| metrics(daemon).get("retentiond_inactivity_alerts_waiting").unwrap();
    // Win-backs are not throttled, but follow the alerts before them.
    let alerts = || {
        let all = broker.consume_all(&topic);
        all.iter().filter(|alert| alert.json()["type"] == "retentiond.customer.inactive.v1").count() as u64
    };
    wait_for("a minute's share", PATIENCE, || (alerts() >= 80).then_some(()));
    // A replica that takes over inherits the number of alerts sent in this minute.
    daemon.kill9();
    let mut daemon = launch(&rig).start();
    daemon.wait_ready(PATIENCE);
    assert!(waiting(&daemon) > 1_000.0, "{}", waiting(&daemon));
    let (left, minutes) = (alerts(), (minute() - begun + 1).unsigned_abs());
    assert!(left <= 80 * minutes, "{left} in {minutes} minutes");
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());

    let fast = Rig { more: rules, ..rig };
    let mut daemon = launch(&fast).start();
    daemon.wait_ready(PATIENCE);
    daemon.wait_for("everything to leave", PATIENCE, |daemon| (waiting(daemon) == 0.0).then_some(()));
    // Alerts that no longer wait may still be in flight; an orderly stop commits them first.
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());
    let Some(counts) = compare(broker, &fast, &topic) else { return };
    assert!(counts[0] > 2_000 && counts[1] > 300, "{counts:?}");
}
