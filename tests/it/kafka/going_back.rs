//! A damaged checkpoint stops its partition, is found by `checkpoint verify`, and can be undone by `rewind`.

use std::fs;

use serde_json::Value;

use super::common::{PATIENCE, Rig, assert_equals_replay, readiness, summary};
use super::durability::{LAST, PARTITIONS, last_orders, native, publish, replay};
use super::figures::KNOWN;
use crate::support::kafka;
use crate::support::{history, wait_for};

/// The output of `checkpoint ls` for a partition.
fn listed(rig: &Rig, partition: i32, args: &[&str]) -> Value {
    let said = rig.run("only", &[&["checkpoint", "ls", "--format", "json"], args].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    let catalogue: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(catalogue["group"], rig.group.as_str());
    let partitions = catalogue["partitions"].as_array().unwrap();
    partitions.iter().find(|listing| listing["partition"] == partition).unwrap().clone()
}

#[test]
fn a_damaged_checkpoint_is_gone_back_behind() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig { commit_every: "200ms", more: KNOWN, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let orders = native(history::disorder(&history::cdnow_sample(), 0));
    let parts: Vec<_> = orders.chunks(orders.len() / 3 + 1).collect();
    let last = last_orders();
    let url = format!("file://{}", rig.store("only").display());
    let launch = rig.launch("only").env("RETENTIOND__CHECKPOINT__URL", &url);
    let all_committed = || wait_for("all to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));

    publish(broker, &rig.orders, parts[0]);
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    all_committed();
    let former = broker.committed(&rig.group, &rig.orders);
    publish(broker, &rig.orders, parts[1]);
    daemon.wait_for("the next checkpoints", PATIENCE, |_| {
        let now = broker.committed(&rig.group, &rig.orders);
        (rig.all_committed(broker) && now.iter().all(|(p, next)| next.offset > former[p].offset)).then_some(())
    });
    daemon.kill9();
    let newest = broker.committed(&rig.group, &rig.orders);

    // A bit flips in the newest file of partition 0.
    let listing = listed(&rig, 0, &[]);
    let manifest = listing["manifests"][0].clone();
    assert_eq!(manifest["committed"], true, "{listing}");
    assert!(newest[&0].metadata.contains(manifest["manifest"].as_str().unwrap()), "{newest:?}");
    assert_eq!(manifest["offsets"][&rig.orders], newest[&0].offset);
    let name = manifest["manifest"].as_str().unwrap();
    let state = name.replace(".json", ".state");
    let path = rig.store("only").join(&rig.group).join(&state);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();

    let mut daemon = launch.start();
    let reason = daemon.wait_for("partition 0 to stop", PATIENCE, |daemon| {
        readiness(daemon).filter(|(_, reasons)| reasons.contains("rewind")).map(|(status, reasons)| {
            assert_eq!(status, 503);
            reasons
        })
    });
    assert!(reason.contains(&state) && reason.contains("retentiond rewind"), "{reason}");
    daemon.kill9();

    let said = rig.run("only", &["checkpoint", "inspect", "--partition", "0"]);
    assert!(said.code == Some(1) && said.stdout.contains(&format!("{state}: damaged")), "{said:?}");
    let said = rig.run("only", &["checkpoint", "inspect", "--partition", "1", "--format", "json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(report[0]["whole"] == true && report[0]["totals"]["customers"].as_u64() > Some(100), "{report}");
    assert_eq!(report[0]["customers"], report[0]["totals"]["customers"]);

    let rewind = ["rewind", "--partition", "0", "--to-newest"];
    let said = rig.run_on_empty_group("only", &rewind);
    assert!(said.code == Some(1) && said.stderr.contains("add --yes"), "{said:?}");
    assert!(said.stdout.contains(&format!("passed over  {name}: {state} is damaged")), "{said:?}");
    assert_eq!(broker.committed(&rig.group, &rig.orders), newest, "without --yes nothing is changed");
    let said = rig.run("only", &["rewind", "--partition", "0", "--to", name, "--yes"]);
    assert!(said.code == Some(1) && said.stderr.contains("is damaged"), "{said:?}");
    let said = rig.run("only", &[&rewind[..], &["--yes"]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    let back = broker.committed(&rig.group, &rig.orders);
    assert!(back[&0].offset < newest[&0].offset && back[&0].metadata != newest[&0].metadata, "{back:?}");
    assert_eq!((&back[&1], &back[&2]), (&newest[&1], &newest[&2]), "the others stay");
    // Another partition goes back by one, a third starts over.
    let said = rig.run("only", &["rewind", "--partition", "1", "--to-previous", "--yes"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = rig.run("only", &["rewind", "--partition", "2", "--to-genesis", "--start", "earliest", "--yes"]);
    assert!(said.code == Some(0) && said.stdout.contains("lost: all state"), "{said:?}");
    let anew = broker.committed(&rig.group, &rig.orders);
    assert!(anew[&2].offset == 0 && anew[&2].metadata.starts_with("v1;genesis;"), "{anew:?}");

    publish(broker, &rig.orders, parts[2]);
    publish(broker, &rig.orders, &last);
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    daemon.wait_for("everything to be read", PATIENCE, |daemon| (summary(daemon)["as_of"] == LAST).then_some(()));
    assert_equals_replay(&summary(&daemon), &replay(&[&orders, &last], LAST));
    all_committed();
    let said = rig.run("only", &["rewind", "--all", "--to-newest", "--yes"]);
    assert!(said.code == Some(1) && said.stderr.contains("has members"), "{said:?}");
    let offline = listed(&rig, 0, &["--offline"]);
    assert!(offline["manifests"][0]["committed"].is_null(), "{offline}");
}

#[test]
fn records_that_are_gone_stop_their_partition_alone() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig { commit_every: "200ms", more: KNOWN, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let orders = native(history::disorder(&history::cdnow_sample(), 0));
    let (before, after) = orders.split_at(orders.len() / 2);
    let launch = rig.launch("only");
    publish(broker, &rig.orders, before);
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    wait_for("all to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    daemon.kill9();
    let committed = broker.committed(&rig.group, &rig.orders);
    publish(broker, &rig.orders, after);
    let ends = broker.end_offsets(&rig.orders);
    assert!(ends[&0] > committed[&0].offset + 1);
    broker.delete_records_before(&rig.orders, 0, ends[&0] - 1);

    let mut daemon = launch.start();
    let reasons = daemon.wait_for("partition 0 to stop", PATIENCE, |daemon| {
        let (_, reasons) = readiness(daemon)?;
        reasons.contains("outside the log").then_some(reasons)
    });
    assert!(reasons.contains("partition 0") && reasons.contains("retentiond bootstrap"), "{reasons}");
    daemon.wait_for("the others to go on", PATIENCE, |_| {
        let now = broker.committed(&rig.group, &rig.orders);
        (1..PARTITIONS).all(|partition| now[&partition].offset == ends[&partition]).then_some(())
    });
    assert!(daemon.runs(), "{}", daemon.stderr());
    assert_eq!(broker.committed(&rig.group, &rig.orders)[&0], committed[&0]);
}

#[test]
fn another_log_of_the_same_name_is_not_read_on() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    // Without topic ids, which old brokers lack.
    let rig = Rig { commit_every: "200ms", more: KNOWN, kafka: "delivery = \"at_least_once\"", ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let orders = native(history::disorder(&history::cdnow_sample(), 0));
    let (before, after) = orders.split_at(orders.len() / 3);
    let launch = rig.launch("only");
    publish(broker, &rig.orders, before);
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    wait_for("all to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    daemon.kill9();
    let said = rig.run_on_empty_group("only", &["rewind", "--all", "--to-genesis"]);
    assert!(said.stderr.contains("add --yes"), "{said:?}");
    let committed = broker.committed(&rig.group, &rig.orders);
    broker.delete_topic(&rig.orders);
    broker.create_topic(&rig.orders, PARTITIONS);
    publish(broker, &rig.orders, after);
    broker.commit(&rig.group, &rig.orders, &committed);

    let mut daemon = launch.start();
    let reasons = daemon.wait_for("every partition to stop", PATIENCE, |daemon| {
        let (_, reasons) = readiness(daemon)?;
        (reasons.matches("another in its place").count() == PARTITIONS as usize).then_some(reasons)
    });
    assert!(reasons.contains("this is another cluster"), "{reasons}");
    assert_eq!(broker.committed(&rig.group, &rig.orders), committed);
}
