//! Admin requests: members and offsets of a group, and topic ids.

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::{ERROR_TEXT_BYTES, Failure, Handle, entries_of, result_of, take_error, text_of, timeout};

/// A group as its coordinator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct GroupDescription {
    /// Kafka's name: `Stable`, `Empty`, `Dead`, ...
    pub state: String,
    pub members: Vec<Member>,
}

/// A member of a described group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Member {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    /// The assigned topics and partitions.
    pub assigned: Vec<(String, i32)>,
}

/// Topic, partition, committed offset and metadata.
pub(in super::super) type CommittedRow = (String, i32, i64, Vec<u8>);

/// An answer, freed on drop; it owns everything read from it.
struct Event(*mut rd::rd_kafka_event_t);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, and not used afterwards.
        unsafe { rd::rd_kafka_event_destroy(self.0) }
    }
}

struct Options(*mut rd::rd_kafka_AdminOptions_t);

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: ours, and not used afterwards.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.0) }
    }
}

impl Handle {
    /// Sends a request and waits for its answer.
    fn ask(
        self: &Arc<Handle>,
        kind: rd::rd_kafka_admin_op_t,
        wait: Duration,
        stable: bool,
        send: impl FnOnce(*mut rd::rd_kafka_t, *const rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
    ) -> Result<Event, Failure> {
        let answers = self.new_queue();
        let mut text = [0; ERROR_TEXT_BYTES];
        // SAFETY: a live client; it ends the process rather than return null for a kind that it knows.
        let options = Options(unsafe { rd::rd_kafka_AdminOptions_new(self.rk, kind) });
        // SAFETY: live options, and a buffer of the stated size; the error is freed by `take_error`.
        unsafe {
            let limit = timeout(wait.max(Duration::from_millis(1)));
            result_of(rd::rd_kafka_AdminOptions_set_request_timeout(
                options.0,
                limit,
                text.as_mut_ptr(),
                ERROR_TEXT_BYTES,
            ))?;
            if stable {
                take_error(rd::rd_kafka_AdminOptions_set_require_stable_offsets(options.0, 1))?;
            }
        }
        send(self.rk, options.0, answers.raw());
        // librdkafka answers by itself after the request timeout, so wait slightly longer.
        // SAFETY: a live queue.
        let event = unsafe { rd::rd_kafka_queue_poll(answers.raw(), timeout(wait + Duration::from_secs(1))) };
        if event.is_null() {
            return Err(Failure { code: Code::OperationTimedOut, text: format!("no answer within {wait:?}") });
        }
        let event = Event(event);
        // SAFETY: a live event, whose text is terminated and copied.
        unsafe {
            match Code::from(rd::rd_kafka_event_error(event.0)) {
                Code::NoError => Ok(event),
                code => Err(Failure { code, text: text_of(rd::rd_kafka_event_error_string(event.0)) }),
            }
        }
    }

    /// State and members of a group; a group that does not exist has no members.
    pub fn describe_group(self: &Arc<Handle>, group: &CStr, wait: Duration) -> Result<GroupDescription, Failure> {
        let kind = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let mut groups = [group.as_ptr()];
        let event = self.ask(kind, wait, false, |rk, options, queue| {
            // SAFETY: a live client, one terminated name that is copied, live options and a live queue.
            unsafe { rd::rd_kafka_DescribeConsumerGroups(rk, groups.as_mut_ptr(), 1, options, queue) }
        })?;
        // SAFETY: a live event of this kind; what is read belongs to it, and texts are copied.
        unsafe {
            let result = rd::rd_kafka_event_DescribeConsumerGroups_result(event.0);
            let mut count = 0;
            let all = rd::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            let Some(&description) = array(all, count).first() else {
                return Err(Failure { code: Code::Unknown, text: "the answer holds no group".to_owned() });
            };
            match error_of(rd::rd_kafka_ConsumerGroupDescription_error(description)) {
                Err(failure) if failure.code == Code::GroupIdNotFound => {
                    return Ok(GroupDescription { state: "Dead".to_owned(), members: Vec::new() });
                }
                outcome => outcome?,
            }
            let state = rd::rd_kafka_ConsumerGroupDescription_state(description);
            let members = rd::rd_kafka_ConsumerGroupDescription_member_count(description);
            let member = |place| {
                let member = rd::rd_kafka_ConsumerGroupDescription_member(description, place);
                let instance = rd::rd_kafka_MemberDescription_group_instance_id(member);
                let assignment = rd::rd_kafka_MemberDescription_assignment(member);
                let assigned = entries_of(rd::rd_kafka_MemberAssignment_partitions(assignment));
                Member {
                    instance_id: (!instance.is_null()).then(|| text_of(instance)),
                    client_id: text_of(rd::rd_kafka_MemberDescription_client_id(member)),
                    host: text_of(rd::rd_kafka_MemberDescription_host(member)),
                    assigned: assigned.map(|entry| (entry.topic.to_owned(), entry.partition)).collect(),
                }
            };
            Ok(GroupDescription {
                state: text_of(rd::rd_kafka_consumer_group_state_name(state)),
                members: (0..members).map(member).collect(),
            })
        }
    }

    /// All committed offsets of a group; an error while a transaction with its offsets is pending.
    pub fn all_committed(self: &Arc<Handle>, group: &CStr, wait: Duration) -> Result<Vec<CommittedRow>, Failure> {
        let kind = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
        let event = self.ask(kind, wait, true, |rk, options, queue| {
            // SAFETY: a live client, a terminated name, null for every partition, live options and a live queue; the
            // request is ours, and copied by the call.
            unsafe {
                let mut request = rd::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), ptr::null());
                rd::rd_kafka_ListConsumerGroupOffsets(rk, &raw mut request, 1, options, queue);
                rd::rd_kafka_ListConsumerGroupOffsets_destroy(request);
            }
        })?;
        // SAFETY: a live event of this kind; what is read belongs to it, and is copied.
        unsafe {
            let result = rd::rd_kafka_event_ListConsumerGroupOffsets_result(event.0);
            let mut count = 0;
            let all = rd::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
            let Some(&found) = array(all, count).first() else { return Ok(Vec::new()) };
            error_of(rd::rd_kafka_group_result_error(found))?;
            let mut rows = Vec::new();
            for entry in entries_of(rd::rd_kafka_group_result_partitions(found)) {
                if entry.code != Code::NoError {
                    let text = format!("{} [{}]: {}", entry.topic, entry.partition, entry.code);
                    return Err(Failure { code: entry.code, text });
                }
                let metadata = entry.metadata.unwrap_or_default().to_vec();
                rows.push((entry.topic.to_owned(), entry.partition, entry.offset, metadata));
            }
            Ok(rows)
        }
    }

    /// Creates topics with the brokers' default replication and these settings; returns the outcome of each.
    pub fn create_topics(
        self: &Arc<Handle>,
        topics: &[CString],
        partitions: i32,
        settings: &[(CString, CString)],
        wait: Duration,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let kind = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS;
        let mut text = [0; ERROR_TEXT_BYTES];
        let mut wanted = Vec::with_capacity(topics.len());
        for topic in topics {
            // SAFETY: a terminated name, which is copied, and a buffer of the stated size.
            let new = unsafe {
                rd::rd_kafka_NewTopic_new(topic.as_ptr(), partitions, -1, text.as_mut_ptr(), ERROR_TEXT_BYTES)
            };
            if new.is_null() {
                continue;
            }
            for (name, value) in settings {
                // SAFETY: a live topic and terminated texts, which are copied.
                unsafe { rd::rd_kafka_NewTopic_set_config(new, name.as_ptr(), value.as_ptr()) };
            }
            wanted.push(new);
        }
        let complete = wanted.len() == topics.len();
        let event = complete.then(|| {
            self.ask(kind, wait, false, |rk, options, queue| {
                // SAFETY: a live client, live topics, which are copied, live options and a live queue.
                unsafe { rd::rd_kafka_CreateTopics(rk, wanted.as_mut_ptr(), wanted.len(), options, queue) }
            })
        });
        for new in wanted {
            // SAFETY: ours, and not used afterwards.
            unsafe { rd::rd_kafka_NewTopic_destroy(new) }
        }
        let Some(event) = event else {
            // SAFETY: librdkafka terminates what it writes into the buffer.
            return Err(Failure { code: Code::InvalidArgument, text: unsafe { text_of(text.as_ptr()) } });
        };
        let event = event?;
        // SAFETY: a live event of this kind; what is read belongs to it, and is copied.
        unsafe {
            let result = rd::rd_kafka_event_CreateTopics_result(event.0);
            let mut count = 0;
            let all = rd::rd_kafka_CreateTopics_result_topics(result, &raw mut count);
            let of_topic = |&topic: &*const rd::rd_kafka_topic_result_t| {
                let code = Code::from(rd::rd_kafka_topic_result_error(topic));
                let name = text_of(rd::rd_kafka_topic_result_name(topic));
                let said = text_of(rd::rd_kafka_topic_result_error_string(topic));
                let said = if said.is_empty() { code.to_string() } else { said };
                match code {
                    Code::NoError => Ok(()),
                    code => Err(Failure { code, text: format!("topic {name:?}: {said}") }),
                }
            };
            Ok(array(all, count).iter().map(of_topic).collect())
        }
    }

    /// The id of each topic, in the given order; `None` if the broker is too old to have ids.
    pub fn topic_ids(
        self: &Arc<Handle>,
        topics: &[&CStr],
        wait: Duration,
    ) -> Result<Vec<Result<Option<String>, Failure>>, Failure> {
        let kind = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let mut names: Vec<*const c_char> = topics.iter().map(|name| name.as_ptr()).collect();
        let event = self.ask(kind, wait, false, |rk, options, queue| {
            // SAFETY: a live client, terminated names that are copied, live options and a live queue; the collection
            // is ours, and copied by the call.
            unsafe {
                let collection = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
                rd::rd_kafka_DescribeTopics(rk, collection, options, queue);
                rd::rd_kafka_TopicCollection_destroy(collection);
            }
        })?;
        // SAFETY: a live event of this kind; what is read belongs to it, and is copied.
        let found: Vec<(String, Result<Option<String>, Failure>)> = unsafe {
            let result = rd::rd_kafka_event_DescribeTopics_result(event.0);
            let mut count = 0;
            let all = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            let topic = |&description: &*const rd::rd_kafka_TopicDescription_t| {
                let name = text_of(rd::rd_kafka_TopicDescription_name(description));
                let id = error_of(rd::rd_kafka_TopicDescription_error(description))
                    .map(|()| uuid(rd::rd_kafka_TopicDescription_topic_id(description)));
                (name, id)
            };
            array(all, count).iter().map(topic).collect()
        };
        let mut found: std::collections::BTreeMap<_, _> = found.into_iter().collect();
        let absent = || Failure { code: Code::UnknownTopic, text: "the answer does not hold it".to_owned() };
        let answer = |name: &&CStr| found.remove(&*name.to_string_lossy()).unwrap_or_else(|| Err(absent()));
        Ok(topics.iter().map(answer).collect())
    }
}

