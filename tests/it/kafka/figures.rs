//! The main purpose: real orders through a real Kafka give the figures of `replay` and of SQL.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retentiond::event::{DAY, Time};
use serde_json::{Value, json};

use super::common::{PATIENCE, Rig, assert_equals_replay, metrics, readiness, summary};
use crate::support::daemon::Daemon;
use crate::support::history::{self, Sale};
use crate::support::kafka::{Broker, Committed};
use crate::support::{cli, kafka, oracle, scratch, wait_for};

/// Settings for both the daemon and `replay`: otherwise the start would be derived from the events, and `replay` also
/// sees the sessions.
pub const KNOWN: &str = "
[time]
data_begin = \"1997-01-01T00:00:00Z\"
history_whole = true
";

/// An event: time, customer, and content.
type Line = (i64, String, String);

/// The orders of CDNOW in time order; they have no ids, so equal orders of a customer on one day all count.
fn orders() -> Vec<Line> {
    let line = |sale: Sale| (Time::parse(&sale.time()).unwrap().millis(), sale.customer.clone(), sale.native());
    let mut orders: Vec<Line> = history::cdnow_master().into_iter().map(line).collect();
    orders.sort_by_key(|(time, ..)| *time);
    orders
}

/// Up to three visits in the three days before each order, visits of people who never order, and duplicates.
fn sessions(orders: &[Line]) -> Vec<Line> {
    let mut chance = ChaCha8Rng::seed_from_u64(3);
    let mut sessions = Vec::new();
    for (number, (time, customer, _)) in orders.iter().enumerate() {
        let visits = chance.random_range(0..4);
        for visit in 0..visits {
            let visitor = if chance.random_bool(0.05) { format!("visitor-{number}") } else { customer.clone() };
            let at = Time::clamped(time - chance.random_range(0..3 * DAY));
            let session = format!(
                r#"{{"type":"session","session_id":"s-{number}-{visit}","customer_id":"{visitor}","time":"{at}"}}"#
            );
            let copies = if chance.random_bool(0.02) { 2 } else { 1 };
            sessions.extend((0..copies).map(|_| (at.millis(), visitor.clone(), session.clone())));
        }
    }
    sessions.sort_by_key(|(time, ..)| *time);
    sessions
}

fn publish(broker: &Broker, topic: &str, lines: &[Line]) {
    let messages = lines.iter().map(|(_, key, payload)| (None, Some(key.as_str()), Some(payload.as_str())));
    assert_eq!(broker.publish(topic, messages), lines.len() as u64);
}

fn ndjson(lines: &[Line]) -> String {
    lines.iter().map(|(.., payload)| format!("{payload}\n")).collect()
}

/// Waits until the replica owns this many partitions and is ready.
pub fn wait_for_share(daemon: &mut Daemon, partitions: i64) {
    daemon.wait_for(&format!("{partitions} partitions, caught up"), PATIENCE, |daemon| {
        let ready = readiness(daemon).is_some_and(|(status, _)| status == 200);
        (ready && summary(daemon)["partitions_assigned"] == partitions).then_some(())
    });
}

/// The counts of a window, which add up over replicas; the last element is the revenue in cents.
fn counts(window: &Value) -> Vec<i64> {
    let parts = [
        "start_customers",
        "end_customers",
        "new_customers",
        "lost_customers",
        "retained_customers",
        "reactivated_customers",
        "ordering_customers",
        "repeat_customers",
        "returning_customers",
        "visiting_customers",
        "orders",
        "sessions",
    ];
    let revenue = window["currencies"]["USD"]["revenue"].as_str().unwrap_or("0");
    let cents = revenue.replace('.', "").parse().unwrap();
    parts.iter().map(|part| window[part].as_i64().unwrap()).chain([cents]).collect()
}

pub fn assert_adds_up(parts: &[Value], whole: &Value) {
    for list in ["windows", "calendar"] {
        let whole = whole[list].as_array().unwrap();
        for (i, window) in whole.iter().enumerate() {
            let part = |part: &Value| counts(part[list].as_array().unwrap().get(i).unwrap());
            let sum = parts.iter().map(part).reduce(|a, b| a.iter().zip(b).map(|(a, b)| a + b).collect()).unwrap();
            assert_eq!(sum, counts(window), "{list} {} {}", window["window"], window["from"]);
        }
    }
}

