//! The commit thread of a process, which owns the transactional producer.

use retentiond::bus::Partition;
use retentiond::checkpoint::protocol::{Delivery, Epoch, Event, Outcome, Part};

use crate::broker::{Membership, Offsets, Reply, Request};
use crate::log::Entry;
use crate::replica::{Note, Purpose, Replica};
use crate::world::{Fault, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Produce,
    Offsets,
    End,
    Abort,
}

/// A transaction.
#[derive(Debug)]
pub struct Job {
    epoch: Epoch,
    /// An injected fault: an abandoned checkpoint that is committed anyway.
    is_ghost: bool,
    membership: Option<Membership>,
    entries: Vec<Entry>,
    offsets: Vec<(i32, Offsets)>,
    step: Step,
    /// Whether the coordinator knows the transaction.
    begun: bool,
    aborting: bool,
    waits: bool,
}

impl Replica {
    pub fn epoch(&mut self, world: &mut World, epoch: Epoch, partitions: &[Partition]) {
        world.stats.epochs += 1;
        let Some(membership) = self.client.membership() else {
            return self.note_soon(world, Note::Tell(Event::NotAMember(epoch)));
        };
        self.captured.insert(epoch, membership);
        self.open.extend(partitions.iter().map(|partition| (partition.0, epoch)));
        for partition in partitions {
            self.queue(world, partition.0, crate::worker::Work::Checkpoint(epoch));
        }
    }

    pub fn commit_initial(&mut self, world: &mut World, epoch: Epoch, parts: &[Part]) {
        let Some(membership) = self.client.membership() else {
            return self.note_soon(world, Note::Tell(Event::NotAMember(epoch)));
        };
        self.captured.insert(epoch, membership);
        self.commit(world, epoch, parts);
    }

    pub fn commit(&mut self, world: &mut World, epoch: Epoch, parts: &[Part]) {
        let membership = self.captured.remove(&epoch);
        let upload = |part: &Part| self.uploads.get(&(epoch, part.partition.0));
        let entries = parts.iter().filter_map(upload).flat_map(|upload| upload.entries.clone()).collect();
        let offsets = parts.iter().map(|part| (part.partition.0, offsets(part))).collect();
        self.submit(world, epoch, false, membership, entries, offsets);
    }

    fn note_committer(&self, world: &mut World, note: Note) {
        let after = world.commit_delay();
        self.note(world, after, note);
    }

    pub fn ask_to_abort(&self, world: &mut World, epoch: Epoch) {
        self.note_committer(world, Note::Abort(epoch));
    }

    fn submit(
        &mut self,
        world: &mut World,
        epoch: Epoch,
        is_ghost: bool,
        membership: Option<Membership>,
        entries: Vec<Entry>,
        offsets: Vec<(i32, Offsets)>,
    ) {
        let step = Step::Produce;
        let job =
            Job { epoch, is_ghost, membership, entries, offsets, step, begun: false, aborting: false, waits: false };
        self.jobs.push_back(job);
        if self.jobs.len() == 1 {
            self.note_committer(world, Note::GoOnCommitting);
        }
    }

    /// With this fault, a rolled-back checkpoint is committed anyway, under the membership at that time.
    pub fn haunt(&mut self, world: &mut World, epoch: Epoch, partition: i32) {
        if world.fault != Some(Fault::AbandonedCheckpointCommitted) {
            return;
        }
        let Some(upload) = self.uploads.get(&(epoch, partition)).filter(|upload| upload.stored) else { return };
        let position = upload.upload.position.clone();
        let entries = upload.entries.clone();
        let part = Part { partition: Partition(partition), position };
        self.submit(world, epoch, true, None, entries, vec![(partition, offsets(&part))]);
    }

    pub fn abort(&mut self, epoch: Epoch) {
        for job in self.jobs.iter_mut().filter(|job| job.epoch == epoch && !job.is_ghost) {
            job.aborting = true;
        }
    }

