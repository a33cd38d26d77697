//! What exactly-once delivery needs from a group member: its identity, committed offsets, and pauses.
//!
//! A broker checks the member and generation of a commit, **not the owner of the partition**: with a [`GroupToken`]
//! taken after a rebalance, a commit of partitions revoked in that rebalance succeeds. So take a token together with
//! the set of owned partitions, on the thread that answers rebalances, and commit with exactly that pair. A broker
//! refuses a stale token ([`TransactionError::Rejoin`]).

use std::time::Duration;

use super::transaction::TransactionError;
use super::{LogClient, SourceError, Start, TopicPartition};

/// A committed offset with its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// The metadata string; not necessarily written by us, nor valid UTF-8.
    pub metadata: Vec<u8>,
}

/// The identity of a member at one moment, which brokers check a commit against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupToken {
    group_id: String,
    generation: i32,
    member_id: String,
    instance_id: Option<String>,
}

impl GroupToken {
    /// A token of a member.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`] without a member id or a generation: a broker would treat such a commit as one for
    /// a group without members, and check nothing.
    pub fn new(
        group_id: &str,
        generation: i32,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<GroupToken, SourceError> {
        if generation <= 0 || member_id.is_empty() {
            return Err(SourceError::Unavailable(format!(
                "this member has not joined its group (generation {generation}), so it must commit nothing"
            )));
        }
        Ok(GroupToken {
            group_id: group_id.to_owned(),
            generation,
            member_id: member_id.to_owned(),
            instance_id: instance_id.map(str::to_owned),
        })
    }

    /// A token for a group without members, whose coordinator accepts any commit. Only the transactional id keeps two
    /// writers apart, so use it only for offsets in transactions.
    #[must_use]
    pub fn of_nobody(group_id: &str) -> GroupToken {
        GroupToken { group_id: group_id.to_owned(), generation: -1, member_id: String::new(), instance_id: None }
    }

    /// Whether this is a token of [`GroupToken::of_nobody`].
    #[must_use]
    pub fn is_of_nobody(&self) -> bool {
        self.member_id.is_empty()
    }

    /// The consumer group.
    #[must_use]
    pub fn group_id(&self) -> &str {
        &self.group_id
    }

    /// The generation of the group (the member epoch under the consumer protocol): at least 1, or -1 without a member.
    #[must_use]
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The member id from the coordinator; empty without a member.
    #[must_use]
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// The static member id, if any.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        self.instance_id.as_deref()
    }
}

/// A [`LogClient`] whose commits can be tied to the partitions it owned.
pub trait GroupClient: LogClient {
    /// The type of [`GroupClient::handle`].
    type Handle: GroupHandle;

    /// The current identity of this member; see the module documentation for when to call it.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`] while it is not in the group.
    fn group_token(&self) -> Result<GroupToken, SourceError>;

    /// A handle for queries and commits from other threads. Take a new one for each task: after its member has left, a
    /// handle returns [`SourceError::Unavailable`].
    fn handle(&self) -> Self::Handle;

    /// Leaves the group and joins it again, so that the group reassigns every partition. Brokers would otherwise give a
    /// static member its former assignment. Owned partitions are revoked in order; a pending answer to the group is
    /// still required.
    ///
    /// # Errors
    /// If the client refuses.
    fn rejoin(&mut self) -> Result<(), SourceError>;

    /// Stops handing out records of these partitions, which stay assigned; prefetched records are dropped and fetched
    /// again later. If called after an assignment and before the next poll, none of their records are handed out. The
    /// pause ends with [`GroupClient::resume`], [`LogClient::unassign`], or a new assignment.
    ///
    /// # Errors
    /// If one of them is not assigned.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError>;

    /// Resumes these partitions at the position where they were paused.
    ///
    /// # Errors
    /// If one of them is not assigned.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError>;
}

/// Queries about the group. They may wait for brokers, so call them off the poll thread.
pub trait GroupHandle: Clone + Send + 'static {
    /// The committed offset of each topic-partition, in the same order; `None` if there is none, which differs from an
    /// offset with empty metadata. The read is *stable*: it waits for pending transactions.
    ///
    /// # Errors
    /// If the broker refuses, or no stable answer arrives within `wait`.
    fn committed(&self, of: &[TopicPartition], wait: Duration) -> Result<Vec<Option<Committed>>, SourceError>;

    /// Resolves each start to an offset, in the same order; each topic-partition may occur once. [`Start::Latest`] is
    /// the last stable offset, before any open transaction.
    ///
    /// # Errors
    /// If a partition does not exist, or the broker does not answer within `wait`.
    fn offsets(&self, of: &[(TopicPartition, Start)], wait: Duration) -> Result<Vec<i64>, SourceError>;

    /// Commits without a transaction, for at-least-once delivery, as the member of this token.
    ///
    /// The token is compared with the current member. A rebalance right after the comparison goes unnoticed, so a
    /// revocation must wait for this call.
    ///
    /// # Errors
    /// [`TransactionError::Rejoin`] if the token is stale, [`TransactionError::Unknown`] without an answer within
    /// `wait`, and other variants as documented.
    fn commit(
        &self,
        token: &GroupToken,
        next: &[(TopicPartition, Committed)],
        wait: Duration,
    ) -> Result<(), TransactionError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_needs_a_member_and_a_generation() {
        let token = GroupToken::new("g", 1, "m", Some("i")).unwrap();
        assert_eq!((token.group_id(), token.generation(), token.member_id()), ("g", 1, "m"));
        assert_eq!(token.instance_id(), Some("i"));
        for (generation, member) in [(0, "m"), (-1, "m"), (1, "")] {
            let refused = GroupToken::new("g", generation, member, None);
            assert!(matches!(refused, Err(SourceError::Unavailable(_))), "{refused:?}");
        }
        let nobody = GroupToken::of_nobody("g");
        assert_eq!((nobody.group_id(), nobody.generation(), nobody.member_id()), ("g", -1, ""));
        assert!(nobody.is_of_nobody() && !token.is_of_nobody());
    }
}
