//! Tasks that wait for the store or for answers about the group; each sends its answer to the poll loop.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tracing::warn;

use super::commit_thread::CommitReply;
use super::log_identity::{LogProbe, anchor, fits};
use crate::bus::{GroupHandle, Partition, SourceError, Start, TopicIndex, TopicPartition};
use crate::checkpoint::files::{self, LoadError, WrittenCheckpoint};
use crate::checkpoint::manifest::{self, Expected, Manifest, ManifestError, TopicEntry};
use crate::checkpoint::metadata::ManifestRef;
use crate::checkpoint::protocol::{
    AssignmentEpoch, CommittedOffset, CommittedOffsets, Epoch, Event, Identity, LoadFailure,
};
use crate::checkpoint::store::{Store, StoreError};
use crate::engine::Engine;
use crate::engine::spec::Spec;
use crate::event::wall_clock;
use crate::worker::Taken;

/// Timeout of a request about the group.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Pause before the committed offsets are read back again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Number of threads that decode the customers of one partition.
const RESTORE_THREADS: usize = 2;
/// Version of the state's definition; a state of another version cannot be used. Changes of windows and dimensions do
/// not count.
const DEFINITION: &str = "1";

/// Asks the cluster for the id of each source topic; `None` if the brokers have none.
pub type TopicIds = Arc<dyn Fn() -> Result<Vec<Option<String>>, SourceError> + Send + Sync>;

/// The answer of a task.
pub enum Answer {
    /// An event for the protocol.
    Event(Event),
    /// A reply of the commit thread.
    CommitReply(CommitReply),
    /// An upload has ended.
    Uploaded(Epoch, Partition, Result<WrittenCheckpoint, String>),
    /// A state is loaded.
    Loaded(Partition, AssignmentEpoch, Box<Engine>, Box<Manifest>),
}

/// The files of a partition in the store.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// The manifest of the last committed checkpoint; `None` before the first.
    pub before: Option<Manifest>,
    /// The upload of the open checkpoint.
    pub pending: Option<(Epoch, WrittenCheckpoint)>,
    /// Silences are alerted from then on, in epoch milliseconds.
    pub since: i64,
}

/// The store, and what identifies a state.
pub struct StoreTasks {
    /// The store.
    pub store: Store,
    /// Runtime of the tasks.
    pub runtime: Handle,
    /// Spec of the engines.
    pub spec: Arc<Spec>,
    /// The consumer group.
    pub group: String,
    /// The source topics.
    pub topics: Vec<String>,
    /// Their number of partitions.
    pub partitions: i32,
    /// Reads their current ids.
    pub topic_ids: TopicIds,
    /// Reads the record at an offset, to recognize the log.
    pub probe: LogProbe,
    /// Channel to the poll loop.
    pub answers: Sender<Answer>,
    /// Locked while a checkpoint is encoded, so that only one at a time takes memory.
    pub encoding: Mutex<()>,
}

impl StoreTasks {
    /// The partition of every source topic.
    pub fn siblings(&self, partition: Partition) -> Vec<TopicPartition> {
        let topics = u16::try_from(self.topics.len()).unwrap_or(u16::MAX);
        (0..topics).map(|topic| TopicPartition { topic: TopicIndex(topic), partition }).collect()
    }

    fn identity(&self, partition: Partition, ids: &[Option<String>]) -> Identity {
        Identity {
            group: self.group.clone(),
            partition,
            store: self.store.id().to_owned(),
            topic_ids: ids.iter().map(|id| id.clone().unwrap_or_default()).collect(),
            partition_count: self.partitions,
            definition: DEFINITION.to_owned(),
        }
    }

    /// Reads the committed offsets, and the current identity of group, store and topics.
    pub fn read_committed<H: GroupHandle>(
        self: &Arc<Self>,
        handle: H,
        partition: Partition,
        assignment: AssignmentEpoch,
    ) {
        self.spawn(move |store_tasks| {
            let committed = handle.committed(&store_tasks.siblings(partition), ANSWER_WAIT);
            let read = committed.and_then(|committed| Ok((committed, (store_tasks.topic_ids)()?)));
            match read {
                Ok((committed, ids)) => {
                    let (committed, identity) = (offsets(committed), store_tasks.identity(partition, &ids));
                    Answer::Event(Event::Committed { partition, assignment, committed, identity })
                }
                Err(error) => unavailable(partition, assignment, &error.to_string()),
            }
        });
    }

