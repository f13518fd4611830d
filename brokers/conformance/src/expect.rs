//! How a case says what it expected and what it saw.

use std::fmt;

use tidegate_backbone::request::RequestError;
use tidegate_backbone::slot::CommitError;
use tidegate_backbone::{Error, ErrorKind};

/// What a case comes to.
pub type Outcome = std::result::Result<(), Failure>;

/// What was expected, and what was seen instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    text: String,
    is_late: bool,
}

impl Failure {
    /// A promise that was not kept.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_late: false }
    }

    /// Something that was waited for in vain. On a machine that has too much to do that may be the machine's fault.
    pub fn late(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_late: true }
    }

    /// Whether it was only waited in vain: for an answer, or for something to happen.
    pub fn is_late(&self) -> bool {
        self.is_late
    }

    /// The same with more of what was seen.
    pub(crate) fn and(self, seen: &str) -> Self {
        Self { text: format!("{}, {seen}", self.text), is_late: self.is_late }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

// No `Error` of its own, so that `?` takes every error that a call of the product gives.
impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { text: format!("a call failed that should not: {error:?}"), is_late: is_late(&error) }
    }
}

/// Whether a call failed because no answer came in time, or too much was under way.
fn is_late(error: &(dyn std::error::Error + 'static)) -> bool {
    let kind = error.downcast_ref::<Error>().map(Error::kind);
    let called = error.downcast_ref::<RequestError>();
    let committed = error.downcast_ref::<CommitError>();
    matches!(kind, Some(ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Backpressure { .. }))
        || matches!(committed, Some(CommitError::Unavailable { .. } | CommitError::Unknown { .. }))
        || matches!(
            called,
            Some(RequestError::DeadlineExceeded { .. } | RequestError::Unavailable(_) | RequestError::Busy { .. })
        )
        || error.source().is_some_and(is_late)
}

/// Fails unless both are the same.
pub(crate) fn same<T: PartialEq + fmt::Debug>(what: &str, seen: T, expected: T) -> Outcome {
    if seen == expected {
        return Ok(());
    }
    let short = |value: &T| {
        let text = format!("{value:?}");
        if text.chars().count() > 600 { format!("{}...", text.chars().take(600).collect::<String>()) } else { text }
    };
    Err(Failure::new(format!("{what}: expected {}, seen {}", short(&expected), short(&seen))))
}

/// Fails unless it holds.
pub(crate) fn holds(what: &str, holds: bool, seen: impl fmt::Debug) -> Outcome {
    if holds { Ok(()) } else { Err(Failure::new(format!("expected that {what}; seen {seen:?}"))) }
}

#[cfg(test)]
mod tests {
    use tidegate_backbone::{Error, ErrorKind};

    use super::{Failure, holds, same};

    #[test]
    fn only_what_was_waited_for_is_late() {
        let failed = |kind| Failure::from(Error::new(kind, "it is so"));
        assert!(Failure::late("expected it before long").is_late());
        assert!(failed(ErrorKind::Unavailable).and("after 3 of 5").is_late());
        let around =
            Error::new(ErrorKind::Misconfigured, "around").with_source(Error::new(ErrorKind::Unavailable, "it"));
        assert!(Failure::from(around).is_late(), "what it comes from counts");
        for promise in [failed(ErrorKind::DataLoss), failed(ErrorKind::Conflict), failed(ErrorKind::NotFound)] {
            assert!(!promise.is_late(), "{promise}");
        }
        assert!(!same("copies", 2, 1).unwrap_err().is_late());
        assert!(!holds("nothing is lost", false, 3).unwrap_err().is_late());
    }
}
