//! Clusters that do not match, do not exist yet, or go away.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use super::common::{PATIENCE, Rig, publish_sales, readiness, summary};
use crate::support::daemon::Daemon;
use crate::support::history::{self, Sale, first_sales};
use crate::support::kafka;
use crate::support::{cli, free_port, scratch, wait_for};

/// Timeout until a configuration error shows.
const SOON: Duration = Duration::from_secs(20);

fn is_alive(daemon: &Daemon) -> bool {
    daemon.try_get("/healthz", &[]).is_ok_and(|(status, _)| status == 200)
}

/// Waits until the daemon is alive but not ready, with these words.
fn wait_for_reason(daemon: &mut Daemon, words: &str) {
    daemon.wait_for(&format!("/readyz to say {words:?}"), PATIENCE, |daemon| {
        let (status, reasons) = readiness(daemon)?;
        (status == 503 && reasons.contains(words)).then_some(())
    });
    assert!(is_alive(daemon));
}

/// Waits until the daemon is ready and its figures equal `replay` of exactly these sales, near their end: its slowest
/// partition may have no order on the last days.
fn wait_for_figures(daemon: &mut Daemon, sales: &[Sale]) {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let events = history::write(dir.path(), "events.csv", history::csv(sales));
    let late = sales[sales.len() * 9 / 10].time();
    let replay = |summary: &Value| match summary["as_of"].as_str() {
        Some(as_of) => cli::replay_as_daemon(&[&events], None, as_of),
        None => cli::replay(&[&events], None, None),
    };
    let equal =
        |summary: &Value| replay(summary).as_object().is_some_and(|all| all.iter().all(|(k, v)| summary[k] == *v));
    let what = format!("the figures of {} orders", sales.len());
    daemon.wait_for(&what, PATIENCE, |daemon| {
        let ready = readiness(daemon).is_some_and(|(status, _)| status == 200);
        let summary = summary(daemon);
        (ready && summary["as_of"].as_str()? >= late.as_str() && equal(&summary)).then_some(())
    });
}

#[test]
fn unequal_partition_counts_are_refused() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    broker.create_topic(&rig.orders, 4);
    broker.create_topic(&rig.sessions, 3);
    let mut daemon = rig.launch("only").start();
    assert_eq!(daemon.wait_exit(SOON).code(), Some(78));
    let said = daemon.stderr();
    for word in [&rig.orders, &rig.sessions, "has 4", "has 3"] {
        assert!(said.contains(word), "{word} in {said}");
    }
}

#[test]
fn a_missing_topic_is_named_and_waited_for() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    broker.create_topic(&rig.orders, 2);
    let sales = first_sales(500);
    publish_sales(broker, &rig.orders, &sales);
    let mut daemon = rig.launch("only").start();
    wait_for_reason(&mut daemon, &format!("do not exist: {}", rig.sessions));
    assert!(!readiness(&daemon).unwrap().1.contains(&rig.orders), "only what is missing is named");
    broker.create_topic(&rig.sessions, 2);
    wait_for_figures(&mut daemon, &sales);
}

#[test]
fn a_port_in_use_is_told_at_once() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let taken = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut daemon = Rig::new(broker).launch("only").http_port(port).start();
    assert_eq!(daemon.wait_exit(SOON).code(), Some(1));
    let said = daemon.stderr();
    assert!(said.contains(&format!("127.0.0.1:{port} is in use; set http.listen")), "{said}");
}

#[test]
fn a_broker_that_is_not_there_is_waited_for_until_asked_to_stop() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig { brokers: format!("127.0.0.1:{}", free_port()), ..Rig::new(broker) };
    let mut daemon = rig.launch("only").start();
    wait_for_reason(&mut daemon, &rig.brokers);
    assert_eq!(summary(&daemon)["as_of"], Value::Null);
    daemon.terminate();
    assert_eq!(daemon.wait_exit(SOON).code(), Some(0), "{}", daemon.stderr());
}

#[test]
fn a_broker_that_comes_and_goes_changes_no_figure() {
    let Some(mut broker) = kafka::start_or_skip() else { return };
    let rig = Rig::new(&broker);
    rig.create_topics(&broker, 4);
    let sales = first_sales(3000);
    publish_sales(&broker, &rig.orders, &sales[..1000]);
    broker.stop();

    let mut daemon = rig.launch("only").start();
    wait_for_reason(&mut daemon, &rig.brokers);
    broker.restart();
    wait_for_figures(&mut daemon, &sales[..1000]);

    // Killed while offsets may be in flight.
    publish_sales(&broker, &rig.orders, &sales[1000..2000]);
    daemon.wait_for("news", PATIENCE, |daemon| {
        (summary(daemon)["as_of"].as_str()? >= sales[1900].time().as_str()).then_some(())
    });
    broker.kill();
    daemon.wait_for("the outage to be noticed", PATIENCE, |daemon| {
        daemon.stderr().contains("Connection refused").then_some(())
    });
    assert!(is_alive(&daemon), "an outage is no reason to restart");
    broker.restart();
    wait_for_figures(&mut daemon, &sales[..2000]);
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(&broker).then_some(()));
    publish_sales(&broker, &rig.orders, &sales[2000..]);
    wait_for_figures(&mut daemon, &sales);
    daemon.terminate();
    assert_eq!(daemon.wait_exit(SOON).code(), Some(0), "{}", daemon.stderr());
    assert!(rig.all_committed(&broker));
}

#[test]
fn of_two_replicas_with_one_name_and_one_directory_the_newer_gives_way() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    rig.create_topics(broker, 1);
    let mut older = rig.launch("twin").start();
    older.wait_ready(PATIENCE);
    let mut newer = rig.launch("twin").start();
    assert_eq!(newer.wait_exit(PATIENCE).code(), Some(75), "{}", newer.stderr());
    assert!(newer.stderr().contains("kafka.instance_id"), "{}", newer.stderr());
    older.wait_ready(PATIENCE);
}

#[test]
fn of_two_replicas_with_one_name_the_older_gives_way_and_another_store_is_not_begun_with() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    rig.create_topics(broker, 1);
    let mut older = rig.launch("twin").start();
    older.wait_ready(PATIENCE);
    let elsewhere = tempfile::tempdir_in(scratch()).unwrap();
    let url = format!("file://{}", elsewhere.path().display());
    let newer = rig.launch("twin").env("RETENTIOND__CHECKPOINT__URL", &url).start();
    assert_eq!(older.wait_exit(PATIENCE).code(), Some(75), "{}", older.stderr());
    assert!(older.stderr().contains("kafka.instance_id"), "{}", older.stderr());
    wait_for("the store to be noticed", PATIENCE, || newer.get("/readyz").1.contains("checkpoint.url").then_some(()));
    assert_eq!(newer.get("/readyz").0, 503);
}

#[test]
fn a_store_that_is_not_there_yet_is_waited_for() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    rig.create_topics(broker, 2);
    let sales = first_sales(500);
    publish_sales(broker, &rig.orders, &sales);
    let place = tempfile::tempdir_in(scratch()).unwrap();
    // A file in place of the directory stops even root, who ignores permissions.
    let mount = place.path().join("mount");
    std::fs::write(&mount, "").unwrap();
    let url = format!("file://{}/state", mount.display());
    let mut daemon = rig.launch("only").env("RETENTIOND__CHECKPOINT__URL", &url).start();
    wait_for_reason(&mut daemon, "cannot be opened");
    std::fs::remove_file(&mount).unwrap();
    wait_for_figures(&mut daemon, &sales);
}