    /// Checks whether there are checkpoints, and reads the offset of each topic's configured start.
    pub fn find_start<H: GroupHandle>(
        self: &Arc<Self>,
        handle: H,
        partition: Partition,
        assignment: AssignmentEpoch,
        starts: Vec<Start>,
    ) {
        self.spawn(move |store_tasks| {
            let directory = format!("{}/p{}", files::group_directory(&store_tasks.group), partition.0);
            let listed = store_tasks.runtime.block_on(store_tasks.store.list(&directory));
            let starts: Vec<_> = store_tasks.siblings(partition).into_iter().zip(starts).collect();
            let found = listed.map_err(|error| error.to_string()).and_then(|listed| {
                let next = handle.offsets(&starts, ANSWER_WAIT).map_err(|error| error.to_string())?;
                Ok((listed.iter().any(|name| name.ends_with(".json")), next))
            });
            match found {
                Ok((has_checkpoints, next)) => {
                    let now = wall_clock().millis();
                    Answer::Event(Event::StartFound { partition, assignment, has_checkpoints, next, now })
                }
                Err(error) => unavailable(partition, assignment, &error),
            }
        });
    }

    /// Loads the state of a manifest.
    pub fn load(self: &Arc<Self>, partition: Partition, assignment: AssignmentEpoch, named: ManifestRef) {
        self.spawn(move |store_tasks| {
            let failed = |failure| Answer::Event(Event::LoadFailed { partition, assignment, failure });
            let not_loaded = |error: &dyn std::fmt::Display| {
                warn!("the state of partition {} is not loaded: {error}", partition.0);
            };
            match store_tasks
                .runtime
                .block_on(store_tasks.read_manifest(&named))
                .map(|manifest| store_tasks.is_same_log(&manifest))
            {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return failed(LoadFailure::LogDiffers),
                Ok(Err(error)) => {
                    not_loaded(&error);
                    return failed(LoadFailure::Unavailable);
                }
                Err(error) => {
                    not_loaded(&error);
                    return failed(failure(&named.name, &error));
                }
            }
            match store_tasks.runtime.block_on(store_tasks.load_state(&named)) {
                Ok((engine, manifest)) => Answer::Loaded(partition, assignment, Box::new(engine), Box::new(manifest)),
                Err(error) => {
                    not_loaded(&error);
                    failed(failure(&named.name, &error))
                }
            }
        });
    }

    async fn read_manifest(&self, named: &ManifestRef) -> Result<Manifest, LoadError> {
        let directory = files::group_directory(&self.group);
        let text = self.store.get(&format!("{directory}/{}", named.name)).await?;
        Ok(Manifest::decode(&text, named)?)
    }

