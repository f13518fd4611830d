//! How what goes wrong here becomes an error of the contract. The one place that does it.

use async_nats::{ConnectError, ConnectErrorKind};
use serde::Deserialize;
use tidegate_backbone::{Applied, Error, ErrorKind, LogId};
use tidegate_schemas::limits;

/// What JetStream answers where it refuses.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Refusal {
    /// A status in the manner of HTTP.
    #[serde(default)]
    pub(crate) code: u16,
    /// What is wrong, as a number that does not change.
    #[serde(default)]
    pub(crate) err_code: u32,
    #[serde(default)]
    pub(crate) description: String,
}

pub(crate) const STREAM_NOT_FOUND: u32 = 10_059;
pub(crate) const MESSAGE_NOT_FOUND: u32 = 10_037;
pub(crate) const STREAM_NAME_IN_USE: u32 = 10_058;
/// A cluster is needed for more than one replica, or has too few servers.
pub(crate) const REPLICAS_REFUSED: [u32; 3] = [10_005, 10_074, 10_023];

impl Refusal {
    /// The kind, and whether the call may have had an effect all the same.
    fn kind(&self, record_bytes_max: usize) -> (ErrorKind, Applied) {
        let kind = match self.err_code {
            STREAM_NOT_FOUND | MESSAGE_NOT_FOUND | 10_014 => ErrorKind::NotFound,
            // Wrong last sequence, in the words of old and new servers; a stream of that name or subject that is another.
            10_071 | 10_164 | STREAM_NAME_IN_USE | 10_065 => ErrorKind::Conflict,
            // No leader, no quorum, not yet ready, no resources for now.
            10_008 | 10_009 | 10_023 | 10_163 => ErrorKind::Unavailable,
            10_054 | 10_097 => ErrorKind::TooLarge { limit_bytes: record_bytes_max },
            // Storage of the account, of the server, or of the stream is used up.
            10_002 | 10_047 | 10_077 => ErrorKind::StorageFull,
            // More on its way than the server takes at once.
            10_167 | 10_210 => ErrorKind::Backpressure { retry_after: limits::APPEND_RETRY_AFTER },
            // JetStream is off for the server or the account; settings that this server does not take.
            10_039 | 10_076 | 10_052 | 10_074 | 10_005 => ErrorKind::Misconfigured,
            _ => match self.code {
                401 | 403 => ErrorKind::Denied,
                404 => ErrorKind::NotFound,
                503 => ErrorKind::Unavailable,
                _ => return (ErrorKind::Unknown, Applied::Unknown),
            },
        };
        (kind, Applied::No)
    }

    /// The error of a call that this answers.
    pub(crate) fn error(&self, action: &str, record_bytes_max: usize) -> Error {
        let (kind, applied) = self.kind(record_bytes_max);
        let mend = match self.err_code {
            10_039 => "; enable JetStream for this account",
            10_076 => "; start the server with JetStream (-js)",
            10_074 => "; set replicas to 1, or use a cluster",
            10_002 | 10_047 => "; raise the limits of JetStream's storage, or let topics keep less",
            _ => "",
        };
        let error = Error::new(kind, format!("{action}: NATS says: {} ({}){mend}", self.description, self.err_code));
        if applied == Applied::Unknown { error.outcome_unknown() } else { error }
    }
}

/// The backbone is set up so that it cannot work.
pub(crate) fn misconfigured(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Misconfigured, context)
}

/// The servers cannot be reached, and nothing was done.
pub(crate) fn unavailable(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, context)
}

/// There is no such log.
pub(crate) fn not_found(id: &LogId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {id}"))
}

/// The adapter was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the NATS backbone is closed")
}

/// The user may not do that.
pub(crate) fn denied(action: &str, what: &str) -> Error {
    Error::new(ErrorKind::Denied, format!("{action}: NATS says: {what}; give the user that permission"))
}

