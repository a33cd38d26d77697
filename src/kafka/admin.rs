//! Administration of a group that has no running members, for `bootstrap` and `rewind`.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;

use super::errors;
use super::ffi::{Failure, Handle};
use super::handle::KafkaHandle;
use super::reader::{ProbedRecord, probe_records};
use super::settings::{KafkaSettings, Role};
use super::topics::TopicNames;
use crate::bus::{Committed, GroupHandle, SourceError, Start, TopicPartition};
use crate::status::coverage::GroupMember;

/// A group as its coordinator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    /// Kafka's name of the state: `Stable`, `Empty`, `PreparingRebalance`, ...; `Dead` for a group that does not exist.
    pub state: String,
    /// Its members.
    pub members: Vec<GroupMember>,
}

impl GroupState {
    /// Whether a client outside the group may commit offsets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && matches!(self.state.as_str(), "Empty" | "Dead")
    }

    /// Whether the group has members and its assignment is complete.
    #[must_use]
    pub fn is_stable(&self) -> bool {
        !self.members.is_empty() && self.state == "Stable"
    }

    /// The names of the members, for messages.
    #[must_use]
    pub fn names(&self) -> String {
        self.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// A client outside the group. Every method waits for answers, for at most the given time plus a second.
#[derive(Debug, Clone)]
pub struct KafkaAdmin {
    client: KafkaHandle,
    group: CString,
    settings: KafkaSettings,
}

impl KafkaAdmin {
    /// A client for the group and topics of these settings.
    ///
    /// # Errors
    /// [`SourceError::Configuration`] if librdkafka refuses the settings.
    pub fn new(settings: &KafkaSettings) -> Result<KafkaAdmin, SourceError> {
        let wrong = |text: String| SourceError::Configuration(format!("kafka: {text}"));
        let handle = Handle::new(settings.configuration(Role::Outsider)?).map_err(wrong)?;
        let group = CString::new(settings.group_id.as_str());
        let group = group.map_err(|_| wrong("kafka.group_id contains a zero byte".to_owned()))?;
        let client = KafkaHandle { handle, names: TopicNames::new(&settings.topics)? };
        Ok(KafkaAdmin { client, group, settings: settings.clone() })
    }

    /// State and members of the group.
    ///
    /// # Errors
    /// If the coordinator refuses or does not answer.
    pub fn describe_group(&self, wait: Duration) -> Result<GroupState, SourceError> {
        let described = self.client.handle.describe_group(&self.group, wait);
        let described = described.map_err(|failure| errors::failed("cannot describe the group", &failure))?;
        let member = |member: super::ffi::Member| GroupMember {
            name: format!("{} at {}", member.instance_id.unwrap_or(member.client_id), member.host),
            assigned: member.assigned.into_iter().collect(),
        };
        Ok(GroupState { state: described.state, members: described.members.into_iter().map(member).collect() })
    }

    /// All committed offsets of the group by topic and partition, including topics that are no longer sources.
    ///
    /// # Errors
    /// If the coordinator refuses or does not answer, and while a transaction with offsets of the group is pending.
    pub fn all_committed(&self, wait: Duration) -> Result<BTreeMap<(String, i32), Committed>, SourceError> {
        let rows = self.client.handle.all_committed(&self.group, wait);
        let rows = rows.map_err(|failure| errors::failed("cannot list the committed offsets", &failure))?;
        let committed = rows.into_iter().filter(|(_, _, offset, _)| *offset >= 0);
        let committed =
            committed.map(|(topic, partition, offset, metadata)| ((topic, partition), Committed { offset, metadata }));
        Ok(committed.collect())
    }

    /// As [`GroupHandle::committed`].
    ///
    /// # Errors
    /// See there.
    pub fn committed(&self, of: &[TopicPartition], wait: Duration) -> Result<Vec<Option<Committed>>, SourceError> {
        self.client.committed(of, wait)
    }

    /// As [`GroupHandle::offsets`].
    ///
    /// # Errors
    /// See there.
    pub fn offsets(&self, of: &[(TopicPartition, Start)], wait: Duration) -> Result<Vec<i64>, SourceError> {
        self.client.offsets(of, wait)
    }

    /// Commits offsets for a group without members. The broker does not check whether they exist.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`] if the group has members, or if the coordinator refuses because one joined in the
    /// meantime; or if the coordinator does not answer.
    pub fn commit(&self, next: &[(TopicPartition, Committed)], wait: Duration) -> Result<(), SourceError> {
        if next.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + wait;
        let state = self.describe_group(wait)?;
        if !state.is_empty() {
            return Err(SourceError::Unavailable(format!(
                "the group {:?} has members ({}; {}). Stop every replica, wait until their sessions have timed out \
                 (session.timeout.ms), and try again",
                self.group.to_string_lossy(),
                state.state,
                state.names()
            )));
        }
        let doing = "cannot commit offsets for the group";
        let list = self.client.names.list_with_metadata(next);
        match self.client.handle.commit_and_wait(&list, deadline.saturating_duration_since(Instant::now())) {
            Some(Ok(())) => Ok(()),
            Some(Err(failure)) if has_joined(failure.code) => Err(SourceError::Unavailable(format!(
                "{doing}: a member joined in the meantime ({}). Stop every replica and try again",
                failure.text
            ))),
            Some(Err(failure)) => Err(errors::failed(doing, &failure)),
            None => Err(SourceError::Unavailable(format!("{doing}: no answer within {wait:?}"))),
        }
    }

    /// Up to `limit` committed records of each topic-partition from an offset; none if the offset is outside the log.
    /// Uses a separate client, so that calls may run concurrently.
    ///
    /// # Errors
    /// If the records do not arrive within `wait`.
    pub fn probe_records(
        &self,
        from: &[(TopicPartition, i64)],
        limit: usize,
        wait: Duration,
    ) -> Result<BTreeMap<TopicPartition, Vec<ProbedRecord>>, SourceError> {
        probe_records(&self.settings, from, limit, wait)
    }

    /// The id of each source topic, in order; it changes when a topic is deleted and recreated. `None` if the brokers
    /// are too old to have topic ids.
    ///
    /// # Errors
    /// If a topic does not exist, or no broker answers.
    pub fn topic_ids(&self, wait: Duration) -> Result<Vec<Option<String>>, SourceError> {
        let doing = "cannot look up the ids of topics";
        let names: Vec<&CStr> = self.client.names.all().iter().map(CString::as_c_str).collect();
        let answers = match self.client.handle.topic_ids(&names, wait) {
            Ok(answers) => answers,
            Err(failure) if matches!(failure.code, Code::UnsupportedFeature | Code::UnsupportedVersion) => {
                return Ok(vec![None; names.len()]);
            }
            Err(failure) => return Err(errors::failed(doing, &failure)),
        };
        let of_topic = |(name, answer): (&&CStr, Result<Option<String>, Failure>)| {
            answer.map_err(|failure| {
                SourceError::Unavailable(format!("{doing}: topic {:?}: {}", name.to_string_lossy(), failure.text))
            })
        };
        names.iter().zip(answers).map(of_topic).collect()
    }
}

/// Errors of a commit without a member for a group that has members.
fn has_joined(code: Code) -> bool {
    matches!(code, Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress | Code::StaleMemberEpoch)
}
