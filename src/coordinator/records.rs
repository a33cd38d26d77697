//! Records and reports: passes batches to the workers and processes their reports.

use std::time::Instant;

use tracing::warn;

use super::partition::{OwnedPartition, Progress};
use super::rejection_breaker::Tripped;
use super::{Coordinator, IDLE_CHECK_EVERY, gone};
use crate::bus::{GroupClient, Partition, RecordBatch, SourceError, TopicPartition};
use crate::checkpoint::protocol::{self, AssignmentEpoch, Epoch};
use crate::event::{Time, wall_clock};
use crate::output::dead_letters::{OutboxRecord, RecordOrigin};
use crate::status::idle::{IdleProgress, raises};
use crate::worker::pool::{Applied, Report};

impl<C: GroupClient> Coordinator<C> {
    /// How far each topic-partition has been read and applied.
    pub(super) fn progress(&self) -> impl Iterator<Item = (TopicPartition, &Progress)> {
        self.partitions.iter().flat_map(|(&partition, owned)| {
            owned.progress.iter().map(move |(&topic, progress)| (TopicPartition { topic, partition }, progress))
        })
    }

    pub(super) fn hand_out(
        &mut self,
        at: TopicPartition,
        batch: C::Batch,
        latest: Time,
        read: Instant,
    ) -> Result<(), SourceError> {
        let owned = self.partitions.get_mut(&at.partition).filter(|owned| owned.is_read());
        let Some(progress) = owned.and_then(|owned| owned.progress.get_mut(&at.topic)) else { return Ok(()) };
        if !batch.is_empty() {
            progress.last_record = Some(Instant::now());
            progress.handed_out = Some(batch.get(batch.len() - 1).offset + 1);
        }
        self.pool.records(at, batch, latest, read).map_err(gone)
    }

    /// An end means that everything before it was handed out, which is not true if batches were dropped.
    pub(super) fn hand_out_end(&mut self, at: TopicPartition, offset: i64) -> Result<(), SourceError> {
        if !self.partitions.get(&at.partition).is_some_and(OwnedPartition::is_read) {
            return Ok(());
        }
        self.pool.end(at, offset).map_err(gone)
    }

    /// The next record is missing from the log or cannot be read: stops the partition, with all of its topics.
    pub(super) fn cannot_read(
        &mut self,
        at: TopicPartition,
        text: &str,
        event: fn(Partition, AssignmentEpoch) -> protocol::Event,
    ) -> Result<(), SourceError> {
        warn!("{text}");
        let running = self.partitions.get(&at.partition).and_then(|owned| owned.running);
        let Some(assignment) = running else { return Ok(()) };
        self.step(event(at.partition, assignment))?;
        // Its records would be fetched only to be dropped.
        let read: Vec<_> =
            self.reading.assigned.iter().filter(|read| read.partition == at.partition).copied().collect();
        self.client.pause(&read)
    }

    /// Pauses topic-partitions whose records wait for a schema, and resumes those that no longer wait.
    pub(super) fn pause_stalled(&mut self) -> Result<(), SourceError> {
        let stalled = self.pool.stalled();
        if stalled == self.reading.stalled {
            return Ok(());
        }
        let read = |at: &&TopicPartition| self.reading.assigned.contains(at);
        let paused: Vec<_> = stalled.difference(&self.reading.stalled).filter(read).copied().collect();
        let resumed: Vec<_> = self.reading.stalled.difference(&stalled).filter(read).copied().collect();
        self.reading.stalled = stalled;
        if self.reading.is_paused {
            // Everything is paused; `hold` starts over when that ends.
            return Ok(());
        }
        self.client.pause(&paused)?;
        self.client.resume(&resumed)
    }

    /// Processes the reports of the workers.
    pub(super) fn take_reports(&mut self) -> Result<(), SourceError> {
        while let Ok(report) = self.inputs.reports.try_recv() {
            match report {
                // The work of a dropped engine will be repeated, so its reports are ignored.
                Report::Applied(applied) if self.forgetting.contains_key(&applied.at.partition) => {}
                Report::Begun(partition, ..) | Report::Taken(partition, ..)
                    if self.forgetting.contains_key(&partition) => {}
                Report::Begun(partition, epoch, alerts) => self.checkpoint_begun(partition, Epoch(epoch), &alerts),
                Report::Applied(applied) => self.applied(&applied)?,
                Report::Taken(partition, epoch, taken) => self.checkpoint_taken(partition, Epoch(epoch), taken)?,
                Report::Forgotten(partition) => self.forgotten(partition),
            }
        }
        Ok(())
    }

