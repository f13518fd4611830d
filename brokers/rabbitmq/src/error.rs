//! What RabbitMQ and the client answer when something fails, as errors of the contract.

use lapin::ErrorKind as Cause;
use tidegate_backbone::{Error, ErrorKind, LogId};
use tidegate_schemas::limits;

use crate::options::Options;

/// The numbers of AMQP's refusals that are told apart.
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const CONTENT_TOO_LARGE: u16 = 311;
const NOT_ALLOWED: u16 = 530;
const NOT_IMPLEMENTED: u16 = 540;

/// The number and the words of a refusal.
fn refusal(error: &lapin::Error) -> Option<(u16, &str)> {
    match error.kind() {
        Cause::ProtocolError(refusal) => Some((refusal.get_id(), refusal.get_message().as_str())),
        _ => None,
    }
}

/// The kind of a refusal, by its number and words.
fn kind_of(number: u16, said: &str) -> ErrorKind {
    match number {
        ACCESS_REFUSED => ErrorKind::Denied,
        // For a moment after the broker's start its streams are there and nobody serves them.
        NOT_FOUND if said.contains("inaccessible") => ErrorKind::Unavailable,
        NOT_FOUND => ErrorKind::NotFound,
        RESOURCE_LOCKED => ErrorKind::Conflict,
        CONTENT_TOO_LARGE => ErrorKind::TooLarge { limit_bytes: limits::RABBITMQ_RECORD_BYTES },
        PRECONDITION_FAILED if said.contains("inequivalent arg") => ErrorKind::Conflict,
        PRECONDITION_FAILED if said.contains("larger than configured max size") => {
            ErrorKind::TooLarge { limit_bytes: limits::RABBITMQ_RECORD_BYTES }
        }
        // A stream whose replicas are not there yet, an answer that a node of the cluster did not give in time.
        PRECONDITION_FAILED => ErrorKind::Unavailable,
        NOT_ALLOWED if said.contains("vhost") => ErrorKind::Misconfigured,
        NOT_ALLOWED => ErrorKind::Denied,
        NOT_IMPLEMENTED => ErrorKind::Misconfigured,
        _ => ErrorKind::Unavailable,
    }
}

/// How to mend it, where that is not plain.
fn advice(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Denied => {
            "; the user of the gateway lacks a permission on the broker (see brokers/rabbitmq/README.md, Permissions)"
        }
        _ => "",
    }
}

/// A question or a change that failed. Whether a change was made whose connection was lost is not known.
pub(crate) fn failed(action: &str, error: lapin::Error, changes: bool) -> Error {
    let kind = refusal(&error).map_or(ErrorKind::Unavailable, |(number, said)| kind_of(number, said));
    let unsure = changes && kind == ErrorKind::Unavailable;
    let advice = advice(&kind);
    let failed = Error::new(kind, format!("{action}{advice}")).with_source(error);
    if unsure { failed.outcome_unknown() } else { failed }
}

/// A right that a user needs: `configure`, `write` or `read`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right<'a> {
    pub(crate) right: &'static str,
    /// `queue` or `exchange`, as the broker says it.
    pub(crate) on: &'static str,
    pub(crate) name: &'a str,
}

impl Right<'_> {
    /// That the user of these options lacks it and how it is given; `said` is what the broker says.
    pub(crate) fn missing(&self, options: &Options, said: &str) -> String {
        let (Self { right, on, name }, Options { user, vhost, .. }) = (self, options);
        if said.contains("access to topic") {
            return format!(
                "user {user:?} has topic permissions that do not let it {right} with this routing key in the {on} {name} of the \
                 virtual host {vhost:?}; let them match it (rabbitmqctl set_topic_permissions -p {vhost} {user} {name} WRITE READ)"
            );
        }
        format!(
            "user {user:?} lacks the right `{right}` on the {on} {name} of the virtual host {vhost:?}; let its pattern for \
             `{right}` match {name} (rabbitmqctl set_permissions -p {vhost} {user} CONFIGURE WRITE READ sets all three)"
        )
    }
}

