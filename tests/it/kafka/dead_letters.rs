//! Dead letters: replayed after a fix, refused permanently, and too many of them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::common::{PATIENCE, Rig, assert_equals_replay, metrics, summary};
use crate::support::cli::{self, Said};
use crate::support::daemon::Daemon;
use crate::support::history;
use crate::support::kafka::{self, Broker, MURMUR2, Message};
use crate::support::{scratch, unique, wait_for};

const PARTITIONS: i32 = 2;
/// Settings that accept orders of the year 2099.
const FIXED: &str = "[customers]\nmax_future = \"36500d\"\n[time]\nhistory_whole = true\n";

/// Orders of 2099, which are in the future, in time order.
fn orders() -> Vec<(String, String)> {
    let order = |number: usize| {
        let (customer, day, hour) = (format!("c-{}", number % 40), 1 + number / 24, number % 24);
        let order = format!(
            r#"{{"type":"order","order_id":"o-{number}","customer_id":"{customer}","time":"2099-03-{day:02}T{hour:02}:00:00Z","amount":"{}.50","currency":"EUR"}}"#,
            number % 90
        );
        (customer, order)
    };
    (0..600).map(order).collect()
}

/// `retentiond dlq` with the configuration of a rig.
fn dlq(config: &Path, args: &[&str]) -> Said {
    let mut all = vec!["dlq", args[0], "--config", config.to_str().unwrap()];
    all.extend(&args[1..]);
    cli::run(all)
}

/// The number in the last line.
fn count(said: &Said) -> u64 {
    assert_eq!(said.code, Some(0), "{said:?}");
    let line = said.stdout.lines().find(|line| line.ends_with(" back.")).unwrap_or("0");
    line.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn letters_go_back_once_each_and_figures_are_as_if_nothing_had_been_wrong() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let wrong = Rig::new(broker);
    wrong.create_topics(broker, PARTITIONS);
    let orders = orders();
    let message = |(customer, order): &(String, String)| Message {
        key: Some(customer.clone().into_bytes()),
        payload: Some(order.clone().into_bytes()),
        timestamp: Some(1_700_000_000_000),
        headers: vec![("trace".to_owned(), b"\xff".to_vec())],
        ..Message::default()
    };
    broker.publish_messages(&wrong.orders, MURMUR2, orders.iter().map(message));
    let mut daemon = wrong.launch("first").start();
    daemon.wait_ready(PATIENCE);
    daemon.wait_for("all dead letters", PATIENCE, |daemon| {
        (metrics(daemon).get("retentiond_dead_letters_total") == Some(600.0)).then_some(())
    });
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());

    let config = scratch().join(unique("dlq.toml"));
    fs::write(
        &config,
        format!(
            "[kafka]\nbrokers = \"{}\"\ngroup_id = \"{}\"\n[sources.orders]\ntopic = \"{}\"\n[dead_letters]\ntopic = \"{}\"\n",
            wrong.brokers, wrong.group, wrong.orders, wrong.dead_letters
        ),
    )
    .unwrap();
    let there = dlq(&config, &["ls"]);
    assert!(there.stdout.contains("in_the_future") && there.stdout.contains(&wrong.orders), "{there:?}");
    assert_eq!(count(&there), 600);
    assert_eq!(count(&dlq(&config, &["replay", "--dry-run", "--limit", "7"])), 7);
    let before = broker.end_offsets(&wrong.orders);
    // Others stay, in order, whatever is selected.
    assert_eq!(count(&dlq(&config, &["replay", "--reason", "too_late"])), 0);
    assert_eq!(count(&dlq(&config, &["ls", "--topic", "another"])), 0);
    assert_eq!(broker.end_offsets(&wrong.orders), before);
    assert_eq!(count(&dlq(&config, &["replay", "--limit", "150", "--reason", "in_the_future"])), 150);
    assert_eq!(count(&dlq(&config, &["ls"])), 450);
    assert_eq!(count(&dlq(&config, &["replay", "--until", "2100-01-01T00:00:00Z"])), 450);
    for again in [dlq(&config, &["replay"]), dlq(&config, &["ls"])] {
        assert_eq!((count(&again), again.stdout.as_str()), (0, "No dead letters.\n"));
    }

    // Each message is unchanged: key, value, headers, time and partition.
    let records = broker.consume_all(&wrong.orders);
    assert_eq!(records.len(), 1_200);
    for partition in 0..PARTITIONS {
        let of: Vec<_> = records.iter().filter(|record| record.partition == partition).collect();
        let (first, second) = of.split_at(of.len() / 2);
        for (first, second) in first.iter().zip(second) {
            assert_eq!((&first.key, &first.payload, &first.headers), (&second.key, &second.payload, &second.headers));
            assert_eq!(first.timestamp, second.timestamp);
        }
    }

    let fixed = Rig { more: FIXED, ..wrong.clone() };
    let token = scratch().join(unique("token"));
    fs::write(&token, "hunter2\n").unwrap();
    let mut daemon = fixed.launch("first").env("RETENTIOND__HTTP__TOKEN_FILE", token.to_str().unwrap()).start();
    daemon.wait_ready(PATIENCE);
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let lines: String = orders.iter().map(|(_, order)| format!("{order}\n")).collect();
    let events = history::write(dir.path(), "events.ndjson", lines);
    let known = history::write(dir.path(), "replay.toml", FIXED);
    let found = summary(&daemon);
    let as_of = found["as_of"].as_str().expect("there were events");
    assert_equals_replay(&found, &cli::replay_as_daemon(&[&events], Some(&known), as_of));
    assert_explained(&daemon, &token);
    assert_eq!(found["windows"][3]["orders"], 600 - beyond(&orders, as_of), "{}", found["windows"][3]);
}

