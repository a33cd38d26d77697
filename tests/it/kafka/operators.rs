//! What operators see when group, topics, disk or commits have a fault, and which faults are repaired automatically.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use retentiond::bus::LogClient;
use retentiond::kafka::{GroupProtocol, KafkaSettings};
use serde_json::Value;

use super::common::{PATIENCE, Rig, metrics, publish_sales, readiness, summary};
use super::transactions::Member;
use crate::support::cli::{self, Said};
use crate::support::daemon::Daemon;
use crate::support::history::first_sales;
use crate::support::kafka::{self, Broker};
use crate::support::process::Signal;
use crate::support::{scratch, unique, wait_for};

/// Timeout for checks that run once a minute.
const MINUTES: Duration = Duration::from_secs(150);

/// The body of `/readyz`.
fn ready(daemon: &Daemon) -> Option<Value> {
    let (_, body) = daemon.try_get("/readyz", &[]).ok()?;
    serde_json::from_str(&body).ok()
}

fn says(list: &Value, words: &str) -> bool {
    list.as_array().is_some_and(|all| all.iter().any(|one| one.as_str().is_some_and(|one| one.contains(words))))
}

/// Waits for a note that contains these words; the replica stays ready.
fn wait_for_note(daemon: &mut Daemon, words: &str, patience: Duration) {
    daemon.wait_for(&format!("/readyz to note {words:?}"), patience, |daemon| {
        let answer = ready(daemon)?;
        says(&answer["notes"], words).then(|| assert_eq!(answer["ready"], true, "{answer}"))
    });
}

#[test]
fn a_renamed_topic_is_never_ready_without_partitions_and_mends_itself() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    PROTOCOLS.into_iter().for_each(|kafka| rename_a_topic(broker, kafka));
}

fn rename_a_topic(broker: &Broker, kafka: &'static str) {
    let rig = Rig { kafka, ..Rig::new(broker) };
    rig.create_topics(broker, 2);
    publish_sales(broker, &rig.orders, &first_sales(200));
    let mut daemon = rig.launch("only").start();
    daemon.wait_ready(PATIENCE);
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());

    // At once, while the group still knows the member: it gets back its assignment in the former topic.
    let (orders, sessions) = (unique("orders-renamed"), unique("sessions-renamed"));
    let renamed = Rig { orders, sessions, ..rig.clone() };
    renamed.create_topics(broker, 2);
    publish_sales(broker, &renamed.orders, &first_sales(500));
    let store = format!("file://{}", scratch().join("state").join(unique("renamed")).display());
    let mut daemon = renamed.launch("only").env("RETENTIOND__CHECKPOINT__URL", &store).start();
    wait_to_own(&mut daemon, 2.0);
    let said = daemon.stderr();
    let is_mended = said.contains("belong(s) to no replica") && said.contains("leaving and rejoining the group");
    // Without static membership it does not get the former assignment.
    assert_eq!(is_mended, kafka.is_empty(), "{said}");
    daemon.wait_for("500 orders", PATIENCE, |daemon| {
        let orders = |window: &Value| window["orders"].as_u64();
        let windows = summary(daemon)["windows"].as_array()?.iter().filter_map(orders).max();
        (windows > Some(300)).then_some(())
    });
    assert_eq!(metrics(&daemon).get("retentiond_group_faults"), Some(0.0));
}

/// Both group protocols: classic, and the consumer protocol (KIP-848).
const PROTOCOLS: [&str; 2] = ["", "protocol = \"consumer\""];

/// Waits until the replica is ready with this many partitions; without any it must not be ready.
fn wait_to_own(daemon: &mut Daemon, partitions: f64) {
    daemon.wait_for(&format!("the replica to own {partitions} partition(s)"), PATIENCE, |daemon| {
        let (status, reasons) = readiness(daemon)?;
        let assigned = metrics(daemon).get("retentiond_partitions_assigned");
        assert!(status == 503 || assigned > Some(0.0), "ready with {assigned:?} partitions: {reasons}");
        (status == 200 && assigned == Some(partitions)).then_some(())
    });
}

