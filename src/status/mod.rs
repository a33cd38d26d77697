//! What the poll loop tells the world about itself: published as a whole, read without a lock.

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
    /// The offset behind the last applied record; `None` before the first.
    pub applied: Option<i64>,
    /// The end of the topic-partition as last seen; `None` before the first fetch.
    pub end: Option<i64>,
    /// When nothing lay behind the applied records the last time.
    pub last_at_end: Option<Instant>,
}

impl ReadPosition {
    /// Records behind the last applied one; `None` until the end is known.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        Some((self.end? - self.applied?).max(0))
    }
}

/// How recently a topic-partition that is read without a pause was applied to its end.
pub const AT_END_WITHIN: Duration = Duration::from_secs(10);

/// How far a topic is behind on this replica.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopicLag {
    /// The topic.
    pub topic: String,
    /// Whether records have been waiting for more than ten seconds.
    pub lagging: bool,
    /// Records that are not applied yet; `null` until the end of every partition is known.
    pub lag_events: Option<i64>,
    /// Seconds since the partition that is furthest behind was last applied to its end; `null` if it never was.
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

/// How far an owned partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionState {
    /// Its state is being found or loaded; nothing is read yet.
    Restoring,
    /// It is read and applied.
    Running,
    /// It is being given up.
    Draining,
    /// It waits for a person, for this reason.
    Failed(String),
}

impl PartitionState {
    /// Every name, for labels.
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

/// What was found when the group and its topics were looked at from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// How many rebalances there had been before the last look that found every partition at rest; 0 where there was none,
    /// and while partitions move.
    pub seen: u64,
    /// Why the last look did not find out who owns the partitions, if so.
    pub unknown: Option<String>,
    /// What is wrong, with the remedy.
    pub reasons: Vec<String>,
    /// Who owns each partition, as far as it is known: instance id or client id, and host.
    pub owners: BTreeMap<i32, String>,
}

/// A source topic whose messages are of no use, as far as it can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoorTopic {
    /// The topic.
    pub topic: String,
    /// What a person should know and do.
    pub warning: String,
    /// Whether not a single message was ever used.
    pub is_none: bool,
}

/// What became durable since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoints {
    /// Bytes written to the store.
    pub bytes: u64,
    /// Checkpoints that were committed.
    pub committed: u64,
    /// Dead letters that were committed.
    pub dead_letters: u64,
    /// When the last checkpoint was committed, by the wall clock.
    pub last_success: Option<Time>,
    /// How long it took from the copy to the commit.
    pub took: Option<Duration>,
    /// Since when records are applied that no committed checkpoint holds; `None` when there are none.
    pub uncommitted_since: Option<Instant>,
    /// After how long of that a person should know.
    pub stale_after: Option<Duration>,
}

impl Checkpoints {
    /// For how long records have been applied that no committed checkpoint holds.
    #[must_use]
    pub fn uncommitted_for(&self, now: Instant) -> Duration {
        self.uncommitted_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether that is for longer than it should be.
    #[must_use]
    pub fn is_stale(&self, now: Instant) -> bool {
        self.stale_after.is_some_and(|after| self.uncommitted_for(now) > after)
    }
}

/// The state of the source.
#[derive(Debug, Clone, Default)]
pub struct SourceStatus {
    /// Partitions of each source topic, by its place in the configuration; `None` while the topic is missing or the
    /// broker has not answered.
    pub partition_counts: Vec<Option<u32>>,
    /// Whether the group has handed out an assignment, maybe an empty one.
    pub joined: bool,
    /// The partitions of which every source topic's is assigned to us.
    pub owned: Vec<Partition>,
    /// How far each owned partition is on its way to being processed.
    pub states: BTreeMap<Partition, PartitionState>,
    /// How far each topic-partition that is processed is applied.
    pub positions: BTreeMap<TopicPartition, ReadPosition>,
    /// The topics most messages of which enter no figure.
    pub poor_topics: Vec<PoorTopic>,
    /// Rebalances since the start.
    pub rebalances: u64,
    /// Whether the group owns every partition, as last seen.
    pub coverage: Coverage,
    /// What is wrong at the moment, such as an unreachable broker.
    pub last_error: Option<String>,
    /// Why the last attempt to commit a checkpoint failed; `None` once one is committed again.
    pub commit_error: Option<String>,
    /// Why schemas do not come that records wait for.
    pub schemas: Option<String>,
    /// The last time that the poll loop went round.
    pub last_poll: Option<Instant>,
    /// What became durable.
    pub checkpoints: Checkpoints,
    /// How long records took from the poll that read them until they were applied.
    pub latency: Latency,
    /// How the webhook is doing, if there is one.
    pub webhook: Option<Arc<DeliveryStatus>>,
    /// Windows of which a partition does not know everything since the configuration was changed: their names, why, and
    /// from when on it does.
    pub missing: BTreeMap<Partition, Vec<(String, &'static str, Time)>>,
    /// The alerts that were committed last.
    pub sent: Arc<SentAlerts>,
    /// How each router is doing.
    pub routers: Vec<Arc<RoutingStatus>>,
    /// Customers who were seen in a second partition, by source topic, since the process began; of a sample of all.
    pub split_customers: Vec<u64>,
}

impl SourceStatus {
    /// Whether every owned topic-partition has been applied to its end since it was assigned. True of an empty
    /// assignment, false before there is one.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.joined && self.is_running() && self.positions.values().all(|position| position.last_at_end.is_some())
    }

    /// Whether every owned partition is read and applied.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.owned.iter().all(|owned| self.states.get(owned) == Some(&PartitionState::Running))
    }

    /// How far each source topic is behind, in the order of the configuration, and then each topic that this replica
    /// routes by customer. Topics of which it owns no partition are left out.
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

    /// Seconds since the topic-partition that is furthest behind was last applied to its end; 0 for one that is there
    /// now, `None` for one that never was.
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
