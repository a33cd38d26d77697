//! Builds the first checkpoint of every partition from a history of events, and commits it at the handoff offsets.
//!
//! The steps: check that the group and the store are free, find the handoff offsets, check the partitioner against
//! records of the topics, read the files, build an engine and a checkpoint per partition, and commit all of them in one
//! request. A crash before the commit leaves only unreferenced files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Handle;
use tracing::warn;

use crate::bus::partitioner::Partitioner;
use crate::bus::{SourceError, Start, TopicPartition};
use crate::checkpoint::files;
use crate::checkpoint::manifest::{CheckpointOrigin, TopicEntry};
use crate::checkpoint::metadata::Metadata;
use crate::checkpoint::store::Store;
use crate::config::Settings;
use crate::coordinator::log_identity::{anchor, last_record};
use crate::decode::{Decoded, Decoder};
use crate::event::{Time, wall_clock};
use crate::kafka::ProbedRecord;
use crate::offline::cluster::{Cluster, Standing};
use crate::replay::History;
use crate::wiring::worker_config;
use crate::worker::LastRecord;

/// Records probed per partition: how many before the handoff offset, and how many in total.
const PROBE_BEFORE: i64 = 100;
const PROBE_RECORDS: usize = 300;
/// Timeout for fetching them.
const PROBE_WAIT: Duration = Duration::from_secs(60);
/// Percentage of the probed records that must be in the partition that the partitioner chooses.
const FITTING_PERCENT: u64 = 99;

/// Why nothing was built. Each message names a remedy.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The group has committed offsets or checkpoints already.
    #[error(
        "{0}; pass --replace to replace it (checkpoints in the store are kept for `retentiond rewind`), or choose \
         another kafka.group_id"
    )]
    Taken(String),
    /// The topics do not reach back to the end of the files.
    #[error(
        "topic {topic:?} partition {partition} begins at {first}, after --until {until}: events in between are in \
         neither the files nor the topic; use an export that reaches up to a time from which the topic is complete"
    )]
    Gap {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The time of its first record.
        first: Time,
        /// Up to where the files are read.
        until: Time,
    },
    /// The topics are partitioned differently.
    #[error("{0}")]
    Partitioner(String),
    /// A thread stopped unexpectedly.
    #[error("a thread that builds checkpoints stopped unexpectedly; this is a bug")]
    Thread,
}

/// The offsets from which the topics continue the history, by partition.
#[derive(Debug)]
pub struct HandoffOffsets {
    /// The next offset of each source topic, by partition.
    pub next: Vec<Vec<i64>>,
    /// The last record before it, if one is near.
    last: BTreeMap<TopicPartition, LastRecord>,
}

pub use crate::wiring::worker_config::partitioner;

/// Checks that the group has no committed offsets and the store no checkpoints of it.
///
/// # Errors
/// [`BootstrapError::Taken`]; also when the cluster or the store does not answer.
pub async fn require_new(cluster: &Cluster, store: &Store) -> Result<()> {
    let taken = cluster.standings()?.into_iter().find(|(_, standing)| *standing != Standing::Nothing);
    if let Some((partition, _)) = taken {
        let text = format!("group {:?} has committed offsets for partition {partition}", cluster.group);
        return Err(BootstrapError::Taken(text).into());
    }
    let directory = files::group_directory(&cluster.group);
    if !store.directories(&directory).await?.is_empty() {
        let text = format!("{} contains checkpoints of group {:?}", store.url(), cluster.group);
        return Err(BootstrapError::Taken(text).into());
    }
    Ok(())
}

/// Finds the offsets at `overlap_from`, and checks that the records there are in the partitions that the partitioner
/// chooses.
///
/// # Errors
/// See [`BootstrapError`]; and when the brokers do not answer.
pub fn find_handoff(cluster: &Cluster, settings: &Settings, overlap_from: Time, until: Time) -> Result<HandoffOffsets> {
    let all = cluster.all();
    let routed: Vec<bool> = settings.sources.values().map(|source| source.repartition).collect();
    let is_routed = |at: &TopicPartition| routed.get(usize::from(at.topic.0)).copied().unwrap_or(false);
    let start = |at: &TopicPartition| match is_routed(at) {
        // Skip what a router has written so far: it will start again with the overlap.
        true => Start::Latest,
        false => Start::At(overlap_from.millis()),
    };
    let next = cluster.offsets(&all.iter().map(|at| (*at, start(at))).collect::<Vec<_>>())?;
    let first = cluster.offsets(&all.iter().map(|&at| (at, Start::Earliest)).collect::<Vec<_>>())?;
    let probe_from: Vec<_> = all
        .iter()
        .zip(next.iter().zip(&first))
        .map(|(&at, (&next, &first))| (at, first.max(next - PROBE_BEFORE)))
        .collect();
    let probed = cluster.admin.probe_records(&probe_from, PROBE_RECORDS, PROBE_WAIT)?;
    let mut last = BTreeMap::new();
    let probed: BTreeMap<_, _> = probed.into_iter().filter(|(at, _)| !is_routed(at)).collect();
    for (at, (&next, &first)) in all.iter().zip(next.iter().zip(&first)) {
        let records = probed.get(at).map_or(&[][..], Vec::as_slice);
        last.extend(records.iter().rfind(|record| record.offset < next).map(|record| (*at, last_record(record))));
        let begin = records.first().and_then(|record| Time::from_millis(record.stamp.time?).ok());
        if let Some(begin) = begin.filter(|begin| first > 0 && next == first && *begin > until) {
            let topic = cluster.topics[usize::from(at.topic.0)].clone();
            return Err(BootstrapError::Gap { topic, partition: at.partition.0, first: begin, until }.into());
        }
    }
    let decoders: Vec<_> = settings.sources.values().map(|source| worker_config::decoder(settings, source)).collect();
    let partitions = u32::try_from(cluster.partitions).unwrap_or(u32::MAX);
    let mut sample = Sample { partitions, ..Sample::default() };
    for (at, records) in &probed {
        records.iter().for_each(|record| sample.add(&decoders[usize::from(at.topic.0)], *at, record));
    }
    sample.judge(partitioner(settings)).map_err(BootstrapError::Partitioner)?;
    let topics = cluster.topics.len();
    Ok(HandoffOffsets { next: next.chunks(topics).map(<[i64]>::to_vec).collect(), last })
}

