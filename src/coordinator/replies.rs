//! What the commit thread says, taken to heart by the poll loop.

use std::time::Duration;

use tracing::{error, warn};

use super::Coordinator;
use crate::checkpoint::protocol::{Epoch, Event, Outcome};
use crate::coordinator::commit_thread::{CommitReply, Transaction};
use crate::output::dead_letters::too_large_even_cut_off;
use crate::source::transaction::TransactionError;
use crate::source::{GroupClient, GroupHandle, SourceError};

/// How long a plain commit may take.
const COMMIT_WAIT: Duration = Duration::from_secs(5);

impl<C: GroupClient> Coordinator<C> {
    pub(super) fn said(&mut self, said: CommitReply) -> Result<(), SourceError> {
        match said {
            CommitReply::Ended(epoch, outcome) => self.ended(epoch, outcome),
            CommitReply::Delivered(transaction) => self.commit_plainly(&transaction),
            CommitReply::TooLarge(epoch, indexes) => {
                indexes.into_iter().try_for_each(|index| self.truncate(epoch, index))
            }
            CommitReply::Error(why) => {
                self.commit_trouble(Some(why));
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

    /// A record of a checkpoint was refused for its size, so it is to be smaller at the next attempt.
    fn truncate(&mut self, epoch: Epoch, index: usize) -> Result<(), SourceError> {
        // What was given up meanwhile comes again with its next owner.
        let Some(&(partition, place)) = self.records.get(index) else { return Ok(()) };
        let Some(record) = self.outbox.of_checkpoint(partition, epoch).get(place) else { return Ok(()) };
        let (topic, before) = (self.rules.outputs.of(record).to_owned(), record.bytes());
        if !self.outbox.truncate(partition, epoch, place) {
            return Err(SourceError::Configuration(too_large_even_cut_off(&topic)));
        }
        let after = self.outbox.of_checkpoint(partition, epoch).get(place).map_or(0, |record| record.bytes());
        warn!(topic, "a dead letter of {before} bytes is refused for its size and cut off to {after} bytes");
        Ok(())
    }

    /// At least once: the offsets behind the records, unless a partition of them was given up.
    fn commit_plainly(&mut self, transaction: &Transaction) -> Result<(), SourceError> {
        let epoch = transaction.epoch;
        if self.aborted == Some(epoch) {
            return self.ended(epoch, Outcome::Aborted);
        }
        let outcome = match self.handle().commit(&transaction.token, &transaction.next, COMMIT_WAIT) {
            Ok(()) => Outcome::Committed,
            Err(error) => {
                warn!("a checkpoint is not committed, the next one tries again: {error}");
                self.commit_trouble(Some(error.to_string()));
                match error {
                    TransactionError::Unknown(_) => Outcome::Unknown,
                    _ => Outcome::Aborted,
                }
            }
        };
        self.ended(epoch, outcome)
    }

    /// Why checkpoints are not committed, for those who ask.
    pub(super) fn commit_trouble(&self, why: Option<String>) {
        self.status.send_if_modified(|status| {
            let is_news = status.commit_trouble != why;
            status.commit_trouble = why;
            is_news
        });
    }
}
