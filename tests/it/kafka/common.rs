//! A daemon configuration with its own topics, and the expected results.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::cli::{self, Said};
use crate::support::daemon::{Daemon, Launch};
use crate::support::history::Sale;
use crate::support::kafka::Broker;
use crate::support::metrics::Metrics;
use crate::support::{free_port, scratch, unique, wait_for};

/// Timeout for everything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Unique names for a test, and the configuration that uses them.
#[derive(Clone, Debug)]
pub struct Rig {
    pub brokers: String,
    pub orders: String,
    pub sessions: String,
    pub dead_letters: String,
    pub group: String,
    pub commit_every: &'static str,
    /// More lines of `[kafka]`.
    pub kafka: &'static str,
    /// More lines of `[kafka.options]`.
    pub options: String,
    /// More tables.
    pub more: &'static str,
}

impl Rig {
    pub fn new(broker: &Broker) -> Rig {
        Rig {
            brokers: broker.brokers(),
            orders: unique("orders"),
            sessions: unique("sessions"),
            dead_letters: unique("dead-letters"),
            group: unique("retentiond"),
            commit_every: "1s",
            kafka: "",
            options: String::new(),
            more: "",
        }
    }

    /// Creates the source topics with this many partitions.
    pub fn create_topics(&self, broker: &Broker, partitions: i32) {
        broker.create_topic(&self.orders, partitions);
        broker.create_topic(&self.sessions, partitions);
    }

    /// The command that starts a replica of this name, always on the same port.
    pub fn launch(&self, instance: &str) -> Launch {
        Launch::verb("run").config(self.config(instance)).http_port(free_port())
    }

    /// The store of a replica with this name, unless the environment says otherwise.
    pub fn store(&self, instance: &str) -> PathBuf {
        scratch().join("state").join(&self.group).join(instance)
    }

    /// The configuration of a replica with this name.
    pub fn config(&self, instance: &str) -> String {
        let Rig { brokers, orders, sessions, dead_letters, group, commit_every, kafka, options, more } = self;
        // Under the consumer protocol the brokers decide about sessions.
        let session = if kafka.contains("consumer") {
            ""
        } else {
            "\"session.timeout.ms\" = \"6000\"\n\"heartbeat.interval.ms\" = \"500\""
        };
        format!(
            r#"
[kafka]
brokers = "{brokers}"
group_id = "{group}"
instance_id = "{instance}"
{kafka}
[kafka.options]
{session}
"reconnect.backoff.max.ms" = "500"
{options}
[sources.orders]
topic = "{orders}"
[sources.sessions]
topic = "{sessions}"
clock = false
[dead_letters]
topic = "{dead_letters}"
[checkpoint]
url = "file://{}"
interval = "{commit_every}"
{more}
"#,
            self.store(instance).display()
        )
    }

    /// Runs another verb with the same configuration.
    pub fn run(&self, instance: &str, args: &[&str]) -> Said {
        let dir = tempfile::tempdir_in(scratch()).unwrap();
        let path = dir.path().join("retentiond.toml");
        fs::write(&path, self.config(instance)).unwrap();
        let config = [OsStr::new("--config"), path.as_os_str()];
        cli::run(args.iter().map(OsStr::new).chain(config))
    }

    /// As [`Rig::run`], repeated until the group is empty: a static member stays until its session times out.
    pub fn run_on_empty_group(&self, instance: &str, args: &[&str]) -> Said {
        wait_for("a group without members", PATIENCE, || {
            let said = self.run(instance, args);
            (!said.stderr.contains("has members")).then_some(said)
        })
    }

    /// Whether every record of the source topics is committed.
    pub fn all_committed(&self, broker: &Broker) -> bool {
        [&self.orders, &self.sessions].into_iter().all(|topic| {
            let committed = broker.committed(&self.group, topic);
            let committed: BTreeMap<i32, i64> = committed.into_iter().map(|(p, next)| (p, next.offset)).collect();
            let ends = broker.end_offsets(topic);
            // A partition that never held a record may have no commit.
            ends.iter().all(|(partition, end)| committed.get(partition).unwrap_or(&0) == end)
        })
    }
}

/// Publishes sales in the native format, keyed by customer.
pub fn publish_sales(broker: &Broker, topic: &str, sales: &[Sale]) {
    broker.publish(topic, sales.iter().map(|sale| (None, Some(sale.customer.as_str()), Some(sale.native()))));
}

/// `/metrics` as numbers.
pub fn metrics(daemon: &Daemon) -> Metrics {
    let (status, text) = daemon.get("/metrics");
    assert_eq!(status, 200, "{text}");
    Metrics::parse(&text)
}

/// `/api/v1/summary`.
pub fn summary(daemon: &Daemon) -> Value {
    daemon.get_json("/api/v1/summary")
}

/// `/readyz`: its status and reasons.
pub fn readiness(daemon: &Daemon) -> Option<(u16, String)> {
    let (status, body) = daemon.try_get("/readyz", &[]).ok()?;
    let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("/readyz: {error}: {body}"));
    assert_eq!(body["ready"], status == 200, "{body}");
    Some((status, body["reasons"].to_string()))
}

/// Panics unless the summary contains everything that `replay` printed, with equal values.
pub fn assert_equals_replay(summary: &Value, replay: &Value) {
    for (part, expected) in replay.as_object().expect("replay prints an object") {
        let found = &summary[part];
        let (Some(expected), Some(found)) = (expected.as_array(), found.as_array()) else {
            assert_eq!(found, expected, "{part}");
            continue;
        };
        for (expected, found) in expected.iter().zip(found) {
            assert_eq!(found, expected, "{part}: the daemon (left) differs from replay (right)");
        }
        assert_eq!(found.len(), expected.len(), "{part}");
    }
}
