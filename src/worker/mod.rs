//! The engines of one thread's partitions: applies batches and answers queries. Not shared between threads.

mod checkpoints;
pub mod key_placement;
mod people;
pub mod pool;
mod rejected;
mod tally;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::key_placement::KeyPlacementSample;
pub use self::rejected::{Rejected, RejectedPart};
pub use self::tally::{Tally, note_type};
use crate::bus::{Partition, Record, RecordBatch, Stamp, TopicPartition};
use crate::decode::{Decoded, Decoder, Message, Reason, Rejection, Skip, in_the_future};
use crate::engine::axis::Pane;
use crate::engine::inactivity::release::{Alert, Allowance, RuleParts};
use crate::engine::snapshot::{Periods, Snapshot};
use crate::engine::spec::{Spec, WindowId};
use crate::engine::state::EngineCheckpoint;
use crate::engine::{Engine, Outcome, WindowParts, customer_hash};
use crate::event::{Event, EventType, Kind, Time};

/// Customers processed per slice of a listing, before queued work gets a turn; some milliseconds.
const SLICE: usize = 1 << 16;

/// How many records are prefetched before they are applied.
pub const AHEAD: usize = 32;

/// Configuration shared by all workers.
#[derive(Debug)]
pub struct WorkerConfig {
    /// What the engines compute.
    pub spec: Arc<Spec>,
    /// The decoder of each source topic.
    pub decoders: Vec<Decoder>,
}

/// Status of one partition, without its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: Partition,
    /// The smallest watermark among its clock-driving topics that have had an event.
    pub watermark: Option<Time>,
    /// The watermark of each source topic.
    pub topic_watermarks: Vec<Option<Time>>,
    /// Its earliest event of a clock-driving topic.
    pub first_event: Option<Time>,
    /// Its earliest order.
    pub first_order: Option<Time>,
    /// Whether its data reach back to the first order ever.
    pub history_whole: bool,
    /// Number of customers with a record.
    pub tracked_customers: usize,
    /// Number of alerts and win-backs waiting to be released.
    pub waiting_alerts: usize,
    /// Approximate memory use in bytes.
    pub state_bytes: usize,
}

/// Status of one worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its partitions.
    pub partitions: Vec<PartitionStatus>,
    /// Its counters.
    pub tally: Tally,
}

impl WorkerStatus {
    /// The current time of this replica: the smallest watermark among partitions that have had an event.
    #[must_use]
    pub fn now(&self) -> Option<Time> {
        self.partitions.iter().filter_map(|partition| partition.watermark).min()
    }

    /// Whether the data of all partitions with events reach back to the first order ever.
    #[must_use]
    pub fn history_whole(&self) -> bool {
        let mut filled = self.partitions.iter().filter(|partition| partition.first_event.is_some()).peekable();
        filled.peek().is_some() && filled.all(|partition| partition.history_whole)
    }

    /// From when on data are complete: the latest first event among partitions with events.
    #[must_use]
    pub fn data_begin(&self) -> Option<Time> {
        self.partitions.iter().filter_map(|partition| partition.first_event).max()
    }
}

/// The engines of one thread's partitions.
#[derive(Debug)]
pub struct Worker {
    config: Arc<WorkerConfig>,
    engines: BTreeMap<Partition, Engine>,
    /// The progress of each engine, and its open checkpoint.
    progress: BTreeMap<Partition, PartitionProgress>,
    /// Engines of released partitions, kept in case they are assigned again.
    parked: BTreeMap<Partition, (Engine, PartitionProgress)>,
    tally: Tally,
    key_placement: Arc<KeyPlacementSample>,
}

/// The last applied record of a topic-partition, to recognize its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRecord {
    /// Its offset.
    pub offset: i64,
    /// Its log metadata.
    pub stamp: Stamp,
    /// A hash of key and value.
    pub hash: u64,
}

