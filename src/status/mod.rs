//! Status of the poll loop: published as a whole, read without a lock.

pub mod coverage;
pub mod delivery;
pub mod idle;
pub mod latency;
pub mod routing;
pub mod sent;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::delivery::DeliveryStatus;
use self::latency::Latency;
use self::routing::RoutingStatus;
use self::sent::SentAlerts;
use crate::bus::{Partition, TopicPartition};
use crate::event::Time;

/// How far a topic-partition is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadPosition {
    /// The offset after the last applied record; `None` before the first.
    pub applied: Option<i64>,
    /// The end of the topic-partition as last seen; `None` before the first fetch.
    pub end: Option<i64>,
    /// When the applied records last reached the end.
    pub last_at_end: Option<Instant>,
}

impl ReadPosition {
    /// Records after the last applied one; `None` until the end is known.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        Some((self.end? - self.applied?).max(0))
    }
}

/// A topic-partition that reached its end within this time is not lagging.
pub const AT_END_WITHIN: Duration = Duration::from_secs(10);

/// The lag of a topic on this replica.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopicLag {
    /// The topic.
    pub topic: String,
    /// Whether records have been waiting for more than ten seconds.
    pub lagging: bool,
    /// Records not yet applied; `null` until the end of every partition is known.
    pub lag_events: Option<i64>,
    /// Seconds since the partition that lags most was last applied to its end; `null` if it never was.
    pub lag_seconds: Option<f64>,
}

impl TopicLag {
    fn of(topic: &str, lag_events: Option<i64>, at_end: Option<Instant>, now: Instant) -> TopicLag {
        let since = match lag_events {
            Some(0) => Some(Duration::ZERO),
            _ => at_end.map(|at| now.saturating_duration_since(at)),
        };
        TopicLag {
            topic: topic.to_owned(),
            lagging: since.is_none_or(|since| since > AT_END_WITHIN),
            lag_events,
            lag_seconds: since.map(|since| since.as_secs_f64()),
        }
    }
}

/// The state of an owned partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionState {
    /// Its state is being looked up or loaded; nothing is read yet.
    Restoring,
    /// Its records are read and applied.
    Running,
    /// Being released.
    Draining,
    /// Not processed until an operator acts, for this reason.
    Failed(String),
}

impl PartitionState {
    /// All names, for labels.
    pub const NAMES: [&str; 4] = ["restoring", "running", "draining", "failed"];

    /// The name in labels.
    #[must_use]
    pub fn name(&self) -> &'static str {
        Self::NAMES[match self {
            PartitionState::Restoring => 0,
            PartitionState::Running => 1,
            PartitionState::Draining => 2,
            PartitionState::Failed(_) => 3,
        }]
    }
}

/// Result of the last check of the group and its topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// How many rebalances there had been before the last look that found every partition at rest; 0 where there was none,
    /// and while partitions move.
    pub seen: u64,
    /// Why the last look did not find out who owns the partitions, if so.
    pub unknown: Option<String>,
    /// Faults with the remedy.
    pub reasons: Vec<String>,
    /// The owner of each partition, if known: instance id or client id, and host.
    pub owners: BTreeMap<i32, String>,
}

/// A source topic with mostly unusable messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoorTopic {
    /// The topic.
    pub topic: String,
    /// Warning for the operator, with the remedy.
    pub warning: String,
    /// Whether no message was ever usable.
    pub is_none: bool,
}

/// Checkpoints since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoints {
    /// Bytes written to the store.
    pub bytes: u64,
    /// Committed checkpoints.
    pub committed: u64,
    /// Committed dead letters.
    pub dead_letters: u64,
    /// When the last checkpoint was committed, by the wall clock.
    pub last_success: Option<Time>,
    /// How long the last one took, from copy to commit.
    pub took: Option<Duration>,
    /// Since when applied records are not in a committed checkpoint; `None` if there are none.
    pub uncommitted_since: Option<Instant>,
    /// The age of uncommitted records that operators should know of.
    pub stale_after: Option<Duration>,
}