/// What failed that needs these rights: where one is missing, the error says which and how it is given.
pub(crate) fn failed_for(action: &str, error: lapin::Error, options: &Options, rights: &[Right<'_>]) -> Error {
    let missing = refusal(&error).filter(|(number, _)| *number == ACCESS_REFUSED).and_then(|(_, said)| {
        let named = |right: &&Right<'_>| said.contains(&format!("{} '{}'", right.on, right.name));
        rights.iter().find(named).or_else(|| rights.first()).map(|right| right.missing(options, said))
    });
    match missing {
        Some(missing) => Error::new(ErrorKind::Denied, format!("{action}: {missing}")).with_source(error),
        None => failed(action, error, false),
    }
}

/// What became of a message that was handed to the connection, where it was not confirmed.
pub(crate) fn unconfirmed(what: &str, error: lapin::Error) -> Error {
    let kind = match refusal(&error).map(|(number, said)| kind_of(number, said)) {
        // The channel ended over one message, and nobody says which: the others may have been stored.
        Some(kind @ (ErrorKind::Denied | ErrorKind::TooLarge { .. })) => kind,
        _ => ErrorKind::Unknown,
    };
    let advice = advice(&kind);
    Error::new(kind, format!("RabbitMQ has not confirmed {what}{advice}")).with_source(error).outcome_unknown()
}

/// The backbone is set up so that it cannot work.
pub(crate) fn misconfigured(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Misconfigured, context)
}

/// The broker cannot be reached, and nothing was done.
pub(crate) fn unavailable(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, context)
}

/// There is no such log.
pub(crate) fn not_found(id: &LogId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {id} on the RabbitMQ broker"))
}

/// There is such a log, and the broker does not serve it yet. Nothing was done.
pub(crate) fn not_yet(id: &LogId) -> Error {
    unavailable(format!("RabbitMQ does not serve the stream of {id} yet"))
}

/// The adapter was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the RabbitMQ backbone is closed")
}

/// Too much is under way.
pub(crate) fn busy(what: &str) -> Error {
    let kind = ErrorKind::Backpressure { retry_after: limits::APPEND_RETRY_AFTER };
    Error::new(kind, format!("too many {what} wait for RabbitMQ"))
}

/// Why a connection does not come about and how to mend it, where that is what an error says.
fn refused_connection(said: &str) -> Option<(ErrorKind, &'static str)> {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&["CertificateRequired"]) {
        Some((
            ErrorKind::Misconfigured,
            "the broker wants a certificate of its clients, and none is shown; set tls.certificate and tls.key",
        ))
    } else if says(&["fatal alert"]) {
        Some((
            ErrorKind::Misconfigured,
            "the broker refuses the client's certificate; set tls.certificate and tls.key to one that is valid and signed \
             by an authority that the broker trusts",
        ))
    } else if says(&["NotValidForName", "not valid for name"]) {
        Some((
            ErrorKind::Misconfigured,
            "the broker's certificate is for other hosts than this one; name the broker by a host of its certificate",
        ))
    } else if says(&["UnknownIssuer"]) {
        Some((
            ErrorKind::Misconfigured,
            "the broker's certificate is signed by no authority that is trusted here; set tls.ca to the certificate of \
             the authority that signed it",
        ))
    } else if says(&["invalid peer certificate", "InvalidContentType", "corrupt message"]) {
        Some((
            ErrorKind::Misconfigured,
            "TLS does not come about; check that the port speaks TLS, and that the broker's certificate is valid now",
        ))
    } else {
        None
    }
}

