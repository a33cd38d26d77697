//! Everything that waits for the store or for answers about the group, on tasks of its own; each answers the poll loop.

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

/// How long one question to the group may take.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long to wait before the committed offsets are read back again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How many threads decode the customers of one partition.
const RESTORE_THREADS: usize = 2;
/// What a state cannot be carried over from one version of: windows and dimensions come and go.
const DEFINITION: &str = "1";

/// Asks the cluster for the id of each source topic; `None` where the brokers have none.
pub type TopicIds = Arc<dyn Fn() -> Result<Vec<Option<String>>, SourceError> + Send + Sync>;

/// What a task answers.
pub enum Answer {
    /// To the protocol.
    Event(Event),
    /// What the commit thread says.
    CommitReply(CommitReply),
    /// An upload has ended.
    Uploaded(Epoch, Partition, Result<WrittenCheckpoint, String>),
    /// A state is loaded.
    Loaded(Partition, AssignmentEpoch, Box<Engine>, Box<Manifest>),
}

/// What of a partition is in the store.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// The manifest of the last committed checkpoint; `None` before the first.
    pub before: Option<Manifest>,
    /// The upload of the open checkpoint.
    pub pending: Option<(Epoch, WrittenCheckpoint)>,
    /// From when on silences are alerted, epoch milliseconds.
    pub since: i64,
}

/// The store, and what a state is named by.
pub struct StoreTasks {
    /// Where the files are.
    pub store: Store,
    /// The tasks run here.
    pub runtime: Handle,
    /// What the engines compute.
    pub spec: Arc<Spec>,
    /// The consumer group.
    pub group: String,
    /// The source topics.
    pub topics: Vec<String>,
    /// How many partitions they have.
    pub partitions: i32,
    /// Their ids now.
    pub topic_ids: TopicIds,
    /// What stands in the log where a record was.
    pub probe: LogProbe,
    /// To the poll loop.
    pub answers: Sender<Answer>,
    /// Held by the one who encodes a checkpoint: one after another they take the memory of one.
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

    /// Reads the committed offsets, and what is around us.
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

    /// Looks whether there are checkpoints, and where the configured start of each topic is.
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

    /// Loads the state that a manifest names.
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

    /// Whether the last record applied of every topic is still where it was, as far as it is there at all.
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

    /// The protocol compares what the manifest belongs to, so here everything is as the manifest says.
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

    /// What a manifest says it belongs to, and the next offsets in it.
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

    /// Reads the committed offsets of partitions until that works.
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

    /// Deletes files in the background; what cannot be deleted is garbage and nothing worse.
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

    /// The files in the store that lie before a manifest and that it does not name: left by former owners.
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
            // The poll loop may be gone.
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