/// Counts of probed records.
#[derive(Debug, Default)]
struct Sample {
    partitions: u32,
    /// Number of records with a customer.
    records: u64,
    /// How many are in the partition that each partitioner chooses.
    fitting: [u64; Partitioner::ALL.len()],
    /// How many have a key other than the customer id.
    other_keys: u64,
}

impl Sample {
    fn add(&mut self, decoder: &Decoder, at: TopicPartition, record: &ProbedRecord) {
        let Ok(decoded) = decoder.decode(record.key.as_deref(), record.payload.as_deref(), Time::MAX) else { return };
        let events = decoded.events();
        let customer = match (&decoded, events.first()) {
            (Decoded::Erase { customer, .. }, _) => customer.as_ref(),
            (_, Some(event)) => event.customer.as_ref(),
            (_, None) => return,
        };
        self.records += 1;
        self.other_keys += u64::from(record.key.as_deref() != Some(customer.as_bytes()));
        for (fitting, partitioner) in self.fitting.iter_mut().zip(Partitioner::ALL) {
            let partition = partitioner.partition(customer.as_bytes(), self.partitions);
            *fitting += u64::from(i64::from(partition) == i64::from(at.partition.0));
        }
    }

    fn fits(&self, partitioner: Partitioner) -> bool {
        let fitting = self.fitting[partitioner as usize];
        fitting * 100 >= self.records * FITTING_PERCENT
    }

    /// Checks that records are where the configured partitioner puts their customers.
    fn judge(&self, configured: Partitioner) -> Result<(), String> {
        let (records, name) = (self.records, configured.name());
        if records == 0 {
            warn!("the topics have no events near --until, so kafka.partitioner = {name:?} was not checked");
            return Ok(());
        }
        let wrong = records - self.fitting[configured as usize];
        if self.fits(configured) {
            if wrong > 0 {
                warn!("{wrong} of {records} records are not where kafka.partitioner = {name:?} puts their customers");
            }
            return Ok(());
        }
        let found = format!(
            "{wrong} of {records} sampled records are not in the partition where kafka.partitioner = {name:?} puts \
             their customers, so a customer's history and new events would be in different partitions"
        );
        let fitting = Partitioner::ALL.into_iter().find(|other| self.fits(*other));
        Err(match fitting {
            Some(other) => {
                format!(
                    "{found}. They are where {:?} puts them; write kafka.partitioner = {:?}",
                    other.name(),
                    other.name()
                )
            }
            None if self.other_keys > 0 => format!(
                "{found}. {} of them have a key other than the customer id: make the producers use it as the key, or \
                copy the events to a topic that is keyed by it",
                self.other_keys
            ),
            None => format!(
                "{found}. No other known partitioner puts them there either; were partitions added to the topic? Make \
                 the producers use the Java client's partitioner, \"murmur2\", with a topic whose partition count \
                 never changed"
            ),
        })
    }
}

/// The checkpoint built for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The partition.
    pub partition: i32,
    /// The metadata to commit.
    pub metadata: Metadata,
    /// The next offset of each source topic.
    pub next: Vec<i64>,
    /// Number of customers.
    pub customers: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Inputs shared by all partitions.
pub struct BootstrapContext<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The store.
    pub store: &'a Store,
    /// The settings.
    pub settings: &'a Settings,
    /// Where reading the topics begins.
    pub handoff: &'a HandoffOffsets,
    /// The time from which the topics are read.
    pub overlap_from: Time,
    /// Whether the files contain the first order of every customer.
    pub history_whole: bool,
    /// Runs the uploads.
    pub runtime: Handle,
}

