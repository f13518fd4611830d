//! Dead letters: the original event, unchanged, in a topic of its own, with one more attribute that says why.

use std::sync::Arc;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tidegate_schemas::limits::{self, Limits};
use tidegate_schemas::{Event, Faults, Value};

/// The extension attribute that a dead letter carries beside those of the original event: a JSON text of [`Cause`].
pub const ATTRIBUTE: &str = "tidegatedeadletter";

/// Why an event could not be delivered, by a word that does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The sink said that the event is at fault.
    Rejected,
    /// The attempts or the time for them are used up.
    Exhausted,
    /// It came round in a circle of topics.
    Loop,
    /// Its `expirytime` passed before the sink took it.
    Expired,
}

impl Reason {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::Loop => "loop",
            Self::Expired => "expired",
        }
    }
}

/// Where a dead letter comes from and what happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cause {
    /// The subscription that could not deliver it.
    pub subscription: ByteString,
    /// The sink that was called.
    pub sink: String,
    /// Where the original is: topic,
    pub topic: ByteString,
    /// partition,
    pub partition: u32,
    /// and position.
    pub position: u64,
    /// Why.
    pub reason: Reason,
    /// What the sink answered last, where it did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// The beginning of that answer, or what went wrong.
    pub detail: String,
    /// Attempts that were made.
    pub attempts: u32,
    /// When the first one began, in milliseconds since 1970.
    pub first_attempt_at: u64,
    /// When the last one ended.
    pub last_attempt_at: u64,
    /// The letter that this one stands for, with an event that somebody edited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub edited_from: Option<String>,
}

/// The dead letter of an event. An event at its own limits still has room for its cause.
pub(super) fn letter(event: &Arc<Event>, mut cause: Cause) -> Result<Event, Faults> {
    truncate(&mut cause.detail, limits::CAUSE_EXCERPT_BYTES);
    let text =
        serde_json::to_string(&cause).expect("a cause is a struct of strings and numbers, which always serialises");
    let defaults = Limits::default();
    let room = ATTRIBUTE.len() + text.len();
    let limits = Limits {
        event_bytes: defaults.event_bytes + room,
        event_attributes_bytes: defaults.event_attributes_bytes + room,
        event_attributes: defaults.event_attributes + 1,
        ..defaults
    };
    Event::clone(event)
        .into_builder()
        .extension(ByteString::from_static(ATTRIBUTE), Value::String(text.into()))
        .build_within(&limits)
}

/// The original event of a dead letter, and its cause where it can be read.
pub fn open(letter: &Event) -> (Event, Option<Cause>) {
    let cause = match letter.extension(ATTRIBUTE) {
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        _ => None,
    };
    let original = letter.clone().into_builder().without_extension(ATTRIBUTE).build();
    (original.unwrap_or_else(|_| letter.clone()), cause)
}

fn truncate(text: &mut String, bytes_max: usize) {
    // A JSON text in an attribute: no control characters, which attributes may not have.
    *text = text.chars().map(|character| if is_refused(character) { ' ' } else { character }).collect();
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}

/// What CloudEvents 1.0 forbids in a String: control characters and noncharacters.
fn is_refused(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{fdd0}'..='\u{fdef}')
        || matches!(u32::from(character) & 0xffff, 0xfffe | 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_opens_to_the_event_that_it_was_made_of() {
        let event = Arc::new(Event::builder("1", "/s", "t").subject("x").build().unwrap());
        let cause = Cause {
            subscription: "s".into(),
            sink: "http://127.0.0.1:1/".into(),
            topic: "orders".into(),
            partition: 0,
            position: 7,
            reason: Reason::Rejected,
            status: Some(400),
            detail: format!("line\nbreak {} \u{fffe}", "ä".repeat(2_000)),
            attempts: 1,
            first_attempt_at: 1,
            last_attempt_at: 2,
            edited_from: None,
        };
        let letter = letter(&event, cause.clone()).unwrap();
        let (original, read) = open(&letter);
        assert_eq!(original, *event);
        let read = read.unwrap();
        assert!(read.detail.len() <= limits::CAUSE_EXCERPT_BYTES && read.detail.starts_with("line break"));
        assert_eq!(Cause { detail: cause.detail.clone(), ..read }, cause);
    }
}