#[test]
fn figures_equal_replay_and_sql_alone_and_together() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig { more: KNOWN, ..Rig::new(broker) };
    rig.create_topics(broker, 4);
    let orders = orders();
    let sessions = sessions(&orders);
    publish(broker, &rig.orders, &orders);
    publish(broker, &rig.sessions, &sessions);

    let launch = rig.launch("first");
    let mut first = launch.start();
    first.wait_ready(PATIENCE);
    let whole = summary(&first);
    let metrics = metrics(&first);

    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let events = history::write(dir.path(), "events.ndjson", ndjson(&orders) + &ndjson(&sessions));
    let config = history::write(dir.path(), "replay.toml", KNOWN);
    let as_of = whole["as_of"].as_str().expect("there were events").to_owned();
    let replay = cli::replay_as_daemon(&[&events], Some(&config), &as_of);
    assert_equals_replay(&whole, &replay);
    assert_eq!((&whole["partitions_assigned"], &whole["partitions_total"]), (&json!(4), &json!(4)));

    if let Some(oracle) = oracle::find_or_skip() {
        let data_begin = Time::parse("1997-01-01T00:00:00Z").unwrap().millis();
        let known = json!({"data_begin": data_begin, "history_whole": true});
        let compared =
            oracle.compare(&oracle.oracle(&events, &known, &["windows", "calendar"], &[&as_of]), &json!([whole]));
        assert!(compared > 700, "{compared} figures were compared");
    }

    assert!(metrics.assert_equal(&replay) > 150);
    let events = |topic: &str, kind: &str| {
        metrics
            .get(&format!("retentiond_events_total{{topic=\"{topic}\",type=\"{kind}\"}}"))
            .map(|count| count as usize)
    };
    assert_eq!(events(&rig.orders, "order"), Some(69_659));
    assert_eq!(events(&rig.sessions, "session"), Some(sessions.len()));
    assert_eq!(metrics.get("retentiond_caught_up"), Some(1.0));
    assert_eq!(metrics.get("retentiond_partitions_assigned"), Some(4.0));
    let as_of_seconds = Time::parse(&as_of).unwrap().millis() as f64 / 1000.0;
    assert_eq!(metrics.get("retentiond_as_of_timestamp_seconds"), Some(as_of_seconds));
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));

    // Two replicas share the partitions, and their figures add up to the total.
    let mut second = rig.launch("second").start();
    wait_for_share(&mut second, 2);
    wait_for_share(&mut first, 2);
    let parts = [summary(&first), summary(&second)];
    assert_eq!(parts[0]["as_of"], as_of.as_str(), "every partition has orders on the last day");
    assert_eq!(parts[1]["as_of"], as_of.as_str(), "every partition has orders on the last day");
    assert_adds_up(&parts, &replay);

    // One of them is killed; the other takes its partitions over.
    second.kill9();
    wait_for_share(&mut first, 4);
    assert_equals_replay(&summary(&first), &replay);

    first.terminate();
    assert_eq!(first.wait_exit(Duration::from_secs(10)).code(), Some(0), "{}", first.stderr());
    assert!(rig.all_committed(broker));
}

#[test]
fn what_was_applied_is_committed_when_asked_to_stop() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    // Only the stop commits.
    let rig = Rig { commit_every: "1h", ..Rig::new(broker) };
    rig.create_topics(broker, 2);
    let orders: Vec<Line> = orders().into_iter().take(1000).collect();
    publish(broker, &rig.orders, &orders);
    let launch = rig.launch("only");
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    let before = summary(&daemon);
    let committed = broker.committed(&rig.group, &rig.orders);
    let is_genesis = |committed: &Committed| committed.offset == 0 && committed.metadata.starts_with("v1;genesis;");
    assert!(committed.len() == 2 && committed.values().all(is_genesis), "{committed:?}");
    daemon.terminate();
    assert_eq!(daemon.wait_exit(Duration::from_secs(10)).code(), Some(0), "{}", daemon.stderr());
    assert!(rig.all_committed(broker));

    // The same instance returns at once with the same state.
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    assert_eq!(summary(&daemon), before);
}
