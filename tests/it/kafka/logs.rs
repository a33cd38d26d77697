//! The log shows the lifecycle of a replica, and no customer data.

use std::time::Duration;

use serde_json::Value;

use super::common::{PATIENCE, Rig, summary};
use crate::support::kafka;

/// Personal data that must not occur in a log.
const CUSTOMERS: [&str; 3] = ["ada.lovelace@example.org", "grace-hopper-1906", "\u{5c0f}\u{660e}-private"];

/// Valid and invalid messages with them, on a day of March 2026.
fn messages(day: u32) -> Vec<(Option<i32>, Option<String>, Option<String>)> {
    let order = |customer: &str, n: usize, day: u32, amount: &str| {
        let payload = format!(
            r#"{{"type":"order","order_id":"{customer}-{day}-{n}","customer_id":"{customer}","time":"2026-03-{day:02}T12:00:00Z","amount":"{amount}","currency":"EUR"}}"#
        );
        (None, Some(customer.to_owned()), Some(payload))
    };
    let of = |customer: &&str| {
        let customer = *customer;
        [
            order(customer, 0, day, "10.00"),
            order(customer, 0, day, "10.00"),
            order(customer, 1, day, "ten"),
            order(customer, 2, day - 9, "5.00"),
            (None, Some(customer.to_owned()), Some(format!("{{\"customer_id\":\"{customer}\""))),
            (None, Some(customer.to_owned()), Some(format!(r#"{{"type":"erase","customer_id":"{customer}-gone"}}"#))),
        ]
    };
    CUSTOMERS.iter().flat_map(of).collect()
}

#[test]
fn the_log_tells_the_life_of_a_replica_and_no_customer() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig::new(broker);
    rig.create_topics(broker, 2);
    let launch = rig.launch("replica").env("RETENTIOND_LOG", "debug");
    let mut logs = Vec::new();
    for (life, day) in [(1, 12), (2, 13)] {
        let sent = messages(day);
        let count = u64::try_from(sent.len()).unwrap();
        assert_eq!(broker.publish(&rig.orders, sent), count);
        let mut replica = launch.start();
        replica.wait_ready(PATIENCE);
        for customer in CUSTOMERS {
            // Refused without a token; requested anyway.
            let encoded: String = customer.bytes().map(|byte| format!("%{byte:02x}")).collect();
            assert_eq!(replica.get(&format!("/api/v1/customers/{encoded}")).0, 403);
        }
        replica.wait_for("the offsets to be committed", PATIENCE, |_| rig.all_committed(broker).then_some(()));
        assert_eq!(summary(&replica)["windows"][0]["orders"], 3 * life);
        replica.terminate();
        assert!(replica.wait_exit(Duration::from_secs(40)).success());
        logs.push(replica.stderr());
    }

    for log in &logs {
        for customer in CUSTOMERS {
            assert!(!log.contains(customer), "{customer} in the log:\n{log}");
        }
        let lines: Vec<Value> =
            log.lines().map(|line| serde_json::from_str(line).expect("JSON, line by line")).collect();
        assert!(
            lines
                .iter()
                .all(|line| ["timestamp", "level", "message", "target"].iter().all(|key| line[key].is_string()))
        );
        let starting = &lines[0];
        assert_eq!((&starting["message"], &starting["group"]), (&"starting".into(), &rig.group.as_str().into()));
        assert_eq!(starting["version"], env!("CARGO_PKG_VERSION"));
        assert_told_in_order(
            &lines,
            &[
                "starting",
                "serving figures and metrics",
                "joining the group",
                "joined the group",
                "caught up with every owned partition after",
                "a checkpoint is committed",
                "stopping",
                "stopped reading; applying and committing what was read",
                "releasing partitions after a last checkpoint: this replica stops",
                "released partitions after",
                "leaving the group",
                "stopping HTTP",
                "stopped",
            ],
        );
        let stopped = lines.last().unwrap();
        assert_eq!(stopped["records"], 18, "{stopped}");
        assert!(stopped["checkpoints"].as_u64() > Some(0) && stopped["dead_letters"].as_u64() > Some(0), "{stopped}");
    }
    let begins = |log: &str, what: &str| log.matches(what).count();
    assert_eq!(begins(&logs[0], "starts without state"), 2);
    assert_eq!(begins(&logs[1], " customers in "), 2);
    assert!(logs[1].lines().any(|line| line.contains(" restored ")));
}

/// Panics unless the log contains these messages in this order.
fn assert_told_in_order(lines: &[Value], messages: &[&str]) {
    let mut rest = lines.iter().map(|line| line["message"].as_str().unwrap());
    for message in messages {
        assert!(rest.any(|found| found.starts_with(message)), "{message:?} is missing, or out of order, in {lines:#?}");
    }
}