/// One of them decoded, through the daemon.
fn assert_explained(daemon: &Daemon, token: &Path) {
    let url = format!("http://{}", daemon.http_addr());
    let explain = |customer: &str, more: &[&str]| {
        let mut args = vec!["explain", customer, "--url", url.as_str()];
        args.extend(more);
        cli::run(args)
    };
    let with_token = ["--token-file", token.to_str().unwrap()];
    let told = explain("c-7", &with_token);
    assert_eq!(told.code, Some(0), "{told:?}");
    for part in ["customer c-7 as of 2099-03-", "loyal: 15 orders", "active: ordered lately", "EUR ", "from 2099-"] {
        assert!(told.stdout.contains(part), "{part} in {}", told.stdout);
    }
    for (code, said) in [
        (66, explain("nobody", &with_token)),
        (77, explain("c-7", &[])),
        (77, explain("c-7", &["--token-file", "/dev/null"])),
        (69, cli::run(["explain", "c-7", "--url", "http://127.0.0.1:1"])),
    ] {
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(!said.stderr.contains("c-7") && said.stdout.is_empty(), "{said:?}");
    }
    let (status, list) = daemon.try_get("/api/v1/at-risk?limit=3", &[("Authorization", "Bearer hunter2")]).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((status, &list["total_at_risk"], &list["currency"]), (200, &Value::from(0), &Value::from("EUR")));
}

/// The number of orders after a time, comparing texts.
fn beyond(orders: &[(String, String)], as_of: &str) -> usize {
    let time = |order: &str| serde_json::from_str::<Value>(order).unwrap()["time"].as_str().unwrap()[..10].to_owned();
    orders.iter().filter(|(_, order)| time(order).as_str() > &as_of[..10]).count()
}

fn garbage(broker: &Broker, topic: &str, messages: usize) {
    broker.publish(topic, (0..messages).map(|n| (None, Some(format!("secret-{n}")), Some("<xml/>".to_owned()))));
}

#[test]
fn a_wrong_format_ends_the_program_before_a_topic_is_all_dead_letters() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig { commit_every: "1h", ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    garbage(broker, &rig.orders, 3_000);
    let mut daemon = rig.launch("first").start();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(78), "{}", daemon.stderr());
    let said = daemon.stderr();
    for part in [&rig.orders, "invalid_json", "offset", "[sources]", "dead_letters.stop_after = 0"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("secret-"), "{said}");
    let committed = broker.committed(&rig.group, &rig.orders);
    assert!(committed.values().all(|committed| committed.offset == 0), "{committed:?}");
    assert!(broker.consume_all(&rig.dead_letters).is_empty());

    // An operator can choose to send all of them to the dead-letter topic.
    let rig = Rig { commit_every: "1s", more: "", ..rig };
    let mut daemon = rig.launch("first").env("RETENTIOND__DEAD_LETTERS__STOP_AFTER", "0").start();
    daemon.wait_ready(PATIENCE);
    daemon.wait_for("all dead letters", PATIENCE, |daemon| {
        (metrics(daemon).get("retentiond_dead_letters_total") == Some(3_000.0)).then_some(())
    });
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());
}

#[test]
fn a_letter_is_cut_off_to_what_its_topic_takes_and_ends_the_program_only_where_that_is_next_to_nothing() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    for kafka in ["", "delivery = \"at_least_once\""] {
        let rig = Rig { kafka, ..Rig::new(broker) };
        rig.create_topics(broker, PARTITIONS);
        broker.create_topic_with(&rig.dead_letters, PARTITIONS, &[("max.message.bytes", "300")]);
        let large = "x".repeat(300_000);
        broker.publish(&rig.orders, [(None, Some("c-1"), Some(large.as_str()))]);
        let mut daemon = rig.launch("first").start();
        assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(78), "{kafka}: {}", daemon.stderr());
        let said = daemon.stderr();
        assert!(said.contains("max.message.bytes") && said.contains(&rig.dead_letters), "{said}");

        // The truncated record fits, however small the limit.
        for (instance, room) in [("first", "262144"), ("second", "20000"), ("third", "3000")] {
            let rig = Rig { dead_letters: unique("dead-letters"), group: unique("retentiond"), ..rig.clone() };
            broker.create_topic_with(&rig.dead_letters, PARTITIONS, &[("max.message.bytes", room)]);
            let mut daemon = rig.launch(instance).start();
            daemon.wait_ready(PATIENCE);
            wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
            let dead_letters = broker.consume_all(&rig.dead_letters);
            assert!(!dead_letters.is_empty(), "{room}");
            for dead_letter in dead_letters {
                let most = room.parse::<usize>().unwrap();
                assert!(dead_letter.header("retentiond.error.truncated").is_some(), "{room}");
                let left = dead_letter.payload.map_or(0, |payload| payload.len());
                assert!(left > most / 32 && left < most, "{left} bytes of {most}");
            }
        }
    }
}
