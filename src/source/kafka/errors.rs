//! What an error of librdkafka asks for: patience, another configuration, or to give way to another instance.

use rdkafka::types::RDKafkaErrorCode as Code;

use super::ffi::Failure;
use crate::source::transaction::{FencedBy, TransactionError};
use crate::source::{Polled, SourceError};

/// What a failure of the whole client comes to.
pub(super) fn fatal<B>(failure: &Failure) -> Polled<B> {
    Polled::Fatal(if is_fenced(failure.code) {
        fenced(&failure.text)
    } else {
        SourceError::Configuration(format!("the Kafka client gave up: {} ({})", failure.text, failure.code))
    })
}

/// What a failure that librdkafka reports and keeps working on comes to; `place` names the topic and partition.
pub(super) fn reported<B>(place: Option<&str>, offset: i64, failure: &Failure) -> Polled<B> {
    let text = if failure.text.is_empty() { failure.code.to_string() } else { failure.text.clone() };
    let place = place.unwrap_or("Kafka");
    match failure.code {
        code if is_fenced(code) => Polled::Fatal(fenced(&text)),
        Code::Fatal => fatal(failure),
        // Where the place is known only that stops, see `damaged`.
        code if is_damaged(code) => Polled::Fatal(SourceError::Configuration(damaged(place, offset, failure))),
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => Polled::Fatal(SourceError::Configuration(format!(
            "{place}: {text}. Raise receive.message.max.bytes in [kafka.options]"
        ))),
        Code::TopicAuthorizationFailed => {
            Polled::Trouble(format!("{place}: {text}. Allow this client to read and describe the topic"))
        }
        Code::GroupAuthorizationFailed => {
            Polled::Trouble(format!("{place}: {text}. Allow this client to read the group kafka.group_id"))
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            Polled::Trouble(format!("{place}: {text}. Waiting for it to be created"))
        }
        Code::InconsistentGroupProtocol => Polled::Trouble(format!(
            "{place}: {text}. Another member of the group uses another kafka.protocol, or is no retentiond"
        )),
        _ => Polled::Trouble(format!("{place}: {text}")),
    }
}

/// Whether the log does not hold what is to be read next.
pub(super) fn is_out_of_range(code: Code) -> bool {
    matches!(code, Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation)
}

/// What is said where the log does not hold what is to be read next.
pub(super) fn out_of_range(place: &str, offset: i64, failure: &Failure) -> String {
    let text = if failure.text.is_empty() { failure.code.to_string() } else { failure.text.clone() };
    let from = if offset >= 0 { format!(" from offset {offset}") } else { String::new() };
    format!(
        "{place}: cannot read on{from}: {text}. The records there are gone (deleted by retention, or the topic was \
         truncated or recreated), and skipping them would make every figure wrong. Let the topic keep its records for \
         longer than the longest outage and rebuild the state with `retentiond bootstrap`; after a truncation, \
         `retentiond rewind` to a checkpoint from before it"
    )
}

/// Whether there are records to be read next that cannot be made out.
pub(super) fn is_damaged(code: Code) -> bool {
    matches!(code, Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::NotImplemented)
}

/// What is said where there are records that cannot be made out.
pub(super) fn damaged(place: &str, offset: i64, failure: &Failure) -> String {
    let text = if failure.text.is_empty() { failure.code.to_string() } else { failure.text.clone() };
    let from = if offset >= 0 { format!(" at or after offset {offset}") } else { String::new() };
    format!(
        "{place}: a record{from} cannot be read: {text}. The log is damaged, or compressed in a way that this build does \
         not know, and skipping the record would make every figure wrong. Let the brokers restore the partition from \
         another replica, or rebuild the state with `retentiond bootstrap` behind it, and start this replica again"
    )
}

/// What a failure to do something comes to; `doing` begins the message.
pub(super) fn failed(doing: &str, failure: &Failure) -> SourceError {
    if is_fenced(failure.code) {
        return fenced(&failure.text);
    }
    SourceError::Unavailable(format!("{doing}: {}", failure.text))
}

/// What an answer says about a commit, whichever call it answers; `None` where that depends on the call.
pub(super) fn refusal(failure: &Failure) -> Option<TransactionError> {
    let text = if failure.text.is_empty() { failure.code.to_string() } else { failure.text.clone() };
    Some(match failure.code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => {
            TransactionError::Fenced { by: FencedBy::Producer, text }
        }
        Code::FencedInstanceId | Code::UnreleasedInstanceId => {
            TransactionError::Fenced { by: FencedBy::Instance, text }
        }
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::RebalanceInProgress
        | Code::StaleMemberEpoch
        | Code::FencedMemberEpoch
        | Code::GroupIdNotFound => TransactionError::Rejoin(text),
        code => TransactionError::Configuration(format!("{text}. {}", remedy(code)?)),
    })
}