/// The progress of an engine.
#[derive(Debug, Clone, Default)]
struct PartitionProgress {
    /// The next offset of each source topic.
    next: Vec<i64>,
    /// Whether records were applied since the last checkpoint, counted or not.
    has_moved: bool,
    last: Vec<Option<LastRecord>>,
    /// The open checkpoint, if any.
    open: Option<Open>,
    /// Results of the alert rules in committed checkpoints.
    inactivity: Vec<RuleParts>,
}

/// A checkpoint that is neither committed nor rolled back.
#[derive(Debug, Clone)]
struct Open {
    epoch: u64,
    /// Its content, once everything is copied.
    taken: Option<Arc<EngineCheckpoint>>,
    /// The offsets when it began.
    next: Vec<i64>,
    last: Vec<Option<LastRecord>>,
    /// Results of the alert rules when it began.
    inactivity: Vec<RuleParts>,
}

impl PartitionProgress {
    fn at(next: Vec<i64>) -> PartitionProgress {
        PartitionProgress { last: vec![None; next.len()], next, ..PartitionProgress::default() }
    }

    fn note(&mut self, topic: usize, next: i64, last: LastRecord) {
        self.has_moved = true;
        self.next[topic] = next;
        self.last[topic] = Some(last);
    }
}

/// A checkpoint of a partition with its offsets.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The changes since the last checkpoint.
    pub checkpoint: Arc<EngineCheckpoint>,
    /// The next offset of each source topic.
    pub next: Vec<i64>,
    /// The last applied record of each topic, if any was applied since the engine began here.
    pub last: Vec<Option<LastRecord>>,
}

impl Worker {
    /// A worker without partitions.
    #[must_use]
    pub fn new(config: Arc<WorkerConfig>) -> Worker {
        let key_placement = Arc::new(KeyPlacementSample::new(config.decoders.len()));
        Worker::with_key_placement(config, key_placement)
    }

    /// As [`Worker::new`], with a sample that is shared with other workers.
    #[must_use]
    pub fn with_key_placement(config: Arc<WorkerConfig>, key_placement: Arc<KeyPlacementSample>) -> Worker {
        let tally = Tally::new(config.decoders.len());
        Worker {
            config,
            engines: BTreeMap::new(),
            progress: BTreeMap::new(),
            parked: BTreeMap::new(),
            tally,
            key_placement,
        }
    }

    /// Begins a partition with an empty engine at offset 0.
    pub fn start(&mut self, partition: Partition) {
        let engine = Engine::new(Arc::clone(&self.config.spec));
        self.begin(partition, engine, vec![0; self.config.decoders.len()]);
    }

    /// Begins a partition with an engine that has read up to `next`, by topic.
    pub fn begin(&mut self, partition: Partition, engine: Engine, next: Vec<i64>) {
        self.parked.remove(&partition);
        let inactivity = engine.inactivity();
        self.engines.insert(partition, engine);
        self.progress.insert(partition, PartitionProgress { inactivity, ..PartitionProgress::at(next) });
    }

    /// Begins a checkpoint of the changes since the last one. It stays open until [`Worker::confirm`] or
    /// [`Worker::roll_back`]; [`Worker::continue_checkpoint`] copies it. `None` if nothing was read since. Returns the
    /// alerts that are released with it, in order.
    pub fn begin_checkpoint(&mut self, partition: Partition, epoch: u64, allowance: &Allowance) -> Option<Vec<Alert>> {
        let (engine, progress) = (self.engines.get_mut(&partition)?, self.progress.get_mut(&partition)?);
        if std::mem::take(&mut progress.has_moved) {
            // Records without effect still move the offsets, which are part of the state.
            engine.note_progress();
        }
        let alerts = engine.release(allowance);
        if !engine.begin_checkpoint() {
            return None;
        }
        let (next, last) = (progress.next.clone(), progress.last.clone());
        progress.open = Some(Open { epoch, taken: None, next, last, inactivity: engine.inactivity() });
        Some(alerts)
    }