impl BootstrapContext<'_> {
    /// Builds and writes a checkpoint of every partition, one thread per core. `progress` is called with the number of
    /// newly applied events.
    ///
    /// # Errors
    /// When a checkpoint cannot be written; nothing is committed.
    pub fn build(&self, histories: Vec<History>, progress: impl Fn(u64) + Sync) -> Result<Vec<Built>> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(histories.len());
        let left = Mutex::new(histories.into_iter().enumerate());
        let take = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            let mut built = Vec::new();
            while let Some((partition, history)) = take() {
                built.push(self.build_one(partition, history, &progress)?);
            }
            Ok(built)
        };
        let all = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err(BootstrapError::Thread.into()))
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        });
        let mut built: Vec<Built> = all?.into_iter().flatten().collect();
        built.sort_by_key(|built| built.partition);
        Ok(built)
    }

    fn build_one(&self, partition: usize, history: History, progress: &(impl Fn(u64) + Sync)) -> Result<Built> {
        let spec = Arc::new(worker_config::spec(self.settings));
        let mut engine = history.found(Arc::clone(&spec), self.overlap_from, wall_clock(), progress);
        if self.history_whole {
            engine.note_whole_history();
        }
        let customers = engine.tracked_customers() as u64;
        // `found` has marked the engine as changed, so there is a checkpoint.
        let checkpoint = engine.checkpoint().ok_or(BootstrapError::Thread)?;
        drop(engine);
        let next = self.handoff.next[partition].clone();
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let written =
            files::write_checkpoint(self.store, &spec, self.origin(number, &next), &checkpoint, None, rand::random());
        let written = self.runtime.block_on(written).with_context(|| format!("partition {partition}"))?;
        let metadata = Metadata::of(&written.reference);
        Ok(Built { partition: number, metadata, next, customers, bytes: written.bytes })
    }

    fn origin(&self, partition: i32, next: &[i64]) -> CheckpointOrigin {
        let cluster = self.cluster;
        let topics = cluster.siblings(partition).into_iter().zip(next);
        let entry = |(at, &offset): (TopicPartition, &i64)| TopicEntry {
            name: cluster.topics[usize::from(at.topic.0)].clone(),
            id: cluster.ids[usize::from(at.topic.0)].clone(),
            offset,
            anchor: self.handoff.last.get(&at).copied().map(anchor),
        };
        let now = wall_clock().millis();
        CheckpointOrigin {
            group: cluster.group.clone(),
            partition,
            partitions: cluster.partitions,
            topics: topics.map(entry).collect(),
            store: self.store.id().to_owned(),
            since: now,
            written: now,
        }
    }
}

/// Commits the checkpoints for a group without members.
///
/// # Errors
/// As [`Cluster::commit`].
pub fn commit(cluster: &Cluster, built: &[Built]) -> Result<(), SourceError> {
    let states: Vec<_> =
        built.iter().map(|built| (built.partition, built.metadata.clone(), built.next.clone())).collect();
    cluster.commit(&states)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Partition, Stamp, TopicIndex};
    use crate::decode::Format;

    /// Records of a hundred customers where a partitioner puts them, except for the first `elsewhere`; keyed by
    /// customer id if `keyed`.
    fn sample(partitioner: impl Fn(&[u8]) -> u32, elsewhere: usize, keyed: bool) -> Sample {
        let mut sample = Sample { partitions: 7, ..Sample::default() };
        let decoder = Decoder::new(Format::Native, Vec::new());
        for number in 0..100 {
            let customer = format!("c-{number}");
            let partition = partitioner(customer.as_bytes()) + u32::from(number < elsewhere);
            let at = TopicPartition { topic: TopicIndex(0), partition: Partition((partition % 7).cast_signed()) };
            let order = format!(r#"{{"type":"session","customer_id":"{customer}","time":1767323045678}}"#);
            let record = ProbedRecord {
                offset: 0,
                key: keyed.then(|| customer.clone().into_bytes()),
                payload: Some(order.into_bytes()),
                stamp: Stamp { time: None, leader_epoch: None },
            };
            sample.add(&decoder, at, &record);
        }
        sample
    }

    #[test]
    fn a_wrong_partitioner_is_detected() {
        for (right, wrong) in [(Partitioner::Murmur2, Partitioner::Crc32), (Partitioner::Crc32, Partitioner::Murmur2)] {
            let by = |key: &[u8]| right.partition(key, 7);
            assert_eq!(sample(by, 0, true).judge(right), Ok(()));
            assert_eq!(sample(by, 1, true).judge(right), Ok(()), "one in a hundred is somebody's experiment");
            assert!(sample(by, 2, true).judge(right).is_err());
            let error = sample(by, 0, true).judge(wrong).unwrap_err();
            assert!(error.contains(&format!("write kafka.partitioner = {:?}", right.name())), "{error}");
        }
        let error = sample(|_| 3, 0, false).judge(Partitioner::Murmur2).unwrap_err();
        assert!(error.contains("100 of them have a key other than"), "{error}");
        let error = sample(|_| 3, 0, true).judge(Partitioner::Murmur2).unwrap_err();
        assert!(error.contains("were partitions added"), "{error}");
        assert_eq!(Sample::default().judge(Partitioner::Crc32), Ok(()), "an empty topic proves nothing");
    }
}
