//! One process: the real protocol, real engines, and a shell that executes the commands.
//!
//! Messages between its threads are delayed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use retentiond::bus::Partition;
use retentiond::checkpoint::protocol::{
    AssignmentEpoch, BudgetId, Command, CommittedOffset, CommittedOffsets, Delivery, EngineOrigin, Epoch, Event,
    Identity, LoadFailure, Rules, State,
};

use crate::broker::{Offsets, Reply, Request};
use crate::client::Client;
use crate::commit::Job;
use crate::log::{PartitionState, TOPICS};
use crate::store::Absent;
use crate::worker::{Files, Part, UploadJob, Work};
use crate::world::{Action, Fault, World};

/// The size of an outbox entry.
pub const ENTRY_BYTES: u64 = 100;
const OUTBOX_LIMIT: u64 = 20 * ENTRY_BYTES;
const BUDGET: i64 = 900;

/// A message to a thread of the process.
#[derive(Debug)]
pub enum Note {
    Poll,
    Heartbeat,
    Tell(Event),
    Work(i32),
    /// A worker has started an engine at these offsets.
    Begun(i32, AssignmentEpoch, Vec<i64>),
    Load {
        partition: i32,
        assignment: AssignmentEpoch,
        manifest: String,
    },
    FindStart(i32, AssignmentEpoch),
    StoreFile(Epoch, i32),
    StoreManifest(Epoch, i32),
    Delete(Vec<String>),
    GoOnCommitting,
    Abort(Epoch),
    Init(Option<Epoch>),
    Read(i32, AssignmentEpoch),
    ReadBack(Epoch, Vec<i32>),
    Reply(u64, Reply),
}

/// The purpose of a call.
#[derive(Debug)]
pub enum Purpose {
    Join,
    Heartbeat,
    Read(i32, AssignmentEpoch),
    ReadBack(Epoch, Vec<i32>),
    Init(Option<Epoch>),
    Job,
}

/// Read position of a running partition.
pub struct Reading {
    pub next: Vec<i64>,
}

pub struct Replica {
    pub id: u64,
    pub slot: usize,
    pub asleep_until: i64,
    pub ended: bool,
    /// Whether it was fenced.
    pub fenced: bool,
    pub delivery: Delivery,
    pub protocol: State,
    pub client: Client,
    pub calls: BTreeMap<u64, Purpose>,
    assignments: BTreeMap<i32, AssignmentEpoch>,
    pub reading: BTreeMap<i32, Reading>,
    is_paused: bool,
    outbox_reported: u64,
    loaded: BTreeMap<(i32, AssignmentEpoch), (PartitionState, Files)>,
    pub workers: BTreeMap<i32, Part>,
    pub files: BTreeMap<i32, Files>,
    pub uploads: BTreeMap<(Epoch, i32), UploadJob>,
    /// The open checkpoint of each partition.
    pub open: BTreeMap<i32, Epoch>,
    pub captured: BTreeMap<Epoch, crate::broker::Membership>,
    pub jobs: VecDeque<Job>,
    pub producer: Option<crate::broker::Producer>,
    pub initializing: bool,
}

impl Replica {
    pub fn new(id: u64, slot: usize, instance: Option<usize>, eager: bool, delivery: Delivery) -> Replica {
        let rules = Rules {
            delivery,
            topics: (0..TOPICS).map(|topic| format!("topic-{topic}")).collect(),
            outbox_limit: OUTBOX_LIMIT,
            parked_for: 8,
        };
        Replica {
            id,
            slot,
            asleep_until: 0,
            ended: false,
            fenced: false,
            delivery,
            protocol: State::new(rules),
            client: Client::new(instance, eager),
            calls: BTreeMap::new(),
            assignments: BTreeMap::new(),
            reading: BTreeMap::new(),
            is_paused: false,
            outbox_reported: 0,
            loaded: BTreeMap::new(),
            workers: BTreeMap::new(),
            files: BTreeMap::new(),
            uploads: BTreeMap::new(),
            open: BTreeMap::new(),
            captured: BTreeMap::new(),
            jobs: VecDeque::new(),
            producer: None,
            initializing: false,
        }
    }