    /// Copies about `most` customers of the checkpoint in progress; returns the checkpoint once everything is copied.
    pub fn continue_checkpoint(&mut self, partition: Partition, most: usize) -> Option<Taken> {
        let parked = self.parked.get_mut(&partition).map(|(engine, progress)| (engine, progress));
        let working = self.engines.get_mut(&partition).zip(self.progress.get_mut(&partition));
        let (engine, progress) = working.or(parked)?;
        let open = progress.open.as_mut().filter(|open| open.taken.is_none())?;
        if !engine.continue_checkpoint(most) {
            return None;
        }
        let checkpoint = Arc::new(engine.end_checkpoint()?);
        open.taken = Some(Arc::clone(&checkpoint));
        Some(Taken { checkpoint, next: open.next.clone(), last: open.last.clone() })
    }

    /// Takes a checkpoint at once; returns it with the released alerts.
    pub fn checkpoint(
        &mut self,
        partition: Partition,
        epoch: u64,
        allowance: &Allowance,
    ) -> Option<(Taken, Vec<Alert>)> {
        let alerts = self.begin_checkpoint(partition, epoch, allowance)?;
        Some((self.continue_checkpoint(partition, usize::MAX)?, alerts))
    }

    /// Marks a checkpoint as committed.
    pub fn confirm(&mut self, partition: Partition, epoch: u64) {
        let Some(progress) = self.progress_mut(partition) else { return };
        let Some(open) = progress.open.take_if(|open| open.epoch == epoch) else { return };
        let before = std::mem::replace(&mut progress.inactivity, open.inactivity.clone());
        self.tally.add_inactivity(&difference(&before, &open.inactivity));
    }

    /// Rolls back a checkpoint that will never be committed: its content counts as changed again.
    pub fn roll_back(&mut self, partition: Partition, epoch: u64) {
        if self
            .progress_mut(partition)
            .and_then(|progress| progress.open.as_ref())
            .is_none_or(|open| open.epoch != epoch)
        {
            return;
        }
        self.continue_checkpoint(partition, usize::MAX);
        let taken = self.progress_mut(partition).and_then(|progress| progress.open.take());
        let Some(Open { taken: Some(taken), .. }) = taken else { return };
        let parked = self.parked.get_mut(&partition).map(|(engine, _)| engine);
        if let Some(engine) = self.engines.get_mut(&partition).or(parked) {
            engine.roll_back(&taken);
        }
    }

    fn progress_mut(&mut self, partition: Partition) -> Option<&mut PartitionProgress> {
        let parked = self.parked.get_mut(&partition).map(|(_, progress)| progress);
        self.progress.get_mut(&partition).or(parked)
    }

    /// Stops an engine and keeps it.
    pub fn park(&mut self, partition: Partition) {
        if let (Some(engine), Some(progress)) = (self.engines.remove(&partition), self.progress.remove(&partition)) {
            self.parked.insert(partition, (engine, progress));
        }
    }

    /// Restarts a parked engine; returns the next offsets of its topics.
    pub fn unpark(&mut self, partition: Partition) -> Option<Vec<i64>> {
        let (engine, progress) = self.parked.remove(&partition)?;
        let next = progress.next.clone();
        self.engines.insert(partition, engine);
        self.progress.insert(partition, progress);
        Some(next)
    }

    /// Drops the engine of a partition, running or parked.
    pub fn forget(&mut self, partition: Partition) {
        self.engines.remove(&partition);
        self.progress.remove(&partition);
        self.parked.remove(&partition);
    }

    /// Notes that a topic-partition ends before `offset`: no records lie between the last one and `offset`.
    pub fn end(&mut self, at: TopicPartition, offset: i64) {
        if let Some(progress) = self.progress.get_mut(&at.partition) {
            let next = &mut progress.next[usize::from(at.topic.0)];
            *next = (*next).max(offset);
        }
        if let Some(engine) = self.engines.get_mut(&at.partition) {
            engine.note_end(usize::from(at.topic.0));
        }
    }