impl Checkpoints {
    /// How long applied records have not been in a committed checkpoint.
    #[must_use]
    pub fn uncommitted_for(&self, now: Instant) -> Duration {
        self.uncommitted_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether that exceeds the limit.
    #[must_use]
    pub fn is_stale(&self, now: Instant) -> bool {
        self.stale_after.is_some_and(|after| self.uncommitted_for(now) > after)
    }
}

/// Status of the source.
#[derive(Debug, Clone, Default)]
pub struct SourceStatus {
    /// Partition counts of the source topics, in the order of the configuration; `None` while a topic is missing or the
    /// broker has not answered.
    pub partition_counts: Vec<Option<u32>>,
    /// Whether the group has sent an assignment, which may be empty.
    pub joined: bool,
    /// The partitions assigned to us in every source topic.
    pub owned: Vec<Partition>,
    /// The state of each owned partition.
    pub states: BTreeMap<Partition, PartitionState>,
    /// The position of each topic-partition that is processed.
    pub positions: BTreeMap<TopicPartition, ReadPosition>,
    /// Topics whose messages are mostly unusable.
    pub poor_topics: Vec<PoorTopic>,
    /// Rebalances since the start.
    pub rebalances: u64,
    /// Whether the group owns every partition, as last checked.
    pub coverage: Coverage,
    /// The current error, such as an unreachable broker.
    pub last_error: Option<String>,
    /// Why the last attempt to commit a checkpoint failed; `None` once one is committed again.
    pub commit_error: Option<String>,
    /// Why schemas that records wait for are not available.
    pub schemas: Option<String>,
    /// When the poll loop last ran.
    pub last_poll: Option<Instant>,
    /// Checkpoints since the process started.
    pub checkpoints: Checkpoints,
    /// Latency of records from poll to apply.
    pub latency: Latency,
    /// Status of the webhook, if configured.
    pub webhook: Option<Arc<DeliveryStatus>>,
    /// Windows with incomplete data since the configuration changed, by partition: their names, the reason, and from
    /// when on they are complete.
    pub missing: BTreeMap<Partition, Vec<(String, &'static str, Time)>>,
    /// The alerts committed last.
    pub sent: Arc<SentAlerts>,
    /// Status of each repartitioned source.
    pub routers: Vec<Arc<RoutingStatus>>,
    /// Customers seen in a second partition, by source topic, since the process started; sampled.
    pub split_customers: Vec<u64>,
}

impl SourceStatus {
    /// Whether every owned topic-partition has been applied to its end since it was assigned. True for an empty
    /// assignment, false before the first.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.joined && self.is_running() && self.positions.values().all(|position| position.last_at_end.is_some())
    }

    /// Whether every owned partition is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.owned.iter().all(|owned| self.states.get(owned) == Some(&PartitionState::Running))
    }

    /// The lag of each source topic, in the order of the configuration, then of each topic that this replica
    /// repartitions. Topics without an owned partition are omitted.
    #[must_use]
    pub fn topic_lags(&self, topics: &[String], now: Instant) -> Vec<TopicLag> {
        let of_topic = |(index, topic): (u16, &String)| {
            let positions = self.positions.iter().filter(|(at, _)| at.topic.0 == index).map(|(_, position)| position);
            positions.map(|position| TopicLag::of(topic, position.lag(), position.last_at_end, now)).reduce(|a, b| {
                TopicLag {
                    lagging: a.lagging || b.lagging,
                    lag_events: a.lag_events.zip(b.lag_events).map(|(a, b)| a + b),
                    lag_seconds: a.lag_seconds.zip(b.lag_seconds).map(|(a, b)| a.max(b)),
                    topic: a.topic,
                }
            })
        };
        let read = (0..).zip(topics).filter_map(of_topic);
        let routers = self.routers.iter().map(|router| router.read()).filter(|router| router.is_ours);
        let routed = routers.map(|router| TopicLag::of(&router.topic, router.lag(), router.last_at_end, now));
        read.chain(routed).collect()
    }

    /// Seconds since the topic-partition that lags most was last applied to its end; 0 if it is there now, `None` if it
    /// never was.
    #[must_use]
    pub fn lag_seconds(&self, now: Instant) -> Option<f64> {
        let behind = self.positions.values().map(|position| match position.lag() {
            Some(0) => Some(0.0),
            _ => position.last_at_end.map(|at| now.saturating_duration_since(at).as_secs_f64()),
        });
        let routers = self.routers.iter().map(|router| router.read()).filter(|router| router.is_ours);
        let unrouted = routers.map(|router| match router.lag() {
            Some(0) => Some(0.0),
            _ => router.last_at_end.map(|at| now.saturating_duration_since(at).as_secs_f64()),
        });
        behind.chain(unrouted).reduce(|a, b| Some(a?.max(b?))).unwrap_or(self.joined.then_some(0.0))
    }
}
