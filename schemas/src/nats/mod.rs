//! The NATS protocol binding (CloudEvents NATS binding 1.0.3), on header fields and a body.
//!
//! In binary mode every attribute is a header `ce-NAME`, percent-encoded as in HTTP, `datacontenttype` among them, and the
//! payload is the body. A header `Content-Type: application/cloudevents...` tells structured mode. A message without any
//! header may be an event in the JSON format, as servers and clients without headers send it.
//!
//! Decisions where the specification leaves room: names of headers count without regard to letter case; a header that
//! stands twice is a fault; a message with any `ce-` header is meant as an event and must be a whole one; a malformed `%`
//! stands for itself. An empty body is no payload, so an event whose payload is there and empty is written in structured
//! mode, which can tell the two apart.

mod read;
mod write;

pub use read::read;
pub use write::{Written, write, write_structured};

/// What stands before an attribute's name.
const PREFIX: &str = "ce-";
/// The header that tells structured mode.
const CONTENT_TYPE: &str = "Content-Type";

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Written, read, write, write_structured};
    use crate::binding::testing::{assert_returned, events, structured_only};
    use crate::event::Data;
    use crate::limits::Limits;
    use crate::{Event, ReadError, Value};

    fn read_back(written: &Written) -> Result<Option<Event>, ReadError> {
        let headers = written.headers.iter().map(|(name, value)| (&**name, &**value));
        read(headers, written.body.clone(), &Limits::default())
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
            ("ce-specversion", "1.0"),
            ("ce-id", "%C3%BC%201"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
            ("ce-datacontenttype", "application/json"),
            ("ce-partitionkey", "100%25%20%22k%22"),
            ("ce-sampledrate", "3"),
        ];
        assert_eq!(headers, expected);
        assert_eq!(&written.body[..], b"{\"a\": 1}");
    }

    #[test]
    fn both_modes_return() {
        let binary = read_back(&write(&event())).unwrap().unwrap();
        assert_eq!(binary.extension("sampledrate"), Some(&Value::String("3".into())), "headers know strings only");
        assert_eq!((binary.id(), binary.data()), (event().id(), event().data()));
        assert_eq!(read_back(&write_structured(&event())).unwrap(), Some(event()));
        let bare = write_structured(&event());
        let found = read(std::iter::empty(), bare.body, &Limits::default()).unwrap();
        assert_eq!(found, Some(event()), "a message without headers is read as JSON");
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
    fn an_empty_payload_is_one() {
        for data in [Data::None, Data::Binary(Bytes::new())] {
            let event = Event::builder("1", "/s", "t").data(data).build().unwrap();
            assert_eq!(read_back(&write(&event)).unwrap(), Some(event));
        }
    }

    #[test]
    fn what_means_to_be_an_event_must_be_one() {
        let read = |headers: &[(&str, &str)], body: &'static str| {
            read(headers.iter().copied(), Bytes::from_static(body.as_bytes()), &Limits::default())
        };
        assert_eq!(read(&[("Nats-Msg-Id", "1")], "text").unwrap(), None);
        assert_eq!(read(&[], "{\"order\": 1}").unwrap(), None);
        assert_eq!(read(&[("Content-Type", "application/json")], "{}").unwrap(), None);
        let all = [("CE-Id", "1"), ("Ce-Source", "/s"), ("ce-type", "t"), ("ce-specversion", "1.0")];
        assert_eq!(&**read(&all, "").unwrap().unwrap().id(), "1", "names count without regard to letter case");
        let faulty: [(&[(&str, &str)], &str); 4] = [
            (&all[..3], "specversion"),
            (&[all[0], all[0], all[1], all[2], all[3]], "more than one header"),
            (&[("content-type", "application/cloudevents+json")], "expected value"),
            (&[("content-type", "application/cloudevents-batch+json")], "application/cloudevents-batch+json"),
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
    }
}
