//! What is to be there before a source is routed by customer: the topic that it is routed to, and, behind a bootstrap,
//! where its router begins.

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

/// How long one question for the partition counts may take.
const METADATA_WAIT: Duration = Duration::from_secs(5);
/// How long one other question may take, and looking at records.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
const LOOK_WAIT: Duration = Duration::from_secs(60);
/// What those topics are made with: seven days from when an event was routed, however old it is itself. By the time of
/// the event the brokers would delete what a first start copies of years ago before anybody has read it.
const SETTINGS: [(&str, &str); 4] = [
    ("cleanup.policy", "delete"),
    ("message.timestamp.type", "LogAppendTime"),
    ("retention.ms", "604800000"),
    ("retention.bytes", "-1"),
];

/// Makes the topics that sources are routed to and that do not exist, as soon as it is known how many partitions they
/// need.
///
/// # Errors
/// When the brokers refuse or do not answer.
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
                format!("topic {topic:?}, to which source {name:?} is routed, could not be created; create it")
            })?;
        }
    }
    Ok(())
}

/// As [`create_topics`], for the verbs.
///
/// # Errors
/// As there.
pub fn create_missing(settings: &Settings) -> Result<()> {
    create_topics(settings, &kafka_settings(settings))
}

/// Where the router of a source is to begin.
#[derive(Debug)]
pub struct Entrance {
    admin: KafkaAdmin,
    next: Vec<(TopicPartition, Committed)>,
}

impl Entrance {
    /// Commits it, for a group that has no members.
    ///
    /// # Errors
    /// As [`KafkaAdmin::commit`].
    pub fn commit(&self) -> Result<(), SourceError> {
        self.admin.commit(&self.next, ANSWER_WAIT)
    }
}

/// Finds out where the routers go on with `overlap_from`.
///
/// # Errors
/// [`BootstrapError`] where one has begun already (unless that is to be replaced), or where a topic does not reach back
/// to `until`; and when the brokers do not answer.
pub fn find_entrances(settings: &Settings, overlap_from: Time, until: Time, replace: bool) -> Result<Vec<Entrance>> {
    let routed = settings.sources.iter().filter(|(_, source)| source.repartition);
    routed.map(|(name, source)| find_entrance(settings, name, source, overlap_from, until, replace)).collect()
}

fn find_entrance(
    settings: &Settings,
    name: &str,
    source: &Source,
    overlap_from: Time,
    until: Time,
    replace: bool,
) -> Result<Entrance> {
    let mut kafka = kafka_settings(settings);
    kafka.group_id = super::group(settings, name);
    kafka.topics = vec![source.topic.clone()];
    let missing = || SourceError::Configuration(format!("topic(s) that do not exist: {}; create them", source.topic));
    let partitions = partition_counts(&kafka, ANSWER_WAIT)?.first().copied().flatten().ok_or_else(missing)?;
    let admin = KafkaAdmin::new(&kafka)?;
    if !replace && !admin.all_committed(ANSWER_WAIT)?.is_empty() {
        let text = format!("the group {:?} has offsets, by which source {name:?} is routed", kafka.group_id);
        return Err(BootstrapError::Taken(text).into());
    }
    let at = |partition| TopicPartition { topic: super::FROM, partition: Partition(partition) };
    let all: Vec<_> = (0..i32::try_from(partitions)?).map(at).collect();
    let ask = |start: Start| admin.offsets(&all.iter().map(|at| (*at, start)).collect::<Vec<_>>(), ANSWER_WAIT);
    let (next, first) = (ask(Start::At(overlap_from.millis()))?, ask(Start::Earliest)?);
    let begins: Vec<_> = all.iter().copied().zip(first.iter().copied()).collect();
    for (at, records) in admin.probe_records(&begins, 1, LOOK_WAIT)? {
        let place = usize::try_from(at.partition.0)?;
        let begin = records.first().and_then(|record| Time::from_millis(record.stamp.time?).ok());
        if let Some(begin) = begin.filter(|begin| first[place] > 0 && next[place] == first[place] && *begin > until) {
            let (topic, partition) = (source.topic.clone(), at.partition.0);
            return Err(BootstrapError::Gap { topic, partition, first: begin, until }.into());
        }
    }
    let topic_id = admin.topic_ids(ANSWER_WAIT)?.into_iter().next().flatten();
    let metadata = super::begins_with(topic_id);
    let committed = next.into_iter().map(|offset| Committed { offset, metadata: metadata.clone() });
    Ok(Entrance { admin, next: all.into_iter().zip(committed).collect() })
}

/// How many partitions topics that are filled need: as many as every topic that the engines read has already, or as the
/// largest of the sources has where all of them are routed; `None` while that is not known.
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
    let alone = KafkaSettings { topics: vec![topic.to_owned()], ..kafka.clone() };
    kafka::create_topics(&alone, i32::try_from(partitions)?, &SETTINGS, ANSWER_WAIT)?;
    info!(topic, partitions, "created a topic");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn as_many_partitions_as_the_others_have_or_the_largest_source() {
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