#[test]
fn a_replica_is_never_ready_while_a_dead_one_holds_every_partition() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    for kafka in PROTOCOLS {
        let rig = Rig { kafka, ..Rig::new(broker) };
        rig.create_topics(broker, 2);
        publish_sales(broker, &rig.orders, &first_sales(200));
        let mut dead = rig.launch("dead").start();
        wait_to_own(&mut dead, 2.0);
        dead.kill9();
        let mut heir = rig.launch("heir").start();
        wait_to_own(&mut heir, 2.0);
        assert_eq!(metrics(&heir).get("retentiond_group_faults"), Some(0.0), "{kafka}");
    }
}

#[test]
fn a_spare_replica_is_ready_once_the_others_own_everything() {
    // Under the consumer protocol a replica without partitions never gets an assignment, and stays "not joined".
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    rig.create_topics(broker, 1);
    publish_sales(broker, &rig.orders, &first_sales(200));
    let mut first = rig.launch("first").start();
    wait_to_own(&mut first, 1.0);
    let mut second = rig.launch("second").start();
    second.wait_ready(PATIENCE);
    first.wait_ready(PATIENCE);
    let owned = [&first, &second].map(|daemon| metrics(daemon).get("retentiond_partitions_assigned").unwrap());
    assert_eq!(owned.iter().sum::<f64>(), 1.0, "{owned:?}");
    assert_eq!(metrics(&second).get("retentiond_group_faults"), Some(0.0));
}

#[test]
fn another_program_in_the_group_is_named_and_no_replica_is_ready() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    for (kafka, protocol) in PROTOCOLS.into_iter().zip([GroupProtocol::Classic, GroupProtocol::Consumer]) {
        let rig = Rig { kafka, ..Rig::new(broker) };
        rig.create_topics(broker, 2);
        publish_sales(broker, &rig.orders, &first_sales(200));
        let mut daemon = rig.launch("first").start();
        wait_to_own(&mut daemon, 2.0);
        let settings = KafkaSettings {
            brokers: rig.brokers.clone(),
            group_id: rig.group.clone(),
            instance_id: None,
            protocol,
            topics: vec![rig.orders.clone()],
            options: BTreeMap::new(),
        };
        let stranger = RefCell::new(Member::join(&settings));
        daemon.wait_for("/readyz to name the other member", MINUTES, |daemon| {
            stranger.borrow_mut().step();
            let (status, reasons) = readiness(daemon)?;
            (status == 503 && reasons.contains("belong(s) to different members of the group")).then_some(())
        });
        assert!(metrics(&daemon).get("retentiond_group_faults") >= Some(1.0), "{kafka}");
        stranger.into_inner().client.close(PATIENCE);
        wait_to_own(&mut daemon, 2.0);
    }
}

#[test]
fn a_source_that_is_added_fails_closed_and_is_never_ready_without_partitions() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    rig.create_topics(broker, 2);
    publish_sales(broker, &rig.orders, &first_sales(200));
    let mut daemon = rig.launch("only").start();
    daemon.wait_ready(PATIENCE);
    daemon.terminate();
    daemon.wait_exit(PATIENCE);
    let added = broker.create_topic(&unique("added"), 2);
    let mut daemon = rig.launch("only").env("RETENTIOND__SOURCES__ADDED__TOPIC", &added).start();
    daemon.wait_for("the partitions to be refused", PATIENCE, |daemon| {
        let (status, reasons) = readiness(daemon)?;
        assert_eq!(status, 503, "{reasons}");
        let words = format!("topic \\\"{added}\\\" has no committed offset");
        (reasons.contains(&words) && reasons.contains("kafka.group_id")).then_some(())
    });
}

