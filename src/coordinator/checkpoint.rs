//! Checkpoints: executes the commands of the commit protocol, from the copy of the state to the upload of its files.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::alert_rate::AlertRate;
use super::store_tasks::Answer;
use super::{Coordinator, Ending, RELEASE_WAIT, gone};
use crate::bus::{GroupClient, Partition, SourceError};
use crate::checkpoint::files::WrittenCheckpoint;
use crate::checkpoint::metadata::{ManifestRef, Metadata};
use crate::checkpoint::protocol::{self, Command, Epoch, Event, Upload};
use crate::engine::inactivity::release::{Alert, Allowance};
use crate::event::wall_clock;
use crate::output::alerts;
use crate::worker::Taken;

/// Interval between checkpoints while more alerts wait than fit into one.
const SOON: Duration = Duration::from_secs(1);
/// With this many bytes in the outbox, checkpoints take no further alerts.
const FULL_OUTBOX: u64 = 16 << 20;

impl<C: GroupClient> Coordinator<C> {
    /// Executes a step of the commit protocol and its commands.
    pub(super) fn step(&mut self, event: Event) -> Result<(), SourceError> {
        let commands = self.durable.step(event);
        commands.into_iter().try_for_each(|command| self.execute(command))
    }

    pub(super) fn handle(&self) -> C::Handle {
        self.client.handle()
    }

    pub(super) fn execute(&mut self, command: Command) -> Result<(), SourceError> {
        match command {
            Command::ReadCommitted(partition, assignment) => {
                self.reporting.log.restores(partition);
                self.store_tasks.read_committed(self.handle(), partition, assignment);
            }
            Command::FindStart(partition, assignment) => {
                self.store_tasks.find_start(self.handle(), partition, assignment, self.rules.starts.clone());
            }
            Command::CommitInitial(epoch, parts) => return self.commit_initial(epoch, &parts),
            Command::Load { partition, assignment, manifest, digest } => {
                self.store_tasks.load(partition, assignment, ManifestRef { name: manifest, digest });
            }
            Command::Begin { partition, assignment, origin, next } => {
                return self.begin(partition, assignment, origin, next);
            }
            Command::Stop(partitions) => {
                for partition in partitions {
                    self.partitions.entry(partition).or_default().draining = true;
                }
            }
            Command::BeginCheckpoint(epoch, partitions) => return self.begin_checkpoint(epoch, &partitions),
            Command::Commit(epoch, parts) => self.commit(epoch, &parts),
            Command::Abort(epoch) => {
                self.in_flight.aborted = Some(epoch);
                self.in_flight.tokens.remove(&epoch);
                self.committer.abort(epoch);
            }
            Command::RenewProducer(epoch) => self.committer.renew(epoch),
            Command::ReadBack(epoch, partitions) => {
                let handles = Arc::clone(&self.handles);
                let handle = move || handles.lock().unwrap_or_else(PoisonError::into_inner).clone();
                self.store_tasks.read_back(handle, epoch, partitions);
            }
            Command::Confirm(epoch, partition) => return self.confirm(epoch, partition),
            Command::RollBack(epoch, partition) => {
                if let Some(owned) = self.partitions.get_mut(&partition) {
                    owned.requested = None;
                }
                self.reporting.uncommitted.rolled_back(partition);
                self.outbox.roll_back(partition, epoch);
                self.discard_upload(partition, Some(epoch));
                return self.pool.roll_back(partition, epoch.0).map_err(gone);
            }
            Command::Delete(_, names) => {
                self.timers.pending_deletes.push((Instant::now() + self.rules.keep_files, names))
            }
            Command::Park(partition) => {
                if let Some(owned) = self.partitions.get_mut(&partition) {
                    owned.park();
                }
                self.reporting.uncommitted.forget(partition);
                return self.pool.park(partition).map_err(gone);
            }
            Command::Drop(partition) => return self.drop_partition(partition),
            Command::Release(partitions) => return self.release(&partitions),
            Command::Fail(partition, reason) => {
                error!("partition {} is not processed: {reason}", partition.0);
                self.partitions.entry(partition).or_default().failure = Some(reason.to_string());
            }
            Command::Pause => return self.hold(true),
            Command::Resume => return self.hold(false),
            Command::StartBudget(budget) => self.timers.budgets.push((Instant::now() + RELEASE_WAIT, budget)),
            Command::Close => self.ending = Some(Ending::InOrder),
            Command::Exit => self.ending = Some(Ending::Fenced),
        }
        Ok(())
    }

