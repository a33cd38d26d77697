//! What the protocols of rebalances and of durable state command, done on the poll thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::lifecycle_log::State;
use super::{Coordinator, Ending, Progress, RELEASE_WAIT, Release, gone};
use crate::checkpoint::files::WrittenCheckpoint;
use crate::checkpoint::metadata::{ManifestRef, Metadata};
use crate::checkpoint::protocol::{self, AssignmentEpoch, Command, Epoch, Event, Origin, Outcome, Part, Upload};
use crate::coordinator::alert_rate::AlertRate;
use crate::coordinator::commit_thread::Transaction;
use crate::coordinator::store_tasks::{Answer, Files};
use crate::engine::Engine;
use crate::engine::inactivity::release::{Alert, Allowance};
use crate::event::{Time, wall_clock};
use crate::output::alerts;
use crate::output::dead_letters::Channel;
use crate::source::rebalance;
use crate::source::{Committed, GroupClient, Partition, RebalanceProtocol, SourceError, Start, TopicPartition};
use crate::worker::Taken;

/// How soon the next checkpoint comes while more alerts wait than fit into one.
const SOON: Duration = Duration::from_secs(1);
/// With so many bytes waiting no further alerts are taken into a checkpoint.
const FULL_OUTBOX: u64 = 16 << 20;

impl<C: GroupClient> Coordinator<C> {
    /// Takes a step of the rebalance protocol, and passes on what it means for the state.
    pub(super) fn rebalance(&mut self, event: rebalance::Event) -> Result<(), SourceError> {
        let closing = matches!(event, rebalance::Event::Closing);
        let overtaken = match event {
            rebalance::Event::Lost(_) => self.overtake()?,
            _ => Vec::new(),
        };
        let revoked: BTreeSet<Partition> = match &event {
            rebalance::Event::Revoked(taken) => taken.iter().map(|at| at.partition).collect(),
            _ => BTreeSet::new(),
        };
        self.lifecycle_log.group_says(&event);
        let (next, commands) = rebalance::step(&self.group, event);
        let before = std::mem::replace(&mut self.group, next);
        let mut stopped: Vec<Partition> = Vec::new();
        let mut in_order = false;
        for command in commands {
            match command {
                rebalance::Command::Start(partitions) => {
                    self.give_up(std::mem::take(&mut stopped), in_order, None)?;
                    self.step(Event::Assigned(partitions))?;
                }
                rebalance::Command::Stop(partitions) => stopped = partitions,
                rebalance::Command::Commit(_) => in_order = true,
                rebalance::Command::Assign(_) => {
                    self.give_up(std::mem::take(&mut stopped), in_order, None)?;
                    self.assign_running()?;
                }
                rebalance::Command::IncrementalAssign(these) => {
                    self.client.incremental_assign(&[])?;
                    tracing::debug!(?these, "assigned once their state is there");
                }
                rebalance::Command::Unassign(mut these) => {
                    these.extend(&overtaken);
                    match std::mem::take(&mut stopped) {
                        none if none.is_empty() => self.unassign_released(these, &revoked)?,
                        stopped => self.give_up(stopped, in_order, Some(these))?,
                    }
                }
                // Once everything is given back, by `close`.
                rebalance::Command::Close => {}
            }
        }
        if !closing {
            self.lifecycle_log.owns(self.group.owned(), before.owned());
            self.status.send_modify(|status| {
                status.joined = true;
                status.rebalances += 1;
            });
            self.publish();
        }
        Ok(())
    }

    /// What is being given back is lost meanwhile: it is given up at once, and answered for with the loss.
    fn overtake(&mut self) -> Result<Vec<TopicPartition>, SourceError> {
        let (mut answer, mut lost) = (Vec::new(), Vec::new());
        for release in &mut self.releases {
            answer.extend(release.unassign.take().unwrap_or_default());
            lost.extend(&release.waiting);
        }
        if !lost.is_empty() {
            self.step(Event::Lost(lost))?;
        }
        Ok(answer)
    }

    /// Gives partitions up, and answers the group once all are released.
    fn give_up(
        &mut self,
        stopped: Vec<Partition>,
        in_order: bool,
        unassign: Option<Vec<TopicPartition>>,
    ) -> Result<(), SourceError> {
        if stopped.is_empty() {
            return Ok(());
        }
        self.lifecycle_log.leaves(&stopped, in_order);
        self.releases.push(Release { unassign, waiting: stopped.iter().copied().collect() });
        self.step(if in_order { Event::Revoked(stopped) } else { Event::Lost(stopped) })
    }

