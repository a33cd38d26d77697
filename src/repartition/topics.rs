//! Prepares the routing of a source: creates the target topic and, after a bootstrap, commits the router's initial
//! offsets.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use tracing::info;

use crate::bus::{Committed, Partition, SourceError, Start, TopicPartition};
use crate::config::{Settings, Source};
use crate::event::Time;
use crate::kafka::{self, KafkaAdmin, KafkaSettings, partition_counts};
use crate::offline::bootstrap::BootstrapError;
use crate::wiring::kafka_settings;

/// Timeout of one request for partition counts.
const METADATA_WAIT: Duration = Duration::from_secs(5);
/// Timeouts of other requests, and of fetching records.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
const PROBE_WAIT: Duration = Duration::from_secs(60);
/// Settings of the target topics: seven days of retention, counted from when an event was routed. Counted from the
/// event time, the brokers would delete old events that a first start copies before anybody has read them.
const SETTINGS: [(&str, &str); 4] = [
    ("cleanup.policy", "delete"),
    ("message.timestamp.type", "LogAppendTime"),
    ("retention.ms", "604800000"),
    ("retention.bytes", "-1"),
];

/// Creates missing target topics, as soon as it is known how many partitions they need.
///
/// # Errors
/// When the brokers reject the request or do not answer.
pub fn create_topics(settings: &Settings, kafka: &KafkaSettings) -> Result<()> {
    let routed: Vec<_> = settings.sources.iter().filter(|(_, source)| source.repartition).collect();
    if routed.is_empty() {
        return Ok(());
    }
    let own = settings.sources.values().map(|source| source.topic.clone());
    let keyed = routed.iter().map(|(name, source)| source.keyed_topic(name, &settings.kafka.group_id));
    let lookup = KafkaSettings { topics: own.chain(keyed).collect(), ..kafka.clone() };
    let counts = partition_counts(&lookup, METADATA_WAIT)?;
    let counts: BTreeMap<&str, Option<u32>> = lookup.topics.iter().map(String::as_str).zip(counts).collect();
    let count = |topic: &str| counts.get(topic).copied().flatten();
    let Some(partitions) = partitions(settings, count) else { return Ok(()) };
    for (name, source) in routed {
        let topic = source.keyed_topic(name, &settings.kafka.group_id);
        if count(&topic).is_none() {
            create(kafka, &topic, partitions).with_context(|| {
                format!("cannot create topic {topic:?}, to which source {name:?} is routed; create it by hand")
            })?;
        }
    }
    Ok(())
}

/// Calls [`create_topics`] with the client settings of the daemon.
///
/// # Errors
/// As [`create_topics`].
pub fn create_missing(settings: &Settings) -> Result<()> {
    create_topics(settings, &kafka_settings(settings))
}

/// The initial offsets of a source's router.
#[derive(Debug)]
pub struct InitialOffsets {
    admin: KafkaAdmin,
    next: Vec<(TopicPartition, Committed)>,
}

impl InitialOffsets {
    /// Commits the offsets for the router's group, which has no members.
    ///
    /// # Errors
    /// As [`KafkaAdmin::commit`].
    pub fn commit(&self) -> Result<(), SourceError> {
        self.admin.commit(&self.next, ANSWER_WAIT)
    }
}

/// Finds the offsets from which the routers must start to route everything since `overlap_from`.
///
/// # Errors [`BootstrapError`] if a router has already committed offsets (unless `replace`), or if a topic does not
/// reach back to `until`; also when the brokers do not answer.
pub fn find_initial_offsets(
    settings: &Settings,
    overlap_from: Time,
    until: Time,
    replace: bool,
) -> Result<Vec<InitialOffsets>> {
    let routed = settings.sources.iter().filter(|(_, source)| source.repartition);
    routed.map(|(name, source)| source_offsets(settings, name, source, overlap_from, until, replace)).collect()
}

