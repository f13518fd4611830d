//! The one mapping from refused changes of the catalogue to problems.

use tidegate_backbone::catalogue::ChangeError;
use tidegate_backbone::slot::CommitError;

use crate::blocks::pubsub::{PublishError, ReadError, WriteError};
use crate::edge::problem::{Code, Problem};

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let detail = sentence(&error.to_string());
        match error {
            ChangeError::OtherPartitions { .. }
            | ChangeError::OtherKey { .. }
            | ChangeError::OtherAttachment { .. }
            | ChangeError::Collision { .. }
            | ChangeError::Exists { .. } => Self::new(Code::Conflict, detail),
            ChangeError::NothingToAttach { .. } => Self::new(Code::InvalidResource, detail),
            ChangeError::Partitions { .. } | ChangeError::LongName { .. } | ChangeError::TooManyTopics { .. } => {
                Self::new(Code::InvalidArgument, detail)
            }
            ChangeError::NotFound { what: "topic", .. } => Self::new(Code::TopicNotFound, detail),
            ChangeError::NotFound { .. } => Self::new(Code::SubscriptionNotFound, detail),
            ChangeError::Deleting { .. } => {
                Self::new(Code::Unavailable, detail).with_retry_after(std::time::Duration::from_secs(1))
            }
            ChangeError::Moving => {
                Self::new(Code::Unavailable, detail).with_retry_after(std::time::Duration::from_secs(1))
            }
            ChangeError::Commit(error) => Self::from(error),
            ChangeError::Broker(error) => Self::from(error),
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        let detail = sentence(&error.to_string());
        match error {
            CommitError::Conflict { .. } | CommitError::CommandReused { .. } => Self::new(Code::Conflict, detail),
            CommitError::RepeatedKey { .. } => Self::new(Code::Internal, detail),
            CommitError::TooLarge { .. } => Self::new(Code::BodyTooLarge, detail),
            CommitError::Unknown { .. } => Self::new(Code::OutcomeUnknown, detail),
            CommitError::Backpressure { retry_after } => {
                Self::new(Code::Overloaded, detail).with_retry_after(retry_after)
            }
            CommitError::Fenced { .. } | CommitError::Unavailable { .. } => {
                Self::new(Code::Unavailable, detail).with_retry_after(std::time::Duration::from_secs(1))
            }
            CommitError::DataLoss { .. } => Self::new(Code::DataLoss, detail),
            CommitError::Closed => Self::new(Code::ShuttingDown, detail),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let detail = sentence(&error.to_string());
        match error {
            WriteError::OwnedByFile { .. } => Self::new(Code::OwnedByFile, detail),
            WriteError::Reserved(_) | WriteError::PrivateSink(_) => Self::new(Code::Forbidden, detail),
            WriteError::NeedsFile(_) => Self::new(Code::InvalidResource, detail),
            WriteError::Unexpected(_) => Self::new(Code::PreconditionFailed, detail),
            WriteError::Change(error) => Self::from(error),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let detail = sentence(&error.to_string());
        match error {
            PublishError::UnknownTopic(_) => Self::new(Code::TopicNotFound, detail),
            PublishError::Reserved(_) => Self::new(Code::Forbidden, detail),
            PublishError::Create(error) => Self::from(error),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let detail = sentence(&error.to_string());
        match error {
            ReadError::OtherTopic { .. } | ReadError::OffsetOfMany | ReadError::NoPartition { .. } => {
                Self::new(Code::InvalidArgument, detail)
            }
            ReadError::Log(error) => Self::from(error),
        }
    }
}

/// An error's text as a sentence of its own.
pub(super) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", characters.as_str().trim_end_matches('.'))
}