    /// Answers a revocation once nothing that it names is being given up any more: a replica that stops may be asked
    /// for what it is giving up already, and whoever were handed that before its last commit would do the same again.
    fn unassign_released(
        &mut self,
        these: Vec<TopicPartition>,
        revoked: &BTreeSet<Partition>,
    ) -> Result<(), SourceError> {
        let is_waiting =
            |partition: &&Partition| self.releases.iter().any(|release| release.waiting.contains(partition));
        let waiting: BTreeSet<_> = revoked.iter().filter(is_waiting).copied().collect();
        if waiting.is_empty() {
            return self.unassign(these);
        }
        self.releases.push(Release { unassign: Some(these), waiting });
        Ok(())
    }

    fn unassign(&mut self, these: Vec<TopicPartition>) -> Result<(), SourceError> {
        let these: Vec<_> = match self.client.protocol() {
            RebalanceProtocol::Eager => these,
            // Only what is read was ever assigned.
            RebalanceProtocol::Incremental => these.into_iter().filter(|at| self.read.contains(at)).collect(),
        };
        self.read.retain(|at| !these.contains(at));
        self.client.unassign(&these)
    }

    /// Asks to give everything up and to end.
    pub(super) fn close_group(&mut self) -> Result<(), SourceError> {
        self.rebalance(rebalance::Event::Closing)?;
        self.step(Event::Closing)
    }

    /// Takes a step of the protocol of durable state and does what it commands.
    pub(super) fn step(&mut self, event: Event) -> Result<(), SourceError> {
        let commands = self.durable.step(event);
        commands.into_iter().try_for_each(|command| self.execute(command))
    }

    pub(super) fn handle(&self) -> C::Handle {
        self.client.handle()
    }

