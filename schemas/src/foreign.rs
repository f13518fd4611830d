//! Records of a broker that are no CloudEvents, read as events all the same.
//!
//! Whoever attaches a topic of somebody else's finds what others wrote there. Such a record becomes an event that says so,
//! so that no filter, sink or reader meets anything but events; its bytes are the payload, untouched.
//!
//! | attribute | value |
//! |---|---|
//! | `type` | [`TYPE`] |
//! | `source` | `//BROKER/TOPIC`, percent-encoded where a URI needs it |
//! | `id` | `PARTITION-POSITION`: the same each time that the record is read |
//! | `datacontenttype` | the content type that the record came with, where it is a media type |
//! | `partitionkey` | the record's key, where it is text of at most [`KEY_BYTES_MAX`] |
//! | [`REASON`] | why the record is no CloudEvent |

use std::fmt::Write as _;

use bytes::Bytes;
use bytestring::ByteString;

use crate::event::{Data, Event, Value};
use crate::http::data_of;
use crate::limits::Limits;
use crate::media_type::MediaType;

/// The type of an event that stands for a record that is none.
pub const TYPE: &str = "dev.tidegate.foreign";
/// The extension attribute that says why.
pub const REASON: &str = "foreignreason";
/// The longest key that becomes a `partitionkey`.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// The most characters of a reason.
const REASON_CHARACTERS: usize = 300;

/// A record that is no CloudEvent, and why.
#[derive(Clone, Debug)]
pub struct Foreign<'a> {
    /// The kind of broker: `kafka`, `nats`.
    pub broker: &'a str,
    /// The topic, by the name that it has here.
    pub topic: &'a str,
    /// The partition.
    pub partition: u32,
    /// The position in it.
    pub position: u64,
    /// The key, where the record has one.
    pub key: Option<&'a [u8]>,
    /// The content type that came with the record.
    pub content_type: Option<&'a str>,
    /// The record's bytes; empty is no payload.
    pub body: Bytes,
    /// Why it is no CloudEvent, in one sentence without a full stop.
    pub reason: &'a str,
}

/// Whether an event stands for a record that is none.
pub fn is_foreign(event: &Event) -> bool {
    event.kind() == TYPE && event.extension(REASON).is_some()
}

/// The event that stands for the record. Always succeeds, and gives the same for the same record.
pub fn wrap(record: Foreign<'_>) -> Event {
    let Foreign { broker, topic, partition, position, key, content_type, body, reason } = record;
    let content_type = content_type.and_then(content_type_of);
    // The payload is what it is: what is nested too deep for a JSON payload stays bytes.
    let data = data_of(body.clone(), content_type, &Limits::default()).unwrap_or(Data::Binary(body));
    let mut builder = Event::builder(format!("{partition}-{position}"), source(broker, topic), TYPE)
        .extension(REASON, Value::String(text(reason)))
        .data(data);
    if let Some(content_type) = content_type {
        builder = builder.data_content_type(content_type);
    }
    if let Some(key) = key.and_then(key_text) {
        builder = builder.extension("partitionkey", Value::String(key));
    }
    // The record is there, however large it is.
    let limits = Limits { event_bytes: usize::MAX, event_attributes_bytes: usize::MAX, ..Limits::default() };
    builder.build_within(&limits).expect("every part was made to keep the rules")
}

/// A content type that came with a record, where it can be that of an event.
pub(crate) fn content_type_of(text: &str) -> Option<&str> {
    let text = text.trim_ascii();
    let is_plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    (is_plain && MediaType::parse(text).is_some()).then_some(text)
}

/// `//BROKER/NAME`, percent-encoded where a URI needs it.
pub fn source(broker: &str, topic: &str) -> String {
    let mut source = String::with_capacity(broker.len() + topic.len() + 3);
    for part in [broker, topic] {
        source.push_str(if source.is_empty() { "//" } else { "/" });
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                source.push(char::from(byte));
            } else {
                let _ = write!(source, "%{byte:02X}");
            }
        }
    }
    source
}

/// A reason without what no attribute may have, cut where it is long.
pub(crate) fn text(reason: &str) -> ByteString {
    let clean = reason.chars().map(|character| if is_text(character) { character } else { '?' });
    clean.take(REASON_CHARACTERS).collect::<String>().into()
}

fn key_text(key: &[u8]) -> Option<ByteString> {
    let text = std::str::from_utf8(key).ok()?;
    let fits = !text.is_empty() && text.len() <= KEY_BYTES_MAX && text.chars().all(is_text);
    fits.then(|| ByteString::from(text))
}

/// Whether a String of CloudEvents may have that character (CloudEvents 1.0, type system).
fn is_text(character: char) -> bool {
    let code = u32::from(character);
    !(character.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(body: &'static [u8]) -> Foreign<'static> {
        Foreign {
            broker: "nats",
            topic: "orders eu",
            partition: 3,
            position: 17,
            key: Some(b"customer-1"),
            content_type: Some("application/json"),
            body: Bytes::from_static(body),
            reason: "it has no header ce-id",
        }
    }

    #[test]
    fn a_record_becomes_an_event_that_says_so() {
        let event = wrap(record(b"{\"a\":1}"));
        assert!(is_foreign(&event));
        assert_eq!(event.id(), "3-17");
        assert_eq!(event.source(), "//nats/orders%20eu");
        assert_eq!(event.partition_key(), Some("customer-1"));
        assert_eq!(event.data_content_type().map(|text| &**text), Some("application/json"));
        assert_eq!(event.data(), &Data::Json(Bytes::from_static(b"{\"a\":1}")));
        assert_eq!(event.attribute(REASON).as_deref(), Some("it has no header ce-id"));
        let own = event.into_builder().without_extension(REASON).build().unwrap();
        assert!(!is_foreign(&own), "the type alone is anybody's");
    }

    #[test]
    fn what_is_no_text_is_left_out() {
        let no_key = wrap(Foreign { key: Some(b"\xff"), content_type: Some("no media type"), ..record(b"\xff\0") });
        assert_eq!((no_key.partition_key(), no_key.data_content_type()), (None, None));
        assert_eq!(no_key.data(), &Data::Binary(Bytes::from_static(b"\xff\0")));
        assert_eq!(wrap(Foreign { content_type: None, ..record(b"") }).data(), &Data::None);
    }

    proptest! {
        #[test]
        fn every_record_becomes_one(
            topic in ".{1,40}",
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
            content_type in prop::option::of(".{0,30}"),
            body in prop::collection::vec(any::<u8>(), 0..200),
            reason in ".{0,400}",
        ) {
            let event = wrap(Foreign {
                broker: "kafka",
                topic: &topic,
                partition: 0,
                position: u64::MAX,
                key: key.as_deref(),
                content_type: content_type.as_deref(),
                body: Bytes::from(body.clone()),
                reason: &reason,
            });
            prop_assert_eq!(event.data().as_bytes(), &body[..]);
            prop_assert!(is_foreign(&event));
        }
    }
}
