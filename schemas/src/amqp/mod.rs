//! The AMQP protocol binding (CloudEvents AMQP binding 1.0.2), on application properties, a content type and a body.
//!
//! In binary mode every attribute is a property `cloudEvents_NAME`, the content type is the message's own, and the payload is
//! the body. A content type `application/cloudevents...` tells structured mode. The binding is written for AMQP 1.0; in
//! AMQP 0.9.1 the properties are the header table, which RabbitMQ turns into application properties for clients of 1.0.
//!
//! Decisions where the specification leaves room: texts are written as texts, times too, because a time of AMQP 0.9.1 has
//! whole seconds only; a whole number and a truth value are written as what they are. Both prefixes are read, `cloudEvents_`
//! and `cloudEvents:`, but one in each message. An event without payload has the property [`NO_DATA`]; an empty body without
//! it is a payload that is empty. Bytes are the value of an extension; they are written as text, in base64, which every reader
//! of header tables takes. A property that is anything else than these is a fault where it belongs to the event. A whole number
//! as `time` counts milliseconds since 1970, as AMQP 1.0 counts times and libraries write them into header tables too. What
//! does not fit into binary mode is written in structured mode: see [`write()`].

mod read;
mod write;

pub use read::read;
pub use write::{Written, write, write_structured};

use bytes::Bytes;
use bytestring::ByteString;

