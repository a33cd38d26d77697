//! Calls of a group member besides reading: identity, pause, and resume.

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::{Failure, Handle, List, entries_of, result_of, text_of};

/// The identity of a member as the group coordinator knows it.
#[derive(Debug)]
pub(in super::super) struct MemberNow {
    pub group_id: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
}

impl Handle {
    /// Our current identity in the group; `None` outside a group.
    pub fn member_now(&self) -> Option<MemberNow> {
        // SAFETY: a live client; the answer is null or ours, its texts are terminated, copied before it is destroyed,
        // and only the instance id may be null.
        unsafe {
            let metadata = rd::rd_kafka_consumer_group_metadata(self.rk);
            if metadata.is_null() {
                return None;
            }
            let instance = rd::rd_kafka_consumer_group_metadata_group_instance_id(metadata);
            let now = MemberNow {
                group_id: text_of(rd::rd_kafka_consumer_group_metadata_group_id(metadata)),
                generation: rd::rd_kafka_consumer_group_metadata_generation_id(metadata),
                member_id: text_of(rd::rd_kafka_consumer_group_metadata_member_id(metadata)),
                instance_id: (!instance.is_null()).then(|| text_of(instance)),
            };
            rd::rd_kafka_consumer_group_metadata_destroy(metadata);
            Some(now)
        }
    }

    /// Stops handing out these, including messages already fetched.
    pub fn pause(&self, list: &List) -> Result<(), Failure> {
        // SAFETY: a live client and a live list, in which each line's outcome is written.
        unsafe {
            result_of(rd::rd_kafka_pause_partitions(self.rk, list.0))?;
            first_refusal(list)
        }
    }

    /// Hands these out again, from the first message not yet handed out.
    pub fn resume(&self, list: &List) -> Result<(), Failure> {
        // SAFETY: as above.
        unsafe {
            result_of(rd::rd_kafka_resume_partitions(self.rk, list.0))?;
            first_refusal(list)
        }
    }
}

/// # Safety
/// The list is live, and nothing modifies it.
unsafe fn first_refusal(list: &List) -> Result<(), Failure> {
    // SAFETY: the caller guarantees it.
    let refused = unsafe { entries_of(list.0) }.find(|entry| entry.code != Code::NoError);
    refused.map_or(Ok(()), |entry| {
        let text = format!("{} [{}]: {}", entry.topic, entry.partition, entry.code);
        Err(Failure { code: entry.code, text })
    })
}
