//! The workers of a process, with a queue per partition, and its upload task.

use std::collections::VecDeque;

use retentiond::bus::Partition;
use retentiond::checkpoint::metadata::{ManifestRef, Metadata};
use retentiond::checkpoint::protocol::{AssignmentEpoch, Epoch, Event, Position, Upload};

use crate::log::{Entry, PartitionState};
use crate::replica::{Note, Replica};
use crate::store::{Clones, Manifest, Object, Snapshots};
use crate::world::{Fault, World};

/// Number of files in a manifest; a longer chain drops its oldest.
const CHAIN: usize = 3;

#[derive(Debug)]
pub enum Work {
    Records(usize, Vec<i64>),
    /// With a new engine, or the parked one.
    Begin(AssignmentEpoch, Option<Box<PartitionState>>),
    Checkpoint(Epoch),
    Confirm(Epoch),
    RollBack(Epoch),
    Park,
    Drop,
}

impl std::fmt::Debug for PartitionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "state at {:?}", self.next)
    }
}

/// An engine with its outbox.
struct Live {
    state: PartitionState,
    outbox: Vec<Entry>,
    /// The open checkpoint with its entries.
    open: Option<(Epoch, Vec<Entry>)>,
    /// Whether anything was applied since the last checkpoint that was not rolled back.
    changed: bool,
}

#[derive(Default)]
pub struct Part {
    queue: VecDeque<Work>,
    live: Option<Live>,
    parked: Option<Live>,
}

impl Part {
    pub fn outbox_entries(&self) -> u64 {
        let entries = |live: &Live| live.outbox.len() + live.open.as_ref().map_or(0, |(_, entries)| entries.len());
        self.live.iter().chain(&self.parked).map(entries).sum::<usize>() as u64
    }
}

/// The files of the committed manifest, and those of the pending checkpoint.
#[derive(Default)]
pub struct Files {
    chain: Vec<String>,
    /// The manifest of the chain; `None` before the first checkpoint.
    manifest: Option<String>,
    /// Uploaded for a checkpoint whose transaction has not ended.
    pending: Option<(Epoch, Uploaded)>,
}

struct Uploaded {
    chain: Vec<String>,
    name: String,
}

impl Files {
    pub fn loaded(name: &str, manifest: &Manifest) -> Files {
        Files { chain: manifest.files.clone(), manifest: Some(name.to_owned()), pending: None }
    }

    fn confirm(&mut self, epoch: Epoch) {
        if let Some((_, uploaded)) = self.pending.take_if(|(of, _)| *of == epoch) {
            (self.chain, self.manifest) = (uploaded.chain, Some(manifest_name(&uploaded.name)));
        }
    }
}

fn state_name(name: &str) -> String {
    format!("{name}.state")
}

fn manifest_name(name: &str) -> String {
    format!("{name}.json")
}

/// The upload of one partition in a checkpoint.
pub struct UploadJob {
    content: <Clones as Snapshots>::Content,
    pub entries: Vec<Entry>,
    name: String,
    pub upload: Upload,
    files: Vec<String>,
    pub stored: bool,
}

impl Replica {
    /// Queues work for a partition's worker.
    pub fn queue(&mut self, world: &mut World, partition: i32, work: Work) {
        let part = self.workers.entry(partition).or_default();
        part.queue.push_back(work);
        if part.queue.len() == 1 {
            self.note_soon(world, Note::Work(partition));
        }
    }