    /// Whether the last applied record of every topic is where it was, unless it was deleted.
    fn is_same_log(&self, manifest: &Manifest) -> Result<bool, SourceError> {
        for at in self.siblings(Partition(manifest.origin.partition)) {
            let name = &self.topics[usize::from(at.topic.0)];
            let topic = manifest.origin.topics.iter().find(|topic| topic.name == *name);
            if let Some(anchor) = topic.and_then(|topic| topic.anchor.as_ref())
                && !fits(anchor, (self.probe)(at, anchor.offset)?)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The protocol has compared the manifest's identity, so the expectations are taken from the manifest itself.
    async fn load_state(&self, named: &ManifestRef) -> Result<(Engine, Manifest), LoadError> {
        let manifest = self.read_manifest(named).await?;
        let id = |name: &String| manifest.origin.topics.iter().find(|topic| topic.name == *name)?.id.clone();
        let expected = Expected {
            group: self.group.clone(),
            partition: manifest.origin.partition,
            partitions: manifest.origin.partitions,
            topics: self.topics.iter().map(|name| (name.clone(), id(name))).collect(),
            store: manifest.origin.store.clone(),
        };
        files::load(&self.store, named, &expected, &self.spec, RESTORE_THREADS).await
    }

    /// The identity in a manifest, and its next offsets.
    pub fn belongs_to(&self, manifest: &Manifest) -> (Identity, Vec<i64>) {
        let origin = &manifest.origin;
        let known = self.topics.iter().filter_map(|name| origin.topics.iter().find(|topic| topic.name == *name));
        let topics: Vec<&TopicEntry> = known.collect();
        let identity = Identity {
            group: origin.group.clone(),
            partition: Partition(origin.partition),
            store: origin.store.clone(),
            topic_ids: topics.iter().map(|topic| topic.id.clone().unwrap_or_default()).collect(),
            partition_count: origin.partitions,
            definition: DEFINITION.to_owned(),
        };
        (identity, topics.iter().map(|topic| topic.offset).collect())
    }

    /// Encodes and uploads a checkpoint.
    pub fn upload(self: &Arc<Self>, epoch: Epoch, partition: Partition, taken: Taken, files: &Files, ids: Vec<String>) {
        let (before, since) = (files.before.clone(), files.since);
        self.spawn(move |store_tasks| {
            let entry = |(number, name): (usize, &String)| TopicEntry {
                name: name.clone(),
                id: ids.get(number).filter(|id| !id.is_empty()).cloned(),
                offset: taken.next[number],
                anchor: taken.last[number].map(anchor),
            };
            let origin = manifest::CheckpointOrigin {
                group: store_tasks.group.clone(),
                partition: partition.0,
                partitions: store_tasks.partitions,
                topics: store_tasks.topics.iter().enumerate().map(entry).collect(),
                store: store_tasks.store.id().to_owned(),
                since,
                written: wall_clock().millis(),
            };
            let encoded = {
                let _turn = store_tasks.encoding.lock().unwrap_or_else(PoisonError::into_inner);
                files::encode(&store_tasks.spec, origin, &taken.checkpoint, before.as_ref(), rand::random())
            };
            let upload = |encoded| store_tasks.runtime.block_on(files::upload(&store_tasks.store, encoded));
            let written = encoded.and_then(upload).map_err(|error| error.to_string());
            Answer::Uploaded(epoch, partition, written)
        });
    }

    /// Reads the committed offsets of partitions, retrying until that succeeds.
    pub fn read_back<H: GroupHandle>(
        self: &Arc<Self>,
        handle: impl Fn() -> H + Send + 'static,
        epoch: Epoch,
        of: Vec<Partition>,
    ) {
        self.spawn(move |store_tasks| {
            let mut told = false;
            loop {
                let read = of.iter().map(|&partition| {
                    let committed = handle().committed(&store_tasks.siblings(partition), ANSWER_WAIT)?;
                    Ok((partition, offsets(committed)))
                });
                match read.collect::<Result<Vec<_>, SourceError>>() {
                    Ok(committed) => return Answer::Event(Event::ReadBack { epoch, committed }),
                    Err(error) if !std::mem::replace(&mut told, true) => {
                        warn!("what was committed cannot be read yet, trying again: {error}");
                    }
                    Err(_) => {}
                }
                std::thread::park_timeout(RETRY_AFTER);
            }
        });
    }

    /// Deletes files in the background; a file that cannot be deleted only wastes space.
    pub fn delete(self: &Arc<Self>, names: Vec<String>) {
        if names.is_empty() {
            return;
        }
        let store_tasks = Arc::clone(self);
        self.runtime.spawn(async move {
            if let Err(error) = files::delete(&store_tasks.store, &store_tasks.group, &names).await {
                warn!("files that are not needed any more stay behind: {error}");
            }
        });
    }

    /// Files that are older than a manifest and not named by it, left by former owners.
    pub async fn older_garbage(&self, manifest: &Manifest, name: &str) -> Result<Vec<String>, StoreError> {
        let group = files::group_directory(&self.group);
        let listed = self.store.list(&format!("{group}/p{}", manifest.origin.partition)).await?;
        let relative = listed.iter().filter_map(|listed| listed.split_once(&format!("{group}/")).map(|(_, name)| name));
        let is_live = |file: &str| file == name || manifest.files.iter().any(|live| live.name == file);
        let older = relative.filter(|file| {
            let sequence = file.rsplit('/').next().and_then(|file| file.split('-').next()?.parse::<u64>().ok());
            sequence.is_some_and(|sequence| sequence < manifest.sequence) && !is_live(file)
        });
        Ok(older.map(str::to_owned).collect())
    }

    fn spawn(self: &Arc<Self>, task: impl FnOnce(&Arc<StoreTasks>) -> Answer + Send + 'static) {
        let store_tasks = Arc::clone(self);
        let begun = Instant::now();
        self.runtime.spawn_blocking(move || {
            let answer = task(&store_tasks);
            tracing::debug!(took = ?begun.elapsed(), "a task of the store has ended");
            // The poll loop may have ended.
            _ = store_tasks.answers.send(answer);
        });
    }
}

fn unavailable(partition: Partition, assignment: AssignmentEpoch, why: &str) -> Answer {
    warn!("partition {} is not taken over yet, trying again: {why}", partition.0);
    Answer::Event(Event::Unavailable { partition, assignment })
}

fn offsets(committed: Vec<Option<crate::bus::Committed>>) -> CommittedOffsets {
    let offset = |committed: crate::bus::Committed| CommittedOffset {
        offset: committed.offset,
        metadata: String::from_utf8(committed.metadata).unwrap_or_default(),
    };
    committed.into_iter().map(|committed| committed.map(offset)).collect()
}

fn failure(manifest: &str, error: &LoadError) -> LoadFailure {
    match error {
        LoadError::Store(StoreError::Missing { name, .. }) => LoadFailure::Missing(name.clone()),
        LoadError::Store(_) | LoadError::Ended => LoadFailure::Unavailable,
        LoadError::Digest(name) | LoadError::File { name, .. } | LoadError::Restore { name, .. } => {
            LoadFailure::Corrupt(name.clone())
        }
        LoadError::Manifest(
            ManifestError::Digest(_)
            | ManifestError::Text { .. }
            | ManifestError::Version { .. }
            | ManifestError::Foreign { .. }
            | ManifestError::Partitions { .. }
            | ManifestError::Store { .. }
            | ManifestError::Recreated(_),
        ) => LoadFailure::Corrupt(manifest.to_owned()),
    }
}
