//! Commits: passes the outbox records and offsets of a checkpoint to the commit thread, and processes its replies.
//!
//! This is the only place in the daemon that commits offsets: [`super::commit_thread`] commits them in a transaction
//! (exactly once), [`Coordinator::commit_plainly`] after delivery of the records (at least once).

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use super::commit_thread::{CommitReply, Transaction};
use super::{Coordinator, gone};
use crate::bus::transaction::TransactionError;
use crate::bus::{Committed, GroupClient, GroupHandle, Partition, SourceError, TopicPartition};
use crate::checkpoint::protocol::{Epoch, Event, Outcome, Part};
use crate::event::wall_clock;
use crate::output::dead_letters::{Channel, too_large_even_cut_off};

/// Timeout of a commit without a transaction.
const COMMIT_WAIT: Duration = Duration::from_secs(5);

impl<C: GroupClient> Coordinator<C> {
    /// Commits the start offsets of partitions that have neither committed offsets nor checkpoints.
    pub(super) fn commit_initial(&mut self, epoch: Epoch, parts: &[Part]) -> Result<(), SourceError> {
        let Ok(token) = self.client.group_token() else { return self.step(Event::NotAMember(epoch)) };
        self.in_flight.records.clear();
        self.reporting.log.commits(parts.len(), 0);
        self.committer.commit(Transaction { epoch, token, next: self.offsets(parts), records: Vec::new() });
        Ok(())
    }

    /// Commits a checkpoint whose files are uploaded: its outbox records, and the offsets that name it.
    pub(super) fn commit(&mut self, epoch: Epoch, parts: &[Part]) {
        let Some(token) = self.in_flight.tokens.get(&epoch).cloned() else { return };
        let mut records = Vec::new();
        self.in_flight.records.clear();
        for part in parts {
            let of = self.outbox.of_checkpoint(part.partition, epoch);
            records.extend(of.iter().cloned());
            self.in_flight.records.extend((0..of.len()).map(|index| (part.partition, index)));
        }
        self.reporting.log.commits(parts.len(), records.len());
        self.committer.commit(Transaction { epoch, token, next: self.offsets(parts), records });
    }

    /// The offsets of all topics of these partitions; the metadata names the state.
    pub(super) fn offsets(&self, parts: &[Part]) -> Vec<(TopicPartition, Committed)> {
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

    /// The checkpoint of this partition is committed: its outbox records are delivered.
    pub(super) fn confirm(&mut self, epoch: Epoch, partition: Partition) -> Result<(), SourceError> {
        self.reporting.uncommitted.committed(partition);
        let (alerts, dead): (Vec<_>, Vec<_>) =
            self.outbox.confirm(partition, epoch).into_iter().partition(|record| record.to == Channel::Alerts);
        self.reporting.checkpoints.dead_letters += dead.len() as u64;
        let sent = Arc::clone(&self.reporting.status.borrow().sent);
        sent.add(wall_clock(), alerts.iter().filter_map(|alert| alert.payload.clone()));
        if let Some(files) = self.partitions.get_mut(&partition).and_then(|owned| owned.files.as_mut())
            && let Some((_, written)) = files.pending.take_if(|(of, _)| *of == epoch)
        {
            files.before = Some(written.manifest);
        }
        self.reporting.checkpoints.last_success = Some(wall_clock());
        if let Some(begun) = self.in_flight.begun {
            self.reporting.checkpoints.took = Some(begun.elapsed());
        }
        self.pool.confirm(partition, epoch.0).map_err(gone)
    }

    pub(super) fn ended(&mut self, epoch: Epoch, outcome: Outcome) -> Result<(), SourceError> {
        self.reporting.log.committed(epoch, outcome, self.in_flight.begun.map(|begun| begun.elapsed()));
        self.reporting.checkpoints.committed += u64::from(outcome == Outcome::Committed);
        if outcome == Outcome::Committed {
            self.commit_error(None);
        }
        self.step(Event::Ended { epoch, outcome })
    }

    /// Processes a reply of the commit thread.
    pub(super) fn take_reply(&mut self, reply: CommitReply) -> Result<(), SourceError> {
        match reply {
            CommitReply::Ended(epoch, outcome) => self.ended(epoch, outcome),
            CommitReply::Delivered(transaction) => self.commit_plainly(&transaction),
            CommitReply::TooLarge(epoch, indexes) => {
                indexes.into_iter().try_for_each(|index| self.truncate(epoch, index))
            }
            CommitReply::Error(why) => {
                self.commit_error(Some(why));
                Ok(())
            }
            CommitReply::Undeliverable(why) => Err(SourceError::Configuration(why)),
            CommitReply::Renewed(epoch) => self.step(Event::ProducerRenewed(epoch)),
            CommitReply::Fenced(text) => {
                error!("{text}");
                self.step(Event::Fenced)
            }
        }
    }

    /// Truncates a record that was rejected for its size, so that the next attempt succeeds.
    pub(super) fn truncate(&mut self, epoch: Epoch, index: usize) -> Result<(), SourceError> {
        // The partition may have been given up; its next owner produces the record again.
        let Some(&(partition, place)) = self.in_flight.records.get(index) else { return Ok(()) };
        let Some(record) = self.outbox.of_checkpoint(partition, epoch).get(place) else { return Ok(()) };
        let (topic, before) = (self.rules.outputs.of(record).to_owned(), record.bytes());
        if !self.outbox.truncate(partition, epoch, place) {
            return Err(SourceError::Configuration(too_large_even_cut_off(&topic)));
        }
        let after = self.outbox.of_checkpoint(partition, epoch).get(place).map_or(0, |record| record.bytes());
        warn!(topic, "a dead letter of {before} bytes is refused for its size and cut off to {after} bytes");
        Ok(())
    }

    /// At least once: commits the offsets after delivery, unless a partition of the checkpoint was given up.
    pub(super) fn commit_plainly(&mut self, transaction: &Transaction) -> Result<(), SourceError> {
        let epoch = transaction.epoch;
        if self.in_flight.aborted == Some(epoch) {
            return self.ended(epoch, Outcome::Aborted);
        }
        let outcome = match self.handle().commit(&transaction.token, &transaction.next, COMMIT_WAIT) {
            Ok(()) => Outcome::Committed,
            Err(error) => {
                warn!("a checkpoint is not committed, the next one tries again: {error}");
                self.commit_error(Some(error.to_string()));
                match error {
                    TransactionError::Unknown(_) => Outcome::Unknown,
                    _ => Outcome::Aborted,
                }
            }
        };
        self.ended(epoch, outcome)
    }
}
