//! What the commit thread says, taken to heart by the poll loop.

use std::time::Duration;

use tracing::{error, warn};

use super::Dispatcher;
use crate::app::committer::{Said, Transaction};
use crate::checkpoint::protocol::{CutId, Event, Outcome};
use crate::output::dead_letters::too_large_even_cut_off;
use crate::source::transaction::TransactionError;
use crate::source::{GroupClient, GroupHandle, SourceError};

/// How long a plain commit may take.
const COMMIT_WAIT: Duration = Duration::from_secs(5);

impl<C: GroupClient> Dispatcher<C> {
    pub(super) fn said(&mut self, said: Said) -> Result<(), SourceError> {
        match said {
            Said::Ended(cut, outcome) => self.ended(cut, outcome),
            Said::Delivered(transaction) => self.commit_plainly(&transaction),
            Said::TooLarge(cut, indexes) => indexes.into_iter().try_for_each(|index| self.cut_off(cut, index)),
            Said::Trouble(why) => {
                self.commit_trouble(Some(why));
                Ok(())
            }
            Said::Undeliverable(why) => Err(SourceError::Configuration(why)),
            Said::Renewed(cut) => self.step(Event::ProducerRenewed(cut)),
            Said::Fenced(text) => {
                error!("{text}");
                self.step(Event::Fenced)
            }
        }
    }

    /// A letter of a cut was refused for its size, so it is to be smaller at the next attempt.
    fn cut_off(&mut self, cut: CutId, index: usize) -> Result<(), SourceError> {
        // What was given up meanwhile comes again with its next owner.
        let Some(&(partition, place)) = self.letters.get(index) else { return Ok(()) };
        let Some(letter) = self.outbox.of_cut(partition, cut).get(place) else { return Ok(()) };
        let (topic, before) = (self.rules.outputs.of(letter).to_owned(), letter.bytes());
        if !self.outbox.truncate(partition, cut, place) {
            return Err(SourceError::Configuration(too_large_even_cut_off(&topic)));
        }
        let after = self.outbox.of_cut(partition, cut).get(place).map_or(0, |letter| letter.bytes());
        warn!(topic, "a dead letter of {before} bytes is refused for its size and cut off to {after} bytes");
        Ok(())
    }

    /// At least once: the offsets behind the letters, unless a partition of them was given up.
    fn commit_plainly(&mut self, transaction: &Transaction) -> Result<(), SourceError> {
        let cut = transaction.cut;
        if self.aborted == Some(cut) {
            return self.ended(cut, Outcome::Aborted);
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
        self.ended(cut, outcome)
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
