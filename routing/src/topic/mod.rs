//! The names of topics and the patterns that subscriptions use for them.
//!
//! A name has one canonical form, which is the only one that is stored, compared or given to a broker: letters and
//! digits of ASCII, `_` and `-`, in segments joined by `.`, at most [`TOPIC_NAME_BYTES`] bytes, case-sensitive. Callers
//! at the edge may write `/` for `.`; [`TopicName::from_edge`] is the one place where that is undone.

mod name;
mod pattern;

pub use name::{DEAD_LETTER_PREFIX, RESERVED_PREFIXES, TopicName};
pub use pattern::TopicPattern;

use tidegate_schemas::limits::TOPIC_NAME_BYTES;

/// Why a text is no topic name or no topic pattern, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing was given.
    #[error("is empty; give it a name such as `orders.placed`")]
    Empty,
    /// More bytes than a name may have.
    #[error("has {bytes} bytes and may have {TOPIC_NAME_BYTES}; shorten it")]
    TooLong {
        /// The bytes that it has.
        bytes: usize,
    },
    /// Two separators in a row, or one at an end.
    #[error("has an empty segment at byte {at}; write `.` only between two segments")]
    EmptySegment {
        /// The offset of the separator that nothing follows or nothing precedes.
        at: usize,
    },
    /// A character that no name may hold.
    #[error("holds {character:?} at byte {at}; use only the letters A to Z and a to z, digits, `_`, `-` and `.`")]
    Character {
        /// The character.
        character: char,
        /// Its offset in bytes.
        at: usize,
    },
    /// A wildcard where a name was asked for.
    #[error("holds a wildcard at byte {at}, and a single topic is needed here; name the topic")]
    Wildcard {
        /// Its offset in bytes.
        at: usize,
    },
    /// A wildcard that shares its segment with other text.
    #[error("holds a wildcard at byte {at} beside other text; a wildcard stands for a whole segment, as in `orders.*`")]
    PartialWildcard {
        /// The offset of the segment.
        at: usize,
    },
    /// `**` before the end.
    #[error("holds `**` at byte {at} before its end; `**` stands for the rest and may only be the last segment")]
    RestNotLast {
        /// The offset of the segment.
        at: usize,
    },
    /// A pattern that asks for topics which no wildcard reaches.
    #[error("can never match: wildcards do not reach topics under `{prefix}`; name the topic instead")]
    Unreachable {
        /// The beginning of the names that wildcards leave out, with its `.`.
        prefix: &'static str,
    },
}

/// Checks one segment-wise text; `wildcards` tells whether `*` and `**` may stand for segments.
fn check(text: &str, wildcards: bool) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_NAME_BYTES {
        return Err(TopicError::TooLong { bytes: text.len() });
    }
    let mut at = 0;
    let mut segments = text.split('.').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() {
            // The separator that is at fault stands before an empty last segment and behind any other.
            return Err(TopicError::EmptySegment { at: if at == text.len() { at - 1 } else { at } });
        }
        if wildcards && (segment == "*" || segment == "**") {
            if segment == "**" && segments.peek().is_some() {
                return Err(TopicError::RestNotLast { at });
            }
        } else {
            for (offset, character) in segment.char_indices() {
                let at_character = at + offset;
                match character {
                    'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-' => {}
                    '*' if wildcards => return Err(TopicError::PartialWildcard { at }),
                    '*' => return Err(TopicError::Wildcard { at: at_character }),
                    _ => return Err(TopicError::Character { character, at: at_character }),
                }
            }
        }
        at += segment.len() + 1;
    }
    Ok(())
}
