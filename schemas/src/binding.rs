//! What the bindings to brokers have in common.

use bytes::Bytes;
use bytestring::ByteString;

use crate::event::{Data, Event};
use crate::json;
use crate::media_type::MediaType;

/// The content type that a message tells: the event's own, or the one that its payload implies, which must be said elsewhere
/// than in JSON (CloudEvents 1.0, datacontenttype).
pub(crate) fn content_type(event: &Event) -> Option<ByteString> {
    match (&event.data_content_type, &event.data) {
        (Some(media_type), _) => Some(media_type.clone()),
        (None, Data::Json(_)) => Some(ByteString::from_static("application/json")),
        (None, Data::None | Data::Text(_) | Data::Binary(_)) => None,
    }
}

/// Whether binary mode would be read as something else, where an empty payload is told from none by other means: an event whose
/// content type begins with `application/cloudevents` would be taken for its own payload, and an empty text of another content
/// type than text for empty bytes.
pub(crate) fn is_ambiguous(event: &Event) -> bool {
    let media_type = event.data_content_type.as_deref().and_then(MediaType::parse);
    let empty_text = matches!(&event.data, Data::Text(text) if text.is_empty());
    media_type.is_some_and(|it| it.is_cloudevents()) || (empty_text && !media_type.is_some_and(|it| it.is_text()))
}

/// An event as a document of the JSON format that gives back its payload byte for byte. The format leaves out blanks around a
/// JSON text, so one that has them is written as base64.
pub(crate) fn structured(event: &Event) -> Bytes {
    match &event.data {
        Data::Json(json) if json.trim_ascii().len() != json.len() => {
            let mut exact = event.clone();
            exact.data_content_type = content_type(event);
            exact.data = Data::Binary(json.clone());
            json::to_bytes(&exact)
        }
        _ => json::to_bytes(event),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use bytes::Bytes;
    use proptest::prelude::*;

    use crate::event::Data;
    use crate::{Event, Value};

    /// Events of any text that attributes can have, with and without payload and content type.
    pub(crate) fn events() -> impl Strategy<Value = Event> {
        let content_type = prop::option::of(Just("application/xml"));
        let data = prop::option::of(prop::collection::vec(any::<u8>(), 0..64));
        // Some characters are no text of CloudEvents.
        ("\\PC{1,20}", "\\PC{0,40}", content_type, data).prop_filter_map(
            "no event",
            |(id, value, content_type, data)| {
                let mut event = Event::builder(id, "/s", "t").extension("note", Value::String(value.into()));
                if let Some(content_type) = content_type {
                    event = event.data_content_type(content_type);
                }
                if let Some(data) = data {
                    event = event.data(Data::Binary(data.into()));
                }
                event.build().ok()
            },
        )
    }

    /// Events that no binding with a short content type carries in binary mode, with a payload that the JSON format would trim.
    pub(crate) fn structured_only() -> Vec<Event> {
        let json = Data::Json(Bytes::from_static(b"\n {\"a\" : 1}\r\n"));
        let long = format!("application/json;profile=\"{}\"", "x".repeat(300));
        let with = |content_type: &str| {
            let event = Event::builder("1", "/s", "t").extension("note", Value::String("n".into()));
            event.data_content_type(content_type).data(json.clone()).build().unwrap()
        };
        vec![with("application/cloudevents+json"), with(&long)]
    }

    /// What was read back has the attributes and the payload of what was written.
    pub(crate) fn assert_returned(seen: &Event, event: &Event) {
        assert_eq!(seen.data().as_bytes(), event.data().as_bytes());
        assert_eq!(seen.data().is_none(), event.data().is_none());
        for name in ["id", "note", "datacontenttype"] {
            assert_eq!(seen.attribute(name), event.attribute(name));
        }
    }
}