    fn forgotten(&mut self, partition: Partition) {
        if let Some(count) = self.forgetting.get_mut(&partition) {
            *count -= 1;
            if *count == 0 {
                self.forgetting.remove(&partition);
            }
        }
    }

    fn applied(&mut self, applied: &Applied<C::Batch>) -> Result<(), SourceError> {
        let records = applied.batch.as_ref().map_or(0, RecordBatch::len);
        self.reporting.latency.record(applied.took, records);
        if let Some(tripped) = self.breaker.note(usize::from(applied.at.topic.0), records, &applied.rejected) {
            return Err(self.misread(applied, &tripped));
        }
        if records > 0 {
            self.reporting.uncommitted.applied(applied.at.partition, Instant::now());
        }
        if let Some(batch) = &applied.batch {
            self.add_dead_letters(applied.at, batch, &applied.rejected);
        }
        let owned = self.partitions.get_mut(&applied.at.partition);
        let Some(progress) = owned.and_then(|owned| owned.progress.get_mut(&applied.at.topic)) else { return Ok(()) };
        let position = &mut progress.position;
        position.applied = position.applied.max(Some(applied.next));
        if applied.end {
            position.last_at_end = Some(Instant::now());
        }
        Ok(())
    }

    /// The error with which the program stops instead of turning a whole topic into dead letters; it contains no
    /// customer id.
    fn misread(&self, applied: &Applied<C::Batch>, tripped: &Tripped) -> SourceError {
        let topic = self.rules.topics.get(usize::from(applied.at.topic.0)).map_or("", String::as_str);
        let (index, example) = &tripped.example;
        let offset = applied.batch.as_ref().map_or(-1, |batch| batch.get(*index).offset);
        SourceError::Configuration(format!(
            "topic {topic:?} is read in the wrong format: {} of {} messages cannot be used, most of them for {}; such as \
             partition {} offset {offset}: {example}. Correct the format of the topic's source under [sources], or the \
             producers; to take all of them for dead letters, set dead_letters.stop_after = 0",
            tripped.rejected,
            tripped.messages,
            tripped.reason.label(),
            applied.at.partition.0,
        ))
    }

    /// Adds dead letters for rejected records to the outbox.
    fn add_dead_letters(&mut self, at: TopicPartition, batch: &C::Batch, rejected: &[crate::worker::Rejected]) {
        if rejected.is_empty() {
            return;
        }
        let topic = self.rules.topics.get(usize::from(at.topic.0)).map_or("", String::as_str);
        let group = self.store_tasks.group.as_str();
        let (origin, now) = (RecordOrigin { group, topic, partition: at.partition.0 }, wall_clock().millis());
        for rejected in rejected {
            let record = OutboxRecord::new(&origin, batch, rejected, now);
            self.outbox.add(at.partition, record);
        }
    }

    /// Advances idle, caught-up topic-partitions to the largest watermark of their topic.
    pub(super) fn raise_idle_watermarks(&mut self) -> Result<(), SourceError> {
        let idle_after = self.rules.idle_after;
        let silent_for = |progress: &Progress| {
            (progress.position.lag() == Some(0)).then(|| progress.last_record.map(|last| last.elapsed())).flatten()
        };
        let is_idle = |progress: &Progress| silent_for(progress).is_some_and(|silent| silent >= idle_after);
        let due = self.timers.last_idle_check.is_none_or(|last| last.elapsed() >= IDLE_CHECK_EVERY);
        if !due || !self.progress().any(|(_, progress)| is_idle(progress)) {
            return Ok(());
        }
        self.timers.last_idle_check = Some(Instant::now());
        let status = self.pool.workers().status().map_err(gone)?;
        let watermark = |at: TopicPartition| {
            let partition = status.partitions.iter().find(|partition| partition.partition == at.partition)?;
            *partition.topic_watermarks.get(usize::from(at.topic.0))?
        };
        let silence = |(at, progress): (TopicPartition, &Progress)| IdleProgress {
            at,
            watermark: watermark(at),
            silent_for: silent_for(progress),
        };
        let all: Vec<_> = self.progress().map(silence).collect();
        raises(&all, idle_after).into_iter().try_for_each(|(at, to)| self.pool.raise(at, to)).map_err(gone)
    }
}