#[test]
fn partitions_added_while_it_runs_are_named_with_the_remedy() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    rig.create_topics(broker, 2);
    publish_sales(broker, &rig.orders, &first_sales(200));
    let mut daemon = rig.launch("only").start();
    daemon.wait_ready(PATIENCE);
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    broker.add_partitions(&rig.orders, 4);
    daemon.wait_for("/readyz to name the partitions", MINUTES, |daemon| {
        let (status, reasons) = readiness(daemon)?;
        (status == 503 && reasons.contains(&format!("topic {} has 4", rig.orders))).then_some(())
    });
    let (_, reasons) = readiness(&daemon).unwrap();
    for words in ["started with 2", "kafka.group_id", "Give all source topics equally many"] {
        assert!(reasons.contains(words), "{words} in {reasons}");
    }
    assert!(daemon.stderr().contains("the number of partitions has changed"), "{}", daemon.stderr());
    let shown = metrics(&daemon);
    assert!(shown.get("retentiond_group_faults") >= Some(1.0));
    assert_eq!(shown.get(&format!("retentiond_source_partitions{{topic=\"{}\"}}", rig.orders)), Some(4.0));
    assert_eq!(shown.get("retentiond_partitions_assigned"), Some(2.0), "what nobody has state of is not processed");

    // The same for every topic: after a restart the state is known to be of another partition count.
    broker.add_partitions(&rig.sessions, 4);
    daemon.terminate();
    daemon.wait_exit(PATIENCE);
    let mut daemon = rig.launch("only").start();
    daemon.wait_for("the partitions to fail closed", PATIENCE, |daemon| {
        let (status, reasons) = readiness(daemon)?;
        (status == 503 && reasons.contains("had 2 partitions and now have 4")).then_some(())
    });
}

#[test]
fn many_small_letters_that_are_too_large_together_are_delivered_whole() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    for kafka in ["", "delivery = \"at_least_once\""] {
        let rig = Rig { kafka, ..Rig::new(broker) };
        rig.create_topics(broker, 2);
        broker.create_topic_with(&rig.dead_letters, 1, &[("max.message.bytes", "3000")]);
        broker.publish(&rig.orders, (0..400).map(|n| (None, Some(format!("c-{n}")), Some(format!("<order n={n}/>")))));
        let mut daemon = rig.launch("first").env("RETENTIOND__DEAD_LETTERS__STOP_AFTER", "0").start();
        daemon.wait_ready(PATIENCE);
        wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
        let dead_letters = broker.consume_all(&rig.dead_letters);
        let mut found: Vec<_> = dead_letters.iter().map(|dead_letter| dead_letter.key_text()).collect();
        found.sort();
        found.dedup();
        assert_eq!(found.len(), 400, "{kafka}");
        assert!(
            dead_letters.iter().all(|dead_letter| dead_letter.header("retentiond.error.truncated").is_none()),
            "{kafka}"
        );
        assert!(
            dead_letters
                .iter()
                .all(|dead_letter| dead_letter.header("retentiond.error.group").as_ref() == Some(&rig.group))
        );
    }
}