    /// Whether every record of a batch can be decoded now; if not, a missing schema has been requested.
    #[must_use]
    pub fn is_ready_for<B: RecordBatch>(&self, at: TopicPartition, batch: &B) -> bool {
        let decoder = &self.config.decoders[usize::from(at.topic.0)];
        !decoder.wants_schemas() || (0..batch.len()).all(|index| decoder.is_ready_for(&message(batch, index)))
    }

    /// Applies a batch of a running partition; events after `latest` are rejected. Returns the offset after the last
    /// record; `None` if the partition is not owned (the batch crossed a revocation).
    pub fn apply<B: RecordBatch>(
        &mut self,
        at: TopicPartition,
        batch: &B,
        latest: Time,
        rejected: &mut Vec<Rejected>,
    ) -> Option<i64> {
        let engine = self.engines.get_mut(&at.partition)?;
        let topic = usize::from(at.topic.0);
        let decoder = &self.config.decoders[topic];
        let wants_message = decoder.wants_message();
        let source = EventSource { key_placement: &self.key_placement, at };
        let mut decoded = Vec::with_capacity(AHEAD);
        for start in (0..batch.len()).step_by(AHEAD) {
            let some = start..batch.len().min(start + AHEAD);
            touch(batch, some.clone());
            decoded.extend(some.clone().map(|index| {
                if wants_message {
                    decoder.decode_message(&message(batch, index), latest)
                } else {
                    let record = batch.get(index);
                    decoder.decode(record.key, record.payload, latest)
                }
            }));
            look_ahead(engine, &decoded);
            for (index, decoded) in some.zip(&decoded) {
                let erased_by = || erased_by(batch, index, latest);
                if let Ok(Decoded::Batch(parts)) = decoded {
                    for part in parts {
                        if let Err(rejection) = apply_decoded(engine, &mut self.tally, source, &part.decoded, erased_by)
                        {
                            rejected.push(Rejected::part(index, part, &rejection));
                        }
                    }
                } else if let Err(rejection) = apply_decoded(engine, &mut self.tally, source, decoded, erased_by) {
                    rejected.push(Rejected::whole(index, rejection));
                }
            }
            decoded.clear();
        }
        // Counters live on the worker so that they survive partition reassignment.
        self.tally.add_unconverted(&engine.take_unconverted());
        let index = batch.len().checked_sub(1)?;
        let record = batch.get(index);
        let next = record.offset + 1;
        if let Some(progress) = self.progress.get_mut(&at.partition) {
            let last = LastRecord { offset: record.offset, stamp: batch.stamp(index), hash: hash(record) };
            progress.note(topic, next, last);
        }
        Some(next)
    }

    /// Raises the watermark of a topic-partition that is caught up and silent.
    pub fn raise_watermark(&mut self, at: TopicPartition, to: Time) {
        if let Some(engine) = self.engines.get_mut(&at.partition) {
            engine.raise_watermark(usize::from(at.topic.0), to);
        }
    }

    /// Status of the partitions, with the counters.
    #[must_use]
    pub fn status(&self) -> WorkerStatus {
        let topics = 0..self.config.decoders.len();
        let partitions = self.engines.iter().map(|(&partition, engine)| PartitionStatus {
            partition,
            watermark: engine.clock().watermark(),
            topic_watermarks: topics.clone().map(|topic| engine.clock().topic_watermark(topic)).collect(),
            first_event: engine.first_event(),
            first_order: engine.first_order(),
            history_whole: engine.history_whole(),
            tracked_customers: engine.tracked_customers(),
            waiting_alerts: engine.waiting_alerts(),
            state_bytes: engine.state_bytes(),
        });
        WorkerStatus { partitions: partitions.collect(), tally: self.tally.clone() }
    }

