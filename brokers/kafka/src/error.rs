//! How what goes wrong with the broker becomes an error of the contract. The one place that does it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tidegate_backbone::{Error, ErrorKind};
use tidegate_schemas::limits;

/// The code in an error of the client library, where it has one.
pub(crate) fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

/// What a code means for a question or a change of topics; an append is [`append_failed`].
pub(crate) fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::NoEnt => {
            ErrorKind::NotFound
        }
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication => ErrorKind::Denied,
        Code::TopicAlreadyExists | Code::InvalidPartitions => ErrorKind::Conflict,
        Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::InvalidConfig
        | Code::InvalidTopic
        | Code::PolicyViolation
        | Code::UnsupportedVersion
        | Code::UnsupportedSASLMechanism
        | Code::SSL
        | Code::InvalidArgument
        | Code::TopicDeletionDisabled => ErrorKind::Misconfigured,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            ErrorKind::TooLarge { limit_bytes: limits::KAFKA_BATCH_BYTES }
        }
        Code::QueueFull | Code::ThrottlingQuotaExceeded => {
            ErrorKind::Backpressure { retry_after: limits::MEMORY_RETRY_AFTER }
        }
        Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::TimedOutQueue
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::NetworkException
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NotEnoughReplicas
        | Code::NotController
        | Code::CoordinatorNotAvailable
        | Code::CoordinatorLoadInProgress
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::KafkaStorageError
        | Code::DestroyBroker => ErrorKind::Unavailable,
        _ => ErrorKind::Unknown,
    }
}

/// Whether Kafka means that the same question is to be asked again: another leader may be found, or the same one be ready.
/// That nobody answers is not among it: whoever asked has waited by then.
pub(crate) fn is_retriable(code: Code) -> bool {
    matches!(
        code,
        Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::ReplicaNotAvailable
            | Code::BrokerNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::KafkaStorageError
            // The client has let go of a node that the broker did not name for a moment, and names again.
            | Code::DestroyBroker
    )
}

/// A question or a change of topics that failed. Whether a change that timed out was made is not known.
pub(crate) fn failed(action: &str, error: KafkaError, changes: bool) -> Error {
    let kind = code_of(&error).map_or(ErrorKind::Unavailable, kind_of);
    let unsure = changes && kind == ErrorKind::Unavailable;
    let advice = advice(&kind);
    let failed = Error::new(kind, format!("Kafka could not {action}{advice}")).with_source(error);
    if unsure { failed.outcome_unknown() } else { failed }
}

/// How to mend it, where that is not plain.
pub(crate) fn advice(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Denied => {
            "; the user of the gateway lacks a permission on the broker (see brokers/kafka/README.md, Permissions)"
        }
        _ => "",
    }
}

/// What a connection failed with that will fail the same way each time, in words of the client library; and how to mend it.
pub(crate) fn refusal(reason: &str) -> Option<(ErrorKind, &'static str)> {
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if says(&["certificate verify failed"]) {
        // The library does not tell which of the two it is.
        return Some((
            ErrorKind::Misconfigured,
            "the broker's certificate is signed by no authority that is trusted here, or is for another host: set tls.ca \
             to the certificate of the authority that signed it, and name the broker by a host that its certificate names",
        ));
    }
    // Bad, unsupported, revoked, expired, unknown; of no known authority; required.
    let alerts = [42, 43, 44, 45, 46, 48, 116].map(|number| format!("SSL alert number {number}"));
    if alerts.iter().any(|alert| reason.ends_with(alert.as_str()) || reason.contains(&format!("{alert} "))) {
        return Some((
            ErrorKind::Misconfigured,
            "the broker wants a certificate of its clients, and takes none or not this one: set tls.certificate and \
             tls.key to one that is signed by an authority that the broker trusts",
        ));
    }
    if says(&["wrong version number", "packet length too long", "unexpected message"]) {
        return Some((
            ErrorKind::Misconfigured,
            "this port of the broker does not speak TLS: name one that does, or write kafka:// without TLS",
        ));
    }
    if says(&["SASL authentication error", "SASL handshake failed", "Authentication failed"]) {
        return Some((
            ErrorKind::Denied,
            "check the user and its password, and that the broker has it for this SASL mechanism",
        ));
    }
    None
}

/// An append that the broker or the client refused, or whose fate is not known.
pub(crate) fn append_failed(log: &str, code: Code) -> Error {
    let (kind, unsure) = match code {
        // It is not told whether it was on its way when its time was over.
        Code::MessageTimedOut | Code::PurgeQueue | Code::PurgeInflight | Code::NotEnoughReplicasAfterAppend => {
            (ErrorKind::Unknown, true)
        }
        // Other causes end as a timeout, after the client has tried again and again.
        Code::NotEnoughReplicas => (ErrorKind::Unavailable, false),
        Code::Fatal | Code::OutOfOrderSequenceNumber | Code::DuplicateSequenceNumber | Code::GaplessGuarantee => {
            (ErrorKind::Unknown, true)
        }
        code => match kind_of(code) {
            ErrorKind::Unavailable => (ErrorKind::Unavailable, true),
            kind => (kind, false),
        },
    };
    let advice = advice(&kind);
    let failed =
        Error::new(kind, format!("an append to {log} failed{advice}")).with_source(KafkaError::MessageProduction(code));
    if unsure { failed.outcome_unknown() } else { failed }
}

/// The adapter is closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the connection to Kafka is closed")
}

/// Too much is under way.
pub(crate) fn busy(what: &str) -> Error {
    Error::new(
        ErrorKind::Backpressure { retry_after: limits::MEMORY_RETRY_AFTER },
        format!("too many {what} wait for Kafka"),
    )
}

/// There is no such log.
pub(crate) fn not_found(log: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {log} on the Kafka broker"))
}

#[cfg(test)]
mod tests {
    use tidegate_backbone::Applied;

    use super::*;

    #[test]
    fn refusals_of_connections_are_told_apart() {
        let of = |reason: &str| refusal(reason).map(|(kind, _)| kind.name());
        let verify = "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate";
        assert_eq!(of(verify), Some("misconfigured"));
        let alert = "Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42";
        assert_eq!(of(alert), Some("misconfigured"));
        assert_eq!(of(&format!("{alert} (after 1ms in state APIVERSION_QUERY)")), Some("misconfigured"));
        assert_eq!(of("SASL authentication error: Authentication failed"), Some("denied"));
        // The broker may come back from these.
        for reason in ["Connect failed: Connection refused", "SSL alert number 420", "1/1 brokers are down"] {
            assert_eq!(of(reason), None, "{reason}");
        }
    }

    #[test]
    fn appends_say_whether_they_may_have_had_an_effect() {
        let no = [
            (Code::MessageSizeTooLarge, "too_large"),
            (Code::UnknownTopicOrPartition, "not_found"),
            (Code::TopicAuthorizationFailed, "denied"),
            (Code::NotEnoughReplicas, "unavailable"),
            (Code::QueueFull, "backpressure"),
        ];
        for (code, name) in no {
            let error = append_failed("topic orders partition 0", code);
            assert_eq!((error.kind().name(), error.applied()), (name, Applied::No), "{code:?}");
        }
        let unknown = [
            Code::MessageTimedOut,
            Code::PurgeInflight,
            Code::NotEnoughReplicasAfterAppend,
            Code::Fatal,
            Code::BrokerTransportFailure,
            Code::OutOfOrderSequenceNumber,
            Code::DuplicateSequenceNumber,
            Code::InvalidRequest,
        ];
        for code in unknown {
            assert_eq!(append_failed("a log", code).applied(), Applied::Unknown, "{code:?}");
        }
    }
}
