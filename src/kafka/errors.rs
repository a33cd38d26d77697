//! What an error of librdkafka requires: a retry, a changed configuration, or giving way to another instance.

use rdkafka::types::RDKafkaErrorCode as Code;

use super::ffi::Failure;
use crate::bus::transaction::{FencedBy, TransactionError};
use crate::bus::{Polled, SourceError};

/// Maps a fatal failure of the client.
pub(super) fn fatal<B>(failure: &Failure) -> Polled<B> {
    Polled::Fatal(if is_fenced(failure.code) {
        fenced(&failure.text)
    } else {
        SourceError::Configuration(format!("the Kafka client gave up: {} ({})", failure.text, failure.code))
    })
}

/// Maps a failure that librdkafka reports and retries; `place` names the topic and partition.
pub(super) fn reported<B>(place: Option<&str>, offset: i64, failure: &Failure) -> Polled<B> {
    let text = if failure.text.is_empty() { failure.code.to_string() } else { failure.text.clone() };
    let place = place.unwrap_or("Kafka");
    match failure.code {
        code if is_fenced(code) => Polled::Fatal(fenced(&text)),
        Code::Fatal => fatal(failure),
        // With a known partition, only that partition stops, see `damaged`.
        code if is_damaged(code) => Polled::Fatal(SourceError::Configuration(damaged(place, offset, failure))),
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => Polled::Fatal(SourceError::Configuration(format!(
            "{place}: {text}. Raise receive.message.max.bytes in [kafka.options]"
        ))),
        Code::TopicAuthorizationFailed => Polled::Error(format!("{place}: {text}. {READ_TOPIC}")),
        Code::GroupAuthorizationFailed => Polled::Error(format!("{place}: {text}. {READ_GROUP}")),
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            Polled::Error(format!("{place}: {text}. Waiting for it to be created"))
        }
        Code::InconsistentGroupProtocol => Polled::Error(format!(
            "{place}: {text}. Another member of the group uses another kafka.protocol, or is not retentiond"
        )),
        _ if failure.text.is_empty() => Polled::Error(format!("{place}: {text}")),
        _ => Polled::Error(format!("{place}: {}", explained(failure))),
    }
}

/// The missing ACL (access control list entry).
pub(super) const READ_TOPIC: &str = "Allow this client Read and Describe on the topic (ACL)";
const READ_GROUP: &str = "Allow this client Read on the group kafka.group_id (ACL)";

/// The failure in librdkafka's words and, if the brokers denied access, the options to check. Contains no secret.
pub(super) fn explained(failure: &Failure) -> String {
    let remedy = match failure.code {
        // The error of our own token request contains the remedy.
        Code::Authentication if failure.text.contains("OAUTHBEARER token: ") => return failure.text.clone(),
        Code::Authentication | Code::SaslAuthenticationFailed => rejected(&failure.text),
        _ if is_of_tls(failure) => insecure(&failure.text),
        _ => return failure.text.clone(),
    };
    format!("{}. {remedy}", without_state(&failure.text))
}

/// Whether the TLS handshake failed on either side. Alerts of the broker arrive after our half of the handshake (TLS
/// 1.3), as the end of a connection.
pub(super) fn is_of_tls(failure: &Failure) -> bool {
    failure.code == Code::SSL || failure.code == Code::BrokerTransportFailure && failure.text.contains(":SSL routines:")
}

/// Removes the elapsed time, which differs each time.
fn without_state(text: &str) -> &str {
    text.split(" (after ").next().unwrap_or(text)
}

/// What to check if a broker rejects our identity.
fn rejected(text: &str) -> &'static str {
    if text.contains("OAUTHBEARER") {
        "The broker rejected the token; check sasl.oauthbearer.scope and sasl.oauthbearer.extensions in \
         [kafka.options], and what the broker expects"
    } else {
        "Check sasl.mechanism, sasl.username and sasl.password, or the file that sasl.password_file names, in \
         [kafka.options]"
    }
}

/// What to check if TLS fails, by the error texts of OpenSSL and of RFC 8446, section 6.
fn insecure(text: &str) -> &'static str {
    const OF_OURS: [&str; 6] = [
        "certificate required",
        "alert bad certificate",
        "alert certificate unknown",
        "alert unknown ca",
        "alert handshake failure",
        "alert access denied",
    ];
    let text = text.to_lowercase();
    if OF_OURS.iter().any(|alert| text.contains(alert)) {
        "The broker requires a client certificate that it trusts; check ssl.certificate.location and \
         ssl.key.location in [kafka.options]"
    } else if text.contains("verify") {
        "Set ssl.ca.location in [kafka.options] to the certificate of the authority that signed the broker's \
         (default: the system's), and kafka.brokers the names for which it was signed"
    } else {
        "Check security.protocol and ssl.* in [kafka.options]; does this listener speak TLS?"
    }
}

/// Whether the log does not hold the next offset.
pub(super) fn is_out_of_range(code: Code) -> bool {
    matches!(code, Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation)
}

/// The message for a log that does not hold the next offset.
pub(super) fn out_of_range(place: &str, offset: i64, failure: &Failure) -> String {
    let text = if failure.text.is_empty() { failure.code.to_string() } else { failure.text.clone() };
    let from = if offset >= 0 { format!(" from offset {offset}") } else { String::new() };
    format!(
        "{place}: cannot continue reading{from}: {text}. The records there are gone (deleted by retention, or the topic \
         was truncated or recreated), and skipping them would make every figure wrong. Let the topic keep its records for \
         longer than the longest outage and rebuild the state with `retentiond bootstrap`; after a truncation, \
         `retentiond rewind` to a checkpoint from before it"
    )
}

/// Whether the next records exist but cannot be read.
pub(super) fn is_damaged(code: Code) -> bool {
    matches!(code, Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::NotImplemented)
}