    /// The figures of one window in each of some panes, summed over all partitions.
    pub fn series(&mut self, window: WindowId, panes: &[Pane]) -> Vec<Option<WindowParts>> {
        let mut sums = vec![Some(WindowParts::default()); panes.len()];
        for engine in self.engines.values_mut() {
            let figures: Vec<_> = panes.iter().flat_map(|&pane| engine.series(window, pane, pane)).collect();
            add_series(&mut sums, &figures);
        }
        sums
    }

    /// The figures at one instant, summed over all partitions.
    pub fn snapshot(&mut self, at: Time, periods: Periods) -> Snapshot {
        let mut snapshot = Snapshot::empty(&self.config.spec, at, periods);
        for engine in self.engines.values_mut() {
            snapshot.add(engine);
        }
        snapshot
    }
}

/// The difference of rule results.
fn difference(before: &[RuleParts], after: &[RuleParts]) -> Vec<RuleParts> {
    let since = |rule: &RuleParts| {
        let before = before.iter().find(|before| before.rule == rule.rule).cloned().unwrap_or_default();
        let groups = std::array::from_fn(|group| rule.groups[group].since(&before.groups[group]));
        RuleParts { rule: rule.rule.clone(), groups }
    };
    after.iter().map(since).collect()
}

/// Adds figures pane by pane; a sum with an unknown part is unknown.
pub fn add_series(sums: &mut [Option<WindowParts>], more: &[Option<WindowParts>]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        match (sum.as_mut(), more) {
            (Some(so_far), Some(more)) => *so_far += more,
            _ => *sum = None,
        }
    }
}

/// A hash of key and value, the same in every version.
#[must_use]
pub fn hash(record: Record<'_>) -> u64 {
    let key = xxhash_rust::xxh3::xxh3_64(record.key.unwrap_or_default());
    xxhash_rust::xxh3::xxh3_64_with_seed(record.payload.unwrap_or_default(), key)
}

/// Prefetches the first bytes of records, so that cache misses overlap.
fn touch<B: RecordBatch>(batch: &B, some: std::ops::Range<usize>) {
    let first = |bytes: Option<&[u8]>| bytes.and_then(<[u8]>::first).copied().unwrap_or(0);
    let touched = some.fold(0, |so_far, index| {
        let Record { offset: _, key, payload } = batch.get(index);
        so_far ^ first(key) ^ first(payload)
    });
    std::hint::black_box(touched);
}

/// Prefetches the customers of events, as [`touch`] does for records.
fn look_ahead(engine: &Engine, decoded: &[Result<Decoded<'_>, Rejection>]) {
    let mut hashes = [0; AHEAD];
    let mut count = 0;
    for decoded in decoded {
        if let Ok(Decoded::Event(event)) = decoded {
            hashes[count] = customer_hash(&event.customer);
            count += 1;
        }
    }
    engine.look_ahead(&hashes[..count]);
}

/// A record with its headers and time.
pub fn message<B: RecordBatch>(batch: &B, index: usize) -> Message<'_> {
    let record = batch.get(index);
    let headers = batch.headers(index).into_iter().map(|header| (header.name, header.value)).collect();
    let time = batch.stamp(index).time.and_then(|time| Time::from_millis(time).ok());
    Message { key: record.key, payload: record.payload, headers, time }
}

/// The topic-partition that is applied, and the sample that records its customers.
#[derive(Debug, Clone, Copy)]
struct EventSource<'a> {
    key_placement: &'a KeyPlacementSample,
    at: TopicPartition,
}

impl EventSource<'_> {
    fn topic(self) -> usize {
        usize::from(self.at.topic.0)
    }
}

