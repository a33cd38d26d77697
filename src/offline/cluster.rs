//! Access to the cluster and the consumer group for commands that run without the daemon. They read the group's
//! offsets, and commit offsets if it has no members.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::bus::{
    CoPartitioning, Committed, Partition, SourceError, Start, TopicIndex, TopicPartition, check_co_partitioning,
};
use crate::checkpoint::manifest::Expected;
use crate::checkpoint::metadata::Metadata;
use crate::config::{Delivery, Settings};
use crate::kafka::{KafkaAdmin, KafkaSettings, partition_counts};
use crate::wiring::kafka_settings;

/// Timeout of one request.
const WAIT: Duration = Duration::from_secs(15);
/// Pause before retrying a request to the coordinator.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The cluster and the group, seen from outside the group.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The client.
    pub admin: KafkaAdmin,
    /// The consumer group.
    pub group: String,
    /// The source topics, in the order of the configuration.
    pub topics: Vec<String>,
    /// Their ids, if the brokers report them and the daemon uses them.
    pub ids: Vec<Option<String>>,
    /// Their number of partitions.
    pub partitions: i32,
}

/// The committed state of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No topic has a committed offset.
    Nothing,
    /// All topics name the same checkpoint, at these offsets.
    At(Metadata, Vec<i64>),
    /// The topics name no checkpoint or different ones, or only some have an offset.
    Unsound(String),
}

impl Cluster {
    /// Connects and looks up the topics; waits at most `wait` for each answer.
    ///
    /// # Errors [`SourceError::Unavailable`] when no broker answers, [`SourceError::Configuration`] when a topic is
    /// missing or the partition counts differ.
    pub fn reach(settings: &Settings, wait: Duration) -> Result<Cluster, SourceError> {
        let kafka: KafkaSettings = kafka_settings(settings);
        let counts = partition_counts(&kafka, wait)?;
        let named: Vec<_> = kafka.topics.iter().cloned().zip(counts).collect();
        let partitions = match check_co_partitioning(&named)? {
            CoPartitioning::Equal(partitions) => i32::try_from(partitions).unwrap_or(i32::MAX),
            CoPartitioning::Missing(missing) => {
                let names = missing.join(", ");
                return Err(SourceError::Configuration(format!("missing topic(s): {names}; create them")));
            }
        };
        let admin = KafkaAdmin::new(&kafka)?;
        // With at-least-once delivery the daemon does not look up ids, so a manifest must not contain them.
        let ids = match settings.kafka.delivery {
            Delivery::ExactlyOnce => admin.topic_ids(wait)?,
            Delivery::AtLeastOnce => vec![None; kafka.topics.len()],
        };
        Ok(Cluster { admin, group: kafka.group_id, topics: kafka.topics, ids, partitions })
    }

