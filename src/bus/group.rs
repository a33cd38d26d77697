//! What exactly-once asks of a group member beside reading: who it is, what its group has committed, and pauses.
//!
//! A broker checks member and generation of a commit, **not who owns the partition**: a [`GroupToken`] taken after a
//! rebalance lets a commit of partitions pass that were given up in it. So a token is taken together with the
//! partitions then owned, on the thread that answers rebalances, and a commit uses exactly that pair. A token that was
//! kept too long is refused, which is [`TransactionError::Rejoin`].

use std::time::Duration;

use super::transaction::TransactionError;
use super::{LogClient, SourceError, Start, TopicPartition};

/// What a group committed for a topic-partition, or is to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// The text stored beside it; when read, not necessarily ours, nor UTF-8.
    pub metadata: Vec<u8>,
}

/// Who a member was when this was taken: what a commit is checked against.
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
    /// [`SourceError::Unavailable`] without a member id or a generation: a broker takes such a commit for one of
    /// a group without members, and checks nothing.
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

    /// A token for a group that nobody ever joins: the coordinator takes its commits as long as it has no members. What
    /// keeps two writers apart is then the transactional id alone, so it is for offsets in transactions only.
    #[must_use]
    pub fn of_nobody(group_id: &str) -> GroupToken {
        GroupToken { group_id: group_id.to_owned(), generation: -1, member_id: String::new(), instance_id: None }
    }

    /// Whether it names no member.
    #[must_use]
    pub fn is_of_nobody(&self) -> bool {
        self.member_id.is_empty()
    }

    /// The consumer group.
    #[must_use]
    pub fn group_id(&self) -> &str {
        &self.group_id
    }

    /// The generation of the group (the member's epoch under the broker's protocol); at least 1, or -1 of nobody.
    #[must_use]
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The name that the coordinator gave the member; empty of nobody.
    #[must_use]
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// The static name of the member, if it has one.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        self.instance_id.as_deref()
    }
}

/// A [`LogClient`] whose commits can be tied to what it owned.
pub trait GroupClient: LogClient {
    /// What [`GroupClient::handle`] gives.
    type Handle: GroupHandle;

    /// Who this member is at this moment; see the module for when to ask.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`] while it is not in the group.
    fn group_token(&self) -> Result<GroupToken, SourceError>;

    /// For questions and commits from other threads. Take a fresh one for each piece of work: one that outlives its
    /// member answers [`SourceError::Unavailable`].
    fn handle(&self) -> Self::Handle;

    /// Leaves the group and joins it again, which makes it hand out every partition anew, also where the brokers would
    /// give a static member back what it had. What is owned is revoked in order; an answer to the group that is under
    /// way stays due.
    ///
    /// # Errors
    /// When the client refuses.
    fn rejoin(&mut self) -> Result<(), SourceError>;

    /// Hands out nothing more of these, which stay ours; what was fetched is dropped and fetched again later. Right
    /// behind an assignment and before the next poll, nothing of them is handed out at all. The pause ends with
    /// [`GroupClient::resume`], with [`LogClient::unassign`], and by being assigned anew.
    ///
    /// # Errors
    /// When one of them is not assigned.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError>;

    /// Hands these out again, from where the pause began.
    ///
    /// # Errors
    /// When one of them is not assigned.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError>;
}

/// Questions about the group, which may wait for brokers and so have no place on the thread that polls.
pub trait GroupHandle: Clone + Send + 'static {
    /// What the group committed for each, in the same order; `None` where there is nothing, which is something else
    /// than an offset with an empty text. Offsets of an unfinished transaction are waited for, not passed over, so the
    /// answer is *stable*.
    ///
    /// # Errors
    /// When the broker refuses, or there is no stable answer within `wait`.
    fn committed(&self, of: &[TopicPartition], wait: Duration) -> Result<Vec<Option<Committed>>, SourceError>;

    /// The offset that each start stands for at this moment, in the same order; a topic-partition may be asked for
    /// once. [`Start::Latest`] is the end of what is committed: unfinished transactions lie behind it.
    ///
    /// # Errors
    /// When a partition does not exist, or the broker does not answer within `wait`.
    fn offsets(&self, of: &[(TopicPartition, Start)], wait: Duration) -> Result<Vec<i64>, SourceError>;

    /// Commits without a transaction, for delivery at least once, as the member of this token.
    ///
    /// The token is compared with the member as it is now; a rebalance right behind that comparison is not noticed
    /// (the broker would have to). So a revocation must wait for this call.
    ///
    /// # Errors
    /// [`TransactionError::Rejoin`] when the token is out of date, [`TransactionError::Unknown`] when nobody answered
    /// within `wait`, and what else the variants say.
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
    fn a_token_names_a_member_of_a_generation_or_there_is_none() {
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
