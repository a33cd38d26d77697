//! Reads a few records of topic-partitions from outside any group, without subscription or commits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;

use super::errors;
use super::ffi::{Handle, Run};
use super::settings::{KafkaSettings, Role};
use super::topics::{TopicCache, TopicNames};
use crate::bus::{RecordBatch, SourceError, Stamp, TopicPartition};

/// Records per fetch.
const FETCH: usize = 500;
/// How long one fetch waits.
const STEP: Duration = Duration::from_millis(20);

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbedRecord {
    /// Its offset.
    pub offset: i64,
    /// The message key, if any.
    pub key: Option<Vec<u8>>,
    /// The message value; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Its log metadata.
    pub stamp: Stamp,
}

/// Reads up to `limit` committed records of each topic-partition from an offset; fewer if the log ends earlier, none if
/// the offset is outside the log.
///
/// # Errors
/// If librdkafka refuses the settings, or the records do not arrive within `wait`.
pub(super) fn probe_records(
    settings: &KafkaSettings,
    from: &[(TopicPartition, i64)],
    limit: usize,
    wait: Duration,
) -> Result<BTreeMap<TopicPartition, Vec<ProbedRecord>>, SourceError> {
    let doing = "cannot read records";
    let mut found: BTreeMap<_, _> = from.iter().map(|(at, _)| (*at, Vec::new())).collect();
    let deadline = Instant::now() + wait;
    let mut conf = settings.configuration(Role::Outsider)?;
    // Fetch little: whatever exceeds the limit is discarded.
    for (name, value) in
        [("fetch.message.max.bytes", "262144"), ("fetch.wait.max.ms", "100"), ("enable.partition.eof", "true")]
    {
        conf.set(name, value).map_err(SourceError::Configuration)?;
    }
    let handle = Handle::new(conf).map_err(|text| SourceError::Configuration(format!("kafka: {text}")))?;
    let names = TopicNames::new(&settings.topics)?;
    let list = names.list(from.iter().copied());
    let mut topics = TopicCache::new(names);
    let mut queue = handle.consumer_queue().map_err(|failure| errors::failed(doing, &failure))?;
    handle.assign(Some(&list)).map_err(|failure| errors::failed(doing, &failure))?;
    let mut open: Vec<TopicPartition> = found.keys().copied().collect();
    let mut last_error = None;
    while !open.is_empty() {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            let why = last_error.unwrap_or_else(|| format!("nothing came within {wait:?}"));
            return Err(SourceError::Unavailable(format!("{doing}: {why}")));
        }
        let mut runs = Vec::new();
        queue.fetch(STEP.min(remaining), FETCH, &mut topics, &mut runs);
        for run in runs {
            match run {
                Run::Records(at, batch) => {
                    let Some(records) = found.get_mut(&at) else { continue };
                    let more = limit.saturating_sub(records.len()).min(batch.len());
                    records.extend((0..more).map(|index| copy(&batch, index)));
                    if records.len() == limit {
                        open.retain(|other| *other != at);
                    }
                }
                Run::End(at) => open.retain(|other| *other != at),
                Run::Problem { topic, partition, failure, .. } => {
                    let at = topic.as_deref().and_then(|topic| topics.names().place(topic, partition));
                    match (failure.code, at) {
                        (Code::AutoOffsetReset | Code::OffsetOutOfRange, Some(at)) => {
                            open.retain(|other| *other != at);
                        }
                        _ => last_error = Some(failure.text),
                    }
                }
            }
        }
    }
    Ok(found)
}

fn copy(batch: &impl RecordBatch, index: usize) -> ProbedRecord {
    let record = batch.get(index);
    ProbedRecord {
        offset: record.offset,
        key: record.key.map(<[u8]>::to_vec),
        payload: record.payload.map(<[u8]>::to_vec),
        stamp: batch.stamp(index),
    }
}
