use std::fmt;

use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DEAD_LETTER_PREFIX, RESERVED_PREFIXES, TopicError, TopicName, check};

/// Which topics a subscription reads: one by its name, or many by wildcards.
///
/// `*` stands for exactly one segment, `**` for one or more that remain and so may only be the last. Wildcards never
/// match dead-letter topics or topics of the gateway itself ([`TopicName::is_dead_letter`],
/// [`TopicName::is_reserved`]): a subscription to everything would otherwise feed on its own failures.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPattern(Kind);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Literal(TopicName),
    Wildcard(ByteString),
}

impl TopicPattern {
    /// Takes a pattern in canonical form.
    pub fn parse(text: impl Into<ByteString>) -> Result<Self, TopicError> {
        let text = text.into();
        if !text.contains('*') {
            return TopicName::parse(text).map(|name| Self(Kind::Literal(name)));
        }
        check(&text, true)?;
        // A prefix ends in `.`, so the pattern's first segment would be that prefix whole.
        if let Some(prefix) =
            RESERVED_PREFIXES.into_iter().chain([DEAD_LETTER_PREFIX]).find(|prefix| text.starts_with(prefix))
        {
            return Err(TopicError::Unreachable { prefix });
        }
        Ok(Self(Kind::Wildcard(text)))
    }

    /// Takes a pattern as a client wrote it: `/` is read as `.`.
    pub fn from_edge(text: impl Into<ByteString>) -> Result<Self, TopicError> {
        let text = text.into();
        if text.contains('/') { Self::parse(text.replace('/', ".")) } else { Self::parse(text) }
    }

    /// The topic, where the pattern names exactly one.
    pub fn literal(&self) -> Option<&TopicName> {
        match &self.0 {
            Kind::Literal(name) => Some(name),
            Kind::Wildcard(_) => None,
        }
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kind::Literal(name) => name.as_str(),
            Kind::Wildcard(text) => text,
        }
    }

    /// Whether the subscription reads that topic by this pattern.
    pub fn matches(&self, topic: &TopicName) -> bool {
        match &self.0 {
            Kind::Literal(name) => name == topic,
            Kind::Wildcard(text) => {
                !topic.is_reserved() && !topic.is_dead_letter() && segments_match(text, topic.as_str())
            }
        }
    }
}

fn segments_match(pattern: &str, topic: &str) -> bool {
    let mut segments = topic.split('.');
    for expected in pattern.split('.') {
        match (expected, segments.next()) {
            (_, None) => return false,
            ("**", Some(_)) => return true,
            ("*", Some(_)) => {}
            (expected, Some(segment)) if expected == segment => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

impl From<TopicName> for TopicPattern {
    fn from(name: TopicName) -> Self {
        Self(Kind::Literal(name))
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl Serialize for TopicPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TopicPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(String::deserialize(deserializer)?)
            .map_err(|error| serde::de::Error::custom(format_args!("the topic pattern {error}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        TopicPattern::parse(pattern).unwrap().matches(&TopicName::parse(topic).unwrap())
    }

    #[test]
    fn patterns_match_segment_by_segment() {
        for (pattern, topic, expected) in [
            ("orders", "orders", true),
            ("orders", "Orders", false),
            ("orders", "orders.placed", false),
            ("orders.*", "orders.placed", true),
            ("orders.*", "orders", false),
            ("orders.*", "orders.placed.eu", false),
            ("*.placed", "orders.placed", true),
            ("*.*", "a.b", true),
            ("*", "a", true),
            ("*", "a.b", false),
            ("orders.**", "orders.placed", true),
            ("orders.**", "orders.placed.eu", true),
            ("orders.**", "orders", false),
            ("orders.**", "orderss.a", false),
            ("**", "a", true),
            ("**", "a.b.c", true),
            ("a.*.**", "a.b", false),
            ("a.*.**", "a.b.c", true),
        ] {
            assert_eq!(matches(pattern, topic), expected, "{pattern} {topic}");
        }
    }

    #[test]
    fn wildcards_never_reach_what_is_not_the_users() {
        for topic in ["dead.orders", "tidegate.slot.0", "state.orders"] {
            assert!(!matches("**", topic), "{topic}");
            assert!(!matches("*.**", topic), "{topic}");
            assert!(matches(topic, topic), "{topic}: a name reaches it");
        }
        assert!(matches("**", "deadline"), "the control: only the whole segment counts");
        for (pattern, prefix) in [("dead.*", "dead."), ("tidegate.**", "tidegate."), ("state.*", "state.")] {
            assert_eq!(TopicPattern::parse(pattern), Err(TopicError::Unreachable { prefix }));
        }
    }

    #[test]
    fn faulty_patterns_are_refused() {
        for (pattern, error) in [
            ("a.**.b", TopicError::RestNotLast { at: 2 }),
            ("a.b*", TopicError::PartialWildcard { at: 2 }),
            ("***", TopicError::PartialWildcard { at: 0 }),
            ("a..*", TopicError::EmptySegment { at: 2 }),
            ("a.* ", TopicError::PartialWildcard { at: 2 }),
            ("", TopicError::Empty),
        ] {
            assert_eq!(TopicPattern::parse(pattern), Err(error), "{pattern}");
        }
        assert_eq!(TopicPattern::from_edge("orders/*").unwrap().as_str(), "orders.*");
    }

    proptest! {
        /// The definition, written the other way round: by recursion over lists of segments.
        #[test]
        fn matching_equals_its_definition(
            pattern in prop::collection::vec(prop_oneof!["[ab]", Just("*".to_owned())], 1..4),
            rest: bool,
            topic in prop::collection::vec("[ab]", 1..5),
        ) {
            fn defined(pattern: &[String], topic: &[String]) -> bool {
                match (pattern, topic) {
                    ([], []) => true,
                    ([last], [_, ..]) if last == "**" => true,
                    ([first, pattern @ ..], [segment, topic @ ..]) => {
                        (first == "*" || first == segment) && defined(pattern, topic)
                    }
                    _ => false,
                }
            }
            let mut pattern = pattern;
            if rest {
                pattern.push("**".to_owned());
            }
            prop_assert_eq!(matches(&pattern.join("."), &topic.join(".")), defined(&pattern, &topic));
        }
    }
}