#[test]
fn commits_that_stop_are_told_by_readyz_and_metrics_until_they_go_on() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    rig.create_topics(broker, 2);
    publish_sales(broker, &rig.orders, &first_sales(100));
    let mut daemon = rig.launch("first").env("RETENTIOND__CHECKPOINT__STALE_AFTER", "4s").start();
    daemon.wait_ready(PATIENCE);
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    broker.delete_topic(&rig.dead_letters);
    broker.publish(&rig.orders, [(None, Some("c-1"), Some("<xml/>"))]);
    wait_for_note(&mut daemon, "no checkpoint has been committed for", MINUTES);
    let shown = metrics(&daemon);
    assert_eq!(shown.get("retentiond_checkpoint_stale"), Some(1.0));
    assert!(says(&ready(&daemon).unwrap()["notes"], &rig.dead_letters), "the reason is named");
    assert!(shown.get("retentiond_checkpoint_uncommitted_seconds") > Some(4.0));

    broker.create_topic(&rig.dead_letters, 1);
    daemon.wait_for("the note to go", MINUTES, |daemon| (ready(daemon)?["notes"].is_null()).then_some(()));
    assert_eq!(metrics(&daemon).get("retentiond_checkpoint_stale"), Some(0.0));
    assert_eq!(broker.consume_all(&rig.dead_letters).len(), 1);
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_signal() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    rig.create_topics(broker, 1);
    publish_sales(broker, &rig.orders, &first_sales(6_000));
    // Blocks of 512 or 1024 bytes: enough for the log, too little for the state.
    let launch = rig.launch("first").within(&["sh", "-c", "ulimit -f 40; exec \"$@\"", "sh"]);
    let mut daemon = launch.env("RETENTIOND__CHECKPOINT__STALE_AFTER", "3s").start();
    wait_for_note(&mut daemon, "File too large", MINUTES);
    assert!(daemon.runs(), "{}", daemon.stderr());
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());
}

#[test]
fn a_hangup_stops_it_in_order() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig { commit_every: "1h", ..Rig::new(broker) };
    rig.create_topics(broker, 1);
    publish_sales(broker, &rig.orders, &first_sales(100));
    let mut daemon = rig.launch("first").start();
    daemon.wait_ready(PATIENCE);
    daemon.signal(Signal::Hangup);
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());
    assert!(rig.all_committed(broker), "a last checkpoint was committed");
    assert!(daemon.stderr().contains("SIGHUP"), "{}", daemon.stderr());
}

/// `retentiond dlq` for a group of a shared dead-letter topic.
fn dlq(rig: &Rig, args: &[&str]) -> Said {
    let config = scratch().join(unique("dlq.toml"));
    let Rig { brokers, group, orders, dead_letters, .. } = rig;
    let text = format!(
        "[kafka]\nbrokers = \"{brokers}\"\ngroup_id = \"{group}\"\n[sources.orders]\ntopic = \"{orders}\"\n\
         [dead_letters]\ntopic = \"{dead_letters}\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut all = vec!["dlq"];
    all.extend(args);
    all.extend(["--config", config.to_str().unwrap()]);
    let said = cli::run(all);
    assert_eq!(said.code, Some(0), "{said:?}");
    said
}

#[test]
fn each_group_puts_back_its_own_letters_of_a_shared_topic() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let one = Rig::new(broker);
    let two = Rig { dead_letters: one.dead_letters.clone(), ..Rig::new(broker) };
    for (rig, dead_letters) in [(&one, 3), (&two, 5)] {
        rig.create_topics(broker, 1);
        broker.publish(&rig.orders, (0..dead_letters).map(|n| (None, Some(format!("c-{n}")), Some("<xml/>"))));
        let mut daemon = rig.launch("first").start();
        daemon.wait_ready(PATIENCE);
        wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    }
    let own = dlq(&one, &["ls"]);
    assert!(
        own.stdout.contains("3 could go back.") && own.stdout.contains("5 dead letter(s) of other groups"),
        "{own:?}"
    );
    assert!(!own.stdout.contains(&two.orders), "{own:?}");
    // The others stay, for their own group.
    assert!(dlq(&one, &["replay", "--reason", "too_late"]).stdout.contains("0 went back."));
    assert!(dlq(&two, &["replay", "--limit", "2"]).stdout.contains("2 went back."));
    assert!(dlq(&one, &["replay"]).stdout.contains("3 went back."));
    assert!(dlq(&two, &["replay"]).stdout.contains("3 went back."));
    for (rig, dead_letters) in [(&one, 3), (&two, 5)] {
        assert!(dlq(rig, &["replay"]).stdout.starts_with("No dead letters."));
        assert_eq!(broker.consume_all(&rig.orders).len(), 2 * dead_letters, "each went back once");
    }
}
