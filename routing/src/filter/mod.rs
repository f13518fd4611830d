//! Filters of subscriptions: the dialects of the CloudEvents Subscriptions API (3.2.4.2), and `cel`, which sees the data.
//!
//! `exact`, `prefix` and `suffix` compare attributes in their canonical string form, case-sensitively; `all`, `any` and
//! `not` combine filters; `sql`, which is also read by its other name `cesql`, is an expression of [`crate::cesql`], and
//! `cel` one of [`crate::cel`]. An attribute that an event does not have matches nothing. The filters of a subscription are a
//! conjunction, so none at all match every event.

mod explain;
mod parse;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;

use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tidegate_schemas::Event;

use crate::demand::{Alternatives, Comparison, Demand, either, strictest};
use crate::view::EventView;
use crate::{cel, cesql};

pub use explain::{Explanation, FailedPredicate, Found, explain, explain_view};
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
    Sql(cesql::Expression),
    /// The expression is `true`.
    Cel(cel::Expression),
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

impl Filter {
    /// Whether the event passes.
    pub fn matches(&self, event: &Event) -> bool {
        self.matches_view(&EventView::new(event))
    }

    /// Whether the event passes, with what other filters have worked out of it.
    pub fn matches_view(&self, view: &EventView<'_>) -> bool {
        let event = view.event();
        match self {
            Self::Exact(pairs) => pairs.all(event, Comparison::Exact),
            Self::Prefix(pairs) => pairs.all(event, Comparison::Prefix),
            Self::Suffix(pairs) => pairs.all(event, Comparison::Suffix),
            Self::All(filters) => filters.iter().all(|filter| filter.matches_view(view)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches_view(view)),
            Self::Not(filter) => !filter.matches_view(view),
            Self::Sql(expression) => expression.matches(event),
            Self::Cel(expression) => expression.matches(view),
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
            Self::Cel(_) => "cel",
        }
    }

    /// What an event must have to pass, as far as an index can use it. All of them hold.
    pub(crate) fn demands(&self) -> Vec<Alternatives> {
        let each = |pairs: &Pairs, comparison| {
            let demand = |(name, text): (&ByteString, &ByteString)| Demand::new(comparison, name, text);
            pairs.iter().filter_map(demand).map(|demand| vec![demand]).collect()
        };
        match self {
            Self::Exact(pairs) => each(pairs, Comparison::Exact),
            Self::Prefix(pairs) => each(pairs, Comparison::Prefix),
            Self::Suffix(pairs) => each(pairs, Comparison::Suffix),
            Self::All(filters) => filters.iter().flat_map(Self::demands).collect(),
            Self::Any(filters) => {
                either(filters.iter().map(|filter| strictest(filter.demands()))).into_iter().collect()
            }
            Self::Sql(expression) => expression.demands(),
            Self::Cel(expression) => expression.demands().cloned().collect(),
            Self::Not(_) => Vec::new(),
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
            Self::Cel(expression) => Value::from(expression.text().to_string()),
        };
        Value::Object([(self.dialect().to_owned(), content)].into_iter().collect())
    }
}

/// Whether an event passes all filters of a subscription.
pub fn matches_all(filters: &[Filter], event: &Event) -> bool {
    matches_all_view(filters, &EventView::new(event))
}

/// Whether an event passes all filters of a subscription, with what other filters have worked out of it.
pub fn matches_all_view(filters: &[Filter], view: &EventView<'_>) -> bool {
    filters.iter().all(|filter| filter.matches_view(view))
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