    pub(super) fn begin_checkpoint(&mut self, epoch: Epoch, partitions: &[Partition]) -> Result<(), SourceError> {
        let Ok(token) = self.client.group_token() else { return self.step(Event::NotAMember(epoch)) };
        self.in_flight.tokens = BTreeMap::from([(epoch, token)]);
        self.in_flight.begun = Some(Instant::now());
        let (now, alert_rate) = (wall_clock(), &self.rules.alert_rate);
        // What earlier checkpoints could not deliver comes first.
        let is_full = self.outbox.bytes() >= FULL_OUTBOX;
        self.in_flight.more_alerts = false;
        for (partition, owned) in &mut self.partitions {
            owned.requested = partitions.contains(partition).then_some(epoch);
        }
        let begin_one = |&partition: &Partition| {
            let allowance = alert_rate.allowance(partition, now, partitions.len());
            self.pool.checkpoint(partition, epoch.0, Allowance { quiet: allowance.quiet || is_full, ..allowance })
        };
        partitions.iter().try_for_each(begin_one).map_err(gone)
    }

    /// A worker has begun a checkpoint: all outbox records of the partition so far belong to it. The alerts enter the
    /// outbox in any case, because they have left their engine.
    pub(super) fn checkpoint_begun(&mut self, partition: Partition, epoch: Epoch, alerts: &[Alert]) {
        let running = self.partitions.values().filter(|owned| owned.running.is_some()).count();
        self.in_flight.more_alerts |= AlertRate::is_most(alerts.len(), running);
        for alert in alerts {
            self.outbox.add(partition, alerts::outbox_record(alert, &self.rules.alert_source));
        }
        self.reporting.uncommitted.checkpoint_begun(partition);
        // If the checkpoint was rolled back in the meantime, the records belong to the next one.
        let requested = self.partitions.get_mut(&partition).map(|owned| &mut owned.requested);
        if requested.and_then(|requested| requested.take_if(|of| *of == epoch)).is_some() {
            self.outbox.close(partition, epoch);
        }
    }

    /// A worker has copied the state of a partition.
    pub(super) fn checkpoint_taken(
        &mut self,
        partition: Partition,
        epoch: Epoch,
        taken: Option<Taken>,
    ) -> Result<(), SourceError> {
        let Some(taken) = taken else {
            self.reporting.uncommitted.forget(partition);
            return self.step(Event::Unchanged { epoch, partition });
        };
        if !self.outbox.is_open(partition, epoch) {
            return Ok(());
        }
        let Some(owned) = self.partitions.get(&partition) else { return Ok(()) };
        if let Some(files) = &owned.files {
            self.store_tasks.upload(epoch, partition, taken, files, owned.topic_ids.clone());
        }
        Ok(())
    }

    pub(super) fn uploaded(
        &mut self,
        epoch: Epoch,
        partition: Partition,
        written: Result<WrittenCheckpoint, String>,
    ) -> Result<(), SourceError> {
        let written = match written {
            Ok(written) => written,
            Err(why) => {
                let why = format!("the checkpoint of partition {} failed: {why}", partition.0);
                error!("{why}");
                self.commit_error(Some(why));
                return self.step(Event::UploadFailed { epoch, partition });
            }
        };
        let files = self.partitions.get_mut(&partition).and_then(|owned| owned.files.as_mut());
        let Some(files) = files.filter(|_| self.outbox.is_open(partition, epoch)) else {
            self.store_tasks.delete(orphans(&written));
            return Ok(());
        };
        let next = written.manifest.origin.topics.iter().map(|topic| topic.offset).collect();
        let metadata = Metadata::of(&written.reference);
        let mut superseded = written.superseded.clone();
        superseded.extend(files.before.as_ref().map(manifest_name).unwrap_or_default());
        self.reporting.checkpoints.bytes += written.bytes;
        files.pending = Some((epoch, written));
        let upload = Upload { position: protocol::Position { next, metadata }, superseded };
        self.step(Event::Uploaded { epoch, partition, upload })
    }

