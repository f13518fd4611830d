use std::time::Duration;

use tidegate_backbone::{Applied, Error, ErrorKind};

use super::{Code, Problem};

/// What a client is told to wait where the broker is away and nothing better is known.
const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The one mapping from the backbone's errors. It has no wildcard arm: a new kind does not compile until it has a code.
///
/// The detail is the error's own context. What caused it stays in the log, because causes name hosts and users of the
/// broker.
impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let context = error.context();
        match error.applied() {
            Applied::Unknown => return outcome_unknown(context),
            Applied::No => {}
        }
        match error.kind() {
            ErrorKind::Unavailable => Self::new(Code::Unavailable, context).with_retry_after(UNAVAILABLE_RETRY_AFTER),
            ErrorKind::Unknown => outcome_unknown(context),
            ErrorKind::Backpressure { retry_after } => {
                Self::new(Code::Overloaded, context).with_retry_after(*retry_after)
            }
            ErrorKind::Conflict => Self::new(Code::Conflict, context),
            // The new owner answers the same request, so to the client this is an absence that passes.
            ErrorKind::Fenced { epoch: _ } => {
                Self::new(Code::Unavailable, context).with_retry_after(UNAVAILABLE_RETRY_AFTER)
            }
            ErrorKind::NotFound => Self::new(Code::NotFound, context),
            ErrorKind::TooLarge { limit_bytes } => {
                Self::new(Code::EventTooLarge, format!("{context} (the limit is {limit_bytes} bytes)"))
            }
            ErrorKind::PositionLost { earliest } => Self::new(
                Code::PositionLost,
                format!("{context} (the first position that can still be read is {earliest})"),
            ),
            ErrorKind::Denied => Self::new(Code::BrokerRefused, context),
            ErrorKind::Misconfigured => Self::new(Code::BrokerMisconfigured, context),
            ErrorKind::StorageFull => Self::new(Code::StorageFull, context),
            ErrorKind::DataLoss => Self::new(Code::DataLoss, context),
            ErrorKind::Closed => Self::new(Code::ShuttingDown, context).with_retry_after(UNAVAILABLE_RETRY_AFTER),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

fn outcome_unknown(context: &str) -> Problem {
    Problem::new(Code::OutcomeUnknown, format!("{context}. Send the event again with the same id."))
}
