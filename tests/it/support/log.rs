//! Runs a log of messages through the daemon's worker, partition by partition and without Kafka, or the same messages
//! as histories through `replay`, with one engine or several whose figures are added up.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use retentiond::bus::{Header, Partition, Record, RecordBatch, Stamp, TopicIndex, TopicPartition};
use retentiond::config::{Settings, Source};
use retentiond::engine::Engine;
use retentiond::engine::snapshot::{Periods, Snapshot};
use retentiond::engine::spec::Spec;
use retentiond::event::Time;
use retentiond::files::{EventFile, Layout};
use retentiond::output::summary::Summary;
use retentiond::replay::History;
use retentiond::wiring::worker_config;
use retentiond::worker::Worker;

/// A message of the log; without a payload it is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub key: String,
    pub payload: Option<String>,
}

impl Message {
    /// The message as a line of a file, which cannot contain tombstones.
    pub fn line(&self) -> String {
        match &self.payload {
            Some(payload) => format!("{payload}\n"),
            None => format!("{{\"type\":\"erase\",\"customer_id\":\"{}\"}}\n", self.key),
        }
    }
}

/// Number of messages that are applied at once.
const BATCH: usize = 500;

struct Batch {
    first: i64,
    messages: Vec<Message>,
}

impl RecordBatch for Batch {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn get(&self, index: usize) -> Record<'_> {
        let Message { key, payload } = &self.messages[index];
        let offset = self.first + i64::try_from(index).expect("a batch is short");
        Record { offset, key: Some(key.as_bytes()), payload: payload.as_deref().map(str::as_bytes) }
    }

    fn stamp(&self, _: usize) -> Stamp {
        Stamp { time: None, leader_epoch: None }
    }

    fn headers(&self, _: usize) -> Vec<Header<'_>> {
        Vec::new()
    }
}

/// Settings from a file alone, ignoring the environment.
pub fn settings(toml: Option<&Path>) -> Settings {
    Settings::load_without_secrets(toml, std::iter::empty()).expect("the configuration is sound")
}

/// The messages of each partition, assigned by customer, in log order.
fn split(log: &[Message], partitions: usize) -> Vec<Vec<Message>> {
    let mut parts = vec![Vec::new(); partitions];
    for message in log {
        let mut hasher = DefaultHasher::new();
        message.key.hash(&mut hasher);
        let place = hasher.finish() % u64::try_from(partitions).expect("few partitions");
        parts[usize::try_from(place).expect("few partitions")].push(message.clone());
    }
    parts
}

/// How far back an engine's figures reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// As in the daemon: as configured; those of segments only as far as needed now.
    Daemon,
    /// To the beginning, so that figures as of every instant are available at the end.
    Beginning,
}

/// The summaries, as JSON, of a log that is applied in its own order, in partitions of one topic. Two workers own the
/// partitions alternately, and their snapshots are merged. Panics if a message is rejected or too late.
pub fn of_log(log: &[Message], partitions: usize, settings: &Settings, reach: Reach, instants: &[&str]) -> Vec<String> {
    let mut config = worker_config::new(settings);
    if reach == Reach::Beginning {
        config.spec = Arc::new(Spec { history: None, ..worker_config::spec(settings) });
    }
    let config = Arc::new(config);
    let mut workers = [Worker::new(Arc::clone(&config)), Worker::new(Arc::clone(&config))];
    for (place, messages) in split(log, partitions).into_iter().enumerate() {
        let worker = &mut workers[place % 2];
        let partition = Partition(i32::try_from(place).expect("few partitions"));
        worker.start(partition);
        let mut rejected = Vec::new();
        let at = TopicPartition { topic: TopicIndex(0), partition };
        let mut first = 0;
        for messages in messages.chunks(BATCH) {
            let batch = Batch { first, messages: messages.to_vec() };
            first = worker.apply(at, &batch, Time::MAX, &mut rejected).expect("the partition was started");
        }
        assert!(rejected.is_empty(), "{} messages were rejected, the first: {:?}", rejected.len(), rejected[0]);
    }
    let statuses: Vec<_> = workers.iter().map(Worker::status).collect();
    let known = || statuses.iter().flat_map(|status| &status.partitions);
    let first_order = known().filter_map(|partition| partition.first_order).min();
    let first_event = known().filter_map(|partition| partition.first_event).min();
    let background = worker_config::background(settings, first_event);
    let summary = |instant: &&str| {
        let at = Time::parse(instant).expect("an instant");
        let periods = Periods::Since(first_order.unwrap_or(at));
        let [one, other] = &mut workers;
        let mut snapshot = one.snapshot(at, periods);
        snapshot.merge(&other.snapshot(at, periods));
        serde_json::to_string(&Summary::new(&config.spec, &snapshot, &background)).expect("a summary is JSON")
    };
    instants.iter().map(summary).collect()
}

/// The summaries, as JSON, of the messages split by customer into histories, each sorted and applied by its own engine;
/// the engines' figures are added up.
pub fn of_histories(log: &[Message], parts: usize, settings: &Settings, instants: &[&str]) -> Vec<String> {
    let spec = Arc::new(worker_config::replay_spec(settings));
    let decoder = worker_config::decoder(settings, &Source::default());
    let engine = |messages: Vec<Message>| {
        let text: String = messages.iter().map(Message::line).collect();
        let reader = Box::new(std::io::Cursor::new(text.into_bytes()));
        let file = EventFile { path: "log".into(), layout: Layout::Ndjson, reader };
        let mut history = History::new(7 * retentiond::event::DAY);
        history.read(file, &decoder, Time::MAX).expect("the history can be read");
        assert!(history.tally.rejected.is_empty(), "lines were rejected: {:?}", history.tally.examples);
        history.apply(Arc::clone(&spec), |_| {})
    };
    let mut engines: Vec<Engine> = split(log, parts).into_iter().map(engine).collect();
    let first_order = engines.iter().filter_map(Engine::first_order).min();
    let background = worker_config::background(settings, engines.iter().filter_map(Engine::first_event).min());
    let summary = |instant: &&str| {
        let at = Time::parse(instant).expect("an instant");
        let mut snapshot = Snapshot::empty(&spec, at, Periods::Since(first_order.unwrap_or(at)));
        engines.iter_mut().for_each(|engine| snapshot.add(engine));
        serde_json::to_string(&Summary::new(&spec, &snapshot, &background)).expect("a summary is JSON")
    };
    instants.iter().map(summary).collect()
}
