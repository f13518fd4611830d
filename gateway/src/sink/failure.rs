use std::error::Error as StdError;

use hyper_util::client::legacy;

use super::connector;

/// Why an attempt brought no answer. The kinds differ in what they mean for the delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection came about, so the sink has seen nothing: name resolution, a refusal, TLS. The delivery waits and no
    /// attempt is counted.
    #[error("the sink cannot be reached: {0}")]
    Unreachable(String),
    /// The request may have been seen, and no complete answer came: a timeout, a connection that broke. Counts as an
    /// attempt.
    #[error("the sink gave no answer: {0}")]
    NoAnswer(String),
    /// The sink's address is not one that this target may have. Trying again changes nothing until the name resolves to
    /// another address.
    #[error("the sink's address is not allowed: {0}")]
    Forbidden(String),
    /// The target cannot be called at all.
    #[error("the sink cannot be called: {0}")]
    Invalid(String),
}

impl Failure {
    pub(super) fn from_client(error: &legacy::Error) -> Self {
        if let Some(refused) = find::<connector::Forbidden>(error) {
            return Self::Forbidden(refused.to_string());
        }
        let causes = causes(error);
        if error.is_connect() { Self::Unreachable(causes) } else { Self::NoAnswer(causes) }
    }
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The causes below the client's own words, which say nothing.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // A wrapper often repeats what it wraps.
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
}
