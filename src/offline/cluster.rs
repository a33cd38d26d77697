//! What the verbs share that work beside the daemon: the store, the cluster, and a group whose offsets they read and, where
//! it has no members, commit.

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

/// How long one question may take.
const WAIT: Duration = Duration::from_secs(15);
/// How long to wait before a coordinator is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The cluster and the group, from outside.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The client.
    pub admin: KafkaAdmin,
    /// The consumer group.
    pub group: String,
    /// The source topics, in the order of the configuration.
    pub topics: Vec<String>,
    /// Their ids, where the brokers tell them and the daemon asks for them.
    pub ids: Vec<Option<String>>,
    /// How many partitions they have.
    pub partitions: i32,
}

/// What is committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing, for none of its topics.
    Nothing,
    /// The same state for every topic, at these offsets.
    At(Metadata, Vec<i64>),
    /// What names no state of ours, or different ones, or offsets for some topics only.
    Unsound(String),
}

impl Cluster {
    /// Asks for the topics; waits for `wait` at most.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`] when no broker answers, [`SourceError::Configuration`] when a topic is missing or
    /// has another number of partitions than the others.
    pub fn reach(settings: &Settings, wait: Duration) -> Result<Cluster, SourceError> {
        let kafka: KafkaSettings = kafka_settings(settings);
        let counts = partition_counts(&kafka, wait)?;
        let named: Vec<_> = kafka.topics.iter().cloned().zip(counts).collect();
        let partitions = match check_co_partitioning(&named)? {
            CoPartitioning::Equal(partitions) => i32::try_from(partitions).unwrap_or(i32::MAX),
            CoPartitioning::Missing(missing) => {
                let names = missing.join(", ");
                return Err(SourceError::Configuration(format!("topic(s) that do not exist: {names}; create them")));
            }
        };
        let admin = KafkaAdmin::new(&kafka)?;
        // The daemon asks for no ids otherwise, and what it does not see must not stand in a manifest.
        let ids = match settings.kafka.delivery {
            Delivery::ExactlyOnce => admin.topic_ids(wait)?,
            Delivery::AtLeastOnce => vec![None; kafka.topics.len()],
        };
        Ok(Cluster { admin, group: kafka.group_id, topics: kafka.topics, ids, partitions })
    }

    /// The partition of every source topic.
    #[must_use]
    pub fn siblings(&self, partition: i32) -> Vec<TopicPartition> {
        let topics = u16::try_from(self.topics.len()).unwrap_or(u16::MAX);
        (0..topics).map(|topic| TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) }).collect()
    }

    /// Every partition of every source topic, partition by partition.
    #[must_use]
    pub fn all(&self) -> Vec<TopicPartition> {
        (0..self.partitions).flat_map(|partition| self.siblings(partition)).collect()
    }

    /// What a manifest of a partition has to say to fit what is around us.
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

    /// Refuses a group that has members, and says how to be rid of them.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`] where it has, and when the coordinator does not answer.
    pub fn require_empty_group(&self) -> Result<(), SourceError> {
        let state = patiently(|wait| self.admin.describe_group(wait))?;
        if state.is_empty() {
            return Ok(());
        }
        Err(SourceError::Unavailable(format!(
            "the group {:?} has members ({}; {}). Stop every replica, wait until their sessions have timed out \
             (session.timeout.ms), and try again",
            self.group,
            state.state,
            state.names()
        )))
    }

    /// What is committed for every partition.
    ///
    /// # Errors
    /// When the coordinator refuses or does not answer.
    pub fn standings(&self) -> Result<BTreeMap<i32, Standing>, SourceError> {
        let committed = patiently(|wait| self.admin.all_committed(wait))?;
        let standing = |partition: i32| {
            let of_topic = |topic: &String| committed.get(&(topic.clone(), partition));
            standing(&self.topics, &self.topics.iter().map(of_topic).collect::<Vec<_>>())
        };
        Ok((0..self.partitions).map(|partition| (partition, standing(partition))).collect())
    }

    /// Where each start is.
    ///
    /// # Errors
    /// When the leaders refuse or do not answer.
    pub fn offsets(&self, of: &[(TopicPartition, Start)]) -> Result<Vec<i64>, SourceError> {
        self.admin.offsets(of, WAIT)
    }

    /// Commits for the group, which must have no members, the offsets of every topic of some partitions and the name of
    /// their states.
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

/// Asks again while the coordinator does not answer: one that has just started reads its groups first.
fn patiently<T>(ask: impl Fn(Duration) -> Result<T, SourceError>) -> Result<T, SourceError> {
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
            return Standing::Unsound(format!("nothing is committed for {topic}, but for other topics"));
        };
        let text = String::from_utf8_lossy(&committed.metadata);
        let Ok(metadata) = text.parse::<Metadata>() else {
            return Standing::Unsound(format!("what is committed for {topic} names no checkpoint"));
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
    fn topics_must_agree_on_one_state() {
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
