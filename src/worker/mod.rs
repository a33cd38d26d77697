//! The engines of the partitions that one thread owns: applies batches, answers questions. Shared with nobody.

pub mod pool;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decode::{Decoded, Decoder, Reason, Rejection};
use crate::engine::axis::Pane;
use crate::engine::customer::CustomerFigures;
use crate::engine::snapshot::{Periods, Snapshot};
use crate::engine::spec::{Spec, WindowId};
use crate::engine::{Engine, Outcome, WindowParts};
use crate::event::{Currency, EventType, Time};
use crate::source::{Partition, Record, RecordBatch, TopicPartition};

/// What every worker needs to know.
#[derive(Debug)]
pub struct Blueprint {
    /// What the engines compute.
    pub spec: Arc<Spec>,
    /// How the messages of each source topic are read.
    pub decoders: Vec<Decoder>,
}

/// A record that enters no figure: its place in the batch and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its index in the batch.
    pub index: usize,
    /// Why.
    pub rejection: Rejection,
}

/// What one worker has counted since it started, by source topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Decoded messages of each type, duplicates and late ones included.
    pub events: Vec<[u64; EventType::ALL.len()]>,
    /// Messages rejected for each reason.
    pub rejected: Vec<[u64; Reason::ALL.len()]>,
    /// Second copies.
    pub duplicates: u64,
    /// Events too late to count.
    pub late: u64,
    /// Amounts that had no rate into the reporting currency.
    pub unconverted: BTreeMap<Currency, u64>,
}

impl Tally {
    fn new(topics: usize) -> Tally {
        Tally {
            events: vec![Default::default(); topics],
            rejected: vec![Default::default(); topics],
            ..Tally::default()
        }
    }

    /// Adds the counts of another worker.
    pub fn add(&mut self, other: &Tally) {
        let topics = self.events.len().max(other.events.len());
        self.events.resize(topics, Default::default());
        self.rejected.resize(topics, Default::default());
        for (mine, theirs) in self.events.iter_mut().zip(&other.events) {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
        for (mine, theirs) in self.rejected.iter_mut().zip(&other.rejected) {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.add_unconverted(&other.unconverted);
    }

    fn add_unconverted(&mut self, amounts: &BTreeMap<Currency, u64>) {
        for (&currency, count) in amounts {
            *self.unconverted.entry(currency).or_default() += count;
        }
    }
}

/// What is known of one partition, without its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Which one.
    pub partition: Partition,
    /// The smallest watermark of its clock-driving topics that ever had an event.
    pub watermark: Option<Time>,
    /// The watermark of each source topic.
    pub topic_watermarks: Vec<Option<Time>>,
    /// Its earliest event of a clock-driving topic.
    pub first_event: Option<Time>,
    /// Its earliest order.
    pub first_order: Option<Time>,
    /// How many customers have a record.
    pub tracked_customers: usize,
    /// Bytes of memory held, about.
    pub state_bytes: usize,
}

/// The state of one worker, for those who ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its partitions.
    pub partitions: Vec<PartitionStatus>,
    /// What it has counted.
    pub tally: Tally,
}

impl WorkerStatus {
    /// "Now" of this replica: the smallest watermark over its partitions that hold events.
    #[must_use]
    pub fn now(&self) -> Option<Time> {
        self.partitions.iter().filter_map(|partition| partition.watermark).min()
    }

    /// From when on the data are there: the latest first event over the partitions that hold any.
    #[must_use]
    pub fn data_begin(&self) -> Option<Time> {
        self.partitions.iter().filter_map(|partition| partition.first_event).max()
    }
}

/// The engines of the partitions that one thread owns.
#[derive(Debug)]
pub struct Worker {
    blueprint: Arc<Blueprint>,
    engines: BTreeMap<Partition, Engine>,
    tally: Tally,
}

impl Worker {
    /// A worker without partitions.
    #[must_use]
    pub fn new(blueprint: Arc<Blueprint>) -> Worker {
        let tally = Tally::new(blueprint.decoders.len());
        Worker { blueprint, engines: BTreeMap::new(), tally }
    }

    /// Takes a partition over, with an empty engine.
    pub fn start(&mut self, partition: Partition) {
        self.engines.insert(partition, Engine::new(Arc::clone(&self.blueprint.spec)));
    }

    /// Gives a partition up and drops its engine.
    pub fn stop(&mut self, partition: Partition) {
        self.engines.remove(&partition);
    }

