//! `retentiond validate --sample` reads real messages and leaves no trace.

use super::common::{PATIENCE, Rig, metrics, readiness};
use crate::support::cli;
use crate::support::daemon::Launch;
use crate::support::kafka::{self, Broker};
use crate::support::{free_port, scratch, unique};

#[test]
fn a_sample_finds_customers_in_two_partitions_and_commits_nothing() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let topic = broker.create_topic(&unique("sampled"), 3);
    let order = |customer: u32, n: u32| {
        format!(
            r#"{{"type":"order","order_id":"o-{n}","customer_id":"buyer-{customer}","time":"2026-01-02T03:04:05Z","amount":"1.00","currency":"EUR"}}"#
        )
    };
    // Keyed by customer, except that one customer is in every partition.
    let keyed = (0..90).map(|n| (None, Some(format!("buyer-{}", n % 9)), Some(order(n % 9, n))));
    let torn = (0..3).map(|n| (Some(n), Some("x".to_owned()), Some(order(77, 1_000 + u32::try_from(n).unwrap()))));
    assert_eq!(broker.publish(&topic, keyed.chain(torn)), 93);

    let group = unique("sampling");
    let config = scratch().join(format!("{group}.toml"));
    let brokers = broker.brokers();
    let text =
        format!("[kafka]\nbrokers = \"{brokers}\"\ngroup_id = \"{group}\"\n[sources.orders]\ntopic = \"{topic}\"\n");
    std::fs::write(&config, text).unwrap();
    let said = cli::run(["validate", "--sample", "600", "--config", config.to_str().unwrap()]);
    assert_eq!(said.code, Some(78), "{said:?}");
    for line in
        [&format!("{topic}: 93 message(s)"), "      93 order", "10 customer(s), 1 of them in several partitions"]
    {
        assert!(said.stdout.contains(line), "{line}\n{said:?}");
    }
    assert!(said.stderr.contains("1 of 10 customers have events in several partitions"), "{said:?}");
    assert!(!format!("{said:?}").contains("buyer-"), "no customer is named: {said:?}");
    assert!(broker.committed(&group, &topic).is_empty(), "nothing is committed");
}

#[test]
fn a_sample_that_is_mostly_of_no_use_fails_and_a_daemon_over_it_is_not_ready() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    // The same is reported for a repartitioned source.
    ["", "repartition = true\n"].iter().for_each(|source| check_unusable_source(broker, source));
}

fn check_unusable_source(broker: &Broker, source: &str) {
    let rig = Rig::new(broker);
    rig.create_topics(broker, 1);
    let payment = |n: u32| {
        format!(
            r#"{{"id":"evt_{n}","object":"event","type":"payment_intent.succeeded","created":1767225600,"data":{{"object":{{"id":"pi_{n}","object":"payment_intent","customer":"buyer-{n}"}}}}}}"#
        )
    };
    broker.publish(&rig.orders, (0..40).map(|n| (None, Some(format!("buyer-{n}")), Some(payment(n)))));
    let config = scratch().join(unique("unused.toml"));
    let stripe = format!("[sources.orders]\nformat = \"stripe\"\n{source}");
    let text = rig.config("only").replace("[sources.orders]\n", &stripe);
    std::fs::write(&config, &text).unwrap();
    let said = cli::run(["validate", "--sample", "40", "--config", config.to_str().unwrap()]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let types = "40 of unknown types (type \"payment_intent.succeeded\")";
    for words in ["40 of 40 messages", types, "partition 0 offset 0", "sources.orders.format"] {
        assert!(said.stderr.contains(words), "{words} in {said:?}");
    }
    assert!(!format!("{said:?}").contains("buyer-"), "no customer is named: {said:?}");

    let mut daemon = Launch::verb("run").config(text).http_port(free_port()).start();
    let warning = format!("40 of 40 messages of topic {} enter no figure: {types}", rig.orders);
    let in_json = warning.replace('"', "\\\"");
    daemon.wait_for("/readyz to say so", PATIENCE, |daemon| {
        let (status, reasons) = readiness(daemon)?;
        (status == 503 && reasons.contains(&in_json)).then_some(())
    });
    let shown = metrics(&daemon);
    assert_eq!(shown.get(&format!("retentiond_topic_unusable{{topic=\"{}\"}}", rig.orders)), Some(1.0));
    let unknown = format!("retentiond_events_total{{topic=\"{}\",type=\"unknown\"}}", rig.orders);
    assert_eq!(shown.get(&unknown), Some(40.0));
    assert!(daemon.stderr().contains(&in_json), "{}", daemon.stderr());
    assert_eq!(daemon.stderr().matches(" enter no figure").count(), 1, "once: {}", daemon.stderr());
}
