//! What an error of librdkafka asks for: patience, another configuration, or to give way to another instance.

use rdkafka::types::RDKafkaErrorCode as Code;

use super::ffi::Failure;
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
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
            let from = if offset >= 0 { format!(" from offset {offset}") } else { String::new() };
            Polled::Fatal(SourceError::Configuration(format!(
                "{place}: cannot read on{from}: {text}. The records there are gone (deleted by retention, or the topic \
                 was truncated or recreated), and skipping them would make every figure wrong. Let the topic keep its \
                 records for longer than the longest outage and rebuild the state with `retentiond bootstrap`; after \
                 a truncation, `retentiond rewind` to a checkpoint from before it"
            )))
        }
        Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::NotImplemented => {
            Polled::Fatal(SourceError::Configuration(format!(
                "{place}: a record at or after offset {offset} cannot be read: {text}. The log is damaged, or \
                 compressed in a way that this build does not know"
            )))
        }
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

/// What a failure to do something comes to; `doing` begins the message.
pub(super) fn failed(doing: &str, failure: &Failure) -> SourceError {
    if is_fenced(failure.code) {
        return fenced(&failure.text);
    }
    SourceError::Unavailable(format!("{doing}: {}", failure.text))
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
    fn a_lost_position_is_fatal_and_names_topic_partition_offset_and_remedy() {
        let Polled::Fatal(SourceError::Configuration(text)) = outcome(Code::AutoOffsetReset) else {
            panic!("not a configuration error")
        };
        for part in ["orders", "partition 3", "offset 42", "reason", "retentiond rewind"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn records_that_would_be_skipped_are_fatal() {
        for code in [Code::BadMessage, Code::BadCompression, Code::MessageSizeTooLarge, Code::LogTruncation] {
            assert!(matches!(outcome(code), Polled::Fatal(SourceError::Configuration(_))), "{code:?}");
        }
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