/// A connection that was not made.
pub(crate) fn from_connect(address: &str, user: &str, error: lapin::Error) -> Error {
    let said = error.to_string();
    let (kind, what) = match refusal(&error) {
        Some((ACCESS_REFUSED, _)) => (
            ErrorKind::Denied,
            format!(
                "the broker does not take the credentials, user {user:?} with its password; check both, and that the user may \
                 come from here"
            ),
        ),
        Some((NOT_ALLOWED, _)) => (
            ErrorKind::Denied,
            format!("user {user:?} may not use the virtual host; check its name, and give the user permissions there"),
        ),
        Some(_) => (ErrorKind::Unavailable, "the broker refuses the connection".to_owned()),
        None => match refused_connection(&said) {
            Some((kind, what)) => (kind, what.to_owned()),
            None => (
                ErrorKind::Unavailable,
                "it cannot be reached; check host and port, whether it runs, and whether the port wants TLS".to_owned(),
            ),
        },
    };
    Error::new(kind, format!("cannot open {address}: {what}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        let cases = [
            (ACCESS_REFUSED, "ACCESS_REFUSED", "denied"),
            (NOT_FOUND, "NOT_FOUND - no queue", "not_found"),
            (NOT_FOUND, "NOT_FOUND - home node 'n' of durable queue 'q' is down or inaccessible", "unavailable"),
            (PRECONDITION_FAILED, "PRECONDITION_FAILED - inequivalent arg 'x-queue-type'", "conflict"),
            (
                PRECONDITION_FAILED,
                "PRECONDITION_FAILED - queue does not have a running replica on the local node",
                "unavailable",
            ),
            (PRECONDITION_FAILED, "message size 9 is larger than configured max size 8", "too_large"),
            (NOT_ALLOWED, "NOT_ALLOWED - vhost x not found", "misconfigured"),
            (541, "INTERNAL_ERROR", "unavailable"),
        ];
        for (number, said, name) in cases {
            assert_eq!(kind_of(number, said).name(), name, "{said}");
        }
    }

    #[test]
    fn a_right_that_is_missing_is_named() {
        let mut options = Options::from_url("amqp://mesh:secret@h:1/shop").unwrap();
        let rights = [
            Right { right: "write", on: "queue", name: "orders" },
            Right { right: "read", on: "exchange", name: "orders" },
        ];
        let told = |options: &Options, said: &str| {
            let refused = lapin::protocol::AMQPError::from_id(ACCESS_REFUSED, said.into()).unwrap();
            let error = failed_for("binding", Cause::ProtocolError(refused).into(), options, &rights);
            assert_eq!(*error.kind(), ErrorKind::Denied);
            error.to_string()
        };
        let said = "ACCESS_REFUSED - access to exchange 'orders' in vhost 'shop' refused for user 'mesh'";
        let of_exchange = told(&options, said);
        assert!(of_exchange.contains("user \"mesh\" lacks the right `read` on the exchange orders"), "{of_exchange}");
        assert!(of_exchange.contains("set_permissions -p shop mesh"), "{of_exchange}");
        let of_queue =
            told(&options, "ACCESS_REFUSED - access to queue 'orders' in vhost 'shop' refused for user 'mesh'");
        assert!(of_queue.contains("lacks the right `write` on the queue orders"), "{of_queue}");
        options.user = "other".to_owned();
        let of_topic =
            told(&options, "ACCESS_REFUSED - access to topic 'k' in exchange 'orders' in vhost 'shop' refused");
        assert!(of_topic.contains("set_topic_permissions -p shop other orders"), "{of_topic}");
        assert!(!of_topic.contains("secret"), "{of_topic}");
    }

    #[test]
    fn refusals_of_tls_are_told_apart() {
        let of = |said: &str| refused_connection(said).map(|(_, what)| what).unwrap_or_default();
        assert!(of("received fatal alert: CertificateRequired").contains("none is shown"));
        assert!(of("received fatal alert: UnknownCA").contains("refuses the client's certificate"));
        assert!(of("invalid peer certificate: UnknownIssuer").contains("set tls.ca"));
        assert!(of("invalid peer certificate: certificate not valid for name \"h\"").contains("other hosts"));
        assert!(of("invalid peer certificate: Expired").contains("valid now"));
        assert_eq!(refused_connection("Connection refused (os error 111)"), None);
    }
}
