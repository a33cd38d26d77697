//! Assignment of partitions: executes the commands of the rebalance protocol, begins and releases partitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::lifecycle_log::State;
use super::partition::OwnedPartition;
use super::store_tasks::Files;
use super::{Coordinator, Release, gone};
use crate::bus::rebalance;
use crate::bus::{GroupClient, Partition, RebalanceProtocol, SourceError, Start, TopicPartition};
use crate::checkpoint::protocol::{AssignmentEpoch, EngineOrigin, Event};
use crate::engine::Engine;
use crate::event::Time;

impl<C: GroupClient> Coordinator<C> {
    /// Executes a step of the rebalance protocol, and forwards assignments and revocations to the commit protocol.
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
        self.reporting.log.group_says(&event);
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
                // `close` leaves the group once everything is released.
                rebalance::Command::Close => {}
            }
        }
        if !closing {
            self.reporting.log.owns(self.group.owned(), before.owned());
            self.reporting.status.send_modify(|status| {
                status.joined = true;
                status.rebalances += 1;
            });
            self.publish();
        }
        Ok(())
    }

    /// Partitions that are being revoked were lost: drop them now and answer both events together.
    pub(super) fn overtake(&mut self) -> Result<Vec<TopicPartition>, SourceError> {
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

    /// Gives partitions up, and answers the group once all of them are released.
    pub(super) fn give_up(
        &mut self,
        stopped: Vec<Partition>,
        in_order: bool,
        unassign: Option<Vec<TopicPartition>>,
    ) -> Result<(), SourceError> {
        if stopped.is_empty() {
            return Ok(());
        }
        self.reporting.log.leaves(&stopped, in_order);
        self.releases.push(Release { unassign, waiting: stopped.iter().copied().collect() });
        self.step(if in_order { Event::Revoked(stopped) } else { Event::Lost(stopped) })
    }

    /// Answers a revocation once none of its partitions is still draining. When a replica stops, the group may revoke
    /// partitions that are already draining; answering at once would let their next owner start before the last commit
    /// and repeat the work.
    pub(super) fn unassign_released(
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

    pub(super) fn unassign(&mut self, these: Vec<TopicPartition>) -> Result<(), SourceError> {
        let these: Vec<_> = match self.client.protocol() {
            RebalanceProtocol::Eager => these,
            // Only partitions that are read were ever assigned to the client.
            RebalanceProtocol::Incremental => {
                these.into_iter().filter(|at| self.reading.assigned.contains(at)).collect()
            }
        };
        self.reading.assigned.retain(|at| !these.contains(at));
        self.client.unassign(&these)
    }

    /// Starts to give up all partitions and to leave the group.
    pub(super) fn close_group(&mut self) -> Result<(), SourceError> {
        self.rebalance(rebalance::Event::Closing)?;
        self.step(Event::Closing)
    }

    /// Begins to process a partition: hands its engine to a worker. Reading starts at the offsets of the engine's
    /// state.
    pub(super) fn begin(
        &mut self,
        partition: Partition,
        assignment: AssignmentEpoch,
        origin: EngineOrigin,
        next: Vec<i64>,
    ) -> Result<(), SourceError> {
        let next = match origin {
            EngineOrigin::Initial { since } => {
                self.reporting.log.begins(partition, &State::Nothing);
                self.partitions.entry(partition).or_default().files = Some(Files { since, ..Files::default() });
                let mut engine = Box::new(Engine::new(Arc::clone(&self.store_tasks.spec)));
                engine.set_alerts_since(Time::clamped(since));
                self.pool.begin(partition, engine, next.clone()).map_err(gone)?;
                next
            }
            EngineOrigin::Loaded => {
                let loaded = self.partitions.get_mut(&partition).and_then(|owned| owned.loaded.take());
                let Some((mut engine, manifest)) = loaded else { return Ok(()) };
                let customers = engine.tracked_customers();
                engine.set_alerts_since(Time::clamped(manifest.origin.since));
                self.reporting.log.begins(partition, &State::Loaded(customers));
                let missing = engine.missing_now();
                self.reporting.log.respecified(&missing);
                self.reporting.status.send_modify(|status| _ = status.missing.insert(partition, missing));
                self.pool.begin(partition, engine, next.clone()).map_err(gone)?;
                let since = manifest.origin.since;
                let files = Files { before: Some(*manifest), since, ..Files::default() };
                self.partitions.entry(partition).or_default().files = Some(files);
                next
            }
            EngineOrigin::Parked => {
                self.reporting.log.begins(partition, &State::Kept);
                self.pool.unpark(partition).map_err(gone)?.unwrap_or(next)
            }
        };
        let siblings = self.store_tasks.siblings(partition).into_iter().map(|at| at.topic);
        self.partitions.entry(partition).or_default().begin(assignment, siblings.zip(next));
        Ok(())
    }

    /// Assigns the partitions that began in this round to the client, all at once.
    pub(super) fn assign_beginning(&mut self) -> Result<(), SourceError> {
        // An assignment now would be taken for the answer to a revocation that is not done yet.
        if !self.releases.is_empty() || !self.partitions.values().any(|owned| owned.to_assign) {
            return Ok(());
        }
        let starts = self.starts(|owned| owned.to_assign);
        self.partitions.values_mut().for_each(|owned| owned.to_assign = false);
        match self.client.protocol() {
            RebalanceProtocol::Eager => self.assign_running()?,
            RebalanceProtocol::Incremental => {
                // A partition that began again while it was assigned is now read from another offset.
                let again: Vec<_> =
                    starts.iter().map(|(at, _)| *at).filter(|at| self.reading.assigned.contains(at)).collect();
                if !again.is_empty() {
                    self.client.unassign(&again)?;
                }
                self.reading.assigned.extend(starts.iter().map(|(at, _)| *at));
                self.client.incremental_assign(&starts)?;
            }
        }
        if self.reading.is_paused { self.hold(true) } else { Ok(()) }
    }

    pub(super) fn assign_running(&mut self) -> Result<(), SourceError> {
        let starts = self.starts(|_| true);
        self.reading.stalled.clear(); // an assignment ends pauses
        self.reading.assigned = starts.iter().map(|(at, _)| *at).collect();
        self.client.assign(&starts)?;
        if self.reading.is_paused { self.hold(true) } else { Ok(()) }
    }

    /// Where to continue reading each running partition: after the last record handed out.
    pub(super) fn starts(&self, wanted: impl Fn(&OwnedPartition) -> bool) -> Vec<(TopicPartition, Start)> {
        let is_read = |at: &TopicPartition| {
            self.partitions.get(&at.partition).is_some_and(|owned| owned.is_read() && wanted(owned))
        };
        let of = self.progress().filter(|(at, _)| is_read(at));
        of.filter_map(|(at, progress)| Some((at, Start::Offset(progress.handed_out?)))).collect()
    }

    pub(super) fn hold(&mut self, held: bool) -> Result<(), SourceError> {
        self.reading.is_paused = held;
        // This resumes or pauses them with the others; the next `pause_stalled` pauses them again.
        self.reading.stalled.clear();
        let read: Vec<_> = self.reading.assigned.iter().copied().collect();
        if held { self.client.pause(&read) } else { self.client.resume(&read) }
    }

    pub(super) fn drop_partition(&mut self, partition: Partition) -> Result<(), SourceError> {
        // A pending upload may or may not be committed, so its files are kept; the next owner deletes them if unused.
        if let Some(rest) = self.partitions.remove(&partition).and_then(OwnedPartition::without_engine) {
            self.partitions.insert(partition, rest);
        }
        self.reporting.uncommitted.forget(partition);
        self.outbox.drop(partition);
        *self.forgetting.entry(partition).or_default() += 1;
        self.pool.forget(partition).map_err(gone)
    }

    pub(super) fn release(&mut self, partitions: &[Partition]) -> Result<(), SourceError> {
        for release in &mut self.releases {
            partitions.iter().for_each(|partition| _ = release.waiting.remove(partition));
        }
        let (done, waiting) =
            std::mem::take(&mut self.releases).into_iter().partition(|r: &Release| r.waiting.is_empty());
        self.releases = waiting;
        self.reporting.log.left(partitions);
        for partition in partitions {
            if let Some(rest) = self.partitions.remove(partition).and_then(OwnedPartition::released) {
                self.partitions.insert(*partition, rest);
            }
        }
        for release in done {
            if let Some(these) = release.unassign {
                self.unassign(these)?;
            }
        }
        Ok(())
    }
}