    /// Processes the next item in the queue.
    pub fn work(&mut self, world: &mut World, partition: i32) {
        let Some(part) = self.workers.get_mut(&partition) else { return };
        let Some(work) = part.queue.pop_front() else { return };
        let more = !part.queue.is_empty();
        match work {
            Work::Records(topic, offsets) => part.apply(world, partition, topic, &offsets),
            Work::Begin(assignment, state) => {
                let fresh =
                    |state: Box<PartitionState>| Live { state: *state, outbox: vec![], open: None, changed: false };
                part.live = state.map(fresh).or_else(|| part.parked.take());
                part.parked = None;
                match &part.live {
                    Some(live) => {
                        let next = live.state.next.clone();
                        self.note_soon(world, Note::Begun(partition, assignment, next));
                    }
                    None => world.violated(format!("process {}: nothing is parked of {partition}", self.id)),
                }
            }
            // A worker takes checkpoints one after another, with batches in between.
            Work::Checkpoint(epoch)
                if matches!(part.queue.front(), Some(Work::Records(..))) && world.chance.happens(0.3) =>
            {
                let records = part.queue.pop_front();
                part.queue.push_front(Work::Checkpoint(epoch));
                records.into_iter().for_each(|records| part.queue.push_front(records));
            }
            Work::Checkpoint(epoch) => self.copy(world, epoch, partition),
            Work::Confirm(epoch) => part.confirm(world, epoch),
            Work::RollBack(epoch) => part.roll_back(epoch, world.fault == Some(Fault::OutboxNotReturned)),
            Work::Park => part.parked = part.live.take(),
            Work::Drop => (part.live, part.parked) = (None, None),
        }
        if more {
            self.note_soon(world, Note::Work(partition));
        }
    }

    fn copy(&mut self, world: &mut World, epoch: Epoch, partition: i32) {
        let of = Partition(partition);
        let Some(live) = self.workers.get_mut(&partition).and_then(|part| part.live.as_mut()) else { return };
        if !live.changed {
            return self.note_soon(world, Note::Tell(Event::Unchanged { epoch, partition: of }));
        }
        live.changed = false;
        live.outbox.extend(live.state.silent());
        let entries = std::mem::take(&mut live.outbox);
        live.open = Some((epoch, entries.clone()));
        let content = Clones::epoch(&live.state);
        let mut next = live.state.next.clone();
        if world.fault == Some(Fault::OffsetsOfThePollThread)
            && let Some(reading) = self.reading.get(&partition)
        {
            next.clone_from(&reading.next);
        }
        let nonce = world.nonce();
        let name = format!("p{partition}/{nonce:06}-{}", self.id);
        // Rolled back before the worker reached it: the upload is not needed.
        let is_open = self.open.get(&partition) == Some(&epoch);
        let Some(files) = self.files.get(&partition).filter(|_| is_open) else { return };
        let skip = files.chain.len().saturating_sub(CHAIN - 1);
        let (old, kept) = files.chain.split_at(skip);
        let live_files: Vec<String> = kept.iter().cloned().chain([state_name(&name)]).collect();
        let superseded = old.iter().chain(&files.manifest).cloned().collect();
        let metadata = Metadata::State(ManifestRef { name: manifest_name(&name), digest: format!("{nonce:032x}") });
        let upload = Upload { position: Position { next, metadata }, superseded };
        let job = UploadJob { content, entries, name, upload: upload.clone(), files: live_files, stored: false };
        self.uploads.insert((epoch, partition), job);
        if world.fault == Some(Fault::UploadAfterCommit) {
            self.note_soon(world, Note::Tell(Event::Uploaded { epoch, partition: of, upload }));
        }
        let after = world.upload_delay();
        self.note(world, after, Note::StoreFile(epoch, partition));
    }

    pub fn store_file(&mut self, world: &mut World, epoch: Epoch, partition: i32) {
        let Some(job) = self.uploads.get(&(epoch, partition)) else { return };
        if world.store_fails() {
            return self.upload_failed(world, epoch, partition);
        }
        if !world.store.create(&state_name(&job.name), Object::File(job.content.clone())) {
            world.violated(format!("the file {} already exists", job.name));
        }
        let after = world.upload_delay();
        self.note(world, after, Note::StoreManifest(epoch, partition));
    }

    pub fn store_manifest(&mut self, world: &mut World, epoch: Epoch, partition: i32) {
        if world.crashes() {
            world.trace(|| format!("process {} dies between files and manifest", self.id));
            world.stats.crashes += 1;
            self.ended = true;
            return;
        }
        let Some(job) = self.uploads.get_mut(&(epoch, partition)) else { return };
        if world.store_fails() {
            return self.upload_failed(world, epoch, partition);
        }
        let name = manifest_name(&job.name);
        let next = job.upload.position.next.clone();
        let manifest = Manifest { identity: world.identity(partition), next, files: job.files.clone() };
        if !world.store.create(&name, Object::Manifest(manifest)) {
            world.violated(format!("the manifest {name} already exists"));
        }
        job.stored = true;
        self.uploaded(world, epoch, partition);
    }

