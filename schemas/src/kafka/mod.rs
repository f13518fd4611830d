//! The Kafka protocol binding (CloudEvents Kafka binding 1.0), on the headers, the key and the value of a record.
//!
//! In binary mode every attribute is a header `ce_NAME` in UTF-8, not percent-encoded, the content type is the header
//! `content-type`, and the payload is the value. A content type `application/cloudevents...` tells structured mode.
//!
//! Decisions where the specification leaves room: an event without payload is written with an empty value and the header
//! [`NO_DATA`], never with a null value, which a compacted topic would take for a deletion; a null value is read as no
//! payload; an empty value is a payload that is empty. The key of a record is the `partitionkey`, which stays an attribute
//! too; reading, the key adds nothing to an event. A header that stands twice, or has no value, is a fault. The name of the
//! header `content-type` counts without regard to letter case.

mod read;
mod write;

pub use read::{content_type, read};
pub use write::{Written, write, write_structured};

/// What stands before an attribute's name.
const PREFIX: &str = "ce_";
/// The header of the content type.
const CONTENT_TYPE: &str = "content-type";
/// The header that an event without payload carries, with the value `true`.
pub const NO_DATA: &str = "tidegate-no-data";

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Written, read, write, write_structured};
    use crate::binding::testing::{assert_returned, events, structured_only};
    use crate::event::Data;
    use crate::limits::Limits;
    use crate::{Event, ReadError, Value};

    type Headers<'a> = &'a [(&'a str, Option<&'a [u8]>)];

    fn read_back(written: &Written) -> Result<Option<Event>, ReadError> {
        let headers = written.headers.iter().map(|(name, value)| (&**name, Some(value.as_bytes().as_ref())));
        read(headers, Some(written.value.clone()), &Limits::default())
    }

    fn event() -> Event {
        Event::builder("\u{fc} 1", "/s", "t")
            .data_content_type("application/json")
            .extension("partitionkey", Value::String("100% \"k\"".into()))
            .extension("sampledrate", Value::Integer(3))
            .data(Data::Json(Bytes::from_static(b"{\"a\": 1}")))
            .build()
            .unwrap()
    }

    #[test]
    fn the_headers_of_binary_mode() {
        let written = write(&event());
        let headers: Vec<(&str, &str)> = written.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", "\u{fc} 1"),
            ("ce_source", "/s"),
            ("ce_type", "t"),
            ("content-type", "application/json"),
            ("ce_partitionkey", "100% \"k\""),
            ("ce_sampledrate", "3"),
        ];
        assert_eq!(headers, expected);
        assert_eq!(&written.value[..], b"{\"a\": 1}");
        assert_eq!(written.key.as_deref(), Some("100% \"k\""));
    }

    #[test]
    fn both_modes_return() {
        let binary = read_back(&write(&event())).unwrap().unwrap();
        assert_eq!(binary.extension("sampledrate"), Some(&Value::String("3".into())), "headers know strings only");
        assert_eq!((binary.id(), binary.data()), (event().id(), event().data()));
        assert_eq!(read_back(&write_structured(&event())).unwrap(), Some(event()));
        let nested = event().into_builder().data_content_type("application/cloudevents+json").build().unwrap();
        let seen = read_back(&write(&nested)).unwrap().unwrap();
        assert_eq!((seen.id(), seen.data_content_type()), (nested.id(), nested.data_content_type()));
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
        let written = write(&Event::builder("1", "/s", "t").build().unwrap());
        assert_eq!(written.value, Bytes::new(), "never a null value");
        let headers = written.headers.iter().map(|(name, value)| (&**name, Some(value.as_bytes().as_ref())));
        let deletion = read(headers, None, &Limits::default()).unwrap().unwrap();
        assert_eq!(deletion.data(), &Data::None, "a null value of others is no payload");
    }

    #[test]
    fn what_means_to_be_an_event_must_be_one() {
        let read = |headers: Headers<'_>, body: &'static str| {
            read(headers.iter().copied(), Some(Bytes::from_static(body.as_bytes())), &Limits::default())
        };
        assert_eq!(read(&[], "{\"order\": 1}").unwrap(), None);
        assert_eq!(read(&[("trace", Some(b"1")), ("content-type", Some(b"application/json"))], "{}").unwrap(), None);
        let all: [(&str, Option<&[u8]>); 4] = [
            ("ce_id", Some(b"1")),
            ("ce_source", Some(b"/s")),
            ("ce_type", Some(b"t")),
            ("ce_specversion", Some(b"1.0")),
        ];
        assert_eq!(&**read(&all, "").unwrap().unwrap().id(), "1");
        let faulty: [(Headers<'_>, &str); 6] = [
            (&all[..3], "specversion"),
            (&[all[0], all[0], all[1], all[2], all[3]], "more than one header"),
            (&[all[0], all[1], all[2], all[3], ("ce_note", None)], "without a value"),
            (&[all[0], all[1], all[2], all[3], ("ce_note", Some(b"\xff"))], "not UTF-8"),
            (&[("Content-Type", Some(b"application/cloudevents+json"))], "expected value"),
            (&[("content-type", Some(b"application/cloudevents+avro"))], "application/cloudevents+avro"),
        ];
        for (headers, reason) in faulty {
            let error = read(headers, "x").unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn attributes_and_payload_return(event in events()) {
            assert_returned(&read_back(&write(&event)).unwrap().unwrap(), &event);
        }

        #[test]
        fn reading_never_fails_otherwise(
            headers in prop::collection::vec(("(ce_[a-z]{1,8}|content-type|x)", prop::option::of(prop::collection::vec(any::<u8>(), 0..20))), 0..8),
            value in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        ) {
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
            let _ = read(headers, value.map(Bytes::from), &Limits::default());
        }
    }
}