    /// Applies a batch of a partition that was started; events after `latest` are refused. Returns the offset behind
    /// the last record; `None` for a partition that is not owned (a batch that crossed a revocation).
    pub fn apply<B: RecordBatch>(
        &mut self,
        at: TopicPartition,
        batch: &B,
        latest: Time,
        rejected: &mut Vec<Rejected>,
    ) -> Option<i64> {
        let engine = self.engines.get_mut(&at.partition)?;
        let topic = usize::from(at.topic.0);
        let decoder = &self.blueprint.decoders[topic];
        let mut next = None;
        for index in 0..batch.len() {
            let record = batch.get(index);
            next = Some(record.offset + 1);
            if let Err(rejection) = apply_record(engine, &mut self.tally, decoder, topic, record, latest) {
                rejected.push(Rejected { index, rejection });
            }
        }
        // Counted here, for an engine goes with its partition and a counter must not.
        self.tally.add_unconverted(&engine.take_unconverted());
        next
    }

    /// Raises the watermark of a topic-partition that is caught up and silent.
    pub fn raise_watermark(&mut self, at: TopicPartition, to: Time) {
        if let Some(engine) = self.engines.get_mut(&at.partition) {
            engine.raise_watermark(usize::from(at.topic.0), to);
        }
    }

    /// What is known of the partitions, and what was counted.
    #[must_use]
    pub fn status(&self) -> WorkerStatus {
        let topics = 0..self.blueprint.decoders.len();
        let partitions = self.engines.iter().map(|(&partition, engine)| PartitionStatus {
            partition,
            watermark: engine.clock().watermark(),
            topic_watermarks: topics.clone().map(|topic| engine.clock().topic_watermark(topic)).collect(),
            first_event: engine.first_event(),
            first_order: engine.first_order(),
            tracked_customers: engine.tracked_customers(),
            state_bytes: engine.state_bytes(),
        });
        WorkerStatus { partitions: partitions.collect(), tally: self.tally.clone() }
    }

    /// The figures of one window of all partitions for every pane from `from` to `to`, added up.
    pub fn series(&mut self, window: WindowId, from: Pane, to: Pane) -> Vec<Option<WindowParts>> {
        let panes = usize::try_from(i64::from(to) - i64::from(from) + 1).unwrap_or(0);
        let mut sums = vec![Some(WindowParts::default()); panes];
        for engine in self.engines.values_mut() {
            add_series(&mut sums, &engine.series(window, from, to));
        }
        sums
    }

    /// What is known of a customer; `None` when none of the partitions has such a one.
    #[must_use]
    pub fn customer(&self, id: &str) -> Option<CustomerFigures> {
        self.engines.values().find_map(|engine| engine.customer(id))
    }

    /// The figures of all partitions at one instant, added up.
    pub fn snapshot(&mut self, at: Time, periods: Periods) -> Snapshot {
        let mut snapshot = Snapshot::empty(&self.blueprint.spec, at, periods);
        for engine in self.engines.values_mut() {
            snapshot.add(engine);
        }
        snapshot
    }
}

/// Adds the figures of others, pane by pane; what one does not know, the sum does not know either.
pub fn add_series(sums: &mut [Option<WindowParts>], more: &[Option<WindowParts>]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        match (sum.as_mut(), more) {
            (Some(so_far), Some(more)) => *so_far += more,
            _ => *sum = None,
        }
    }
}

fn apply_record(
    engine: &mut Engine,
    tally: &mut Tally,
    decoder: &Decoder,
    topic: usize,
    record: Record<'_>,
    latest: Time,
) -> Result<(), Rejection> {
    let decoded = decoder.decode(record.key, record.payload, latest).inspect_err(|rejection| {
        tally.rejected[topic][rejection.reason as usize] += 1;
    })?;
    tally.events[topic][decoded.event_type() as usize] += 1;
    match decoded {
        Decoded::Unknown => {}
        Decoded::Erase(customer) => {
            engine.erase(&customer);
        }
        Decoded::Event(event) => match engine.apply(topic, &event) {
            Outcome::Applied => {}
            Outcome::Duplicate => tally.duplicates += 1,
            Outcome::TooLate => {
                tally.late += 1;
                return Err(too_late(engine, topic, event.time));
            }
        },
    }
    Ok(())
}

/// The rejection of an event that came too late, with the watermark it was measured against.
#[cold]
fn too_late(engine: &Engine, topic: usize, time: Time) -> Rejection {
    let mark = engine.clock().topic_watermark(topic).map_or_else(String::new, |mark| mark.to_string());
    let detail =
        format!("time {time} is more than customers.allowed_lateness behind the watermark {mark} of its partition");
    Rejection::new(Reason::TooLate, detail)
}
