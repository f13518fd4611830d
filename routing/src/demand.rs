//! What an event must have to pass a filter: the terms in which filters of every dialect speak to the index.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

/// How an attribute, in its canonical string form, is compared with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Comparison {
    /// It is the text.
    Exact,
    /// It begins with the text.
    Prefix,
    /// It ends with the text.
    Suffix,
}

impl Comparison {
    /// Whether the comparison holds.
    pub fn holds(self, value: &str, text: &str) -> bool {
        match self {
            Self::Exact => value == text,
            Self::Prefix => value.starts_with(text),
            Self::Suffix => value.ends_with(text),
        }
    }
}

/// An attribute and the text that it is compared with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Demand {
    pub(crate) comparison: Comparison,
    pub(crate) attribute: ByteString,
    /// Never empty for a prefix or suffix, which would demand nothing.
    pub(crate) text: ByteString,
}

/// Demands of which an event meets at least one, or it does not pass.
pub(crate) type Alternatives = Vec<Demand>;

impl Demand {
    /// Nothing where every event with the attribute meets it.
    pub(crate) fn new(comparison: Comparison, attribute: &str, text: &str) -> Option<Self> {
        let says_something = comparison == Comparison::Exact || !text.is_empty();
        says_something.then(|| Self { comparison, attribute: attribute.into(), text: text.into() })
    }
}

/// The alternatives that say most among several that all hold: exact texts before beginnings and ends, few before many.
pub(crate) fn strictest(all: impl IntoIterator<Item = Alternatives>) -> Option<Alternatives> {
    all.into_iter().min_by_key(|alternatives| {
        let exact = alternatives.iter().all(|demand| demand.comparison == Comparison::Exact);
        (!exact, alternatives.len())
    })
}

/// What an event must meet that passes at least one of several branches; nothing where one of them demands nothing.
pub(crate) fn either(branches: impl IntoIterator<Item = Option<Alternatives>>) -> Option<Alternatives> {
    let mut all = Vec::new();
    for branch in branches {
        all.extend(branch?);
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}
