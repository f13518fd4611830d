//! How a case says what it expected and what it saw.

use std::fmt;

/// What a case comes to.
pub type Outcome = std::result::Result<(), Failure>;

/// What was expected, and what was seen instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

// No `Error` of its own, so that `?` takes every error that a call of the product gives.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("a call failed that should not: {error:?}"))
    }
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
    Err(Failure(format!("{what}: expected {}, seen {}", short(&expected), short(&seen))))
}

/// Fails unless it holds.
pub(crate) fn holds(what: &str, holds: bool, seen: impl fmt::Debug) -> Outcome {
    if holds { Ok(()) } else { Err(Failure(format!("expected that {what}; seen {seen:?}"))) }
}
