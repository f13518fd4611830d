//! How what goes wrong here becomes an error of the contract. The one place that does it.

use std::io;

use tidegate_backbone::{Error, ErrorKind, LogId};

use crate::storage;

/// An operation of the file system that failed before it had an effect on any record.
pub(crate) fn from_io(action: &str, path: &str, error: io::Error) -> Error {
    let kind = if storage::is_full(&error) {
        ErrorKind::StorageFull
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        ErrorKind::Misconfigured
    } else {
        ErrorKind::Unavailable
    };
    Error::new(kind, format!("cannot {action} {path}")).with_source(error)
}

/// Something that was acknowledged is damaged or gone.
pub(crate) fn data_loss(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::DataLoss, context)
}

/// The directory was not written by this format.
pub(crate) fn misconfigured(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Misconfigured, context)
}

/// There is no such log.
pub(crate) fn not_found(id: &LogId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {id}"))
}

/// A record whose bytes are sound holds no event.
pub(crate) fn undecodable(id: &LogId, position: u64, cause: tidegate_schemas::compact::DecodeError) -> Error {
    Error::new(ErrorKind::DataLoss, format!("the event at position {position} of {id} cannot be decoded"))
        .with_source(cause)
}

/// The log was closed, or has failed for the reason given.
pub(crate) fn closed(failed: Option<&str>) -> Error {
    Error::new(
        ErrorKind::Closed,
        match failed {
            None => "the embedded log is closed".to_owned(),
            Some(reason) => {
                format!(
                    "the embedded log has failed and takes no more appends until the process is restarted: {reason}"
                )
            }
        },
    )
}

/// The same error for several callers: errors hold a source that cannot be shared.
pub(crate) fn again(error: &Error) -> Error {
    let copy = Error::new(error.kind().clone(), error.to_string());
    if error.applied() == tidegate_backbone::Applied::Unknown { copy.outcome_unknown() } else { copy }
}
