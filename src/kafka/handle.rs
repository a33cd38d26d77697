//! Group queries and commits from any thread; no messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;

use super::errors;
use super::ffi::{Entry, Failure, Handle, List};
use super::topics::TopicNames;
use crate::bus::transaction::TransactionError;
use crate::bus::{Committed, GroupHandle, GroupToken, SourceError, Start, TopicPartition};

/// Special timestamps of Kafka's ListOffsets request: the oldest and the next record.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// A shared handle of a Kafka client for queries. The client lives as long as its last clone.
#[derive(Debug, Clone)]
pub struct KafkaHandle {
    pub(super) handle: Arc<Handle>,
    pub(super) names: TopicNames,
}

impl KafkaHandle {
    /// The identity of the client in its group.
    pub(super) fn token(&self) -> Result<GroupToken, SourceError> {
        let Some(now) = self.handle.member_now() else {
            return Err(SourceError::Unavailable("this client is not in a group".to_owned()));
        };
        GroupToken::new(&now.group_id, now.generation, &now.member_id, now.instance_id.as_deref())
    }

    fn place(&self, at: TopicPartition) -> String {
        format!("topic {:?} partition {}", self.names.name(at.topic).to_string_lossy(), at.partition.0)
    }

    /// Asks the partition leaders. [`LATEST`] stands for a time after every record.
    fn ask_leaders(&self, of: &[(TopicPartition, i64)], deadline: Instant) -> Result<Vec<i64>, SourceError> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let doing = "cannot look up offsets";
        let mut list = self.names.list(of.iter().copied());
        let wait = deadline.saturating_duration_since(Instant::now());
        self.handle.offsets_for_times(&mut list, wait).map_err(|failure| errors::failed(doing, &failure))?;
        let answer = |(entry, (at, _)): (Entry<'_>, &(TopicPartition, i64))| match entry.code {
            Code::NoError => Ok(entry.offset),
            code => Err(errors::failed(doing, &Failure { code, text: format!("{}: {code}", self.place(*at)) })),
        };
        list.entries().zip(of).map(answer).collect()
    }

    fn read_committed(
        &self,
        list: &List,
        of: &[TopicPartition],
    ) -> Result<Result<Vec<Option<Committed>>, Failure>, SourceError> {
        let mut found = Vec::with_capacity(of.len());
        for (entry, at) in list.entries().zip(of) {
            match entry.code {
                Code::NoError if entry.offset >= 0 => {
                    let metadata = entry.metadata.unwrap_or_default().to_vec();
                    found.push(Some(Committed { offset: entry.offset, metadata }));
                }
                Code::NoError => found.push(None),
                code @ Code::UnstableOffsetCommit => {
                    let text = format!("{}: a transaction with its offset is pending", self.place(*at));
                    return Ok(Err(Failure { code, text }));
                }
                code => {
                    let failure = Failure { code, text: format!("{}: {code}", self.place(*at)) };
                    return Err(errors::failed("cannot read the committed offsets", &failure));
                }
            }
        }
        Ok(Ok(found))
    }
}

impl GroupHandle for KafkaHandle {
    fn committed(&self, of: &[TopicPartition], wait: Duration) -> Result<Vec<Option<Committed>>, SourceError> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let doing = "cannot read the committed offsets";
        let deadline = Instant::now() + wait;
        let mut pending = None;
        loop {
            let invalid = i64::from(rdkafka::bindings::RD_KAFKA_OFFSET_INVALID);
            let mut list = self.names.list(of.iter().map(|at| (*at, invalid)));
            let remaining = deadline.saturating_duration_since(Instant::now());
            if let Err(failure) = self.handle.committed(&mut list, remaining) {
                // The last answer says more than the timeout of the next attempt.
                return Err(errors::failed(doing, pending.as_ref().unwrap_or(&failure)));
            }
            match self.read_committed(&list, of)? {
                Ok(found) => return Ok(found),
                // librdkafka retries by itself, with pauses and a limit; this handles results after that limit.
                Err(unstable) if remaining.is_zero() => return Err(errors::failed(doing, &unstable)),
                Err(unstable) => pending = Some(unstable),
            }
        }
    }

    fn offsets(&self, of: &[(TopicPartition, Start)], wait: Duration) -> Result<Vec<i64>, SourceError> {
        let deadline = Instant::now() + wait;
        let question = |(at, start): &(TopicPartition, Start)| match start {
            Start::Earliest => Some((*at, EARLIEST)),
            Start::Latest => Some((*at, LATEST)),
            Start::At(millis) => Some((*at, (*millis).max(0))),
            Start::Offset(_) => None,
        };
        let asked: Vec<_> = of.iter().filter_map(question).collect();
        let mut answers = self.ask_leaders(&asked, deadline)?;
        let too_young: Vec<_> =
            asked.iter().zip(&answers).filter(|(_, offset)| **offset < 0).map(|((at, _), _)| (*at, LATEST)).collect();
        let mut ends = self.ask_leaders(&too_young, deadline)?.into_iter();
        for offset in answers.iter_mut().filter(|offset| **offset < 0) {
            *offset = ends.next().unwrap_or(*offset);
        }
        let mut answers = answers.into_iter();
        let resolve = |(at, start): &(TopicPartition, Start)| {
            let offset = match start {
                Start::Offset(offset) => *offset,
                _ => answers.next().unwrap_or(-1),
            };
            let nowhere = || SourceError::Unavailable(format!("{} has no start offset yet", self.place(*at)));
            (offset >= 0).then_some(offset).ok_or_else(nowhere)
        };
        of.iter().map(resolve).collect()
    }

    fn commit(
        &self,
        token: &GroupToken,
        next: &[(TopicPartition, Committed)],
        wait: Duration,
    ) -> Result<(), TransactionError> {
        if next.is_empty() {
            return Ok(()); // librdkafka would commit its own stored positions
        }
        let now = self.token().map_err(|error| TransactionError::Rejoin(error.to_string()))?;
        if now != *token {
            let (then, now) = (token.generation(), now.generation());
            return Err(TransactionError::Rejoin(format!(
                "the commit is from generation {then}, but the current one is {now}"
            )));
        }
        let list = self.names.list_with_metadata(next);
        match self.handle.commit_and_wait(&list, wait) {
            Some(answer) => answer.map_err(|failure| errors::plain_commit(&failure)),
            None => Err(TransactionError::Unknown(format!("no answer to a commit within {wait:?}"))),
        }
    }
}