fn apply_decoded(
    engine: &mut Engine,
    tally: &mut Tally,
    source: EventSource<'_>,
    decoded: &Result<Decoded<'_>, Rejection>,
    erased_by: impl Fn() -> Result<Option<Time>, Rejection>,
) -> Result<(), Rejection> {
    let topic = source.topic();
    let mut rejected = |rejection: &Rejection| {
        tally.rejected[topic][rejection.reason as usize] += 1;
        rejection.clone()
    };
    let decoded = decoded.as_ref().map_err(&mut rejected)?;
    match decoded {
        Decoded::Event(event) => apply_event(engine, tally, source, event, Time::MIN),
        Decoded::Cancellation { event, placed } => {
            if engine.has_order_at(&event.customer, *placed) == Some(false) {
                tally.skipped[topic][Skip::Filtered as usize] += 1;
                return Ok(());
            }
            apply_event(engine, tally, source, event, Time::MAX)
        }
        Decoded::Several { events, told_before } => {
            let apply = |event| apply_event(engine, tally, source, event, *told_before);
            // All of them, even after one that is too late; the dead letter names the first rejection.
            events.iter().map(apply).fold(Ok(()), Result::and)
        }
        Decoded::Erase { customer, time } => {
            let time = if time.is_some() { *time } else { erased_by().map_err(|rejection| rejected(&rejection))? };
            tally.events[topic][EventType::Erase as usize] += 1;
            engine.erase(topic, customer, time);
            Ok(())
        }
        Decoded::Unknown(unknown) => {
            tally.add_unknown(topic, &unknown.to_string());
            Ok(())
        }
        Decoded::Skipped(skip) => {
            tally.skipped[topic][*skip as usize] += 1;
            Ok(())
        }
        // Batches are split before, and their parts are not batches.
        Decoded::Batch(_) => Ok(()),
    }
}

/// The time of an erasure without a time: that of the record, unless it is too far in the future.
fn erased_by<B: RecordBatch>(batch: &B, index: usize, latest: Time) -> Result<Option<Time>, Rejection> {
    let recorded = batch.stamp(index).time.and_then(|millis| Time::from_millis(millis).ok());
    match recorded {
        Some(time) if time > latest => Err(in_the_future(time, latest)),
        recorded => Ok(recorded),
    }
}

/// Applies an event. An event before `told_before` may repeat an earlier message, so it is skipped rather than rejected
/// if it is too late, unless it is an order that was certainly never counted.
fn apply_event(
    engine: &mut Engine,
    tally: &mut Tally,
    source: EventSource<'_>,
    event: &Event<'_>,
    told_before: Time,
) -> Result<(), Rejection> {
    let topic = source.topic();
    source.key_placement.note(source.at, &event.customer);
    tally.events[topic][event.kind.event_type() as usize] += 1;
    match engine.apply(topic, event) {
        Outcome::Applied => {}
        Outcome::Duplicate => tally.duplicates += 1,
        Outcome::TooLate if event.time < told_before && !was_never_counted(engine, event) => {
            tally.skipped[topic][Skip::ToldBefore as usize] += 1;
        }
        Outcome::TooLate => {
            tally.late += 1;
            return Err(too_late(engine, topic, event.time));
        }
    }
    Ok(())
}

/// Whether the event is certainly an order that was never counted, although the data reach back to it.
fn was_never_counted(engine: &Engine, event: &Event<'_>) -> bool {
    matches!(event.kind, Kind::Order { .. })
        && engine.first_event().is_some_and(|first| event.time >= first)
        && engine.has_order_at(&event.customer, event.time) == Some(false)
}

/// The rejection of a late event, with the watermark it was compared with.
#[cold]
fn too_late(engine: &Engine, topic: usize, time: Time) -> Rejection {
    let mark = engine.clock().topic_watermark(topic).map_or_else(String::new, |mark| mark.to_string());
    let detail =
        format!("time {time} is more than customers.allowed_lateness behind the watermark {mark} of its partition");
    Rejection::new(Reason::TooLate, detail)
}