/// What a person can do where trying again cannot help.
fn remedy(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::TopicAuthorizationFailed => "Allow this client to write to the topic",
        Code::GroupAuthorizationFailed => "Allow this client to read the group kafka.group_id",
        Code::TransactionalIdAuthorizationFailed => {
            "Allow this client to write and describe transactional ids that begin with kafka.group_id"
        }
        Code::ClusterAuthorizationFailed => "Allow this client idempotent writes",
        Code::OffsetMetadataTooLarge => "Let the brokers' offset.metadata.max.bytes be at least 256",
        Code::InvalidTransactionTimeout => "Let the brokers' transaction.max.timeout.ms be at least 10000",
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::UnsupportedForMessageFormat => {
            "The brokers are too old for delivery = \"exactly_once\", which needs Kafka 2.5"
        }
        Code::InvalidGroupId | Code::InvalidArgument | Code::NotConfigured => "Check the section [kafka]",
        _ => return None,
    })
}

/// What a failed commit without a transaction comes to. Where no answer came it may have been made all the same.
pub(super) fn plain_commit(failure: &Failure) -> TransactionError {
    refusal(failure).unwrap_or_else(|| {
        let text = format!("cannot commit offsets: {}", failure.text);
        match failure.code {
            Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::RequestTimedOut
            | Code::BrokerDestroy => TransactionError::Unknown(text),
            _ => TransactionError::Abort(text),
        }
    })
}

fn is_fenced(code: Code) -> bool {
    matches!(code, Code::FencedInstanceId | Code::UnreleasedInstanceId | Code::Fenced)
}

fn fenced(text: &str) -> SourceError {
    SourceError::Fenced(format!(
        "another instance with the same kafka.instance_id joined the group: {text}. Each replica needs its own"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(code: Code) -> Polled<()> {
        reported(Some("topic \"orders\" partition 3"), 42, &Failure { code, text: "reason".to_owned() })
    }

    #[test]
    fn a_lost_position_names_topic_partition_offset_and_remedy() {
        let failure = Failure { code: Code::AutoOffsetReset, text: "reason".to_owned() };
        assert!(is_out_of_range(failure.code));
        let text = out_of_range("topic \"orders\" partition 3", 42, &failure);
        for part in ["orders", "partition 3", "offset 42", "reason", "retentiond rewind"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn records_that_would_be_skipped_are_fatal() {
        for code in [Code::BadMessage, Code::BadCompression, Code::MessageSizeTooLarge] {
            assert!(matches!(outcome(code), Polled::Fatal(SourceError::Configuration(_))), "{code:?}");
        }
    }

    #[test]
    fn a_damaged_record_names_topic_partition_offset_and_remedy() {
        for code in [Code::BadMessage, Code::BadCompression, Code::InvalidMessage, Code::NotImplemented] {
            assert!(is_damaged(code) && !is_out_of_range(code), "{code:?}");
            let text = damaged("topic \"orders\" partition 3", 42, &Failure { code, text: "reason".to_owned() });
            for part in ["orders", "partition 3", "offset 42", "reason", "retentiond bootstrap"] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
        assert!(!is_damaged(Code::OffsetOutOfRange) && !is_damaged(Code::MessageSizeTooLarge));
    }

    #[test]
    fn what_time_or_an_operator_can_mend_is_trouble() {
        for code in [
            Code::AllBrokersDown,
            Code::BrokerTransportFailure,
            Code::Authentication,
            Code::TopicAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::UnknownTopicOrPartition,
            Code::PollExceeded,
            Code::InconsistentGroupProtocol,
        ] {
            assert!(matches!(outcome(code), Polled::Trouble(_)), "{code:?}");
        }
    }

    #[test]
    fn an_instance_that_was_replaced_is_fenced() {
        assert!(matches!(outcome(Code::FencedInstanceId), Polled::Fatal(SourceError::Fenced(_))));
        let failure = Failure { code: Code::UnreleasedInstanceId, text: String::new() };
        assert!(matches!(fatal::<()>(&failure), Polled::Fatal(SourceError::Fenced(_))));
        assert!(matches!(failed("commit", &failure), SourceError::Fenced(_)));
    }
}