    pub fn start(&mut self, world: &mut World) {
        self.join(world);
        if self.delivery == Delivery::ExactlyOnce {
            self.initializing = true;
            self.note(world, 0, Note::Init(None));
        }
        self.note(world, 10, Note::Poll);
        self.note(world, 50, Note::Heartbeat);
        let due = world.due_every;
        self.note(world, due, Note::Tell(Event::Due));
    }

    /// Sends a message to a thread of this process after a delay.
    pub fn note(&self, world: &mut World, after: i64, note: Note) {
        world.schedule(after, Action::Note(self.id, note));
    }

    /// As [`Replica::note`], after a random thread delay.
    pub fn note_soon(&self, world: &mut World, note: Note) {
        let after = world.thread_delay();
        self.note(world, after, note);
    }

    pub fn call(&mut self, world: &mut World, request: Request, purpose: Purpose) {
        let for_producer = matches!(
            request,
            Request::InitProducer(_)
                | Request::Produce(..)
                | Request::SendOffsets(..)
                | Request::EndTransaction { commit: true, .. }
        );
        if self.fenced && for_producer {
            world.violated(format!("process {} was fenced and yet sends {request:?}", self.id));
        }
        let call = world.call(self.id, request);
        self.calls.insert(call, purpose);
    }

    pub fn take_note(&mut self, world: &mut World, note: Note) {
        match note {
            Note::Poll => self.poll(world),
            Note::Heartbeat => self.heartbeat(world),
            Note::Tell(event) => {
                if event == Event::Due {
                    let due = world.due_every;
                    self.note(world, due, Note::Tell(Event::Due));
                }
                self.tell(world, event);
            }
            Note::Work(partition) => self.work(world, partition),
            Note::Begun(partition, assignment, next) => {
                if self.assignments.get(&partition) == Some(&assignment) {
                    self.reading.insert(partition, Reading { next });
                }
            }
            Note::Load { partition, assignment, manifest } => self.load(world, partition, assignment, &manifest),
            Note::FindStart(partition, assignment) => self.find_start(world, partition, assignment),
            Note::StoreFile(epoch, partition) => self.store_file(world, epoch, partition),
            Note::StoreManifest(epoch, partition) => self.store_manifest(world, epoch, partition),
            Note::Delete(names) => world.delete(&names),
            Note::GoOnCommitting => self.go_on_committing(world),
            Note::Abort(epoch) => self.abort(epoch),
            Note::Init(renewed) => {
                let request = Request::InitProducer(self.slot);
                self.call(world, request, Purpose::Init(renewed));
            }
            Note::Read(partition, assignment) => {
                self.call(world, Request::FetchOffsets(vec![partition]), Purpose::Read(partition, assignment));
            }
            Note::ReadBack(epoch, partitions) => {
                let request = Request::FetchOffsets(partitions.clone());
                self.call(world, request, Purpose::ReadBack(epoch, partitions));
            }
            Note::Reply(call, reply) => self.answered(world, call, reply),
        }
    }

    fn answered(&mut self, world: &mut World, call: u64, reply: Reply) {
        let Some(purpose) = self.calls.remove(&call) else { return };
        match purpose {
            Purpose::Join => self.joined(world, reply),
            Purpose::Heartbeat => self.heard(world, reply),
            Purpose::Job => self.job_answered(world, reply),
            Purpose::Init(renewed) => self.initialized(world, renewed, reply),
            Purpose::Read(partition, assignment) => match reply {
                Reply::Offsets(found) => {
                    let committed = found.into_iter().next().map_or(vec![None; TOPICS], |(_, found)| raw(found));
                    let identity = world.identity(partition);
                    let partition = Partition(partition);
                    self.tell(world, Event::Committed { partition, assignment, committed, identity });
                }
                // As librdkafka does, waits for the transaction.
                Reply::Unstable => self.note(world, 60, Note::Read(partition, assignment)),
                _ => self.tell(world, Event::Unavailable { partition: Partition(partition), assignment }),
            },
            Purpose::ReadBack(epoch, partitions) => match reply {
                Reply::Offsets(found) => {
                    let committed = found.into_iter().map(|(partition, found)| (Partition(partition), raw(found)));
                    let committed = committed.collect();
                    self.tell(world, Event::ReadBack { epoch, committed });
                }
                _ => self.note(world, 60, Note::ReadBack(epoch, partitions)),
            },
        }
    }