/// What stands before an attribute's name.
const PREFIX: &str = "cloudEvents_";
/// What may stand there in messages of others.
const PREFIX_OF_OTHERS: &str = "cloudEvents:";
/// The property that an event without payload carries, with the value `true`.
pub const NO_DATA: &str = "tidegate-no-data";
/// The most bytes of a property's name, and of a content type.
const SHORT_BYTES: usize = 255;

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// Text.
    Text(ByteString),
    /// A truth value.
    Boolean(bool),
    /// A whole number of any width.
    Integer(i64),
    /// A time in seconds since 1970. Never written.
    Time(i64),
    /// Bytes. Never written.
    Binary(Bytes),
    /// Anything else, texts that are not in UTF-8 among it. Never written.
    Other,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Property, Written, read, write, write_structured};
    use crate::binding::testing::{assert_returned, events, structured_only};
    use crate::event::Data;
    use crate::limits::Limits;
    use crate::{Event, ReadError, Value};

    fn text(text: &str) -> Property {
        Property::Text(text.into())
    }

    fn read_back(written: &Written) -> Result<Option<Event>, ReadError> {
        let properties = written.properties.iter().map(|(name, value)| (&**name, value));
        read(properties, written.content_type.as_deref(), written.body.clone(), &Limits::default())
    }

    fn event() -> Event {
        Event::builder("\u{fc} 1", "/s", "t")
            .data_content_type("application/json")
            .extension("partitionkey", Value::String("100% \"k\"".into()))
            .extension("sampledrate", Value::Integer(3))
            .extension("urgent", Value::Boolean(true))
            .data(Data::Json(Bytes::from_static(b"{\"a\": 1}")))
            .build()
            .unwrap()
    }

    #[test]
    fn the_properties_of_binary_mode() {
        let written = write(&event());
        let properties: Vec<(&str, Property)> =
            written.properties.iter().map(|(name, value)| (&**name, value.clone())).collect();
        let expected = [
            ("cloudEvents_specversion", text("1.0")),
            ("cloudEvents_id", text("\u{fc} 1")),
            ("cloudEvents_source", text("/s")),
            ("cloudEvents_type", text("t")),
            ("cloudEvents_partitionkey", text("100% \"k\"")),
            ("cloudEvents_sampledrate", Property::Integer(3)),
            ("cloudEvents_urgent", Property::Boolean(true)),
        ];
        assert_eq!(properties, expected);
        assert_eq!(written.content_type.as_deref(), Some("application/json"));
        assert_eq!(&written.body[..], b"{\"a\": 1}");
    }

    #[test]
    fn both_modes_return() {
        assert_eq!(read_back(&write(&event())).unwrap(), Some(event()), "numbers and truth values have their types");
        assert_eq!(read_back(&write_structured(&event())).unwrap(), Some(event()));
        let nested = event().into_builder().data_content_type("application/cloudevents+json").build().unwrap();
        assert_eq!(read_back(&write(&nested)).unwrap(), Some(nested), "as its own payload it would be another event");
        let long = event().into_builder().data_content_type(format!("text/{}", "x".repeat(300)));
        let long = long.data(Data::Text("x".into())).build().unwrap();
        assert_eq!(read_back(&write(&long)).unwrap(), Some(long), "a content type that is too long for AMQP");
    }

    #[test]
    fn blanks_around_a_payload_return_in_both_modes() {
        for event in structured_only() {
            for written in [write(&event), write_structured(&event)] {
                assert_returned(&read_back(&written).unwrap().unwrap(), &event);
            }
        }
    }

    #[test]
    fn no_payload_and_an_empty_one_differ() {
        for data in [Data::None, Data::Binary(Bytes::new()), Data::Text("".into())] {
            for content_type in [None, Some("text/plain"), Some("application/json")] {
                let mut event = Event::builder("1", "/s", "t").data(data.clone());
                if let Some(content_type) = content_type {
                    event = event.data_content_type(content_type);
                }
                let event = event.build().unwrap();
                let seen = read_back(&write(&event)).unwrap().unwrap();
                assert_eq!(seen.data().is_none(), event.data().is_none(), "{event:?}");
            }
        }
    }

    #[test]
    fn what_means_to_be_an_event_must_be_one() {
        let read = |properties: &[(&str, Property)], content_type: Option<&str>, body: &'static str| {
            let properties = properties.iter().map(|(name, value)| (*name, value));
            read(properties, content_type, Bytes::from_static(body.as_bytes()), &Limits::default())
        };
        assert_eq!(read(&[], None, "{\"order\": 1}").unwrap(), None);
        assert_eq!(read(&[("trace", Property::Other)], Some("application/json"), "{}").unwrap(), None);
        let all = |prefix: &str| -> Vec<(String, Property)> {
            [("id", "1"), ("source", "/s"), ("type", "t"), ("specversion", "1.0")]
                .map(|(name, value)| (format!("{prefix}{name}"), text(value)))
                .to_vec()
        };
        for prefix in ["cloudEvents_", "cloudEvents:"] {
            let mut all = all(prefix);
            all.push((format!("{prefix}time"), Property::Time(0)));
            let all: Vec<(&str, Property)> = all.iter().map(|(name, value)| (&**name, value.clone())).collect();
            let seen = read(&all, None, "").unwrap().unwrap();
            assert_eq!(&**seen.id(), "1", "both prefixes are read");
            assert_eq!(seen.attribute("time").unwrap(), "1970-01-01T00:00:00Z");
        }
        for (milliseconds, time) in [(1_500, "1970-01-01T00:00:01.5Z"), (-1, "1969-12-31T23:59:59.999Z")] {
            let mut all = all("cloudEvents_");
            all.push(("cloudEvents_time".to_owned(), Property::Integer(milliseconds)));
            let all: Vec<(&str, Property)> = all.iter().map(|(name, value)| (&**name, value.clone())).collect();
            assert_eq!(read(&all, None, "").unwrap().unwrap().attribute("time").unwrap(), time);
        }
        let all = all("cloudEvents_");
        let all: Vec<(&str, Property)> = all.iter().map(|(name, value)| (&**name, value.clone())).collect();
        let with = |name: &'static str, value: Property| {
            let mut all = all.clone();
            all.push((name, value));
            all
        };
        let bytes = Bytes::from_static(&[0xff, 0]);
        let signed = with("cloudEvents_signature", Property::Binary(bytes.clone()));
        assert_eq!(
            read(&signed, None, "").unwrap().unwrap().extension("signature"),
            Some(&Value::Binary(bytes.clone()))
        );
        let faulty = [
            (with("cloudEvents_subject", Property::Binary(bytes)), None, "is bytes"),
            (all[..3].to_vec(), None, "specversion"),
            (with("cloudEvents_id", text("2")), None, "more than one header"),
            (with("cloudEvents:note", text("2")), None, "another prefix"),
            (with("cloudEvents_note", Property::Other), None, "is no text"),
            (with("cloudEvents_time", Property::Integer(i64::MAX)), None, "no calendar"),
            (Vec::new(), Some("application/cloudevents+json"), "expected value"),
            (Vec::new(), Some("application/cloudevents+avro"), "application/cloudevents+avro"),
        ];
        for (properties, content_type, reason) in faulty {
            let error = read(&properties, content_type, "x").unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn attributes_and_payload_return(event in events()) {
            assert_returned(&read_back(&write(&event)).unwrap().unwrap(), &event);
        }
    }
}