    fn execute(&mut self, command: Command) -> Result<(), SourceError> {
        match command {
            Command::ReadCommitted(partition, assignment) => {
                self.lifecycle_log.restores(partition);
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
            Command::Stop(partitions) => self.stopped.extend(partitions),
            Command::BeginCheckpoint(epoch, partitions) => return self.begin_checkpoint(epoch, &partitions),
            Command::Commit(epoch, parts) => self.commit(epoch, &parts),
            Command::Abort(epoch) => {
                self.aborted = Some(epoch);
                self.tokens.remove(&epoch);
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
                self.asked.remove(&partition);
                self.uncommitted.rolled_back(partition);
                self.outbox.roll_back(partition, epoch);
                self.discard_upload(partition, Some(epoch));
                return self.pool.roll_back(partition, epoch.0).map_err(gone);
            }
            Command::Delete(_, names) => self.pending_deletes.push((Instant::now() + self.rules.keep_files, names)),
            Command::Park(partition) => {
                self.running.remove(&partition);
                self.uncommitted.forget(partition);
                return self.pool.park(partition).map_err(gone);
            }
            Command::Drop(partition) => return self.drop_partition(partition),
            Command::Release(partitions) => return self.release(&partitions),
            Command::Fail(partition, reason) => {
                error!("partition {} is not processed: {reason}", partition.0);
                self.failed.insert(partition, reason.to_string());
            }
            Command::Pause => return self.hold(true),
            Command::Resume => return self.hold(false),
            Command::StartBudget(budget) => self.budgets.push((Instant::now() + RELEASE_WAIT, budget)),
            Command::Close => self.ending = Some(Ending::InOrder),
            Command::Exit => self.ending = Some(Ending::Fenced),
        }
        Ok(())
    }

    fn commit_initial(&mut self, epoch: Epoch, parts: &[Part]) -> Result<(), SourceError> {
        let Ok(token) = self.client.group_token() else { return self.step(Event::NotAMember(epoch)) };
        self.records.clear();
        self.lifecycle_log.commits(parts.len(), 0);
        self.committer.commit(Transaction { epoch, token, next: self.offsets(parts), records: Vec::new() });
        Ok(())
    }

    /// Puts an engine to work; it is read from the offsets that it says.
    fn begin(
        &mut self,
        partition: Partition,
        assignment: AssignmentEpoch,
        origin: Origin,
        next: Vec<i64>,
    ) -> Result<(), SourceError> {
        let next = match origin {
            Origin::Initial { since } => {
                self.lifecycle_log.begins(partition, &State::Nothing);
                self.files.insert(partition, Files { since, ..Files::default() });
                let mut engine = Box::new(Engine::new(Arc::clone(&self.store_tasks.spec)));
                engine.set_alerts_since(Time::clamped(since));
                self.pool.begin(partition, engine, next.clone()).map_err(gone)?;
                next
            }
            Origin::Loaded => {
                let Some((mut engine, manifest)) = self.loaded.remove(&partition) else { return Ok(()) };
                let customers = engine.tracked_customers();
                engine.set_alerts_since(Time::clamped(manifest.origin.since));
                self.lifecycle_log.begins(partition, &State::Loaded(customers));
                let missing = engine.missing_now();
                self.lifecycle_log.respecified(&missing);
                self.status.send_modify(|status| _ = status.missing.insert(partition, missing));
                self.pool.begin(partition, engine, next.clone()).map_err(gone)?;
                let since = manifest.origin.since;
                self.files.insert(partition, Files { before: Some(*manifest), since, ..Files::default() });
                next
            }
            Origin::Parked => {
                self.lifecycle_log.begins(partition, &State::Kept);
                self.pool.unpark(partition).map_err(gone)?.unwrap_or(next)
            }
        };
        for (at, next) in self.store_tasks.siblings(partition).into_iter().zip(next) {
            let position = crate::source::status::Position { applied: Some(next), ..Default::default() };
            let last_record = Some(Instant::now());
            self.progress.insert(at, Progress { handed_out: Some(next), position, last_record });
        }
        self.stopped.remove(&partition);
        self.failed.remove(&partition);
        self.running.insert(partition, assignment);
        self.beginning.insert(partition);
        Ok(())
    }

    /// Assigns what began in this round, all at once.
    pub(super) fn assign_beginning(&mut self) -> Result<(), SourceError> {
        let beginning = std::mem::take(&mut self.beginning);
        // What is answered to the group now would answer a revocation that is not done yet.
        if beginning.is_empty() || !self.releases.is_empty() {
            self.beginning = beginning;
            return Ok(());
        }
        match self.client.protocol() {
            RebalanceProtocol::Eager => self.assign_running()?,
            RebalanceProtocol::Incremental => {
                let starts = self.starts(|partition| beginning.contains(&partition));
                // A partition that began anew while it was ours is read from elsewhere.
                let again: Vec<_> = starts.iter().map(|(at, _)| *at).filter(|at| self.read.contains(at)).collect();
                if !again.is_empty() {
                    self.client.unassign(&again)?;
                }
                self.read.extend(starts.iter().map(|(at, _)| *at));
                self.client.incremental_assign(&starts)?;
            }
        }
        if self.held { self.hold(true) } else { Ok(()) }
    }

    fn assign_running(&mut self) -> Result<(), SourceError> {
        let starts = self.starts(|_| true);
        self.stalled.clear(); // an assignment ends pauses
        self.read = starts.iter().map(|(at, _)| *at).collect();
        self.client.assign(&starts)?;
        if self.held { self.hold(true) } else { Ok(()) }
    }

    /// Where to read on of each running partition: behind what was handed out.
    fn starts(&self, wanted: impl Fn(Partition) -> bool) -> Vec<(TopicPartition, Start)> {
        let reads = |partition: Partition| {
            wanted(partition) && self.running.contains_key(&partition) && !self.stopped.contains(&partition)
        };
        let of = self.progress.iter().filter(|(at, _)| reads(at.partition));
        of.filter_map(|(at, progress)| Some((*at, Start::Offset(progress.handed_out?)))).collect()
    }

    fn hold(&mut self, held: bool) -> Result<(), SourceError> {
        self.held = held;
        // Resumed with the others and paused again when it is looked at next.
        self.stalled.clear();
        let read: Vec<_> = self.read.iter().copied().collect();
        if held { self.client.pause(&read) } else { self.client.resume(&read) }
    }

    fn begin_checkpoint(&mut self, epoch: Epoch, partitions: &[Partition]) -> Result<(), SourceError> {
        let Ok(token) = self.client.group_token() else { return self.step(Event::NotAMember(epoch)) };
        self.tokens = BTreeMap::from([(epoch, token)]);
        self.checkpoint_begun = Some(Instant::now());
        let (now, alert_rate) = (wall_clock(), &self.rules.alert_rate);
        // What earlier checkpoints could not deliver comes first.
        let is_full = self.outbox.bytes() >= FULL_OUTBOX;
        self.more_alerts = false;
        self.asked = partitions.iter().map(|&partition| (partition, epoch)).collect();
        let begin_one = |&partition: &Partition| {
            let allowance = alert_rate.allowance(partition, now, partitions.len());
            self.pool.checkpoint(partition, epoch.0, Allowance { quiet: allowance.quiet || is_full, ..allowance })
        };
        partitions.iter().try_for_each(begin_one).map_err(gone)
    }

    /// A worker has begun a checkpoint: what has come of the partition by now belongs to it. The alerts have left their
    /// engine in any case.
    pub(super) fn checkpoint_begun(&mut self, partition: Partition, epoch: Epoch, alerts: &[Alert]) {
        self.more_alerts |= AlertRate::is_most(alerts.len(), self.running.len());
        for alert in alerts {
            self.outbox.add(partition, alerts::outbox_record(alert, &self.rules.alert_source));
        }
        self.uncommitted.checkpoint_begun(partition);
        // What was rolled back before this was heard of belongs to the next one.
        if self.asked.get(&partition) == Some(&epoch) {
            self.asked.remove(&partition);
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
            self.uncommitted.forget(partition);
            return self.step(Event::Unchanged { epoch, partition });
        };
        if !self.outbox.is_open(partition, epoch) {
            return Ok(());
        }
        let Some(files) = self.files.get(&partition) else { return Ok(()) };
        let ids = self.ids.get(&partition).cloned().unwrap_or_default();
        self.store_tasks.upload(epoch, partition, taken, files, ids);
        Ok(())
    }

    fn uploaded(
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
                self.commit_trouble(Some(why));
                return self.step(Event::UploadFailed { epoch, partition });
            }
        };
        let Some(files) = self.files.get_mut(&partition).filter(|_| self.outbox.is_open(partition, epoch)) else {
            self.store_tasks.delete(orphans(&written));
            return Ok(());
        };
        let next = written.manifest.origin.topics.iter().map(|topic| topic.offset).collect();
        let metadata = Metadata::of(&written.reference);
        let mut superseded = written.superseded.clone();
        superseded.extend(files.before.as_ref().map(manifest_name).unwrap_or_default());
        self.checkpoints.bytes += written.bytes;
        files.pending = Some((epoch, written));
        let upload = Upload { position: protocol::Position { next, metadata }, superseded };
        self.step(Event::Uploaded { epoch, partition, upload })
    }

    fn offsets(&self, parts: &[Part]) -> Vec<(TopicPartition, Committed)> {
        let of = |part: &Part| {
            let metadata = part.position.metadata.to_string().into_bytes();
            let next = part.position.next.clone();
            self.store_tasks
                .siblings(part.partition)
                .into_iter()
                .zip(next)
                .map(move |(at, offset)| (at, Committed { offset, metadata: metadata.clone() }))
        };
        parts.iter().flat_map(of).collect()
    }

    fn commit(&mut self, epoch: Epoch, parts: &[Part]) {
        let Some(token) = self.tokens.get(&epoch).cloned() else { return };
        let mut records = Vec::new();
        self.records.clear();
        for part in parts {
            let of = self.outbox.of_checkpoint(part.partition, epoch);
            records.extend(of.iter().cloned());
            self.records.extend((0..of.len()).map(|index| (part.partition, index)));
        }
        self.lifecycle_log.commits(parts.len(), records.len());
        self.committer.commit(Transaction { epoch, token, next: self.offsets(parts), records });
    }

    fn confirm(&mut self, epoch: Epoch, partition: Partition) -> Result<(), SourceError> {
        self.uncommitted.committed(partition);
        let (alerts, dead): (Vec<_>, Vec<_>) =
            self.outbox.confirm(partition, epoch).into_iter().partition(|record| record.to == Channel::Alerts);
        self.checkpoints.dead_letters += dead.len() as u64;
        let sent = Arc::clone(&self.status.borrow().sent);
        sent.add(wall_clock(), alerts.iter().filter_map(|alert| alert.payload.clone()));
        if let Some(files) = self.files.get_mut(&partition)
            && let Some((_, written)) = files.pending.take_if(|(of, _)| *of == epoch)
        {
            files.before = Some(written.manifest);
        }
        self.checkpoints.last_success = Some(wall_clock());
        if let Some(begun) = self.checkpoint_begun {
            self.checkpoints.took = Some(begun.elapsed());
        }
        self.pool.confirm(partition, epoch.0).map_err(gone)
    }

    /// What was uploaded for a checkpoint that will never be committed is of no use.
    fn discard_upload(&mut self, partition: Partition, epoch: Option<Epoch>) {
        let Some(files) = self.files.get_mut(&partition) else { return };
        if let Some((_, written)) = files.pending.take_if(|(of, _)| epoch.is_none_or(|epoch| *of == epoch)) {
            self.store_tasks.delete(orphans(&written));
        }
    }

    fn drop_partition(&mut self, partition: Partition) -> Result<(), SourceError> {
        self.running.remove(&partition);
        self.uncommitted.forget(partition);
        self.beginning.remove(&partition);
        self.stopped.insert(partition);
        self.loaded.remove(&partition);
        // Whether a pending upload was committed may be unknown here, so its files stay; the next owner sweeps.
        self.files.remove(&partition);
        self.outbox.drop(partition);
        self.asked.remove(&partition);
        *self.forgetting.entry(partition).or_default() += 1;
        self.pool.forget(partition).map_err(gone)
    }

    fn release(&mut self, partitions: &[Partition]) -> Result<(), SourceError> {
        for release in &mut self.releases {
            partitions.iter().for_each(|partition| _ = release.waiting.remove(partition));
        }
        let (done, waiting) =
            std::mem::take(&mut self.releases).into_iter().partition(|r: &Release| r.waiting.is_empty());
        self.releases = waiting;
        self.lifecycle_log.left(partitions);
        self.progress.retain(|at, _| !partitions.contains(&at.partition) || self.running.contains_key(&at.partition));
        for release in done {
            if let Some(these) = release.unassign {
                self.unassign(these)?;
            }
        }
        Ok(())
    }

    /// Takes note of what tasks and the commit thread answer.
    pub(super) fn take_answers(&mut self) -> Result<(), SourceError> {
        while let Ok(answer) = self.answers.try_recv() {
            match answer {
                Answer::Event(event) => {
                    if let Event::Committed { partition, identity, .. } = &event {
                        self.ids.insert(*partition, identity.topic_ids.clone());
                    }
                    self.step(event)?;
                }
                Answer::Uploaded(epoch, partition, written) => self.uploaded(epoch, partition, written)?,
                Answer::Loaded(partition, assignment, engine, manifest) => {
                    let (belongs, next) = self.store_tasks.belongs_to(&manifest);
                    self.sweep_older(&manifest);
                    self.loaded.insert(partition, (engine, manifest));
                    self.step(Event::Loaded { partition, assignment, manifest: belongs, next })?;
                }
                Answer::CommitReply(said) => self.said(said)?,
            }
        }
        let bytes = self.outbox.bytes();
        self.step(Event::Outbox(bytes))
    }

    /// Lets the files of former owners go that nothing names any more, after the usual time.
    fn sweep_older(&mut self, manifest: &crate::checkpoint::manifest::Manifest) {
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

    pub(super) fn ended(&mut self, epoch: Epoch, outcome: Outcome) -> Result<(), SourceError> {
        self.lifecycle_log.committed(epoch, outcome, self.checkpoint_begun.map(|begun| begun.elapsed()));
        self.checkpoints.committed += u64::from(outcome == Outcome::Committed);
        if outcome == Outcome::Committed {
            self.commit_trouble(None);
        }
        self.step(Event::Ended { epoch, outcome })
    }

    /// What is due by the clock.
    pub(super) fn keep_time(&mut self) -> Result<(), SourceError> {
        let now = Instant::now();
        let over: Vec<_> = self.budgets.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, budget) in over {
            self.step(Event::BudgetOver(budget))?;
        }
        let pending_deletes: Vec<_> = self.pending_deletes.extract_if(.., |(at, _)| *at <= now).collect();
        pending_deletes.into_iter().for_each(|(_, names)| self.store_tasks.delete(names));
        let every = if self.more_alerts { self.rules.checkpoint_every.min(SOON) } else { self.rules.checkpoint_every };
        if self.last_checkpoint.elapsed() >= every {
            self.last_checkpoint = now;
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

/// The name of a manifest: that of its files, with another ending.
fn manifest_name(manifest: &crate::checkpoint::manifest::Manifest) -> Vec<String> {
    let own = manifest.files.iter().find(|file| file.sequence == manifest.sequence);
    own.and_then(|file| Some(format!("{}.json", file.name.rsplit_once('.')?.0))).into_iter().collect()
}