    /// Runs a step of the protocol and executes its commands; the process may crash before each.
    pub fn tell(&mut self, world: &mut World, event: Event) {
        world.trace(|| format!("process {}: {event:?}", self.id));
        let commands = self.protocol.step(event);
        for command in commands {
            if self.ended {
                return;
            }
            if world.crashes() {
                world.trace(|| format!("process {} dies before {command:?}", self.id));
                world.stats.crashes += 1;
                self.ended = true;
                return;
            }
            world.trace(|| format!("process {}:   {command:?}", self.id));
            self.execute(world, command);
        }
    }

    fn execute(&mut self, world: &mut World, command: Command) {
        match command {
            Command::ReadCommitted(partition, assignment) => self.note_soon(world, Note::Read(partition.0, assignment)),
            Command::FindStart(partition, assignment) => {
                self.note_soon(world, Note::FindStart(partition.0, assignment))
            }
            Command::Load { partition, assignment, manifest, .. } => {
                self.note_soon(world, Note::Load { partition: partition.0, assignment, manifest });
            }
            Command::Begin { partition, assignment, origin, next } => {
                self.begin(world, partition.0, assignment, origin, next)
            }
            Command::Stop(partitions) => {
                for partition in partitions {
                    self.assignments.remove(&partition.0);
                    self.reading.remove(&partition.0);
                }
            }
            Command::BeginCheckpoint(epoch, partitions) => self.epoch(world, epoch, &partitions),
            Command::CommitInitial(epoch, parts) => self.commit_initial(world, epoch, &parts),
            Command::Commit(epoch, parts) => self.commit(world, epoch, &parts),
            Command::Abort(epoch) => {
                world.stats.aborts += 1;
                // The poll thread itself makes plain commits; the commit thread gets the message later.
                match self.delivery {
                    _ if world.fault == Some(Fault::AbandonedCheckpointCommitted) => {}
                    Delivery::AtLeastOnce => self.abort(epoch),
                    Delivery::ExactlyOnce => self.ask_to_abort(world, epoch),
                }
            }
            Command::RenewProducer(epoch) => {
                world.stats.renewals += 1;
                self.initializing = true;
                self.note_soon(world, Note::Init(Some(epoch)));
            }
            Command::ReadBack(epoch, partitions) => {
                let partitions = partitions.into_iter().map(|partition| partition.0).collect();
                self.note_soon(world, Note::ReadBack(epoch, partitions));
            }
            Command::Confirm(epoch, partition) => {
                self.confirm_upload(epoch, partition.0);
                self.queue(world, partition.0, Work::Confirm(epoch));
            }
            Command::RollBack(epoch, partition) => {
                world.stats.rolled_back += 1;
                self.haunt(world, epoch, partition.0);
                self.discard_upload(world, epoch, partition.0);
                self.queue(world, partition.0, Work::RollBack(epoch));
            }
            Command::Delete(_, names) => self.note_soon(world, Note::Delete(names)),
            Command::Park(partition) => {
                world.stats.parked += 1;
                self.queue(world, partition.0, Work::Park);
            }
            Command::Drop(partition) => self.drop_state(world, partition.0),
            Command::Release(partitions) => self.release(world, &partitions),
            Command::Fail(partition, reason) => world.failed_closed(self, partition.0, &reason),
            Command::Pause => {
                world.stats.holds += 1;
                self.is_paused = true;
            }
            Command::Resume => self.is_paused = false,
            Command::StartBudget(budget) => self.start_budget(world, budget),
            Command::Close => {
                self.leave(world);
                self.ended = true;
            }
            Command::Exit => {
                world.stats.exits += 1;
                self.ended = true;
            }
        }
    }

    fn start_budget(&self, world: &mut World, budget: BudgetId) {
        self.note(world, BUDGET, Note::Tell(Event::BudgetOver(budget)));
    }

    fn drop_state(&mut self, world: &mut World, partition: i32) {
        self.assignments.remove(&partition);
        self.reading.remove(&partition);
        self.loaded.retain(|(of, _), _| *of != partition);
        self.drop_files(partition);
        self.queue(world, partition, Work::Drop);
    }

