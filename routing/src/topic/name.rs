use std::borrow::{Borrow, Cow};
use std::fmt;

use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{TopicError, check};

/// How the names of dead-letter topics begin, where a subscription does not name its own.
pub const DEAD_LETTER_PREFIX: &str = "dead.";

/// How the names begin that belong to the gateway: users neither create such topics nor publish to them.
pub const RESERVED_PREFIXES: [&str; 2] = ["tidegate.", "state."];

/// The name of a topic in its one canonical form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(ByteString);

impl TopicName {
    /// Takes a name that is in canonical form already, as in a resource file or a stored record; `/` is refused.
    pub fn parse(text: impl Into<ByteString>) -> Result<Self, TopicError> {
        let text = text.into();
        check(&text, false)?;
        Ok(Self(text))
    }

    /// Takes a name as a client wrote it, percent-decoded: `/` is read as `.`.
    pub fn from_edge(text: impl Into<ByteString>) -> Result<Self, TopicError> {
        let text = text.into();
        if text.contains('/') { Self::parse(text.replace('/', ".")) } else { Self::parse(text) }
    }

    /// The dead-letter topic of a subscription that names none.
    pub fn dead_letter_of(subscription: &str) -> Result<Self, TopicError> {
        Self::parse(format!("{DEAD_LETTER_PREFIX}{subscription}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a shared slice; nothing is copied.
    pub fn as_byte_string(&self) -> &ByteString {
        &self.0
    }

    /// Whether the name belongs to the gateway itself (`tidegate.**`, `state.**`).
    pub fn is_reserved(&self) -> bool {
        RESERVED_PREFIXES.iter().any(|prefix| self.0.starts_with(prefix))
    }

    /// Whether this is a default dead-letter topic. A subscription may name another one, which no name tells.
    pub fn is_dead_letter(&self) -> bool {
        self.0.starts_with(DEAD_LETTER_PREFIX)
    }

    /// What two names share that cannot stand beside each other: Kafka derives one metric name from both, and refuses
    /// or confuses them.
    pub fn collision_key(&self) -> Cow<'_, str> {
        if self.0.contains('_') { Cow::Owned(self.0.replace('_', ".")) } else { Cow::Borrowed(&self.0) }
    }

    /// Whether the two names differ, but only in `.` and `_`.
    pub fn collides_with(&self, other: &Self) -> bool {
        self != other && self.collision_key() == other.collision_key()
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, formatter)
    }
}

impl From<TopicName> for ByteString {
    fn from(name: TopicName) -> Self {
        name.0
    }
}

impl Serialize for TopicName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TopicName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(String::deserialize(deserializer)?)
            .map_err(|error| serde::de::Error::custom(format_args!("the topic name {error}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_schemas::limits::TOPIC_NAME_BYTES;

    use super::*;

    #[test]
    fn names_are_judged_by_the_rules() {
        for good in ["a", "orders.placed", "A-b_c.9", "dead.x", "tidegate", "-", "_", &"x".repeat(TOPIC_NAME_BYTES)] {
            assert_eq!(TopicName::parse(good).as_ref().map(TopicName::as_str), Ok(good));
        }
        let bad = [
            ("", TopicError::Empty),
            (".", TopicError::EmptySegment { at: 0 }),
            ("a.", TopicError::EmptySegment { at: 1 }),
            (".a", TopicError::EmptySegment { at: 0 }),
            ("a..b", TopicError::EmptySegment { at: 2 }),
            ("a b", TopicError::Character { character: ' ', at: 1 }),
            ("a/b", TopicError::Character { character: '/', at: 1 }),
            ("ab.\u{e9}", TopicError::Character { character: '\u{e9}', at: 3 }),
            ("a.*", TopicError::Wildcard { at: 2 }),
        ];
        for (text, error) in bad {
            assert_eq!(TopicName::parse(text), Err(error), "{text:?}");
        }
        let long = "x".repeat(TOPIC_NAME_BYTES + 1);
        assert_eq!(TopicName::parse(long), Err(TopicError::TooLong { bytes: TOPIC_NAME_BYTES + 1 }));
    }

    #[test]
    fn the_edge_reads_a_slash_as_a_full_stop() {
        assert_eq!(TopicName::from_edge("orders/placed").map(|name| name.to_string()), Ok("orders.placed".to_owned()));
        assert_eq!(TopicName::from_edge("a//b"), Err(TopicError::EmptySegment { at: 2 }));
        assert_eq!(TopicName::from_edge("/a"), Err(TopicError::EmptySegment { at: 0 }));
    }

    #[test]
    fn reserved_and_dead_letter_names_are_known() {
        let name = |text: &str| TopicName::parse(text).unwrap();
        for (text, reserved, dead) in [
            ("tidegate.slot", true, false),
            ("state.orders", true, false),
            ("state", false, false),
            ("states.orders", false, false),
            ("Tidegate.x", false, false),
            ("dead.orders", false, true),
            ("dead", false, false),
            ("deadly.orders", false, false),
        ] {
            assert_eq!((name(text).is_reserved(), name(text).is_dead_letter()), (reserved, dead), "{text}");
        }
        assert_eq!(TopicName::dead_letter_of("large-orders").unwrap().as_str(), "dead.large-orders");
    }

    #[test]
    fn names_that_differ_in_full_stop_and_underscore_collide() {
        let name = |text: &str| TopicName::parse(text).unwrap();
        for (left, right, collide) in [
            ("a.b", "a_b", true),
            ("a.b", "a.b", false),
            ("a.b", "a-b", false),
            ("a.b_c", "a_b.c", true),
            ("a.b", "A_b", false),
        ] {
            assert_eq!(name(left).collides_with(&name(right)), collide, "{left} {right}");
        }
    }

    #[test]
    fn stored_names_are_checked_again() {
        assert!(serde_json::from_str::<TopicName>("\"a.b\"").is_ok());
        let error = serde_json::from_str::<TopicName>("\"a b\"").unwrap_err().to_string();
        assert!(error.contains("the topic name holds ' ' at byte 1"), "{error}");
    }

    proptest! {
        #[test]
        fn canonicalisation_is_idempotent(text in "[a-zA-Z0-9_./\\-]{0,20}") {
            if let Ok(name) = TopicName::from_edge(text.as_str()) {
                prop_assert_eq!(TopicName::from_edge(name.as_str()), Ok(name.clone()));
                prop_assert_eq!(TopicName::parse(name.as_str()), Ok(name.clone()));
                prop_assert!(!name.as_str().contains('/'));
                prop_assert_eq!(name.as_str().len(), text.len());
            }
        }

        #[test]
        fn whatever_is_taken_keeps_the_rules(text in "\\PC{0,12}") {
            if let Ok(name) = TopicName::from_edge(text.as_str()) {
                prop_assert!(name.as_str().split('.').all(|segment| !segment.is_empty()
                    && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')));
            }
        }

        #[test]
        fn collision_is_symmetric_and_never_with_itself(left in "[ab._]{1,5}", right in "[ab._]{1,5}") {
            if let (Ok(left), Ok(right)) = (TopicName::parse(left), TopicName::parse(right)) {
                prop_assert_eq!(left.collides_with(&right), right.collides_with(&left));
                prop_assert!(!left.collides_with(&left));
                let same = left.as_str().replace('.', "_") == right.as_str().replace('.', "_");
                prop_assert_eq!(left.collides_with(&right), same && left != right);
            }
        }
    }
}