    /// Sends the next request of the transaction.
    pub fn go_on_committing(&mut self, world: &mut World) {
        let late = self.client.membership();
        let Some(job) = self.jobs.front_mut() else { return };
        if job.waits {
            return;
        }
        if job.aborting && job.step != Step::Abort {
            job.step = Step::Abort;
        }
        if job.step == Step::Produce && job.entries.is_empty() {
            job.step = Step::Offsets;
        }
        let plainly = self.delivery == Delivery::AtLeastOnce;
        if job.step == Step::Abort && (plainly || !job.begun) {
            return self.finish(world, Outcome::Aborted);
        }
        let capture_late = job.is_ghost || plainly || world.fault == Some(Fault::MembershipCapturedLate);
        let membership = if capture_late { late } else { job.membership };
        let Some(membership) = membership else {
            job.aborting = true;
            return self.note_committer(world, Note::GoOnCommitting);
        };
        let producer = match self.producer {
            Some(producer) => producer,
            None if plainly => crate::broker::Producer { transactional_id: self.slot, epoch: 0 },
            None if self.initializing => return self.note(world, 40, Note::GoOnCommitting),
            None => {
                self.initializing = true;
                self.note_soon(world, Note::Init(None));
                return self.note(world, 40, Note::GoOnCommitting);
            }
        };
        let request = match job.step {
            Step::Produce if plainly => Request::ProducePlainly(job.entries.clone()),
            Step::Produce => Request::Produce(producer, job.entries.clone()),
            Step::Offsets | Step::End if plainly => Request::CommitOffsets(membership, job.offsets.clone()),
            Step::Offsets => Request::SendOffsets(producer, membership, job.offsets.clone()),
            Step::End => Request::EndTransaction { producer, commit: true },
            Step::Abort => Request::EndTransaction { producer, commit: false },
        };
        job.waits = true;
        self.call(world, request, Purpose::Job);
    }

    pub fn job_answered(&mut self, world: &mut World, reply: Reply) {
        let plainly = self.delivery == Delivery::AtLeastOnce;
        let Some(job) = self.jobs.front_mut() else { return };
        job.waits = false;
        let outcome = match (job.step, reply) {
            (_, Reply::Concurrent) => None,
            (_, Reply::Fenced) => {
                self.fenced = true;
                Some(if world.fault == Some(Fault::FencedIgnored) { Outcome::Unknown } else { Outcome::Fenced })
            }
            (Step::Produce, Reply::Done) => {
                (job.step, job.begun) = (Step::Offsets, true);
                None
            }
            (Step::Offsets, Reply::Done) if !plainly => {
                (job.step, job.begun) = (Step::End, true);
                None
            }
            (Step::Offsets | Step::End, Reply::Done) => Some(Outcome::Committed),
            (Step::Abort, Reply::Done) => Some(Outcome::Aborted),
            (Step::Offsets, Reply::Refused) => {
                world.stats.refused += 1;
                job.aborting = true;
                None
            }
            // Nothing is committed; the entries will be sent again.
            (Step::Produce, _) if plainly => Some(Outcome::Aborted),
            _ => Some(Outcome::Unknown),
        };
        match outcome {
            None => self.note_committer(world, Note::GoOnCommitting),
            Some(outcome) => self.finish(world, outcome),
        }
    }

    fn finish(&mut self, world: &mut World, outcome: Outcome) {
        let Some(job) = self.jobs.pop_front() else { return };
        let mut outcome = outcome;
        if outcome == Outcome::Unknown {
            world.stats.unknown += 1;
            self.producer = None;
            if world.fault == Some(Fault::UnknownTakenForAborted) {
                outcome = Outcome::Aborted;
            }
        }
        if outcome == Outcome::Committed {
            world.stats.commits += 1;
        }
        if !self.jobs.is_empty() {
            self.note_committer(world, Note::GoOnCommitting);
        }
        if !job.is_ghost {
            self.note_soon(world, Note::Tell(Event::Ended { epoch: job.epoch, outcome }));
        }
    }

    pub fn initialized(&mut self, world: &mut World, renewed: Option<Epoch>, reply: Reply) {
        match reply {
            Reply::Initialized(producer) => {
                self.producer = Some(producer);
                self.initializing = false;
                if let Some(epoch) = renewed {
                    self.note_soon(world, Note::Tell(Event::ProducerRenewed(epoch)));
                }
            }
            _ => self.note(world, 60, Note::Init(renewed)),
        }
    }
}

fn offsets(part: &Part) -> Offsets {
    Offsets { next: part.position.next.clone(), metadata: part.position.metadata.to_string() }
}