/// # Safety
/// Null, or an array of `count` pointers that lives, unchanged, for `'a`.
unsafe fn array<'a, T>(first: *mut *const T, count: usize) -> &'a [*const T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller guarantees it.
    unsafe { slice::from_raw_parts(first.cast_const(), count) }
}

/// # Safety
/// `error` is null or lives during the call; it is not freed.
unsafe fn error_of(error: *const rd::rd_kafka_error_t) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a live error, whose text is terminated and copied.
    unsafe {
        match Code::from(rd::rd_kafka_error_code(error)) {
            Code::NoError => Ok(()),
            code => Err(Failure { code, text: text_of(rd::rd_kafka_error_string(error)) }),
        }
    }
}

/// The id as Kafka's tools print it: base64 with the URL alphabet; `None` for the zero id.
///
/// # Safety
/// `id` is null or lives during the call.
unsafe fn uuid(id: *const rd::rd_kafka_Uuid_t) -> Option<String> {
    if id.is_null() {
        return None;
    }
    // SAFETY: a live id; the text belongs to it and is copied.
    unsafe {
        let is_zero =
            rd::rd_kafka_Uuid_most_significant_bits(id) == 0 && rd::rd_kafka_Uuid_least_significant_bits(id) == 0;
        (!is_zero).then(|| text_of(rd::rd_kafka_Uuid_base64str(id)))
    }
}