    /// Deletes the files of a checkpoint that will never be committed.
    pub(super) fn discard_upload(&mut self, partition: Partition, epoch: Option<Epoch>) {
        let Some(files) = self.partitions.get_mut(&partition).and_then(|owned| owned.files.as_mut()) else { return };
        if let Some((_, written)) = files.pending.take_if(|(of, _)| epoch.is_none_or(|epoch| *of == epoch)) {
            self.store_tasks.delete(orphans(&written));
        }
    }

    /// Processes the answers of store tasks and the commit thread.
    pub(super) fn take_answers(&mut self) -> Result<(), SourceError> {
        while let Ok(answer) = self.inputs.answers.try_recv() {
            match answer {
                Answer::Event(event) => {
                    let read = match &event {
                        Event::Committed { partition, identity, .. } => Some((*partition, identity.topic_ids.clone())),
                        _ => None,
                    };
                    self.step(event)?;
                    // After the step, which may drop the parked state of an earlier assignment.
                    if let Some((partition, topic_ids)) = read {
                        self.partitions.entry(partition).or_default().topic_ids = topic_ids;
                    }
                }
                Answer::Uploaded(epoch, partition, written) => self.uploaded(epoch, partition, written)?,
                Answer::Loaded(partition, assignment, engine, manifest) => {
                    let (belongs, next) = self.store_tasks.belongs_to(&manifest);
                    self.sweep_older(&manifest);
                    self.partitions.entry(partition).or_default().loaded = Some((engine, manifest));
                    self.step(Event::Loaded { partition, assignment, manifest: belongs, next })?;
                    // The protocol ignored it if it answers an earlier assignment.
                    if let Some(owned) = self.partitions.get_mut(&partition) {
                        owned.loaded = None;
                    }
                }
                Answer::CommitReply(reply) => self.take_reply(reply)?,
            }
        }
        let bytes = self.outbox.bytes();
        self.step(Event::Outbox(bytes))
    }

    /// Deletes files of former owners that no manifest names any more, after `keep_files`.
    pub(super) fn sweep_older(&mut self, manifest: &crate::checkpoint::manifest::Manifest) {
        let name = manifest_name(manifest).pop().unwrap_or_default();
        let store_tasks = Arc::clone(&self.store_tasks);
        let (manifest, keep) = (manifest.clone(), self.rules.keep_files);
        self.store_tasks.runtime.spawn(async move {
            tokio::time::sleep(keep).await;
            match store_tasks.older_garbage(&manifest, &name).await {
                Ok(names) => store_tasks.delete(names),
                Err(error) => warn!("old files are not looked for: {error}"),
            }
        });
    }

    /// Executes what is due: expired budgets, file deletions, the next checkpoint.
    pub(super) fn keep_time(&mut self) -> Result<(), SourceError> {
        let now = Instant::now();
        let over: Vec<_> = self.timers.budgets.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, budget) in over {
            self.step(Event::BudgetOver(budget))?;
        }
        let pending_deletes: Vec<_> = self.timers.pending_deletes.extract_if(.., |(at, _)| *at <= now).collect();
        pending_deletes.into_iter().for_each(|(_, names)| self.store_tasks.delete(names));
        let every = if self.in_flight.more_alerts {
            self.rules.checkpoint_every.min(SOON)
        } else {
            self.rules.checkpoint_every
        };
        if self.timers.last_checkpoint.elapsed() >= every {
            self.timers.last_checkpoint = now;
            self.step(Event::Due)?;
        }
        Ok(())
    }
}

/// The files that only this checkpoint names.
fn orphans(written: &WrittenCheckpoint) -> Vec<String> {
    let own = written.manifest.files.iter().filter(|file| file.sequence == written.manifest.sequence);
    own.map(|file| file.name.clone()).chain([written.reference.name.clone()]).collect()
}

/// The name of a manifest: that of its files, with another extension.
fn manifest_name(manifest: &crate::checkpoint::manifest::Manifest) -> Vec<String> {
    let own = manifest.files.iter().find(|file| file.sequence == manifest.sequence);
    own.and_then(|file| Some(format!("{}.json", file.name.rsplit_once('.')?.0))).into_iter().collect()
}