    fn upload_failed(&mut self, world: &mut World, epoch: Epoch, partition: i32) {
        self.uploads.remove(&(epoch, partition));
        self.tell(world, Event::UploadFailed { epoch, partition: Partition(partition) });
    }

    /// Discards an upload whose checkpoint was rolled back in the meantime, in this assignment or an earlier one.
    fn uploaded(&mut self, world: &mut World, epoch: Epoch, partition: i32) {
        let Some(job) = self.uploads.get(&(epoch, partition)) else { return };
        let is_open = self.open.get(&partition) == Some(&epoch);
        let Some(files) = self.files.get_mut(&partition).filter(|_| is_open) else {
            world.stats.uploaded_in_vain += 1;
            world.delete(&[state_name(&job.name), manifest_name(&job.name)]);
            self.uploads.remove(&(epoch, partition));
            return;
        };
        files.pending = Some((epoch, Uploaded { chain: job.files.clone(), name: job.name.clone() }));
        let upload = job.upload.clone();
        if world.fault == Some(Fault::DeleteBeforeCommit) {
            world.delete(&upload.superseded);
        }
        self.tell(world, Event::Uploaded { epoch, partition: Partition(partition), upload });
    }

    /// A checkpoint of a partition is committed: its upload becomes the base of the next.
    pub fn confirm_upload(&mut self, epoch: Epoch, partition: i32) {
        self.close_upload(epoch, partition);
        self.uploads.remove(&(epoch, partition));
        if let Some(files) = self.files.get_mut(&partition) {
            files.confirm(epoch);
        }
    }

    /// A checkpoint of a partition will never be committed; an upload in progress continues.
    pub fn discard_upload(&mut self, world: &mut World, epoch: Epoch, partition: i32) {
        self.close_upload(epoch, partition);
        if world.fault == Some(Fault::AbandonedCheckpointCommitted) {
            return;
        }
        let Some(files) = self.files.get_mut(&partition) else { return };
        if let Some((_, Uploaded { name, .. })) = files.pending.take_if(|(of, _)| *of == epoch) {
            world.delete(&[state_name(&name), manifest_name(&name)]);
            self.uploads.remove(&(epoch, partition));
        }
    }

    fn close_upload(&mut self, epoch: Epoch, partition: i32) {
        if self.open.get(&partition) == Some(&epoch) {
            self.open.remove(&partition);
        }
    }

    /// A pending upload may or may not be committed, so its files stay.
    pub fn drop_files(&mut self, partition: i32) {
        self.open.remove(&partition);
        self.files.remove(&partition);
        self.uploads.retain(|(_, of), job| *of != partition || !job.stored);
    }
}

impl Part {
    fn apply(&mut self, world: &mut World, partition: i32, topic: usize, offsets: &[i64]) {
        let Some(live) = &mut self.live else { return };
        for &offset in offsets {
            let Some((due, payload)) = world.log.at_or_after(topic, partition, live.state.next[topic]) else { return };
            if *due != offset {
                let due = *due;
                return world.violated(format!("partition {partition} applies {offset} of topic {topic}, not {due}"));
            }
            let entry = live.state.apply(topic, offset, payload, world.fault != Some(Fault::NoDedup));
            live.outbox.extend(entry);
            live.changed = true;
        }
    }

    fn confirm(&mut self, world: &mut World, epoch: Epoch) {
        let open = self.live.as_mut().or(self.parked.as_mut()).and_then(|live| live.open.take());
        if open.is_none_or(|(open, _)| open != epoch) {
            world.violated(format!("{epoch:?} is confirmed, but is not open"));
        }
    }

    fn roll_back(&mut self, epoch: Epoch, forget: bool) {
        let Some(live) = self.live.as_mut().or(self.parked.as_mut()) else { return };
        if let Some((_, mut entries)) = live.open.take_if(|(open, _)| *open == epoch) {
            live.changed = true;
            if !forget {
                entries.append(&mut live.outbox);
                live.outbox = entries;
            }
        }
    }
}