    fn begin(
        &mut self,
        world: &mut World,
        partition: i32,
        assignment: AssignmentEpoch,
        origin: EngineOrigin,
        next: Vec<i64>,
    ) {
        self.assignments.insert(partition, assignment);
        let state = match origin {
            EngineOrigin::Initial { .. } => {
                world.stats.begun_empty += 1;
                world.may_begin_empty(self, partition);
                self.files.insert(partition, Files::default());
                Some(PartitionState::empty(&world.spec, partition, next))
            }
            EngineOrigin::Loaded => {
                world.stats.begun_loaded += 1;
                let loaded = self.loaded.remove(&(partition, assignment));
                if loaded.is_none() {
                    world.violated(format!("process {}: partition {partition} begins without its state", self.id));
                }
                loaded.map(|(state, files)| {
                    self.files.insert(partition, files);
                    state
                })
            }
            EngineOrigin::Parked => {
                world.stats.begun_parked += 1;
                None
            }
        };
        self.queue(world, partition, Work::Begin(assignment, state.map(Box::new)));
    }

    fn load(&mut self, world: &mut World, partition: i32, assignment: AssignmentEpoch, manifest: &str) {
        let of = Partition(partition);
        let failed = |failure| Event::LoadFailed { partition: of, assignment, failure };
        if world.store_fails() {
            return self.tell(world, failed(LoadFailure::Unavailable));
        }
        let event = match world.store.restore(manifest) {
            Err(Absent::Missing(name)) => failed(LoadFailure::Missing(name)),
            Err(Absent::Corrupt(name)) => failed(LoadFailure::Corrupt(name)),
            Ok((found, state)) => {
                self.loaded.insert((partition, assignment), (state, Files::loaded(manifest, &found)));
                Event::Loaded { partition: of, assignment, manifest: found.identity, next: found.next }
            }
        };
        self.tell(world, event);
    }

    fn find_start(&mut self, world: &mut World, partition: i32, assignment: AssignmentEpoch) {
        let has_checkpoints = world.store.has_checkpoints(partition);
        let now = world.now;
        let event = Event::StartFound {
            partition: Partition(partition),
            assignment,
            has_checkpoints,
            next: vec![0; TOPICS],
            now,
        };
        self.tell(world, event);
    }

    /// Hands out records, and reports the size of the outbox.
    fn poll(&mut self, world: &mut World) {
        let after = world.chance.within(20..50);
        self.note(world, after, Note::Poll);
        let waiting = self.workers.values().map(Part::outbox_entries).sum::<u64>() * ENTRY_BYTES;
        if waiting != self.outbox_reported {
            self.outbox_reported = waiting;
            self.tell(world, Event::Outbox(waiting));
        }
        if self.is_paused || self.ended {
            return;
        }
        let mut batches = Vec::new();
        for (&partition, reading) in &mut self.reading {
            for topic in 0..TOPICS {
                let mut batch = Vec::new();
                let most = world.chance.within(1..10) as usize;
                while batch.len() < most
                    && let Some((offset, _)) = world.log.at_or_after(topic, partition, reading.next[topic])
                {
                    batch.push(*offset);
                    reading.next[topic] = offset + 1;
                }
                if !batch.is_empty() {
                    batches.push((partition, Work::Records(topic, batch)));
                }
            }
        }
        for (partition, batch) in batches {
            self.queue(world, partition, batch);
        }
    }

    /// The partitions that this process reads.
    pub fn partitions_running(&self) -> BTreeSet<i32> {
        self.reading.keys().copied().collect()
    }
}

fn raw(found: Option<Offsets>) -> CommittedOffsets {
    let Some(Offsets { next, metadata }) = found else { return vec![None; TOPICS] };
    next.into_iter().map(|offset| Some(CommittedOffset { offset, metadata: metadata.clone() })).collect()
}

/// The identity of states in this world.
pub fn identity(store: &str, topic_id: &str, partition_count: i32, partition: i32) -> Identity {
    Identity {
        group: "g".into(),
        partition: Partition(partition),
        store: store.into(),
        topic_ids: (0..TOPICS).map(|topic| format!("{topic_id}-{topic}")).collect(),
        partition_count,
        definition: "d1".into(),
    }
}