fn source_offsets(
    settings: &Settings,
    name: &str,
    source: &Source,
    overlap_from: Time,
    until: Time,
    replace: bool,
) -> Result<InitialOffsets> {
    let mut kafka = kafka_settings(settings);
    kafka.group_id = super::group(settings, name);
    kafka.topics = vec![source.topic.clone()];
    let missing = || SourceError::Configuration(format!("topic {:?} does not exist; create it", source.topic));
    let partitions = partition_counts(&kafka, ANSWER_WAIT)?.first().copied().flatten().ok_or_else(missing)?;
    let admin = KafkaAdmin::new(&kafka)?;
    if !replace && !admin.all_committed(ANSWER_WAIT)?.is_empty() {
        let text = format!("group {:?} has committed offsets for routing source {name:?}", kafka.group_id);
        return Err(BootstrapError::Taken(text).into());
    }
    let at = |partition| TopicPartition { topic: super::FROM, partition: Partition(partition) };
    let all: Vec<_> = (0..i32::try_from(partitions)?).map(at).collect();
    let ask = |start: Start| admin.offsets(&all.iter().map(|at| (*at, start)).collect::<Vec<_>>(), ANSWER_WAIT);
    let (next, first) = (ask(Start::At(overlap_from.millis()))?, ask(Start::Earliest)?);
    let begins: Vec<_> = all.iter().copied().zip(first.iter().copied()).collect();
    for (at, records) in admin.probe_records(&begins, 1, PROBE_WAIT)? {
        let place = usize::try_from(at.partition.0)?;
        let begin = records.first().and_then(|record| Time::from_millis(record.stamp.time?).ok());
        if let Some(begin) = begin.filter(|begin| first[place] > 0 && next[place] == first[place] && *begin > until) {
            let (topic, partition) = (source.topic.clone(), at.partition.0);
            return Err(BootstrapError::Gap { topic, partition, first: begin, until }.into());
        }
    }
    let topic_id = admin.topic_ids(ANSWER_WAIT)?.into_iter().next().flatten();
    let metadata = super::metadata_at_start(topic_id);
    let committed = next.into_iter().map(|offset| Committed { offset, metadata: metadata.clone() });
    Ok(InitialOffsets { admin, next: all.into_iter().zip(committed).collect() })
}

/// How many partitions the target topics need: as many as the existing topics that the engines read. If all sources are
/// routed and no target exists yet, as many as the largest source. `None` while that is not known.
fn partitions(settings: &Settings, count: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    let keyed = settings.keyed_topics();
    if let Some(known) = keyed.iter().find_map(|topic| count(topic)) {
        return Some(known);
    }
    if settings.sources.values().any(|source| !source.repartition) {
        return None;
    }
    let counts: Option<Vec<u32>> = settings.sources.values().map(|source| count(&source.topic)).collect();
    counts?.into_iter().max()
}

fn create(kafka: &KafkaSettings, topic: &str, partitions: u32) -> Result<()> {
    let only = KafkaSettings { topics: vec![topic.to_owned()], ..kafka.clone() };
    kafka::create_topics(&only, i32::try_from(partitions)?, &SETTINGS, ANSWER_WAIT)?;
    info!(topic, partitions, "created a topic");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn a_target_topic_gets_as_many_partitions_as_the_other_topics_or_the_largest_source() {
        let source = |topic: &str, repartition| Source { topic: topic.to_owned(), repartition, ..Source::default() };
        let of = |sources: &[(&str, bool)], known: &[(&str, u32)]| {
            let sources = sources.iter().map(|(name, routed)| ((*name).to_owned(), source(name, *routed)));
            let settings = Settings { sources: sources.collect(), ..Settings::default() };
            partitions(&settings, |topic| known.iter().find(|(name, _)| *name == topic).map(|(_, count)| *count))
        };
        assert_eq!(of(&[("a", true)], &[("a", 6)]), Some(6));
        assert_eq!(of(&[("a", true)], &[]), None);
        assert_eq!(of(&[("a", true), ("b", true)], &[("a", 6), ("b", 12)]), Some(12));
        assert_eq!(of(&[("a", true), ("b", true)], &[("a", 6)]), None, "b may be larger");
        let keyed = ("retentiond-a-by-customer", 8);
        assert_eq!(of(&[("a", true), ("b", true)], &[("a", 6), ("b", 12), keyed]), Some(8));
        assert_eq!(of(&[("a", true), ("b", false)], &[("a", 6), ("b", 3)]), Some(3));
        assert_eq!(of(&[("a", true), ("b", false)], &[("a", 6)]), None);
    }
}
