//! Filters of subscriptions: the dialects of the CloudEvents Subscriptions API (3.2.4.2) that look at attributes.
//!
//! `exact`, `prefix` and `suffix` compare attributes in their canonical string form, case-sensitively; `all`, `any` and
//! `not` combine filters; `sql`, which is also read by its other name `cesql`, is an expression of [`crate::cesql`]. An
//! attribute that an event does not have matches nothing. The filters of a subscription are a conjunction, so none at all
//! match every event.

mod explain;
mod parse;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;

use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tidegate_schemas::Event;

use crate::cesql::Expression;

pub use explain::{Explanation, FailedPredicate, Found, explain};
pub use parse::{FilterFault, PathSegment, parse_filters};

/// One filter expression. It can only be had by [`parse_filters`] or its constructors, so its lists are never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Filter {
    /// Every named attribute has exactly this value.
    Exact(Pairs),
    /// Every named attribute begins with this text.
    Prefix(Pairs),
    /// Every named attribute ends with this text.
    Suffix(Pairs),
    /// Every filter of the list matches.
    All(Vec<Filter>),
    /// At least one filter of the list matches.
    Any(Vec<Filter>),
    /// The filter does not match.
    Not(Box<Filter>),
    /// The expression is `true` without an error. [`parse_filters`] gives only those that have no objections.
    Sql(Expression),
}

/// Attribute names with the text that each is compared to; sorted by name, no name twice, nothing empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pairs(Box<[(ByteString, ByteString)]>);

impl Pairs {
    /// The pairs in ascending order of names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&ByteString, &ByteString)> {
        self.0.iter().map(|(name, text)| (name, text))
    }

    /// The text for an attribute.
    pub fn get(&self, name: &str) -> Option<&ByteString> {
        self.0.iter().find(|(candidate, _)| candidate == name).map(|(_, text)| text)
    }

    fn all(&self, event: &Event, comparison: Comparison) -> bool {
        self.0.iter().all(|(name, text)| event.attribute(name).is_some_and(|value| comparison.holds(&value, text)))
    }
}

/// How `exact`, `prefix` and `suffix` compare an attribute with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Comparison {
    Exact,
    Prefix,
    Suffix,
}

impl Comparison {
    fn holds(self, value: &str, text: &str) -> bool {
        match self {
            Self::Exact => value == text,
            Self::Prefix => value.starts_with(text),
            Self::Suffix => value.ends_with(text),
        }
    }
}

impl Filter {
    /// Whether the event passes.
    pub fn matches(&self, event: &Event) -> bool {
        match self {
            Self::Exact(pairs) => pairs.all(event, Comparison::Exact),
            Self::Prefix(pairs) => pairs.all(event, Comparison::Prefix),
            Self::Suffix(pairs) => pairs.all(event, Comparison::Suffix),
            Self::All(filters) => filters.iter().all(|filter| filter.matches(event)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(event)),
            Self::Not(filter) => !filter.matches(event),
            Self::Sql(expression) => expression.matches(event),
        }
    }

    /// The name of the dialect, as it is written.
    pub fn dialect(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Prefix(_) => "prefix",
            Self::Suffix(_) => "suffix",
            Self::All(_) => "all",
            Self::Any(_) => "any",
            Self::Not(_) => "not",
            Self::Sql(_) => "sql",
        }
    }

    /// The filter in the JSON form of the Subscriptions API, which [`parse_filters`] reads back.
    pub fn to_json(&self) -> Value {
        let content = match self {
            Self::Exact(pairs) | Self::Prefix(pairs) | Self::Suffix(pairs) => {
                pairs.iter().map(|(name, text)| (name.to_string(), Value::from(text.to_string()))).collect()
            }
            Self::All(filters) | Self::Any(filters) => filters.iter().map(Self::to_json).collect(),
            Self::Not(filter) => filter.to_json(),
            Self::Sql(expression) => Value::from(expression.text().to_string()),
        };
        Value::Object([(self.dialect().to_owned(), content)].into_iter().collect())
    }
}

/// Whether an event passes all filters of a subscription.
pub fn matches_all(filters: &[Filter], event: &Event) -> bool {
    filters.iter().all(|filter| filter.matches(event))
}

/// The filter as its JSON text, which is what the user wrote but for blanks and the order of pairs.
impl fmt::Display for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_json().fmt(formatter)
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let one = Value::Array(vec![Value::deserialize(deserializer)?]);
        match parse_filters(&one) {
            Ok(filters) => filters.into_iter().next().ok_or_else(|| serde::de::Error::custom("a filter is missing")),
            Err(faults) => {
                let texts: Vec<_> = faults.iter().map(|fault| fault.reason.as_str()).collect();
                Err(serde::de::Error::custom(texts.join("; ")))
            }
        }
    }
}