/// Why TLS does not come about and how to mend it, where that is what an error says.
fn tls_refusal(said: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&["fatal alert: CertificateRequired"]) {
        Some("the server wants a certificate of its clients, and none is shown; set tls.certificate and tls.key")
    } else if says(&["fatal alert"]) {
        Some(
            "the server refuses the client's certificate; set tls.certificate and tls.key to one that is valid and signed by \
             an authority that the server trusts",
        )
    } else if says(&["not valid for name", "NotValidForName"]) {
        Some("the server's certificate is for other hosts than this one; name the server by a host of its certificate")
    } else if says(&["UnknownIssuer"]) {
        Some(
            "the server's certificate is signed by no authority that is trusted here; set tls.ca to the certificate of \
             the authority that signed it",
        )
    } else if says(&["Expired", "expired", "NotValidYet", "not valid yet"]) {
        Some("the server's certificate is not valid at this time; renew it, or set this machine's clock")
    } else if says(&["could not add certificate or key", "could not load"]) {
        Some(
            "the client's certificate and key cannot be used; check that tls.certificate and tls.key are in PEM form and belong \
             to each other",
        )
    } else if says(&["certificate", "Certificate", "TLS", "tls"]) {
        Some("TLS does not come about; check the scheme of the address, the authority, the certificate and its key")
    } else {
        None
    }
}

/// The first connection failed.
pub(crate) fn from_connect(address: &str, credentials: &str, error: ConnectError) -> Error {
    let said = error.to_string();
    let tls = tls_refusal(&said);
    let (kind, what) = match error.kind() {
        ConnectErrorKind::AuthorizationViolation if credentials == "none" => (
            ErrorKind::Denied,
            "the server wants credentials, and there are none; set a user with its password, a token, or a file of \
             credentials, as the server has it"
                .to_owned(),
        ),
        ConnectErrorKind::AuthorizationViolation => (
            ErrorKind::Denied,
            format!("the server does not take {credentials} for credentials; check user, password, token or key"),
        ),
        ConnectErrorKind::Authentication => (
            ErrorKind::Denied,
            format!("the client cannot show who it is with {credentials}; check the seed or the credentials file"),
        ),
        ConnectErrorKind::ServerParse => (ErrorKind::Misconfigured, "it is no address of a server".to_owned()),
        _ if tls.is_some() => (ErrorKind::Misconfigured, tls.unwrap_or_default().to_owned()),
        ConnectErrorKind::Dns => (ErrorKind::Unavailable, "its host is not known".to_owned()),
        ConnectErrorKind::TimedOut => (ErrorKind::Unavailable, "it does not answer".to_owned()),
        _ => (ErrorKind::Unavailable, "it cannot be reached; check host and port, and whether it runs".to_owned()),
    };
    Error::new(kind, format!("cannot open {address}: {what}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_tls_are_told_apart() {
        let of = |said: &str| tls_refusal(said).unwrap_or_default();
        assert!(of("received fatal alert: CertificateRequired").contains("none is shown"));
        assert!(of("received fatal alert: UnknownCA").contains("refuses the client's certificate"));
        assert!(of("invalid peer certificate: UnknownIssuer").contains("set tls.ca"));
        assert!(of("certificate not valid for name \"h\"").contains("other hosts"));
        assert!(of("invalid peer certificate: Expired").contains("clock"));
        assert!(of("TLS error: could not add certificate or key").contains("belong to each other"));
        assert_eq!(tls_refusal("Connection refused (os error 111)"), None);
    }

    #[test]
    fn refusals() {
        let error = |code, err_code| Refusal { code, err_code, description: "x".to_owned() }.error("append", 7);
        let cases = [
            (404, STREAM_NOT_FOUND, ErrorKind::NotFound),
            (400, 10_071, ErrorKind::Conflict),
            (400, 10_164, ErrorKind::Conflict),
            (503, 10_008, ErrorKind::Unavailable),
            (503, 1, ErrorKind::Unavailable),
            (400, 10_054, ErrorKind::TooLarge { limit_bytes: 7 }),
            (500, 10_047, ErrorKind::StorageFull),
            (503, 10_076, ErrorKind::Misconfigured),
        ];
        for (code, err_code, kind) in cases {
            let error = error(code, err_code);
            assert_eq!((error.kind(), error.applied()), (&kind, Applied::No), "{err_code}");
        }
        let unmapped = error(500, 99);
        assert_eq!((unmapped.kind(), unmapped.applied()), (&ErrorKind::Unknown, Applied::Unknown));
    }
}
