//! One error for every adapter: what went wrong, whether the call may have had an effect all the same, and why.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::log::Position;

/// What every call of the contract returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Whether the call that failed can have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It had none and will have none.
    No,
    /// It may have had it, or may still have it. Never told as a failure to a client, but as *outcome unknown*.
    Unknown,
}

/// What went wrong, in the words that all adapters share. Whatever an adapter cannot map is [`ErrorKind::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The broker cannot be reached or refuses for now.
    Unavailable,
    /// The outcome is not known.
    Unknown,
    /// A queue is full; later it may work.
    Backpressure {
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// What is there differs from what was expected.
    Conflict,
    /// Another owner has taken over; nothing of this one takes effect any more.
    Fenced {
        /// The epoch of the new owner.
        epoch: u64,
    },
    /// There is no such log.
    NotFound,
    /// The record is larger than the broker carries.
    TooLarge {
        /// The most bytes that it may have.
        limit_bytes: usize,
    },
    /// The position was trimmed.
    PositionLost {
        /// The first position that can still be read.
        earliest: Position,
    },
    /// The broker refuses these credentials or this operation.
    Denied,
    /// The broker is set up so that the contract cannot be kept.
    Misconfigured,
    /// The disk is full.
    StorageFull,
    /// Records that were acknowledged are gone or damaged.
    DataLoss,
    /// The adapter is shutting down, or has failed for good and must be opened anew.
    Closed,
}

impl ErrorKind {
    /// The kind as a word that does not change, for figures and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Backpressure { .. } => "backpressure",
            Self::Conflict => "conflict",
            Self::Fenced { .. } => "fenced",
            Self::NotFound => "not_found",
            Self::TooLarge { .. } => "too_large",
            Self::PositionLost { .. } => "position_lost",
            Self::Denied => "denied",
            Self::Misconfigured => "misconfigured",
            Self::StorageFull => "storage_full",
            Self::DataLoss => "data_loss",
            Self::Closed => "closed",
        }
    }
}

/// An error of the contract.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    applied: Applied,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without effect; `context` says what was attempted and what is wrong, with names and figures.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        let applied = if kind == ErrorKind::Unknown { Applied::Unknown } else { Applied::No };
        Self { kind, applied, context: context.into(), source: None }
    }

    /// Marks that the call may have had its effect.
    pub fn outcome_unknown(mut self) -> Self {
        self.applied = Applied::Unknown;
        self
    }

    /// Keeps the error that caused this one.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Whether the call may have had its effect.
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// What was attempted and what is wrong.
    pub fn context(&self) -> &str {
        &self.context
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.context)?;
        if let Some(source) = &self.source {
            write!(formatter, ": {source}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
