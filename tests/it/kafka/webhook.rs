//! The alert topic, posted to an endpoint: every alert, in order per customer, even across kills.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::common::{PATIENCE, Rig, metrics};
use crate::support::hook::{Hook, Posted};
use crate::support::kafka::{self, Broker, MURMUR2, Message};
use crate::support::{scratch, unique};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const PARTITIONS: i32 = 2;

/// A daemon whose webhook is this endpoint, and the topic it reads.
fn rig(broker: &Broker, hook: &Hook) -> (Rig, String) {
    let topic = broker.create_topic(&unique("alerts"), PARTITIONS);
    let secret = scratch().join(unique("secret"));
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let more = format!(
        "[alerts]\ntopic = \"{topic}\"\n[alerts.webhook]\nurl = \"{}\"\nsecret_file = \"{}\"\nallow_private = true\n",
        hook.url(),
        secret.display()
    );
    let rig = Rig { more: more.leak(), ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    (rig, topic)
}

/// Alerts with these numbers, of 20 customers.
fn publish(broker: &Broker, topic: &str, numbers: std::ops::Range<usize>) {
    let alerts = numbers.map(|number| {
        let customer = format!("c-{}", number % 20);
        let alert = format!(
            r#"{{"specversion":"1.0","id":"alert-{number}","type":"retentiond.customer.inactive.v1","data":{{"customer_id":"{customer}"}}}}"#
        );
        (None, Some(customer), Some(alert))
    });
    broker.publish(topic, alerts);
}

fn ids(numbers: std::ops::Range<usize>) -> BTreeSet<String> {
    numbers.map(|number| format!("alert-{number}")).collect()
}

fn positions(broker: &Broker, rig: &Rig, topic: &str) -> BTreeMap<i32, i64> {
    let committed = broker.committed(&format!("{}-webhook", rig.group), topic);
    committed.into_iter().map(|(partition, next)| (partition, next.offset)).collect()
}

fn number(posted: &Posted) -> usize {
    posted.header("webhook-id").trim_start_matches("alert-").parse().unwrap()
}

#[test]
fn every_alert_is_posted_in_order_and_again_only_what_was_not_committed() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    // Every seventh attempt fails, and alert 13 is refused permanently.
    let hook = Hook::start(|attempt, body| match attempt % 7 {
        _ if body.contains("\"alert-13\"") => 404,
        6 => 503,
        _ => 200,
    });
    let (rig, topic) = rig(broker, &hook);
    // Alerts published long before the first start are not sent; the record time decides.
    let old = Message {
        key: Some(b"c-0".to_vec()),
        payload: Some(br#"{"id":"old"}"#.to_vec()),
        timestamp: Some(1_700_000_000_000),
        ..Message::default()
    };
    broker.publish_messages(&topic, MURMUR2, [old]);
    let launch = rig.launch("first");
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    daemon.wait_for("the webhook to have its positions", PATIENCE, |_| {
        (positions(broker, &rig, &topic).len() == PARTITIONS as usize).then_some(())
    });
    publish(broker, &topic, 0..200);
    let all_but = |numbers: std::ops::Range<usize>| {
        let mut expected = ids(numbers);
        expected.remove("alert-13");
        expected
    };
    let taken = || hook.taken().into_iter().collect::<BTreeSet<_>>();
    daemon.wait_for("all alerts to be taken", PATIENCE, |_| (taken() == all_but(0..200)).then_some(()));
    let ends = broker.end_offsets(&topic);
    daemon
        .wait_for("all alerts to be committed", PATIENCE, |_| (positions(broker, &rig, &topic) == ends).then_some(()));

    let reference = standardwebhooks::Webhook::new(SECRET).unwrap();
    let mut last_of = BTreeMap::new();
    for posted in &hook.posted() {
        let timestamp = posted.header("webhook-timestamp").parse().unwrap();
        let signature = reference.sign(posted.header("webhook-id"), timestamp, posted.body.as_bytes()).unwrap();
        assert_eq!(posted.header("webhook-signature"), signature);
        let body: serde_json::Value = serde_json::from_str(&posted.body).unwrap();
        assert_eq!(body["id"], posted.header("webhook-id"));
        // The attempts for one customer follow the order of the topic, apart from retries.
        let before = last_of.insert(body["data"]["customer_id"].to_string(), number(posted));
        assert!(before.is_none_or(|before| before <= number(posted)), "{before:?} then {}", number(posted));
    }
    let metrics = metrics(&daemon);
    let counted = |labels: &str| metrics.get(&format!("retentiond_webhook_deliveries_total{{outcome=\"{labels}\"}}"));
    assert!(counted("delivered") >= Some(199.0), "{:?}", counted("delivered"));
    assert_eq!((counted("given_up"), metrics.get("retentiond_webhook_disabled")), (Some(1.0), Some(0.0)));
    let dead_letters = broker.consume_all(&rig.dead_letters);
    let [dead_letter] = dead_letters.as_slice() else { panic!("{dead_letters:?}") };
    assert_eq!((dead_letter.json()["id"].as_str(), dead_letter.key_text().as_str()), (Some("alert-13"), "c-13"));
    assert!(
        dead_letter.header("retentiond.error.reason").unwrap().starts_with("webhook_rejected: "),
        "{dead_letter:?}"
    );
    assert_eq!(dead_letter.header("retentiond.error.topic").as_deref(), Some(topic.as_str()));
    assert!(!daemon.stderr().contains("c-13"), "no customer in the log");

    // Alerts that arrive while no replica runs are posted later; committed ones are not repeated.
    let posted_before = hook.posted().len();
    daemon.kill9();
    publish(broker, &topic, 200..250);
    let mut daemon = launch.start();
    daemon.wait_for("what came meanwhile", PATIENCE, |_| (taken() == all_but(0..250)).then_some(()));
    let later: BTreeSet<_> =
        hook.posted()[posted_before..].iter().map(|posted| posted.header("webhook-id").to_owned()).collect();
    assert_eq!(later, ids(200..250));

    // Killed in between: at least once.
    publish(broker, &topic, 250..600);
    daemon.wait_for("some of them", PATIENCE, |_| (taken().len() > 300).then_some(()));
    daemon.kill9();
    let mut daemon = launch.start();
    daemon.wait_for("the rest", PATIENCE, |_| (taken() == all_but(0..600)).then_some(()));
    // An orderly stop commits everything that was delivered. There may be more to fetch again: the next start posts
    // exactly that.
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());
    let (committed, ends, taken_by_then) =
        (positions(broker, &rig, &topic), broker.end_offsets(&topic), hook.taken().len());
    let left: i64 = ends.iter().map(|(partition, end)| end - committed[partition]).sum();
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    daemon.wait_for("the rest to be committed", PATIENCE, |_| (positions(broker, &rig, &topic) == ends).then_some(()));
    assert_eq!((hook.taken().len() - taken_by_then) as i64, left);
}

#[test]
fn an_endpoint_that_is_gone_is_left_alone_until_a_restart() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let hook = Hook::start(|attempt, _| if attempt < 3 { 200 } else { 410 });
    let (rig, topic) = rig(broker, &hook);
    let mut daemon = rig.launch("first").start();
    daemon.wait_for("the webhook to have its positions", PATIENCE, |_| {
        (positions(broker, &rig, &topic).len() == PARTITIONS as usize).then_some(())
    });
    publish(broker, &topic, 0..40);
    daemon.wait_for("the end", PATIENCE, |daemon| {
        (metrics(daemon).get("retentiond_webhook_disabled") == Some(1.0)).then_some(())
    });
    daemon.wait_ready(PATIENCE);
    let (_, body) = daemon.get("/readyz");
    assert!(body.contains("410"), "{body}");
    // Those in flight, and no more.
    assert!(hook.posted().len() <= 3 + 8, "{}", hook.posted().len());
    let behind: i64 =
        broker.end_offsets(&topic).values().sum::<i64>() - positions(broker, &rig, &topic).values().sum::<i64>();
    assert!(behind >= 37, "{behind}");
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());
}
