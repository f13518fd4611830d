//! How a call ends that gets no reply.

use std::time::Duration;

use bytestring::ByteString;

use super::wire::Cause;
use crate::error::Applied;
use crate::lane::NodeId;

/// A handler's own answer that it does not do what was asked. Whether anything was done is between handler and caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// A word that programs tell apart.
    pub code: ByteString,
    /// What is wrong, for people.
    pub message: ByteString,
}

impl Refusal {
    /// A refusal with that code.
    pub fn new(code: impl Into<ByteString>, message: impl Into<ByteString>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// Why a call got no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The node is not there, or nobody offers the service. Not carried out.
    #[error("{0}")]
    Nobody(String),
    /// The time is over. It may have been carried out, or may still be.
    #[error("no reply came in time from {node} for {service}; whether the request was carried out is not known")]
    DeadlineExceeded {
        /// Who was asked.
        node: NodeId,
        /// For what.
        service: ByteString,
    },
    /// The handler refused.
    #[error("{}", .0)]
    Refused(Refusal),
    /// Not sent, or not taken, for a reason that may pass. Not carried out.
    #[error("{0}")]
    Unavailable(String),
    /// A bound is reached here, on the lane or at the receiver. Not carried out.
    #[error("{what}; try again after {} ms", retry_after.as_millis())]
    Busy {
        /// Which bound.
        what: String,
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// The body has more bytes than are taken. Not carried out.
    #[error("the body of a request between gateways has at most {limit_bytes} bytes")]
    TooLarge {
        /// The most that it may have.
        limit_bytes: usize,
    },
    /// The reply is lost, or the node is gone that was asked. It may have been carried out.
    #[error("{0}; whether the request was carried out is not known")]
    Unknown(String),
    /// This node has left or stopped. What had been sent may have been carried out.
    #[error("this node has left the cluster; whether a request under way was carried out is not known")]
    Closed,
}

impl RequestError {
    /// Whether the request may have been carried out. Of a handler's refusal the handler's code says more.
    pub fn applied(&self) -> Applied {
        match self {
            Self::Nobody(_) | Self::Unavailable(_) | Self::Busy { .. } | Self::TooLarge { .. } => Applied::No,
            Self::DeadlineExceeded { .. } | Self::Refused(_) | Self::Unknown(_) | Self::Closed => Applied::Unknown,
        }
    }

    /// Whether another node may be asked instead.
    pub(super) fn elsewhere(&self) -> bool {
        matches!(self, Self::Nobody(_) | Self::Unavailable(_) | Self::Busy { .. })
    }

    /// What a refusal means to the caller.
    pub(super) fn of_refusal(node: NodeId, cause: Cause, code: ByteString, message: ByteString) -> Self {
        match cause {
            Cause::Handler => Self::Refused(Refusal { code, message }),
            Cause::Unserved => Self::Nobody(format!("node {node}: {message}")),
            Cause::Leaving | Cause::Broken => Self::Unavailable(format!("node {node}: {message}")),
            Cause::Busy => Self::Busy {
                what: format!("node {node}: {message}"),
                retry_after: tidegate_schemas::limits::LANE_RETRY_AFTER,
            },
            Cause::TooLarge => Self::TooLarge { limit_bytes: code.parse().unwrap_or_default() },
            Cause::ReplyLost | Cause::Failed => Self::Unknown(format!("node {node}: {message}")),
        }
    }
}