    /// One partition number in every source topic.
    #[must_use]
    pub fn siblings(&self, partition: i32) -> Vec<TopicPartition> {
        let topics = u16::try_from(self.topics.len()).unwrap_or(u16::MAX);
        (0..topics).map(|topic| TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) }).collect()
    }

    /// Every partition of every source topic, ordered by partition.
    #[must_use]
    pub fn all(&self) -> Vec<TopicPartition> {
        (0..self.partitions).flat_map(|partition| self.siblings(partition)).collect()
    }

    /// What a manifest of a partition must contain to fit this cluster and store.
    #[must_use]
    pub fn expected(&self, partition: i32, store: &str) -> Expected {
        Expected {
            group: self.group.clone(),
            partition,
            partitions: self.partitions,
            topics: self.topics.iter().cloned().zip(self.ids.iter().cloned()).collect(),
            store: store.to_owned(),
        }
    }

    /// Checks that the group has no members.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`] if it has members, or when the coordinator does not answer.
    pub fn require_empty_group(&self) -> Result<(), SourceError> {
        let state = with_retries(|wait| self.admin.describe_group(wait))?;
        if state.is_empty() {
            return Ok(());
        }
        Err(SourceError::Unavailable(format!(
            "group {:?} has members ({}; {}). Stop all replicas, wait until their sessions have timed out \
            (session.timeout.ms), and try again",
            self.group,
            state.state,
            state.names()
        )))
    }

    /// The committed state of every partition.
    ///
    /// # Errors
    /// When the coordinator rejects the request or does not answer.
    pub fn standings(&self) -> Result<BTreeMap<i32, Standing>, SourceError> {
        let committed = with_retries(|wait| self.admin.all_committed(wait))?;
        let standing = |partition: i32| {
            let of_topic = |topic: &String| committed.get(&(topic.clone(), partition));
            standing(&self.topics, &self.topics.iter().map(of_topic).collect::<Vec<_>>())
        };
        Ok((0..self.partitions).map(|partition| (partition, standing(partition))).collect())
    }

    /// The offset of each start.
    ///
    /// # Errors
    /// When the leaders reject the request or do not answer.
    pub fn offsets(&self, of: &[(TopicPartition, Start)]) -> Result<Vec<i64>, SourceError> {
        self.admin.offsets(of, WAIT)
    }

    /// Commits partitions' offsets in all topics, with the metadata that names their checkpoints. The group must have
    /// no members.
    ///
    /// # Errors
    /// As [`KafkaAdmin::commit`].
    pub fn commit(&self, states: &[(i32, Metadata, Vec<i64>)]) -> Result<(), SourceError> {
        let of = |(partition, metadata, next): &(i32, Metadata, Vec<i64>)| {
            let metadata = metadata.to_string().into_bytes();
            let committed = next.iter().map(|&offset| Committed { offset, metadata: metadata.clone() });
            self.siblings(*partition).into_iter().zip(committed.collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        self.admin.commit(&states.iter().flat_map(of).collect::<Vec<_>>(), WAIT)
    }
}

/// Retries while the coordinator does not answer: after a start it first loads its groups.
fn with_retries<T>(ask: impl Fn(Duration) -> Result<T, SourceError>) -> Result<T, SourceError> {
    let deadline = Instant::now() + WAIT;
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        match ask(remaining.max(RETRY_AFTER)) {
            Err(SourceError::Unavailable(_)) if remaining > RETRY_AFTER => std::thread::park_timeout(RETRY_AFTER),
            answer => return answer,
        }
    }
}

fn standing(topics: &[String], committed: &[Option<&Committed>]) -> Standing {
    if committed.iter().all(Option::is_none) {
        return Standing::Nothing;
    }
    let mut agreed: Option<Metadata> = None;
    let mut next = Vec::with_capacity(committed.len());
    for (topic, committed) in topics.iter().zip(committed) {
        let Some(committed) = committed else {
            return Standing::Unsound(format!("topic {topic} has no committed offset, but other topics have one"));
        };
        let text = String::from_utf8_lossy(&committed.metadata);
        let Ok(metadata) = text.parse::<Metadata>() else {
            return Standing::Unsound(format!("the committed metadata of topic {topic} names no checkpoint"));
        };
        if agreed.get_or_insert_with(|| metadata.clone()) != &metadata {
            return Standing::Unsound("the topics name different checkpoints".to_owned());
        }
        next.push(committed.offset);
    }
    agreed.map_or(Standing::Nothing, |metadata| Standing::At(metadata, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(offset: i64, metadata: &str) -> Committed {
        Committed { offset, metadata: metadata.as_bytes().to_vec() }
    }

    #[test]
    fn topics_must_agree_on_one_checkpoint() {
        let topics = ["orders".to_owned(), "sessions".to_owned()];
        let (one, two) = (committed(3, "v1;genesis;5;s"), committed(4, "v1;genesis;5;s"));
        let other = committed(4, "v1;genesis;6;s");
        let foreign = committed(4, "");
        assert_eq!(standing(&topics, &[None, None]), Standing::Nothing);
        let Standing::At(metadata, next) = standing(&topics, &[Some(&one), Some(&two)]) else { panic!("they agree") };
        assert_eq!((metadata.to_string().as_str(), next), ("v1;genesis;5;s", vec![3, 4]));
        for unsound in [[Some(&one), None], [Some(&one), Some(&other)], [Some(&one), Some(&foreign)]] {
            assert!(matches!(standing(&topics, &unsound), Standing::Unsound(_)), "{unsound:?}");
        }
    }
}
