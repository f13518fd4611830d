use std::fmt;

use crate::batch::BatchFaults;
use crate::event::Faults;
use crate::limits::TooLarge;

/// Why a document is not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not JSON.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is JSON and breaks rules of CloudEvents.
    #[error(transparent)]
    Invalid(#[from] Faults),
    /// It exceeds a limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// Why a document is not a batch of events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadBatchError {
    /// It is not JSON, or not an array.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Events in it break rules of CloudEvents.
    #[error(transparent)]
    Invalid(#[from] BatchFaults),
    /// It, or an event in it, exceeds a limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// Where a document stops being JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The line, from 1.
    pub line: usize,
    /// The byte within the line, from 1, or 0 where the line is empty.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

impl Malformed {
    pub(super) fn of_json(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let reason = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text).to_owned();
        Self { line, column, reason }
    }

    /// The bytes after these are not UTF-8.
    pub(super) fn of_utf8(before: &[u8]) -> Self {
        let line_at = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let reason = "the bytes are not UTF-8, which JSON is written in".to_owned();
        Self { line, column: before.len() - line_at + 1, reason }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}, column {}: {}", self.line, self.column, self.reason)
    }
}

impl std::error::Error for Malformed {}