/// The message for records that cannot be read.
pub(super) fn damaged(place: &str, offset: i64, failure: &Failure) -> String {
    let text = if failure.text.is_empty() { failure.code.to_string() } else { failure.text.clone() };
    let from = if offset >= 0 { format!(" at or after offset {offset}") } else { String::new() };
    format!(
        "{place}: a record{from} cannot be read: {text}. The log is damaged, or compressed with a codec that this build \
         does not support, and skipping the record would make every figure wrong. Let the brokers restore the partition from \
         another replica, or rebuild the state with `retentiond bootstrap` past it, and restart this replica"
    )
}

/// Maps the failure of an operation; `doing` begins the message.
pub(super) fn failed(doing: &str, failure: &Failure) -> SourceError {
    if is_fenced(failure.code) {
        return fenced(&failure.text);
    }
    let right = match failure.code {
        Code::TopicAuthorizationFailed => format!(". {READ_TOPIC}"),
        Code::GroupAuthorizationFailed => format!(". {READ_GROUP}"),
        _ => String::new(),
    };
    SourceError::Unavailable(format!("{doing}: {}{right}", explained(failure)))
}

/// Maps the failure to create a topic.
pub(super) fn not_created(failure: &Failure) -> SourceError {
    let right = match failure.code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            ". Create it, or allow this client Create on the topic (ACL)"
        }
        _ => "",
    };
    SourceError::Unavailable(format!("{}{right}", failure.text))
}

/// Maps a failed commit, in whichever call it shows; `None` if the meaning depends on the call.
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

/// The remedy for errors that no retry can fix.
fn remedy(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::TopicAuthorizationFailed => "Allow this client Write and Describe on the topic (ACL)",
        Code::GroupAuthorizationFailed => READ_GROUP,
        Code::TransactionalIdAuthorizationFailed => {
            "Allow this client Write and Describe on transactional ids that begin with kafka.group_id (ACL, prefixed)"
        }
        Code::ClusterAuthorizationFailed => "Allow this client IdempotentWrite on the cluster (ACL)",
        Code::OffsetMetadataTooLarge => "Let the brokers' offset.metadata.max.bytes be at least 256",
        Code::InvalidTransactionTimeout => "Let the brokers' transaction.max.timeout.ms be at least 10000",
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::UnsupportedForMessageFormat => {
            "The brokers are too old for delivery = \"exactly_once\", which needs Kafka 2.5"
        }
        Code::InvalidGroupId | Code::InvalidArgument | Code::NotConfigured => "Check the section [kafka]",
        _ => return None,
    })
}

/// Maps a failed commit without a transaction. Without an answer it may have succeeded.
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
    fn what_time_or_an_operator_can_mend_is_a_passing_error() {
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
            assert!(matches!(outcome(code), Polled::Error(_)), "{code:?}");
        }
    }

    #[test]
    fn a_denied_client_learns_which_options_to_check() {
        let said = |code, text: &str| match reported::<()>(None, -1, &Failure { code, text: text.to_owned() }) {
            Polled::Error(said) => said,
            other => panic!("{other:?}"),
        };
        let text = "sasl_ssl://b:1/bootstrap: SASL authentication error: Authentication failed (after 312ms in state AUTH_REQ)";
        let wrong = said(Code::Authentication, text);
        assert!(wrong.contains("sasl.password") && !wrong.contains("312ms"), "{wrong}");
        let no_token =
            said(Code::Authentication, "Failed to acquire SASL OAUTHBEARER token: the token endpoint is down");
        assert!(no_token.ends_with("the token endpoint is down"), "the error contains its own remedy: {no_token}");
        let token = said(Code::Authentication, "SASL authentication error: {\"status\":\"invalid_token\"} OAUTHBEARER");
        assert!(token.contains("sasl.oauthbearer.scope") && !token.contains("sasl.password"), "{token}");
        for (text, option) in [
            (
                "SSL handshake failed: certificate verify failed: broker certificate could not be verified",
                "ssl.ca.location",
            ),
            ("ssl/tls alert certificate required: SSL alert number 116", "ssl.certificate.location"),
            ("ssl/tls alert unknown ca: SSL alert number 48", "ssl.certificate.location"),
            ("SSL handshake failed: wrong version number", "security.protocol"),
        ] {
            let alert = format!("ssl://b:1/bootstrap: Receive failed: error:0A000412:SSL routines::{text}");
            let late = said(Code::BrokerTransportFailure, &alert);
            assert!(late.contains(option), "{late}");
            let said = said(Code::SSL, text);
            assert!(said.starts_with("Kafka: ") && said.contains(text) && said.contains(option), "{said}");
        }
    }

    #[test]
    fn missing_permissions_name_the_acl() {
        let failure = |code| Failure { code, text: "denied".to_owned() };
        for (code, right) in [
            (Code::TopicAuthorizationFailed, "Read and Describe on the topic"),
            (Code::GroupAuthorizationFailed, "Read on the group"),
        ] {
            assert!(matches!(outcome(code), Polled::Error(said) if said.contains(right)), "{right}");
            let said = failed("cannot look", &failure(code));
            assert!(matches!(&said, SourceError::Unavailable(said) if said.contains(right)), "{said:?}");
        }
        for (code, right) in [
            (Code::TopicAuthorizationFailed, "Write and Describe on the topic"),
            (Code::GroupAuthorizationFailed, "Read on the group"),
            (Code::TransactionalIdAuthorizationFailed, "Write and Describe on transactional ids"),
            (Code::ClusterAuthorizationFailed, "IdempotentWrite"),
        ] {
            let said = refusal(&failure(code));
            assert!(matches!(&said, Some(TransactionError::Configuration(said)) if said.contains(right)), "{said:?}");
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
